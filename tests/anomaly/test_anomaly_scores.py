"""Anomaly scores in a notebook, without a run: fit, score, quantiles."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from ganrun.anomaly.reconstruction import Search
from ganrun.anomaly.scores import COMBINED, METHODS, AnomalyScores
from ganrun.latent import Normal


class G(nn.Module):
    """N(0, I) in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.scale * z


class D(nn.Module):
    """The logit falls with the distance from 0; the features are x."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.scale * x

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return -self.scale * x.norm(dim=1)


def normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def fitted(**settings: object) -> AnomalyScores:
    search = Search(steps=20, restarts=1, pool=300)
    made = AnomalyScores(**{"layers": "last", "search": search, **settings})
    return made.fit(D(), G(), Normal(2), normal(2000, 0), normal(1000, 1))


def test_every_method_and_the_combination_find_outliers() -> None:
    scores = fitted()
    x = torch.cat([normal(500, 2), normal(500, 3) + 6])
    found, is_outlier = scores.score(x), np.repeat([0, 1], 500)
    assert list(found) == [*METHODS, COMBINED]
    for name, values in found.items():
        assert values.shape == (1000,)
        assert roc_auc_score(is_outlier, values) > 0.97, name


def test_closed_forms() -> None:
    found = fitted().score(torch.tensor([[3.0, 4.0]]))
    assert found["logit"].tolist() == [5.0]
    assert found["mahalanobis"][0] == pytest.approx(5, rel=0.1)


def test_quantiles_of_new_real_data_are_uniform() -> None:
    scores = fitted()
    quantiles = scores.quantiles(scores.score(normal(1000, 4)))
    for name, values in quantiles.items():
        assert kstest(values, "uniform").statistic < 0.08, name  # of two samples of 1,000: .06 at the 5 % level
        assert values.min() >= 0
        assert values.max() < 1


def test_results_are_a_function_of_the_seed() -> None:
    x = normal(20, 5)
    first, again, other = (fitted(seed=seed, num_train=100).score(x) for seed in (0, 0, 1))
    for name in METHODS:
        assert np.array_equal(first[name], again[name])
    assert not np.array_equal(first["neighbors"], other["neighbors"])


def test_chosen_methods_only() -> None:
    found = fitted(methods=["mahalanobis"]).score(normal(5, 0))
    assert list(found) == ["mahalanobis"]
    assert list(fitted(methods=["reconstruction", "logit"]).score(normal(5, 0))) == [
        "reconstruction",
        "logit",
        COMBINED,
    ]


def test_scores_do_not_depend_on_the_other_examples() -> None:
    scores, x = fitted(), normal(7, 6)
    together, alone = scores.score(x), scores.score(x[3:4])
    for name in together:
        assert alone[name][0] == pytest.approx(together[name][3], rel=1e-5), name


def test_a_diverged_d() -> None:
    class Nan(D):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return self.scale * x[:, 0] * torch.nan

    with pytest.raises(ValueError, match="the score logit of real examples is not finite; the run may have diverged"):
        AnomalyScores(["logit"]).fit(Nan(), G(), Normal(2), normal(9, 0), normal(9, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": []}, "name at least one method"),
        ({"methods": ["logit", "logit"]}, "each of them once"),
        ({"methods": ["logits"]}, r"methods=\[logits\]: each must be one of logit, neighbors"),
        ({"neighbors": 0}, "neighbors=0: must be at least 1"),
        ({"num_train": -1}, "num_train=-1: must be at least 0"),
    ],
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnomalyScores(**settings)


def test_too_few_held_out_examples() -> None:
    with pytest.raises(ValueError, match="1 held-out real examples are too few"):
        AnomalyScores(["logit"]).fit(D(), G(), Normal(2), normal(9, 0), normal(1, 1))


def test_examples_that_are_not_finite_are_refused_and_those_far_out_are_infinitely_far() -> None:
    scores = fitted(methods=["neighbors", "mahalanobis"])
    with pytest.raises(ValueError, match="x: has values that are not finite"):
        scores.score(torch.tensor([[0.0, torch.nan]]))
    with torch.no_grad():
        scores.view.D.scale.fill_(1e30)  # type: ignore[operator, union-attr]
    found = scores.score(torch.tensor([[1e20, 0.0], [0.0, 0.0]]))
    assert [np.isinf(values).tolist() for values in found.values()] == [[True, False]] * 3
