"""How D judges real and generated examples."""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ganrun.figures.density import BLACK, BLUE, ORANGE


def verdict_figure(of_real: Tensor, of_fake: Tensor, logistic: bool, title: str) -> Figure:
    """Histograms of D's logits (B,) of real and of generated examples.

    They are shown as probabilities, with the line of indifference at .50 and the share that D gets right, where
    `logistic`, and as they are for a critic.
    """
    values = [torch.sigmoid(x).numpy() if logistic else x.numpy() for x in (of_real, of_fake)]
    low, high = (0.0, 1.0) if logistic else (float(np.concatenate(values).min()), float(np.concatenate(values).max()))
    edges = np.linspace(low, max(high, low + 1e-6), 41)
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for x, logits, name, color, style in (
        (values[0], of_real, "real", BLACK, "-"),
        (values[1], -of_fake, "generated", BLUE, "--"),
    ):
        right = f", {(logits > 0).float().mean():.0%} told right" if logistic else ""
        axes.stairs(np.histogram(x, edges)[0] / len(x), edges, color=color, ls=style, lw=1.6, label=f"{name}{right}")
    if logistic:
        axes.axvline(0.5, color=ORANGE, lw=0.8, ls=":")
    axes.set(xlabel="D(x)" if logistic else "critic f(x)", ylabel="share of examples", title=title)
    axes.legend(frameon=False)
    return figure
