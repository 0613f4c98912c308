"""The modes of stacked MNIST that samples cover."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec, Split, image_spec
from ganrun.data.pixels import pixels
from ganrun.data.published import mnist
from ganrun.metric.classes import predicted
from ganrun.metric.keys import count
from ganrun.metric.modes import kullback_leibler
from ganrun.protocols import DFunction, Features, Metric, MetricKey

CHANNELS, DIGITS = 3, 10
MODES = DIGITS**CHANNELS
UNIFORM = torch.full((MODES,), 1 / MODES, dtype=torch.float64)
MOST = 60000  # digits on which the classifier is trained
NAMES = tuple(f"{k:03d}" for k in range(MODES))  # of the classes of data=stacked_mnist


class StackedModes(Metric):
    """How many of the 1,000 modes of stacked MNIST `num` samples cover, and how evenly.

    A sample's mode is the three digits that a classifier of MNIST sees in its channels (Metz et al. 2017,
    arXiv:1611.02163; the protocol with 26,000 samples is that of Srivastava et al. 2017, VEEGAN, and Lin et al. 2018,
    PacGAN, arXiv:1712.04086):
    - stacked_modes_26k: the number of modes with at least one sample;
    - stacked_kl_26k: KL(p || uniform) = sum_k p_k log(1000 p_k) in nats, with p_k the share of samples of mode k;
    - _real and _floor: the same for real images, of the validation split, or of the training split if that has more.
    The classifier is features=classifier, trained on digits: those of the data if their classes are named "000" to
    "999", as in data=stacked_mnist, else those of MNIST in the folder `mnist`. A classifier other than the published
    ones may count a few modes differently. `check` raises ValueError for data without three channels.
    """

    def __init__(self, classifier: Features, num: int = 26000, mnist: str | None = None) -> None:
        if num < 1:
            raise ValueError(f"num={num}: must be at least 1.")
        self.classifier, self.num, self.mnist = copy.copy(classifier), num, mnist  # its own network, for digits
        self.classifier.name = "digits"
        self._digits: tuple[Dataset, Dataset] | None = None
        self._reference: tuple[Dataset, Tensor] | None = None
        self._protocol: dict[str, dict[str, Any]] = {}

    def check(self, dataset: Dataset) -> None:
        if not dataset.spec.is_image or dataset.spec.shape[0] != CHANNELS:
            raise ValueError("metric=stacked_modes: needs images of three digits in three channels; use metric=none.")
        if dataset.spec.classes != NAMES and self.mnist is None:
            raise ValueError(
                "metric=stacked_modes: cannot learn digits from these data, whose classes are not 000 to 999; name a "
                "folder with MNIST, as in metric.stacked_modes.mnist=data, or use metric=none."
            )
        self.classifier.check(self._digits_for(dataset))

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        modes, kl = self._names(self.num)
        return {
            modes: MetricKey("higher", unit="modes"),
            f"{modes}_real": MetricKey(unit="modes", about=modes),
            kl: MetricKey("lower", unit="nats"),
            f"{kl}_floor": MetricKey(unit="nats", about=kl),
        }

    def _names(self, num: int) -> tuple[str, str]:
        return f"stacked_modes_{count(num)}", f"stacked_kl_{count(num)}"

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        """samples (n, 3, H, W), in the data's value range; the first `num` count."""
        self.classifier.prepare(self._digits_for(dataset))
        x = samples[: self.num]
        modes, kl = self._names(len(x))
        is_enough = len(dataset.valid) >= min(len(x), len(dataset.train))
        real = (dataset.valid if is_enough else dataset.train)[: len(x)]
        if self._reference is None or self._reference[0] is not dataset:
            self._reference = dataset, self._shares(pixels(real.x.cpu(), dataset.spec))
        shares, reference = self._shares(dataset.spec.encode(x)), self._reference[1]
        facts = {"num": len(x), "num_real": len(real), "features": self.classifier.protocol()}
        self._protocol = {count(len(x)): facts}
        return {
            modes: float((shares > 0).sum()),
            f"{modes}_real": float((reference > 0).sum()),
            kl: kullback_leibler(shares, UNIFORM),
            f"{kl}_floor": kullback_leibler(reference, UNIFORM),
        }

    def _digits_for(self, dataset: Dataset) -> Dataset:
        """The digits that the classifier learns, loaded once."""
        if self._digits is None or self._digits[0].spec.classes != dataset.spec.classes:
            found = digits_of(dataset) if dataset.spec.classes == NAMES else mnist(str(self.mnist), download=False)
            self._digits = dataset, found
        return self._digits[1]

    def _shares(self, images: Tensor) -> Tensor:
        """The share of the images of each mode, (1000,)."""
        digits = predicted(self.classifier, images.flatten(0, 1)[:, None]).unflatten(0, (-1, CHANNELS))  # (n, 3)
        modes: Tensor = digits @ torch.tensor([DIGITS**2, DIGITS, 1])
        return modes.bincount(minlength=MODES).double() / len(images)

    def protocol(self) -> dict[str, dict[str, Any]]:
        return self._protocol


def digits_of(dataset: Dataset) -> Dataset:
    """The digits in the first channel of stacked ones, (1, H, W), with their classes."""
    train, valid, test = (_first_channel(split[:MOST]) for split in dataset.splits().values())
    return Dataset(image_spec(train.x, "0123456789"), train, valid, test)


def _first_channel(split: Split) -> Split:
    return Split(split.x[:, :1].cpu().contiguous(), None if split.y is None else split.y.cpu() // DIGITS**2)
