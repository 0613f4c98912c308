"""A run, finished or not, is looked at: what it drew, what it left on record, and what its loss asks of G."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, Split
from ganrun.diagnosis.history import course
from ganrun.diagnosis.samples import compare, copying
from ganrun.randomness import generator
from ganrun.run import Run
from ganrun.sampling import draw, evaluating, labels_like

NUM = 1000  # samples, and as many real examples twice, that are compared
ASKED = 300  # samples whose nearest training example is looked for
FEWEST_HELD_OUT = 20  # else what is held out cannot say how near an unseen example comes
MOST_TRAIN, MOST_NUMBERS = 50_000, 50_000_000  # training examples that they are held against, and numbers in them


def measure(run: Run, rows: Iterable[dict[str, Any]], diverged: bool = False) -> dict[str, float]:
    """Every number that a diagnosis is made from: a function of the weights, the data, the seed and the record.

    rows: of metrics.jsonl. diverged: whether the run was stopped for that.
    """
    found = course(rows) | {"diverged": float(diverged), "label_noise": run.options.label_noise}
    found["chance"] = chance(run.options.batch_size)
    dataset = run.dataset
    y = None if run.condition is None else labels_like(dataset.train, NUM, run.seed)
    samples = draw(run.sampler, run.latent, NUM, run.device, run.seed, y)
    found["finite"] = float(samples.isfinite().all())
    if not found["finite"]:
        return found
    found |= against_data(samples.flatten(1), dataset, run.seed)
    if (slope := slope_of(run, samples, y)) is not None:
        found["slope"] = slope
    return found


def chance(batch_size: int) -> float:
    """The standard deviation of the share of ordered pairs where D is blind: that of the Mann-Whitney statistic.

    >>> round(chance(64), 3)
    0.051
    """
    return ((2 * batch_size + 1) / 12) ** 0.5 / batch_size


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
    held_out = [examples(dataset, s, torch.arange(min(len(s), ASKED))) for s in (dataset.test, dataset.valid) if len(s)]
    unseen = torch.cat(held_out)[:ASKED] if sum(map(len, held_out)) >= FEWEST_HELD_OUT else None
    if len(train) >= 2:
        found |= copying(samples[:ASKED], train, unseen)
    return found


def examples(dataset: Dataset, split: Split, index: Tensor) -> Tensor:
    """Those examples in the data's values, on the CPU, (n, d)."""
    x = split.x[index.sort().values.to(split.x.device)]
    return dataset.spec.decode(x).float().cpu().flatten(1)


def slope_of(run: Run, samples: Tensor, y: Tensor | None) -> float | None:
    """How steep G's loss is in the logits of its samples, of what it is where D is undecided (all logits 0).

    None for a loss that G does not play on logits.
    """
    loss: Any = run.loss
    if not hasattr(loss, "g_loss"):
        return None
    real = run.dataset.train[: min(len(samples), ASKED)]
    num = len(real)
    x = run.dataset.spec.decode(real.x.to(run.device))
    labels = None if y is None else y[:num].to(run.device)
    with evaluating(run.D):
        fake_logits = run.D(samples[:num].to(run.device), labels).float()
        real_logits = run.D(x, None if labels is None or real.y is None else real.y.to(run.device)).float()
    return steepness(loss, fake_logits, real_logits) / (steepness(loss, 0 * fake_logits, 0 * real_logits) or 1.0)


def steepness(loss: Any, fake_logits: Tensor, real_logits: Tensor) -> float:
    logits = fake_logits.detach().requires_grad_()
    of_real = real_logits if getattr(loss, "g_needs_real", False) else None
    (slope,) = torch.autograd.grad(loss.g_loss(logits, of_real), logits)
    return slope.abs().sum().item()
