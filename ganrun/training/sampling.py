"""Samples of a generator and logits of a discriminator, without changes to their state."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ganrun.data.dataset import Split
from ganrun.data.seeds import generator
from ganrun.network_protocols import MixesSamples
from ganrun.protocols import Latent
from ganrun.training.randomness import seeded

BLOCK = "block of samples"  # the purpose of a seed
CHUNK = 250  # samples per forward pass, at most, to bound memory
IMAGES, VECTORS = 64, 4096  # samples in a block of a `Sampler`: images at most, and vectors
PIXELS = 1 << 18  # of all images in a block or a forward pass, at most, but for one image


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode without gradients for the body; the mode of every layer is restored afterwards."""
    modes = [(layer, layer.training) for layer in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def fixed_latents(latent: Latent, num: int, device: torch.device, seed: int) -> Tensor:
    """The fixed latents (num, dim) of a run's pictures and frames."""
    with seeded(device, seed, "fixed_z"):
        return latent(num, device)


def generate(G: nn.Module, z: Tensor, y: Tensor | None = None, chunk: int = CHUNK) -> Tensor:
    """G(z, y) on the CPU, float32, (len(z), *shape); in eval mode, so that samples do not depend on each other.

    A G with internal noise, such as dropout, draws the same noise at each call. chunk: samples per forward pass.
    """
    size = chunk if z.shape[1] > 1 else 100 * chunk
    zs = z.split(size)
    ys = [None] * len(zs) if y is None else y.to(z.device).split(size)
    found, start = torch.empty(0), 0
    with evaluating(G), seeded(z.device, 0, "noise of G"):
        for part in zip(zs, ys, strict=True):
            x = G(*part)
            if start == 0:  # all at once, since a list of parts would take as much again
                found = torch.empty(len(z), *x.shape[1:])
            found[start : start + len(x)] = x
            start += len(x)
    return found


def draw(
    G: nn.Module, latent: Latent, num: int, device: torch.device, seed: int, y: Tensor | None = None, chunk: int = CHUNK
) -> Tensor:
    """`num` samples (num, *shape) on the CPU, of classes y (num,) if G is conditional.

    A function of the weights, the seed and y, and in its last bits of `chunk`.
    """
    with seeded(device, seed, "samples"):
        return generate(G, latent(num, device), y, chunk)


def chunk_size(shape: Sequence[int], most: int = CHUNK) -> int:
    """The number of samples of this shape in a forward pass, at most `most`.

    >>> chunk_size((3, 32, 32)), chunk_size((3, 64, 64)), chunk_size((2,))
    (250, 64, 250)
    """
    return max(1, min(most, PIXELS // math.prod(shape[1:])))


class Sampler:
    """Endless samples of a generator, of which sample k is a function of the weights, the seed, k and its class alone.

    They come in blocks of `size`, a function of their shape. The latents of a block are drawn from its own seed, on the
    CPU, so that they are the same on every device, and G always gets a whole block, since the last bits of a sample can
    depend on the size of its batch. classes: the classes that samples have in turn, (K,), or None.
    truncation: the threshold of truncated latents, or None. Raises ValueError for latents that have none.
    """

    def __init__(
        self,
        G: nn.Module,
        latent: Latent,
        shape: Sequence[int],
        device: torch.device,
        seed: int,
        classes: Tensor | None = None,
        truncation: float | None = None,
    ) -> None:
        check_truncation(truncation, latent)
        self.G, self.latent, self.device, self.seed = G, latent, device, seed
        self.size, self.classes, self.truncation = block_size(shape), classes, truncation

    def blocks(self, num: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The first `num` samples (n, *shape), float32 on the CPU, and their classes (n,) or None, block by block."""
        for start in range(0, num, self.size):
            y = self.labels(start, start + self.size)
            yield self._block(start // self.size, y)[: num - start], None if y is None else y[: num - start]

    def labels(self, start: int, stop: int) -> Tensor | None:
        """The classes (stop - start,) of the samples from number `start` on; None for a G without classes."""
        return None if self.classes is None else self.classes[torch.arange(start, stop) % len(self.classes)]

    def first_latents(self, seeds: Sequence[int]) -> Tensor:
        """The latents (len(seeds), dim) of the first sample of each seed."""
        found = []
        for seed in seeds:
            with seeded(self.device, seed, BLOCK, 0):
                found.append(self._latents()[0])
        return torch.stack(found).to(self.device)

    def _block(self, number: int, y: Tensor | None) -> Tensor:
        with evaluating(self.G), seeded(self.device, self.seed, BLOCK, number):
            z = self._latents().to(self.device)
            x: Tensor = self.G(z, None if y is None else y.to(self.device))
            return x.float().cpu()

    def _latents(self) -> Tensor:
        """The latents (size, dim) of a block, from the random state."""
        z = self.latent(self.size, "cpu")
        return z if self.truncation is None else self.latent.truncated(z, self.truncation)


def block_size(shape: Sequence[int]) -> int:
    """The number of samples in a block: fewer of large images, which bounds memory.

    >>> block_size((1, 28, 28)), block_size((3, 256, 256)), block_size((2,))
    (64, 4, 4096)
    """
    return VECTORS if len(shape) < 3 else chunk_size(shape, IMAGES)


def check_truncation(threshold: float | None, latent: Latent) -> None:
    """Raise ValueError for a threshold that is not positive, or that these latents do not have."""
    if threshold is None:
        return
    if not 0 < threshold < math.inf:
        raise ValueError(f"truncation={threshold:g}: must be greater than 0, as in truncation=0.7, or null for none.")
    latent.truncated(torch.zeros(1, latent.dim), threshold)


def check_memory(num: int, shape: Sequence[int]) -> None:
    """Raise ValueError if `num` samples of this shape are larger than the memory of the machine."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    needed, memory = 4 * num * math.prod(shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ValueError(
            f"num={num}: these samples take {needed / 1e9:,.0f} GB, but the machine has {memory / 1e9:,.0f} GB; "
            "draw fewer at a time, with different seeds."
        )


def d_logits(D: nn.Module, x: Tensor, device: torch.device, batch_size: int, y: Tensor | None = None) -> Tensor:
    """D's logits (n,) for x (n, *shape), and classes y (n,) if D is conditional: float32, on the CPU, in eval mode.

    A D that mixes samples gets batches of `batch_size`, the size it is trained with (`spread_batches`), since its
    logit for a sample depends on the others. Any other D gets all vectors at once, and images in chunks.
    """
    chunk = chunk_size(x.shape[1:]) if x.ndim > 2 else max(len(x), 1)
    batches: Sequence[Tensor | slice] = [slice(i, i + chunk) for i in range(0, len(x), chunk)]
    if mixes_samples(D):
        batches = spread_batches(len(x), batch_size)
    found = torch.empty(len(x))
    with evaluating(D):
        for batch in reversed(batches):  # the last one may be filled up with samples of the first
            found[batch] = D(x[batch].to(device), None if y is None else y[batch].to(device)).float().cpu()
    return found


def mixes_samples(net: nn.Module) -> bool:
    """Whether a layer declares that its output for a sample depends on the other samples, even in eval mode."""
    return any(isinstance(layer, MixesSamples) and layer.mixes_samples for layer in net.modules())


def spread_batches(num: int, size: int) -> list[Tensor]:
    """Batches of `size` of the indices 0 to num - 1, each spread over the whole range, so that they are alike.

    The last batch is filled up with indices of the first one. If num < size, there is one batch of `num`.

    >>> [batch.tolist() for batch in spread_batches(5, 2)]
    [[0, 3], [1, 4], [2, 0]]
    """
    count = -(-num // size)
    order = (torch.arange(num) % count).argsort(stable=True)
    size = min(size, num)
    return list(order[torch.arange(count * size) % num].split(size))


def labels_like(split: Split, num: int, seed: int) -> Tensor:
    """`num` labels (num,) with the frequencies of `split`: a function of the seed."""
    assert split.y is not None, "only conditional runs use labels"
    return split.y.cpu()[torch.randint(len(split), (num,), generator=generator(seed, "labels"))]
