"""The Olivetti faces, as scikit-learn keeps them."""

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, Split, image_spec
from ganrun.data.faces import SIDE, by_fold, check_fold

log = logging.getLogger("ganrun")

FILE = "olivetti_py3.pkz"
PEOPLE, EACH = 40, 10
BRIGHTEST = 242  # of the stored bytes, which scikit-learn scales to [0, 1]
PIXELS_MD5 = "fdb1ed558795305585a78fe74924e0aa"  # of the bytes (400, 64, 64); the file's own md5 depends on its writer


def olivetti(
    root: str,
    download: bool = True,
    verify: bool = True,
    held_out: Literal["people", "images"] = "people",
    fold: int = 0,
) -> Dataset:
    """400 gray faces, ten of each of 40 people, 64x64 brought to 48x48 by Lanczos. Samaria and Harter 1994.

    `fold` in 0..4 is one of five divisions into 280, 40 and 80 (`by_fold`). Of held-out people no image is trained on,
    as a person's ten are nearly alike: without that a memory of them would be rewarded. With held_out=images each
    person has seven images to train, one for validation and two to test; then the people are the classes.

    Read by scikit-learn from `root` or root/olivetti, where it is downloaded to. The file is a pickle: take it from
    where you trust. Raises ValueError where it is missing and cannot be downloaded, where it is damaged, and where its
    pixels are others and `verify` is set.
    """
    check_fold(fold)
    faces = _read(root, download)
    _check_pixels(root, faces, verify)
    person, image = torch.arange(len(faces)) // EACH, torch.arange(len(faces)) % EACH
    if held_out == "people":  # their labels would be of no use: a class is either trained or tested
        train, valid, test = by_fold(Split(_resized(faces)), person % 10, fold)
        return Dataset(image_spec(train.x, ()), train, valid, test)
    train, valid, test = by_fold(Split(_resized(faces), person), image, fold)
    return Dataset(image_spec(train.x, [str(k) for k in range(PEOPLE)]), train, valid, test)


def _read(root: str, download: bool) -> np.ndarray:
    """The stored bytes (400, 64, 64), upright, ten of one person in a row."""
    from sklearn.datasets import fetch_olivetti_faces

    home = next((folder for folder in (Path(root, "olivetti"), Path(root)) if (folder / FILE).is_file()), None)
    if home is None and not download:
        raise ValueError(
            f"data.root={root}: no Olivetti faces there ({Path(root, 'olivetti', FILE)} is missing). "
            "Run once with data.download=true, or point data.root at scikit-learn's data folder."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each new attempt at the download is one
            bunch = fetch_olivetti_faces(data_home=home or Path(root, "olivetti"), download_if_missing=home is None)
    except Exception as error:  # a damaged pickle raises anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ValueError(
            f"data.root={root}: {home / FILE} cannot be read ({reason}); remove it, or use a copy."
            if home
            else f"data.root={root}: no Olivetti faces there, and the download failed ({reason}). "
            f"Put scikit-learn's {FILE} into {Path(root, 'olivetti')}."
        ) from error
    faces: np.ndarray = np.rint(bunch.images * BRIGHTEST).astype(np.uint8)
    return faces


def _check_pixels(root: str, faces: np.ndarray, verify: bool) -> None:
    if not verify:
        log.warning("data.verify=false: the pixels of Olivetti are not checked; name the copy beside its numbers.")
    elif hashlib.md5(faces.tobytes(), usedforsecurity=False).hexdigest() != PIXELS_MD5:
        raise ValueError(
            f"data.root={root}: the faces there are not the published ones (the md5 of their pixels differs). "
            "For a copy that was changed on purpose, add data.verify=false."
        )


def _resized(faces: np.ndarray) -> Tensor:
    """(N, 64, 64) uint8 -> (N, 1, 48, 48) uint8"""
    from PIL import Image

    small = [np.asarray(Image.fromarray(face).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for face in faces]
    return torch.from_numpy(np.stack(small))[:, None]
