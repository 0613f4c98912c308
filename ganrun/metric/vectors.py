"""Examples as vectors, in units that can be compared, and the search for the nearest ones."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ganrun.data.dataset import DataSpec, Split

ROWS = 1000  # examples decoded at a time
CHUNK = 1 << 22  # distances at a time: bounds the memory
COPY = 0.1  # of the median distance between real neighbours: what is nearer is a duplicate, or a copy


def unit(x: Tensor, spec: DataSpec) -> Tensor:
    """Values in the data's range (n, *shape) as vectors in [0, 1], (n, d); in their own units where there is none."""
    low, high = spec.value_range or (0.0, 1.0)
    return x.flatten(1).float().sub(low).div_(high - low)


def unit_parts(split: Split, spec: DataSpec) -> Iterator[Tensor]:
    """All examples of a split as `unit` gives them, on the CPU, a few at a time, (k, d) each."""
    for x in split.x.split(ROWS):
        yield unit(spec.decode(x.cpu()), spec)


def nearest(x: Tensor, parts: Iterable[Tensor], own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The Euclidean distance of each x (n, d) to the nearest of all examples, and the number of that one, (n,) each.

    parts: the examples in their order, (k, d) each. Every one is looked at. own (n,): numbers that are left out.

    >>> examples = [torch.tensor([[0.0], [5.0]]), torch.tensor([[9.0]])]
    >>> nearest(torch.tensor([[6.0], [8.0]]), examples)
    (tensor([1., 1.]), tensor([1, 2]))
    """
    center = x.mean(0)  # small numbers lose less in the products that distances are made of
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
    """(n, m); by way of products, which are inexact for neighbours, only where there are many dimensions."""
    mode = "donot_use_mm_for_euclid_dist" if x.shape[1] <= 16 else "use_mm_for_euclid_dist"
    return torch.cdist(x, y, compute_mode=mode)


def closeness(distance: Tensor, unseen: Tensor) -> dict[str, float]:
    """What the distances of samples (n,) to their nearest training examples say beside those of unseen real ones (m,).

    - ratio: of their medians; 1 where both are 0;
    - copies: the share of samples nearer than COPY times the median of `unseen`, and copies_real of the unseen.
    """
    usual = unseen.median().item()
    return {
        "ratio": distance.median().item() / usual if usual else 1.0,
        "copies": share(distance < COPY * usual),
        "copies_real": share(unseen < COPY * usual),
    }


def share(which: Tensor) -> float:
    return which.double().mean().item()
