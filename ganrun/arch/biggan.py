"""BigGAN. Brock, Donahue and Simonyan 2019, arXiv:1809.11096, appendix B, and the authors' released PyTorch code.

The code's networks for CIFAR-10 have no attention, no shared embedding and no hierarchical z; they are settings here.
For 64, 128 and 256 pixels the layers are those of the code, for other sizes those of the nearest one. Differs in where
attention is inserted into D: once for each side, behind the first block whose output has it (the code has only one side
for all blocks at 32 pixels).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as normalize

from ganrun.arch.layers import UnconditionalBatchNorm2d, apply_spectral_norm, embedded, given
from ganrun.arch.resnet import DownBlock, Norm, UpBlock, channels_of, first_maps
from ganrun.arch.sides import Sides, sides_of
from ganrun.data.dataset import DataSpec

SMALL = 32  # images up to this side have networks of constant width
# By the number of doublings, in multiples of the width: G's channels, D's channels, and D's blocks that halve the side.
LARGE = {
    3: ([8, 8, 4, 2], [1, 2, 4, 8], 3),
    4: ([16, 16, 8, 4, 2], [1, 2, 4, 8, 16], 4),  # 64
    5: ([16, 16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16], 5),  # 128
    6: ([16, 16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16], 6),  # 256
}


class Generator(nn.Module):
    """z (B, z_dim), y (B,) or None -> images (B, C, H, W) in [-1, 1].

    width: a quarter of the channels of all layers up to 32 pixels; above, those of the last layer of large images.
    shared_dim: dimension of an embedding of the classes, of which linear layers compute the gains and biases of all
    conditional norm layers; 0: each norm layer has its own for each class.
    hierarchical: split z into one part for the first layer, and one for the conditional norm layers of each block.
    attention: shorter sides of the feature maps that get self-attention. spectral_norm: of all layers but embeddings.
    num_classes: of condition=own; 0: y is ignored.
    Raises ValueError for data that are not images of a supported size (`sides_of`), and settings that do not fit.
    """

    output_range = (-1.0, 1.0)
    mixes_classes = True

    def __init__(
        self,
        spec: DataSpec,
        z_dim: int,
        width: int = 64,
        shared_dim: int = 0,
        hierarchical: bool = False,
        attention: Sequence[int] = (),
        spectral_norm: bool = True,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        sides = sides_of(spec, "BigGAN")
        multiples = [4] * (sides.doublings + 1) if is_small(sides) else LARGE[sides.doublings][0]
        channels = channels_of(width, multiples)
        self.shape = (channels[0], *sides.start)
        self.parts = sides.doublings + 1 if hierarchical else 1
        check_conditioning(z_dim, self.parts, shared_dim, num_classes)
        self.shared = nn.Embedding(num_classes, shared_dim) if num_classes and shared_dim else None
        part = z_dim // self.parts
        self.input = nn.Linear(part, torch.Size(self.shape).numel())
        norm = make_norm(num_classes, shared_dim, part if hierarchical else 0)
        self.blocks = nn.ModuleList(UpBlock(a, b, norm) for a, b in pairwise(channels))
        outputs = [min(sides.start) * 2**k for k in range(1, len(channels))]
        self.attention = attention_at(attention, outputs, channels[1:])
        self.norm = UnconditionalBatchNorm2d(channels[-1])
        self.output = nn.Conv2d(channels[-1], spec.shape[0], 3, padding=1)
        self.apply(init_normal)
        if spectral_norm:
            apply_spectral_norm(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, *others = z.chunk(self.parts, 1)
        h = first_maps(self.input(first), self.shape)
        conditions = self.conditions(others, y)
        for block, attend, condition in zip(self.blocks, self.attention, conditions, strict=True):
            h = attend(block(h, *condition))
        x: Tensor = self.output(F.relu_(self.norm(h)))
        return x.tanh_()  # (B, C, H, W)

    def conditions(self, parts: Sequence[Tensor], y: Tensor | None) -> list[tuple[Tensor, ...]]:
        """What the norm layers of each block get: labels (B,), a vector (B, F), or nothing."""
        if self.shared is not None:
            shared = embedded(self.shared, y)  # (B, shared_dim)
            return [(torch.cat([shared, part], 1),) for part in parts] or [(shared,)] * len(self.blocks)
        if parts:
            return [(part,) for part in parts]
        return [(given(y),) if self.num_classes else ()] * len(self.blocks)


class Discriminator(nn.Module):
    """Images (B, C, H, W) -> logits (B,): residual blocks, ReLU, sum over space, linear; plus <embed(y), h>.

    width: a quarter of the channels of all layers up to 32 pixels; above, those of the first layer.
    attention: shorter sides of the feature maps that get self-attention. spectral_norm: of all layers.
    num_classes: of condition=own, for the projection of Miyato and Koyama 2018; 0: y is ignored.
    """

    def __init__(
        self,
        spec: DataSpec,
        width: int = 64,
        attention: Sequence[int] = (),
        spectral_norm: bool = True,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        sides = sides_of(spec, "BigGAN")
        multiples, halvings = ([4, 4, 4, 4], 2) if is_small(sides) else LARGE[sides.doublings][1:]
        channels = channels_of(width, multiples)
        self.blocks = nn.ModuleList(
            DownBlock(a, b, hidden=b, down=k < halvings, first=k == 0)
            for k, (a, b) in enumerate(pairwise([spec.shape[0], *channels]))
        )
        outputs = [sides.shorter // 2 ** min(k, halvings) for k in range(1, len(channels) + 1)]
        self.attention = attention_at(attention, outputs, channels)
        self.output = nn.Linear(channels[-1], 1)
        self.embed = nn.Embedding(num_classes, channels[-1]) if num_classes else None
        self.apply(init_normal)
        if spectral_norm:
            apply_spectral_norm(self)
            if self.embed is not None:
                normalize(self.embed)

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The last hidden layer, summed over space, (B, F)."""
        for block, attend in zip(self.blocks, self.attention, strict=True):
            x = attend(block(x))
        h: Tensor = F.relu(x).sum((2, 3))
        return h

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.features(x)
        logits: Tensor = self.output(h).flatten()
        if self.embed is not None:
            logits = logits + (self.embed(given(y)) * h).sum(1)
        return logits


