"""Plots of two-dimensional data: samples over the true density, the discriminator, and the optimal one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ganrun.data.dataset import Dataset
from ganrun.figures.density import BLACK, BLUE, ORANGE, SHADE, TIGHT, critic_limits, d_name, note, unit_of
from ganrun.figures.mpl import Axes, BoundaryNorm, Figure, Line2D, LinearSegmentedColormap, MaxNLocator, Patch
from ganrun.metric.densities import Cells, optimal_discriminator
from ganrun.records.frames import Frame

CELLS = 300  # along each axis, for the true density
HELD = (0.99, 0.5)  # shares of the data inside the contours
ARROWS = 4  # grid positions of D from one arrow to the next
BELL = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)  # Gaussian kernel with a standard deviation of 1.5 cells
BELL /= BELL.sum()
FEWEST = 50  # fewest samples, real and generated, for which D* is drawn
CLEAR = 0.3  # the boundary of D* is drawn only if D* reaches this far above and below 1/2; else it is noise
LEVELS = tuple(k / 10 for k in range(11))  # of a probability
BEST = "optimal, D*(x)"
RARE: Any = {"fc": "white", "ec": "#bbbbbb", "hatch": "...."}
PALE = LinearSegmentedColormap.from_list("pale", ["#ffffff", "#f3b27a"])  # black lines are visible on all of it

Levels = list[float]


def plane_figure(dataset: Dataset, frame: Frame, title: str, levels: Levels | None = None) -> Figure:
    """Samples over the data; D with arrows along its gradient; and the optimal D*, if it is known.

    levels: contour levels of a critic, for comparison with other figures.
    """
    known = has_best(dataset, frame)
    figure = Figure(figsize=(13.2, 5.3) if known else (9.6, 5.3), dpi=100, layout="constrained")
    left, middle, *right = figure.subplots(1, 3 if known else 2, sharex=True, sharey=True)
    draw_samples(left, dataset, frame)
    draw_surface(middle, frame, levels)
    for axes in right:
        draw_best(axes, dataset, frame)
        axes.set_title(BEST, fontsize="medium")
    for axes in (left, middle, *right):
        axes.set(xlabel=f"x₁{unit_of(dataset)}")
    left.set_title("samples", fontsize="medium")
    middle.set_title(d_name(frame), fontsize="medium")
    left.set(ylabel=f"x₂{unit_of(dataset)}")
    figure.suptitle(title, fontsize="large")
    figure.legend(handles=handles(dataset, frame), loc="outside lower center", ncols=6, frameon=False, **TIGHT)
    return figure


def draw_samples(axes: Axes, dataset: Dataset, frame: Frame) -> None:
    """Generated samples as points over the regions that contain 50% and 99% of the data, with D's boundary."""
    if dataset.distribution is not None:
        mass, x, y = true_mass(dataset, frame)
        levels = sorted({held_level(mass, share) for share in HELD})  # one if modes are narrower than a cell
        axes.contourf(x, y, mass.T, [*levels, mass.max() * 1.01], colors=[SHADE, "#a8a8a8"][-len(levels) :])
        axes.contour(x, y, mass.T, levels[:1], colors=BLACK, linewidths=0.7, zorder=3)
    else:
        real = dataset.train.x[: len(frame.samples)].cpu().numpy()
        axes.plot(*real.T, ls="", marker="o", ms=2, color="#a8a8a8", mec="none")
    axes.plot(*frame.samples.T, ls="", marker="o", ms=2.2, color=BLUE, mec="none", alpha=0.6)
    if frame.logistic:
        boundary(axes, frame)
    low, high = frame.low, frame.high
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    outside = 1 - np.mean(((frame.samples >= low) & (frame.samples < high)).all(1))
    if outside >= 0.005:
        note(axes, 0.02, f"{outside:.0%} of samples outside")


def draw_surface(axes: Axes, frame: Frame, levels: Levels | None = None) -> None:
    """D as filled contours, darker for higher values, with its boundary and arrows along its gradient."""
    x, y, values = frame.positions(0), frame.positions(1), frame.d_values.T
    if not np.isfinite(values).all():
        axes.text(0.5, 0.5, "D's outputs are not finite", transform=axes.transAxes, ha="center")
        return
    levels = list(LEVELS) if frame.logistic else levels or critic_levels([frame])
    axes.contourf(x, y, values, levels, cmap=PALE, extend="neither" if frame.logistic else "both")
    if crossed := [level for level in levels[1:-1] if values.min() < level < values.max()]:
        lines = axes.contour(x, y, values, crossed, colors="#666666", linewidths=0.6, linestyles="solid")
        labelled = [level for level in crossed if not (frame.logistic and level == 0.5)]
        axes.clabel(lines, labelled, fmt=lambda value: level_label(value, frame.logistic), fontsize=7, colors=BLACK)
    if frame.logistic:
        boundary(axes, frame)
    draw_arrows(axes, frame)
    axes.set(aspect="equal")


def has_best(dataset: Dataset, frame: Frame) -> bool:
    """Whether D* can be computed: D is logistic, the data's density is known, and the frame has counts of samples."""
    return frame.logistic and dataset.distribution is not None and frame.counts.ndim == 2


