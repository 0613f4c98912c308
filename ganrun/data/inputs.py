"""Data of the user's in the form that a run was trained on: images, arrays and tables."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.dataset import DataSpec
from ganrun.data.decode import SUFFIXES, Decoding, decoded
from ganrun.data.input_array import ARRAYS, ImageForm, array_in
from ganrun.data.input_table import TABLES, Columns, Form, Numbers, columns_in


@dataclass(frozen=True)
class Inputs:
    """Examples x (n, *shape) in the data's value range, their names, and why others were skipped, by name."""

    x: Tensor
    names: tuple[str, ...]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Reader:
    """Reads files into the form of a run.

    spec: of the run's data. form: of the tables that it was trained on; None: each column is a value of the vector.
    columns: of a table, by name; None: all. crop: as in data=folder. value_range: of floating-point images in arrays;
    None: that of the run.
    """

    spec: DataSpec
    form: Form | None = None
    columns: Sequence[str] | None = None
    crop: Literal["center", "none"] = "center"
    value_range: tuple[float, float] | None = None

    def read(self, path: Path) -> Inputs:
        """All examples of a file, or of all files of a folder and its sub-folders.

        Raises ValueError, with a message that begins with what is wrong, for a path that is missing or of a kind that
        the run has no use for, and if no example is left.
        """
        if not path.exists():
            raise ValueError("no such file or folder.")
        found = self._folder(path) if path.is_dir() else self._file(path, path.name)
        if not len(found.x):
            name, reason = next(iter(found.skipped.items()), ("it", "is empty"))
            raise ValueError(f"none of its examples can be used, as {name}: {reason}.")
        return found

    def _folder(self, base: Path) -> Inputs:
        paths = sorted(
            Path(parent, name) for parent, folders, names in os.walk(base) for name in names if name[0] != "."
        )
        if not paths:
            raise ValueError("is an empty folder.")
        images = [path for path in paths if path.suffix.lower() in SUFFIXES]
        parts = [self._images(images, base)] if images and self.spec.is_image else []
        skipped = {}
        for path in paths:
            name = path.relative_to(base).as_posix()
            try:
                if path.suffix.lower() in ARRAYS + TABLES:
                    parts.append(self._file(path, name, f"{name} "))
                elif path not in images or not self.spec.is_image:
                    skipped[name] = self._wrong_kind(path)
            except ValueError as error:
                skipped[name] = str(error).rstrip(".")
        return joined([*parts, Inputs(torch.zeros(0, *self.spec.shape), (), skipped)])

    def _file(self, path: Path, name: str, prefix: str = "") -> Inputs:
        """prefix: of the names of rows."""
        suffix = path.suffix.lower()
        if suffix in SUFFIXES and self.spec.is_image:
            return self._images([path], path.parent)
        if suffix in ARRAYS:
            return self._array(array_in(path), name)
        if suffix in TABLES and len(self.spec.shape) == 1:
            return self._table(columns_in(path, self.form), prefix)
        raise ValueError(f"{self._wrong_kind(path)}.")

    def _wrong_kind(self, path: Path) -> str:
        kind = "an image, .npy or .npz" if self.spec.is_image else ".csv, .parquet, .npy or .npz"
        return f"{path.suffix or 'a file without suffix'} does not fit data of shape {self.spec.shape}; use {kind}"

    # Images

    def _decoding(self) -> Decoding:
        channels, height, width = self.spec.shape
        if channels not in (1, 3):
            raise ValueError(f"image files have 1 or 3 channels, and the run's data {channels}; use .npy or .npz.")
        return Decoding.of((height, width), self.crop, channels)

    def _images(self, paths: Sequence[Path], base: Path) -> Inputs:
        decoding, kept, names, skipped = self._decoding(), [], list[str](), dict[str, str]()
        for path, found in decoded(paths, decoding):
            name = path.relative_to(base).as_posix()
            if isinstance(found, str):
                skipped[name] = found
            else:
                kept.append(torch.from_numpy(found.copy()))
                names.append(name)
        x = torch.stack(kept) if kept else torch.zeros(0, *self.spec.shape, dtype=torch.uint8)
        return Inputs(self.spec.decode(x), tuple(names), skipped)

    # Arrays

    def _array(self, found: np.ndarray, name: str) -> Inputs:
        if found.dtype.kind not in "uif" or not found.size:
            raise ValueError(f"is an array of type {found.dtype} and shape {found.shape}; it must hold numbers.")
        with np.errstate(over="ignore"):  # of any precision and byte order
            found = found.astype(np.float32 if found.dtype.kind == "f" else found.dtype.newbyteorder("="))
        x = ImageForm(self.spec, self.crop, self.value_range).of(found) if self.spec.is_image else self._vectors(found)
        names = [f"{name}[{i}]" for i in range(len(x))] if len(x) > 1 else [name]
        finite = x.flatten(1).isfinite().all(1)
        skipped = {
            names[i]: "has a value that is not finite" for i in finite.logical_not().nonzero().flatten().tolist()
        }
        return Inputs(x[finite], tuple(names[i] for i in finite.nonzero().flatten().tolist()), skipped)

    def _vectors(self, found: np.ndarray) -> Tensor:
        shape = self.spec.shape
        rows = found.reshape(-1, 1) if found.ndim <= 1 and shape == (1,) else found
        rows = rows[None] if rows.shape == shape else rows
        if rows.shape[1:] != shape:
            raise ValueError(f"has shape {found.shape}; it must be {('n', *shape)}, with the run's {shape}.")
        return torch.from_numpy(rows.astype(np.float32))

    # Tables

    def _table(self, found: Columns, prefix: str) -> Inputs:
        if self.columns is not None:
            if absent := [column for column in self.columns if column not in found]:
                raise ValueError(f"has no column {absent[0]}; its columns are {', '.join(found)}.")
            found = {column: found[column] for column in self.columns}
        num = len(next(iter(found.values()), ()))
        x, wrong = (self.form or Numbers(self.spec.shape[0])).encode(found)
        names = [f"{prefix}row {row + 1}" for row in range(num)]
        kept = tuple(names[row] for row in range(num) if row not in wrong)
        return Inputs(x, kept, {names[row]: reason for row, reason in wrong.items()})


def joined(parts: Sequence[Inputs]) -> Inputs:
    skipped = {name: reason for part in parts for name, reason in part.skipped.items()}
    return Inputs(torch.cat([part.x for part in parts]), tuple(n for part in parts for n in part.names), skipped)
