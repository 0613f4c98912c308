"""Curves of the values that a run logged."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ganrun.figures.density import BLACK, BLUE, ORANGE, legend_below
from ganrun.figures.mpl import Axes, Figure, StrMethodFormatter
from ganrun.protocols import MetricKey

Rows = Sequence[Mapping[str, Any]]  # of metrics.jsonl
METRIC = "metric/"  # before a metric's key
STEP = "step (updates of G)"
MANY = 200  # above this number of values, the running mean over a 40th of them is drawn
DASHED, DOTTED = (0, (5, 2)), ":"


def curve(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which a key was logged, and its values."""
    found = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    steps, values = np.array(found, float).reshape(-1, 2).T
    return steps, values


def loss_figure(rows: Rows, chance_losses: tuple[float, float] | None, nats: bool) -> Figure:
    """Both players' losses. chance_losses: D's and G's losses for D at chance level, drawn for comparison."""
    figure, axes = _over_steps(rows)
    for key, name, color, style in (("loss/d", "D", ORANGE, DASHED), ("loss/g", "G", BLUE, "-")):
        steps, values = curve(rows, key)
        _smooth_line(axes, steps, values, color, style, f"loss of {name}")
    for level, name, color in zip(chance_losses or (), "DG", (ORANGE, BLUE), strict=False):
        axes.axhline(level, color=color, lw=1, ls=DOTTED, label=f"{name}'s loss for D at chance level, {level:.3f}")
    values = np.concatenate([curve(rows, key)[1] for key in ("loss/d", "loss/g")])
    axes.set_ylim(*visible_range([*values, *(chance_losses or ())]))
    axes.set(ylabel="loss (nats)" if nats else "loss", title="losses")
    legend_below(figure, axes)
    return figure


def accuracy_figure(rows: Rows) -> Figure:
    """D's accuracy on real and on generated examples, with a line at chance level."""
    figure, axes = _over_steps(rows)
    for key, name, color, style in (
        ("accuracy/real", "of real examples", BLACK, "-"),
        ("accuracy/fake", "of generated ones", BLUE, DASHED),
    ):
        steps, values = curve(rows, key)
        _smooth_line(axes, steps, 100 * values, color, style, name)
    axes.axhline(50, color=ORANGE, lw=1, ls=DOTTED, label="chance level, 50%")
    axes.set(ylim=(0, 100), ylabel="classified correctly by D (%)", title="D's accuracy")
    legend_below(figure, axes)
    return figure


def metric_figure(rows: Rows, names: Sequence[str], keys: Mapping[str, MetricKey], data_unit: str = "") -> Figure:
    """A small plot for each metric `metric/KEY`, with a dotted line at the true value of the data, if it is known."""
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 2.5 * lines + 0.6), dpi=100, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True).flatten()
    dotted = False
    for axes, name in zip(grid, names, strict=False):
        key = keys.get(name.removeprefix(METRIC), MetricKey())
        steps, values = curve(rows, name)
        axes.plot(steps, values, color=BLUE, lw=1.6, marker="o", ms=3)
        _, true = curve(rows, METRIC + key.true)
        if key.true and len(true):
            axes.axhline(true[-1], color=BLACK, lw=1, ls=DOTTED)
            dotted = True
        axes.set_title(name.removeprefix(METRIC), fontsize="medium")
        axes.set_ylabel(data_unit if key.unit == "data" else key.unit, fontsize="small")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.margins(y=0.15)
    for axes in grid[len(names) :]:
        axes.remove()
    for axes in grid[max(0, len(names) - columns) : len(names)]:  # those without a plot below them
        axes.tick_params(labelbottom=True)
    figure.supxlabel(STEP, fontsize="medium")
    figure.suptitle("metrics (dotted: value of the data)" if dotted else "metrics")
    return figure


def repeated_keys(rows: Rows, keys: Mapping[str, MetricKey]) -> list[str]:
    """The metrics `metric/KEY` that were computed more than once, without those that belong to another one."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(METRIC))
    apart = {key.true for key in keys.values()} | {name for name, key in keys.items() if key.about and not key.better}
    return [name for name in names if name.removeprefix(METRIC) not in apart and len(curve(rows, name)[0]) > 1]


def _over_steps(rows: Rows) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    steps = [row["step"] for row in rows]
    first, last = min(steps), max(steps)
    axes.set(xlabel=STEP, xlim=(min(first, 0), max(last, 1)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if first < 0:
        axes.axvspan(first, 0, color="#eeeeee", lw=0)
        axes.text(first, 0.02, " D alone", transform=axes.get_xaxis_transform(), va="bottom", fontsize="small")
    return figure, axes


def _smooth_line(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, style: Any, label: str) -> None:
    """Draw the values in a pale color, and their running mean."""
    width = len(values) // 40 if len(values) > MANY else 1
    if width > 1:
        axes.plot(steps, values, color=color, lw=0.7, alpha=0.35)
    axes.plot(steps, running_mean(values, width), color=color, ls=style, lw=1.8, label=label)


def visible_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of all values or, if there are outliers, of the middle 98%, extended by its own width on both sides."""
    finite = np.array(values)[np.isfinite(values)]
    low, high = finite.min(), finite.max()
    inner = np.quantile(finite, [0.01, 0.99])
    if (reach := inner[1] - inner[0]) and high - low > 5 * reach:
        low, high = max(low, inner[0] - reach), min(high, inner[1] + reach)
    margin = 0.08 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean over `width` values centered at each value; over fewer at both ends.

    >>> running_mean(np.array([0.0, 3.0, 6.0, 0.0]), 3).tolist()
    [1.5, 3.0, 3.0, 3.0]
    """
    reach = width // 2
    total = np.concatenate([[0.0], np.cumsum(values)])
    start = np.maximum(np.arange(len(values)) - reach, 0)
    end = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    means: np.ndarray = (total[end] - total[start]) / (end - start)
    return means
