"""The form of a table: how its columns become vectors, and vectors become columns again.

A vector has first a value for each number, then a block for each category, and one of two entries (present, missing)
for each number that can be missing. A block is one-hot. All fields are plain values, since checkpoints hold them.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.checks import check_arguments

Scale = Literal["standard", "quantile", "minmax"]
PRESENT, MISSING = 0, 1  # entries of the block of a number that can be missing
DIGITS = 7  # significant digits of a number that is not rounded to decimals: those of float32
MOST_DECIMALS = 6


@dataclass(frozen=True)
class Column:
    """A column of numbers or of categories.

    missing: whether values can be missing. categories: of a column of categories; a missing value is one more entry of
    its block. decimals: decimal places to which numbers are rounded; None: not rounded.
    scale: a number v becomes (t(v) - center) / spread, with t(v) = v, or with scale=quantile the normal score of v (see
    `normal_scores`) among `quantiles`, which are evenly spaced from 0 to 1. With scale=minmax the results of training
    rows lie in [-1, 1]. Raises ValueError for fields that do not fit together.
    """

    name: str
    kind: Literal["number", "category"]
    missing: bool = False
    categories: tuple[str, ...] = ()
    decimals: int | None = None
    scale: Scale = "standard"
    center: float = 0.0
    spread: float = 1.0
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("categories", "quantiles"):  # a list after some ways of storing it
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.kind == "category" and not self.categories:
            raise ValueError(f"column {self.name} has no categories")
        if self.kind == "number" and not (0 < self.spread < math.inf and math.isfinite(self.center)):
            raise ValueError(f"column {self.name} has spread {self.spread} and center {self.center}")
        if self.kind == "number" and (self.scale == "quantile") != (len(self.quantiles) > 1):
            raise ValueError(f"column {self.name} has {len(self.quantiles)} quantiles and scale={self.scale}")

    @property
    def entries(self) -> int:
        """The number of entries of its block; 0: it has none."""
        if self.kind == "category":
            return len(self.categories) + self.missing
        return 2 if self.missing else 0

    def scaled(self, v: np.ndarray) -> np.ndarray:
        """Numbers (n,) in the units of the file -> (n,) as networks get them."""
        t = normal_scores(v, self.quantiles) if self.quantiles else v
        return (t - self.center) / self.spread

    def unscaled(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `scaled`, rounded to `decimals`."""
        t = x * self.spread + self.center
        v: np.ndarray = values_of_scores(t, self.quantiles) if self.quantiles else t
        return v if self.decimals is None else v.round(self.decimals)


