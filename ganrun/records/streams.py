"""Files of arrays that are written part by part, so that they may be larger than the memory."""

import glob
import math
import secrets
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ganrun.files import remove_left, temporary_folder
from ganrun.records.checkpoint import errors_name, write_atomically


@dataclass(frozen=True)
class Stream:
    """An array whose parts along the first axis are made when they are written. dtype: as in "uint8"."""

    shape: tuple[int, ...]
    dtype: str
    parts: Iterable[np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def write(self, file: IO[bytes]) -> None:
        """Write it in the format of .npy."""
        dtype = np.dtype(self.dtype)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in self.parts:
            file.write(np.ascontiguousarray(part, dtype).data)


def save_npy(path: Path, array: Stream) -> None:
    """Write a .npy file atomically."""

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as file:
            array.write(file)

    write_atomically(path, write)


def save_npz(path: Path, arrays: Mapping[str, Stream], compressed: bool) -> None:
    """Write a .npz file atomically: the arrays by name, one after the other."""
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED

    def write(unfinished: Path) -> None:
        with zipfile.ZipFile(unfinished, "w", method) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    array.write(member)

    write_atomically(path, write)


def save_folder(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files (path in `folder`, content). They replace a folder of that name once all are written."""
    remove_left(folder.parent.glob(f"{glob.escape(folder.name)}.*.unfinished"))
    unfinished, old = (folder.with_name(f"{folder.name}.{secrets.token_hex(8)}.unfinished") for _ in range(2))
    try:
        with errors_name(folder), temporary_folder(unfinished):
            for name, content in files:
                path = unfinished / name.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if folder.is_dir() and not folder.is_symlink():
                folder.rename(old)
            unfinished.rename(folder)
    finally:
        for path in (unfinished, old):
            shutil.rmtree(path, ignore_errors=True)


def check_space(folder: Path, num: int, needed: int) -> None:
    """Raise ValueError if `num` samples, of `needed` bytes, are larger than what is free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"num={num}: these samples take {size_text(needed)}, but the disk of {folder} has {size_text(free)} free; "
            "draw fewer, or choose another folder with out=DIR."
        )


def size_text(num: int) -> str:
    """A number of bytes.

    >>> size_text(15_680_000), size_text(40_000_000_000_000)
    ('16 MB', '40,000 GB')
    """
    return f"{num / 1e6:,.0f} MB" if num < 1e9 else f"{num / 1e9:,.0f} GB"
