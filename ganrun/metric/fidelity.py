"""How close the features of samples are to those of real images."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.cache import cached, digest, digest_of
from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.pixels import pixels
from ganrun.metric.keys import count
from ganrun.metric.scores import SCORES, Score, Sizes, Values
from ganrun.protocols import DFunction, Extracted, Features, Metric, MetricKey

NEIGHBORS = 6  # images that precision, recall, density and coverage need on each side


class Fidelity(Metric):
    """Scores of the features of `num` samples against those of real images, computed by torch-fidelity.

    The features are those of a network (`features=`), whose name is in the keys, as the number of samples is:
    - fd: fd_mnistcnn_10k, the Frechet distance |m - m'|^2 + tr(C + C' - 2 (C C')^1/2) of means and covariances; with
      features=inception it is FID, fid_inception_50k (Heusel et al. 2017, arXiv:1706.08500). Its bias depends on both
      numbers of images, so that values for different numbers cannot be compared;
    - kid: kid_mnistcnn_10k, the squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, unbiased, so that it
      may be negative: the mean over random subsets, and _std, their standard deviation (Binkowski et al. 2018,
      arXiv:1801.01401);
    - is: is_mnistcnn_10k, the Inception score exp E KL(p(y|x) || p(y)) of the network's classes, over ten parts, and
      _std (Salimans et al. 2016, arXiv:1606.03498). It does not compare with real images;
    - prdc: precision_mnistcnn_5k and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991; three neighbors), density and
      coverage (Naeem et al. 2020, arXiv:2002.09797; five), of at most `num_nearest` images on each side.
    The real images are the first `num_real` (null: all) of a split: valid, train or test. With split=test, no key can
    choose a checkpoint. Beside each score stands that of real images in place of the samples, as _floor if lower scores
    are better, else as _real: training images with split=valid or test, validation images with split=train. They are as
    many, drawn with a fixed seed, or all if there are fewer (`_floor_num`). All that depends on real images alone is
    cached, by content.
    `check` raises ValueError for data that are not images, too few of them, and a missing library.
    """

    def __init__(
        self,
        features: Features,
        num: int = 10000,
        split: Literal["valid", "train", "test"] = "valid",
        num_real: int | None = None,
        scores: Sequence[Literal["fd", "kid", "is", "prdc"]] = ("fd", "kid"),
        kid_subsets: int = 100,
        kid_size: int = 1000,
        num_nearest: int = 5000,
        floor: bool = True,
    ) -> None:
        least = {"num": (num, 2), "num_real": (num_real, 2), "kid_subsets": (kid_subsets, 1), "kid_size": (kid_size, 2)}
        for name, (value, fewest) in (least | {"num_nearest": (num_nearest, NEIGHBORS)}).items():
            if value is not None and value < fewest:
                raise ValueError(f"{name}={value}: must be at least {fewest}.")
        if not scores or len({*scores}) < len(scores):
            raise ValueError(f"scores=[{','.join(scores)}]: must name one score or several, each once.")
        self.features, self.num, self.split, self.num_real, self.floor = features, num, split, num_real, floor
        self.scores: dict[str, Score] = {name: SCORES[name] for name in scores}
        self.sizes = Sizes(kid_subsets, kid_size, num_nearest)
        self._real: tuple[Dataset, Extracted] | None = None
        self._references: dict[int, dict[str, float]] = {}  # by number of samples
        self._protocol: dict[str, dict[str, Any]] = {}

    def check(self, dataset: Dataset) -> None:
        if not dataset.spec.is_image:
            raise ValueError("metric=fidelity: compares images, and these data are vectors; use metric=none.")
        if find_spec("torch_fidelity") is None:
            raise ValueError(
                "metric=fidelity: needs torch_fidelity, which is not installed; `pip install torch-fidelity`."
            )
        self.features.check(dataset)
        if "is" in self.scores and not self.features.has_logits:
            raise ValueError("metric.fidelity.scores=[is]: needs class logits, and these features have none.")
        fewest, why = self._fewest()
        if self.num < fewest:
            raise ValueError(f"metric.fidelity.num={self.num}: must be at least {fewest}{why}.")
        if (real := len(dataset.splits()[self.split][: self.num_real])) < fewest:
            raise ValueError(
                f"metric=fidelity: has {real} {self.split} images to compare with, and needs at least {fewest}{why}; "
                "choose another split, as in metric.fidelity.split=train, or other scores, as in "
                "metric.fidelity.scores=[kid]."
            )

    def _fewest(self) -> tuple[int, str]:
        """The smallest number of images on each side, and why."""
        if "fd" in self.scores:
            return self.features.dim + 1, f", one more than the {self.features.dim} features, for fd"
        return (NEIGHBORS, ", for nearest neighbors") if "prdc" in self.scores else (2, "")

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        found: dict[str, MetricKey] = {}
        for score in self.scores.values():
            for name in self._names(score, self.num).values():
                found[name] = MetricKey(score.better, from_test=self._uses_test(score))
                ends = [*score.beside, *([score.reference, f"{score.reference}_num"] if self.floor else [])]
                found |= {f"{name}_{end}": MetricKey(from_test=self._uses_test(score), about=name) for end in ends}
        return found

    def _uses_test(self, score: Score) -> bool:
        return self.split == "test" and score is not SCORES["is"]

    def _names(self, score: Score, num: int) -> dict[str, str]:
        """The keys of a score, for `num` samples, by its names."""
        end = f"{self.features.name}_{count(score.num(num, self.sizes))}"
        return {name: f"{self.features.frechet if name == 'fd' else name}_{end}" for name in score.names}

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        """samples (n, C, H, W), in the data's value range; the first `num` count."""
        self.features.prepare(dataset)
        x = samples[: self.num]
        real, fake = self._of_real(dataset), self.features(dataset.spec.encode(x))
        references = self._of_references(dataset, real, len(x)) if self.floor else {}
        num_reference = int(references.get("num", 0))
        found: dict[str, float] = {}
        for score, name, values in self._computed(fake, real):
            key = self._names(score, len(x))[name]
            found |= {f"{key}_{end}" if end else key: value for end, value in values.items()}
            if num_reference:
                found[f"{key}_{score.reference}"] = references[name]
                fewer = score.num(num_reference, self.sizes) < score.num(len(x), self.sizes)
                found |= {f"{key}_{score.reference}_num": float(num_reference)} if fewer else {}
        facts = self._facts(dataset, len(x), len(real.features), num_reference)
        self._protocol = {f"{self.features.name}_{count(len(x))}": facts}
        return found

    def _computed(self, fake: Extracted, real: Extracted) -> Iterator[tuple[Score, str, Values]]:
        """Each value of each score, with its name."""
        for score in self.scores.values():
            for name, values in score.compute(fake, real, self.sizes).items():
                yield score, name, values

    def _of_real(self, dataset: Dataset) -> Extracted:
        if self._real is None or self._real[0] is not dataset:
            self._real, self._references = (dataset, self._extracted(self._split(dataset), dataset.spec)), {}
        return self._real[1]

    def _split(self, dataset: Dataset) -> Split:
        return dataset.splits()[self.split][: self.num_real]

    def _extracted(self, split: Split, spec: DataSpec) -> Extracted:
        """The features of a split, cached by its content and the network."""
        key = digest_of(self.features.protocol(), digest(Split(split.x), spec))
        entry = cached(f"features-{key}", lambda: _entry(self.features(pixels(split.x, spec))), self.features.cache)
        return Extracted(entry["features"], entry.get("logits"))

    def _of_references(self, dataset: Dataset, real: Extracted, num: int) -> dict[str, float]:
        """The scores of real images in place of `num` samples, and their number; empty if there are too few."""
        if num not in self._references:
            split = dataset.splits()[self._reference_split]
            index = np.random.RandomState(0).permutation(len(split))[:num]  # NumPy guarantees that it never changes
            self._references[num] = {}
            if len(index) >= self._fewest()[0]:
                chosen = split[torch.from_numpy(index).to(split.x.device)]
                self._references[num] = self._cached_references(dataset, chosen, real)
        return self._references[num]

    def _cached_references(self, dataset: Dataset, chosen: Split, real: Extracted) -> dict[str, float]:
        digests = [digest(Split(split.x), dataset.spec) for split in (chosen, self._split(dataset))]
        sizes = [self.sizes.kid_subsets, self.sizes.kid_size, self.sizes.nearest]
        key = digest_of(self.features.protocol(), digests, sizes, [*self.scores])

        def compute() -> dict[str, float]:
            found = {n: v[""] for _, n, v in self._computed(self._extracted(chosen, dataset.spec), real)}
            return {**found, "num": float(len(chosen))}

        return cached(f"reference-{key}", compute, self.features.cache)

    @property
    def _reference_split(self) -> str:
        return "valid" if self.split == "train" else "train"

    def _facts(self, dataset: Dataset, num: int, num_real: int, num_reference: int) -> dict[str, Any]:
        smaller = min(num, num_real)
        return {
            "split": self.split, "num": num, "num_real": num_real, "size": [*dataset.spec.shape],
            "features": dict(self.features.protocol()),
            **({"kid_subsets": self.sizes.kid_subsets, "kid_size": min(self.sizes.kid_size, smaller)}
               if "kid" in self.scores else {}),
            **({"num_nearest": [min(n, self.sizes.nearest) for n in (num, num_real)]} if "prdc" in self.scores else {}),
            **({"reference_split": self._reference_split, "num_reference": num_reference} if num_reference else {}),
        }  # fmt: skip

    def protocol(self) -> dict[str, dict[str, Any]]:
        return self._protocol


def _entry(found: Extracted) -> dict[str, Tensor]:
    return {"features": found.features} | ({} if found.logits is None else {"logits": found.logits})
