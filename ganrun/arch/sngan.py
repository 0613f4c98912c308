"""The residual networks of SNGAN. Miyato et al. 2018, arXiv:1802.05957, appendix B.4, Tables 4 to 6.

With condition=projection these are the networks of Miyato and Koyama 2018, arXiv:1802.05637. Those for 32, 64, 128 and
256 pixels have the layers of the authors' released code, those for 48 of the paper's Table 5. Other sizes have those of
the nearest one, with smallest feature maps of another side.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.arch.layers import apply_spectral_norm, with_labels
from ganrun.arch.resnet import DownBlock, ResNetGenerator, channels_of, init_glorot, multiples_of
from ganrun.arch.sides import Sides, sides_of
from ganrun.data.dataset import DataSpec

SMALL = 32  # images up to this side have networks of constant width
EPS = 2e-5  # of batch normalization, as in Chainer
# By the number of doublings from the smallest feature maps to the image, in multiples of the width: G's channels there
# and after each doubling, D's channels after each block, and how many of these halve the side.
LARGE = {
    3: ([8, 4, 2, 1], [1, 2, 4, 8, 16], 4),  # 48
    4: ([16, 8, 4, 2, 1], [1, 2, 4, 8, 16], 5),  # 64
    5: ([16, 16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16], 5),  # 128
    6: ([16, 16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16], 6),  # 256
}


class Generator(ResNetGenerator):
    """z (B, z_dim) -> images (B, C, H, W) in [-1, 1]: a `ResNetGenerator` with batch normalization.

    width: a quarter of the channels of all layers up to 32 pixels, and those of the last layer above.
    multiples: of the width, for the smallest feature maps and after each doubling; None: those of the paper.
    spectral_norm: of all layers; not in the paper. label_dim: see `ResNetGenerator`.
    Raises ValueError for data that are not images of a supported size (`sides_of`).
    """

    def __init__(
        self,
        spec: DataSpec,
        z_dim: int,
        width: int = 64,
        multiples: Sequence[int] | None = None,
        spectral_norm: bool = False,
        label_dim: int = 0,
    ) -> None:
        sides = sides_of(spec, "SNGAN")
        usual = [4] * (sides.doublings + 1) if sides.shorter <= SMALL else LARGE[sides.doublings][0]
        channels = channels_of(width, multiples_of(spec, "SNGAN", multiples, usual))
        super().__init__(spec, z_dim, channels, sides.start, eps=EPS, label_dim=label_dim)
        if spectral_norm:
            apply_spectral_norm(self)


class Discriminator(nn.Module):
    """Images (B, C, H, W) -> logits (B,): residual blocks without norm layers, ReLU, sum over space, linear.

    width: half of the channels of all layers up to 32 pixels, and those of the first layer above.
    multiples: of the width, after each block; None: those of the paper. The first blocks halve the side.
    spectral_norm: of all layers. label_dim: number of classes; y (B,) is one-hot encoded and concatenated to x as
    constant channels. 0: y is ignored.
    """

    def __init__(
        self,
        spec: DataSpec,
        width: int = 64,
        multiples: Sequence[int] | None = None,
        spectral_norm: bool = True,
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        self.label_dim = label_dim
        sides = sides_of(spec, "SNGAN")
        usual, halvings = plan(sides)
        channels = channels_of(width, usual if multiples is None else multiples)
        self.blocks = nn.Sequential()
        n_in = spec.shape[0] + label_dim
        for k, n_out in enumerate(channels):
            hidden = n_out if k == 0 else n_in
            self.blocks.append(DownBlock(n_in, n_out, hidden, down=k < halvings, first=k == 0))
            n_in = n_out
        self.output = nn.Linear(n_in, 1, bias=sides.shorter > SMALL)
        init_glorot(self)
        if spectral_norm:
            apply_spectral_norm(self)

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The last hidden layer, summed over space, (B, F)."""
        h: Tensor = self.blocks(with_labels(x, y, self.label_dim))
        return F.relu_(h).sum((2, 3))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.output(self.features(x, y))  # (B, 1)
        return logits.flatten()


def plan(sides: Sides) -> tuple[list[int], int]:
    """D's channels in multiples of its width, and how many of its blocks halve the side."""
    return ([2, 2, 2, 2], 2) if sides.shorter <= SMALL else LARGE[sides.doublings][1:]