@dataclass(frozen=True)
class TableForm:
    """The columns of a table, with what is needed to encode and to decode it.

    order: the names of all columns of the file that are used, in its order, with the label. label: the name of the
    column with the classes, which is not in the vectors; empty: there is none. missing_values: texts that mean that a
    value is missing.
    """

    columns: tuple[Column, ...]
    order: tuple[str, ...]
    label: str = ""
    missing_values: tuple[str, ...] = ()
    width: int = field(init=False)

    def __post_init__(self) -> None:
        columns = tuple(c if isinstance(c, Column) else _column(c) for c in self.columns)
        object.__setattr__(self, "columns", columns)
        for name in ("order", "missing_values"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "width", len(self.numbers) + sum(c.entries for c in columns))
        names = [c.name for c in columns] + ([self.label] if self.label else [])
        if not columns or sorted(names) != sorted(self.order):
            raise ValueError(f"the columns are {names}, and their order is {list(self.order)}")

    @classmethod
    def of(cls, found: Any) -> "TableForm":
        """The form from plain values, as `dataclasses.asdict` gives them. Raises ValueError for a damaged one."""
        if not isinstance(found, dict) or not isinstance(found.get("columns"), list | tuple):
            raise ValueError("form has no columns")
        given = {name: value for name, value in found.items() if name != "width"}
        check_arguments("form", cls, {name: value for name, value in given.items() if name != "columns"}, ["columns"])
        return cls(**given)

    @cached_property
    def numbers(self) -> tuple[Column, ...]:
        """The columns of numbers, in the order of their values in a vector."""
        return tuple(c for c in self.columns if c.kind == "number")

    @cached_property
    def blocks(self) -> tuple[tuple[Column, int], ...]:
        """The columns with a block, in order, and the index of its first entry in a vector."""
        found, start = [], len(self.numbers)
        for column in self.columns:
            if column.entries:
                found.append((column, start))
                start += column.entries
        return tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of categories, whose values a reader should leave as they are written."""
        return tuple(c.name for c in self.columns if c.kind == "category")

    def encode(self, frame: Mapping[str, Any], generated: bool = False) -> tuple[Tensor, dict[int, str]]:
        """The vectors (m, width) of the rows that can be encoded, and why each of the others cannot, by its number.

        frame: sequences of values by column name, such as a pandas.DataFrame. Other columns are ignored. generated:
        they are from `decode`, where None alone means that a value is missing. Raises ValueError if a column is
        missing.
        """
        for name in self.names:
            if name not in frame:
                raise ValueError(f"there is no column {name}; the run was trained on {', '.join(self.names)}.")
        missing_values = () if generated else self.missing_values
        values = {name: column_values(frame[name], missing_values) for name in self.names}
        num = len(next(iter(values.values())))
        x, skipped = np.zeros((num, self.width)), dict[int, str]()
        starts = {column.name: start for column, start in self.blocks}
        for column in self.columns:
            v = values[column.name]
            if column.kind == "number":
                place = [c.name for c in self.numbers].index(column.name)
                reasons = _fill_number(x, column, v, place, starts.get(column.name))
            else:
                reasons = _fill_category(x, column, v, starts[column.name])
            skipped = reasons | skipped
        kept = np.setdiff1d(np.arange(num), list(skipped))
        return torch.from_numpy(x[kept]).float(), dict(sorted(skipped.items()))

    def decode(self, x: Tensor, labels: Sequence[str] | None = None) -> dict[str, list[Any]]:
        """Vectors (n, width) as columns, in the file's order: int, float, str, or None for a missing value.

        A block stands for its largest entry. labels (n,): the classes, for the column `label`; None: without it.
        """
        columns: dict[str, list[Any]] = {}
        starts = {column.name: start for column, start in self.blocks}
        rows = x.detach().double().cpu().numpy()
        for place, column in enumerate(self.numbers):
            numbers = column.unscaled(rows[:, place]).tolist()
            if column.missing:
                start = starts[column.name]
                gone = (rows[:, start + MISSING] > rows[:, start + PRESENT]).tolist()
                numbers = [None if is_gone else v for v, is_gone in zip(numbers, gone, strict=True)]
            columns[column.name] = [None if v is None else _plain(v, column.decimals) for v in numbers]
        for column, start in self.blocks:
            if column.kind == "category":
                texts = [*column.categories, None]
                index = rows[:, start : start + column.entries].argmax(1) if len(rows) else []
                columns[column.name] = [texts[i] for i in index]
        if self.label and labels is not None:
            columns[self.label] = list(labels)
        return {name: columns[name] for name in self.order if name in columns}

    def csv(self, x: Tensor, labels: Sequence[str] | None = None, header: bool = True) -> str:
        """`decode` as lines of a CSV file. header: begin with the names of the columns."""
        columns = self.decode(x, labels)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        return text.getvalue()

    def as_written(self, x: Tensor) -> Tensor:
        """Vectors (n, width) after `decode` and `encode`: with rounded numbers and one-hot blocks."""
        return self.encode(self.decode(x), generated=True)[0]


def _column(found: Any) -> Column:
    if not isinstance(found, dict) or not {"name", "kind"} <= found.keys():
        raise ValueError("form: a column has no name or kind")
    check_arguments("form.columns", Column, found)
    return Column(**found)


def _plain(v: float, decimals: int | None) -> int | float:
    if decimals == 0 and math.isfinite(v):
        return int(v)
    return float(f"{v:.{DIGITS}g}") if decimals is None else v


def _fill_number(x: np.ndarray, column: Column, v: np.ndarray, place: int, start: int | None) -> dict[int, str]:
    """Write a column of numbers into x (n, width). Returns why rows cannot be encoded, by their numbers."""
    numbers, wrong = as_numbers(v)
    gone = np.array([is_missing(value) for value in v], dtype=bool)
    reasons = {row: f"column {column.name}: {text!r} is not a number" for row, text in wrong.items()}
    for row in np.flatnonzero(np.isinf(numbers)):
        reasons[int(row)] = f"column {column.name}: the value is infinite"
    if start is None:
        reasons |= {int(row): f"column {column.name}: the value is missing" for row in np.flatnonzero(gone)}
    else:
        x[:, start + PRESENT], x[:, start + MISSING] = ~gone, gone
    usable = np.isfinite(numbers)
    x[usable, place] = column.scaled(numbers[usable])
    for row in np.flatnonzero(np.abs(x[:, place]) > np.finfo(np.float32).max):
        reasons[int(row)] = f"column {column.name}: the value is too large"
    return reasons


def _fill_category(x: np.ndarray, column: Column, v: np.ndarray, start: int) -> dict[int, str]:
    index: dict[str | None, int] = {text: i for i, text in enumerate(column.categories)}
    if column.missing:
        index[None] = len(column.categories)
    texts = [as_text(value) for value in v]
    found = np.array([index.get(text, index.get(as_parsed(text), -1)) for text in texts], dtype=int)
    known = np.flatnonzero(found >= 0)
    x[known, start + found[known]] = 1
    return {
        int(row): f"column {column.name}: "
        + ("the value is missing" if texts[row] is None else f"{texts[row]!r} is not one of its categories")
        for row in np.flatnonzero(found < 0)
    }


def column_values(values: Any, missing_values: Sequence[str] = ()) -> np.ndarray:
    """A column as an array (n,) of float64 or of objects, with None for the texts `missing_values`."""
    if isinstance(values, np.ndarray) and values.dtype == np.float64:
        return values
    found = np.asarray(values, dtype=object)
    if missing_values:
        found = np.array([None if str(v) in missing_values else v for v in found], dtype=object)
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in found):
        return found.astype(np.float64)
    return found


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or the missing value of pandas.

    >>> is_missing(None), is_missing(float("nan")), is_missing("")
    (True, True, False)
    """
    return (
        value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    )


