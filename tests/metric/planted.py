"""Networks for tests of metrics: one with known features, which counts its calls, and an untrained GAN."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganrun.arch import mlp
from ganrun.data.dataset import Dataset, DataSpec, Split, image_spec
from ganrun.data.seeds import generator
from ganrun.data.table import table_of
from ganrun.latent import Normal
from ganrun.protocols import Extracted, Features, Networks


class Planted(Features):
    """Random projections of images to `dim` numbers. Its logits are those of the label that the first pixel holds."""

    name, has_logits, classifies = "planted", True, True

    def __init__(self, dim: int = 4, num_classes: int = 10, cache: str | None = None) -> None:
        self.dim, self.num_classes, self.cache = dim, num_classes, cache
        self.mapped: list[int] = []  # how many images each call had

    def prepare(self, dataset: Dataset) -> None:
        self.num_classes = dataset.spec.num_classes or self.num_classes

    def __call__(self, images: Tensor) -> Extracted:
        assert images.dtype == torch.uint8
        self.mapped.append(len(images))
        x = images.flatten(1).float() / 255
        weights = torch.randn(x.shape[1], self.dim, generator=generator(0, "planted"))
        labels = images[:, 0, 0, 0].long() % self.num_classes
        return Extracted(x @ weights, 20 * torch.eye(self.num_classes)[labels])

    def protocol(self) -> dict[str, Any]:
        return {"network": "planted", "dim": self.dim}


def stacked(num: int = 400) -> Dataset:
    """Images 3x12x12 of three "digits": the first pixel of each channel is the digit, the others are noise."""
    random = generator(0, "stacked")
    digits = torch.randint(10, (num, 3), generator=random)
    x = torch.randint(256, (num, 3, 12, 12), generator=random, dtype=torch.uint8)
    x[:, :, 0, 0] = digits.to(torch.uint8)
    y = digits @ torch.tensor([100, 10, 1])
    parts = [Split(x[some], y[some]) for some in (slice(0, num // 2), slice(num // 2, num), slice(0, 0))]
    return Dataset(image_spec(parts[0].x, [f"{k:03d}" for k in range(1000)]), *parts)


def networks_for(spec: DataSpec, D: nn.Module | None = None) -> Networks:
    """Untrained networks of an unconditional run, or D itself."""

    def new_d(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return mlp.Discriminator(spec, hidden=(16,)).eval()

    return Networks(mlp.Generator(spec, 3, hidden=(8,)).eval(), D or new_d(0), Normal(3), False, new_d)


def mixed(n: int = 2000, label: str | None = None, seed: int = 0) -> Dataset:
    """Correlated numbers a and b, categories c that shift a, e that follows c, and 10% missing values of b."""
    rng = np.random.default_rng(seed)
    c = rng.choice(["x", "y", "z"], n, p=[0.5, 0.3, 0.2])
    a = rng.normal(size=n) + 2 * (c == "z")
    b = np.where(rng.random(n) < 0.1, np.nan, a + 0.5 * rng.normal(size=n))
    e = np.where(rng.random(n) < 0.8, np.where(c == "x", "p", "q"), "p")
    rows = {"a": a, "b": b, "c": c.astype(object), "e": e.astype(object)}
    settings: dict[str, Any] = {"categories": (), "numbers": "standard", "missing": "indicator", "max_categories": 9,
                                "valid": 0.25, "test": 0.25, "split_seed": 0, "where": "t"}  # fmt: skip
    return table_of(rows, label, **settings)
