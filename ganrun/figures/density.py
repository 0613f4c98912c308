"""The density of one-dimensional data and of the generator, with the discriminator over them."""

import io

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ganrun.data.dataset import Dataset

BLACK, BLUE, ORANGE = (
    "#222222",
    "#0072b2",
    "#d55e00",
)  # told apart by the colour-blind, and in gray by their lines


def axis_limits(dataset: Dataset) -> tuple[float, float]:
    """Five standard deviations of the data to either side of its mean."""
    spec = dataset.spec
    return spec.mean - 5 * spec.std, spec.mean + 5 * spec.std


def density_figure(
    dataset: Dataset, samples: Tensor, x: Tensor, d_values: Tensor, logistic: bool, title: str
) -> Figure:
    """The true density, that of samples (n, 1), and D at positions x (m,) on a right-hand axis.

    d_values: D's logits (m,), shown as probabilities with the line of indifference at .50 where `logistic`,
    and as they are for a critic.
    """
    low, high = axis_limits(dataset)
    unit = f" ({dataset.spec.unit})" if dataset.spec.unit else ""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    edges = np.linspace(low, high, 101)

    if dataset.distribution is not None:
        truth = dataset.distribution.log_prob(x).exp()
    else:
        histogram, _ = np.histogram(dataset.train.x.cpu().numpy(), edges, density=True)
        truth = torch.from_numpy(np.interp(x, (edges[1:] + edges[:-1]) / 2, histogram))
    left.fill_between(x, truth, color="#dddddd")
    left.plot(x, truth, color=BLACK, lw=1.2, label="data")
    counts, _ = np.histogram(samples.numpy(), edges)
    left.stairs(counts / len(samples) / np.diff(edges), edges, color=BLUE, lw=1.6, label="generated")
    left.set(xlabel=f"x{unit}", ylabel=f"density{unit.replace('(', '(1 / ')}", xlim=(low, high), title=title)
    left.set_ylim(0, 1.35 * float(truth.max()))

    values = torch.sigmoid(d_values) if logistic else d_values
    name = "D(x)" if logistic else "critic f(x)"
    right.plot(x, values, color=ORANGE, lw=1.6, ls="--", label=f"{name}, right axis")
    if logistic:
        right.axhline(0.5, color=ORANGE, lw=0.8, ls=":")
        right.set(ylim=(0, 1), yticks=[0, 0.25, 0.5, 0.75, 1], yticklabels=["0", ".25", ".50", ".75", "1"])
    right.set_ylabel(name)
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    left.legend(handles=handles, loc="upper left", frameon=False)
    return figure


def to_array(figure: Figure) -> np.ndarray:
    """The figure as an image (H, W, 3) of uint8."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": "figure"}):
        figure.savefig(buffer, format="rgba")
    width, height = (round(size * figure.dpi) for size in figure.get_size_inches())
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)[..., :3].copy()
