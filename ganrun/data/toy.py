"""Synthetic data with known distributions."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Normal

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.mixture import Mixture
from ganrun.data.seeds import generator


def gaussian(mean: float, std: float, num: int, unit: str = "") -> Dataset:
    """`num` training samples of N(mean, std), and num / 10 each for validation and test, drawn with a fixed seed.

    Samples have shape (1,). unit: unit of the values. Raises ValueError unless std > 0 and num >= 1.
    """
    _check_positive("std", std)
    source = generator(0, "gaussian")
    splits = _splits(num, lambda n: mean + std * torch.randn(n, 1, generator=source))
    spec = DataSpec((1,), mean=float(mean), std=float(std), unit=unit)
    return Dataset(spec, *splits, distribution=Normal(float(mean), float(std)))


def mixture1d(
    means: Sequence[float], stds: Sequence[float], weights: Sequence[float] | None, num: int, unit: str = ""
) -> Dataset:
    """Samples of shape (1,) from sum_k weights_k N(means_k, stds_k). Weights are relative; null: all equal.

    Raises ValueError unless all lists have the same length, and stds and weights are positive.
    """
    if not means:
        raise ValueError("data.means=[]: must name at least one mean.")
    for name, values in (("stds", stds), ("weights", weights)):
        if values is not None and len(values) != len(means):
            raise ValueError(f"data.{name}={list(values)}: must be {len(means)} numbers, one for each of data.means.")
        if not all(0 < value < math.inf for value in values or ()):
            raise ValueError(f"data.{name}={list(values or ())}: each must be greater than 0.")
    modes = torch.tensor(means, dtype=torch.float64)[:, None]
    share = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    return _mixture("mixture1d", Mixture(modes, torch.tensor(stds, dtype=torch.float64), share), num, unit)


def ring(num_modes: int, radius: float, std: float, num: int) -> Dataset:
    """`num_modes` equal Gaussians in the plane, evenly spaced on a circle around 0; samples of shape (2,).

    With 8 modes, std .02 and radius 2 this is the ring in the authors' code of Gulrajani et al. 2017, before it divides
    by 1.414. The ring in the authors' code of Lin et al. 2018 (PacGAN) has the same proportions: std .01 and radius 1.
    """
    _check_positive("radius", radius)
    _check_count("num_modes", num_modes)
    angle = torch.arange(num_modes, dtype=torch.float64) * (2 * math.pi / num_modes)
    return _mixture("ring", _equal(_at(radius, angle), std), num)


def grid(side: int, spacing: float, std: float, num: int) -> Dataset:
    """side x side equal Gaussians in the plane, `spacing` apart, around 0; samples of shape (2,).

    With side 5, spacing 2 and std .05 this is the grid in the authors' code of Lin et al. 2018 (PacGAN), and in that of
    Gulrajani et al. 2017 before it divides by 2.828.
    """
    _check_positive("spacing", spacing)
    _check_count("side", side)
    line = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * spacing
    return _mixture("grid", _equal(torch.cartesian_prod(line, line), std), num)


def spiral(turns: float, radius: float, std: float, num_modes: int, num: int) -> Dataset:
    """A curve r = radius * angle / (2 pi turns) in the plane, thickened by a Gaussian; samples of shape (2,).

    The density is exact, because the curve is a mixture of `num_modes` equal Gaussians on an Archimedean spiral. Their
    angles grow with the square root of the index, which spaces them almost evenly. The curve looks smooth if neighbors
    are at most about `std` apart.
    """
    _check_positive("turns", turns)
    _check_positive("radius", radius)
    _check_count("num_modes", num_modes)
    along = torch.sqrt((torch.arange(num_modes, dtype=torch.float64) + 0.5) / num_modes)  # in (0, 1)
    return _mixture("spiral", _equal(_at(radius * along, 2 * math.pi * turns * along), std), num)


def dirac(at: float, num: int) -> Dataset:
    """A point mass: every sample of shape (1,) is `at`. The data of the Dirac-GAN, with at = 0.

    Mescheder, Geiger and Nowozin 2018, Definition 2.1. A point mass has no density, so `distribution` is None, and
    metrics that need a density raise ValueError. The true std is 0; `spec.std` is 1 because networks divide by it.
    """
    splits = _splits(num, lambda n: torch.full((n, 1), float(at)))
    return Dataset(DataSpec((1,), mean=float(at), std=1.0), *splits)


def _mixture(name: str, distribution: Mixture, num: int, unit: str = "") -> Dataset:
    """Samples of `distribution`, and its exact mean and standard deviation as the spec."""
    source = generator(0, name)
    splits = _splits(num, lambda n: distribution.draw(n, source).float())
    mean = distribution.mean.mean()  # over all coordinates
    std = (distribution.variance + (distribution.mean - mean) ** 2).mean().sqrt()
    exact = [round(x.item(), 12) + 0.0 for x in (mean, std)]  # the same on every machine, and no -0
    spec = DataSpec((distribution.dim,), mean=exact[0], std=exact[1], unit=unit)
    return Dataset(spec, *splits, distribution=distribution)


def _splits(num: int, draw: Callable[[int], Tensor]) -> tuple[Split, Split, Split]:
    """`num` samples to train on, and num / 10 each for validation and test."""
    _check_count("num", num)
    held_out = max(1, num // 10)
    return Split(draw(num)), Split(draw(held_out)), Split(draw(held_out))


def _equal(modes: Tensor, std: float) -> Mixture:
    _check_positive("std", std)
    return Mixture(modes, torch.full((len(modes),), float(std), dtype=torch.float64))


def _at(radius: float | Tensor, angle: Tensor) -> Tensor:
    """Points (K, 2) in the plane."""
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"data.{name}={value}: must be greater than 0.")


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"data.{name}={value}: must be at least 1.")
