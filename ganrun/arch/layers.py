"""Layers and normalization for discriminators of images and of vectors.

A layer with `mixes_samples = True` combines the samples of a batch: D then gets real and fake in separate batches.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

Minibatch = Literal["none", "stddev", "discrimination"]


def with_labels(x: Tensor, y: Tensor | None, label_dim: int) -> Tensor:
    """Append y (B,) to x (B, F) as one-hot features, or to x (B, C, H, W) as constant channels; label_dim=0: return x.

    y may also be weights of the classes, (B, label_dim) of floats, which are appended as they are.

    >>> with_labels(torch.tensor([[7.0]]), torch.tensor([1]), 3)
    tensor([[7., 0., 1., 0.]])
    """
    if not label_dim:
        return x
    y = given(y)
    weights = y if y.is_floating_point() else F.one_hot(y, label_dim)
    maps = weights.to(x.dtype).view(x.shape[0], label_dim, *[1] * (x.dim() - 2))
    return torch.cat([x, maps.expand(-1, -1, *x.shape[2:])], 1)


def embedded(layer: nn.Embedding, y: Tensor | None) -> Tensor:
    """The embeddings of the classes y (B,), or their means with the weights y, (B, K) of floats."""
    y = given(y)
    return y.to(layer.weight.dtype) @ layer.weight if y.is_floating_point() else layer(y)


def given(y: Tensor | None) -> Tensor:
    """The labels of a conditional network. Raises ValueError if there are none."""
    if y is None:
        raise ValueError("condition: this network needs labels, and was given none.")
    return y


class UnconditionalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that has no gains and biases for each class in a conditional generator."""

    unconditional = True


class MinibatchDiscrimination(nn.Module):
    """Minibatch discrimination. Salimans et al. 2016, arXiv:1606.03498, section 3.2.

    M_i = f(x_i) T, (out_features, kernel_dim);  o_i[b] = sum over j != i of exp(-||M_i[b] - M_j[b]||_1)

    f (B, in_features) -> [f, o] (B, in_features + out_features). The paper's sum includes j = i, which adds 1 to
    all o; here a batch of one sample has o = 0. T is drawn from N(0, s^2), s = 1 / (kernel_dim * sqrt(in_features)), so
    that features near unit size have distances near 1 (our choice: at large distances exp has no gradient). Memory:
    B * B * out_features * kernel_dim.

    >>> layer = MinibatchDiscrimination(1, out_features=1, kernel_dim=1)
    >>> _ = nn.init.ones_(layer.T)
    >>> layer(torch.tensor([[0.0], [0.0], [500.0]])).tolist()
    [[0.0, 1.0], [0.0, 1.0], [500.0, 0.0]]
    """

    mixes_samples = True

    def __init__(self, in_features: int, out_features: int = 16, kernel_dim: int = 8) -> None:
        super().__init__()
        sizes = {"in_features": in_features, "out_features": out_features, "kernel_dim": kernel_dim}
        for key, size in sizes.items():
            if size < 1:
                raise ValueError(f"{key}={size}: must be at least 1.")
        self.T = nn.Parameter(torch.empty(in_features, out_features, kernel_dim))
        nn.init.normal_(self.T, std=1 / (kernel_dim * in_features**0.5))

    def forward(self, f: Tensor) -> Tensor:
        M = (f @ self.T.flatten(1)).unflatten(1, self.T.shape[1:])  # (B, out, kernel)
        near = (-(M[:, None] - M).abs().sum(3)).exp()  # (B, B, out)
        itself = torch.eye(f.shape[0], device=f.device, dtype=near.dtype)[:, :, None]
        return torch.cat([f, (near - itself).sum(1)], 1)


class MinibatchStdDev(nn.Module):
    """Minibatch standard deviation. Karras et al. 2018, arXiv:1710.10196, section 3.

    s = mean over all values of sqrt(variance over the samples of a group + 1e-8), one number for each group, which
    is appended as a feature to (B, F) or as a channel to (B, C, H, W).

    group: samples per group, or None for the whole batch. There are B // group groups, at least one, and sample i is in
    group i mod their number. If `group` does not divide B, some groups are larger, but none is smaller.
    A batch of one sample has s = 1e-4.

    >>> MinibatchStdDev()(torch.tensor([[1.0], [1.0], [5.0], [5.0]]))[:, 1].tolist()
    [2.0, 2.0, 2.0, 2.0]
    """

    mixes_samples = True

    def __init__(self, group: int | None = 4) -> None:
        super().__init__()
        if group is not None and group < 1:
            raise ValueError(f"group={group}: must be at least 1, or null for the whole batch.")
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            s = self.deviation(x.flatten(1).float() if x.dtype != torch.float64 else x.flatten(1)).to(x.dtype)
        return torch.cat([x, s.view(-1, *[1] * (x.dim() - 1)).expand(-1, 1, *x.shape[2:])], 1)

    def deviation(self, x: Tensor) -> Tensor:
        """x (B, F) -> s of each sample's group, (B,)."""
        groups = max(len(x) // (self.group or len(x)), 1)
        number = torch.arange(len(x), device=x.device) % groups
        # Uses matrix products, because index_add is not deterministic on a GPU.
        member = (number[:, None] == torch.arange(groups, device=x.device)).to(x.dtype)  # (B, groups)
        mean_over = (member / member.sum(0)).T  # (groups, B)
        variance = mean_over @ (x - member @ (mean_over @ x)).square()  # (groups, F)
        return member @ (variance + 1e-8).sqrt().mean(1)


class Broadcast(nn.Module):
    """`MinibatchDiscrimination` of feature maps (B, C, H, W): appends its outputs o as constant channels."""

    mixes_samples = True

    def __init__(self, discrimination: MinibatchDiscrimination) -> None:
        super().__init__()
        self.discrimination = discrimination

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        added = self.discrimination(flat)[:, flat.shape[1] :]  # (B, out)
        return torch.cat([x, added[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


def with_minibatch(kind: Minibatch, shape: tuple[int, ...], output: Callable[[int], nn.Module]) -> nn.Module:
    """D's output layer `output(channels)`, after a minibatch layer of the given kind on features (B, *shape)."""
    if kind == "none":
        return output(shape[0])
    if kind == "stddev":
        return nn.Sequential(MinibatchStdDev(), output(shape[0] + 1))
    layer = MinibatchDiscrimination(torch.Size(shape).numel())
    added = layer.T.shape[1]
    return nn.Sequential(layer if len(shape) == 1 else Broadcast(layer), output(shape[0] + added))


def apply_spectral_norm(net: nn.Module) -> nn.Module:
    """Spectral normalization of every linear and (transposed) convolution layer's weight. Miyato et al. 2018.

    W / sigma(W), arXiv:1802.05957, Algorithm 1, with W as a matrix (outputs, all else), also for transposed
    convolutions, which store the inputs first. Each forward pass in train mode does one power iteration, in eval mode
    none; its vectors are buffers. Changes and returns `net`. Layers that have spectral normalization are skipped.

    >>> layer = apply_spectral_norm(nn.Linear(1, 1))
    >>> abs(layer.weight.item())
    1.0
    """
    for layer in list(net.modules()):
        if isinstance(layer, nn.Linear | _ConvNd) and not is_parametrized(layer, "weight"):
            spectral_norm(layer)
    return net
