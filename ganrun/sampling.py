"""Drawing from a generator without disturbing it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ganrun.randomness import reseed
from ganrun.run import Latent

CHUNK = 250  # samples at a time: bounds the memory


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """The network in eval mode and without gradients; its mode, of every layer, is restored."""
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
    reseed(device, seed, "fixed_z")
    return latent(num, device)


def generate(G: nn.Module, z: Tensor) -> Tensor:
    """G(z) on the CPU, float32, (len(z), *shape); in eval mode, so a sample does not depend on the others."""
    with evaluating(G):
        return torch.cat([G(part).float().cpu() for part in z.split(CHUNK if z.shape[1] > 1 else 100 * CHUNK)])


def draw(G: nn.Module, latent: Latent, num: int, device: torch.device, seed: int) -> Tensor:
    """`num` samples on the CPU, (num, *shape): a function of the weights and the seed. Sets the random state."""
    reseed(device, seed, "samples")
    return generate(G, latent(num, device))
