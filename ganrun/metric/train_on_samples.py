"""What a classifier learns from the samples of a conditional run alone."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.seeds import generator
from ganrun.metric.augmentation import Training, as_images, check_labelled_images
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Metric, MetricKey


class TrainOnSamples(Metric):
    """The accuracy on real images of a classifier that is trained on samples. Ravuri & Vinyals 2019, arXiv:1905.10887.

    - train_on_samples_valid_10k, the paper's classification accuracy score: a classifier is trained on `num` samples
      with the classes that were requested of them, and tested on at most `num_test` real images of the split;
    - _real: the same after training on as many real training images (on all, if there are fewer); _std: the standard
      deviation of the score over `seeds` initial weights and orders of batches, of which both are means.
    Samples of the wrong class, missing kinds of images, and unreal ones all lower the score. The classifier is the
    small network of features=classifier, as in metric=augmentation_gain; the paper's is a ResNet-50, on as many samples
    as there are training images. `check` raises ValueError for data that are not images with labels.
    """

    labels: Literal["unused", "optional", "required"] = "required"

    def __init__(
        self,
        num: int = 10000,
        seeds: int = 3,
        updates: int = 600,
        width: int = 16,
        batch_size: int = 128,
        split: Literal["valid", "test"] = "valid",
        num_test: int = 5000,
        device: torch.device | str = "cpu",
    ) -> None:
        least = {"num": (num, 2), "seeds": (seeds, 1), "updates": (updates, 1), "width": (width, 1)}
        least |= {"batch_size": (batch_size, 2), "num_test": (num_test, 1)}
        for name, (value, fewest) in least.items():
            if value < fewest:
                raise ValueError(f"{name}={value}: must be at least {fewest}.")
        self.num, self.seeds, self.split, self.num_test = num, seeds, split, num_test
        self.training = Training(updates, width, batch_size, torch.device(device))
        self._protocol: dict[str, dict[str, Any]] = {}
        self._real: tuple[Dataset, int, float] | None = None

    def check(self, dataset: Dataset) -> None:
        check_labelled_images("train_on_samples", dataset, self.split)

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        name, test = self._name(self.num), self.split == "test"
        beside = {f"{name}_{end}": MetricKey(from_test=test, about=name) for end in ("std", "real")}
        return {name: MetricKey("higher", from_test=test), **beside}

    def _name(self, num: int) -> str:
        return f"train_on_samples_{self.split}_{count(num)}"

    def __call__(
        self, samples: Tensor, dataset: Dataset, D: DFunction | None = None, y: Tensor | None = None
    ) -> dict[str, float]:
        """samples (n, C, H, W), of the requested classes y (n,); the first `num` count."""
        assert y is not None, "declared by `labels`"
        made = Split(dataset.spec.encode(samples[: self.num]), y[: self.num].cpu())
        tested = as_images(dataset.splits()[self.split][: self.num_test], dataset.spec)
        scores = self._scores(made, tested, dataset)
        num_real = min(len(made), len(dataset.train))
        if self._real is None or self._real[0] is not dataset or self._real[1] != num_real:
            chosen = torch.randperm(len(dataset.train), generator=generator(0, "train on samples"))[:num_real]
            real = as_images(dataset.train[chosen.to(dataset.train.x.device)], dataset.spec)
            self._real = dataset, num_real, float(np.mean(self._scores(real, tested, dataset)))
        facts = {"num": len(made), "num_real": num_real, "num_test": len(tested), "seeds": self.seeds}
        self._protocol = {f"{self.split}_{count(len(made))}": facts | self.training.facts()}
        name = self._name(len(made))
        return {name: float(np.mean(scores)), f"{name}_std": float(np.std(scores)), f"{name}_real": self._real[2]}

    def _scores(self, part: Split, tested: Split, dataset: Dataset) -> list[float]:
        """The accuracies of classifiers that are trained on `part`, for each seed."""
        return [float(self.training.right([part], tested, dataset, seed).mean()) for seed in range(self.seeds)]

    def protocol(self) -> dict[str, dict[str, Any]]:
        return self._protocol
