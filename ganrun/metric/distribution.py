"""How well one-dimensional samples fit a known distribution."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution as Known

from ganrun.data.dataset import Dataset, DataSpec
from ganrun.metric.densities import Cells, jensen_shannon, skewness, tail_mass, wasserstein
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Metric, MetricKey


class Distribution(Metric):
    """Moments, tails and distances of `num` samples. Keys end in the number of samples, as in `ks_100k`.

    - mean, std, in the data's units, and skew, E[((x - mean) / std)^3], 0 if all samples are equal;
    - ks: sup |F_n(x) - F(x)|, the Kolmogorov-Smirnov distance to the true distribution function (Kolmogorov 1933);
    - w1: the integral of |F_n(x) - F(x)| over x, the Wasserstein-1 distance, in the data's units;
    - jsd: the Jensen-Shannon divergence in nats, for `bins` cells over 5 standard deviations around the mean or the
      modes; for a perfect generator it is about bins / 8n, or less if cells are empty;
    - tail_mass_2sigma, _3sigma: the share of samples more than 2 or 3 true standard deviations from the true mean.
    Moments and tails come with the exact value for the data, as in `tail_mass_2sigma_true`.
    `check` raises ValueError unless the data are one-dimensional with a known density.
    """

    def __init__(self, num: int = 100000, bins: int = 200) -> None:
        for name, value in (("num", num), ("bins", bins)):
            if value < 2:
                raise ValueError(f"{name}={value}: must be at least 2.")
        self.num, self.bins = num, bins

    def check(self, dataset: Dataset) -> None:
        if dataset.distribution is None or dataset.spec.shape != (1,):
            raise ValueError("metric=distribution: needs one-dimensional data of known density; use metric=none.")

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        n = count(self.num)
        tails = {f"tail_mass_{s}sigma_{n}": MetricKey(true=f"tail_mass_{s}sigma_true") for s in (2, 3)}
        return {
            f"mean_{n}": MetricKey(unit="data", true="mean_true"),
            f"std_{n}": MetricKey(unit="data", true="std_true"),
            f"ks_{n}": MetricKey("lower"),
            f"w1_{n}": MetricKey("lower", unit="data"),
            f"jsd_{self.bins}bins_{n}": MetricKey("lower", unit="nats"),
            f"skew_{n}": MetricKey(true="skew_true"),
            **tails,
        }

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        truth = dataset.distribution
        assert truth is not None, "check() comes first"
        x = samples[: self.num].flatten().double()
        n = count(len(x))
        cells = Cells.around(truth, self.bins)
        z = (x - x.mean()) / x.std(correction=0).clamp(min=torch.finfo(x.dtype).tiny)
        distance = (x - truth.mean).abs() / truth.stddev
        return {
            f"mean_{n}": x.mean().item(),
            f"std_{n}": x.std().item(),
            f"ks_{n}": kolmogorov_smirnov(x, truth),
            f"w1_{n}": wasserstein(x, truth),
            f"jsd_{self.bins}bins_{n}": jensen_shannon(cells.mass(truth), cells.share(x)),
            f"skew_{n}": (z**3).mean().item(),
            **{f"tail_mass_{s}sigma_{n}": (distance > s).double().mean().item() for s in (2, 3)},
            "mean_true": truth.mean.item(),
            "std_true": truth.stddev.item(),
            "skew_true": skewness(truth),
            **{f"tail_mass_{s}sigma_true": tail_mass(truth, s) for s in (2, 3)},
        }


def kolmogorov_smirnov(x: Tensor, distribution: Known) -> float:
    """sup |F_n - F| over x (n,): at sample i the empirical cdf jumps from (i - 1) / n to i / n.

    >>> kolmogorov_smirnov(torch.tensor([0.0]), torch.distributions.Normal(0.0, 1.0))
    0.5
    """
    cdf = distribution.cdf(x.sort().values)
    above = torch.arange(1, len(x) + 1, dtype=cdf.dtype) / len(x) - cdf
    return torch.maximum(above, 1 / len(x) - above).max().item()