class ConditionalNorm(nn.Module):
    """Batch normalization with gains 1 + gain(c) and biases bias(c), for labels c (B,) or vectors c (B, F).

    If `layer` makes embeddings, vectors are weights of the classes.
    """

    def __init__(self, channels: int, layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = layer(channels), layer(channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h: Tensor = self.norm(x)
        gain, bias = (self.of(part, condition).to(h.dtype)[:, :, None, None] for part in (self.gain, self.bias))
        return torch.addcmul(bias, h, 1 + gain)

    @staticmethod
    def of(part: nn.Module, condition: Tensor) -> Tensor:
        found: Tensor = embedded(part, condition) if isinstance(part, nn.Embedding) else part(condition)
        return found


class Attention(nn.Module):
    """Self-attention of feature maps. Zhang et al. 2019, arXiv:1805.08318, with the layers of the released code.

    x + gamma * o(softmax(theta(x)^T phi(x)) g(x)); theta, phi, g and o are 1x1 convolutions without biases, with C / 8,
    C / 8, C / 2 and C outputs; phi(x) and g(x) are maxima over 2x2 values. gamma is a parameter that starts at 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        few, half = max(channels // 8, 1), max(channels // 2, 1)
        self.theta, self.phi = (nn.Conv2d(channels, few, 1, bias=False) for _ in range(2))
        self.g, self.o = nn.Conv2d(channels, half, 1, bias=False), nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2)  # (B, C / 8, H * W)
        key, value = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.phi, self.g))  # (B, ..., H * W / 4)
        weights = torch.softmax(query.transpose(1, 2) @ key, 2)  # (B, H * W, H * W / 4)
        found = (value @ weights.transpose(1, 2)).view(x.shape[0], -1, *x.shape[2:])  # (B, C / 2, H, W)
        return torch.addcmul(x, self.gamma.to(x.dtype), self.o(found).to(x.dtype))


def make_norm(num_classes: int, shared_dim: int, part: int) -> Norm:
    """The norm layers of G's blocks. part: dimensions of z that each of them gets."""
    if num_classes and not shared_dim:
        return lambda n: ConditionalNorm(n, lambda n: nn.Embedding(num_classes, n))
    if dim := part + (shared_dim if num_classes else 0):
        return lambda n: ConditionalNorm(n, lambda n: nn.Linear(dim, n, bias=False))
    return nn.BatchNorm2d


def attention_at(chosen: Sequence[int], sides: Sequence[int], channels: Sequence[int]) -> nn.ModuleList:
    """A layer behind each block: attention behind the first block whose output has a chosen side, else the identity."""
    if unknown := set(chosen) - set(sides):
        raise ValueError(
            f"attention={list(chosen)}: there are no feature maps of side {min(unknown)}; "
            f"their shorter sides are {', '.join(map(str, sorted(set(sides))))}."
        )
    return nn.ModuleList(
        Attention(n) if side in chosen and side not in sides[:k] else nn.Identity()
        for k, (side, n) in enumerate(zip(sides, channels, strict=True))
    )


def check_conditioning(z_dim: int, parts: int, shared_dim: int, num_classes: int) -> None:
    if shared_dim < 0:
        raise ValueError(f"shared_dim={shared_dim}: must be at least 0; 0 is off, and the paper's is 128.")
    if z_dim % parts:
        raise ValueError(f"hierarchical=true: splits z into {parts} parts, and arch.z_dim={z_dim} is no multiple.")
    if parts > 1 and num_classes and not shared_dim:
        raise ValueError("hierarchical=true: with classes it needs an embedding, as in shared_dim=128.")


def is_small(sides: Sides) -> bool:
    return sides.shorter <= SMALL


def init_normal(layer: nn.Module) -> None:
    """Weights N(0, .02), and torch's default biases, as in the authors' CIFAR-10 script."""
    if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
        nn.init.normal_(layer.weight, 0.0, 0.02)
