"""The Parzen-window log-likelihood, as in Table 1 of Goodfellow et al. 2014."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.metric.keys import count
from ganrun.metric.vectors import unit, unit_parts
from ganrun.protocols import DFunction, Metric, MetricKey

log = logging.getLogger("ganrun")

DISTANCES = 1 << 22  # number computed at a time, 4 bytes each, which bounds the memory
BLOCK = 8, 4000  # rows and columns of a block, which fits into a core's cache; its rows are summed in float32
ANCHOR_PARTS = {"": "anchor", "se": "anchor_se", "sigma": "anchor_sigma", "valid": "anchor_valid"}  # ends of keys


class Parzen(Metric):
    """The log-likelihood, in nats, of test data under a Parzen window: Gaussians of width sigma at `num` samples.

    Goodfellow et al. 2014, section 5; Breuleux, Bengio and Vincent 2011, "Quickly generating representative samples
    from an RBM-derived process". LL(x) = log 1/n sum_j exp(-|x - mu_j|^2 / 2 sigma^2) - d log(sigma sqrt(2 pi)), for
    samples mu_j of d values. Images are compared in [0, 1], other data in their own units. sigma is chosen
    on the first `num_valid` validation examples (null: all), where it maximizes the mean, among `num_sigmas` values
    between `sigma_min` and `sigma_max`, evenly spaced on a logarithmic scale. For 10,000 samples:
    - parzen_10k: the mean over all test examples, and parzen_10k_se, its standard error std / sqrt(n);
    - parzen_10k_sigma, and parzen_10k_valid, the mean over the validation examples. As these also choose sigma, it is
      biased upwards, but little: they choose only one of ten values;
    - parzen_10k_num_valid and _num_test: the numbers of these examples;
    - parzen_10k_anchor, _anchor_se, _anchor_sigma, _anchor_valid: the same with training examples in place of the
      samples, as many if there are enough (`_anchor_num`), drawn with a fixed seed.
    split=valid does not use test data, and leaves out what needs them: to choose a checkpoint by parzen_10k_valid.

    The score says little about quality. Blurred training images of MNIST score 320, and the images themselves 244, so a
    score above the anchor is not a good sign. In many dimensions it is far from the true likelihood for any number of
    samples (Theis, van den Oord and Bethge 2016, arXiv:1511.01844). `check` raises ValueError for missing splits.
    """

    caveat = (
        "parzen: says little about quality: on MNIST, blurred training images score 320, above the 244 of the images "
        "themselves (the anchor), and in many dimensions it does not estimate the likelihood (Theis et al. 2016, "
        "arXiv:1511.01844)."
    )

    def __init__(
        self,
        num: int = 10000,
        num_valid: int | None = 1000,
        split: Literal["test", "valid"] = "test",
        anchor: bool = True,
        sigma_min: float = 0.1,
        sigma_max: float = 1.0,
        num_sigmas: int = 10,
    ) -> None:
        for name, value in (("num", num), ("num_valid", num_valid), ("num_sigmas", num_sigmas)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if not sigma_min > 0:
            raise ValueError(f"sigma_min={sigma_min}: must be greater than 0.")
        if sigma_max < sigma_min:
            raise ValueError(f"sigma_max={sigma_max}: must be at least sigma_min={sigma_min}.")
        self.num, self.num_valid, self.split, self.anchor = num, num_valid, split, anchor
        self.sigmas = np.geomspace(sigma_min, sigma_max, num_sigmas).tolist()
        self._known_anchor: tuple[Dataset, dict[str, float]] | None = None

    def check(self, dataset: Dataset) -> None:
        splits = {"valid": dataset.valid} | ({"test": dataset.test} if self.split == "test" else {})
        for name, split in splits.items():
            if not len(split):
                raise ValueError(f"metric=parzen: needs {name} data, and this data set has none; use metric=none.")

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        name, test = f"parzen_{count(self.num)}", self.split == "test"
        score, anchor = (name, f"{name}_anchor") if test else (f"{name}_valid", f"{name}_anchor_valid")
        found = {score: MetricKey("higher", "nats", from_test=test)}
        if test:
            found[f"{name}_se"] = MetricKey(unit="nats", from_test=True, about=score)
            found[f"{name}_valid"] = MetricKey("higher", "nats", about=score)
            found[f"{name}_num_test"] = MetricKey(from_test=True, about=score)
        found |= {f"{name}_{part}": MetricKey(about=score) for part in ("sigma", "num_valid")}
        if self.anchor:
            found[anchor] = MetricKey(unit="nats", from_test=test, about=score)
            found |= {f"{name}_anchor_{part}": MetricKey(about=anchor) for part in ("sigma", "num")}
        if self.anchor and test:
            found[f"{anchor}_se"] = MetricKey(unit="nats", from_test=True, about=anchor)
            found[f"{anchor}_valid"] = MetricKey(unit="nats", about=anchor)
        return found

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        """samples (n, *shape), in the data's value range; the first `num` count."""
        x = samples[: self.num]
        found = self._score(unit(x, dataset.spec), dataset)
        if self.anchor:
            found |= self._of_training_examples(dataset)
        name = f"parzen_{count(len(x))}"
        return {f"{name}_{part}" if part else name: value for part, value in found.items()}

    def _score(self, centers: Tensor, dataset: Dataset) -> dict[str, float]:
        chosen_by = dataset.valid[: self.num_valid]
        means = of_split(chosen_by, dataset.spec, centers, self.sigmas).mean(1)  # (S,)
        best = int(means.argmax())
        sigma = self.sigmas[best]
        if best in (0, len(means) - 1) and len(means) > 1:
            log.warning("metric.parzen: sigma=%.4g is at the end of its range; widen sigma_min, sigma_max.", sigma)
        found = {"sigma": sigma, "valid": means[best].item(), "num_valid": float(len(chosen_by))}
        if self.split == "valid":
            return found
        (scores,) = of_split(dataset.test, dataset.spec, centers, [sigma])
        error = scores.std(correction=0).item() / math.sqrt(len(scores))
        return {"": scores.mean().item(), "se": error, **found, "num_test": float(len(scores))}

    def _of_training_examples(self, dataset: Dataset) -> dict[str, float]:
        """Computed only once, because they do not change during a run."""
        if self._known_anchor is None or self._known_anchor[0] is not dataset:
            index = anchor_index(len(dataset.train), self.num)
            x = dataset.spec.decode(dataset.train.x[index.to(dataset.train.x.device)].cpu())
            found = self._score(unit(x, dataset.spec), dataset)
            named = {ANCHOR_PARTS[part]: value for part, value in found.items() if part in ANCHOR_PARTS}
            self._known_anchor = dataset, {**named, "anchor_num": float(len(index))}
        return self._known_anchor[1]


