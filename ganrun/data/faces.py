"""FER2013, faces of 48x48 gray pixels, and the division of a data set into five folds, as in TFD."""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, Split, image_spec
from ganrun.data.published import check_md5s, checked, read_idx, reason_of

SIDE, FOLDS = 48, 5
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = ("Training", "PublicTest", "PrivateTest")

# Published as fer2013.csv and icml_face_data.csv (the md5s are torchvision's). The idx files hold the same pixels.
FER2013_CSV = {
    "fer2013.csv": "f8428a1edbd21e88f42c73edd2a14f95",
    "icml_face_data.csv": "b114b9e04e6949e5fe8b6a98b3892b1d",
}
FER2013_IDX = {
    "train-images-idx3-ubyte": "894512b54fa3d7a714c01f8129a780e2",
    "train-labels-idx1-ubyte": "5fe4fe4a9b5949cea87e122430e0bd8a",
    "t10k-images-idx3-ubyte": "1d9d2eaf54cb2469d5c9a5d07cb51a52",
    "t10k-labels-idx1-ubyte": "d5b231812b2c2d3347ffe77f77a18727",
}


def fer2013(root: str, verify: bool = True, fold: int | None = None) -> Dataset:
    """FER2013, 48x48 gray, seven expressions. Goodfellow et al. 2013.

    The published splits, in their order, have 28,709 training, 3,589 validation (PublicTest) and 3,589 test images
    (PrivateTest); 288 of the test images are exact copies of training images. With `fold` in 0..4, all 35,887 images
    are split again (`by_fold`), by a hash of their content, so that copies of an image are in the same split.

    Reads the first of these that exists: FER2013Idx/raw (MNIST's format; the training files hold Training, the t10k
    files PublicTest, then PrivateTest), fer2013.csv or icml_face_data.csv, in `root` or root/fer2013.
    Raises ValueError if there is none, if a file is damaged, or if its md5 differs and `verify` is set.
    """
    check_fold(fold)
    files, read = _find_fer2013(Path(root))
    check_md5s("FER2013", root, files, verify)
    try:
        splits = read(list(files))
    except Exception as error:  # torchvision's reader may raise any type for a damaged file
        raise ValueError(
            f"data.root={root}: FER2013 there cannot be read ({reason_of(error)}); remove it, or use another copy."
        ) from error
    if fold is not None:
        every = Split(torch.cat([s.x for s in splits]), torch.cat([s.y for s in splits if s.y is not None]))
        splits = by_fold(every, _parts_by_content(every.x), fold)
    train, valid, test = splits
    return Dataset(image_spec(train.x, EXPRESSIONS), train, valid, test)


def check_fold(fold: int | None) -> None:
    if fold not in (None, *range(FOLDS)):
        raise ValueError(f"data.fold={fold}: must be 0, 1, 2, 3 or 4.")


def by_fold(data: Split, parts: Tensor, fold: int) -> list[Split]:
    """The training, validation and test split of one of five folds. parts: each example's part (N,), in 0..9.

    Two parts are for testing, so that each example is tested in one fold only; the next part is for validation, and the
    other seven are for training.
    """
    test, valid = parts // 2 == fold, parts == (2 * fold + 2) % (2 * FOLDS)
    return [data[~(test | valid)], data[valid], data[test]]


def _parts_by_content(x: Tensor) -> Tensor:
    """Each image's part (N,), in 0..9: the tenth of all sorted, distinct md5s that contains its own md5."""
    digests = [hashlib.md5(image.tobytes(), usedforsecurity=False).digest() for image in x.numpy()]
    rank = {digest: i for i, digest in enumerate(sorted(set(digests)))}
    return torch.tensor([rank[digest] * 2 * FOLDS // len(rank) for digest in digests])


def _find_fer2013(root: Path) -> tuple[dict[Path, str], Callable[[list[Path]], list[Split]]]:
    """The files to read with their md5s, and the function that reads them."""
    idx = {root / "FER2013Idx" / "raw" / name: md5 for name, md5 in FER2013_IDX.items()}
    missing = [path for path in idx if not path.is_file()]
    if not missing:
        return idx, _read_idx
    for name, md5 in FER2013_CSV.items():
        for path in (root / name, root / "fer2013" / name):
            if path.is_file():
                return {path: md5}, _read_csv
    if len(missing) < len(idx):
        raise ValueError(
            f"data.root={root}: FER2013 there is incomplete ({missing[0]} is missing); add the missing files."
        )
    raise ValueError(
        f"data.root={root}: no FER2013 there, and the download from kaggle.com needs an account; put fer2013.csv or "
        f"icml_face_data.csv into {root / 'fer2013'}, or its four idx files into {root / 'FER2013Idx' / 'raw'}."
    )


def _read_idx(paths: list[Path]) -> list[Split]:
    train, held_out = (
        read_idx(images, labels, (SIDE, SIDE), len(EXPRESSIONS))
        for images, labels in zip(paths[::2], paths[1::2], strict=True)
    )
    half = len(held_out) // 2
    return [train, held_out[:half], held_out[half:]]


def _read_csv(paths: list[Path]) -> list[Split]:
    """The rows of each usage: emotion is the label, pixels are 2,304 numbers in 0..255, columns are in any order."""
    rows: dict[str, list[tuple[bytes, int]]] = {usage: [] for usage in USAGES}
    with paths[0].open(newline="") as file:
        reader = csv.reader(file)
        names = [name.strip() for name in next(reader, [])]
        if not {"emotion", "pixels", "Usage"} <= set(names):
            raise ValueError("its first line does not name emotion, pixels and Usage")
        for cells in reader:
            row = dict(zip(names, cells, strict=False))
            try:
                pixels = bytes(map(int, row["pixels"].split()))
                rows[row["Usage"]].append((pixels, int(row["emotion"])))
            except (KeyError, ValueError):
                raise ValueError(f"line {reader.line_num} is not a row of emotion, pixels and Usage") from None
            if len(pixels) != SIDE**2:
                raise ValueError(f"line {reader.line_num} has {len(pixels)} pixels, not {SIDE**2}")
    for usage, found in rows.items():
        if not found:
            raise ValueError(f"it has no {usage} rows")
    return [_of_rows(found) for found in rows.values()]


def _of_rows(rows: list[tuple[bytes, int]]) -> Split:
    x = torch.frombuffer(bytearray(b"".join(pixels for pixels, _ in rows)), dtype=torch.uint8)
    y = torch.tensor([label for _, label in rows])
    return checked(Split(x.view(-1, 1, SIDE, SIDE), y), (1, SIDE, SIDE), len(EXPRESSIONS))
