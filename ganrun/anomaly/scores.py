"""Anomaly scores of examples, from the networks of a GAN that was trained on normal ones."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ganrun.anomaly.calibration import Calibration, Combination
from ganrun.anomaly.distance import Distance, Mahalanobis, Neighbors
from ganrun.anomaly.networks import DView, Layers
from ganrun.anomaly.reconstruction import Reconstruction, Search
from ganrun.data.seeds import generator
from ganrun.protocols import Latent

METHODS = ("logit", "neighbors", "mahalanobis", "reconstruction")  # of every D with features
ALL_METHODS = (*METHODS, "classes")
COMBINED = "combined"
OF_FEATURES = ("neighbors", "mahalanobis")


@dataclass
class AnomalyScores:
    """How anomalous examples are, by several methods. A higher score is more anomalous.

    - logit: minus D's logit. D was trained to tell real examples from G's samples, not from anomalies;
    - neighbors: the distance of D's features to those of the nearest training examples (`Neighbors`); for images, of
      their directions, as in Sun et al. 2022, arXiv:2204.06507;
    - mahalanobis: the Mahalanobis distance of D's features to the training data (`Mahalanobis`);
    - reconstruction: how badly G reconstructs the example (`Reconstruction`, AnoGAN);
    - classes: -log of the largest class probability, of a D that classifies (condition=acgan). Hendrycks, Gimpel 2017;
    - combined: the calibrated combination of all of them (`Combination`), if there are several.

    num_train: training examples for the methods of features, a random choice; 0: all. layers: of D's features
    (`DView`). seed: of these choices. Results depend on nothing else but the networks and the data.

    >>> scores = AnomalyScores(methods=["logit", "mahalanobis"])
    >>> D, z = nn.Sequential(nn.Linear(1, 1), nn.Flatten(0)), torch.zeros(1, 1)
    >>> AnomalyScores(methods=["median"])
    Traceback (most recent call last):
    ValueError: methods=[median]: each must be one of logit, neighbors, mahalanobis, reconstruction, classes.
    """

    methods: Sequence[str] = METHODS
    num_train: int = 10000
    layers: Layers = "all"
    neighbors: int = 5
    search: Search = field(default_factory=Search)
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := [name for name in self.methods if name not in ALL_METHODS]:
            raise ValueError(f"methods=[{unknown[0]}]: each must be one of {', '.join(ALL_METHODS)}.")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError("methods: name at least one method, and each of them once.")
        for name, least in (("num_train", 0), ("neighbors", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}.")

    def fit(
        self,
        D: nn.Module,
        G: nn.Module,
        latent: Latent,
        train: Tensor,
        valid: Tensor,
        num_classes: int = 0,
        y: Tensor | None = None,
    ) -> Self:
        """train, valid (n, *shape): training examples, and held-out real ones, in the data's value range.

        num_classes: of a conditional run; 0: of an unconditional one. y (n,): the classes of `train`; None: unknown, or
        not to be used. Raises ValueError for a D that has no features or compares examples, for fewer than two held-out
        examples, and for scores that are not finite.
        """
        if len(valid) < 2:
            raise ValueError(f"{len(valid)} held-out real examples are too few; quantiles need two or more.")
        self.view = DView(D, num_classes, self.layers)
        self.view.check(valid, features=bool(self._of_features))
        self._fit_distances(train, y)
        if "reconstruction" in self.methods:
            self.reconstruction = Reconstruction(self.search)
            self.reconstruction.fit(G, latent, self.view, train, num_classes, self.seed)
        held_out = self._scores(valid)
        if wrong := [name for name, values in held_out.items() if not np.isfinite(values).all()]:
            raise ValueError(f"the score {wrong[0]} of real examples is not finite; the run may have diverged.")
        self.combination = Combination(held_out) if len(held_out) > 1 else None
        self.held_out = held_out if self.combination is None else held_out | {COMBINED: self.combination.of_held_out()}
        self.calibrations = {name: Calibration(values) for name, values in self.held_out.items()}
        return self

    def score(self, x: Tensor) -> dict[str, np.ndarray]:
        """The scores (n,) of examples x (n, *shape) in the data's value range, by method, and `combined`.

        Raises ValueError for x that is not finite. Examples of which D's features are not finite are infinitely far.
        """
        if not x.isfinite().all():
            raise ValueError("x: has values that are not finite.")
        return self._combined(self._scores(x))

    def quantiles(self, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """1 - p of each score (n,): the share of held-out real examples that are less anomalous, in [0, 1)."""
        return {name: 1 - self.calibrations[name].p(values) for name, values in scores.items()}

    def protocol(self) -> dict[str, Any]:
        """The settings, as plain values."""
        return asdict(self) | {"methods": list(self.methods)}

    @property
    def _of_features(self) -> list[str]:
        return [name for name in self.methods if name in OF_FEATURES]

    def _fit_distances(self, train: Tensor, y: Tensor | None) -> None:
        neighbors = Neighbors(self.neighbors, unit=train.dim() == 4)
        made: dict[str, Distance] = {"neighbors": neighbors, "mahalanobis": Mahalanobis()}
        self.distances = {name: made[name] for name in self._of_features}
        if not self.distances:
            return
        num = min(self.num_train or len(train), len(train))
        some = torch.randperm(len(train), generator=generator(self.seed, "anomaly"))[:num].sort().values
        features = self.view.features(train[some]).numpy()
        for distance in self.distances.values():
            distance.fit(features, None if y is None else y[some].cpu().numpy())

    def _scores(self, x: Tensor) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        if "logit" in self.methods:
            found["logit"] = -self.view.logits(x).numpy()
        if self.distances:
            features = self.view.features(x).numpy()
            known = np.isfinite(features).all(1)
            for name, distance in self.distances.items():
                found[name] = np.full(len(features), np.inf)
                found[name][known] = distance.score(features[known])
        if "classes" in self.methods:
            logits = self.view.class_logits(x).double()
            found["classes"] = (logits.logsumexp(1) - logits.amax(1)).numpy()
        if "reconstruction" in self.methods:
            found["reconstruction"] = self.reconstruction.score(x).numpy()
        return {name: found[name].astype(np.float64) for name in self.methods}

    def _combined(self, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return scores if self.combination is None else scores | {COMBINED: self.combination(scores)}
