"""Tables of numbers and categories as vectors, from a CSV or Parquet file of the user's, or from scikit-learn."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.seeds import generator
from ganrun.data.table_file import Columns, read_table
from ganrun.data.table_form import Column, Scale, TableForm, as_numbers, as_text, decimals_of, normal_scores

log = logging.getLogger("ganrun")

Missing = Literal["indicator", "drop"]
NUM_QUANTILES = 1000  # of a column with data.numbers=quantile, at most
MOST_LISTED = 20  # names in one message


def table(
    root: str = "data",
    file: str | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    label: str | None = None,
    categories: Sequence[str] = (),
    numbers: Scale = "standard",
    missing: Missing = "indicator",
    missing_values: Sequence[str | int | float] = (),
    separator: str = ",",
    max_categories: int = 100,
    valid: float = 0.1,
    test: float = 0.1,
    split_seed: int = 0,
) -> Dataset:
    """A CSV or Parquet file of numbers and categories as vectors (width,), described by `spec.form`.

    Columns of texts, and those of whole numbers with two values, are categories, as are the columns that `categories`
    names; all others are numbers. `label` names the column of the classes. It is not in the vectors, and rows without
    it are left out. All moments and quantiles are those of the training rows; the categories are those of all rows.
    A relative `file` that does not exist is searched for in `root`. Raises ValueError for a file or a column that
    cannot be used.
    """
    if file is None:
        raise ValueError("data.file: name a CSV or Parquet file, as in data.file=table.csv.")
    path = Path(file).expanduser()
    found = path if path.exists() or not (Path(root) / path).exists() else Path(root) / path
    texts = [*categories, *([label] if label else [])]
    columns_read = None if columns is None else [*dict.fromkeys([*columns, *([label] if label else [])])]
    rows = read_table(found, columns_read, drop, texts, missing_values, separator)
    return table_of(
        rows, label, categories, numbers, missing, max_categories, valid, test, split_seed, f"data.file={file}"
    )


def breast_cancer(
    label: str | None = "diagnosis",
    numbers: Scale = "standard",
    valid: float = 0.2,
    test: float = 0.2,
    split_seed: int = 0,
) -> Dataset:
    """569 tumors, 30 measurements each, 212 of them malignant. Wolberg, Mangasarian, Street and Street 1995 (UCI).

    They come with scikit-learn. label: diagnosis, the classes; None: the diagnosis is a column of categories.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    rows = {str(name): bunch.data[:, i].astype(np.float64) for i, name in enumerate(bunch.feature_names)}
    rows["diagnosis"] = np.array([str(bunch.target_names[k]) for k in bunch.target], dtype=object)
    return table_of(rows, label, (), numbers, "drop", 100, valid, test, split_seed, "data=breast_cancer")


def table_of(
    rows: Columns,
    label: str | None,
    categories: Sequence[str],
    numbers: Scale,
    missing: Missing,
    max_categories: int,
    valid: float,
    test: float,
    split_seed: int,
    where: str,
) -> Dataset:
    """The data set of columns in memory. where: the setting that names them, for messages. Raises ValueError."""
    if valid < 0 or test < 0 or valid + test >= 1:
        raise ValueError(f"data.valid={valid} data.test={test}: must be at least 0, and sum to less than 1.")
    for setting, names in (("categories", categories), ("label", [label] if label else [])):
        if absent := [name for name in names if name not in rows]:
            raise ValueError(f"data.{setting}={absent[0]}: {where} has no such column; it has {_listed(rows)}.")
    rows = without_missing(rows, [*rows] if missing == "drop" else [label] if label else [], where)
    train, valid_rows, test_rows = split_rows(len(next(iter(rows.values()))), valid, test, split_seed, where)
    features = {name: values for name, values in rows.items() if name != label}
    if not features:
        raise ValueError(f"{where}: has no column besides the label {label}; there is nothing to learn.")
    form = TableForm(
        tuple(fit(name, v, train, name in categories, numbers, max_categories, where) for name, v in features.items()),
        tuple(rows),
        label or "",
    )
    x, skipped = form.encode(features)
    assert not skipped, skipped
    classes, y = labels_of(rows[label], label, max_categories, where) if label else ((), None)
    warn_of_untrained(form, features, train)
    std, mean = torch.std_mean(x[train].double(), correction=0)
    spec = DataSpec((form.width,), None, exact(mean.item()), exact(std.item()), classes, form=form)
    every = Split(x, y)
    return Dataset(spec, every[train], every[valid_rows], every[test_rows])


def without_missing(rows: Columns, names: Sequence[str], where: str) -> Columns:
    """The rows in which no value of these columns is missing. Logs how many were left out."""
    num = len(next(iter(rows.values())))
    gone = {name: np.array([as_text(v) is None for v in rows[name]], dtype=bool) for name in names}
    kept = ~np.logical_or.reduce([np.zeros(num, dtype=bool), *gone.values()])
    if kept.all():
        return rows
    if not kept.any():
        raise ValueError(f"{where}: a value is missing in each row of {_listed(n for n in gone if gone[n].any())}.")
    listed = _listed(f"{name} ({gone[name].sum():,})" for name in gone if gone[name].any())
    log.info(
        "data       left out %s of %s rows, with missing values in %s", f"{num - kept.sum():,}", f"{num:,}", listed
    )
    return {name: values[kept] for name, values in rows.items()}


