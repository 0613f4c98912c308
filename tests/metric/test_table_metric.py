"""metric=table: each score by hand, planted faults, its floors, and its keys."""

import math

import numpy as np
import pytest
import torch
from helpers import run_of, without_test
from planted import mixed
from torch import Tensor

from ganrun.data.dataset import Dataset, Split
from ganrun.metric.association import (
    association_error,
    associations,
    correlation_ratio,
    cramers_v,
    kolmogorov_smirnov,
    marginal_distances,
    pearson,
    total_variation,
)
from ganrun.metric.table import CLASSIFIERS, Table, detection, transfer
from ganrun.training.best import choose_best
from ganrun.training.evaluation import metric_keys

BEST = ["train.keep_best=ks_mean_1k", "train.metric_every=1"]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return mixed()


def test_distances_of_columns_by_hand() -> None:
    assert kolmogorov_smirnov(np.array([0.0, 1]), np.array([0.0, 1])) == 0
    assert kolmogorov_smirnov(np.array([0.0, 1]), np.array([5.0])) == 1
    assert kolmogorov_smirnov(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 9, 9])) == 0.5
    assert kolmogorov_smirnov(np.array([]), np.array([1.0])) == 1
    assert total_variation(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), 3) == 0.25


def test_associations_by_hand() -> None:
    x = np.array([1.0, 2, 3, 4])
    assert pearson(x, -2 * x) == pytest.approx(-1)
    assert pearson(x, np.array([1.0, 0, 0, 1])) == pytest.approx(0)
    assert pearson(x, np.ones(4)) == 0
    table = np.array([0] * 30 + [1] * 20 + [0] * 10 + [1] * 40)  # 2 x 2: 30, 20, 10, 40; chi^2 = 100 / 6
    assert cramers_v(np.repeat([0, 1], 50), table, (2, 2)) == pytest.approx(math.sqrt(1 / 6))
    assert cramers_v(np.zeros(4, int), np.array([0, 1, 0, 1]), (2, 2)) == 0
    number = np.array([0.0, 2, 4, 6])  # means 1 and 5 around 3: 16 of 20 between
    assert correlation_ratio(number, np.array([0, 0, 1, 1])) == pytest.approx(math.sqrt(0.8))
    assert correlation_ratio(np.ones(4), np.array([0, 0, 1, 1])) == 0


def test_matrix_has_the_association_of_each_kind_of_pair(data: Dataset) -> None:
    form = data.spec.form
    assert form is not None
    x = data.train.x
    found = associations(x, form)
    assert np.array_equal(found, found.T)
    assert np.diag(found).tolist() == [1] * 4
    there = x[:, form.blocks[0][1]] == 1 if form.blocks[0][0].name == "b" else None
    assert there is not None
    both = np.corrcoef(x[there, 0], x[there, 1])[0, 1]
    assert found[0, 1] == pytest.approx(both)
    assert 0.5 < found[0, 2] < 0.8
    assert 0.5 < found[2, 3] < 0.9
    assert association_error(found, found) == 0
    assert association_error(np.eye(2), np.array([[1, 0.5], [0.5, 1]])) == 0.5


def shuffled(x: Tensor, columns: slice) -> Tensor:
    """Rows in which these columns are of other rows: the same marginals, independent of the other columns."""
    found = x.clone()
    found[:, columns] = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))][:, columns]
    return found


