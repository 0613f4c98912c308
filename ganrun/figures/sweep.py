"""Figures of a report on several runs: values, learning curves, and maps of the settings that are numbers.

`as_svg` gives them the text color of the page that they are part of. Nothing here imports torch.
"""

import io
import itertools
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.figures.mpl import (
    Axes,
    EngFormatter,
    ListedColormap,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
    XAxis,
    YAxis,
    matplotlib,
)
from ganrun.figures.mpl import Figure as Figure
from ganrun.records.checkpoint import write_atomically

INK = "#123457"  # of texts and axes: in an SVG replaced by the text color of the page
PAPER = "#fefdfe"  # behind labels on lines: in an SVG replaced by the color of the page
COLORS = ("#0b7fc7", "#e08a00", "#0a9b72", "#cf6aa5", "#8a63d2", "#d1495b", "#8a8a8a", "#5fa8d3")  # on white and black
STYLES = ("-", "--", "-.", ":")
MOST = len(COLORS)  # lines in one figure
LOG_FROM = 20  # ratio of the largest to the smallest number of an axis, from which on it is logarithmic
LONGEST = 34  # characters of a name
LETTER = 0.078  # inches, the width of a letter
MOST_TICKS = 16  # labels on a vertical axis
# The middle of plasma, which has enough contrast on white and on black.
CMAP = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.12, 0.88, 256)), name="middle of plasma")
RC: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.size": 9,
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "axes.formatter.useoffset"), False),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Dots:
    """The values of one setting, one for each seed, with the mean and its interval. number: of its color and style."""

    name: str
    number: int
    values: Sequence[float]
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Band:
    """The learning curve of one setting over its seeds. All have the shape (n,); x: the horizontal positions."""

    name: str
    number: int
    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Axis:
    """One key that varies, of n settings. places: (n,), numbers, or the index of a text. labels: of texts, by index."""

    name: str
    places: np.ndarray
    labels: Sequence[str] | None = None


