"""What the tests of parts share: networks whose answers are known by hand, and batches to show them."""

import math

import torch
from torch import Tensor, nn

from ganrun.penalty import R1, R2, Dragan, GradientPenalty, ZeroCentered

SHAPES = [(3,), (2, 5, 4)]  # a vector, an image
GRADIENT_PENALTIES = [GradientPenalty, ZeroCentered, R1, R2, Dragan]


class Linear(nn.Module):
    """D(x) = w . x, on samples of any shape. Keeps what it was shown."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.seen.append(x.detach())
        return (x * self.w).flatten(1).sum(1)


class Quadratic(nn.Module):
    """D(x) = |x|^2 / 2, whose gradient is x: shows where a penalty looks."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.square().flatten(1).sum(1) / 2


class Net(nn.Module):
    """A smooth D in float64 for vectors (B, 3) or images (B, 2, 5, 4)."""

    def __init__(self, shape: tuple[int, ...], *extra: nn.Module) -> None:
        super().__init__()
        first: nn.Module = nn.Linear(shape[0], 4) if len(shape) == 1 else nn.Conv2d(shape[0], 4, 3)
        numel = 4 if len(shape) == 1 else 4 * 3 * 2
        self.layers = nn.Sequential(first, *extra, nn.Tanh(), nn.Flatten(), nn.Linear(numel, 1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(x).squeeze(1)


class Mixer(nn.Module):
    """Stands for minibatch discrimination and its like."""

    mixes_samples = True

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(0)


class Bilinear(nn.Module):
    """D(x) = psi * x on one-dimensional samples."""

    def __init__(self, psi: float) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(psi))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (self.psi * x).squeeze(1)


class Dirac(nn.Module):
    """G(z) = theta."""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.theta.expand(len(z), 1)


def batches(shape: tuple[int, ...], n: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, *shape, dtype=dtype), torch.randn(n, *shape, dtype=dtype) + 1


def vector_of_length(length: float, shape: tuple[int, ...]) -> Tensor:
    w = torch.linspace(-1, 2, math.prod(shape), dtype=torch.float64).view(shape)
    return w * (length / w.norm())


def images(batch: int, channels: int = 3, size: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, channels, size, size, dtype=dtype) * 2 - 1
