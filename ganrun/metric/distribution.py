"""How well one-dimensional samples fit a known distribution."""

import torch
from torch import Tensor
from torch.distributions import Distribution as Known

from ganrun.data.dataset import Dataset


class Distribution:
    """Mean, standard deviation and Kolmogorov-Smirnov distance of `num` samples.

    The distance is sup |F_n(x) - F(x)| between the empirical distribution function and the true one
    (Kolmogorov 1933). Keys carry the number of samples, as in `ks_100k`. Mean and std are in the data's units.
    `check` raises ValueError for data that are not one-dimensional with a known density.
    """

    def __init__(self, num: int = 100000) -> None:
        if num < 2:
            raise ValueError(f"num={num}: must be at least 2.")
        self.num = num

    def check(self, dataset: Dataset) -> None:
        if dataset.distribution is None or dataset.spec.shape != (1,):
            raise ValueError("metric=distribution: needs one-dimensional data of known density; use metric=none.")

    def __call__(self, samples: Tensor, dataset: Dataset) -> dict[str, float]:
        assert dataset.distribution is not None, "check() comes first"
        x = samples[: self.num].flatten().double()
        suffix = f"{len(x) // 1000}k" if len(x) % 1000 == 0 else str(len(x))
        return {
            f"mean_{suffix}": x.mean().item(),
            f"std_{suffix}": x.std().item(),
            f"ks_{suffix}": kolmogorov_smirnov(x, dataset.distribution),
        }


def kolmogorov_smirnov(x: Tensor, distribution: Known) -> float:
    """sup |F_n - F| over x (n,): at each sample the empirical function jumps from (i - 1) / n to i / n.

    >>> kolmogorov_smirnov(torch.tensor([0.0]), torch.distributions.Normal(0.0, 1.0))
    0.5
    """
    cdf = distribution.cdf(x.sort().values)
    above = torch.arange(1, len(x) + 1, dtype=cdf.dtype) / len(x) - cdf
    return torch.maximum(above, 1 / len(x) - above).max().item()
