"""The numbers of a diagnosis: samples against real examples, the logged curves, and the slope of G's loss."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, Split
from ganrun.data.seeds import generator
from ganrun.diagnosis.history import summarize
from ganrun.diagnosis.samples import compare, copying
from ganrun.protocols import DOutput, Loss

NUM = 1000  # samples, and twice as many real examples, that are compared
NUM_SEARCHED = 300  # samples whose nearest training example is searched
FEWEST_HELD_OUT = 20  # below that, held-out examples cannot say how near an unseen example comes
MOST_TRAIN, MOST_NUMBERS = 50_000, 50_000_000  # training examples that are searched, and numbers in them


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
    """Every number that a diagnosis is made from.

    samples (n, *shape). rows: of metrics.jsonl. seed: chooses the real examples. batch_size, label_noise: of the run.
    diverged: whether it was stopped for that. slope: see `relative_slope`.
    """
    found = summarize(rows) | {"diverged": float(diverged), "label_noise": label_noise}
    found["chance"] = chance(batch_size)
    found["finite"] = float(samples.isfinite().all())
    if not found["finite"]:
        return found
    found |= against_data(samples.flatten(1), dataset, seed)
    return found if slope is None else found | {"slope": slope}


def chance(batch_size: int) -> float:
    """The standard deviation of the share of ordered pairs under guessing: that of the Mann-Whitney statistic.

    >>> round(chance(64), 3)
    0.051
    """
    return math.sqrt((2 * batch_size + 1) / 12) / batch_size


def against_data(samples: Tensor, dataset: Dataset, seed: int) -> dict[str, float]:
    """samples (n, d)."""
    order = torch.randperm(len(dataset.train), generator=generator(seed, "diagnosis"))
    half = min(len(samples), len(order) // 2)
    found: dict[str, float] = {}
    if half >= 2:
        real, other = (examples(dataset, dataset.train, part) for part in (order[:half], order[half : 2 * half]))
        found |= compare(samples[:half], real, other, dataset.spec.std)
        found["compared"] = float(half)
    most = max(2, min(MOST_TRAIN, MOST_NUMBERS // dataset.spec.numel))
    train = examples(dataset, dataset.train, order[:most])
    splits = [split for split in (dataset.test, dataset.valid) if len(split)]
    held_out = [examples(dataset, split, torch.arange(min(len(split), NUM_SEARCHED))) for split in splits]
    enough = sum(map(len, held_out)) >= FEWEST_HELD_OUT
    if len(train) >= 2:
        found |= copying(samples[:NUM_SEARCHED], train, torch.cat(held_out)[:NUM_SEARCHED] if enough else None)
    return found


def examples(dataset: Dataset, split: Split, index: Tensor) -> Tensor:
    """Those examples in the data's values, on the CPU, (n, d)."""
    x = split.x[index.sort().values.to(split.x.device)]
    return dataset.spec.decode(x).float().cpu().flatten(1)


def relative_slope(loss: Loss, fake_logits: Tensor, real_logits: Tensor) -> float | None:
    """The slope of G's loss in the logits of its samples, over what it is where all logits are 0. Logits are (n,).

    None for a loss that needs more than logits.
    """
    if loss.g_needs_features:
        return None
    return slope_at(loss, fake_logits, real_logits) / (slope_at(loss, 0 * fake_logits, 0 * real_logits) or 1.0)


def slope_at(loss: Loss, fake_logits: Tensor, real_logits: Tensor) -> float:
    logits = fake_logits.detach().requires_grad_()
    real = DOutput(real_logits) if loss.g_needs_real else None
    (slope,) = torch.autograd.grad(loss.g_objective(DOutput(logits), real), logits)
    return slope.abs().sum().item()