def test_real_rows_have_scores_near_the_floor(data: Dataset) -> None:
    found = Table(num=400)(data.train.x[400:800], without_test(data))
    for score in ("ks_mean", "ks_worst", "tv_mean", "tv_worst", "association"):
        assert found[f"{score}_400"] < 0.1
        assert abs(found[f"{score}_400"] - found[f"{score}_400_floor"]) < 0.06
    for score in ("detect_lr", "detect_gb"):
        assert found[f"{score}_400"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.slow
def test_each_fault_is_noticed_by_its_score(data: Dataset) -> None:
    """Independent columns: only associations and boosting; a shifted number: ks; one category: tv."""
    x, metric = data.train.x[:400], Table(num=400)
    good, independent = metric(x, data), metric(shuffled(x, slice(0, 1)), data)
    assert independent["ks_worst_400"] == good["ks_worst_400"]
    assert independent["association_400"] > good["association_400"] + 0.2
    assert independent["detect_gb_400"] > 0.7 > 0.6 > independent["detect_lr_400"]
    moved = x.clone()
    moved[:, 0] += 1
    found = metric(moved, data)
    assert found["ks_worst_400"] > 0.3 > found["ks_mean_400"] > good["ks_mean_400"] + 0.1
    assert found["tv_worst_400"] == good["tv_worst_400"]
    assert found["detect_lr_400"] > 0.7
    one = x.clone()
    one[:, 4:7] = torch.tensor([1.0, 0, 0])
    assert metric(one, data)["tv_worst_400"] == pytest.approx(0.5, abs=0.05)
    still = x[:1].expand(400, -1)
    collapsed = metric(still, data)
    assert all(math.isfinite(value) for value in collapsed.values())
    assert collapsed["detect_gb_400"] > 0.95


def test_samples_are_compared_as_they_are_written(data: Dataset) -> None:
    """Soft blocks and unrounded numbers are no clue for the classifiers."""
    x = data.train.x[:400].clone()
    x[:, 4:7] = 0.9 * x[:, 4:7] + 0.03
    metric = Table(num=400)
    assert metric(x, data) == metric(data.train.x[:400], data)


@pytest.mark.slow
def test_real_rows_are_those_of_the_split_and_floors_of_another() -> None:
    data = mixed(800)
    x = data.train.x
    assert Table(num=100, split="train")(x, data)["ks_mean_100"] > 0
    found = Table(num=400, split="train")(x[:400], data)
    assert found["tv_mean_400"] == 0  # they are the training rows themselves
    assert found["ks_mean_400"] < 0.01  # up to the rounding of what is written
    assert found["ks_mean_400_floor"] > 0
    assert found["detect_gb_400"] < 0.5
    metric = Table(num=100, num_real=50)
    metric(x, data)
    facts = metric.protocol()["100"]
    assert (facts["num"], facts["num_real"], list(facts["ks"]), list(facts["tv"])) == (
        100,
        50,
        ["a", "b"],
        ["b", "c", "e"],
    )


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_separate_what_is_separable(name: str) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(600, 3))).float()
    make = CLASSIFIERS[name]
    assert detection(x[:300] + 4, x[300:], make) > 0.99
    y = (x[:, 0] > 0).long()
    assert transfer(Split(x[:300], y[:300]), Split(x[300:], y[300:]), make) > 0.97
    assert transfer(Split(x[:300], 1 - y[:300]), Split(x[300:], y[300:]), make) < 0.03
    assert transfer(Split(x[:300], torch.zeros(300).long()), Split(x[300:], y[300:]), make) == 0.5
    three = y + (x[:, 1] > 0).long()
    lacks = three[:300] < 2  # the class 2 counts as .5
    found = transfer(Split(x[:300][lacks], three[:300][lacks]), Split(x[300:], three[300:]), make)
    assert found == pytest.approx((0.5 + 2 * (3 * found - 0.5) / 2) / 3)
    assert 0.6 < found < 0.85


@pytest.mark.slow
def test_labels_add_a_classifier_trained_on_the_samples() -> None:
    data = mixed(label="c")
    assert data.train.y is not None
    x, y = data.train.x[:500], data.train.y[:500]
    found = Table(num=500)(x, data, y=y)
    assert found["train_on_samples_gb_500"] > 0.65
    assert found["train_on_samples_gb_500_real"] == pytest.approx(found["train_on_samples_gb_500"], abs=0.05)
    wrong = Table(num=500)(x, data, y=y[torch.randperm(500)])
    assert wrong["train_on_samples_gb_500"] < 0.6
    assert not any("train_on" in key for key in Table(num=500)(x, data))


@pytest.mark.slow
def test_samples_that_are_not_finite_have_no_scores(data: Dataset) -> None:
    x = data.train.x[:400].clone()
    assert all(math.isnan(value) for value in Table(num=400)(torch.full_like(x, math.nan), data).values())
    x[::2] = math.inf
    half = Table(num=400)(x, data)
    assert half["ks_mean_400"] == Table(num=400)(x[1::2], data)["ks_mean_200"]


@pytest.mark.slow
def test_declared_keys_are_those_that_are_returned() -> None:
    for label in (None, "c"):
        data = mixed(400, label)
        metric = Table(num=100)
        y = None if data.train.y is None else data.train.y[:100]
        assert set(metric.keys(data.spec, True)) == set(metric(data.train.x[:100], data, y=y))
    numbers = run_of("data=breast_cancer")
    assert not any(key.startswith("tv") for key in metric_keys(numbers))
    assert metric_keys(numbers)["ks_mean_1k"].better == "lower"
    assert metric_keys(numbers)["ks_mean_1k_floor"].about == "ks_mean_1k"


def test_test_rows_choose_no_checkpoint() -> None:
    assert choose_best(run_of("data=breast_cancer", *BEST)) is not None
    with pytest.raises(ValueError, match="is computed from test data"):
        choose_best(run_of("data=breast_cancer", *BEST, "metric.table.split=test"))


def test_data_and_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="metric=table: needs a table, as of data=table; use metric=none"):
        run_of("data=ring", "metric=table")
    with pytest.raises(ValueError, match="metric=table: has 0 valid rows to compare with, and needs at least 10"):
        run_of("data=breast_cancer", "data.valid=0")
    with pytest.raises(ValueError, match=r"metric.table.num=3: must be at least 10"):
        run_of("data=breast_cancer", "metric.table.num=3")


def test_a_missing_number_counts_as_a_category() -> None:
    data = mixed(400)
    form = data.spec.form
    assert form is not None
    x = data.train.x.clone()
    x[:, 2:4] = torch.tensor([0.0, 1.0])  # b is always missing
    ks, tv = marginal_distances(x, data.valid.x, form)
    assert ks["b"] == 1
    assert tv["b"] == pytest.approx(0.9, abs=0.06)
