"""Parzen log-likelihoods of several runs during training, and the published one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ganrun.figures.curves import DASHED, DOTTED, STEP
from ganrun.figures.density import BLACK, BLUE, ORANGE, SHADE
from ganrun.figures.mpl import Axes, Figure, MaxNLocator, StrMethodFormatter

MARKERS = "osD^vP*Xpd"  # one for each run


@dataclass(frozen=True)
class Line:
    """The scores of one run, of G_ema or of G: step -> (nats, standard error or 0)."""

    name: str
    ema: bool
    scores: Mapping[int, tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """The contents of one plot. published: (nats, error). anchor: the score of training images, in nats."""

    title: str
    lines: Sequence[Line]
    published: tuple[float, float] | None
    anchor: float | None


def likelihood_figure(panels: Sequence[Panel]) -> Figure:
    """The panels below each other. Lines of G_ema are solid, others dashed."""
    figure = Figure(figsize=(9, 4.2 * len(panels)), dpi=100, layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False).flatten(), panels, strict=True):
        _draw(axes, panel)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    markers = dict(zip(dict.fromkeys(line.name for line in panel.lines), MARKERS * len(panel.lines), strict=False))
    for line in panel.lines:
        steps = sorted(line.scores)
        axes.errorbar(
            steps, [line.scores[s][0] for s in steps], [line.scores[s][1] for s in steps],
            color=BLUE if line.ema else ORANGE, ls="-" if line.ema else DASHED, lw=1.4, capsize=2,
            marker=markers[line.name], ms=5, label=f"{line.name}, G_ema" if line.ema else line.name,
        )  # fmt: skip
    if panel.published:
        value, error = panel.published
        axes.axhspan(value - error, value + error, color=SHADE, lw=0)
        axes.axhline(value, color=BLACK, lw=1, label=f"published, {value:g} +- {error:g}")
    if panel.anchor is not None:
        axes.axhline(panel.anchor, color=BLACK, lw=1, ls=DOTTED, label=f"training images, {panel.anchor:.1f}")
    axes.set(xlabel=STEP, ylabel="test log-likelihood (nats)", title=panel.title)
    axes.set_xlim(left=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
