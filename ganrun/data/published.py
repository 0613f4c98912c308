"""MNIST, stacked MNIST and CIFAR-10: read and downloaded by torchvision, verified against their published md5s."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ganrun.data.dataset import Dataset, Split, image_spec, split_last
from ganrun.data.pickles import arrays_only
from ganrun.data.seeds import generator

log = logging.getLogger("ganrun")

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# md5s of the unpacked files in MNIST/raw; torchvision only checks the archives that it downloads.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def mnist(root: str, download: bool = True, verify: bool = True, num_valid: int = 10000) -> Dataset:
    """MNIST, 28x28 gray, ten classes. LeCun et al. 1998. The last `num_valid` training images are for validation.

    Raises ValueError if it is not in `root` and cannot be downloaded, or if its md5s are not the published ones and
    `verify` is set.
    """
    from torchvision.datasets import MNIST

    files = {Path(root, "MNIST", "raw", name): md5 for name, md5 in MNIST_MD5.items()}
    _obtain("MNIST", root, files, lambda: MNIST(root, download=True), download, verify)
    train_images, train_labels, test_images, test_labels = files

    def read(train: bool) -> Split:
        images, labels = (train_images, train_labels) if train else (test_images, test_labels)
        return read_idx(images, labels, (28, 28), 10)

    return _split("MNIST", root, read, num_valid, "0123456789")


def stacked_mnist(
    root: str, download: bool = True, verify: bool = True, num_valid: int = 10000, num: int = 128000, seed: int = 0
) -> Dataset:
    """Stacked MNIST: three random digits in red, green and blue, 28x28, so 1,000 modes, which are the classes.

    Metz et al. 2017, arXiv:1611.02163, section 3.3.1. num: training images; the default is that of the authors' code of
    Lin et al. 2018 (PacGAN), arXiv:1712.04086. Each split is made of digits of MNIST's split of that name; validation
    and test have as many images as that. The class names the digits, as in "407" for a red 4, a green 0 and a blue 7.

    Image i has the digits i, i + 1 and i + 2 of a random sequence, a function of `seed`, as its channels. So each image
    alone is three independent draws, and `x` is a view of the sequence, with the memory of one channel.
    Raises ValueError as `mnist` does.
    """
    if num < 1:
        raise ValueError(f"data.num={num}: must be at least 1.")
    digits = mnist(root, download, verify, num_valid)
    sizes = {"train": num, "valid": len(digits.valid), "test": len(digits.test)}
    train, valid, test = (
        _stacked(split, sizes[name], seed, f"stacked {name}") for name, split in digits.splits().items()
    )
    return Dataset(image_spec(train.x, [f"{k:03d}" for k in range(1000)]), train, valid, test)


def _stacked(digits: Split, num: int, seed: int, purpose: str) -> Split:
    """`num` images (num, 3, H, W), a view of num + 2 digits, and their labels."""
    assert digits.y is not None, "MNIST has labels"
    if not len(digits):
        return Split(digits.x.expand(-1, 3, -1, -1), digits.y)
    index = torch.randint(len(digits), (num + 2,), generator=generator(seed, purpose))
    x, y = digits.x[index, 0].unfold(0, 3, 1), digits.y[index].unfold(0, 3, 1)  # (num, H, W, 3), (num, 3)
    return Split(x.permute(0, 3, 1, 2), y @ torch.tensor([100, 10, 1]))


def cifar10(root: str, download: bool = True, verify: bool = True, num_valid: int = 10000) -> Dataset:
    """CIFAR-10, 32x32 RGB, ten classes. Krizhevsky 2009. The last `num_valid` training images are for validation.

    Raises ValueError as `mnist` does.
    """
    from torchvision.datasets import CIFAR10

    class Reader(CIFAR10):  # type: ignore[misc]
        def _check_integrity(self) -> bool:  # `_obtain` has checked the files
            return True

        def _load_meta(self) -> None:  # the class names are above
            pass

    def read(train: bool) -> Split:
        with arrays_only():
            source = Reader(root, train=train)
        x = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()  # (N, 3, 32, 32)
        return checked(Split(x, torch.tensor(source.targets)), (3, 32, 32), 10)

    folder = Path(root, CIFAR10.base_folder)
    files = {folder / name: md5 for name, md5 in [*CIFAR10.train_list, *CIFAR10.test_list]}
    _obtain("CIFAR-10", root, files, lambda: CIFAR10(root, download=True), download, verify)
    return _split("CIFAR-10", root, read, num_valid, CIFAR10_CLASSES)


def _obtain(
    name: str, root: str, files: dict[Path, str], fetch: Callable[[], Any], download: bool, verify: bool
) -> None:
    """Download `files` if they are missing, and check their md5s. Never overwrites an existing file."""
    missing = [path for path in files if not path.exists()]
    if missing and len(missing) < len(files):
        raise ValueError(
            f"data.root={root}: {name} there is incomplete ({missing[0]} is missing). "
            "Complete or remove it: a download would overwrite the rest."
        )
    if missing and not download:
        raise ValueError(
            f"data.root={root}: no {name} there ({missing[0]} is missing). "
            "Run once with data.download=true, or point data.root at it."
        )
    if missing:
        try:
            fetch()
        except (RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"data.root={root}: no {name} there, and the download failed ({reason}). "
                "Point data.root or GANRUN_DATA at a copy."
            ) from error
    check_md5s(name, root, files, verify)


def check_md5s(name: str, root: str, files: dict[Path, str], verify: bool) -> None:
    """Raise ValueError for a file with a wrong md5. Without `verify`, check nothing and warn."""
    if not verify:
        log.warning("data.verify=false: the md5s of %s are not checked; say so where you report results.", name)
        return
    for path, md5 in files.items():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
        if found != md5:
            raise ValueError(
                f"data.root={root}: {path} is not the published file (its md5 differs). "
                "For a copy that was re-encoded on purpose, add data.verify=false."
            )


def read_idx(images: Path, labels: Path, side: tuple[int, int], num_classes: int) -> Split:
    """The split x (N, 1, *side), y (N,) in two files of MNIST's format. Raises ValueError if they are damaged."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    found = []
    for path, read in ((images, read_image_file), (labels, read_label_file)):
        try:
            found.append(read(str(path)))
        except Exception as error:  # torchvision's readers may raise any type for a damaged file
            raise ValueError(f"{path.name}: {reason_of(error)}") from error
    return checked(Split(found[0][:, None], found[1]), (1, *side), num_classes)


