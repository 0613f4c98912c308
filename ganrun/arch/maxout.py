"""Layers of the nets of 2013 and 2014: maxout, linear layers of bounded weights, and a deconvolution."""

import torch
from torch import Tensor, nn


class BoundedLinear(nn.Linear):
    """A linear layer of which each unit's incoming weights have an L2 norm of at most `max_norm` (None: unbounded).

    `constrain` is called after every update of the net: what is longer is scaled back. Srivastava et al. 2014, section
    5.1; the norm of a column in the authors' code, whose matrices are stored the other way round.

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
    """h_u(x) = max over p of (w_up . x + b_up), `pieces` linear pieces to each of `units`. Goodfellow et al. 2013.

    x (B, in) -> (B, units). There is no piece that is always zero, as a rectifier has one.
    """

    def __init__(self, n_in: int, units: int, pieces: int, max_norm: float | None = None) -> None:
        super().__init__()
        self.linear = BoundedLinear(n_in, units * pieces, max_norm)
        self.units, self.pieces = units, pieces

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.linear(x).unflatten(1, (self.units, self.pieces))
        return h.amax(2)


class MaxoutConv(nn.Module):
    """A convolution whose channels are maxima over `pieces`, then max pooling. x (B, C, R, R) -> (B, channels, R', R').

    Pooling windows that run over the edge count (ceil mode). Both maxima are taken at once.
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
