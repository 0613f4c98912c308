"""Scores of the features of samples and of real images, computed by torch-fidelity, and density and coverage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ganrun.protocols import Extracted

ROWS = 1000  # distances to all images are computed for this many at a time, which bounds the memory


@dataclass(frozen=True)
class Sizes:
    """How many images the scores are computed from.

    kid_subsets, kid_size: random subsets for KID, and the images in each. nearest: images on each side, at most, for
    precision, recall, density and coverage.
    """

    kid_subsets: int = 100
    kid_size: int = 1000
    nearest: int = 5000


Values = dict[str, float]  # by the end of their keys; "" is the score itself


@dataclass(frozen=True)
class Score:
    """One of `metric.fidelity.scores`: the names of its values, which of them are better, and how it is computed.

    beside: the ends of keys of values that belong to the first one. compute: the values for each name.
    """

    names: tuple[str, ...]
    better: Literal["higher", "lower"]
    compute: Callable[[Extracted, Extracted, Sizes], dict[str, Values]]
    beside: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """The end of the key of the same score of real images, which a perfect generator has about."""
        return "floor" if self.better == "lower" else "real"

    def num(self, num: int, sizes: Sizes) -> int:
        """The number of samples that it uses."""
        return min(num, sizes.nearest) if self.names[0] == "precision" else num


def frechet_distance(fake: Tensor, real: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^1/2) of features (n, d) and (m, d), in float64.

    >>> x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 0.0], [1.0, 2.0]])
    >>> round(frechet_distance(x, 3 + x), 6)  # |m - m'|^2
    18.0
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    sides = (fid_features_to_statistics(x.double()) for x in (fake, real))
    (found,) = fid_statistics_to_metric(*sides, verbose=False).values()
    return float(found)


def kernel_distance(fake: Tensor, real: Tensor, sizes: Sizes) -> tuple[float, float]:
    """KID: its mean and standard deviation over random subsets, which are smaller if there are fewer images."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    size = min(sizes.kid_size, len(fake), len(real))
    found = kid_features_to_metric(
        fake.float(), real.float(), kid_subsets=sizes.kid_subsets, kid_subset_size=size, verbose=False
    )
    mean, std = found.values()
    return float(mean), float(std)


def inception_score(logits: Tensor) -> tuple[float, float]:
    """exp E KL(p(y|x) || p(y)): its mean and standard deviation over ten parts of the shuffled logits (n, K)."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    mean, std = isc_features_to_metric(logits).values()
    return float(mean), float(std)


def precision_recall(fake: Tensor, real: Tensor) -> tuple[float, float]:
    """Precision and recall with the three nearest neighbors (Kynkaanniemi et al. 2019)."""
    from torch_fidelity.metric_prc import prc_features_to_metric

    found = prc_features_to_metric(fake.float(), real.float(), verbose=False)
    return float(found["precision"]), float(found["recall"])


def density_coverage(fake: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage of features fake (m, d), real (n, d), with balls to the k-th nearest real neighbor.

    Naeem et al. 2020, arXiv:2002.09797. Density: the number of real balls that hold a sample, divided by k, on average
    over samples; it may exceed 1. Coverage: the share of real images whose ball holds a sample.

    >>> real = torch.tensor([[0.0], [1.0], [10.0]])
    >>> density_coverage(torch.tensor([[0.5], [0.6]]), real, k=1)  # both in the balls of 0 and of 1
    (2.0, 0.6666666666666666)
    """
    k = min(k, len(real) - 1)
    fake, real = fake.float(), real.float()
    held, covered = 0, 0
    for rows in real.split(ROWS):
        radius = torch.cdist(rows, real).kthvalue(k + 1).values  # the nearest is the image itself
        inside = torch.cdist(rows, fake) < radius[:, None]
        held += int(inside.sum())
        covered += int(inside.any(1).sum())
    return held / (k * len(fake)), covered / len(real)


def _fd(fake: Extracted, real: Extracted, sizes: Sizes) -> dict[str, Values]:
    return {"fd": {"": frechet_distance(fake.features, real.features)}}


def _kid(fake: Extracted, real: Extracted, sizes: Sizes) -> dict[str, Values]:
    mean, std = kernel_distance(fake.features, real.features, sizes)
    return {"kid": {"": mean, "std": std}}


def _is(fake: Extracted, real: Extracted, sizes: Sizes) -> dict[str, Values]:
    assert fake.logits is not None, "checked before"
    mean, std = inception_score(fake.logits)
    return {"is": {"": mean, "std": std}}


def _prdc(fake: Extracted, real: Extracted, sizes: Sizes) -> dict[str, Values]:
    sides = fake.features[: sizes.nearest], real.features[: sizes.nearest]
    values = (*precision_recall(*sides), *density_coverage(*sides))
    return {name: {"": value} for name, value in zip(SCORES["prdc"].names, values, strict=True)}


SCORES = {
    "fd": Score(("fd",), "lower", _fd),
    "kid": Score(("kid",), "lower", _kid, ("std",)),
    "is": Score(("is",), "higher", _is, ("std",)),
    "prdc": Score(("precision", "recall", "density", "coverage"), "higher", _prdc),
}
