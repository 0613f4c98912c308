"""Maxout layers, linear layers with bounded weights, and a deconvolution."""

import torch
from torch import Tensor, nn


class BoundedLinear(nn.Linear):
    """A linear layer with a bound on the L2 norm of each unit's incoming weights, `max_norm` (None: unbounded).

    Srivastava et al. 2014, section 5.1. `constrain` is called after every update of the network, and scales weights
    with a larger norm back. In the authors' code, which stores transposed matrices, it is the norm of a column.

    >>> layer = BoundedLinear(2, 1, max_norm=1.0)
    >>> _ = nn.init.constant_(layer.weight, 3.0)
    >>> layer.constrain()
    >>> round(layer.weight.norm().item(), 6)
    1.0
    """

    def __init__(self, n_in: int, n_out: int, max_norm: float | None = None) -> None:
        super().__init__(n_in, n_out)
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm={max_norm:g}: must be greater than 0, or null for none.")
        self.max_norm = max_norm

    @torch.no_grad()
    def constrain(self) -> None:
        if self.max_norm is not None:
            norm = self.weight.norm(dim=1, keepdim=True)
            self.weight.mul_((self.max_norm / norm.clamp_min(1e-7)).clamp(max=1.0))


class Maxout(nn.Module):
    """h_u(x) = max over p of (w_up . x + b_up), with `pieces` linear pieces per unit. Goodfellow et al. 2013.

    x (B, in) -> (B, units). Unlike in a rectifier, no piece is always zero.
    """

    def __init__(self, n_in: int, units: int, pieces: int, max_norm: float | None = None) -> None:
        super().__init__()
        self.linear = BoundedLinear(n_in, units * pieces, max_norm)
        self.units, self.pieces = units, pieces

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.linear(x).unflatten(1, (self.units, self.pieces))
        return h.amax(2)


class MaxoutConv(nn.Module):
    """A convolution, the maximum over its `pieces`, and max pooling. x (B, C, R, R) -> (B, channels, R', R').

    Pooling uses ceil mode. A single MaxPool3d computes both maxima.
    """

    def __init__(
        self, n_in: int, channels: int, pieces: int, kernel: int, padding: int, pool: int, pool_stride: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, channels * pieces, kernel, padding=padding)
        self.pool = nn.MaxPool3d((pieces, pool, pool), (pieces, pool_stride, pool_stride), ceil_mode=True)
        self.channels, self.pieces = channels, pieces

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.pool(self.conv(x).unflatten(1, (self.channels, self.pieces)))
        return h.squeeze(2)


class Deconvolution(nn.Module):
    """h (B, channels * side * side) -> (B, C, R, R), R = (side - 1) * stride + kernel, with a bias for each pixel."""

    def __init__(self, side: int, channels: int, shape: tuple[int, ...], kernel: int, stride: int) -> None:
        super().__init__()
        self.maps = (channels, side, side)
        self.conv = nn.ConvTranspose2d(channels, shape[0], kernel, stride, bias=False)
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, h: Tensor) -> Tensor:
        x: Tensor = self.conv(h.unflatten(1, self.maps))
        return x + self.bias
