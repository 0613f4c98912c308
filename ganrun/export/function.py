"""The function that an exported file computes: a network in eval mode, and where asked for, its images as bytes."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganrun.arch.layers import MinibatchStdDev
from ganrun.data.dataset import DataSpec
from ganrun.export.inputs import Input, examples, inputs_of
from ganrun.export.source import Player, Source
from ganrun.network_protocols import DrawsNoise


class Noise:
    """The random numbers of a network's layers, as one tensor (B, size). shapes: of each use, found by a first call."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []
        self.parts: Iterator[Tensor] | None = None

    @property
    def size(self) -> int:
        return sum(shape.numel() for shape in self.shapes)

    def give(self, noise: Tensor) -> None:
        self.parts = iter(noise.split([shape.numel() for shape in self.shapes], 1))


class WithNoise(nn.Module):
    """A layer that draws random numbers in eval mode, with the numbers of `noise` instead."""

    def __init__(self, layer: nn.Module, noise: Noise) -> None:
        super().__init__()
        self.layer, self.noise = layer, noise

    def forward(self, x: Tensor) -> Tensor:
        if self.noise.parts is None:
            self.noise.shapes.append(x.shape[1:])
            out: Tensor = self.layer(x)
            return out
        assert isinstance(self.layer, DrawsNoise)
        return self.layer.with_noise(x, next(self.noise.parts).view(x.shape))


class PairwiseStdDev(nn.Module):
    """`MinibatchStdDev` without a tensor whose size is the number of groups, which torch.export would fix."""

    def __init__(self, group: int | None) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        number = torch.arange(x.shape[0], device=x.device)
        num = torch.ones_like(number).sum()
        groups = torch.div(num, self.group or x.shape[0], rounding_mode="floor").clamp(min=1)
        number = number.remainder(groups)  # of each sample's group
        together = torch.eq(number[:, None], number).to(x.dtype)  # (B, B)
        mean_over = together / together.sum(1, keepdim=True)
        flat = x.flatten(1)
        s = (mean_over @ (flat - mean_over @ flat).square() + 1e-8).sqrt().mean(1)  # (B,)
        return torch.cat([x, s.view(-1, *[1] * (x.dim() - 1)).expand(-1, 1, *x.shape[2:])], 1)


class Function(nn.Module):
    """(z, y, noise) -> samples of G, or (x, y) -> logits of D; without the inputs that the network does not have.

    simplify: whether the copy of the network is one that can be traced (`simplified`), or unchanged.
    """

    def __init__(self, source: Source, uint8: bool, simplify: bool = True) -> None:
        super().__init__()
        self.player: Player = source.player
        self.spec: DataSpec = source.spec
        self.uint8, self.labels, self.noise = uint8, bool(source.num_classes), Noise()
        self.net = copy.deepcopy(source.net).cpu().to(memory_format=torch.contiguous_format)
        self.net.eval().requires_grad_(False)
        if simplify:
            self.net = simplified(self.net, self.noise)
            with torch.no_grad():
                self(*examples(inputs_of(source, uint8, 0), 2))  # records the shapes of the noise
        self.inputs: list[Input] = inputs_of(source, uint8, self.noise.size)

    def forward(self, *inputs: Tensor) -> Tensor:
        first, *others = inputs
        y, others = (others[:1], others[1:]) if self.labels else ([], others)
        if others:
            self.noise.give(others[0])
        if self.player == "discriminator" and self.uint8:
            first = self.spec.decode(first.permute(0, 3, 1, 2))
        try:
            out: Tensor = self.net(first, *y)
        finally:
            self.noise.parts = None
        if self.player == "generator" and self.uint8:
            return self.spec.encode(out).permute(0, 2, 3, 1)
        return out


def simplified(net: nn.Module, noise: Noise) -> nn.Module:
    """The same function, which torch.export can trace for any batch size. Changes and returns `net`.

    Spectral normalization is replaced by the normalized weights, and random numbers become an input.
    """
    for layer in list(net.modules()):
        if parametrize.is_parametrized(layer):
            remove_parametrizations(layer)
    return replaced(net, noise)


def remove_parametrizations(layer: nn.Module) -> None:
    """Make the computed tensors, such as normalized weights, parameters of the layer.

    torch's own function also changes the class of the layer, which the network shares with its copy.
    """
    values = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}  # type: ignore[union-attr]
    layer.__class__ = parametrize.type_before_parametrizations(layer)
    del layer.parametrizations
    for name, value in values.items():
        layer.register_parameter(name, nn.Parameter(value, requires_grad=False))


def replaced(layer: nn.Module, noise: Noise) -> nn.Module:
    """The layer, or what replaces it; layers in it are replaced in place."""
    if isinstance(layer, MinibatchStdDev):
        return PairwiseStdDev(layer.group)
    if isinstance(layer, DrawsNoise):
        return WithNoise(layer, noise)
    for name, child in [(name, child) for name, child in layer._modules.items() if child is not None]:
        setattr(layer, name, replaced(child, noise))
    return layer


@torch.no_grad()
def draws_random_numbers(function: Function) -> bool:
    """Whether its output also depends on torch's random state."""
    inputs, found = examples(function.inputs, 3), []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append(function(*inputs))
    return not torch.equal(*found)
