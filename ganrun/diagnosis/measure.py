"""The measurements of a diagnosis: samples compared with real examples, logged curves, and the slope of G's loss."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ganrun.data.dataset import Dataset, Split
from ganrun.data.seeds import generator
from ganrun.diagnosis.history import summarize
from ganrun.diagnosis.samples import compare, copying
from ganrun.protocols import DOutput, Loss

NUM = 1000  # samples that are compared with twice as many real examples
NUM_SEARCHED = 300  # samples whose nearest training example is searched
FEWEST_HELD_OUT = 20  # with fewer held-out examples, their distances to training examples are too uncertain
MOST_VALUES = 4096  # of an image
DECODED = 512  # examples decoded at a time
MOST_TRAIN, MOST_NUMBERS = 50_000, 50_000_000  # at most so many training examples, and values in them, are searched


def measure(
    samples: Tensor,
    dataset: Dataset,
    rows: Iterable[dict[str, Any]],
    seed: int,
    batch_size: int,
    label_noise: float = 0.0,
    diverged: bool = False,
    slope: float | None = None,
) -> dict[str, float]:
    """All measurements of a diagnosis.

    samples: (n, *shape); large images are reduced. rows: of metrics.jsonl. seed: of the choice of real examples.
    batch_size, label_noise: of the run. diverged: whether the run stopped because it diverged. slope: see
    `relative_slope`.
    """
    found = summarize(rows) | {"diverged": float(diverged), "label_noise": label_noise}
    found["chance"] = chance(batch_size)
    if "shown" in found:
        found["epochs"] = found.pop("shown") / len(dataset.train)
    found["finite"] = float(samples.isfinite().all())
    if not found["finite"]:
        return found
    found |= against_data(reduced(samples).flatten(1), dataset, seed)
    return found if slope is None else found | {"slope": slope}


def chance(batch_size: int) -> float:
    """The standard deviation of the share of correctly ordered pairs if D guesses: that of the Mann-Whitney statistic.

    >>> round(chance(64), 3)
    0.051
    """
    return math.sqrt((2 * batch_size + 1) / 12) / batch_size


def against_data(samples: Tensor, dataset: Dataset, seed: int) -> dict[str, float]:
    """Measurements of samples (n, d) compared with the data. Those that need more real examples are missing."""
    order = torch.randperm(len(dataset.train), generator=generator(seed, "diagnosis"))
    half = min(len(samples), len(order) // 2)
    found: dict[str, float] = {}
    if half >= 2:
        real, other = (examples(dataset, dataset.train, part) for part in (order[:half], order[half : 2 * half]))
        found |= compare(samples[:half], real, other, dataset.spec.std)
        found["compared"] = float(half)
    most = max(2, min(MOST_TRAIN, MOST_NUMBERS // dataset.spec.numel))
    train = rows_at(dataset.train, order[:most])
    splits = [split for split in (dataset.test, dataset.valid) if len(split)]
    held_out = [examples(dataset, split, torch.arange(min(len(split), NUM_SEARCHED))) for split in splits]
    enough = sum(map(len, held_out)) >= FEWEST_HELD_OUT
    if len(train) >= 2:
        unseen = torch.cat(held_out)[:NUM_SEARCHED] if enough else None
        found |= copying(samples[:NUM_SEARCHED], train, unseen, lambda x: vectors(x, dataset))
    return found


def examples(dataset: Dataset, split: Split, index: Tensor) -> Tensor:
    """The examples of a split at `index` (n,), in this order, as `vectors` (n, d)."""
    return vectors(rows_at(split, index), dataset)


def rows_at(split: Split, index: Tensor) -> Tensor:
    """The examples of a split at `index` (n,), as they are stored: (n, *shape)."""
    device = split.x.device
    found = torch.empty(len(index), *split.x.shape[1:], dtype=split.x.dtype, device=device)
    for place in index.argsort().split(DECODED):  # a memory map is read from front to back
        found[place.to(device)] = split.x[index[place].to(device)]
        split.release()
    return found


def vectors(x: Tensor, dataset: Dataset) -> Tensor:
    """Stored examples (n, *shape) as vectors (n, d), in the data's value range, on the CPU."""
    parts = (reduced(dataset.spec.decode(part).float().cpu()) for part in x.split(DECODED))
    return torch.cat([part.flatten(1) for part in parts])


def reduced(x: Tensor) -> Tensor:
    """Images (n, C, H, W) of more than MOST_VALUES values, averaged over k x k pixels with the least k; others as is.

    >>> reduced(torch.ones(1, 3, 64, 96)).shape, reduced(torch.ones(1, 3, 32, 32)).shape
    (torch.Size([1, 3, 21, 32]), torch.Size([1, 3, 32, 32]))
    """
    k = math.ceil(math.sqrt(x[0].numel() / MOST_VALUES)) if x.ndim == 4 and len(x) else 1
    return x if k == 1 else avg_pool2d(x, k)


def relative_slope(loss: Loss, fake_logits: Tensor, real_logits: Tensor) -> float | None:
    """The slope of G's loss with respect to the logits of its samples, relative to the slope if all logits are 0.

    Both logits have shape (n,). None for a loss that needs features.
    """
    if loss.g_needs_features:
        return None
    return slope_at(loss, fake_logits, real_logits) / (slope_at(loss, 0 * fake_logits, 0 * real_logits) or 1.0)


def slope_at(loss: Loss, fake_logits: Tensor, real_logits: Tensor) -> float:
    """The L1 norm of the gradient of G's loss with respect to the logits of its samples. Both logits are (n,)."""
    logits = fake_logits.detach().requires_grad_()
    real = DOutput(real_logits) if loss.g_needs_real else None
    (slope,) = torch.autograd.grad(loss.g_objective(DOutput(logits), real), logits)
    return slope.abs().sum().item()
