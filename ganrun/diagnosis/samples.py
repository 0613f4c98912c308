"""Samples compared with two sets of real examples, in numbers without units.

Distances are Euclidean, in the data's own values (of images: pixels, so that a shift counts as a change). The scale is
the mean distance of two real examples. A *gap* says how far a nearest distance lies between what it is among real
examples (0) and the scale (1), so that it means the same in one dimension, where neighbours are close, and among
images, where even the nearest is far.
"""

import torch
from torch import Tensor

from ganrun.metric.vectors import COPY, closeness, distances, nearest, share

FAR = 0.25  # of a gap: beyond it a real example is lost, or a sample astray
STARVED = 0.2  # of the samples due to a cell: with the 20 or so that a cell is due, fewer than 4
MOST_CELLS = 100
NEIGHBOURS = 10  # of the two-sample test, which uses the last of them
PART = 4096  # training examples searched at a time


def compare(samples: Tensor, real: Tensor, other: Tensor, spread: float) -> dict[str, float]:
    """`samples` compared with `real`, and `other` real examples likewise: all (n, d), with n of at least 2.

    - energy: (2 E|s - x| - E|s - s'| - E|x - x'|) / 2 E|s - x|, from 0, where the distributions agree, to 1: the
      energy distance, squared (Rizzo and Szekely 2016, "Energy distance"), over its first term, or over twice the scale
      if that is more;
    - diversity: mean distance among samples, of that among real examples;
    - duplicates: share of samples with another one nearer than COPY times the median distance of real neighbours;
    - support: distinct samples that so many close pairs speak for: n (n - 1) / 2 pairs over the close ones, or over 1
      (the birthday paradox: Arora and Zhang 2017);
    - lost: share of real examples with a gap over FAR to the nearest sample, where samples are also few: less than
      STARVED of what is due to the cell they stand in, one of up to MOST_CELLS that k-means finds among the real ones,
      as in Richardson and Weiss 2018. (Poor samples are far from every example, but they do fall into every cell.)
    - astray: share of samples with a gap over FAR to the nearest real example, from where the median of `other` is;
    - away: mean distance of a sample to a real example, of that among real examples;
    - two_sample: how often a nearest-neighbour classifier, which compares the distances to the NEIGHBOURS-th nearest of
      either kind, ranks a real example above a sample: .5 where they cannot be told apart (a classifier two-sample
      test: Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests", with ranked pairs, not accuracy);
    - coverage: share of real examples that have a sample nearer than their fifth real neighbour (Naeem et al. 2020).
    Keys that end in _real are the same of `other` in place of the samples. spread: the scale where all real examples
    are the same.
    """
    center = real.mean(0)
    samples, real, other = (x.double() - center for x in (samples, real, other))
    among_real = apart(real)
    scale = mean_apart(among_real) or spread
    reference = distances(real, other)  # (n, m)
    near_real, near_other = reference.min(1).values, reference.min(0).values
    close = COPY * among_real.min(1).values.median()
    centers = k_means(torch.cat([real, other]), min(MOST_CELLS, max(2, len(real) // 20)))
    cell = distances(real, centers).argmin(1)  # (n,)
    found: dict[str, float] = {}
    for suffix, x in (("", samples), ("_real", other)):
        among, between = apart(x), distances(real, x)
        pairs = len(x) * (len(x) - 1) / 2
        close_pairs = (among <= close).sum().item() / 2
        found |= {
            f"energy{suffix}": energy(between.mean().item(), mean_apart(among), mean_apart(among_real), scale),
            f"diversity{suffix}": mean_apart(among) / scale,
            f"duplicates{suffix}": share(among.min(1).values <= close),
            f"support{suffix}": pairs / max(close_pairs, 1),
            f"lost{suffix}": share(far(between.min(1).values, near_real, scale) & starved(x, centers, cell)),
            f"astray{suffix}": share(far(between.min(0).values, near_other.median(), scale)),
            f"coverage{suffix}": coverage(among_real, between),
            f"away{suffix}": between.mean().item() / scale,
            f"two_sample{suffix}": two_sample(among_real, among, between),
        }
    return found


def copying(samples: Tensor, train: Tensor, held_out: Tensor | None) -> dict[str, float]:
    """How near samples (n, d) come to training examples (N, d), against how near unseen real examples come.

    - copy_ratio: the median distance to the nearest training example, over that of `held_out`;
    - copies: the share of samples nearer than COPY times that median, and copies_real of held-out examples;
    - originals: how many different training examples the nearest ones are, over the number expected of as many
      draws with replacement.
    Where nothing is held out, each training example stands against the others. After the three-sample test of Meehan,
    Chaudhuri and Dasgupta 2020, which compares the same two sets of distances by their ranks.
    """
    samples, parts = samples.float(), train.float().split(PART)
    distance, index = nearest(samples, parts)
    if held_out is None:
        picked = torch.arange(len(train))[: len(samples)]
        unseen, _ = nearest(train[picked].float(), parts, own=picked)
    else:
        unseen, _ = nearest(held_out.float(), parts)
    found = closeness(distance, unseen)
    expected = len(train) * (1 - (1 - 1 / len(train)) ** len(samples))
    return {
        "copy_ratio": found["ratio"],
        "copies": found["copies"],
        "copies_real": found["copies_real"],
        "originals": len(index.unique()) / expected,
    }


def energy(between: float, among: float, among_real: float, scale: float) -> float:
    """
    >>> energy(1.0, 1.0, 1.0, scale=1.0), energy(1.0, 0.0, 1.0, scale=1.0)
    (0.0, 0.5)
    """
    return max(0.0, (2 * between - among - among_real) / (2 * max(between, scale)))


def coverage(among_real: Tensor, between: Tensor, k: int = 5) -> float:
    """Naeem et al. 2020, "Reliable fidelity and diversity metrics", with their k.

    Of n real examples and as many samples of the same distribution it is near 1 - 2^-k = .969: that none of the nearest
    k among both kinds is a sample has probability 1/2 for each.
    """
    return share(between.min(1).values < radius(among_real, k))


def two_sample(among_real: Tensor, among: Tensor, between: Tensor) -> float:
    """Among (n, n) and (m, m), and between the two (n, m)."""

    def realness(to_real: Tensor, to_samples: Tensor) -> Tensor:
        return radius(to_samples, NEIGHBOURS).clamp(min=1e-300).log() - radius(to_real, NEIGHBOURS).clamp(1e-300).log()

    of_real, of_samples = realness(among_real, between), realness(between.T, among)
    return ((torch.sign(of_real[:, None] - of_samples).mean() + 1) / 2).item()


def radius(to: Tensor, k: int) -> Tensor:
    """From each to its k-th nearest of `to` (n, m), (n,)."""
    return to.kthvalue(min(k, to.shape[1] - 1), dim=1).values


def far(distance: Tensor, usual: Tensor, scale: float) -> Tensor:
    """Whether distances (n,) went farther than FAR of the way from the usual ones, (n,) or one, to the scale."""
    room = (scale - usual).clamp(min=scale / 10)
    return (distance - usual) > FAR * room


def starved(x: Tensor, centers: Tensor, cell: Tensor) -> Tensor:
    """Whether the cell (n,) of each real example holds less than STARVED of the share of x that it is due."""
    due = cell.bincount(minlength=len(centers)) / len(cell)
    given = distances(x, centers).argmin(1).bincount(minlength=len(centers)) / len(x)
    return (given < STARVED * due)[cell]


def k_means(x: Tensor, k: int, rounds: int = 10) -> Tensor:
    """The centers (k, d) of cells, begun at the first k of x (n, d), which are in no order."""
    centers = x[:k].clone()
    for _ in range(rounds):
        cell = distances(x, centers).argmin(1)
        sums = torch.zeros_like(centers).index_add_(0, cell, x)
        count = cell.bincount(minlength=k)[:, None]
        centers = torch.where(count > 0, sums / count.clamp(min=1), centers)
    return centers


def apart(x: Tensor) -> Tensor:
    """Distances among x, (n, n), with infinity from each to itself."""
    return distances(x, x).fill_diagonal_(torch.inf)


def mean_apart(among: Tensor) -> float:
    """The mean of distances (n, n) but for each to itself, which is infinite."""
    n = len(among)
    return among.masked_fill(among == torch.inf, 0).sum().item() / (n * (n - 1))
