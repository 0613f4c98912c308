"""Distances of feature vectors to those of the training data, by scikit-learn, which is imported when it is needed."""

from typing import Protocol

import numpy as np

MOST = 1024  # dimensions of a covariance, at most


class Distance(Protocol):
    """A score of feature vectors (n, F): how far they are from those of the training data."""

    def fit(self, train: np.ndarray, y: np.ndarray | None = None) -> None:
        """train (n, F), of classes y (n,) if these are known."""
        ...

    def score(self, x: np.ndarray) -> np.ndarray:
        """(n,)"""
        ...


class Neighbors:
    """The mean Euclidean distance to the k nearest training examples. Ramaswamy et al. 2000; Sun et al. 2022.

    unit: whether feature vectors are divided by their length, so that only their direction counts.
    """

    def __init__(self, k: int = 5, unit: bool = False) -> None:
        self.k, self.unit = k, unit

    def fit(self, train: np.ndarray, y: np.ndarray | None = None) -> None:
        from sklearn.neighbors import NearestNeighbors

        self.search = NearestNeighbors(n_neighbors=min(self.k, len(train))).fit(self._scaled(train))

    def score(self, x: np.ndarray) -> np.ndarray:
        distance: np.ndarray = self.search.kneighbors(self._scaled(x))[0].mean(1)
        return distance

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) if self.unit else x


class Mahalanobis:
    """min over classes k of sqrt((f - m_k)' S^-1 (f - m_k)). Lee et al. 2018, arXiv:1807.03888, Equation 2.

    S is the covariance within the classes, shrunk as in Ledoit and Wolf 2004. Without labels, there is one class.
    Features of more than `most` dimensions are first projected to their first `most` principal components.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most

    def fit(self, train: np.ndarray, y: np.ndarray | None = None) -> None:
        """train (n, F), of classes y (n,)."""
        from sklearn.covariance import LedoitWolf
        from sklearn.decomposition import PCA

        self.components = None
        if train.shape[1] > self.most:
            self.components = PCA(min(self.most, len(train)), svd_solver="randomized", random_state=0).fit(train)
        x, y = self._projected(train), np.zeros(len(train), dtype=int) if y is None else y
        present, y = np.unique(y, return_inverse=True)
        means = np.stack([x[y == k].mean(0) for k in range(len(present))])
        spread = x.std(0).clip(1e-6 * x.std() + 1e-12)  # shrinkage needs comparable scales
        covariance = LedoitWolf(store_precision=False, assume_centered=True).fit((x - means[y]) / spread)
        values, vectors = np.linalg.eigh(covariance.covariance_)
        self.whiten = vectors / np.sqrt(values.clip(1e-12)) / spread[:, None]  # (F, F)
        self.means = means @ self.whiten  # (K, F)

    def score(self, x: np.ndarray) -> np.ndarray:
        white = self._projected(x) @ self.whiten
        found: np.ndarray = np.min([np.linalg.norm(white - mean, axis=1) for mean in self.means], axis=0)
        return found

    def _projected(self, x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return x if self.components is None else self.components.transform(x)
