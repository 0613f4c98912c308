"""Tables of the user's, as columns and as vectors."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ganrun.data.input_array import check_regular
from ganrun.data.table_file import read_table

TABLES = (".csv", ".parquet")

Columns = Mapping[str, Any]  # of a table, by name; None: a missing value


class Form(Protocol):
    """How the columns `names` of a table become vectors. texts: those that hold categories, not numbers."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def texts(self) -> Sequence[str]: ...

    def encode(self, frame: Columns) -> tuple[Tensor, dict[int, str]]:
        """The vectors (m, d) of the rows that can be encoded, and why each of the others cannot, by its number.

        Raises ValueError if a column is missing.
        """
        ...


@dataclass(frozen=True)
class Numbers:
    """The form of tables whose columns are the values of a vector (width,), in their order."""

    width: int

    def encode(self, frame: Columns) -> tuple[Tensor, dict[int, str]]:
        if len(frame) != self.width:
            raise ValueError(
                f"has {len(frame)} columns ({', '.join(frame)}), and the run's data {self.width}; "
                "choose them with columns=[NAME,...]."
            )
        wrong: dict[int, str] = {}
        with np.errstate(over="ignore"):  # of numbers that float32 cannot hold
            values = np.array([[number(v) for v in column] for column in frame.values()]).T.astype(np.float32)
        for row, place in np.argwhere(~np.isfinite(values)).tolist():
            column = list(frame)[place]
            value = frame[column][row]
            wrong.setdefault(row, f"column {column}: {_why_not_finite(value)}")
        kept = np.setdiff1d(np.arange(len(values)), list(wrong))
        return torch.from_numpy(values[kept]).reshape(-1, self.width), wrong


def _why_not_finite(value: Any) -> str:
    if value is None or value != value:
        return "the value is missing"
    return f"{str(value)!r} is {'too large' if math.isfinite(number(value)) else 'not a finite number'}"


def number(value: Any) -> float:
    """The value as a number, NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def columns_in(path: Path, form: Form | None) -> Columns:
    """The columns of a .csv or .parquet file by name; those that `form` has as categories keep their texts.

    Without a form, a .csv file needs no pandas, and no header. Raises ValueError.
    """
    if form is None and path.suffix.lower() == ".csv":
        return csv_columns(path)
    try:
        texts, names = ((), None) if form is None else (form.texts, form.names)
        return read_table(path, categories=texts, needed=names, key="input")
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"input={path}: ")) from error


def csv_columns(path: Path) -> Columns:
    """Columns of texts; None for an empty one. A first row without a number is the header, else names are 1, 2, ...

    A row with another number of fields has None in place of all of them, and so does an empty line.
    """
    check_regular(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot be read as .csv ({error}).") from error
    while rows and not rows[-1]:
        rows.pop()
    if not rows or not rows[0]:
        raise ValueError("is an empty table.")
    has_header = all(math.isnan(number(field)) for field in rows[0])
    names = rows[0] if has_header else [str(i + 1) for i in range(len(rows[0]))]
    if len(set(names)) < len(names):
        raise ValueError("has two columns of the same name.")
    whole = [row if len(row) == len(names) else [""] * len(names) for row in rows[has_header:]]
    return {name: [row[i].strip() or None for row in whole] for i, name in enumerate(names)}
