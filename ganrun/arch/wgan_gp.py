"""The residual networks of WGAN-GP. Gulrajani et al. 2017, arXiv:1704.00028, appendices C and F, and the released code.

Up to 32 pixels those for CIFAR-10, above those for LSUN and ImageNet at 64 pixels, with more or fewer blocks for other
sizes. Differs in the order of shortcuts' convolutions and resampling, which does not change the function.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.arch.layers import with_labels
from ganrun.arch.resnet import ROOT2, DownBlock, ResNetGenerator, channels_of, init_glorot
from ganrun.arch.sides import sides_of
from ganrun.data.dataset import DataSpec

SMALL = 32  # images up to this side have networks of constant width
MOST = 8  # largest multiple of the width above


class Generator(ResNetGenerator):
    """z (B, z_dim) -> images (B, C, H, W) in [-1, 1]: a `ResNetGenerator` with batch normalization.

    width: half of the channels of all layers up to 32 pixels; above, those of the last layer, and each earlier one has
    twice as many, at most 8 * width. label_dim: see `ResNetGenerator`.
    Raises ValueError for data that are not images of a supported size (`sides_of`).
    """

    def __init__(self, spec: DataSpec, z_dim: int, width: int = 64, label_dim: int = 0) -> None:
        sides = sides_of(spec, "WGAN-GP")
        small = sides.shorter <= SMALL
        multiples = [2 if small else min(2**k, MOST) for k in reversed(range(sides.doublings + 1))]
        super().__init__(
            spec,
            z_dim,
            channels_of(width, multiples),
            sides.start,
            bias=small,
            final_gain=1.0 if small else ROOT2,
            label_dim=label_dim,
        )


class Discriminator(nn.Module):
    """Images (B, C, H, W) -> logits (B,), with means over space before the last layer up to 32 pixels.

    Above, layer normalization precedes the convolutions of the blocks, and the last layer gets all values.
    width: half of the channels of all layers up to 32 pixels; above, those of the first layer, and each block has twice
    as many, at most 8 * width. label_dim: number of classes; y (B,) is one-hot encoded and concatenated to x as
    constant channels. 0: y is ignored.
    """

    def __init__(self, spec: DataSpec, width: int = 64, label_dim: int = 0) -> None:
        super().__init__()
        self.label_dim = label_dim
        sides, n_in = sides_of(spec, "WGAN-GP"), spec.shape[0] + label_dim
        self.small = sides.shorter <= SMALL
        if self.small:
            (n,) = channels_of(width, [2])
            first = DownBlock(n_in, n, n, first=True)
            self.blocks = nn.Sequential(first, *(DownBlock(n, n, n, down=down) for down in (True, False, False)))
            self.output = nn.Linear(n, 1)
        else:
            n, *others = channels_of(width, [min(2**k, MOST) for k in range(sides.doublings + 1)])
            stem = nn.Conv2d(n_in, n, 3, padding=1)
            self.blocks = nn.Sequential(stem)
            for n_out in others:
                self.blocks.append(DownBlock(n, n_out, n, norm=lambda n: nn.GroupNorm(1, n), bias=False))
                n = n_out
            self.output = nn.Linear(n * sides.start[0] * sides.start[1], 1)
        init_glorot(self)
        if not self.small:
            nn.init.xavier_uniform_(stem.weight)

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The last hidden layer: means over space (B, F) up to 32 pixels, above all values (B, F)."""
        h: Tensor = self.blocks(with_labels(x, y, self.label_dim))
        return F.relu_(h).mean((2, 3)) if self.small else h.flatten(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.output(self.features(x, y))  # (B, 1)
        return logits.flatten()
