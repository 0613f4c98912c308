"""The networks of Goodfellow et al. 2014, arXiv:1406.2661, as configured in the authors' code.

G has rectified linear and sigmoid layers, D has maxout layers with dropout on their inputs. Weights are initialized
from U(-irange, irange), and biases to 0 unless they are set.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ganrun.arch.layers import Minibatch, apply_spectral_norm, with_labels, with_minibatch
from ganrun.arch.maxout import BoundedLinear, Deconvolution, Maxout, MaxoutConv
from ganrun.data.dataset import DataSpec, Split

Activation = Literal["relu", "sigmoid", "linear"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "linear": nn.Identity}
CLIP = 1e-7  # mean pixels are clipped to [CLIP, 1 - CLIP] before the logit


class Generator(nn.Module):
    """z (B, z_dim) -> samples (B, *spec.shape): fully connected layers and, for images, an optional deconvolution.

    hidden, activation: units and activation of each hidden layer. bias: initial biases of each (None: 0).
    output: "sigmoid", scaled to the data's range, or "linear", for normalized data.
    irange: range of the initial hidden weights; output_irange: of the output weights (None: the same).
    output_sparse: None, or the number of weights per output unit drawn from N(0, 1); all others are 0. Martens 2010.
    output_bias: "zero", or "data": the logits of the mean of `examples`, so that G starts near the mean. `examples` may
    be None if weights are loaded afterwards.
    max_norm: largest L2 norm of each unit's weights: one value, or one for each layer including the output.
    deconvolution: None, or (channels, kernel, stride): the last hidden layer is reshaped to square feature maps, and a
    transposed convolution without padding, with a bias for each pixel, makes the image.
    spectral_norm, label_dim: as in `ganrun.arch.mlp`.

    Raises ValueError for lists of different lengths, and for sizes that do not result in the data's shape.
    """

    mixes_classes = True

    def __init__(
        self,
        spec: DataSpec,
        z_dim: int,
        hidden: Sequence[int] = (1200, 1200),
        activation: Sequence[Activation] = ("relu", "relu"),
        bias: Sequence[float] | None = None,
        output: Literal["sigmoid", "linear"] = "sigmoid",
        irange: float = 0.05,
        output_irange: float | None = None,
        output_sparse: int | None = None,
        output_bias: Literal["zero", "data"] = "data",
        max_norm: float | Sequence[float | None] | None = None,
        deconvolution: Sequence[int] | None = None,
        spectral_norm: bool = False,
        label_dim: int = 0,
        examples: Split | None = None,
    ) -> None:
        super().__init__()
        self.label_dim = label_dim
        _check_layers(spec, hidden, activation, bias, output)
        _check_ranges(irange=irange, output_irange=output_irange)
        self.shape = spec.shape
        self.low, self.high = (0.0, 1.0) if output == "linear" else spec.value_range or (0.0, 1.0)
        self.output_range = None if output == "linear" else spec.value_range
        norms = _each("max_norm", max_norm, len(hidden) + 1)
        sizes = pairwise([z_dim + label_dim, *hidden])
        layers = [BoundedLinear(a, b, norm) for (a, b), norm in zip(sizes, norms, strict=False)]
        self.hidden = nn.ModuleList(layers)
        self.activations = nn.ModuleList(ACTIVATIONS[name]() for name in activation)
        for layer, start in zip(layers, bias or [0.0] * len(hidden), strict=True):
            _uniform(layer, irange)
            nn.init.constant_(layer.bias, start)
        wide = irange if output_irange is None else output_irange
        self.output = _output(spec, hidden[-1], deconvolution, wide, output_sparse, norms[-1])
        self.squash = ACTIVATIONS[output]()
        if output_bias == "data" and examples is not None:
            self._start_at_the_mean(spec, examples)
        if spectral_norm:
            _check_one_bound(max_norm)
            apply_spectral_norm(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = with_labels(z, y, self.label_dim)
        for layer, activation in zip(self.hidden, self.activations, strict=True):
            h = activation(layer(h))
        x: Tensor = self.squash(self.output(h)).view(z.shape[0], *self.shape)
        return x if (self.low, self.high) == (0.0, 1.0) else self.low + (self.high - self.low) * x

    @torch.no_grad()
    def _start_at_the_mean(self, spec: DataSpec, examples: Split) -> None:
        parts = [spec.decode(part).double().sum(0) for part in examples.x.split(4096)]
        mean = torch.stack(parts).sum(0) / len(examples)  # (*shape)
        if isinstance(self.squash, nn.Sigmoid):
            mean = torch.logit((mean - self.low) / (self.high - self.low), eps=CLIP)
        bias: Tensor = self.output.get_parameter("bias")
        bias.copy_(mean.reshape(bias.shape))

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """This generator's state_dict, with the weights of another one, `state`, in the last layers.

        `state` may have fewer layers. Raises ValueError if they do not match the last layers of this generator.
        """
        depth = sum(name.startswith("hidden.") and name.endswith(".weight") for name in state)
        new = len(self.hidden) - depth
        moved = {_shifted(name, new): value for name, value in state.items()}
        own = self.state_dict()
        misfits = [name for name, value in moved.items() if name not in own or own[name].shape != value.shape]
        if new < 0 or misfits:
            raise ValueError(
                f"its generator has {depth} hidden layers, which are not the last of this one's {len(self.hidden)}"
                f"{f' ({misfits[0]} differs)' if misfits else ''}; "
                "list the new layers first, as in arch.generator.hidden=[8000,100,8000,8000]."
            )
        return own | moved


class Discriminator(nn.Module):
    """Samples (B, *spec.shape) -> logits (B,): maxout layers and a linear unit, each after dropout.

    hidden, pieces: units of each fully connected maxout layer, and linear pieces per unit.
    convolutions: for images, (channels, kernel, padding, pool, pool stride) of each convolutional maxout layer. These
    come before the fully connected ones, and have conv_pieces pieces.
    input_dropout: dropout probability of the pixels; dropout: of the inputs of every later layer, including the output.
    irange, max_norm: as in `Generator`; minibatch, label_dim: as in `ganrun.arch.mlp`. The input is not standardized.
    """

    def __init__(
        self,
        spec: DataSpec,
        hidden: Sequence[int] = (240, 240),
        pieces: int = 5,
        convolutions: Sequence[Sequence[int]] = (),
        conv_pieces: int = 2,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
        irange: float = 0.005,
        max_norm: float | None = None,
        spectral_norm: bool = False,
        minibatch: Minibatch = "none",
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        _check_ranges(irange=irange)
        self.label_dim = label_dim
        for name, share in (("input_dropout", input_dropout), ("dropout", dropout)):
            if not 0 <= share < 1:
                raise ValueError(f"{name}={share:g}: must lie in [0, 1).")
        if min([*hidden, pieces, conv_pieces], default=1) < 1:
            raise ValueError(f"hidden={list(hidden)}: every size, and the number of pieces, must be at least 1.")
        self.image = bool(convolutions)
        shares = [input_dropout] + [dropout] * (len(hidden) + len(convolutions))
        layers, size = _convolutions(spec, convolutions, conv_pieces, label_dim)
        for units in hidden:
            layers.append(Maxout(size, units, pieces, max_norm))
            size = units
        behind = [nn.Sequential(nn.Dropout(share), layer) for share, layer in zip(shares, layers, strict=False)]
        self.layers = nn.Sequential(*_flattened(behind, len(convolutions)), nn.Dropout(shares[-1]))
        self.output = with_minibatch(minibatch, (size,), lambda features: BoundedLinear(features, 1, max_norm))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                _uniform(module, irange)
        if spectral_norm:
            _check_one_bound(max_norm)
            apply_spectral_norm(self)

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The last hidden layer, (B, hidden[-1]), after dropout."""
        features: Tensor = self.layers(with_labels(x if self.image else x.flatten(1), y, self.label_dim))
        return features

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.output(self.features(x, y))  # (B, 1)
        return logits.squeeze(1)


