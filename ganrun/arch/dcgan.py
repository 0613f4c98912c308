"""DCGAN. Radford, Metz and Chintala 2016, arXiv:1511.06434.

Differs from the paper in that the shorter side of the smallest feature maps is 4, 5, 6 or 7, whichever yields the image
size by doubling, and in the number of stages that follows. So images of 28 or 48 pixels need no padding.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from ganrun.arch.layers import Minibatch, apply_spectral_norm, with_labels, with_minibatch
from ganrun.arch.sides import sides_of
from ganrun.data.dataset import DataSpec

NORMS: dict[str, Callable[[int], list[nn.Module]]] = {
    "batch": lambda channels: [nn.BatchNorm2d(channels)],
    "layer": lambda channels: [nn.GroupNorm(1, channels)],
    "none": lambda channels: [],
}


class Generator(nn.Module):
    """z (B, z_dim) -> images (B, C, H, W) in [-1, 1]: transposed convolutions k4 s2, batch norm, ReLU, tanh.

    width: channels of the last hidden layer; each earlier layer has twice as many, at most 8 * width.
    label_dim: number of classes; y (B,) is one-hot encoded and concatenated to z. 0: y is ignored.
    Raises ValueError for data that are not images of a supported size (`sides_of`).
    """

    output_range = (-1.0, 1.0)
    mixes_classes = True

    def __init__(
        self, spec: DataSpec, z_dim: int, width: int = 64, spectral_norm: bool = False, label_dim: int = 0
    ) -> None:
        super().__init__()
        self.label_dim = label_dim
        start, stages = sides_of(spec, "DCGAN")
        if width < 1:
            raise ValueError(f"width={width}: must be at least 1.")
        widths = [width * min(2**k, 8) for k in reversed(range(stages))]  # from the latent to the image
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(z_dim + label_dim, widths[0], start, bias=False),  # 1 -> start
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for n_in, n_out in pairwise(widths):
            layers += [
                nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1, bias=False),  # doubles the side
                nn.BatchNorm2d(n_out),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ConvTranspose2d(widths[-1], spec.shape[0], 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_init)
        if spectral_norm:
            apply_spectral_norm(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x: Tensor = self.layers(with_labels(z, y, self.label_dim)[:, :, None, None])
        return x  # (B, C, H, W)


class Discriminator(nn.Module):
    """Images (B, C, H, W) -> logits (B,): convolutions k4 s2 with LeakyReLU .2, batch norm in all but the first.

    norm: "batch" or, for penalties that need independent samples, "layer" (over all values of a sample) or "none".
    label_dim: number of classes; y (B,) is one-hot encoded and concatenated to x as constant channels. 0: y is ignored.
    """

    def __init__(
        self,
        spec: DataSpec,
        width: int = 64,
        norm: Literal["batch", "layer", "none"] = "batch",
        spectral_norm: bool = False,
        minibatch: Minibatch = "none",
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        self.label_dim = label_dim
        start, stages = sides_of(spec, "DCGAN")
        if width < 1:
            raise ValueError(f"width={width}: must be at least 1.")
        widths = [width * min(2**k, 8) for k in range(stages)]
        layers: list[nn.Module] = [
            nn.Conv2d(spec.shape[0] + label_dim, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for n_in, n_out in pairwise(widths):
            layers += [
                nn.Conv2d(n_in, n_out, 4, stride=2, padding=1, bias=norm == "none"),  # halves the side
                *NORMS[norm](n_out),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        shape = (widths[-1], *start)
        self.output = with_minibatch(minibatch, shape, lambda channels: nn.Conv2d(channels, 1, start))  # start -> 1
        self.apply(_init)
        if spectral_norm:
            apply_spectral_norm(self)

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The last hidden layer, (B, 8 * width at most, *start)."""
        features: Tensor = self.layers(with_labels(x, y, self.label_dim))
        return features

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.output(self.features(x, y))  # (B, 1, 1, 1)
        return logits.flatten()


def _init(layer: nn.Module) -> None:
    """Weights N(0, .02), batch norm scales N(1, .02), biases 0."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)
