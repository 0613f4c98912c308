"""The small convolutional network of features=classifier, and its training."""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.data.dataset import Split
from ganrun.data.seeds import generator

log = logging.getLogger("ganrun")

LARGEST = 64  # sides of images in pixels, above which they are made smaller
SMALL = 7  # side of the last feature maps, at most
THREADS = 1  # while it is trained, since the last bits depend on their number, which differs between machines
DIM = 128  # number of features
LINES = 4  # of progress, about
PART = 500  # images mapped at a time
SHIFT = 1 / 14  # of the larger side, by which training images are shifted, at most


@dataclass(frozen=True)
class Recipe:
    """The network, and how it is trained.

    width: channels of the first convolution. stride: of the first convolution. flip: whether training images are
    mirrored at random.
    """

    width: int
    epochs: int
    stride: int
    flip: bool
    batch_size: int = 128
    lr: float = 6e-3
    weight_decay: float = 0.01


class Residual(nn.Module):
    """Halve the sides, then add a convolution of the result: (B, i, H, W) -> (B, o, ceil(H / 2), ceil(W / 2))."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.down, self.same = convolution(i, o, 2), convolution(o, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        added: Tensor = self.same(x)
        return x + added


def convolution(i: int, o: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class Network(nn.Module):
    """A convolution and residual blocks that halve the sides to at most SMALL, then DIM features and class logits.

    The features are normalized over the training images before their ReLU, so that they have about the same scale for
    every data set.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: int, stride: int = 1) -> None:
        super().__init__()
        channels, *sides = shape
        scale = min(1.0, LARGEST / max(sides))
        self.size = tuple(max(1, round(side * scale)) for side in sides)
        start = [math.ceil(side / stride) for side in self.size]
        depth = max(1, math.ceil(math.log2(max(start) / SMALL)))
        widths = [width * 2**i for i in range(depth + 1)]
        height, breadth = (min(4, math.ceil(side / 2**depth)) for side in start)
        self.body = nn.Sequential(
            convolution(channels, width, stride),
            *(Residual(i, o) for i, o in pairwise(widths)),
            nn.AdaptiveAvgPool2d((height, breadth)),
            nn.Flatten(),
            nn.Linear(widths[-1] * height * breadth, DIM, bias=False),
            nn.BatchNorm1d(DIM),
            nn.ReLU(),
        )
        self.output = nn.Linear(DIM, num_classes)
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) uint8 -> (B, DIM)"""
        x = images.float().div_(127.5).sub_(1)
        if tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        found: Tensor = self.body(x.contiguous(memory_format=torch.channels_last))
        return found

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, C, H, W) uint8 -> features (B, DIM), logits (B, K)"""
        features = self.features(images)
        return features, self.output(features)


@torch.no_grad()
def in_parts(net: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, DIM) and logits (N, K) of images (N, C, H, W) uint8, on the CPU. The network is in eval mode."""
    device = next(net.parameters()).device
    features, logits = zip(*(net(part.to(device)) for part in images.split(PART)), strict=True)
    return torch.cat([x.cpu() for x in features]), torch.cat([x.cpu() for x in logits])


def accuracy(net: Network, split: Split) -> float:
    """The share of the images whose class it finds."""
    assert split.y is not None, "checked before"
    return (in_parts(net, split.x)[1].argmax(1) == split.y.cpu()).double().mean().item()


def trained(net_shape: tuple[tuple[int, int, int], int], split: Split, recipe: Recipe, device: torch.device) -> Network:
    """A network for images of (shape, number of classes), trained on uint8 images with labels; in eval mode.

    A function of the data and the recipe, on one machine. AdamW with a one-cycle learning rate; images are shifted.
    torch's random state, number of threads, and mode of gradients are those from before when it returns.
    """
    steps, start = max(1, len(split) // recipe.batch_size), time.monotonic()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for epoch in range(recipe.epochs):
            yield from _batches(split, recipe, epoch, device)
            if (epoch + 1) % math.ceil(recipe.epochs / LINES) == 0:
                log.info("           epoch %d of %d, %.0f s", epoch + 1, recipe.epochs, time.monotonic() - start)

    return trained_on(batches(), steps * recipe.epochs, net_shape, recipe, device)


def trained_on(
    batches: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    net_shape: tuple[tuple[int, int, int], int],
    recipe: Recipe,
    device: torch.device,
    seed: int = 0,
) -> Network:
    """As `trained`, on `steps` batches of images x (B, C, H, W) uint8 and labels y (B,) on the device.

    recipe: its epochs and batch size are not used. seed: of the initial weights.
    """
    with _apart(device, seed):
        net = Network(*net_shape, recipe.width, recipe.stride).to(device)
        optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps)
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(x)[1], y).backward()
            optimizer.step()
            schedule.step()
        return net.eval().requires_grad_(False)


def _batches(split: Split, recipe: Recipe, epoch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The shuffled, shifted batches of an epoch: x (B, C, H, W) uint8 and y (B,). A last partial one is left out."""
    assert split.y is not None, "checked before"
    random = generator(0, "classifier", epoch)
    size, most = min(recipe.batch_size, len(split)), round(SHIFT * max(split.x.shape[2:]))
    order = torch.randperm(len(split), generator=random)
    for index in order[: len(split) // size * size].split(size):
        x, y = split.x[index.to(split.x.device)], split.y[index.to(split.y.device)]
        rows, columns = torch.randint(-most, most + 1, (2,), generator=random).tolist()
        x = shifted(x.to(device), rows, columns)
        if recipe.flip and torch.rand((), generator=random) < 0.5:
            x = x.flip(3)
        yield x, y.to(device)


def shifted(x: Tensor, rows: int, columns: int) -> Tensor:
    """Shift images by whole pixels; the border is repeated."""
    height, width = x.shape[2:]
    down = (torch.arange(height, device=x.device) + rows).clamp(0, height - 1)
    right = (torch.arange(width, device=x.device) + columns).clamp(0, width - 1)
    return x[:, :, down][..., right]


@contextmanager
def _apart(device: torch.device, seed: int = 0) -> Iterator[None]:
    """With gradients, a fixed random state, and THREADS threads; all as before afterwards."""
    threads = torch.get_num_threads()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(seed)
            torch.set_num_threads(THREADS)
            yield
    finally:
        torch.set_num_threads(threads)
