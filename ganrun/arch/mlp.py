"""Fully connected networks for vectors and images of any shape."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop_out

from ganrun.arch.layers import Minibatch, apply_spectral_norm, with_labels, with_minibatch
from ganrun.data.dataset import DataSpec

Init = Literal["torch", "he", "glorot"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


class Generator(nn.Module):
    """z (B, z_dim) -> samples (B, *spec.shape), in the data's units.

    Vectors are mean + std * output, so that initial samples are near the data in any units; bounded data (images) are
    the output of a tanh that is scaled to `spec.value_range`.
    label_dim: number of classes; y (B,) is one-hot encoded and concatenated to z. 0: y is ignored.
    init: "torch" is torch's default, with which activations shrink from layer to layer. The others set biases to 0:
    - "he" keeps the variance of activations with ReLU: N(0, 2 / inputs). He et al. 2015, arXiv:1502.01852;
    - "glorot" roughly keeps it with tanh: U(-r, r), r^2 = 6 / (inputs + outputs). Glorot and Bengio 2010, Equation 16.
    test_time_dropout: keep dropout on in eval mode, as a source of noise in addition to z, as in Isola et al. 2017
    (arXiv:1611.07004, section 3.2). Dropout increases the variance of activations, so without it the batch norm
    statistics from training do not fit.
    """

    mixes_classes = True

    def __init__(
        self,
        spec: DataSpec,
        z_dim: int,
        hidden: Sequence[int] = (512, 512),
        activation: str = "leaky_relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        test_time_dropout: bool = False,
        init: Init = "torch",
        spectral_norm: bool = False,
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        self.label_dim = label_dim
        self.center: Tensor
        self.scale: Tensor
        self.shape, self.output_range = spec.shape, spec.value_range
        drop = AlwaysDropout if test_time_dropout else nn.Dropout
        self.layers = _layers([z_dim + label_dim, *hidden, spec.numel], activation, batch_norm, dropout, init, drop)
        low, high = spec.value_range or (spec.mean - spec.std, spec.mean + spec.std)
        self.register_buffer("center", torch.tensor((low + high) / 2))
        self.register_buffer("scale", torch.tensor((high - low) / 2))
        if spectral_norm:
            apply_spectral_norm(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(with_labels(z, y, self.label_dim))  # (B, numel)
        if self.output_range is not None:
            h = h.tanh()
        x = torch.addcmul(self.center, h, self.scale)
        return x.unflatten(1, self.shape) if len(self.shape) > 1 else x


class Discriminator(nn.Module):
    """Samples (B, *spec.shape) -> logits (B,). The input is standardized by the data's mean and std.

    label_dim: number of classes; y (B,) is one-hot encoded and concatenated to x. 0: y is ignored.
    init: initialization of the hidden layers, as in `Generator`.
    """

    def __init__(
        self,
        spec: DataSpec,
        hidden: Sequence[int] = (512, 512),
        activation: str = "leaky_relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        init: Init = "torch",
        spectral_norm: bool = False,
        minibatch: Minibatch = "none",
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        self.label_dim = label_dim
        self.scale: Tensor
        self.shift: Tensor
        sizes = [spec.numel + label_dim, *hidden]
        self.layers = nn.Sequential(*_layers([*sizes, 1], activation, batch_norm, dropout, init)[:-1])
        self.output = with_minibatch(minibatch, (sizes[-1],), lambda features: nn.Linear(features, 1))
        self.register_buffer("scale", torch.tensor(1 / spec.std))
        self.register_buffer("shift", torch.tensor(-spec.mean / spec.std))
        if spectral_norm:
            apply_spectral_norm(self)

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The last hidden layer, (B, hidden[-1])."""
        standard = torch.addcmul(self.shift, x.flatten(1), self.scale)
        features: Tensor = self.layers(with_labels(standard, y, self.label_dim))
        return features

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.output(self.features(x, y))  # (B, 1)
        return logits.squeeze(1)


class AlwaysDropout(nn.Dropout):
    """Dropout that is also on in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        return drop_out(x, self.p, training=True)

    def with_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """The same, in which noise, uniform in [0, 1), decides what is dropped."""
        return x * (noise >= self.p).to(x.dtype) / (1 - self.p)


def _layers(
    sizes: Sequence[int],
    activation: str,
    batch_norm: bool,
    dropout: float,
    init: Init = "torch",
    drop: Callable[[float], nn.Module] = nn.Dropout,
) -> nn.Sequential:
    """Linear layers between the sizes; after each but the last: batch norm, activation, dropout."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation}: must be one of {', '.join(ACTIVATIONS)}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: must lie in [0, 1).")
    if any(size < 1 for size in sizes):
        raise ValueError(f"hidden={list(sizes[1:-1])}: every size must be at least 1.")
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes[:-1]):
        layers.append(nn.Linear(n_in, n_out))
        if batch_norm:
            layers.append(nn.BatchNorm1d(n_out))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(drop(dropout))
    layers.append(nn.Linear(sizes[-2], sizes[-1]))
    initialize([layer for layer in layers if isinstance(layer, nn.Linear)], init)
    return nn.Sequential(*layers)


def initialize(layers: Sequence[nn.Linear], init: Init) -> None:
    """Initialize weights and biases; "torch" keeps torch's default."""
    if init == "torch":
        return
    for layer in layers:
        if init == "he":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        else:
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
