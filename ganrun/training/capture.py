"""Captures frames of a run, from which figures are drawn, without changing the training."""

import numpy as np
import torch
from torch import Tensor

from ganrun.data.dataset import Dataset
from ganrun.metric.densities import Cells
from ganrun.records.frames import Frame
from ganrun.training.run import Run
from ganrun.training.sampling import d_logits, fixed_latents, generate

BINS = 400  # of the histogram in one dimension
POINTS = {1: 401, 2: 64}  # of D's logits along each axis, by the number of dimensions
DRAWS = 201  # samples kept with their latents in one dimension,
RANKED = 5000  # selected by rank from this many: sorting all would take as long as drawing them
PLANE, COUNTED = 2500, 10_000  # samples kept, and samples counted, in two dimensions


def can_capture(run: Run) -> bool:
    """Whether the data of `run` have one or two dimensions and are no table, and it uses no labels."""
    spec = run.dataset.spec
    return spec.shape in ((1,), (2,)) and spec.form is None and not run.condition.uses_labels


def box_of(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The box (low, high) of all frames of a run.

    Five standard deviations around the mean, or around all modes; in two dimensions three, plus a quarter on each side.
    """
    spec, truth, flat = dataset.spec, dataset.distribution, dataset.spec.shape == (1,)
    if truth is not None:
        cells = Cells.around(truth, 1, sigmas=5.0 if flat else 3.0)
        low, high = cells.low, cells.high
    elif flat:
        low, high = (spec.mean - 5 * spec.std,), (spec.mean + 5 * spec.std,)
    else:
        x = dataset.train.x.float()
        low, high = tuple(x.amin(0).tolist()), tuple(x.amax(0).tolist())
    margin = [0.0 if flat else (b - a) / 4 for a, b in zip(low, high, strict=True)]
    return (
        tuple(a - m for a, m in zip(low, margin, strict=True)),
        tuple(b + m for b, m in zip(high, margin, strict=True)),
    )


def capture(run: Run, step: int, num: int = 0) -> Frame:
    """The current frame of `run`. num: samples to draw; 0: 20,000, or fewer for data with which G is usually larger."""
    low, high = box_of(run.dataset)
    dim = len(low)
    z_dim = run.latent.dim
    num = num or (COUNTED if dim == 2 else 20_000 if z_dim == 1 else 5000)
    z = fixed_latents(run.latent, num, run.device, run.seed)
    x = generate(run.sampler, z)  # (num, d)
    first = z[:, 0].float().cpu()
    counts, counts_g = histogram(x, low, high), torch.zeros(0, dtype=torch.int32)
    if run.G_ema is not None:
        counts_g = histogram(generate(run.G, z), low, high)
    if dim == 1:
        order = first[:RANKED].argsort()
        kept = order[torch.linspace(0, len(order) - 1, DRAWS + 2)[1:-1].long()]
    else:
        kept = torch.arange(min(num, PLANE))
    lines = [torch.linspace(a, b, POINTS[dim]) for a, b in zip(low, high, strict=True)]
    grid = torch.cartesian_prod(*lines).view(-1, dim)
    logits = d_logits(run.D, grid, run.device, run.options.batch_size)
    return Frame(
        step=step,
        logistic=run.loss.logistic,
        num=num,
        z_dim=z_dim,
        low=np.array(low),
        high=np.array(high),
        mean=_array(x.mean(0)),
        std=_array(x.std(0)),
        logits=_array(logits.view([POINTS[dim]] * dim)),
        counts=_array(counts),
        counts_g=_array(counts_g),
        z=_array(first[kept]),
        samples=_array(x[kept]),
    )


def histogram(x: Tensor, low: tuple[float, ...], high: tuple[float, ...]) -> Tensor:
    """The number of samples x (n, d) in each cell of the box: (400,) or (64, 64)."""
    if len(low) == 1:
        return torch.histc(x, BINS, low[0], high[0]).int()
    num = POINTS[2]
    return (Cells(low, high, num).share(x) * len(x)).round().int().view(num, num)


def _array(x: Tensor) -> np.ndarray:
    return x.contiguous().numpy()
