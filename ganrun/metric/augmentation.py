"""Whether the samples of a conditional run help a classifier as more training data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.pixels import pixels
from ganrun.data.seeds import generator
from ganrun.features.classifier import Classifier
from ganrun.features.network import in_parts, shifted, trained_on
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Metric, MetricKey

RESAMPLES = 2000  # of the bootstrap
LEVEL = 0.95  # of its intervals


@dataclass(frozen=True)
class Training:
    """How a small classifier is trained: the network of features=classifier, with AdamW, on batches of a given size."""

    updates: int
    width: int
    batch_size: int
    device: torch.device

    def right(self, parts: Sequence[Split], tested: Split, dataset: Dataset, seed: int) -> np.ndarray:
        """Which of the images (num,) are classified correctly, 0 or 1, after training on an equal mix of the parts."""
        channels, height, width = dataset.spec.shape
        recipe = Classifier(self.width).recipe(dataset)
        batches = mixed_batches(parts, self.updates, self.batch_size, recipe.flip, seed, self.device)
        shape = (channels, height, width), dataset.spec.num_classes
        net = trained_on(batches, self.updates, shape, recipe, self.device, seed)
        assert tested.y is not None, "checked before"
        found: np.ndarray = (in_parts(net, tested.x)[1].argmax(1) == tested.y).numpy().astype(np.float64)
        return found

    def facts(self) -> dict[str, int]:
        """What of it is recorded beside results."""
        return {"updates": self.updates, "width": self.width, "batch_size": self.batch_size}


class AugmentationGain(Metric):
    """The accuracy of a classifier on n real labelled examples of each class, with and without `num` samples of G.

    For each n, means over `seeds` choices of the real examples and of the classifier's initial weights:
    - accuracy_real_valid_100: trained on n real examples of each class (all of a class if it has fewer);
    - accuracy_augmented_valid_100_10k: trained on the same and on `num` samples, with the same number of updates: half
      of each batch is real, the other half samples with the classes that were requested of them;
    - augmentation_gain_valid_100_10k: the difference; _low, _high: a 95 % bootstrap interval over seeds and examples.
    The classifier is the small network of features=classifier, with `width` channels, trained by AdamW on `updates`
    batches. Batches are shifted, and mirrored unless the classes are numbers, at random in both cases. Accuracy is that
    on at most `num_test` examples of the split.
    The samples know all labels that the GAN was trained with. So n labels are really all there are only if the run has
    no more (data.num); result.json states their number under `protocols`.
    `check` raises ValueError for data that are not images with labels, and for fewer examples than n in every class.
    """

    labels: Literal["unused", "optional", "required"] = "required"
    caveat = (
        "augmentation_gain: the GAN was trained with the labels of all training examples of the run, the classifier "
        "with n per class: where n is less, the samples hold more labels than it has."
    )

    def __init__(
        self,
        num: int = 10000,
        num_labelled: Sequence[int] = (10, 100, 1000),
        seeds: int = 3,
        updates: int = 300,
        width: int = 16,
        batch_size: int = 128,
        split: Literal["valid", "test"] = "valid",
        num_test: int = 5000,
        device: torch.device | str = "cpu",
    ) -> None:
        numbers = {"num": num, "seeds": seeds, "updates": updates, "width": width, "num_test": num_test}
        for name, value in (numbers | {"num_labelled": min(num_labelled, default=0)}).items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if batch_size < 4 or batch_size % 2:
            raise ValueError(f"batch_size={batch_size}: must be an even number of at least 4.")
        self.num, self.num_labelled, self.seeds = num, tuple(num_labelled), seeds
        self.training = Training(updates, width, batch_size, torch.device(device))
        self.split, self.num_test = split, num_test
        self._protocol: dict[str, dict[str, Any]] = {}

    def check(self, dataset: Dataset) -> None:
        check_labelled_images("augmentation_gain", dataset, self.split)
        assert dataset.train.y is not None, "checked"
        most, n = int(dataset.train.y.bincount().max()), max(self.num_labelled)
        if n > most:
            raise ValueError(
                f"metric.augmentation_gain.num_labelled=[{n}]: the largest class has {most} training examples."
            )

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        test, found = self.split == "test", dict[str, MetricKey]()
        for n in self.num_labelled:
            real, augmented, gain = self._names(n)
            found[gain] = MetricKey("higher", from_test=test)
            found |= {key: MetricKey(from_test=test, about=gain) for key in (f"{gain}_low", f"{gain}_high")}
            found |= {key: MetricKey(from_test=test, about=gain) for key in (real, augmented)}
        return found

    def _names(self, n: int) -> tuple[str, str, str]:
        end = f"{self.split}_{count(n)}"
        return f"accuracy_real_{end}", f"accuracy_augmented_{end}_{count(self.num)}", (
            f"augmentation_gain_{end}_{count(self.num)}"
        )  # fmt: skip

    def __call__(
        self, samples: Tensor, dataset: Dataset, D: DFunction | None = None, y: Tensor | None = None
    ) -> dict[str, float]:
        """samples (n, C, H, W), of the requested classes y (n,); the first `num` count."""
        assert y is not None, "declared by `labels`"
        made = Split(dataset.spec.encode(samples[: self.num]), y[: self.num].cpu())
        tested = as_images(dataset.splits()[self.split][: self.num_test], dataset.spec)
        found: dict[str, float] = {}
        for n in self.num_labelled:
            right = np.stack([self._right(dataset, made, tested, n, seed) for seed in range(self.seeds)])
            real, augmented, gain = self._names(n)
            low, high = bootstrap_interval(right[:, 1] - right[:, 0])
            found |= {real: right[:, 0].mean(), augmented: right[:, 1].mean()}
            found |= {gain: (right[:, 1] - right[:, 0]).mean(), f"{gain}_low": low, f"{gain}_high": high}
        self._describe(dataset, len(made), len(tested))
        return {key: float(value) for key, value in found.items()}

    def _right(self, dataset: Dataset, made: Split, tested: Split, n: int, seed: int) -> np.ndarray:
        """Which examples are classified correctly, without and with the samples, (2, num_test) of 0 and 1."""
        real = as_images(labelled(dataset.train, n, seed), dataset.spec)
        return np.stack([self.training.right(parts, tested, dataset, seed) for parts in ([real], [real, made])])

    def _describe(self, dataset: Dataset, num_samples: int, num_test: int) -> None:
        facts = {
            "num_samples": num_samples, "num_test": num_test, "seeds": self.seeds, **self.training.facts(),
            "labels_of_the_gan": len(dataset.train),
        }  # fmt: skip
        self._protocol = {f"{self.split}_{count(num_samples)}": facts}

    def protocol(self) -> dict[str, dict[str, Any]]:
        return self._protocol


def check_labelled_images(name: str, dataset: Dataset, split: Literal["valid", "test"]) -> None:
    """Raise ValueError if metric=NAME does not have images with labels to train a classifier and to test it on."""
    spec, tested = dataset.spec, dataset.splits()[split]
    if not spec.is_image or spec.num_classes < 2 or dataset.train.y is None or tested.y is None or not len(tested):
        raise ValueError(f"metric={name}: needs images with labels of two or more classes, and {split} ones.")


def labelled(split: Split, n: int, seed: int) -> Split:
    """A random choice of n examples of each class, or of all that it has."""
    assert split.y is not None, "checked before"
    order = torch.randperm(len(split), generator=generator(seed, "labelled"))
    y = split.y.cpu()[order]
    chosen = torch.cat([order[y == k][:n] for k in y.unique()])
    return split[chosen.to(split.x.device)]


def mixed_batches(
    parts: Sequence[Split], num: int, size: int, flip: bool, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """`num` batches of `size` images, as many of each part, drawn with replacement.

    Each batch is shifted by some pixels and, if `flip` is set, every other one mirrored, at random.
    """
    random = generator(seed, "augmentation")
    most = round(max(parts[0].x.shape[2:]) / 14)
    for _ in range(num):
        chosen = [part[torch.randint(len(part), (size // len(parts),), generator=random)] for part in parts]
        x, y = torch.cat([part.x for part in chosen]), torch.cat([part.y for part in chosen if part.y is not None])
        rows, columns = torch.randint(-most, most + 1, (2,), generator=random).tolist()
        x = shifted(x, rows, columns)
        if flip and torch.rand((), generator=random) < 0.5:
            x = x.flip(3)
        yield x.to(device), y.to(device)


def bootstrap_interval(difference: np.ndarray) -> tuple[float, float]:
    """The interval of the mean of paired differences (seeds, examples), with both resampled. Level LEVEL."""
    random = np.random.default_rng(0)
    num_seeds, num = difference.shape
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        weights = np.bincount(random.integers(num, size=num), minlength=num)
        means[i] = (difference[random.integers(num_seeds, size=num_seeds)] @ weights).mean() / num
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def as_images(split: Split, spec: DataSpec) -> Split:
    """The examples as uint8 images, on the CPU."""
    return Split(pixels(split.x.cpu(), spec), None if split.y is None else split.y.cpu())
