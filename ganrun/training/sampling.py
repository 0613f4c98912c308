"""Samples of a generator and logits of a discriminator, without changing either."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ganrun.data.dataset import Split
from ganrun.data.seeds import generator
from ganrun.protocols import Latent
from ganrun.training.randomness import seeded

CHUNK = 250  # samples at a time: bounds the memory


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """The network in eval mode and without gradients. The mode of every layer is restored."""
    modes = [(layer, layer.training) for layer in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def fixed_latents(latent: Latent, num: int, device: torch.device, seed: int) -> Tensor:
    """The `num` latents (num, dim) that every picture of a run is drawn from."""
    with seeded(device, seed, "fixed_z"):
        return latent(num, device)


def generate(G: nn.Module, z: Tensor, y: Tensor | None = None) -> Tensor:
    """G(z, y) on the CPU, float32, (len(z), *shape); in eval mode, so that a sample does not depend on the others.

    A G that draws noise of its own, such as dropout, draws the same noise each time.
    """
    size = CHUNK if z.shape[1] > 1 else 100 * CHUNK
    zs = z.split(size)
    ys = [None] * len(zs) if y is None else y.to(z.device).split(size)
    with evaluating(G), seeded(z.device, 0, "noise of G"):
        return torch.cat([G(*part).float().cpu() for part in zip(zs, ys, strict=True)])


def draw(G: nn.Module, latent: Latent, num: int, device: torch.device, seed: int, y: Tensor | None = None) -> Tensor:
    """`num` samples on the CPU, (num, *shape), of classes y (num,) where G is conditional.

    A function of the weights, the seed and y.
    """
    with seeded(device, seed, "samples"):
        return generate(G, latent(num, device), y)


def d_logits(D: nn.Module, x: Tensor, device: torch.device, y: Tensor | None = None) -> Tensor:
    """D's logits of x (B, *shape), of classes y where D is conditional: (B,) on the CPU, float32, in eval mode."""
    with evaluating(D):
        logits: Tensor = D(x.to(device), None if y is None else y.to(device))
        return logits.float().cpu()


def labels_like(split: Split, num: int, seed: int) -> Tensor:
    """`num` labels, as frequent as in `split`: a function of the seed."""
    assert split.y is not None, "only conditional runs use labels"
    return split.y.cpu()[torch.randint(len(split), (num,), generator=generator(seed, "labels"))]
