"""Distributions of the latent z: callables `(n, device) -> z` of shape (n, dim), with an attribute `dim`.

They draw from torch's global random state, which is seeded at each training step.
"""

import torch
from torch import Tensor

from ganrun.data.dataset import Dataset
from ganrun.protocols import Device, Latent


class Normal(Latent):
    """z ~ N(0, I), of shape (n, dim)."""

    def __init__(self, dim: int) -> None:
        self.dim = _positive(dim)

    def __call__(self, n: int, device: Device = "cpu") -> Tensor:
        return torch.randn(n, self.dim, device=device)


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


def _positive(dim: int) -> int:
    if dim < 1:
        raise ValueError(f"dim={dim}: must be at least 1; arch.z_dim sets it.")
    return dim
