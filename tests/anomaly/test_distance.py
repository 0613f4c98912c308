"""Distances of features, against closed forms."""

import numpy as np
import pytest

from ganrun.anomaly.distance import Mahalanobis, Neighbors


def test_neighbors_are_the_nearest_training_examples() -> None:
    distance = Neighbors(k=2)
    distance.fit(np.array([[0.0], [1.0], [10.0]]))
    assert distance.score(np.array([[0.0], [4.0], [12.0]])).tolist() == [0.5, 3.5, 6.5]


def test_more_neighbors_than_training_examples() -> None:
    distance = Neighbors(k=5)
    distance.fit(np.array([[0.0], [1.0]]))
    assert distance.score(np.array([[3.0]])).tolist() == [2.5]


def test_unit_neighbors_compare_directions() -> None:
    distance = Neighbors(k=1, unit=True)
    distance.fit(np.array([[1.0, 0.0], [0.0, 0.0]]))
    found = distance.score(np.array([[5.0, 0.0], [0.0, 7.0]]))
    assert found.tolist() == [0.0, 1.0]  # the zero vector has no direction, and stays 0


def test_mahalanobis_of_a_known_gaussian() -> None:
    random = np.random.default_rng(0)
    root = np.array([[2.0, 0.0], [1.5, 0.5]])
    distance = Mahalanobis()
    distance.fit(random.normal(size=(100_000, 2)) @ root.T + [3, -1])
    x = random.normal(size=(50, 2)) * 5
    expected = np.linalg.norm(np.linalg.solve(root, (x - [3, -1]).T), axis=0)
    assert distance.score(x) == pytest.approx(expected, rel=0.02)


def test_mahalanobis_does_not_depend_on_the_units_of_a_feature() -> None:
    x = np.random.default_rng(0).normal(size=(200, 4))
    found = []
    for units in (np.ones(4), np.array([1, 1e3, 1e-3, 10])):
        distance = Mahalanobis()
        distance.fit(x * units)
        found.append(distance.score(x[:9] * units))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_mahalanobis_of_constant_features_and_few_examples() -> None:
    x = np.random.default_rng(0).normal(size=(5, 8))
    x[:, 3] = 1
    distance = Mahalanobis()
    distance.fit(x)
    assert np.isfinite(distance.score(x)).all()
    x[:, 3] = 2
    assert (distance.score(x) > 1000).all()


def test_many_features_are_projected_to_principal_components() -> None:
    random = np.random.default_rng(0)
    train = random.normal(size=(400, 3)) @ random.normal(size=(3, 40)) + 0.01 * random.normal(size=(400, 40))
    distance = Mahalanobis(most=3)
    distance.fit(train)
    assert distance.whiten.shape == (3, 3)
    far = 10 * train[:1] - 9 * train.mean(0)
    assert distance.score(far)[0] == pytest.approx(10 * distance.score(train[:1])[0], rel=0.01)


def test_mahalanobis_is_that_of_the_nearest_class() -> None:
    """Between two classes far apart, an example is far from both; without labels it is at the center of all."""
    random = np.random.default_rng(0)
    y = np.arange(4000) % 2
    train = np.stack([20.0 * y, np.zeros(4000)], 1) + random.normal(size=(4000, 2)) * [1, 3]
    with_labels, without = Mahalanobis(), Mahalanobis()
    with_labels.fit(train, 5 + 3 * y)  # any numbers
    without.fit(train)
    x = np.array([[10.0, 0.0], [20.0, 6.0]])
    assert with_labels.score(x) == pytest.approx([10, 2], rel=0.05, abs=0.1)
    assert without.score(x)[0] < 0.1
