"""Metrics that classify samples: balance of the classes, agreement with the requested labels, and intra-class FID."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.pixels import pixels
from ganrun.metric.keys import count
from ganrun.metric.modes import kullback_leibler
from ganrun.metric.scores import frechet_distance
from ganrun.protocols import DFunction, Features, Metric, MetricKey

ABSENT = 1e-9  # training images of a class without any, so that a divergence stays finite


class ClassBalance(Metric):
    """How evenly `num` samples fall into the classes, as a classifier of the data sees them.

    - class_kl_mnistcnn_10k: KL(p || q) = sum_k p_k log(p_k / q_k) in nats, with p_k the share of samples that are
      predicted to be of class k, and q_k that of training images of class k; and _floor, for as many real images, of
      the validation split if it has any, else of the training split;
    - classes_covered_mnistcnn_10k: the number of classes with at least one sample.
    result.json has the shares of all classes under `protocols`. The classifier is features=classifier.
    `check` raises ValueError for data without labels.
    """

    def __init__(self, classifier: Features, num: int = 10000) -> None:
        _at_least_one(num=num)
        self.classifier, self.num = classifier, num
        self._protocol: dict[str, dict[str, Any]] = {}

    def check(self, dataset: Dataset) -> None:
        _check("class_balance", self.classifier, dataset)

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        kl, covered = self._names(self.num)
        return {
            kl: MetricKey("lower", unit="nats"),
            f"{kl}_floor": MetricKey(unit="nats", about=kl),
            covered: MetricKey("higher", unit="classes"),
        }

    def _names(self, num: int) -> tuple[str, str]:
        end = f"{self.classifier.name}_{count(num)}"
        return f"class_kl_{end}", f"classes_covered_{end}"

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        """samples (n, C, H, W), in the data's value range; the first `num` count."""
        self.classifier.prepare(dataset)
        x = samples[: self.num]
        true, (kl, covered) = class_shares(dataset), self._names(len(x))
        shares = self._shares(dataset.spec.encode(x), dataset)
        real = _held_out(dataset)[: len(x)]
        floor = self._shares(pixels(real.x, dataset.spec), dataset)
        by_name = dict(zip(dataset.spec.classes, shares.tolist(), strict=True))
        facts = {"num": len(x), "num_real": len(real), "features": self.classifier.protocol(), "shares": by_name}
        self._protocol = {f"{self.classifier.name}_{count(len(x))}": facts}
        return {
            kl: kullback_leibler(shares, true),
            f"{kl}_floor": kullback_leibler(floor, true),
            covered: float((shares > 0).sum()),
        }

    def _shares(self, images: Tensor, dataset: Dataset) -> Tensor:
        """The share of the images predicted to be of each class (K,)."""
        return predicted(self.classifier, images).bincount(minlength=dataset.spec.num_classes).double() / len(images)

    def protocol(self) -> dict[str, dict[str, Any]]:
        return self._protocol


class LabelAccuracy(Metric):
    """Whether the samples of a conditional run are of the classes that were asked for.

    - label_accuracy_mnistcnn_10k: the share of samples that a classifier of the data predicts to be of the requested
      class;
    - label_accuracy_mnistcnn_10k_real: the same for validation images, the classifier's accuracy.
    The classifier is features=classifier. `check` raises ValueError for data without labels.
    """

    labels: Literal["unused", "optional", "required"] = "required"

    def __init__(self, classifier: Features, num: int = 10000) -> None:
        _at_least_one(num=num)
        self.classifier, self.num = classifier, num

    def check(self, dataset: Dataset) -> None:
        _check("label_accuracy", self.classifier, dataset)

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        name = self._name(self.num)
        return {name: MetricKey("higher"), f"{name}_real": MetricKey(about=name)}

    def _name(self, num: int) -> str:
        return f"label_accuracy_{self.classifier.name}_{count(num)}"

    def __call__(
        self, samples: Tensor, dataset: Dataset, D: DFunction | None = None, y: Tensor | None = None
    ) -> dict[str, float]:
        """samples (n, C, H, W), of the requested classes y (n,); the first `num` count."""
        assert y is not None, "declared by `labels`"
        self.classifier.prepare(dataset)
        x, real = samples[: self.num], _held_out(dataset)[: self.num]
        assert real.y is not None, "checked before"
        name = self._name(len(x))
        return {
            name: _agreement(predicted(self.classifier, dataset.spec.encode(x)), y[: len(x)]),
            f"{name}_real": _agreement(predicted(self.classifier, pixels(real.x, dataset.spec)), real.y),
        }


