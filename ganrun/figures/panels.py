"""Several frames of a run side by side, as in Figure 1 of Goodfellow et al. 2014, "Generative Adversarial Nets"."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ganrun.data.dataset import Dataset
from ganrun.figures.density import (
    BLUE,
    TIGHT,
    Limits,
    critic_limits,
    d_name,
    density_label,
    draw_density,
    draw_discriminator,
    legend_below,
    top_for,
    unit_of,
)
from ganrun.figures.mpl import Axes, Figure
from ganrun.figures.plane import (
    BEST,
    Levels,
    critic_levels,
    draw_best,
    draw_samples,
    draw_surface,
    handles,
    has_best,
)
from ganrun.records.frames import Frame

ARROWS = 25  # from z to x
MOST_SHARED = 2.0  # highest end of the density axis of several frames, in multiples of the highest true density


def density_panels(
    dataset: Dataset,
    frames: Sequence[Frame],
    titles: Sequence[str],
    limits: Limits | None = None,
    top: float | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """For each frame the data (dotted), the generator (solid) and D (dashed), and below them how G maps z to x.

    As in the paper, the lower line is z and the upper one x. There are equally many samples between all neighboring
    arrows, so the arrows are dense where the generator's density is high. limits, top: ends of the critic's axis and of
    the density axis, for comparison with other figures.
    """
    limits = limits or (None if frames[0].logistic else critic_limits(frames))
    top = top or top_for(dataset, frames, MOST_SHARED)
    n = len(frames)
    figure = Figure(figsize=size or (1 + 3.4 * n, 4.6), dpi=100, layout="constrained")
    grid = figure.subplots(2, n, squeeze=False, gridspec_kw={"height_ratios": [3, 1.1]})
    for i, (frame, title) in enumerate(zip(frames, titles, strict=True)):
        over, bottom = grid[:, i]
        right = over.twinx()
        draw_density(over, dataset, frame, top)
        draw_discriminator(right, dataset, frame, limits)
        draw_map(bottom, frame)
        over.set(title=title)
        over.tick_params(labelbottom=False, labelleft=i == 0)
        right.tick_params(labelright=i == n - 1)
        bottom.set(xlabel=f"{z_name(frame)}, mapped to x{unit_of(dataset)} above")
        if i == 0:
            over.set_ylabel(density_label(dataset))
        if i == n - 1:
            right.set_ylabel(d_name(frame))
    legend_below(figure, over, right)
    return figure


def draw_map(axes: Axes, frame: Frame) -> None:
    """Arrows from z on the lower line to G(z) on the upper one, which is the x axis of the figure above it."""
    low, high = frame.low[0], frame.high[0]
    reach = np.abs(frame.z).max() * 1.1 or 1.0

    def at(z: Any) -> np.ndarray:
        position: np.ndarray = low + (np.asarray(z) + reach) / (2 * reach) * (high - low)
        return position

    pick = np.linspace(0, len(frame.z) - 1, ARROWS).round().astype(int)
    start, end = at(frame.z[pick]), frame.samples[pick, 0]
    axes.quiver(
        start, np.zeros(len(start)), end - start, np.ones(len(start)),
        angles="xy", scale_units="xy", scale=1, units="inches", width=0.013, headwidth=4, headlength=6, color=BLUE,
    )  # fmt: skip
    ticks = round_ticks(reach)
    axes.set(xlim=(low, high), ylim=(0, 1), yticks=[], xticks=at(ticks), xticklabels=[f"{tick:g}" for tick in ticks])
    above = axes.secondary_xaxis("top")
    above.tick_params(direction="inout")
    for side in ("left", "right"):
        axes.spines[side].set_visible(False)


def z_name(frame: Frame) -> str:
    return "z" if frame.z_dim == 1 else f"z₁, the first of {frame.z_dim} latents"


def round_ticks(reach: float) -> list[float]:
    """Five round values, symmetric about 0, within reach.

    >>> round_ticks(2.9), round_ticks(1.1)
    ([-2.0, -1.0, 0.0, 1.0, 2.0], [-1.0, -0.5, 0.0, 0.5, 1.0])
    """
    power = 10.0 ** np.floor(np.log10(reach / 2))
    step = max(m for m in (1, 2, 5) if m * power <= reach / 2) * power
    return [float(k * step) for k in range(-2, 3)]


def plane_panels(dataset: Dataset, frames: Sequence[Frame], titles: Sequence[str]) -> Figure:
    """For each two-dimensional frame the samples over the data, and below them D and the optimal D*."""
    levels: Levels | None = None if frames[0].logistic else critic_levels(frames)
    n, rows = len(frames), 3 if all(has_best(dataset, frame) for frame in frames) else 2
    figure = Figure(figsize=(0.8 + 3.1 * n, 0.7 + 3.1 * rows), dpi=100, layout="constrained")
    grid = figure.subplots(rows, n, squeeze=False, sharex=True, sharey=True)
    for i, (frame, title) in enumerate(zip(frames, titles, strict=True)):
        top, middle, *bottom = grid[:, i]
        draw_samples(top, dataset, frame)
        draw_surface(middle, frame, levels)
        for axes in bottom:
            draw_best(axes, dataset, frame)
        top.set(title=title)
        grid[-1, i].set(xlabel=f"x₁{unit_of(dataset)}")
    for axes, what in zip(grid[:, 0], ("samples", d_name(frames[0]), BEST), strict=False):
        axes.set(ylabel=f"{what}: x₂{unit_of(dataset)}")
    figure.legend(handles=handles(dataset, frames[0]), loc="outside lower center", ncols=6, frameon=False, **TIGHT)
    return figure
