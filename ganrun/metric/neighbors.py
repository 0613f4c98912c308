"""A test for memorization: samples and their nearest training examples."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.metric.keys import count
from ganrun.metric.vectors import closeness, nearest, unit, unit_parts
from ganrun.protocols import DFunction, Gallery, Metric, MetricKey


class Neighbors(Metric):
    """Samples and their nearest training examples: distances, and a picture as in Figure 2 of Goodfellow et al. 2014.

    The picture has the first rows x columns samples, which are not selected, and in a separate column at the right the
    training example nearest to its left neighbor: the one with the smallest sum of squared pixel differences in the
    whole training split. It reveals copies but cannot prove that there are none, since a shift by one pixel hides them.

    The numbers, for `num` samples, in units of images in [0, 1]:
    - nearest_1k: the median distance of a sample to its nearest training example; nearest_1k_real: the same for
      nearest_1k_num_real validation examples (without any, for training examples and all other ones);
    - nearest_1k_ratio: the first divided by the second; far below 1 if samples are copies, above 1 if they are poor;
    - copies_1k: the share of samples nearer than a tenth of nearest_1k_real; copies_1k_real: of the real examples.
    Based on the three-sample test of Meehan, Chaudhuri and Dasgupta 2020. Test data are not used.
    `check` raises ValueError for data that are not images.
    """

    def __init__(self, num: int = 1000, rows: int = 8, columns: int = 8) -> None:
        for name, value in (("rows", rows), ("columns", columns)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if num < rows * columns:
            raise ValueError(f"num={num}: must be at least rows x columns = {rows * columns}, which the picture shows.")
        self.num, self.rows, self.columns = num, rows, columns

    def check(self, dataset: Dataset) -> None:
        if not dataset.spec.is_image:
            raise ValueError(
                "metric=neighbors: shows images, and these data are vectors; use data=mnist, or metric=none."
            )

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        nearest, copies = f"nearest_{count(self.num)}", f"copies_{count(self.num)}"
        beside = {f"{nearest}_{part}": MetricKey(about=nearest) for part in ("real", "ratio", "num_real")}
        return {nearest: MetricKey(), **beside, copies: MetricKey(), f"{copies}_real": MetricKey(about=copies)}

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        """samples (n, C, H, W), in the data's value range; the first `num` count."""
        x = unit(samples[: self.num], dataset.spec)
        distance, _ = nearest(x, unit_parts(dataset.train, dataset.spec))
        unseen = unseen_distances(dataset, self.num)
        found, n = closeness(distance, unseen), count(len(x))
        return {
            f"nearest_{n}": distance.median().item(),
            f"nearest_{n}_real": unseen.median().item(),
            f"nearest_{n}_ratio": found["ratio"],
            f"nearest_{n}_num_real": float(len(unseen)),
            f"copies_{n}": found["copies"],
            f"copies_{n}_real": found["copies_real"],
        }

    def gallery(self, samples: Tensor, dataset: Dataset) -> Gallery:
        """rows x columns samples, and a separate column of training examples. Too few samples give fewer rows."""
        rows = max(1, min(self.rows, len(samples) // self.columns))
        own = samples[: rows * self.columns].unflatten(0, (rows, -1))  # (rows, columns, C, H, W)
        _, index = nearest(unit(own[:, -1], dataset.spec), unit_parts(dataset.train, dataset.spec))
        examples = dataset.spec.decode(dataset.train.x[index.to(dataset.train.x.device)].cpu())  # (rows, C, H, W)
        return Gallery(torch.cat([own, examples[:, None]], dim=1).flatten(0, 1), own.shape[1] + 1, apart=1)


def unseen_distances(dataset: Dataset, most: int) -> Tensor:
    """Distances (n,) of validation examples, or else of training examples, to the nearest (other) training example."""
    train, valid = dataset.train, dataset.valid
    if len(valid):
        return nearest(first(valid, most, dataset), unit_parts(train, dataset.spec))[0]
    others = torch.arange(min(most, len(train)))
    return nearest(first(train, most, dataset), unit_parts(train, dataset.spec), own=others)[0]


def first(split: Split, most: int, dataset: Dataset) -> Tensor:
    return unit(dataset.spec.decode(split.x[:most].cpu()), dataset.spec)
