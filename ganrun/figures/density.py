"""The density of one-dimensional data and of the generator, with the discriminator over them."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ganrun.data.dataset import Dataset
from ganrun.frames import Frame
from ganrun.theory import Cells, optimal_discriminator

BLACK, BLUE, ORANGE = (
    "#222222",
    "#0072b2",
    "#d55e00",
)  # told apart by the colour-blind, and in gray by their lines
SHADE = "#dddddd"
TIGHT: Any = {"columnspacing": 1.4, "handlelength": 1.9, "handletextpad": 0.5}  # of legends
FEWEST = 100  # samples, real and generated, in a cell where D* is shown

Limits = tuple[float, float]


def density_figure(dataset: Dataset, frame: Frame, title: str, top: float = 1.35) -> Figure:
    """The true density, that of the generator, and D on a right-hand axis with the best that a D could say.

    top: where the left axis ends, in multiples of the highest true density.
    """
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    draw_density(left, dataset, frame, top)
    draw_discriminator(right, dataset, frame)
    left.set(xlabel=f"x{unit_of(dataset)}", ylabel=density_label(dataset), title=title)
    right.set_ylabel(d_name(frame))
    legend_below(figure, left, right)
    return figure


def draw_density(axes: Axes, dataset: Dataset, frame: Frame, top: float) -> None:
    """The data's density as an area, the generator's as a line of steps; what is cut off is said."""
    x, truth = true_density(dataset, frame)
    edges, made = made_density(frame)
    axes.fill_between(x, truth, color=SHADE)
    axes.plot(x, truth, color=BLACK, lw=1.4, ls=":", label="data")
    axes.stairs(made, edges, color=BLUE, lw=1.6, label="generated (average)" if len(frame.played) else "generated")
    if len(frame.played):
        axes.stairs(made_density(frame, "played")[1], edges, color=BLUE, lw=0.6, label="by G itself")
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, top * truth.max()))
    outside = 1 - frame.counts.sum() / frame.num
    if outside >= 0.005:
        note(axes, 0.02, f"{outside:.0%} of samples outside")
    if made.max() > top * truth.max():
        note(axes, 0.98, f"generated: up to {made.max():.2g}")


def note(axes: Axes, x: float, text: str) -> None:
    """A remark on the generator in a corner at the top, left or right as x says."""
    axes.text(
        x, 0.94, text, transform=axes.transAxes, ha="left" if x < 0.5 else "right", va="top", fontsize="small",
        color=BLUE, bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
    )  # fmt: skip


def true_density(dataset: Dataset, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and there the data's density: exact where it is known, else a histogram."""
    x = np.linspace(frame.low[0], frame.high[0], 500)
    if dataset.distribution is not None:
        return x, dataset.distribution.log_prob(torch.from_numpy(x)).exp().numpy()
    edges, _ = made_density(frame)
    histogram, _ = np.histogram(dataset.train.x.cpu().numpy(), edges, density=True)
    return x, np.interp(x, (edges[1:] + edges[:-1]) / 2, histogram)


def made_density(frame: Frame, which: str = "counts") -> tuple[np.ndarray, np.ndarray]:
    """The edges of cells, and between them the generator's density."""
    counts = coarse(frame, which)
    edges = np.linspace(frame.low[0], frame.high[0], len(counts) + 1)
    return edges, counts / frame.num / np.diff(edges)


def top_for(dataset: Dataset, frames: Sequence[Frame], most: float) -> float:
    """The end of a density axis, in multiples of the highest true density: room for every peak, but not beyond most."""
    truth = true_density(dataset, frames[0])[1].max()
    peak = max(made_density(frame)[1].max() for frame in frames) / truth
    return float(min(max(1.35, 1.05 * peak), most))


def draw_discriminator(axes: Axes, dataset: Dataset, frame: Frame, limits: Limits | None = None) -> None:
    """D over its axis, or the critic; of a logistic D the line of indifference and, where it is known, the optimum."""
    axes.plot(frame.positions(), frame.d_values, color=ORANGE, lw=1.8, ls=(0, (5, 2)), label=d_name(frame))
    if not frame.logistic:
        axes.set_ylim(limits or critic_limits([frame]))
        return
    axes.axhline(0.5, color=ORANGE, lw=0.8, ls=":", label="D(x) = .50")
    axes.set(ylim=(-0.02, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1], yticklabels=["0", ".25", ".50", ".75", "1"])
    if dataset.distribution is not None:
        centers, best = optimum(dataset, frame)
        axes.plot(centers, best, color=BLACK, lw=1.1, ls=(0, (6, 2, 1, 2)), label="best, D*(x)")


def optimum(dataset: Dataset, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and there D*(x) = p_data / (p_data + p_g) for the G that plays; not a number where both are rare."""
    assert dataset.distribution is not None
    share = torch.from_numpy(coarse(frame, "played" if len(frame.played) else "counts")) / frame.num
    cells = Cells(tuple(frame.low), tuple(frame.high), len(share))
    mass = cells.mass(dataset.distribution)
    seen = (mass + share) * frame.num >= FEWEST
    return cells.centers().numpy(), torch.where(seen, optimal_discriminator(mass, share), torch.nan).numpy()


def coarse(frame: Frame, which: str = "counts") -> np.ndarray:
    """A histogram of the frame in 100 cells, or in 50 where the samples are few: fewer cells, less noise."""
    return getattr(frame, which).reshape(100 if frame.num >= 20_000 else 50, -1).sum(1)


def critic_limits(frames: Sequence[Frame]) -> Limits:
    """A range of D's values that fits all frames."""
    values = np.concatenate([frame.d_values.ravel() for frame in frames])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def d_name(frame: Frame) -> str:
    return "D(x)" if frame.logistic else "critic f(x)"


def unit_of(dataset: Dataset) -> str:
    return f" ({dataset.spec.unit})" if dataset.spec.unit else ""


def density_label(dataset: Dataset) -> str:
    return f"density{unit_of(dataset).replace('(', '(1 / ')}"


def legend_below(figure: Figure, *axes: Axes) -> None:
    """One row under everything, where no line is hidden by it."""
    handles = [handle for ax in axes for handle in ax.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, **TIGHT)


def to_array(figure: Figure) -> np.ndarray:
    """The figure as an image (H, W, 3) of uint8."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": "figure"}):
        figure.savefig(buffer, format="rgba")
    width, height = (round(size * figure.dpi) for size in figure.get_size_inches())
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)[..., :3].copy()