@contextmanager
def style() -> Iterator[None]:
    """The settings of matplotlib for these figures. Names may have letters that its font lacks: browsers have them."""
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def as_svg(figure: Figure, salt: str) -> str:
    """The figure as an element for a page. salt: makes its ids differ from those of other figures."""
    buffer = io.StringIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = buffer.getvalue().replace(INK, "currentColor").replace(PAPER, "var(--back)")
    text = text[text.index("<svg") :]
    return re.sub(r"<(metadata|style)\b.*?</\1>|<!--.*?-->", "", text, flags=re.DOTALL)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG on white, atomically."""
    with style():
        write_atomically(path, lambda partial: figure.savefig(partial, format="png", dpi=150, facecolor="white"))


def dots_figure(rows: Sequence[Dots], label: str) -> Figure:
    """The values of each setting as dots, and their means with 95% intervals, the best at the top."""
    with style():
        figure = Figure(figsize=(6.4, 0.9 + 0.34 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for i, row in enumerate(rows):
            color = color_of(row.number)
            axes.scatter(
                row.values, [i] * len(row.values), s=14, color=color, alpha=0.55, lw=0, gid=f"dots-{row.number}"
            )
            if row.interval:
                axes.plot(row.interval, [i, i], color=color, lw=2.2, solid_capstyle="butt", gid=f"line-{row.number}")
            axes.plot([row.mean], [i], "|", color=color, ms=13, mew=2.4, gid=f"mean-{row.number}")
        axes.set_yticks(range(len(rows)), [cut(row.name) for row in rows])
        axes.set(xlabel=label, ylim=(len(rows) - 0.4, -0.6))
        values = np.array([value for row in rows for value in (*row.values, row.mean)])
        if is_log(values):
            make_log(axes.xaxis, values)
            axes.set_xlim(*np.exp(reach(np.log(values).tolist(), margin=0.08)))
        else:
            axes.set_xlim(*reach(values.tolist()))
    return figure


def reach(values: Sequence[float], margin: float = 0.25) -> tuple[float, float]:
    """The range of the values with a margin, a share of it: intervals of few seeds can be much wider."""
    low, high = min(values), max(values)
    width = margin * (high - low) or abs(high) * 0.1 or 1.0
    return low - width, high + width


def curve_figure(bands: Sequence[Band], x_label: str, y_label: str) -> Figure:
    """The median of each setting over its seeds, and the range from the lowest to the highest; without a legend."""
    with style():
        figure = Figure(figsize=(4.2, 2.7), layout="constrained")
        draw_curves(figure.add_subplot(), bands, x_label, y_label)
    return figure


def color_of(number: int) -> str:
    return COLORS[number % MOST]


def dashes_of(number: int) -> str:
    """The line style of a setting, as the attribute stroke-dasharray of SVG."""
    return {"-": "none", "--": "6 3", "-.": "7 3 2 3", ":": "2 3"}[STYLES[number % len(STYLES)]]


def curves_figure(panels: Sequence[tuple[Sequence[Band], str]], y_label: str) -> Figure:
    """The same curves against several quantities, side by side. panels: the curves, and what they are drawn against."""
    with style():
        figure = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
        for axes, (bands, x_label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            draw_curves(axes, bands, x_label, y_label if axes.get_subplotspec().is_first_col() else "")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2 if len(panels) > 1 else 1)
    return figure


def draw_curves(axes: Axes, bands: Sequence[Band], x_label: str, y_label: str) -> None:
    for band in bands:
        color, line = color_of(band.number), STYLES[band.number % len(STYLES)]
        axes.fill_between(band.x, band.low, band.high, color=color, alpha=0.16, lw=0, gid=f"band-{band.number}")
        marker = "o" if len(band.x) < 15 else ""
        axes.plot(
            band.x,
            band.middle,
            line,
            color=color,
            lw=1.7,
            marker=marker,
            ms=3,
            label=cut(band.name),
            gid=f"line-{band.number}",
        )
    values = np.concatenate([part for band in bands for part in (band.low, band.high)])
    if is_log(values):
        make_log(axes.yaxis, values)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if max(band.x.max() for band in bands) >= 1000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def heat_figure(x: Axis, y: Axis, values: np.ndarray, label: str) -> Figure:
    """A cell for each pair of numbers, with the mean in it. values: (n,), as the places of the axes."""
    columns, rows = (sorted(set(axis.places.tolist())) for axis in (x, y))
    grid = np.full((len(rows), len(columns)), math.nan)
    for a, b, value in zip(x.places, y.places, values, strict=True):
        grid[rows.index(b), columns.index(a)] = value
    with style():
        figure = Figure(figsize=(1.8 + 0.75 * len(columns), 1.3 + 0.5 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        low, high = np.nanmin(grid), np.nanmax(grid)
        image = axes.imshow(grid, cmap=CMAP, aspect="auto", origin="lower")
        for (j, i), value in np.ndenumerate(grid):
            if math.isfinite(value):
                light = float(value) > low + 0.6 * (high - low)
                axes.text(
                    i,
                    j,
                    f"{value:.3g}",
                    ha="center",
                    va="center",
                    color="black" if light else "white",
                    fontsize="small",
                )
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
        axes.set(xlabel=x.name, ylabel=y.name)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label=label)
    return figure


def parallel_figure(axes_of: Sequence[Axis], values: np.ndarray, label: str, higher: bool) -> Figure:
    """Parallel coordinates: a line for each setting through its value of each key, colored by its mean."""
    order = np.argsort(values if higher else -values)  # the best is drawn last
    ranks = np.empty(len(values))
    ranks[order] = np.linspace(0, 1, len(values))
    all_axes = [*axes_of, Axis(label, values)]
    x, width = positions(all_axes)
    box = {"facecolor": PAPER, "alpha": 0.85, "lw": 0, "pad": 0.8}
    with style():
        figure = Figure(figsize=(width, 3.8), layout="constrained")
        axes = figure.add_subplot()
        heights = np.stack([scaled(axis) for axis in all_axes])  # (axes, n)
        for i in order:
            axes.plot(x, heights[:, i], color=CMAP(ranks[i]), lw=1.6, alpha=0.8)
        for place, axis in zip(x, all_axes, strict=True):
            axes.axvline(place, color=INK, lw=0.8)
            for height, text in ticks(axis):
                axes.annotate(
                    text, (place, height), (4, 0), textcoords="offset points", va="center", fontsize="small", bbox=box
                )  # fmt: skip
        axes.set_xticks(x, [cut(axis.name) for axis in all_axes])
        axes.set(yticks=[], xlim=(-0.1, width - 0.8))
        axes.spines[:].set_visible(False)
    return figure


def positions(axes: Sequence[Axis]) -> tuple[list[float], float]:
    """The places of parallel axes in inches, with room for their labels and names, and the width of the figure."""
    names = [LETTER * len(cut(axis.name)) for axis in axes]
    rooms = [max(LETTER * len(text) for _, text in ticks(axis)) for axis in axes]
    gaps = [
        max(1.1, room + 0.5, (name + following) / 2 + 0.2)
        for room, name, following in zip(rooms, names, names[1:], strict=False)
    ]
    return [0.0, *itertools.accumulate(gaps)], sum(gaps) + max(rooms[-1], names[-1] / 2) + 0.8


def is_log(places: np.ndarray) -> bool:
    return bool(places.min() > 0 and places.max() >= LOG_FROM * places.min())


def make_log(axis: XAxis | YAxis, values: np.ndarray) -> None:
    """Make the axis of a figure logarithmic, with plain numbers."""
    scale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
    scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if values.max() < 1000 * values.min() else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def scaled(axis: Axis) -> np.ndarray:
    """The places of an axis between 0 and 1."""
    places = np.log(axis.places) if axis.labels is None and is_log(axis.places) else axis.places.astype(float)
    width = places.max() - places.min()
    return (places - places.min()) / width if width else np.full(len(places), 0.5)


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Heights and texts on an axis, which do not overlap: of all values, if they are few and apart."""
    heights = dict(zip(axis.places.tolist(), scaled(axis).tolist(), strict=True))
    places = sorted(heights)
    if axis.labels is not None:
        every = math.ceil(len(places) / MOST_TICKS)
        return [(heights[place], cut(axis.labels[int(place)])) for place in places[::every]]
    found = [heights[place] for place in places]
    if all(b - a > 1 / MOST_TICKS for a, b in itertools.pairwise(found)):
        return [(heights[place], f"{place:.3g}") for place in places]
    low, high = places[0], places[-1]
    shares = np.linspace(0, 1, 5).tolist()
    if is_log(axis.places):
        return [(share, f"{low * (high / low) ** share:.2g}") for share in shares]
    return [(share, f"{low + share * (high - low):.3g}") for share in shares]


def cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