class IntraFid(Metric):
    """The Frechet distance within each class of a conditional run, on average (Miyato and Koyama 2018, section 4).

    - intra_fd_mnistcnn_10k (intra_fid_inception_50k): the mean over classes of the distance between samples that were
      requested of a class and real images of it, in the features that `features=` chooses;
    - _worst: that of the worst class; _floor: the mean for as many training images (with split=train, validation
      images) in place of the samples.
    Classes with no more samples or real images than features are left out; result.json lists them under `protocols`.
    `check` raises ValueError for data without labels, and if the real images of every class are too few.
    """

    labels: Literal["unused", "optional", "required"] = "required"

    def __init__(
        self, features: Features, num: int = 10000, split: Literal["valid", "train", "test"] = "valid"
    ) -> None:
        _at_least_one(num=num)
        self.features, self.num, self.split = features, num, split
        self._protocol: dict[str, dict[str, Any]] = {}

    def check(self, dataset: Dataset) -> None:
        _check("intra_fid", self.features, dataset)
        real, dim = dataset.splits()[self.split], self.features.dim
        most = int(real.y.bincount().max()) if real.y is not None and len(real) else 0
        if most <= dim or self.num * class_shares(dataset).max() <= dim:
            raise ValueError(
                f"metric=intra_fid: needs more than {dim} samples and {self.split} images of a class, since there are "
                f"{dim} features, and the largest class has {most} images; use metric.intra_fid.split=train, or "
                "metric=none."
            )

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        name, test = self._name(self.num), self.split == "test"
        beside = {f"{name}_{end}": MetricKey(from_test=test, about=name) for end in ("worst", "floor")}
        return {name: MetricKey("lower", from_test=test), **beside}

    def _name(self, num: int) -> str:
        return f"intra_{self.features.frechet}_{self.features.name}_{count(num)}"

    def __call__(
        self, samples: Tensor, dataset: Dataset, D: DFunction | None = None, y: Tensor | None = None
    ) -> dict[str, float]:
        """samples (n, C, H, W), of the requested classes y (n,); the first `num` count."""
        assert y is not None, "declared by `labels`"
        self.features.prepare(dataset)
        x, name = samples[: self.num], self._name(min(len(samples), self.num))
        real = self._classes(dataset, dataset.splits()[self.split])
        fake = _by_class(self.features(dataset.spec.encode(x)).features, y[: len(x)], dataset)
        other = dataset.splits()["valid" if self.split == "train" else "train"]
        reference = self._classes(dataset, other[: len(x)])
        found = self._distances(fake, real)
        floor = self._distances(reference, real)
        facts = {
            "split": self.split, "num": len(x), "features": self.features.protocol(),
            "classes": {dataset.spec.classes[k]: value for k, value in found.items()},
            "left_out": [name for k, name in enumerate(dataset.spec.classes) if k not in found],
        }  # fmt: skip
        self._protocol = {f"{self.features.name}_{count(len(x))}": facts}
        return {
            name: _mean(found),
            f"{name}_worst": max(found.values(), default=float("nan")),
            f"{name}_floor": _mean(floor),
        }

    def _classes(self, dataset: Dataset, split: Split) -> dict[int, Tensor]:
        if split.y is None or not len(split):
            return {}
        return _by_class(self.features(pixels(split.x, dataset.spec)).features, split.y, dataset)

    def _distances(self, fake: Mapping[int, Tensor], real: Mapping[int, Tensor]) -> dict[int, float]:
        """The distance of each class that has enough images on both sides."""
        dim = self.features.dim
        enough = [k for k in fake if k in real and min(len(fake[k]), len(real[k])) > dim]
        return {k: frechet_distance(fake[k], real[k]) for k in enough}

    def protocol(self) -> dict[str, dict[str, Any]]:
        return self._protocol


def predicted(classifier: Features, images: Tensor) -> Tensor:
    """The most likely classes (n,) of images (n, C, H, W) uint8."""
    logits = classifier(images).logits
    assert logits is not None, "it is a classifier"
    return logits.argmax(1)


def class_shares(dataset: Dataset) -> Tensor:
    """The share of each class in the training split (K,)."""
    assert dataset.train.y is not None, "checked before"
    counts = dataset.train.y.cpu().bincount(minlength=dataset.spec.num_classes).double()
    return counts.clamp(min=ABSENT) / len(dataset.train)


def _held_out(dataset: Dataset) -> Split:
    return dataset.valid if len(dataset.valid) and dataset.valid.y is not None else dataset.train


def _agreement(found: Tensor, y: Tensor) -> float:
    return (found == y.cpu()).double().mean().item()


def _by_class(features: Tensor, y: Tensor, dataset: Dataset) -> dict[int, Tensor]:
    return {k: features[y.cpu() == k] for k in range(dataset.spec.num_classes)}


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values) if values else float("nan")


def _check(name: str, network: Features, dataset: Dataset) -> None:
    if not dataset.spec.is_image or dataset.spec.num_classes < 2 or dataset.train.y is None:
        raise ValueError(f"metric={name}: needs images with labels of at least two classes; use metric=none.")
    network.check(dataset)


def _at_least_one(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1.")
