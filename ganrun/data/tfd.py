"""The Toronto Face Database, read from its authors' MATLAB file."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ganrun.data.dataset import Dataset, Split, image_spec
from ganrun.data.faces import EXPRESSIONS, FOLDS, SIDE, check_fold

FILE = "TFD_48x48.mat"
UNLABELED, TRAIN, VALID, TEST = range(4)  # values in the field `folds`
FIELDS = ("images", "folds", "labs_ex")


def tfd(root: str, fold: int = 0, train: Literal["unlabeled", "labeled"] = "unlabeled") -> Dataset:
    """The Toronto Face Database, registered faces of 48x48 gray. Susskind, Anderson and Hinton 2010.

    102,236 images, of which 4,178 are labeled with one of seven expressions. `fold` in 0..4 selects one of the
    published splits of the labeled images; its validation and test images are used. train: "unlabeled", the other
    98,058 images, the same in every fold and without classes, as in Goodfellow et al. 2014; or "labeled", the training
    images of the fold, with classes.

    Reads TFD_48x48.mat in `root` or root/TFD, which is not public and has no published md5. Raises ValueError if it is
    missing, is not a MATLAB file of version 5 to 7, or has other contents.
    """
    check_fold(fold)
    images, folds, expressions = _read(root, _find(root))

    def split(number: int) -> Split:
        rows = np.flatnonzero(folds[:, fold] == number)
        if not len(rows):
            raise _wrong(root, f"has no {number} in column {fold} of folds, so a split would be empty")
        x = torch.from_numpy(np.ascontiguousarray(images[rows]))[:, None]  # (N, 1, 48, 48)
        return Split(x, None if train == "unlabeled" else _labels(root, expressions[rows]))

    first = split(UNLABELED if train == "unlabeled" else TRAIN)
    spec = image_spec(first.x, () if train == "unlabeled" else EXPRESSIONS)
    return Dataset(spec, first, split(VALID), split(TEST))


def _find(root: str) -> Path:
    for path in (Path(root, FILE), Path(root, "TFD", FILE)):
        if path.is_file():
            return path
    raise ValueError(
        f"data.root={root}: no TFD there ({Path(root, FILE)} is missing), and it is not public; put a copy there, "
        "or use data=fer2013, data=olivetti or data=faces, whose numbers cannot be compared with TFD's."
    )


def _read(root: str, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """images (N, 48, 48) uint8, folds (N, 5) and expressions (N,)."""
    from scipy.io import loadmat

    with path.open("rb") as file:
        if b"\x89HDF" in file.read(520):  # HDF5's signature, which MATLAB writes at byte 512
            raise _wrong(root, "is in MATLAB's version 7.3 (HDF5)", "save it with MATLAB's option -v7")
    try:
        found = loadmat(path, variable_names=FIELDS)
    except Exception as error:  # scipy may raise any type for a damaged file
        raise _wrong(root, f"cannot be read ({(str(error) or type(error).__name__).splitlines()[0]})") from error
    for name in FIELDS:
        if name not in found:
            raise _wrong(root, f"has no field {name}")
    images, folds, expressions = (found[name] for name in FIELDS)
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise _wrong(root, f"holds images {_shape(images)}, not N x {SIDE} x {SIDE}")
    if images.dtype != np.uint8:
        raise _wrong(root, f"holds images of {images.dtype}, not uint8", "in MATLAB, save images = uint8(images)")
    if folds.shape != (len(images), FOLDS):
        raise _wrong(root, f"holds folds {_shape(folds)}, not {len(images)} x {FOLDS}")
    if expressions.size != len(images):
        raise _wrong(root, f"holds labs_ex {_shape(expressions)}, not {len(images)} x 1")
    return images, folds, expressions.reshape(-1)


def _labels(root: str, expressions: np.ndarray) -> torch.Tensor:
    """Labels in 0..6. The file has 1..7, and -1 for unlabeled images."""
    if not np.isin(expressions, range(1, len(EXPRESSIONS) + 1)).all():
        raise _wrong(root, f"has a labeled image whose labs_ex is not in 1..{len(EXPRESSIONS)}")
    return torch.from_numpy(expressions.astype(np.int64) - 1)


def _shape(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))


def _wrong(root: str, what: str, remedy: str = "use the authors' own file") -> ValueError:
    return ValueError(f"data.root={root}: {FILE} there {what}; {remedy}.")