def _output(
    spec: DataSpec,
    n_in: int,
    deconvolution: Sequence[int] | None,
    irange: float,
    sparse: int | None,
    norm: float | None,
) -> nn.Module:
    """G's last layer, initialized."""
    if deconvolution is not None:
        last = Deconvolution(*_maps(spec, n_in, deconvolution))
        nn.init.uniform_(last.conv.weight, -irange, irange)
        return last
    layer = BoundedLinear(n_in, spec.numel, norm)
    _uniform(layer, irange)
    if sparse is not None:
        _sparse(layer.weight, sparse)
    return layer


def _maps(spec: DataSpec, units: int, deconvolution: Sequence[int]) -> tuple[int, int, tuple[int, ...], int, int]:
    """The arguments of `Deconvolution`. Raises ValueError if they do not fit the units and the data."""
    if len(deconvolution) != 3 or min(deconvolution) < 1 or not spec.is_image:
        raise ValueError(
            f"deconvolution={list(deconvolution)}: must be (channels, kernel, stride), for images; null for none."
        )
    channels, kernel, stride = deconvolution
    side = math.isqrt(units // channels)
    made = (side - 1) * stride + kernel
    if side * side * channels != units or spec.shape[1:] != (made, made):
        raise ValueError(
            f"deconvolution={list(deconvolution)}: {units} units are not {channels} square maps from which "
            f"kernel {kernel} at stride {stride} makes images of {spec.shape[1]}x{spec.shape[2]}."
        )
    return side, channels, spec.shape, kernel, stride


def _convolutions(
    spec: DataSpec, convolutions: Sequence[Sequence[int]], pieces: int, label_dim: int
) -> tuple[list[nn.Module], int]:
    """The convolutional layers, and the size of their flattened output; without layers, that of x and its labels."""
    layers: list[nn.Module] = []
    if not convolutions:
        return layers, spec.numel + label_dim
    sizes = [list(given) for given in convolutions]
    if not spec.is_image or any(len(given) != 5 for given in convolutions):
        raise ValueError(
            f"convolutions={sizes}: each must be (channels, kernel, padding, pool, pool stride), "
            "for images; [] for none."
        )
    first = channels = spec.shape[0] + label_dim
    for given in convolutions:
        layers.append(MaxoutConv(channels, given[0], pieces, *given[1:]))
        channels = given[0]
    with torch.no_grad():
        try:
            return layers, nn.Sequential(*layers)(torch.zeros(1, first, *spec.shape[1:])).numel()
        except RuntimeError as error:
            raise ValueError(
                f"convolutions={sizes}: do not fit images of {spec.shape[1]}x{spec.shape[2]} ({error})."
            ) from error


def _flattened(layers: Sequence[nn.Module], convolutions: int) -> list[nn.Module]:
    """The layers, with nn.Flatten after the convolutional ones."""
    return [*layers[:convolutions], *([nn.Flatten()] if convolutions else []), *layers[convolutions:]]


def _check_layers(
    spec: DataSpec, hidden: Sequence[int], activation: Sequence[str], bias: Sequence[float] | None, output: str
) -> None:
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden={list(hidden)}: must be at least one size, each at least 1.")
    for name, values in (("activation", activation), ("bias", bias)):
        if values is not None and len(values) != len(hidden):
            raise ValueError(f"{name}={list(values)}: must have {len(hidden)} entries, one for each of hidden.")
    if output == "sigmoid" and spec.value_range is None:
        raise ValueError(
            "output=sigmoid: is bounded, but the data are not; use output=linear output_bias=zero for normalized data."
        )


def _check_one_bound(max_norm: object) -> None:
    if max_norm is not None:
        raise ValueError("spectral_norm=true: bounds the weights already; add max_norm=null.")


def _each(name: str, value: float | Sequence[float | None] | None, num: int) -> list[float | None]:
    """One value for each layer."""
    if value is None or isinstance(value, int | float):
        return [value] * num
    if len(value) != num:
        raise ValueError(f"{name}={list(value)}: must be one number, or {num}: one for each layer and the output.")
    return list(value)


def _check_ranges(**ranges: float | None) -> None:
    for name, value in ranges.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name}={value}: must be at least 0.")


def _uniform(layer: nn.Linear | nn.Conv2d, irange: float) -> None:
    """Weights U(-irange, irange), biases 0."""
    nn.init.uniform_(layer.weight, -irange, irange)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def _sparse(weight: Tensor, num: int) -> None:
    """Draw `num` weights of each unit, at random inputs without replacement, from N(0, 1), and set all others to 0."""
    units, n_in = weight.shape
    if not 1 <= num <= n_in:
        raise ValueError(f"output_sparse={num}: must lie between 1 and {n_in}, the inputs of the output layer.")
    chosen = torch.stack([torch.randperm(n_in)[:num] for _ in range(units)])  # (units, num)
    weight.zero_().scatter_(1, chosen, torch.randn(units, num))


def _shifted(name: str, by: int) -> str:
    """hidden.0.weight -> hidden.2.weight"""
    first, _, rest = name.partition(".")
    if first != "hidden":
        return name
    number, _, rest = rest.partition(".")
    return f"hidden.{int(number) + by}.{rest}"
