"""Samples of a table beside real rows: each column, and the associations of all pairs of columns."""

import math
from typing import Any

import numpy as np
from torch import Tensor

from ganrun.data.table_form import Column, TableForm
from ganrun.figures.density import BLACK, BLUE, SHADE, note
from ganrun.figures.mpl import Axes, EngFormatter, Figure, MaxNLocator
from ganrun.metric.association import association_error, associations, columns_of

MOST_COLUMNS = 12  # that are drawn, the first of the table
ACROSS = 4
MOST_CATEGORIES = 8  # of a column; the rarest of the others are together
BINS = 30
TAIL = 0.002  # share of real values beyond each end of an axis
MOST_NAMED = 16  # columns with names beside the matrices
NAME = 22  # letters of a name


def table_figure(form: TableForm, real: Tensor, samples: Tensor, title: str) -> Figure:
    """Histograms of the first columns, real (gray) and generated (blue), and below them two matrices of associations.

    real (n, width), samples (m, width): rows in the training form. Numbers are drawn in the units of the file.
    """
    samples = form.as_written(samples)
    columns = form.columns[:MOST_COLUMNS]
    rows = math.ceil(len(columns) / ACROSS)
    across = math.ceil(len(columns) / rows)
    figure = Figure(figsize=(3.1 * max(across, 3), 2.3 * rows + 4.6), dpi=100, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.3 * rows, 4.6])
    top, bottom = parts
    values, made = columns_of(real, form), columns_of(samples, form)
    grid = top.subplots(rows, across, squeeze=False).ravel()
    for axes, column in zip(grid, columns, strict=False):
        draw = draw_numbers if column.kind == "number" else draw_categories
        draw(axes, column, values[column.name], made[column.name])
        axes.set_title(shortened(column.name), fontsize="medium")
    for axes in grid[len(columns) :]:
        axes.set_axis_off()
    left = len(form.columns) - len(columns)
    figure.suptitle(f"{title}{f' (and {left} more columns)' if left else ''}", fontsize="large")
    handles = [
        grid[0].fill_between([], [], color=SHADE, label="real"),
        *grid[0].plot([], [], color=BLUE, label="generated"),
    ]
    top.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    draw_matrices(bottom, form, associations(real, form), associations(samples, form))
    return figure


def draw_numbers(axes: Axes, column: Column, real: np.ndarray, samples: np.ndarray) -> None:
    """Histograms of two columns of scaled numbers (n,) and (m,), NaN where they are missing."""
    real, samples = (column.unscaled(x[~np.isnan(x)]) for x in (real, samples))
    edges = edges_of(real, column.decimals == 0)
    for x, is_real in ((real, True), (samples, False)):
        counts = np.histogram(x, edges)[0] / max(1, len(x))
        if is_real:
            axes.stairs(counts, edges, color=SHADE, fill=True)
        else:
            axes.stairs(counts, edges, color=BLUE, lw=1.4)
            outside = 1 - counts.sum() if len(x) else 0.0
            if outside >= 0.01:
                note(axes, 0.98, f"{outside:.0%} outside")
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
    axes.tick_params(labelleft=False, left=False, labelsize="small")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if np.abs(edges).max() >= 10_000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def edges_of(real: np.ndarray, whole: bool) -> np.ndarray:
    """The edges of the bins for numbers (n,). whole: all are whole, and each bin has equally many whole numbers."""
    low, high = np.quantile(real, [TAIL, 1 - TAIL]) if len(real) else (0.0, 1.0)
    if whole:
        width = max(1, math.ceil((high - low + 1) / BINS))
        edges: np.ndarray = np.arange(math.floor(low), math.ceil(high) + width + 1, width) - 0.5
        return edges
    margin = 0.05 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, BINS + 1)


def draw_categories(axes: Axes, column: Column, real: np.ndarray, samples: np.ndarray) -> None:
    """Shares of categories in two columns of integers (n,) and (m,), in the order of their real shares."""
    names = [*column.categories, *(["missing"] if column.missing else [])]
    shares = [np.bincount(x, minlength=len(names)) / max(1, len(x)) for x in (real, samples)]
    order = shares[0].argsort(kind="stable")[::-1]
    kept, rest = (order, order[:0]) if len(order) <= MOST_CATEGORIES else np.split(order, [MOST_CATEGORIES - 1])
    heights = [[*share[kept], *([share[rest].sum()] if len(rest) else [])] for share in shares]
    shown = [shortened(names[k], 10) for k in kept] + ([f"{len(rest)} others"] if len(rest) else [])
    at = np.arange(len(shown))
    axes.bar(at, heights[0], width=0.9, color=SHADE)
    axes.stairs(heights[1], np.arange(len(shown) + 1) - 0.5, color=BLUE, lw=1.4)
    axes.set_xticks(at, shown, rotation=30 if len(shown) > 3 else 0, ha="right" if len(shown) > 3 else "center")
    axes.set(ylim=(0, None))
    axes.tick_params(labelsize="small")


def draw_matrices(figure: Figure, form: TableForm, real: np.ndarray, samples: np.ndarray) -> None:
    """Two matrices (columns, columns) of associations, side by side, in the same colors."""
    names = [shortened(name, 14) for name in form.names]
    panels = figure.subplots(1, 2)
    error = association_error(samples, real)
    for axes, matrix, title in (
        (panels[0], real, "associations, real"),
        (panels[1], samples, f"generated (mean difference {error:.3f})"),
    ):
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_title(title, fontsize="medium", color=BLACK)
        if len(names) <= MOST_NAMED:
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize="small")
            axes.set_yticks(range(len(names)), names, fontsize="small")
        else:
            axes.set(xlabel="column", ylabel="column")
    figure.colorbar(image, ax=panels, shrink=0.8)


def shortened(name: str, most: int = NAME) -> str:
    """A name of at most `most` letters, in which dollar signs start no formula.

    >>> shortened("annual income", 8)
    'annual …'
    """
    text = " ".join(name.split())
    return (text if len(text) <= most else f"{text[: most - 1]}…").replace("$", r"\$")
