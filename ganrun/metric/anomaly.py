"""How well anomaly scores find the examples of classes that were held out of training."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.anomaly.networks import Layers
from ganrun.anomaly.reconstruction import Search
from ganrun.anomaly.scores import COMBINED, METHODS, AnomalyScores
from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.seeds import generator
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Metric, MetricKey, Networks

FEWEST = 4  # real examples, half of which calibrate the combination


class AnomalyAuroc(Metric):
    """AUROC and average precision of anomaly scores (`ganrun.anomaly`), for held-out classes against the others.

    data.without chooses the held-out classes. For each method, and for their combination:
    - anomaly_auroc_mahalanobis_valid_500: the probability that an example of the held-out classes has a higher score
      than one of the others; .5: chance;
    - anomaly_ap_mahalanobis_valid_500: the average precision of the ranking. That of a random ranking is
      anomaly_share_valid_500, the share of the held-out classes among the examples.
    Both groups have at most `num_real` examples of the split, a random choice. With split=valid, half of the real
    examples calibrate the combination, and the other half are ranked. With split=test, validation examples calibrate.
    num_train, layers, neighbors, and the settings of the latent search: see `AnomalyScores` and `Search`.
    `check` raises ValueError for data without held-out classes, or with too few examples.
    """

    num = 1
    needs_networks = True

    def __init__(
        self,
        methods: Sequence[str] = METHODS,
        split: Literal["valid", "test"] = "valid",
        num_real: int = 500,
        num_train: int = 10000,
        layers: Layers = "all",
        neighbors: int = 5,
        steps: int = 50,
        restarts: int = 2,
        pool: int = 2000,
        lr: float = 0.05,
        feature_weight: float = 0.1,
    ) -> None:
        if num_real < FEWEST:
            raise ValueError(f"num_real={num_real}: must be at least {FEWEST}.")
        self.split, self.num_real = split, num_real
        search = Search(steps, restarts, pool, lr, feature_weight)
        self.scores = AnomalyScores(methods, num_train, layers, neighbors, search)
        self.names = [*methods, *([COMBINED] if len(methods) > 1 else [])]
        self._protocol: dict[str, dict[str, Any]] = {}

    def check(self, dataset: Dataset) -> None:
        if dataset.held_out is None:
            raise ValueError("metric=anomaly_auroc: needs classes that are held out of training; add data.without=[3].")
        real, held_out = self._splits(dataset)
        if len(real) < FEWEST or not len(held_out):
            raise ValueError(
                f"metric=anomaly_auroc: has {len(held_out)} {self.split} examples of the held-out classes and "
                f"{len(real)} of the others, and needs 1 and {FEWEST}; use another split."
            )

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        test, found = self.split == "test", dict[str, MetricKey]()
        for name in self.names:
            auroc = self._key("auroc", name)
            found[auroc] = MetricKey("higher", from_test=test)
            found[self._key("ap", name)] = MetricKey("higher", from_test=test)
        return found | {self._key("share"): MetricKey(from_test=test, about=self._key("ap", self.names[-1]))}

    def _key(self, *parts: str) -> str:
        return "_".join(("anomaly", *parts, self.split, count(self.num_real)))

    def _splits(self, dataset: Dataset) -> tuple[Split, Split]:
        """The real examples and those of the held-out classes."""
        assert dataset.held_out is not None, "check() comes first"
        held_out = dataset.held_out.valid if self.split == "valid" else dataset.held_out.test
        return dataset.splits()[self.split], held_out

    def __call__(
        self, samples: Tensor, dataset: Dataset, D: DFunction | None = None, networks: Networks | None = None
    ) -> dict[str, float]:
        """The samples are not used."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        assert networks is not None, "declared by needs_networks"
        calibrating, real, held_out = self.groups(dataset)
        train, y = chosen(dataset.train, self.scores.num_train or len(dataset.train), dataset.spec, "anomaly train")
        known = (dataset.spec.num_classes, y) if networks.conditional else (0, None)
        self.scores.fit(networks.D, networks.G, networks.latent, train, calibrating, *known)
        found = self.scores.score(torch.cat([real, held_out]))
        is_held_out = np.repeat([0, 1], [len(real), len(held_out)])
        values = {self._key("share"): float(is_held_out.mean())}
        for name in self.names:
            values[self._key("auroc", name)] = float(roc_auc_score(is_held_out, found[name]))
            values[self._key("ap", name)] = float(average_precision_score(is_held_out, found[name]))
        self._describe(dataset, len(calibrating), len(real), len(held_out))
        return values

    def groups(self, dataset: Dataset) -> tuple[Tensor, Tensor, Tensor]:
        """Examples in D's form: real ones that calibrate, real ones that are ranked, and those of held-out classes."""
        real, held_out = self._splits(dataset)
        anomalous = some(held_out, self.num_real, dataset.spec, "held-out classes")
        if self.split == "test" and len(dataset.valid) >= FEWEST:
            calibrating = some(dataset.valid, self.num_real, dataset.spec, "calibrating")
            return calibrating, some(real, self.num_real, dataset.spec, "real"), anomalous
        both = some(real, 2 * self.num_real, dataset.spec, "real")
        half = len(both) // 2
        return both[:half], both[half:], anomalous

    def _describe(self, dataset: Dataset, num_calibrating: int, num_real: int, num_held_out: int) -> None:
        assert dataset.held_out is not None, "check() comes first"
        facts = {"held_out": list(dataset.held_out.classes), "split": self.split, "num_held_out": num_held_out}
        numbers = {"num_real": num_real, "num_calibrating": num_calibrating}
        self._protocol = {f"{self.split}_{count(self.num_real)}": facts | numbers | self.scores.protocol()}

    def protocol(self) -> dict[str, dict[str, Any]]:
        return self._protocol


def some(split: Split, most: int, spec: DataSpec, purpose: str) -> Tensor:
    """At most `most` examples of a split in a random order, a function of the purpose, in D's form, on the CPU."""
    return chosen(split, most, spec, purpose)[0]


def chosen(split: Split, most: int, spec: DataSpec, purpose: str) -> tuple[Tensor, Tensor | None]:
    """The same, with their labels (n,), if they have any."""
    order = torch.randperm(len(split), generator=generator(0, purpose))[:most]
    found = split[order.to(split.x.device)]
    return spec.decode(found.x.cpu()), None if found.y is None else found.y.cpu()
