"""R3GAN. Huang, Gokaslan, Kuleshov and Tompkin 2024, arXiv:2501.05441, configuration E, and the released code.

Residual networks without normalization: the last convolution of each block starts at 0, so that all blocks start as the
identity, and the others start with a variance that depends on the number of blocks (Zhang et al. 2019, Fixup,
arXiv:1901.09321). Differs in that biases belong to the convolutions, which does not change the function; in the side of
the smallest feature maps, which is 4 to 7 for other image sizes; and in that G clips its samples in eval mode, as the
authors do where they save images.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.arch.layers import embedded, given
from ganrun.arch.sides import Sides, sides_of
from ganrun.data.dataset import DataSpec

FULL = 32  # feature maps up to this side have the full width
EXPANSION = 2  # inner channels of a block for each of its channels
SLOPE = 0.2  # of the leaky ReLU
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the low-pass filter of both resamplings, along each axis


class Generator(nn.Module):
    """z (B, z_dim), y (B,) or None -> images (B, C, H, W), unbounded in training mode, clipped to [-1, 1] in eval mode.

    width: channels of the feature maps up to 32 pixels; halved with each doubling above.
    depth: residual blocks at each side. group_width: inner channels of each group of a block's 3x3 convolution.
    widths: the channels at each side, from the smallest to the image; None: as above.
    num_classes: of condition=own, for an embedding of y of z_dim dimensions, appended to z; 0: y is ignored.
    Raises ValueError for data that are not images of a supported size (`sides_of`), and widths that do not fit.
    """

    output_range = (-1.0, 1.0)
    mixes_classes = True

    def __init__(
        self,
        spec: DataSpec,
        z_dim: int,
        width: int = 768,
        depth: int = 2,
        group_width: int = 16,
        widths: Sequence[int] | None = None,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        sides = sides_of(spec, "R3GAN")
        channels = channels_of(sides, width, widths)
        self.embed = embedding(num_classes, z_dim, 1.0) if num_classes else None
        self.basis = nn.Parameter(torch.randn(channels[0], *sides.start))
        self.input = scaled(nn.Linear(z_dim * (2 if num_classes else 1), channels[0], bias=False))
        self.stages = nn.Sequential(blocks_of(channels[0], depth, group_width, len(channels)))
        for a, b in pairwise(channels):
            self.stages.append(nn.Sequential(Upsample(a, b), blocks_of(b, depth, group_width, len(channels))))
        self.output = scaled(nn.Conv2d(channels[-1], spec.shape[0], 1, bias=False))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, embedded(self.embed, y)], 1)
        h = self.input(z)[:, :, None, None]
        h = self.basis.to(h.dtype) * h  # (B, C, *start)
        h = self.stages(h.contiguous(memory_format=torch.channels_last))
        x: Tensor = self.output(h)  # (B, C, H, W)
        return x if self.training else x.clamp(*self.output_range)


class Discriminator(nn.Module):
    """Images (B, C, H, W) -> logits (B,): the mirror image of G.

    width, depth, group_width, widths: as G's; `widths` is in the order of G's, too.
    num_classes: of condition=own: the logit is <embed(y), output(features(x))>; 0: y is ignored.
    """

    def __init__(
        self,
        spec: DataSpec,
        width: int = 768,
        depth: int = 2,
        group_width: int = 16,
        widths: Sequence[int] | None = None,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        sides = sides_of(spec, "R3GAN")
        channels = channels_of(sides, width, widths)[::-1]  # from the image to the smallest feature maps
        last = channels[-1]
        self.input = scaled(nn.Conv2d(spec.shape[0], channels[0], 1, bias=False))
        self.stages = nn.Sequential()
        for a, b in pairwise(channels):
            self.stages.append(nn.Sequential(blocks_of(a, depth, group_width, len(channels)), Downsample(a, b)))
        self.stages.append(blocks_of(last, depth, group_width, len(channels)))
        self.basis = nn.Parameter(torch.randn(last, *sides.start) / (sides.start[0] * sides.start[1]) ** 0.5)
        self.output = scaled(nn.Linear(last, last if num_classes else 1, bias=False))
        self.embed = embedding(num_classes, last, last**-0.5) if num_classes else None

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The last hidden layer, (B, F)."""
        h: Tensor = self.stages(self.input(x))  # (B, F, *start)
        return (h * self.basis).sum((2, 3))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h: Tensor = self.output(self.features(x))  # (B, 1), or (B, F) with classes
        return h.flatten() if self.embed is None else (h * self.embed(given(y))).sum(1)


