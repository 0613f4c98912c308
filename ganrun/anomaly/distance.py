"""Distances of feature vectors to those of the training data, by scikit-learn."""

from typing import Protocol

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

MOST = 1024  # dimensions of a covariance, at most


class Distance(Protocol):
    """A score of feature vectors (n, F): how far they are from those of the training data."""

    def fit(self, train: np.ndarray) -> None: ...

    def score(self, x: np.ndarray) -> np.ndarray:
        """(n,)"""
        ...


class Neighbors:
    """The mean Euclidean distance to the k nearest training examples. Ramaswamy et al. 2000; Sun et al. 2022.

    unit: whether feature vectors are divided by their length, so that only their direction counts.
    """

    def __init__(self, k: int = 5, unit: bool = False) -> None:
        self.k, self.unit = k, unit

    def fit(self, train: np.ndarray) -> None:
        self.search = NearestNeighbors(n_neighbors=min(self.k, len(train))).fit(self._scaled(train))

    def score(self, x: np.ndarray) -> np.ndarray:
        distance: np.ndarray = self.search.kneighbors(self._scaled(x))[0].mean(1)
        return distance

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) if self.unit else x


class Mahalanobis:
    """sqrt((f - mean)' S^-1 (f - mean)), with the shrunk covariance S of Ledoit and Wolf 2004. Lee et al. 2018.

    Differs from Lee et al. in that there is one mean for all classes. Features of more than `most` dimensions are
    first projected to their first `most` principal components.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most

    def fit(self, train: np.ndarray) -> None:
        self.components = None
        if train.shape[1] > self.most:
            self.components = PCA(min(self.most, len(train)), svd_solver="randomized", random_state=0).fit(train)
        train = self._projected(train)
        self.spread = train.std(0).clip(1e-6 * train.std() + 1e-12)  # shrinkage needs comparable scales
        covariance = LedoitWolf(store_precision=False).fit(train / self.spread)
        self.mean = covariance.location_ * self.spread
        values, vectors = np.linalg.eigh(covariance.covariance_)
        self.whiten = vectors / np.sqrt(values.clip(1e-12)) / self.spread[:, None]  # (F, F)

    def score(self, x: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.linalg.norm((self._projected(x) - self.mean) @ self.whiten, axis=1)
        return found

    def _projected(self, x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return x if self.components is None else self.components.transform(x)