def reason_of(error: Exception) -> str:
    """The first line of the error's message."""
    return (str(error).strip() or "it is damaged").splitlines()[0]


def checked(split: Split, shape: tuple[int, ...], num_classes: int) -> Split:
    """`split`, if it has images of that shape, and for each a label in 0..num_classes - 1. Raises ValueError."""
    x, y = split.x, split.y
    assert y is not None, "published data sets have labels"
    if x.shape[1:] != shape:
        found, expected = (" x ".join(map(str, sizes[-2:])) for sizes in (x.shape, shape))
        raise ValueError(f"its images are {found}, not {expected}")
    if len(x) != len(y):
        raise ValueError(f"it has {len(x)} images, but {len(y)} labels")
    if not ((y >= 0) & (y < num_classes)).all():
        raise ValueError(f"its labels are not all in 0..{num_classes - 1}")
    return split


def _split(name: str, root: str, read: Callable[[bool], Split], num_valid: int, classes: Sequence[str]) -> Dataset:
    try:
        train, test = read(True), read(False)
    except Exception as error:  # torchvision's readers may raise any type for a damaged file
        raise ValueError(
            f"data.root={root}: {name} there cannot be read ({reason_of(error)}); remove it, or use another copy."
        ) from error
    train, valid = split_last(train, [num_valid])
    return Dataset(image_spec(train.x, classes), train, valid, test)