class Block(nn.Module):
    """x + conv 1x1 (leaky ReLU (grouped conv 3x3 (leaky ReLU (conv 1x1 (x))))), from C to 2C, 2C and C channels.

    blocks: number of blocks in the network, on which the initial weights depend.
    """

    def __init__(self, channels: int, group_width: int, blocks: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        gain = (2 / (1 + SLOPE**2)) ** 0.5 * blocks**-0.25
        self.conv1 = scaled(nn.Conv2d(channels, inner, 1), gain)
        self.conv2 = scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=groups_of(inner, group_width)), gain)
        self.conv3 = scaled(nn.Conv2d(inner, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu_(self.conv1(x), SLOPE)
        h = F.leaky_relu_(self.conv2(h), SLOPE)
        out: Tensor = x + self.conv3(h)
        return out


class Upsample(nn.Module):
    """Conv 1x1 if the number of channels changes, then double the side with [1, 3, 3, 1] / 4 on each axis."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Identity() if n_in == n_out else scaled(nn.Conv2d(n_in, n_out, 1, bias=False))
        self.filter = LowPass(n_out, F.conv_transpose2d, 4.0)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.filter(self.conv(x))
        return h


class Downsample(nn.Module):
    """Halve the side with the filter [1, 3, 3, 1] / 8 on each axis, then conv 1x1 if the number of channels changes."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.filter = LowPass(n_in, F.conv2d, 1.0)
        self.conv = nn.Identity() if n_in == n_out else scaled(nn.Conv2d(n_in, n_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(self.filter(x))
        return h


class LowPass(nn.Module):
    """The convolution of each channel with a constant filter, of stride 2, and the given sum of its weights.

    It runs in float32, also under autocast, since CPUs take five times as long for its gradient in bfloat16.
    """

    kernel: Tensor

    def __init__(self, channels: int, convolve: Callable[..., Tensor], total: float) -> None:
        super().__init__()
        taps = torch.tensor(TAPS) / sum(TAPS)
        kernel = (total * torch.outer(taps, taps)).repeat(channels, 1, 1, 1)  # (C, 1, 4, 4)
        self.register_buffer("kernel", kernel, persistent=False)
        self.convolve = convolve

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(self.kernel.dtype)
            return self.convolve(wide, self.kernel, stride=2, padding=1, groups=len(self.kernel)).to(x.dtype)


def blocks_of(channels: int, depth: int, group_width: int, stages: int) -> nn.Sequential:
    """The blocks of one of the network's stages."""
    if depth < 1:
        raise ValueError(f"depth={depth}: must be at least 1.")
    return nn.Sequential(*(Block(channels, group_width, depth * stages) for _ in range(depth)))


def channels_of(sides: Sides, width: int, widths: Sequence[int] | None) -> list[int]:
    """The channels of the feature maps, from the smallest to the image."""
    number = sides.doublings + 1
    if width < 1:
        raise ValueError(f"width={width}: must be at least 1.")
    if widths is None:
        shorter = [min(sides.start) * 2**k for k in range(number)]
        return [max(width // 2 ** (-(-side // FULL) - 1).bit_length(), 1) for side in shorter]
    if len(widths) != number or min(widths) < 1:
        raise ValueError(
            f"widths={list(widths)}: must be {number} whole numbers of at least 1, "
            "from the smallest feature maps to the image."
        )
    return list(widths)


def groups_of(inner: int, group_width: int) -> int:
    """The groups of a block's 3x3 convolution: one if there are fewer inner channels than in a group."""
    if group_width < 1:
        raise ValueError(f"group_width={group_width}: must be at least 1.")
    if inner > group_width and inner % group_width:
        raise ValueError(
            f"group_width={group_width}: does not divide the {inner} inner channels of a block; "
            f"use widths that are multiples of {group_width / EXPANSION:g}."
        )
    return max(inner // group_width, 1)


def scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """The layer with weights N(0, gain^2 / inputs) and biases 0. He et al. 2015, arXiv:1502.01852."""
    nn.init.normal_(layer.weight, 0.0, gain / layer.weight[0].numel() ** 0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def embedding(num_classes: int, dim: int, gain: float) -> nn.Embedding:
    """A linear layer of one-hot labels, with the initial weights of `scaled`."""
    layer = nn.Embedding(num_classes, dim)
    nn.init.normal_(layer.weight, 0.0, gain / num_classes**0.5)
    return layer
