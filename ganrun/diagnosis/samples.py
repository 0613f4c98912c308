"""Dimensionless comparison of samples with two sets of real examples.

Distances are Euclidean, between the data's values (for images: pixels, so that a shift counts as a change). The scale
is the mean distance between two real examples. A *gap* is a nearest-neighbor distance, mapped linearly such that its
value among real examples is 0 and the scale is 1. It thus has the same meaning in one dimension, where neighbors are
close, and for images, where even the nearest neighbor is far.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ganrun.metric.ranks import share_above
from ganrun.metric.vectors import COPY, closeness, distances, nearest, share

FAR = 0.25  # gap above which a real example is lost, or a sample is astray
STARVED = 0.2  # share of the expected samples of a cell, below which it is starved: about 4 of 20
MOST_CELLS = 100
NEIGHBORS = 10  # the two-sample test uses the distance to the neighbor of this rank
PART = 1024  # training examples searched at a time


def compare(samples: Tensor, real: Tensor, other: Tensor, spread: float) -> dict[str, float]:
    """Compare `samples`, and `other` real examples in the same way, with `real`. All are (n, d), with n of at least 2.

    - energy: (2 E|s - x| - E|s - s'| - E|x - x'|) / 2 E|s - x|, from 0, if the distributions agree, to 1. It is the
      squared energy distance (Rizzo and Szekely 2016, "Energy distance"), divided by its first term, or by twice the
      scale if that is greater;
    - diversity: mean distance between samples, relative to that between real examples;
    - duplicates: share of samples with another one nearer than COPY times the median distance of real neighbors;
    - support: estimate of the number of distinct samples, from the number of close pairs: n (n - 1) / 2 pairs over the
      close ones, or over 1 if there are none (the birthday paradox: Arora and Zhang 2017);
    - lost: share of real examples with a gap over FAR to the nearest sample, and in a cell with less than STARVED times
      the expected number of samples. There are up to MOST_CELLS cells, found by k-means among the real examples, as in
      Richardson and Weiss 2018. (Poor samples are far from every example, but do fall into every cell.)
    - astray: share of samples with a gap over FAR to the nearest real example, relative to the median of `other`;
    - away: mean distance from a sample to a real example, relative to that between real examples;
    - two_sample: how often a nearest-neighbor classifier, which compares the distances to the NEIGHBORS-th nearest
      real example and sample, ranks a real example above a sample; .5 if they cannot be distinguished (a classifier
      two-sample test: Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests", with ranked pairs in place of
      accuracy);
    - coverage: share of real examples with a sample nearer than their fifth real neighbor (Naeem et al. 2020).

    Keys that end in _real are the same for `other` in place of the samples. spread: the scale if all real examples are
    the same.
    """
    center = real.mean(0)
    samples, real, other = (x.double() - center for x in (samples, real, other))
    among_real = pairwise(real)
    scale = mean_pairwise(among_real) or spread
    reference = distances(real, other)  # (n, m)
    near_real, near_other = reference.min(1).values, reference.min(0).values
    close = COPY * among_real.min(1).values.median()
    centers = k_means(torch.cat([real, other]), min(MOST_CELLS, max(2, len(real) // 20)))
    cell = distances(real, centers).argmin(1)  # (n,)
    found: dict[str, float] = {}
    for suffix, x in (("", samples), ("_real", other)):
        among, between = pairwise(x), distances(real, x)
        pairs = len(x) * (len(x) - 1) / 2
        close_pairs = (among <= close).sum().item() / 2
        found |= {
            f"energy{suffix}": energy(between.mean().item(), mean_pairwise(among), mean_pairwise(among_real), scale),
            f"diversity{suffix}": mean_pairwise(among) / scale,
            f"duplicates{suffix}": share(among.min(1).values <= close),
            f"support{suffix}": pairs / max(close_pairs, 1),
            f"lost{suffix}": share(far(between.min(1).values, near_real, scale) & starved(x, centers, cell)),
            f"astray{suffix}": share(far(between.min(0).values, near_other.median(), scale)),
            f"coverage{suffix}": coverage(among_real, between),
            f"away{suffix}": between.mean().item() / scale,
            f"two_sample{suffix}": two_sample(among_real, among, between),
        }
    return found


def copying(
    samples: Tensor, train: Tensor, held_out: Tensor | None, decode: Callable[[Tensor], Tensor] = Tensor.float
) -> dict[str, float]:
    """Compare the distances of samples (n, d) to training examples (N, d) with those of unseen real examples.

    - copy_ratio: the median distance to the nearest training example, relative to that of `held_out`;
    - copies: the share of samples nearer than COPY times the median of `held_out`; copies_real: that of `held_out`;
    - originals: the number of distinct nearest training examples, relative to the number expected for as many draws
      with replacement.

    decode: makes vectors (n, d) of n rows of `train`, which may be bytes; it is called for a part at a time.
    held_out: (m, d); if None, training examples are used as unseen ones, each compared with the others. Similar to the
    three-sample test of Meehan, Chaudhuri and Dasgupta 2020, which compares the same two sets of distances by ranks.
    """
    samples = samples.float()

    def parts() -> Iterator[Tensor]:
        return (decode(part) for part in train.split(PART))

    distance, index = nearest(samples, parts())
    if held_out is None:
        picked = torch.arange(len(train))[: len(samples)]
        unseen, _ = nearest(decode(train[picked]), parts(), own=picked)
    else:
        unseen, _ = nearest(held_out.float(), parts())
    found = closeness(distance, unseen)
    expected = len(train) * (1 - (1 - 1 / len(train)) ** len(samples))
    return {
        "copy_ratio": found["ratio"],
        "copies": found["copies"],
        "copies_real": found["copies_real"],
        "originals": len(index.unique()) / expected,
    }


def energy(between: float, among: float, among_real: float, scale: float) -> float:
    """The normalized energy distance, from mean distances: between samples and real examples, and within each set.

    >>> energy(1.0, 1.0, 1.0, scale=1.0), energy(1.0, 0.0, 1.0, scale=1.0)
    (0.0, 0.5)
    """
    return max(0.0, (2 * between - among - among_real) / (2 * max(between, scale)))


def coverage(among_real: Tensor, between: Tensor, k: int = 5) -> float:
    """Coverage, with k as in Naeem et al. 2020, "Reliable fidelity and diversity metrics".

    among_real: distances (n, n). between: from real examples to samples, (n, m). For n real examples and n samples of
    the same distribution it is near 1 - 2^-k = .969: each of the k nearest neighbors is real with probability 1/2.
    """
    return share(between.min(1).values < radius(among_real, k))


def two_sample(among_real: Tensor, among: Tensor, between: Tensor) -> float:
    """The share of correctly ranked pairs, from distances: among real (n, n), among samples (m, m), between (n, m)."""

    def realness(to_real: Tensor, to_samples: Tensor) -> Tensor:
        return radius(to_samples, NEIGHBORS).clamp(min=1e-300).log() - radius(to_real, NEIGHBORS).clamp(1e-300).log()

    of_real, of_samples = realness(among_real, between), realness(between.T, among)
    return share_above(of_real, of_samples).item()


def radius(to: Tensor, k: int) -> Tensor:
    """The distance (n,) of each example to its k-th nearest neighbor. to: distances (n, m)."""
    return to.kthvalue(min(k, to.shape[1] - 1), dim=1).values


def far(distance: Tensor, usual: Tensor, scale: float) -> Tensor:
    """Whether the gap of distances (n,) is over FAR. usual: the distances of real examples, (n,) or scalar."""
    room = (scale - usual).clamp(min=scale / 10)
    return (distance - usual) > FAR * room


def starved(x: Tensor, centers: Tensor, cell: Tensor) -> Tensor:
    """Whether each real example is in a cell with less than STARVED times the expected share of x.

    centers (k, d), cell (n,): the cells, and the cell of each real example. Returns (n,).
    """
    due = cell.bincount(minlength=len(centers)) / len(cell)
    given = distances(x, centers).argmin(1).bincount(minlength=len(centers)) / len(x)
    return (given < STARVED * due)[cell]


def k_means(x: Tensor, k: int, rounds: int = 10) -> Tensor:
    """The centers (k, d) of clusters of x (n, d), initialized with its first k rows, which must be in random order."""
    centers = x[:k].clone()
    for _ in range(rounds):
        cell = distances(x, centers).argmin(1)
        sums = torch.zeros_like(centers).index_add_(0, cell, x)
        count = cell.bincount(minlength=k)[:, None]
        centers = torch.where(count > 0, sums / count.clamp(min=1), centers)
    return centers


def pairwise(x: Tensor) -> Tensor:
    """Pairwise distances (n, n) of x (n, d), with infinity on the diagonal."""
    return distances(x, x).fill_diagonal_(torch.inf)


def mean_pairwise(among: Tensor) -> float:
    """The mean of pairwise distances (n, n), without the infinite diagonal."""
    n = len(among)
    return among.masked_fill(among == torch.inf, 0).sum().item() / (n * (n - 1))