def best_surface(dataset: Dataset, frame: Frame) -> np.ndarray:
    """D*(x) = p_data / (p_data + p_g) at the center of each cell, (64, 64), for G, not G_ema.

    Both densities are smoothed with the same kernel, since 10,000 samples are too few for single cells. So this is the
    optimal D for inputs with Gaussian noise of 1.5 cells. NaN where there are too few samples.
    """
    assert dataset.distribution is not None
    counts = frame.counts_g if len(frame.counts_g) else frame.counts
    cells = Cells(tuple(frame.low), tuple(frame.high), len(counts))
    mass = smooth(cells.mass(dataset.distribution).reshape(counts.shape).numpy())
    share = smooth(counts / frame.num)
    enough = (mass + share) * frame.num / (BELL**2).sum() ** 2 >= FEWEST
    best = optimal_discriminator(torch.from_numpy(mass), torch.from_numpy(share)).numpy()
    return np.where(enough, best, np.nan)


def smooth(mass: np.ndarray) -> np.ndarray:
    """Spread the mass (n, n) of each cell over its neighbors. Mass that leaves the box is lost."""
    for axis in range(2):
        mass = np.apply_along_axis(np.convolve, axis, mass, BELL, "same")
    return mass


def draw_best(axes: Axes, dataset: Dataset, frame: Frame) -> None:
    """The optimal D* in the colors of D, with its boundary; hatched where there are too few samples."""
    cells = Cells(tuple(frame.low), tuple(frame.high), len(frame.counts))
    x, y = ((e[1:] + e[:-1]).numpy() / 2 for e in map(cells.edges, range(2)))
    best = best_surface(dataset, frame).T
    axes.patch.set(**RARE)
    axes.pcolormesh(x, y, best, cmap=PALE, norm=BoundaryNorm(LEVELS, PALE.N), rasterized=True)
    axes.contour(x, y, np.isfinite(best), [0.5], colors=BLACK, linewidths=0.7)
    if np.nanmin(best, initial=1) < 0.5 - CLEAR and np.nanmax(best, initial=0) > 0.5 + CLEAR:
        axes.contour(x, y, best, [0.5], colors=ORANGE, linewidths=1.8, linestyles=[(0, (3, 1))])
    axes.set(aspect="equal")


def level_label(value: float, logistic: bool) -> str:
    """
    >>> level_label(0.25, logistic=True), level_label(-10.5, logistic=False)
    ('.25', '-10.5')
    """
    return f"{value:.3g}".removeprefix("0") if logistic else f"{value:.3g}"


def draw_arrows(axes: Axes, frame: Frame) -> None:
    """Arrows along the gradient of D's logit. Lengths grow with its square root, so that small ones are visible."""
    x, y = frame.positions(0), frame.positions(1)
    gx, gy = np.gradient(frame.logits.astype(float), x, y)
    pick = slice(ARROWS // 2, None, ARROWS)
    u, v = gx[pick, pick], gy[pick, pick]
    size = np.hypot(u, v)
    scale = np.where(size > 0, 1 / np.sqrt(np.maximum(size, 1e-12) * max(size.max(), 1e-12)), 0.0)
    step = ARROWS * (x[1] - x[0])
    gridx, gridy = np.meshgrid(x[pick], y[pick], indexing="ij")
    axes.quiver(
        gridx, gridy, u * scale * step, v * scale * step,
        angles="xy", scale_units="xy", scale=1.1, width=0.003, headwidth=4, color=BLACK, pivot="mid",
    )  # fmt: skip


def boundary(axes: Axes, frame: Frame) -> None:
    """The line D(x) = .5 of a logistic D, if there is one."""
    if frame.logits.min() < 0 < frame.logits.max():
        x, y = frame.positions(0), frame.positions(1)
        axes.contour(x, y, frame.logits.T, [0.0], colors=ORANGE, linewidths=1.8, linestyles=[(0, (3, 1))], zorder=4)


def true_mass(dataset: Dataset, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The data's probability of each cell, (CELLS, CELLS), and the centers of the cells along each axis."""
    assert dataset.distribution is not None
    cells = Cells(tuple(frame.low), tuple(frame.high), CELLS)
    x, y = ((e[1:] + e[:-1]).numpy() / 2 for e in map(cells.edges, range(2)))
    return cells.mass(dataset.distribution).reshape(CELLS, CELLS).numpy(), x, y


def held_level(mass: np.ndarray, share: float) -> float:
    """The level above which the cells contain this share of the probability.

    >>> held_level(np.array([0.1, 0.5, 0.2, 0.2]), 0.6)
    0.2
    """
    ordered = np.sort(mass.ravel())[::-1]
    return float(ordered[min(np.searchsorted(ordered.cumsum(), share * mass.sum()), mass.size - 1)])


def critic_levels(frames: Sequence[Frame]) -> Levels:
    """About seven round values that fit all frames."""
    return [float(level) for level in MaxNLocator(8).tick_values(*critic_limits(frames))]


def handles(dataset: Dataset, frame: Frame) -> list[Line2D | Patch]:
    """The entries of the legend."""
    arrow = Line2D(
        [],
        [],
        color=BLACK,
        ls="",
        marker=r"$\rightarrow$",
        ms=12,
        label=f"gradient of {d_name(frame)}: the pull on samples",
    )
    dots = Line2D([], [], color=BLUE, ls="", marker="o", ms=4, label="generated")
    real: list[Line2D | Patch] = [Line2D([], [], color="#a8a8a8", ls="", marker="o", ms=4, label="data")]
    if dataset.distribution is not None:
        real = [Patch(fc="#a8a8a8", label="50%"), Patch(fc=SHADE, ec=BLACK, lw=0.7, label="99% of the data")]
    line = [Line2D([], [], color=ORANGE, lw=1.8, ls=(0, (3, 1)), label="D(x) = .50")] if frame.logistic else []
    rare = [Patch(**RARE, lw=0, label="too few samples")] if has_best(dataset, frame) else []
    return [dots, *real, *line, arrow, *rare]