def split_rows(num: int, valid: float, test: float, seed: int, where: str) -> list[torch.Tensor]:
    """The numbers of the rows of the training, validation and test split: a function of `num`, the shares and seed."""
    sizes = [round(valid * num), round(test * num)]
    if num - sum(sizes) < 2:
        raise ValueError(
            f"{where}: has {num} rows, of which data.valid and data.test hold out {sum(sizes)}; training needs two or "
            "more."
        )
    order = torch.randperm(num, generator=generator(seed, "table"))
    return list(order.split([num - sum(sizes), *sizes]))


def fit(
    name: str, values: np.ndarray, train: torch.Tensor, chosen: bool, scale: Scale, max_categories: int, where: str
) -> Column:
    """The column, with all that is needed to encode it. train: the numbers of the training rows. chosen: a category."""
    texts = None if not (chosen or is_category(name, values, where)) else [as_text(v) for v in values]
    if texts is not None:
        known = categories_of(texts, name, max_categories, where)
        if len(known) + (None in texts) < 2:
            raise ValueError(_constant(name, f"{where}:"))
        return Column(name, "category", None in texts, known)
    numbers, _ = as_numbers(values)
    if np.isinf(numbers).any():
        row = int(np.flatnonzero(np.isinf(numbers))[0])
        raise ValueError(f"{where}: column {name} has an infinite value in row {row + 1}; all must be finite.")
    present = numbers[~np.isnan(numbers)]
    fitted = numbers[train.numpy()]
    fitted = fitted[~np.isnan(fitted)]
    if not len(fitted) or fitted.min() == fitted.max():
        raise ValueError(
            _constant(
                name, f"{where}:", "" if not len(present) or present.min() == present.max() else " of the training rows"
            )
        )
    return fit_number(name, fitted, len(present) < len(numbers), decimals_of(present), scale)


def fit_number(name: str, fitted: np.ndarray, missing: bool, decimals: int | None, scale: Scale) -> Column:
    """A column of numbers. fitted: those of the training rows."""
    if scale == "minmax":
        low, high = float(fitted.min()), float(fitted.max())
        return Column(name, "number", missing, (), decimals, scale, exact((low + high) / 2), exact((high - low) / 2))
    quantiles = quantiles_of(fitted) if scale == "quantile" else ()
    t = normal_scores(fitted, quantiles) if quantiles else fitted
    return Column(name, "number", missing, (), decimals, scale, exact(t.mean()), exact(t.std()), quantiles)


def quantiles_of(fitted: np.ndarray) -> tuple[float, ...]:
    from sklearn.preprocessing import QuantileTransformer

    made = QuantileTransformer(n_quantiles=min(NUM_QUANTILES, len(fitted)), subsample=None)
    return tuple(map(exact, made.fit(fitted[:, None]).quantiles_[:, 0]))


def exact(value: float) -> float:
    """Rounded to 12 digits, so that it is the same on every machine, and identifies the data."""
    return float(f"{value:.12g}")


def is_category(name: str, values: np.ndarray, where: str) -> bool:
    """Whether a column has categories: texts, or two whole numbers. Raises ValueError for texts among numbers."""
    numbers, wrong = as_numbers(values)
    num = int((~np.isnan(numbers)).sum())
    if values.dtype != np.float64 and any(isinstance(v, bool) for v in values):
        return True
    if wrong and num > len(wrong):
        row, text = next(iter(wrong.items()))
        raise ValueError(
            f"{where}: column {name} has the text {text!r} in row {row + 1} among numbers; correct it, or add "
            f"data.missing_values=[{text}] if it means that the value is missing, or data.categories=[{name}]."
        )
    if wrong:
        return True
    distinct = np.unique(numbers[~np.isnan(numbers)])
    return len(distinct) == 2 and bool((distinct == distinct.round()).all())


def categories_of(texts: Sequence[str | None], name: str, most: int, where: str) -> tuple[str, ...]:
    """The distinct texts: ascending as numbers if all of them are, else alphabetically."""
    known = {text for text in texts if text is not None}
    if len(known) > most:
        raise ValueError(
            f"{where}: column {name} has {len(known):,} categories, more than data.max_categories={most}; leave it out "
            f"with data.drop=[{name}], or raise the limit."
        )
    numbers, wrong = as_numbers(np.array([*known, None], dtype=object))
    order = sorted(known) if wrong else sorted(known, key=lambda text: (float(text), text))
    assert len(numbers) == len(known) + 1
    return tuple(order)


def labels_of(values: np.ndarray, name: str, most: int, where: str) -> tuple[tuple[str, ...], torch.Tensor]:
    """The names of the classes, and the class of each row (n,)."""
    texts = [as_text(value) for value in values]
    classes = categories_of(texts, name, most, where)
    if len(classes) < 2:
        raise ValueError(f"data.label={name}: has only the class {classes[0]}; a label needs two or more.")
    index = {text: k for k, text in enumerate(classes)}
    return classes, torch.tensor([index[text] for text in texts if text is not None])


def warn_of_untrained(form: TableForm, rows: Mapping[str, np.ndarray], train: torch.Tensor) -> None:
    """Warn of categories without a training row: they have an entry, which G learns to avoid."""
    for column in form.columns:
        if column.kind == "category":
            present = {as_text(rows[column.name][i]) for i in train.tolist()}
            if absent := [text for text in column.categories if text not in present]:
                log.warning("data: column %s: the training rows have none of %s.", column.name, _listed(absent))


def _constant(name: str, where: str, of: str = "") -> str:
    return f"{where} column {name} has one value only in all rows{of}; leave it out with data.drop=[{name}]."


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return ", ".join(found[:MOST_LISTED]) + more
