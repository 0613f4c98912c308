"""How strongly the columns of a table are associated, and how far their distributions are apart."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ganrun.data.table_form import MISSING, Column, TableForm


def columns_of(x: Tensor, form: TableForm) -> dict[str, np.ndarray]:
    """The columns of rows (n, width): numbers (n,) of float64, scaled, NaN if missing; categories (n,) of int.

    A missing category is one more category.
    """
    rows, starts = x.double().cpu().numpy(), {column.name: start for column, start in form.blocks}
    found: dict[str, np.ndarray] = {}
    for place, column in enumerate(form.numbers):
        found[column.name] = rows[:, place].copy()
        if column.missing:
            found[column.name][rows[:, starts[column.name] + MISSING] > 0.5] = np.nan
    for column, start in form.blocks:
        if column.kind == "category":
            found[column.name] = rows[:, start : start + column.entries].argmax(1)
    return {column.name: found[column.name] for column in form.columns}


def kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    """sup |F_a - F_b| of the distribution functions of two samples (n,) and (m,); 1 if one of them is empty.

    >>> kolmogorov_smirnov(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    0.5
    """
    if not len(a) or not len(b):
        return float(len(a) != len(b))
    at = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def total_variation(a: np.ndarray, b: np.ndarray, num: int) -> float:
    """sum |p - q| / 2 of the shares p, q of `num` categories in two samples of integers.

    >>> total_variation(np.array([0, 0]), np.array([0, 1]), 2)
    0.5
    """
    p, q = (np.bincount(x, minlength=num) / len(x) for x in (a, b))
    return float(np.abs(p - q).sum() / 2)


def marginal_distances(a: Tensor, b: Tensor, form: TableForm) -> tuple[dict[str, float], dict[str, float]]:
    """The distances of each column of two samples of rows: Kolmogorov-Smirnov, and total variation.

    A number that can be missing has both: that of its values, and that of whether it is missing.
    """
    first, second = columns_of(a, form), columns_of(b, form)
    ks, tv = {}, {}
    for column in form.columns:
        x, y = first[column.name], second[column.name]
        if column.kind == "category":
            tv[column.name] = total_variation(x, y, column.entries)
            continue
        ks[column.name] = kolmogorov_smirnov(x[~np.isnan(x)], y[~np.isnan(y)])
        if column.missing:
            tv[column.name] = total_variation(np.isnan(x).astype(int), np.isnan(y).astype(int), 2)
    return ks, tv


def associations(x: Tensor, form: TableForm) -> np.ndarray:
    """The matrix (columns, columns) of associations of rows (n, width), in the order of `form.columns`.

    Two numbers: Pearson's correlation, in [-1, 1]. Two categories: Cramer's V, in [0, 1]. A number and a category: the
    correlation ratio, the square root of the share of the number's variance between categories, in [0, 1]. It is 0 for
    a constant column. Rows in which a number is missing do not count for its pairs.
    """
    values, columns = columns_of(x, form), form.columns
    found = np.eye(len(columns))
    for i, first in enumerate(columns):
        for j in range(i):
            found[i, j] = found[j, i] = _association(first, columns[j], values)
    return found


def association_error(a: np.ndarray, b: np.ndarray) -> float:
    """The mean absolute difference of two matrices of associations, over all pairs of columns; 0 for one column."""
    pairs = np.tril_indices(len(a), -1)
    return float(np.abs(a - b)[pairs].mean()) if len(pairs[0]) else 0.0


def _association(a: Column, b: Column, values: Mapping[str, np.ndarray]) -> float:
    x, y = values[a.name], values[b.name]
    if a.kind == b.kind == "category":
        return cramers_v(x, y, (a.entries, b.entries))
    if a.kind == b.kind:
        both = ~(np.isnan(x) | np.isnan(y))
        return pearson(x[both], y[both])
    number, category = (x, y) if a.kind == "number" else (y, x)
    there = ~np.isnan(number)
    return correlation_ratio(number[there], category[there])


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of (n,) and (n,); 0 if one is constant."""
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def cramers_v(x: np.ndarray, y: np.ndarray, sizes: Sequence[int]) -> float:
    """Cramer's V = sqrt(chi^2 / (n (min(r, c) - 1))) of integers (n,), over the r and c categories that are present.

    >>> cramers_v(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), (2, 2))
    1.0
    """
    table = np.zeros(tuple(sizes))
    np.add.at(table, (x, y), 1)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    if min(table.shape) < 2:
        return 0.0
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    chi2 = ((table - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi2 / (table.sum() * (min(table.shape) - 1))))


def correlation_ratio(number: np.ndarray, category: np.ndarray) -> float:
    """eta: the square root of the share of the variance of `number` (n,) that lies between the categories (n,).

    >>> correlation_ratio(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
    1.0
    """
    if len(number) < 2 or number.min() == number.max():
        return 0.0
    counts = np.bincount(category)
    means = np.bincount(category, weights=number) / np.maximum(counts, 1)
    between = (counts * (means - number.mean()) ** 2).sum()
    return float(np.sqrt(min(1.0, between / ((number - number.mean()) ** 2).sum())))