def as_text(value: Any) -> str | None:
    """A value as the name of a category; None if it is missing. Whole numbers have no decimal point.

    >>> as_text(1.0), as_text(" yes "), as_text(True), as_text(None)
    ('1', 'yes', 'True', None)
    """
    if is_missing(value):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def as_parsed(text: str | None) -> str | None:
    """The name of the category that a text of a CSV file has where pandas parses its column.

    >>> as_parsed("TRUE"), as_parsed("1.0"), as_parsed("2.50"), as_parsed("yes")
    ('True', '1', '2.5', 'yes')
    """
    if text is None or text.lower() in ("true", "false"):
        return text and text.capitalize()
    try:
        return as_text(float(text))
    except ValueError:
        return text


def as_numbers(values: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Values (n,) as float64, NaN where there is none, and the texts that are no numbers, by their rows.

    >>> as_numbers(np.array(["1.5", "x", None], dtype=object))
    (array([1.5, nan, nan]), {1: 'x'})
    """
    if values.dtype == np.float64:
        return values, {}
    found, wrong = np.full(len(values), np.nan), {}
    for row, value in enumerate(values):
        if not is_missing(value):
            try:
                found[row] = float(value)
            except (TypeError, ValueError):
                wrong[row] = str(value)
            else:
                if np.isnan(found[row]):
                    wrong[row] = str(value)
    return found, wrong


def decimals_of(numbers: np.ndarray) -> int | None:
    """The fewest decimal places with which all numbers (n,) are written; None if there are more than MOST_DECIMALS.

    >>> decimals_of(np.array([1.0, 20.0])), decimals_of(np.array([1.25, 2.5])), decimals_of(np.array([1 / 3]))
    (0, 2, None)
    """
    tolerance = 1e-9 * np.maximum(1, np.abs(numbers))
    fits = (d for d in range(MOST_DECIMALS + 1) if (np.abs(numbers.round(d) - numbers) <= tolerance).all())
    return next(fits, None)


def normal_scores(v: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """The normal scores of numbers (n,): ndtri of their positions among the quantiles, a number in (0, 1).

    The position is that of scikit-learn's QuantileTransformer. It is moved away from 0 and 1 by half the distance of
    two quantiles, so that the score of the smallest and largest training value is finite; beyond these, it is constant.
    """
    from scipy.special import ndtri

    edge = 0.5 / len(quantiles)
    position = _transformer(quantiles).transform(v[:, None])[:, 0] if len(v) else v
    scores: np.ndarray = ndtri(edge + (1 - 2 * edge) * position)
    return scores


def values_of_scores(t: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """The inverse of `normal_scores`. All values lie between the first and the last quantile."""
    from scipy.special import ndtr

    edge = 0.5 / len(quantiles)
    position = np.clip((ndtr(t) - edge) / (1 - 2 * edge), 0, 1)
    found: np.ndarray = _transformer(quantiles).inverse_transform(position[:, None])[:, 0] if len(t) else t
    return found


def _transformer(quantiles: Sequence[float]) -> Any:
    """scikit-learn's transformer with these quantiles, as if it had been fitted."""
    from sklearn.preprocessing import QuantileTransformer

    made = QuantileTransformer(n_quantiles=len(quantiles), output_distribution="uniform")
    made.quantiles_ = np.asarray(quantiles, dtype=np.float64)[:, None]
    made.references_ = np.linspace(0, 1, len(quantiles))
    made.n_quantiles_, made.n_features_in_ = len(quantiles), 1
    return made
