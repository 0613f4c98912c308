"""The residual blocks of SNGAN, WGAN-GP and BigGAN, and their generators.

Resampling is part of a convolution here, which gives the same function from the same parameters with fewer operations:
3x3 weights that follow a doubling of the side by repetition, or precede means over 2x2 values, act as 4x4 weights of
stride 2, with 16 products for a value at the smaller side instead of 36. A 1x1 convolution and a resampling commute, so
shortcuts are convolved at the smaller side, with a quarter of the products.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.arch.layers import UnconditionalBatchNorm2d, with_labels
from ganrun.arch.sides import sides_of
from ganrun.data.dataset import DataSpec

ROOT2 = 2**0.5  # gain of the initial weights of layers that a ReLU precedes
Norm = Callable[[int], nn.Module]  # number of channels -> layer


class UpConv2d(nn.Conv2d):
    """Repeat each value of x (B, C, H, W) in a 2x2 square, then convolve with 3x3 weights: (B, C_out, 2H, 2W)."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True) -> None:
        super().__init__(n_in, n_out, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel = sums_of_2x2(self.weight).flip(2, 3).transpose(0, 1)  # (C, C_out, 4, 4)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class DownConv2d(nn.Conv2d):
    """Convolve x (B, C, H, W) with 3x3 weights, then take the mean of each 2x2 square: (B, C_out, H / 2, W / 2)."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True) -> None:
        super().__init__(n_in, n_out, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, sums_of_2x2(self.weight) / 4, self.bias, stride=2, padding=1)


def sums_of_2x2(weight: Tensor) -> Tensor:
    """The sums over all 2x2 squares that overlap with the weights (..., 3, 3): (..., 4, 4).

    >>> sums_of_2x2(torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])[None, None])[0, 0, 1].tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    padded = F.pad(weight, (1, 1, 1, 1))
    rows = padded[..., 1:, :] + padded[..., :-1, :]
    return rows[..., 1:] + rows[..., :-1]


class UpBlock(nn.Module):
    """norm - ReLU - double - conv 3x3 - norm - ReLU - conv 3x3, plus a shortcut: double - conv 1x1.

    x (B, n_in, H, W) -> (B, n_out, 2H, 2W). The further arguments of `forward` are those of the norm layers.
    bias: of the first convolution.
    """

    def __init__(self, n_in: int, n_out: int, norm: Norm, bias: bool = True) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(n_in), UpConv2d(n_in, n_out, bias)
        self.norm2, self.conv2 = norm(n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        h = self.conv1(F.relu_(self.norm1(x, *condition)))
        h = self.conv2(F.relu_(self.norm2(h, *condition)))
        out: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2)
        return out


class DownBlock(nn.Module):
    """norm - ReLU - conv 3x3 - norm - ReLU - conv 3x3 - means over 2x2, plus a shortcut: conv 1x1 - means over 2x2.

    x (B, n_in, H, W) -> (B, n_out, H / 2, W / 2), or with the same side and the identity as a shortcut if `down` is
    false and n_in = n_out.
    hidden: channels between the convolutions. first: without the first norm and ReLU, for images.
    bias: of the first convolution.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        hidden: int,
        down: bool = True,
        first: bool = False,
        norm: Norm | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.norm1 = norm(n_in) if norm and not first else nn.Identity()
        self.conv1 = nn.Conv2d(n_in, hidden, 3, padding=1, bias=bias)
        self.norm2 = norm(hidden) if norm else nn.Identity()
        self.conv2 = DownConv2d(hidden, n_out) if down else nn.Conv2d(hidden, n_out, 3, padding=1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1) if down or n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.relu(self.norm1(x)))
        h = self.conv2(F.relu_(self.norm2(h)))
        out: Tensor = h + self.shortcut(F.avg_pool2d(x, 2) if self.down else x)
        return out


class ResNetGenerator(nn.Module):
    """z (B, z_dim) -> images (B, C, H, W) in [-1, 1]: linear, an `UpBlock` for each doubling, norm, ReLU, conv, tanh.

    channels: of the smallest feature maps, and after each doubling. eps: of batch normalization.
    bias: of the first convolution in each block. final_gain: of the last convolution's initial weights.
    label_dim: number of classes; y (B,) is one-hot encoded and concatenated to z. 0: y is ignored. For conditional
    batch normalization see `ganrun.condition`; the last norm layer stays unconditional, as in the authors' networks.
    """

    output_range = (-1.0, 1.0)
    mixes_classes = True

    def __init__(
        self,
        spec: DataSpec,
        z_dim: int,
        channels: Sequence[int],
        start: tuple[int, int],
        eps: float = 1e-5,
        bias: bool = True,
        final_gain: float = 1.0,
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        self.label_dim = label_dim
        self.shape = (channels[0], *start)
        self.input = nn.Linear(z_dim + label_dim, torch.Size(self.shape).numel())
        self.blocks = nn.Sequential(
            *(UpBlock(a, b, lambda n: nn.BatchNorm2d(n, eps=eps), bias) for a, b in pairwise(channels))
        )
        self.norm = UnconditionalBatchNorm2d(channels[-1], eps=eps)
        self.output = nn.Conv2d(channels[-1], spec.shape[0], 3, padding=1)
        init_glorot(self)
        nn.init.xavier_uniform_(self.output.weight, final_gain)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = first_maps(self.input(with_labels(z, y, self.label_dim)), self.shape)
        x: Tensor = self.output(F.relu_(self.norm(self.blocks(h))))
        return x.tanh_()  # (B, C, H, W)


def first_maps(h: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(B, C * H * W) -> feature maps (B, C, H, W) with channels last in memory, as the networks' weights have."""
    return h.view(h.shape[0], *shape).contiguous(memory_format=torch.channels_last)


def channels_of(width: int, multiples: Sequence[int], key: str = "width") -> list[int]:
    """Numbers of channels in multiples of the width. Raises ValueError for numbers below 1."""
    if width < 1:
        raise ValueError(f"{key}={width}: must be at least 1.")
    if not multiples or min(multiples) < 1:
        raise ValueError(f"multiples={list(multiples)}: must be whole numbers of at least 1, as in [4,4,4].")
    return [width * multiple for multiple in multiples]


def multiples_of(spec: DataSpec, name: str, given: Sequence[int] | None, usual: Sequence[int]) -> Sequence[int]:
    """The multiples of a generator's width: those given, one more than doublings, or the usual ones."""
    if given is None:
        return usual
    if len(given) != len(usual):
        height, width = spec.shape[1:]
        raise ValueError(
            f"multiples={list(given)}: must have {len(usual)} numbers for {name} of {height}x{width} pixels: "
            f"of the smallest feature maps, and after each of {sides_of(spec, name).doublings} doublings."
        )
    return given


def init_glorot(net: nn.Module) -> None:
    """Glorot and Bengio's uniform weights, times the square root of 2 in 3x3 convolutions of blocks; biases are 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            gain = ROOT2 if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1) else 1.0
            nn.init.xavier_uniform_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
