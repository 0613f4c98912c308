"""features=classifier: the features of a small network that is trained to classify the data at hand."""

import logging
import math
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from ganrun.data.cache import cached, digest, digest_of, digest_of_state
from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.pixels import pixels
from ganrun.features.images import check_images
from ganrun.features.network import DIM, Network, Recipe, accuracy, in_parts, trained
from ganrun.protocols import Extracted, Features

log = logging.getLogger("ganrun")

FORMAT = 1  # of the cache; increment it when another network results from the same recipe and data
EASY, HARD = 4, 12  # epochs for small gray images, and for others
WIDTH = 32
STEPS = 1000  # the fewest of a training with the default number of epochs, for small data sets
SMALL, LARGE = 32, 40  # sides of easy images at most, and of images whose first convolution halves them, in pixels


class Classifier(Features):
    """The features of a convolutional network, trained once on the labeled training examples of the data set.

    It is kept in the cache folder, by the content of the data, so that all runs on the same data use the same network.
    Its accuracy on the validation examples is printed and recorded (on the training examples if there are none). Keys
    contain the name of the data set, as in fd_mnistcnn_10k. The numbers of two data sets cannot be compared.
    It sees what tells classes apart; faults that it needs not see, such as noise, may count little.
    `check` raises ValueError for data without labels, and data that are not images.
    """

    dim, has_logits, classifies = DIM, True, True

    def __init__(
        self,
        width: int | None = None,
        epochs: int | None = None,
        flip: bool | None = None,
        cache: str | None = None,
        data_name: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value in (("width", width), ("epochs", epochs)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        self.width, self.epochs, self.flip = width, epochs, flip
        self.cache, self.device = cache, torch.device(device)
        self.name = f"{data_name}cnn" if data_name else "cnn"
        self._net: Network | None = None
        self._facts: dict[str, Any] = {}

    def check(self, dataset: Dataset) -> None:
        check_images("classifier", dataset)
        if dataset.spec.num_classes < 2 or dataset.train.y is None:
            raise ValueError(
                "features=classifier: needs data with labels of at least two classes; use features=inception, "
                "or features=efficientnet_lite0."
            )
        if len(dataset.train) < 2:
            raise ValueError("features=classifier: needs at least two training examples.")

    def recipe(self, dataset: Dataset) -> Recipe:
        channels, *sides = dataset.spec.shape
        is_easy = channels == 1 and max(sides) <= SMALL
        stride = 2 if is_easy or max(sides) > LARGE else 1
        digits = all(name.isdigit() for name in dataset.spec.classes)
        recipe = Recipe(self.width or WIDTH, 0, stride, flip=not digits if self.flip is None else self.flip)
        steps = max(1, len(dataset.train) // recipe.batch_size)  # of an epoch
        default = max(EASY if is_easy else HARD, math.ceil(STEPS / steps))
        return replace(recipe, epochs=self.epochs or default)

    def prepare(self, dataset: Dataset) -> None:
        if self._net is not None:
            return
        recipe = self.recipe(dataset)
        facts = {"format": FORMAT, **asdict(recipe), "classes": dataset.spec.num_classes, "dim": DIM}
        key = digest_of(facts, digest(dataset.train, dataset.spec), digest(dataset.valid, dataset.spec))
        entry = cached(f"classifier-{key}", lambda: self._trained(dataset, recipe), self.cache)
        net = Network(_shape(dataset), dataset.spec.num_classes, recipe.width, recipe.stride)
        net.load_state_dict(entry["state"])
        self._net = net.to(self.device).eval().requires_grad_(False)
        of, num = ("valid", len(dataset.valid)) if len(dataset.valid) else ("train", len(dataset.train))
        self._facts = {
            "network": self.name, "accuracy": entry["accuracy"], "accuracy_split": of,
            "weights": digest_of_state(net.state_dict()), "size": [*net.size],
            "resizer": "bilinear" if net.size != dataset.spec.shape[1:] else "none", **asdict(recipe),
        }  # fmt: skip
        log.info("features   %s: accuracy %.2f%% on %s %s images", self.name, 100 * entry["accuracy"], f"{num:,}", of)

    def _trained(self, dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
        log.info("features   training %s, once for these data", self.name)
        shape = _shape(dataset), dataset.spec.num_classes
        net = trained(shape, _images(dataset.train, dataset.spec), recipe, self.device)
        held_out = dataset.valid if len(dataset.valid) and dataset.valid.y is not None else dataset.train
        state = {name: value.cpu() for name, value in net.state_dict().items()}
        return {"state": state, "accuracy": accuracy(net, _images(held_out, dataset.spec))}

    def __call__(self, images: Tensor) -> Extracted:
        assert self._net is not None, "prepare() comes first"
        return Extracted(*in_parts(self._net, images))

    def protocol(self) -> dict[str, Any]:
        return self._facts


def _shape(dataset: Dataset) -> tuple[int, int, int]:
    channels, height, width = dataset.spec.shape
    return channels, height, width


def _images(split: Split, spec: DataSpec) -> Split:
    return Split(pixels(split.x, spec), split.y)
