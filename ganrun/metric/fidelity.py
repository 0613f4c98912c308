"""How close the features of samples are to those of real images, by the formulas of torch-fidelity."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.cache import cached, digest, digest_of
from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.pixels import pixels
from ganrun.metric import scores as formulas
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Extracted, Features, Metric, MetricKey

Score = Literal["fd", "kid"]


class Fidelity(Metric):
    """Distances between the features of `num` samples and of real images: the Frechet distance and KID.

    The features are those of a network (`features=`), whose name is in the keys, as the number of samples is:
    - fd_mnistcnn_10k: the Frechet distance |m - m'|^2 + tr(C + C' - 2 (C C')^1/2) of means and covariances, called
      FID, fid_inception_50k, for the Inception network (Heusel et al. 2017, arXiv:1706.08500). Its bias depends on both
      numbers of images, so values for different numbers cannot be compared;
    - kid_mnistcnn_10k: the squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, unbiased, so that it may
      be negative, the mean over random subsets, and _std, their standard deviation (Binkowski et al. 2018,
      arXiv:1801.01401).
    The real images are the first `num_real` (null: all) of a split: valid, train or test. With split=test, no key can
    choose a checkpoint. Beside each score stands its floor, as fd_mnistcnn_10k_floor: that of real images in
    place of the samples, training images with split=valid or test, validation images with split=train. They are as
    many, drawn with a fixed seed, or all if there are fewer (`_floor_num`). Features of real images are cached.
    `check` raises ValueError for data that are not images, too few of them, and a missing library.
    """

    def __init__(
        self,
        features: Features,
        num: int = 10000,
        split: Literal["valid", "train", "test"] = "valid",
        num_real: int | None = None,
        scores: Sequence[Score] = ("fd", "kid"),
        kid_subsets: int = 100,
        kid_size: int = 1000,
        floor: bool = True,
    ) -> None:
        for name, value in (("num", num), ("num_real", num_real), ("kid_subsets", kid_subsets), ("kid_size", kid_size)):
            if value is not None and value < 2 - (name == "kid_subsets"):
                raise ValueError(f"{name}={value}: must be at least {2 - (name == 'kid_subsets')}.")
        if not scores or len({*scores}) < len(scores):
            raise ValueError(f"scores=[{','.join(scores)}]: must name one score or several, each once.")
        self.features, self.num, self.split, self.num_real = features, num, split, num_real
        self.scores, self.floor = tuple(scores), floor
        self.kid = formulas.Kid(kid_subsets, kid_size)
        self._real: tuple[Dataset, Extracted] | None = None
        self._floor: tuple[Dataset, dict[str, float]] | None = None
        self._protocol: dict[str, Any] = {}

    def check(self, dataset: Dataset) -> None:
        if not dataset.spec.is_image:
            raise ValueError("metric=fidelity: compares images, and these data are vectors; use metric=none.")
        if find_spec("torch_fidelity") is None:
            raise ValueError(
                "metric=fidelity: needs torch_fidelity, which is not installed; `pip install torch-fidelity`."
            )
        self.features.check(dataset)
        real, fewest = self._num_of(dataset.splits()[self.split], self.num_real), self.fewest
        if self.num < fewest:
            raise ValueError(f"num={self.num}: must be at least {fewest}, {self._why_fewest()}.")
        if real < fewest:
            raise ValueError(
                f"metric=fidelity: compares with {real} {self.split} images, and needs at least {fewest}, "
                f"{self._why_fewest()}; choose another split, as in metric.fidelity.split=train."
            )

    @property
    def fewest(self) -> int:
        """The smallest number of images on each side."""
        return self.features.dim + 1 if "fd" in self.scores else 2

    def _why_fewest(self) -> str:
        dim = self.features.dim
        return f"since a covariance of {dim} features needs more images than features" if "fd" in self.scores else "two"

    @staticmethod
    def _num_of(split: Split, most: int | None) -> int:
        return min(len(split), len(split) if most is None else most)

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        found, test = {}, self.split == "test"
        for score in self.scores:
            name = self._name(score, self.num)
            found[name] = MetricKey("lower", from_test=test)
            parts = ["std"] * (score == "kid") + ["floor", "floor_num"] * self.floor
            found |= {f"{name}_{part}": MetricKey(from_test=test, about=name) for part in parts}
        return found

    def _name(self, score: str, num: int) -> str:
        kind = self.features.frechet if score == "fd" else score
        return f"{kind}_{self.features.name}_{count(num)}"

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        """samples (n, C, H, W), in the data's value range; the first `num` count."""
        self.features.prepare(dataset)
        real = self._of_real(dataset)
        x = samples[: self.num]
        fake = self.features(dataset.spec.encode(x))
        floor = self._of_floor(dataset, real, len(x)) if self.floor else {}
        found: dict[str, float] = {}
        for score, values in self._scores(fake, real).items():
            name = self._name(score, len(x))
            found |= {f"{name}_{part}" if part else name: value for part, value in values.items()}
            if score in floor:
                found[f"{name}_floor"] = floor[score]
                found |= {f"{name}_floor_num": floor["num"]} if floor["num"] != len(x) else {}
        self._protocol = self._facts(dataset, len(x), len(real.features), floor.get("num"))
        return found

    def _scores(self, fake: Extracted, real: Extracted) -> dict[str, dict[str, float]]:
        """For each score its values, by the end of their keys."""
        found: dict[str, dict[str, float]] = {}
        if "fd" in self.scores:
            found["fd"] = {"": formulas.frechet_distance(fake.features, real.features)}
        if "kid" in self.scores:
            mean, std = self.kid(fake.features, real.features)
            found["kid"] = {"": mean, "std": std}
        return found

    @property
    def _floor_split(self) -> str:
        return "valid" if self.split == "train" else "train"

    def _of_real(self, dataset: Dataset) -> Extracted:
        if self._real is None or self._real[0] is not dataset:
            split = dataset.splits()[self.split][: self.num_real]
            self._real = dataset, self._extracted(split, dataset.spec)
        return self._real[1]

    def _extracted(self, split: Split, spec: DataSpec) -> Extracted:
        """The features of a split, cached by its content and the network."""
        key = digest_of(self.features.protocol(), digest(Split(split.x), spec))
        entry = cached(f"features-{key}", lambda: _entry(self.features(pixels(split.x, spec))), self.features.cache)
        return Extracted(entry["features"], entry.get("logits"))

    def _of_floor(self, dataset: Dataset, real: Extracted, num: int) -> dict[str, float]:
        """The scores of real images in place of `num` samples, and their number; empty if there are too few."""
        if self._floor is None or self._floor[0] is not dataset:
            split = dataset.splits()[self._floor_split]
            index = np.random.RandomState(0).permutation(len(split))[:num]  # NumPy guarantees that it never changes
            found: dict[str, float] = {}
            if len(index) >= self.fewest:
                chosen = split[torch.from_numpy(index).to(split.x.device)]
                values = self._scores(self._extracted(chosen, dataset.spec), real)
                found = {score: parts[""] for score, parts in values.items()} | {"num": float(len(index))}
            self._floor = dataset, found
        return self._floor[1]

    def _facts(self, dataset: Dataset, num: int, num_real: int, floor_num: float | None) -> dict[str, Any]:
        return {
            "split": self.split, "num": num, "num_real": num_real,
            **({"floor_split": self._floor_split, "floor_num": int(floor_num)} if floor_num else {}),
            "size": [*dataset.spec.shape], "features": self.features.protocol(), **self.kid.facts(num, num_real),
        }  # fmt: skip

    def protocol(self) -> dict[str, Any]:
        return self._protocol


def _entry(found: Extracted) -> dict[str, Tensor]:
    return {"features": found.features} | ({} if found.logits is None else {"logits": found.logits})
