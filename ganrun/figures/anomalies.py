"""The most and the least anomalous of a user's examples, beside held-out real data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ganrun.data.dataset import DataSpec
from ganrun.figures.density import BLACK, BLUE, ORANGE
from ganrun.figures.grid import grid
from ganrun.figures.mpl import Axes, Figure

BINS = 60
HIGH = 0.99  # the quantile that is marked
REACH = 10  # standard deviations around the mean that are drawn
CUT = 0.995  # quantile of the scores at which the axis ends; higher ones are counted in the last bin


@dataclass(frozen=True)
class Ranking:
    """Scored examples x (n, *shape).

    by: the method of the scores. scores, quantiles (n,). held_out (m,): scores of held-out real examples. order (n,):
    the numbers of the examples, from most to least anomalous.
    """

    by: str
    x: Tensor
    names: Sequence[str]
    scores: np.ndarray
    quantiles: np.ndarray
    held_out: np.ndarray
    order: np.ndarray


def anomalies_figure(ranking: Ranking, spec: DataSpec, top: int, title: str) -> Figure:
    """Histograms of the scores; for images, two grids of at most `top`; for single numbers, the score of each."""
    extra = 2 if spec.is_image else int(spec.numel == 1)
    figure = Figure(figsize=(5.5 + 3.5 * extra, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots(1, 1 + extra, squeeze=False)[0]
    figure.suptitle(title)
    draw_scores(axes[0], ranking)
    if spec.is_image:
        for place, chosen, name in zip((1, 2), extremes(ranking.order, top), ("most", "least"), strict=True):
            axes[place].imshow(grid(spec.encode(ranking.x[chosen.copy()])))
            axes[place].set_axis_off()
            axes[place].set_title(f"{name} anomalous")
    elif extra:
        draw_numbers(axes[1], ranking, spec)
    return figure


def extremes(order: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last `top` of a ranking, each from its end; fewer of a short one, so that none is in both.

    >>> [part.tolist() for part in extremes(np.array([4, 2, 0, 1, 3]), top=32)]
    [[4, 2], [3, 1]]
    """
    num = min(top, max(1, len(order) // 2))
    return order[:num], order[::-1][:num]


def draw_scores(axes: Axes, ranking: Ranking) -> None:
    """Histograms of the scores of held-out real data and of the examples. Infinite scores are left out."""
    scores = ranking.scores[np.isfinite(ranking.scores)]
    both = np.concatenate([ranking.held_out, scores])
    high = max(float(np.quantile(both, CUT)), float(np.quantile(ranking.held_out, CUT)))
    edges = np.linspace(both.min(), max(high, both.min() + 1e-6), BINS + 1)
    for values, color, style, name in (
        (ranking.held_out, BLACK, "--", "held-out real data"),
        (scores, BLUE, "-", "input"),
    ):
        counts = np.histogram(values.clip(edges[0], edges[-1]), edges)[0]
        axes.stairs(
            counts / max(1, len(values)), edges, color=color, ls=style, lw=1.5, label=f"{name} ({len(values):,})"
        )
    axes.axvline(float(np.quantile(ranking.held_out, HIGH)), color=ORANGE, lw=0.8, ls=":", label=f"{HIGH} quantile")
    axes.set(xlabel=f"score: {ranking.by} (higher ones in the last bin)", ylabel="share")
    axes.legend(frameon=False, fontsize="small")


def draw_numbers(axes: Axes, ranking: Ranking, spec: DataSpec) -> None:
    """The quantile of each number; those far away are drawn at the edge, as triangles."""
    values, reach = ranking.x.flatten().numpy(), REACH * spec.std
    for chosen, color in ((ranking.quantiles < HIGH, BLUE), (ranking.quantiles >= HIGH, ORANGE)):
        far = np.abs(values - spec.mean) > reach
        drawn = values.clip(spec.mean - reach, spec.mean + reach)
        axes.scatter(drawn[chosen & ~far], ranking.quantiles[chosen & ~far], s=8, color=color, lw=0)
        axes.scatter(drawn[chosen & far], ranking.quantiles[chosen & far], s=24, color=color, marker="^", lw=0)
    axes.axhline(HIGH, color=ORANGE, lw=0.8, ls=":")
    unit = f" ({spec.unit})" if spec.unit else ""
    axes.set(xlabel=f"value{unit}", ylabel=f"quantile of {ranking.by} among held-out real data")
