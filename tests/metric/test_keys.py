"""The keys that metrics declare, and those that they return."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from helpers import REPO, config_of
from planted import Planted, mixed, networks_for, stacked

from ganrun.data.dataset import Dataset
from ganrun.data.digits import digits
from ganrun.data.seeds import generator
from ganrun.data.toy import gaussian, grid, mixture1d, ring, spiral
from ganrun.data.without import without
from ganrun.metric.anomaly import AnomalyAuroc
from ganrun.metric.augmentation import AugmentationGain
from ganrun.metric.classes import ClassBalance, IntraFid, LabelAccuracy
from ganrun.metric.distribution import Distribution
from ganrun.metric.divergence import Divergence
from ganrun.metric.fidelity import Fidelity
from ganrun.metric.modes import Modes
from ganrun.metric.neighbors import Neighbors
from ganrun.metric.parzen import Parzen
from ganrun.metric.probe import LinearProbe
from ganrun.metric.ssim import MsSsim
from ganrun.metric.stacked import StackedModes
from ganrun.metric.table import SCORES, Table
from ganrun.metric.theory import Theory
from ganrun.metric.train_on_samples import TrainOnSamples
from ganrun.protocols import DFunction, Metric

Data = Callable[[], Dataset]


def ring_of() -> Dataset:
    return ring(8, 2, 0.1, 100)


def heights() -> Dataset:
    return gaussian(69, 3, 100)


def two_modes() -> Dataset:
    return mixture1d([-3, 3], [0.5, 1], [0.3, 0.7], 100)


@dataclass(frozen=True)
class Case:
    """better: `MetricKey.better` of the keys that measure how good samples are; None for all other keys.

    rare: declared keys that are returned only if there are fewer real images than samples.
    """

    metric: Metric
    data: Data
    better: Mapping[str, str] = field(default_factory=dict)
    logistic: bool = True
    rare: tuple[str, ...] = ()


LOWER_IN_1D = {"ks_2k": "lower", "w1_2k": "lower", "jsd_20bins_2k": "lower"}
HIGHER_OF_MODES = {"modes_covered_3sigma_2k": "higher", "high_quality_3sigma_2k": "higher"}
SMALL = {"num": 50, "num_valid": 30}
SCORED = {
    f"anomaly_{part}_{name}_test_40": "higher"
    for part in ("auroc", "ap")
    for name in ("logit", "neighbors", "combined")
}
CASES = {
    "anomaly_auroc": Case(
        AnomalyAuroc(["logit", "neighbors"], "test", num_real=40, num_train=50), lambda: without(digits(), [3]), SCORED
    ),
    "augmentation_gain": Case(
        AugmentationGain(num=40, num_labelled=[2, 5], seeds=1, updates=2, width=2, num_test=50), digits,
        {"augmentation_gain_valid_2_40": "higher", "augmentation_gain_valid_5_40": "higher"},
    ),
    "train_on_samples": Case(
        TrainOnSamples(num=40, seeds=1, updates=2, width=2, num_test=50), digits,
        {"train_on_samples_valid_40": "higher"},
    ),
    "distribution": Case(Distribution(num=2000, bins=20), heights, LOWER_IN_1D),
    "distribution, critic": Case(Distribution(num=2000, bins=20), two_modes, LOWER_IN_1D, logistic=False),
    "divergence, 1-D": Case(Divergence(num=2000, bins=20), heights, {"jsd_20bins_2k": "lower"}),
    "divergence, 2-D": Case(
        Divergence(num=2500, bins=9), lambda: spiral(2, 2, 0.05, 16, 100), {"jsd_9x9bins_2500": "lower"}
    ),
    "class_balance": Case(
        ClassBalance(Planted(), 200), digits,
        {"class_kl_planted_200": "lower", "classes_covered_planted_200": "higher"},
    ),
    "fidelity": Case(
        Fidelity(Planted(), num=200, kid_subsets=2, scores=["fd", "kid"]), digits,
        {"fd_planted_200": "lower", "kid_planted_200": "lower"},
        rare=("fd_planted_200_floor_num", "kid_planted_200_floor_num"),
    ),
    "intra_fid": Case(IntraFid(Planted(), num=200), digits, {"intra_fd_planted_200": "lower"}),
    "label_accuracy": Case(LabelAccuracy(Planted(), num=200), digits, {"label_accuracy_planted_200": "higher"}),
    "ms_ssim": Case(MsSsim(Planted(), num=50), stacked),
    "stacked_modes": Case(
        StackedModes(Planted(), num=100), stacked, {"stacked_modes_100": "higher", "stacked_kl_100": "lower"}
    ),
    "linear_probe": Case(
        LinearProbe([20, 30], seeds=1, num_test=50, C=[1]), digits,
        {"probe_d_valid_20": "higher", "probe_d_valid_30": "higher"},
    ),
    "modes": Case(Modes(num=2000), ring_of, {**HIGHER_OF_MODES, "reverse_kl_2k": "lower"}),
    "modes, min_samples": Case(
        Modes(num=100, sigmas=2.5, min_samples=3), lambda: grid(5, 2, 0.05, 100),
        {"modes_covered_2.5sigma_min3_100": "higher", "high_quality_2.5sigma_100": "higher", "reverse_kl_100": "lower"},
    ),
    "neighbors": Case(Neighbors(num=40, rows=4, columns=3), digits),
    "parzen": Case(Parzen(**SMALL), digits, {"parzen_50": "higher", "parzen_50_valid": "higher"}),
    "parzen, no anchor": Case(
        Parzen(anchor=False, **SMALL), digits, {"parzen_50": "higher", "parzen_50_valid": "higher"}
    ),
    "parzen, split=valid": Case(Parzen(split="valid", **SMALL), digits, {"parzen_50_valid": "higher"}),
    "parzen, split=valid, no anchor": Case(
        Parzen(split="valid", anchor=False, **SMALL), digits, {"parzen_50_valid": "higher"}
    ),
    "table": Case(
        Table(num=100), lambda: mixed(400),
        {f"{score}_100": better for score, better in SCORES.items() if not score.startswith("train")},
    ),
    "theory, 1-D": Case(Theory(num=2000), heights, {"js_distance_2k": "lower"}),
    "theory, 2-D": Case(Theory(num=2000), ring_of, {"js_distance_2k": "lower"}),
    "theory, critic, 1-D": Case(Theory(num=2000), heights, {"w1_2k": "lower"}, logistic=False),
    "theory, critic, 2-D": Case(Theory(num=2000), ring_of, logistic=False),
}  # fmt: skip
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def computed(case: Case) -> dict[str, float]:
    """The values of the metric for an imperfect generator."""
    data, num = case.data(), case.metric.num
    case.metric.check(data)
    noise = torch.randn(num, *data.spec.shape, generator=generator(0, "samples"))
    samples = data.spec.mean + data.spec.std * noise
    if case.metric.needs_d:
        return case.metric(samples, data, DFunction(lambda x: x.flatten(1).mean(1), case.logistic))
    if case.metric.needs_networks:
        return case.metric(samples, data, networks=networks_for(data.spec))
    y = torch.arange(num) % max(1, data.spec.num_classes)
    return case.metric(samples, data, **({} if case.metric.labels == "unused" else {"y": y}))


@pytest.mark.slow
@EVERY_CASE
def test_every_declared_key_is_returned_and_all_others_are_true_values(case: Case) -> None:
    declared, found = case.metric.keys(case.data().spec, case.logistic), computed(case)
    assert declared.keys() - set(case.rare) <= found.keys()
    assert found.keys() - declared.keys() == {key.true for key in declared.values() if key.true}


@pytest.mark.slow
@EVERY_CASE
def test_every_referenced_key_is_returned(case: Case) -> None:
    declared, found = case.metric.keys(case.data().spec, case.logistic), computed(case)
    for name, key in declared.items():
        assert not key.true or key.true in found
        assert not key.about or key.about in declared.keys() - {name}


@EVERY_CASE
def test_quality_keys_declare_which_values_are_better(case: Case) -> None:
    declared = case.metric.keys(case.data().spec, case.logistic)
    assert {name: key.better for name, key in declared.items() if key.better} == case.better


@pytest.mark.parametrize("name", ["ks_2k", "w1_2k", "jsd_20bins_2k"])
def test_better_samples_have_smaller_distances(name: str) -> None:
    metric, data = Distribution(num=2000, bins=20), heights()
    good = 69 + 3 * torch.randn(2000, 1, generator=generator(0, "good"))
    assert metric(good, data)[name] < metric(good + 1, data)[name]


@pytest.mark.slow
def test_all_metrics_in_conf_are_tested() -> None:
    names = {path.stem for path in (REPO / "conf" / "metric").glob("*.yaml")} - {"none"}
    configured = {config_of(f"metric={name}")["metric"][name]["_target_"] for name in names}
    assert configured == {f"{type(c.metric).__module__}.{type(c.metric).__name__}" for c in CASES.values()}
