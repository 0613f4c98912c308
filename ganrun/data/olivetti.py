"""The Olivetti faces, read by scikit-learn."""

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
from ganrun.data.pickles import arrays_only

log = logging.getLogger("ganrun")

FILE = "olivetti_py3.pkz"
PEOPLE, EACH = 40, 10
BRIGHTEST = 242  # highest of the stored bytes, which scikit-learn scales to [0, 1]
PIXELS_MD5 = "fdb1ed558795305585a78fe74924e0aa"  # of the bytes (400, 64, 64); the file's own md5 depends on its writer


def olivetti(
    root: str,
    download: bool = True,
    verify: bool = True,
    held_out: Literal["people", "images"] = "people",
    fold: int = 0,
) -> Dataset:
    """400 gray faces, ten of each of 40 people, resized from 64x64 to 48x48 (Lanczos). Samaria and Harter 1994.

    `fold` in 0..4 selects one of five splits into 280, 40 and 80 images (`by_fold`). held_out=people: no person is in
    two splits. The ten images of a person are nearly alike, so memorized ones would otherwise score well.
    held_out=images: each person has seven training, one validation and two test images, and the people are the classes.

    scikit-learn reads the file from `root` or root/olivetti, and downloads it to root/olivetti. It is a pickle, of
    which only arrays are read. Raises ValueError if the file is missing and cannot be downloaded, if it is damaged,
    or if its pixels are not the published ones and `verify` is set.
    """
    check_fold(fold)
    faces = _read(root, download)
    _check_pixels(root, faces, verify)
    person, image = torch.arange(len(faces)) // EACH, torch.arange(len(faces)) % EACH
    if held_out == "people":  # without labels, as each class would be in one split only
        train, valid, test = by_fold(Split(_resized(faces)), person % 10, fold)
        return Dataset(image_spec(train.x, ()), train, valid, test)
    train, valid, test = by_fold(Split(_resized(faces), person), image, fold)
    return Dataset(image_spec(train.x, [str(k) for k in range(PEOPLE)]), train, valid, test)


def _read(root: str, download: bool) -> np.ndarray:
    """The stored bytes (400, 64, 64), upright, the ten images of a person in a row."""
    from sklearn.datasets import fetch_olivetti_faces

    home = next((folder for folder in (Path(root, "olivetti"), Path(root)) if (folder / FILE).is_file()), None)
    if home is None and not download:
        raise ValueError(
            f"data.root={root}: no Olivetti faces there ({Path(root, 'olivetti', FILE)} is missing). "
            "Run once with data.download=true, or point data.root at scikit-learn's data folder."
        )
    try:
        with warnings.catch_warnings(), arrays_only():
            warnings.simplefilter("ignore")  # one for each retry of the download
            bunch = fetch_olivetti_faces(data_home=home or Path(root, "olivetti"), download_if_missing=home is None)
    except Exception as error:  # a damaged pickle may raise any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ValueError(
            f"data.root={root}: {home / FILE} cannot be read ({reason}); remove it, or use another copy."
            if home
            else f"data.root={root}: no Olivetti faces there, and the download failed ({reason}). "
            f"Put scikit-learn's {FILE} into {Path(root, 'olivetti')}."
        ) from error
    faces: np.ndarray = np.rint(bunch.images * BRIGHTEST).astype(np.uint8)
    return faces


def _check_pixels(root: str, faces: np.ndarray, verify: bool) -> None:
    if not verify:
        log.warning("data.verify=false: the pixels of Olivetti are not checked; say so where you report results.")
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