def part_of(key: str) -> str | None:
    """The part of a Parzen key after the number of samples; None for keys of other metrics.

    >>> part_of("parzen_10k_valid"), part_of("parzen_2500"), part_of("jsd_10k")
    ('valid', '', None)
    """
    found = re.fullmatch(r"parzen_\d+k?(?:_(\w+))?", key)
    return (found[1] or "") if found else None


def anchor_index(num_train: int, num: int) -> Tensor:
    """The indices of `num` random training examples, or of all. NumPy guarantees that RandomState(0) never changes."""
    order = np.random.RandomState(0).permutation(num_train)
    return torch.from_numpy(order[:num])


def of_split(split: Split, spec: DataSpec, centers: Tensor, sigmas: Sequence[float]) -> Tensor:
    """`log_likelihoods` of the examples of a split, (S, n), decoded in batches."""
    return torch.cat([log_likelihoods(x, centers, sigmas) for x in unit_parts(split, spec)], dim=1)


def log_likelihoods(x: Tensor, centers: Tensor, sigmas: Sequence[float]) -> Tensor:
    """log 1/m sum_j N(x; centers_j, sigma^2 I) of x (n, d) and centers (m, d), for each sigma: (S, n), float64, nats.

    |x - c|^2 = |x|^2 - 2 xc + |c|^2, after both are shifted so that the mean of the centers is 0, which keeps the terms
    small. The products are in float32; |x|^2, which is the same for all centers, is added in float64 after the sum.

    >>> log_likelihoods(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0]]), [1.0]) + math.log(2 * math.pi) / 2
    tensor([[ 0.0000, -0.5000]], dtype=torch.float64)
    """
    m, d = centers.shape
    mean = centers.mean(0)
    centers = centers - mean
    squares = centers.square().sum(1)  # (m,)
    widths = torch.tensor(sigmas, dtype=torch.float64)[:, None]  # (S, 1)
    parts = []
    for part in (x - mean).split(max(1, DISTANCES // m)):
        distances = torch.addmm(squares, part, centers.T, alpha=-2)  # (b, m), squared, without |x|^2
        least = distances.amin(1, keepdim=True)
        nearest = (part.double().square().sum(1) + least.squeeze(1).double()).clamp(min=0)  # (b,)
        parts.append(log_sums(distances.sub_(least), sigmas) - nearest / (2 * widths**2))
    return torch.cat(parts, dim=1) - math.log(m) - d * (widths * math.sqrt(2 * math.pi)).log()


def log_sums(distances: Tensor, sigmas: Sequence[float]) -> Tensor:
    """log sum_j exp(-distances_ij / 2 sigma^2), for each sigma: (S, n). Distances (n, m), with minimum 0 in each row.

    Uses exp2, because torch's exp takes twenty times as long for results near 0, as most are here.
    """
    rows, columns = BLOCK
    sums = torch.zeros(len(sigmas), len(distances), dtype=torch.float64)
    for block, into in zip(distances.split(rows), sums.split(rows, dim=1), strict=True):
        for part in block.split(columns, dim=1):
            terms = torch.empty_like(part, memory_format=torch.contiguous_format)
            for sigma, total in zip(sigmas, into, strict=True):
                torch.mul(part, -1 / (2 * math.log(2) * sigma**2), out=terms).exp2_()
                total += terms.sum(1)
    return sums.log()
