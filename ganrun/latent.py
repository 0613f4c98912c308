"""Distributions of the latent z: callables `(n, device) -> z` of shape (n, dim), with an attribute `dim`.

They draw from torch's global random state, which is seeded at each training step.
"""

import math

import torch
from torch import Tensor

from ganrun.data.dataset import Dataset
from ganrun.protocols import Device, Latent

PARALLEL = 1e-6  # the sine of an angle below which two vectors are taken as parallel or opposite


class Normal(Latent):
    """z ~ N(0, I), of shape (n, dim)."""

    truncates = True
    way = "spherical"

    def __init__(self, dim: int) -> None:
        self.dim = _positive(dim)

    def __call__(self, n: int, device: Device = "cpu") -> Tensor:
        return torch.randn(n, self.dim, device=device)

    def truncated(self, z: Tensor, threshold: float) -> Tensor:
        """The truncation trick. Brock, Donahue and Simonyan 2019 (BigGAN), arXiv:1809.11096, section 3.1.

        The paper draws values beyond the threshold again. Here each value is mapped to the one with the same rank,
        erfinv(erf(z / sqrt 2) erf(threshold / sqrt 2)) sqrt 2, which has the same distribution, a truncated normal one.
        So the same z at several thresholds gives variants of one sample.

        >>> Normal(3).truncated(torch.tensor([[-9.0, 0.0, 9.0]]), 0.5).tolist()
        [[-0.5, 0.0, 0.5]]
        """
        root = math.sqrt(2)
        rank = torch.erf(z.double() / root) * math.erf(threshold / root)
        return (torch.erfinv(rank) * root).clamp(-threshold, threshold).to(z.dtype)

    def between(self, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
        """Spherical interpolation: on a line, latents between two independent ones would have too small a norm."""
        return slerp(start, end, share)


class Uniform(Latent):
    """z ~ U(low, high) in every dimension, of shape (n, dim)."""

    def __init__(self, dim: int, low: float = -1.0, high: float = 1.0) -> None:
        if low >= high:
            raise ValueError(f"low={low}: must be less than high={high}.")
        self.dim, self.low, self.high = _positive(dim), low, high

    def __call__(self, n: int, device: Device = "cpu") -> Tensor:
        return torch.empty(n, self.dim, device=device).uniform_(self.low, self.high)


class Data(Latent):
    """z is a training example, drawn with replacement, flattened and standardized: (n, dim).

    As in A. Patel, "An applied introduction to generative adversarial networks" (O'Reilly, 2017).
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.dim = dataset.spec.numel

    def __call__(self, n: int, device: Device = "cpu") -> Tensor:
        train, spec = self.dataset.train, self.dataset.spec
        x = spec.decode(train.x[torch.randint(len(train), (n,)).to(train.x.device)].to(device))
        return ((x - spec.mean) / spec.std).flatten(1)  # (n, dim)


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Spherical linear interpolation. White 2016, "Sampling Generative Networks", arXiv:1609.04468.

    sin((1 - t) w) / sin(w) * start + sin(t w) / sin(w) * end, with w the angle between the two, for t = share (n, 1).
    A normal latent of many dimensions has a norm near sqrt(dim), and so have those on this way; that in the middle of
    a line has a norm near sqrt(dim / 2), for which G was hardly trained. Vectors (n, dim) that are parallel, opposite
    or 0, between which there is no one way on a sphere, are interpolated linearly.

    >>> slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([[0.5]]))
    tensor([[1.4142, 1.4142]])
    """
    a, b, t = start.double(), end.double(), share.double()
    w = torch.arccos(torch.cosine_similarity(a, b, dim=1).clamp(-1, 1))[:, None]  # (n, 1)
    no_direction = (a.norm(dim=1) * b.norm(dim=1) == 0)[:, None]
    on_line = (w.sin() < PARALLEL) | no_direction
    w = torch.where(on_line, 1.0, w)
    found = (((1 - t) * w).sin() * a + (t * w).sin() * b) / w.sin()
    return torch.where(on_line, a + t * (b - a), found).to(start.dtype)


def _positive(dim: int) -> int:
    if dim < 1:
        raise ValueError(f"dim={dim}: must be at least 1; arch.z_dim sets it.")
    return dim
