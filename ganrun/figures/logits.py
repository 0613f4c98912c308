"""Histograms of D's logits."""

import numpy as np
import torch
from torch import Tensor

from ganrun.figures.density import BLACK, BLUE, ORANGE
from ganrun.figures.mpl import Figure


def logits_figure(real_logits: Tensor, fake_logits: Tensor, logistic: bool, title: str) -> Figure:
    """Histograms of D on real and on generated examples; logits are (B,).

    For a logistic loss, D is drawn as a probability, with a line at .50 and D's accuracy in the legend. For other
    losses, the logits are drawn.
    """
    values = [(torch.sigmoid(x) if logistic else x).numpy() for x in (real_logits, fake_logits)]
    low, high = (0.0, 1.0) if logistic else (float(np.concatenate(values).min()), float(np.concatenate(values).max()))
    edges = np.linspace(low, max(high, low + 1e-6), 41)
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for x, right, name, color, style in (
        (values[0], real_logits > 0, "real", BLACK, "-"),
        (values[1], fake_logits < 0, "generated", BLUE, "--"),
    ):
        accuracy = f", {right.float().mean():.0%} classified correctly" if logistic else ""
        axes.stairs(np.histogram(x, edges)[0] / len(x), edges, color=color, ls=style, lw=1.6, label=f"{name}{accuracy}")
    if logistic:
        axes.axvline(0.5, color=ORANGE, lw=0.8, ls=":")
    axes.set(xlabel="D(x)" if logistic else "critic f(x)", ylabel="share of examples", title=title)
    axes.legend(frameon=False)
    return figure
