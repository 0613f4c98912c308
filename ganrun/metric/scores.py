"""Scores of features (n, d), computed by torch-fidelity."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


def frechet_distance(fake: Tensor, real: Tensor) -> float:
    """The Frechet distance of two sets of features (n, d) and (m, d), in float64."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    fake_statistics, real_statistics = (fid_features_to_statistics(x.double()) for x in (fake, real))
    (found,) = fid_statistics_to_metric(fake_statistics, real_statistics, verbose=False).values()
    return float(found)


@dataclass(frozen=True)
class Kid:
    """The kernel distance of features: its mean and standard deviation over `subsets` pairs of `size` images each.

    With fewer images, the subsets are smaller.
    """

    subsets: int
    size: int

    def __call__(self, fake: Tensor, real: Tensor) -> tuple[float, float]:
        from torch_fidelity.metric_kid import kid_features_to_metric

        size = min(self.size, len(fake), len(real))
        found = kid_features_to_metric(
            fake.float(), real.float(), kid_subsets=self.subsets, kid_subset_size=size, verbose=False
        )
        mean, std = found.values()
        return float(mean), float(std)

    def facts(self, num: int, num_real: int) -> dict[str, Any]:
        return {"kid_subsets": self.subsets, "kid_size": min(self.size, num, num_real)}
