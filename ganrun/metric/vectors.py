"""Examples as vectors in comparable units, and the search for nearest neighbors."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ganrun.data.dataset import DataSpec, Split

ROWS = 1000  # examples decoded at a time
CHUNK = 1 << 22  # number of distances computed at a time, which bounds the memory
COPY = 0.1  # a sample nearer than this share of the median real distance counts as a copy


def unit(x: Tensor, spec: DataSpec) -> Tensor:
    """Flatten x (n, *shape) to (n, d), and scale the data's range to [0, 1]. Unbounded data keep their units."""
    low, high = spec.value_range or (0.0, 1.0)
    return x.flatten(1).float().sub(low).div_(high - low)


def unit_parts(split: Split, spec: DataSpec) -> Iterator[Tensor]:
    """All examples of a split as vectors, by `unit`, on the CPU, in batches (k, d)."""
    for x in split.x.split(ROWS):
        yield unit(spec.decode(x.cpu()), spec)


def nearest(x: Tensor, parts: Iterable[Tensor], own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The Euclidean distance of each x (n, d) to the nearest example, and the index of that example, (n,) each.

    parts: all examples in order, in batches (k, d). own (n,): an index that is excluded for each x.

    >>> examples = [torch.tensor([[0.0], [5.0]]), torch.tensor([[9.0]])]
    >>> nearest(torch.tensor([[6.0], [8.0]]), examples)
    (tensor([1., 1.]), tensor([1, 2]))
    """
    center = x.mean(0)  # centering reduces the rounding errors of `distances`
    x = x - center
    best = torch.full((len(x),), torch.inf, dtype=x.dtype)
    index = torch.zeros(len(x), dtype=torch.long)
    start = 0
    for part in parts:
        moved, rows = part - center, max(1, CHUNK // len(part))
        for first in range(0, len(x), rows):
            some = slice(first, first + rows)
            d = distances(x[some], moved)
            if own is not None:
                numbers = torch.arange(start, start + len(part))
                d.masked_fill_(numbers == own[some, None], torch.inf)
            least, where = d.min(1)
            index[some] = torch.where(least < best[some], where + start, index[some])
            best[some] = torch.minimum(least, best[some])
        start += len(part)
    return best, index


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Pairwise distances (n, m). Matrix products, inexact for near neighbors, are used only in many dimensions."""
    if x.shape[1] <= 16:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    # cdist copies its inputs, so a few rows at a time
    return torch.cat([torch.cdist(rows, y, compute_mode="use_mm_for_euclid_dist") for rows in x.split(ROWS // 4)])


def closeness(distance: Tensor, unseen: Tensor) -> dict[str, float]:
    """Compare the distances of samples (n,) to their nearest training examples with those of unseen real ones (m,).

    - ratio: of their medians; 1 if that of `unseen` is 0;
    - copies: the share of samples nearer than COPY times the median of `unseen`; copies_real: that of the unseen ones.
    """
    usual = unseen.median().item()
    return {
        "ratio": distance.median().item() / usual if usual else 1.0,
        "copies": share(distance < COPY * usual),
        "copies_real": share(unseen < COPY * usual),
    }


def share(which: Tensor) -> float:
    return which.double().mean().item()
