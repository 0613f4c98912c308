"""Walks between samples: latents and classes on the ways from one to the next."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ganrun.data.dataset import DataSpec
from ganrun.network_protocols import MixesClasses
from ganrun.protocols import Latent
from ganrun.training.sampling import generate

THRESHOLDS = (None, 2.0, 1.0, 0.5, 0.04)  # of truncated latents, those in Figure 2 of the BigGAN paper
WALKS, STEPS = 8, 10  # rows and columns of pictures


def shares(steps: int) -> Tensor:
    """The shares of the way at each of `steps` points, (steps,), from 0 to 1."""
    return torch.linspace(0, 1, steps)


def walk(latent: Latent, z: Tensor, steps: int) -> Tensor:
    """Latents ((n - 1) * steps, dim) on the ways between neighbors in z (n, dim), each with both of its ends."""
    start, end = (part.repeat_interleave(steps, 0) for part in (z[:-1], z[1:]))
    return latent.between(start, end, shares(steps).repeat(len(z) - 1)[:, None])


def class_walk(y: Tensor, steps: int, num_classes: int, mixed: bool) -> Tensor:
    """The classes at the points of `walk`, between neighbors in y (n,).

    mixed: weights of the classes, ((n - 1) * steps, num_classes), which change evenly. Otherwise labels ((n - 1) *
    steps,), which change halfway.
    """
    start, end = (part.repeat_interleave(steps) for part in (y[:-1], y[1:]))
    share = shares(steps).repeat(len(y) - 1)
    if not mixed:
        return torch.where(share < 0.5, start, end)
    start, end = (one_hot(part, num_classes).float() for part in (start, end))
    return torch.lerp(start, end, share[:, None])


def mixes_classes(G: nn.Module) -> bool:
    """Whether G declares that it takes weights of the classes."""
    return isinstance(G, MixesClasses) and G.mixes_classes


def interpolated(G: nn.Module, latent: Latent, spec: DataSpec, z: Tensor, y: Tensor | None, steps: int) -> Tensor:
    """Samples (n - 1, steps, *shape), on the CPU, on the ways between latents z (n, dim) with the classes y (n,)."""
    ways = None if y is None else class_walk(y.cpu(), steps, spec.num_classes, mixes_classes(G))
    between = walk(latent, z.cpu(), steps).to(z.device)  # on the CPU, since some devices have no float64
    walks: Tensor = generate(G, between, ways).unflatten(0, (-1, steps))
    return walks
