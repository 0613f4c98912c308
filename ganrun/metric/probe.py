"""How much D's features tell about the classes, which they were learned without."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.anomaly.networks import DView, Layers
from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.seeds import generator
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Metric, MetricKey, Networks

INPUTS = ("d", "random", "pixels")


class LinearProbe(Metric):
    """The accuracy of logistic regression on D's features. Radford et al. 2016, section 5, who use a linear SVM.

    For each number n of labelled training examples (all classes together), means over `seeds` random choices of them:
    - probe_d_valid_1k: on D's features, of the layers that `layers` chooses (`DView`);
    - probe_random_valid_1k: on those of an untrained D of the same architecture, another one for each seed;
    - probe_pixels_valid_1k: on the values of the examples themselves;
    and _std, the standard deviation over the seeds. It is measured on at most `num_test` examples of the split.
    Features are standardized. C: of scikit-learn's LogisticRegression, the inverse strength of its L2 penalty; several:
    the one that is best for the first fifth of the labelled examples, after a fit to the others.
    In a conditional run, D has been trained with the labels. `check` raises ValueError for data without labels, and for
    fewer training examples than n.
    """

    num = 1
    needs_networks = True

    def __init__(
        self,
        num_labelled: Sequence[int] = (100, 1000),
        seeds: int = 3,
        split: Literal["valid", "test"] = "valid",
        num_test: int = 2000,
        layers: Layers = "all",
        C: Sequence[float] = (0.0001, 0.01, 1.0),
    ) -> None:
        least = {"seeds": (seeds, 1), "num_test": (num_test, 1)} | {"num_labelled": (min(num_labelled, default=0), 10)}
        for name, (value, fewest) in least.items():
            if value < fewest:
                raise ValueError(f"{name}={value}: must be at least {fewest}.")
        if not C or min(C) <= 0:
            raise ValueError(f"C={list(C)}: must be one number or several, greater than 0.")
        self.num_labelled, self.seeds, self.split, self.num_test = tuple(num_labelled), seeds, split, num_test
        self.layers, self.C = layers, tuple(C)
        self._protocol: dict[str, dict[str, Any]] = {}

    def check(self, dataset: Dataset) -> None:
        tested = dataset.splits()[self.split]
        if dataset.spec.num_classes < 2 or dataset.train.y is None or tested.y is None or not len(tested):
            raise ValueError(
                f"metric=linear_probe: needs training and {self.split} examples with labels of two or more classes."
            )
        if (most := max(self.num_labelled)) > len(dataset.train):
            raise ValueError(
                f"metric.linear_probe.num_labelled=[{most}]: there are {len(dataset.train)} training examples."
            )

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        test, found = self.split == "test", dict[str, MetricKey]()
        for n in self.num_labelled:
            for name in INPUTS:
                key = self._key(name, n)
                found[key] = MetricKey("higher" if name == "d" else None, from_test=test)
                found[f"{key}_std"] = MetricKey(from_test=test, about=key)
        return found

    def _key(self, name: str, n: int) -> str:
        return f"probe_{name}_{self.split}_{count(n)}"

    def __call__(
        self, samples: Tensor, dataset: Dataset, D: DFunction | None = None, networks: Networks | None = None
    ) -> dict[str, float]:
        """The samples are not used."""
        assert networks is not None, "declared by needs_networks"
        tested = _some(dataset.splits()[self.split], self.num_test, 0)
        num_classes = dataset.spec.num_classes if networks.conditional else 0
        found: dict[str, list[float]] = {}
        for seed in range(self.seeds):
            labelled = _some(dataset.train, max(self.num_labelled), seed)
            views: dict[str, Callable[[Tensor], Tensor]] = {
                "d": DView(networks.D, num_classes, self.layers).features,
                "random": DView(networks.new_d(seed), num_classes, self.layers).features,
                "pixels": lambda x: x.flatten(1),
            }
            for name, view in views.items():
                inputs, test_inputs = (view(dataset.spec.decode(part.x)).numpy() for part in (labelled, tested))
                for n in self.num_labelled:
                    found.setdefault(self._key(name, n), []).append(
                        accuracy((inputs[:n], _labels(labelled)[:n]), (test_inputs, _labels(tested)), self.C)
                    )
        self._protocol = {
            self.split: {
                "num_test": len(tested), "seeds": self.seeds, "layers": self.layers, "C": list(self.C),
                "labels_in_training": networks.conditional,
            }
        }  # fmt: skip
        means = {key: float(np.mean(values)) for key, values in found.items()}
        return means | {f"{key}_std": float(np.std(values)) for key, values in found.items()}

    def protocol(self) -> dict[str, dict[str, Any]]:
        return self._protocol


def accuracy(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], strengths: Sequence[float]
) -> float:
    """The share of the test examples whose class logistic regression finds. train, test: inputs (n, F), labels (n,)."""
    x, y = train
    if len(strengths) > 1:
        part = len(x) // 5
        scores = [_fitted(x[part:], y[part:], C).score(x[:part], y[:part]) for C in strengths]
        strengths = [strengths[int(np.argmax(scores))]]
    return float(_fitted(x, y, strengths[0]).score(*test))


def _fitted(x: np.ndarray, y: np.ndarray, C: float) -> Any:
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(y)) == 1:  # of which logistic regression makes no model
        return DummyClassifier().fit(x, y)
    model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=200, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 iterations are early stopping, which also regularizes
        return model.fit(x, y)


def _some(split: Split, most: int, seed: int) -> Split:
    """At most `most` examples in a random order, on the CPU."""
    chosen = torch.randperm(len(split), generator=generator(seed, "linear probe"))[:most]
    assert split.y is not None, "checked before"
    return Split(split.x[chosen.to(split.x.device)].cpu(), split.y[chosen.to(split.y.device)].cpu())


def _labels(split: Split) -> np.ndarray:
    assert split.y is not None, "checked before"
    found: np.ndarray = split.y.numpy()
    return found
