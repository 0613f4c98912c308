"""Mode coverage: which modes of a mixture a generator covers, how well, and how evenly."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec
from ganrun.data.mixture import Mixture
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Metric, MetricKey


class Modes(Metric):
    """Mode coverage of `num` samples, as in VEEGAN and PacGAN.

    Srivastava et al. 2017, "VEEGAN", on synthetic data, and Lin et al. 2018, "PacGAN", with 2,500 samples:
    - high_quality: the share of samples within `sigmas` (3) standard deviations of their nearest mode;
    - modes_covered: the number of modes with at least `min_samples` (1) high-quality samples;
    - reverse_kl: KL(g || w) = sum_k g_k log(g_k / w_k) in nats, with g_k the share of all samples nearest to mode k,
      and w_k its true weight: 0 if they agree, log K if one of K equal modes gets all samples.
    Distances are in standard deviations of the mode. reverse_kl includes low-quality samples, so that it is defined for
    every generator (PacGAN's code computes a JSD from the high-quality samples only). For a perfect generator,
    high_quality is below 1: its value is `high_quality_3sigma_true`, 0.9889 in two dimensions.
    Keys contain sigmas and the number of samples.
    `check` raises ValueError for data that are not a mixture, and for modes that overlap.
    """

    def __init__(self, num: int = 2500, sigmas: float = 3.0, min_samples: int = 1) -> None:
        for name, value in (("num", num), ("min_samples", min_samples)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if not sigmas > 0:
            raise ValueError(f"sigmas={sigmas}: must be greater than 0.")
        self.num, self.sigmas, self.min_samples = num, sigmas, min_samples

    def check(self, dataset: Dataset) -> None:
        if not isinstance(dataset.distribution, Mixture):
            raise ValueError("metric=modes: needs data whose modes are known, such as data=ring; use metric=none.")
        if closest_modes(dataset.distribution) < self.sigmas:
            raise ValueError(
                f"metric.modes.sigmas={self.sigmas:g}: some modes of these data overlap at this radius, and cannot be "
                "told apart; use a smaller number, or metric=divergence."
            )

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        covered, quality, true, kl = self._names(self.num)
        higher = {covered: MetricKey("higher", unit="modes"), quality: MetricKey("higher", true=true)}
        return {**higher, kl: MetricKey("lower", unit="nats")}

    def _names(self, num: int) -> tuple[str, str, str, str]:
        protocol, n = f"{self.sigmas:g}sigma", count(num)
        at_least = "" if self.min_samples == 1 else f"min{self.min_samples}_"
        return (
            f"modes_covered_{protocol}_{at_least}{n}",
            f"high_quality_{protocol}_{n}",
            f"high_quality_{protocol}_true",
            f"reverse_kl_{n}",
        )

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        truth = dataset.distribution
        assert isinstance(truth, Mixture), "check() comes first"
        x = samples[: self.num].flatten(1)
        distance, nearest = (truth.distances(x) / truth.mode_std).min(dim=1)  # (n,) each
        high_quality = distance <= self.sigmas
        counts = nearest[high_quality].bincount(minlength=len(truth.modes))  # (K,)
        shares = nearest.bincount(minlength=len(truth.modes)) / len(x)
        covered, quality, true, kl = self._names(len(x))
        return {
            covered: float((counts >= self.min_samples).sum()),
            quality: high_quality.double().mean().item(),
            true: mass_within(self.sigmas, truth.dim),
            kl: kullback_leibler(shares, truth.weights),
        }


def closest_modes(mixture: Mixture) -> float:
    """The radius, in standard deviations, at which balls around the modes begin to touch; inf for a single mode."""
    touch = mixture.distances(mixture.modes) / (mixture.mode_std[:, None] + mixture.mode_std)
    return touch.fill_diagonal_(torch.inf).min().item()


def mass_within(sigmas: float, dim: int) -> float:
    """P(|x| <= sigmas) for x ~ N(0, I) in `dim` dimensions.

    >>> round(mass_within(3, 1), 4), round(mass_within(3, 2), 4)  # 1 - exp(-9 / 2) in two
    (0.9973, 0.9889)
    """
    mass: Tensor = torch.special.gammainc(torch.tensor(dim / 2).double(), torch.tensor(sigmas**2 / 2).double())
    return mass.item()


def kullback_leibler(p: Tensor, q: Tensor) -> float:
    """sum p log(p / q) in nats, for probabilities (K,). All q must be greater than 0.

    >>> round(kullback_leibler(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])), 4)  # log 2
    0.6931
    """
    return torch.xlogy(p.double(), p.double() / q.double()).sum().item()
