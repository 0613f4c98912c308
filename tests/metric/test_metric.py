"""Metrics for known distributions: near the ideal for a perfect generator, and far from it for a bad one."""

import json
import math
from collections.abc import Callable

import pytest
import torch
from helpers import run_of
from torch import Tensor

from ganrun.data.dataset import Dataset
from ganrun.data.digits import digits
from ganrun.data.seeds import generator
from ganrun.data.toy import dirac, gaussian, grid, mixture1d, ring, spiral
from ganrun.metric.distribution import Distribution
from ganrun.metric.divergence import Divergence
from ganrun.metric.modes import Modes
from ganrun.training.evaluation import Evaluation

HEIGHTS = gaussian(69, 3, 10)
TWO = mixture1d([-3, 3], [0.5, 1], [0.3, 0.7], 10)
RING = ring(8, 2, 0.02, 10)
GRID = grid(5, 2, 0.05, 10)
SPIRAL = spiral(2, 2, 0.05, 256, 10)


def perfect(data: Dataset, n: int) -> Tensor:
    source = generator(0, "perfect generator")
    if data is HEIGHTS:
        return 69 + 3 * torch.randn(n, 1, generator=source)
    return data.distribution.draw(n, source).float()


# Distribution


@pytest.mark.parametrize("data", [HEIGHTS, TWO], ids=["gaussian", "mixture1d"])
def test_perfect_samples_of_one_dimension(data: Dataset) -> None:
    metric = Distribution()
    metric.check(data)
    found = metric(perfect(data, 100_000), data)
    std = data.spec.std
    assert found["mean_100k"] == pytest.approx(data.spec.mean, abs=4 * std / 316)
    assert found["std_100k"] == pytest.approx(std, abs=4 * std / 447)
    assert found["ks_100k"] < 0.006
    assert found["w1_100k"] < 0.01 * std
    assert 1e-5 < found["jsd_200bins_100k"] < 1.3 * 199 / (8 * 100_000)
    assert found["skew_100k"] == pytest.approx(found["skew_true"], abs=0.03)
    for key in ("tail_mass_2sigma", "tail_mass_3sigma"):
        error = math.sqrt(found[f"{key}_true"] / 100_000)
        assert found[f"{key}_100k"] == pytest.approx(found[f"{key}_true"], abs=4 * error + 1e-9)


def test_true_values_are_those_of_the_data() -> None:
    found = Distribution(num=100)(perfect(HEIGHTS, 100), HEIGHTS)
    exact = [found[f"{key}_true"] for key in ("mean", "std", "skew", "tail_mass_2sigma", "tail_mass_3sigma")]
    assert exact == pytest.approx([69, 3, 0, 0.0455, 0.0027], abs=1e-4)
    found = Distribution(num=100)(perfect(TWO, 100), TWO)
    assert (found["mean_true"], found["std_true"]) == pytest.approx((1.2, math.sqrt(0.3 * 17.89 + 0.7 * 4.24)))


def test_collapsed_generator_has_large_distances() -> None:
    found = Distribution()(torch.full((100_000, 1), 69.0), HEIGHTS)
    assert (found["mean_100k"], found["std_100k"], found["skew_100k"]) == (69, 0, 0)
    assert found["ks_100k"] == pytest.approx(0.5)
    assert found["w1_100k"] == pytest.approx(3 * math.sqrt(2 / math.pi), abs=1e-4)
    assert found["jsd_200bins_100k"] > 0.6
    assert found["tail_mass_2sigma_100k"] == found["tail_mass_3sigma_100k"] == 0


def test_thin_and_heavy_tails_are_distinguished() -> None:
    """A uniform distribution with the correct mean and std has no tails, a wider Gaussian has heavier ones."""
    metric = Distribution(num=50_000)
    uniform = 69 + 3 * math.sqrt(3) * (2 * torch.rand(50_000, 1, generator=generator(0, "u")) - 1)
    found = metric(uniform, HEIGHTS)
    assert found["std_50k"] == pytest.approx(3, abs=0.05)
    assert found["tail_mass_2sigma_50k"] == 0
    assert found["jsd_200bins_50k"] > 0.01
    found = metric(69 + 2 * (perfect(HEIGHTS, 50_000) - 69), HEIGHTS)
    assert found["tail_mass_2sigma_50k"] == pytest.approx(0.3173, abs=0.01)  # P(|z| > 1)
    assert found["tail_mass_3sigma_50k"] == pytest.approx(0.1336, abs=0.01)  # P(|z| > 3/2)


def test_shift_is_the_wasserstein_distance_and_skew_has_a_sign() -> None:
    metric = Distribution(num=50_000)
    assert metric(perfect(HEIGHTS, 50_000) + 1, HEIGHTS)["w1_50k"] == pytest.approx(1, abs=0.05)
    exponential = -perfect(HEIGHTS, 50_000).sub(69).div(3).erf().add(1).div(2).clamp(min=1e-9).log()
    skewed = metric(exponential, HEIGHTS)
    assert skewed["skew_50k"] > 1
    assert metric(-exponential, HEIGHTS)["skew_50k"] == pytest.approx(-skewed["skew_50k"])


def test_missing_one_of_two_modes_shows_in_the_divergence() -> None:
    """All samples are at the left mode, which has .3 of the data: JSD in closed form."""
    left = -3 + 0.5 * torch.randn(100_000, 1, generator=generator(0, "left"))
    expected = (0.3 * math.log(0.6 / 1.3) + 0.7 * math.log(2) + math.log(2 / 1.3)) / 2
    assert Distribution()(left, TWO)["jsd_200bins_100k"] == pytest.approx(expected, abs=1e-3)


# Modes


def test_perfect_samples_cover_all_modes() -> None:
    for data, modes in ((RING, 8), (GRID, 25)):
        metric = Modes()
        metric.check(data)
        found = metric(perfect(data, 2500), data)
        assert found["modes_covered_3sigma_2500"] == modes
        assert found["high_quality_3sigma_true"] == pytest.approx(1 - math.exp(-4.5))
        assert found["high_quality_3sigma_2500"] == pytest.approx(1 - math.exp(-4.5), abs=4 * 0.0021)
        assert 0 < found["reverse_kl_2500"] < 2 * modes / (2 * 2500)  # chi-squared: (K - 1) / 2n in expectation
    found = Modes(num=100_000)(perfect(TWO, 100_000), TWO)
    assert found["modes_covered_3sigma_100k"] == 2
    assert found["high_quality_3sigma_100k"] == pytest.approx(0.9973, abs=0.001)
    assert found["high_quality_3sigma_true"] == pytest.approx(0.9973, abs=1e-4)
    assert found["reverse_kl_100k"] < 1e-4


def test_modes_counted_by_hand() -> None:
    modes = RING.distribution.modes.float()
    x = torch.cat([modes[0].repeat(6, 1), modes[3].repeat(3, 1), modes[5:6] + torch.tensor([[0.5, 0.0]])])
    found = Modes()(x, RING)
    assert found["modes_covered_3sigma_10"] == 2  # the last sample is nearest to the sixth mode, but too far away
    assert found["high_quality_3sigma_10"] == pytest.approx(0.9)
    by_hand = sum(g * math.log(8 * g) for g in (0.6, 0.3, 0.1))
    assert found["reverse_kl_10"] == pytest.approx(by_hand, abs=1e-6)


def test_even_and_collapsed_generators() -> None:
    modes = RING.distribution.modes.float()
    assert Modes()(modes.repeat(5, 1), RING)["reverse_kl_40"] == pytest.approx(0, abs=1e-7)
    assert Modes()(modes[::2].repeat(5, 1), RING)["reverse_kl_20"] == pytest.approx(math.log(2), abs=1e-6)
    collapsed = Modes()(modes[:1].repeat(2500, 1), RING)
    assert collapsed["modes_covered_3sigma_2500"] == collapsed["high_quality_3sigma_2500"] == 1
    assert collapsed["reverse_kl_2500"] == pytest.approx(math.log(8), abs=1e-6)
    between = Modes()(torch.zeros(100, 2), RING)
    assert between["modes_covered_3sigma_100"] == between["high_quality_3sigma_100"] == 0


@pytest.mark.parametrize(("distance", "good"), [(2.9, 1), (3.1, 0)])
def test_high_quality_is_within_three_standard_deviations(distance: float, good: int) -> None:
    x = RING.distribution.modes[:1] + torch.tensor([[0.6, 0.8]]) * distance * 0.02
    assert Modes()(x, RING)["high_quality_3sigma_1"] == good
    assert Modes(sigmas=5)(x, RING)["high_quality_5sigma_1"] == 1


def test_min_samples_is_the_number_that_covers_a_mode() -> None:
    modes = RING.distribution.modes.float()
    x = torch.cat([modes, modes[:3].repeat(4, 1)])  # five samples at each of three modes, one at each other mode
    assert Modes(min_samples=5)(x, RING)["modes_covered_3sigma_min5_20"] == 3
    assert Modes(min_samples=6)(x, RING)["modes_covered_3sigma_min6_20"] == 0


def test_distances_are_in_standard_deviations_of_each_mode() -> None:
    """-0.4 is 5.2 standard deviations from the narrow mode at -3, and 3.4 from the wide one at 3."""
    found = Modes(sigmas=4)(torch.tensor([[-0.4]]), TWO)
    assert found["high_quality_4sigma_1"] == 1
    assert found["reverse_kl_1"] == pytest.approx(-math.log(0.7), abs=1e-6)


def test_only_the_first_num_samples_are_used() -> None:
    modes = RING.distribution.modes.float()
    found = Modes(num=10)(torch.cat([modes[:1].repeat(10, 1), modes]), RING)
    assert found["modes_covered_3sigma_10"] == 1


# Divergence


@pytest.mark.parametrize(("data", "floor"), [(RING, 0.0003), (GRID, 0.0012), (SPIRAL, 0.0074)])
def test_perfect_samples_in_two_dimensions_have_the_documented_divergence(data: Dataset, floor: float) -> None:
    metric = Divergence()
    metric.check(data)
    found = metric(perfect(data, 100_000), data)
    assert found == {"jsd_128x128bins_100k": pytest.approx(floor, rel=0.25)}


def test_divergence_of_a_generator_that_misses_seven_of_eight_modes() -> None:
    x = RING.distribution.modes[0] + 0.02 * torch.randn(50_000, 2, generator=generator(0, "one"), dtype=torch.float64)
    expected = (math.log(2 / 9) / 8 + 7 * math.log(2) / 8 + math.log(16 / 9)) / 2
    assert Divergence(num=50_000)(x, RING)["jsd_128x128bins_50k"] == pytest.approx(expected, abs=1e-3)


def test_divergence_of_disjoint_samples_is_log_two() -> None:
    far = torch.full((1000, 2), 50.0)
    assert Divergence()(far, RING)["jsd_128x128bins_1k"] == pytest.approx(math.log(2), abs=1e-5)


def test_divergence_in_one_dimension_equals_that_of_the_distribution_metric() -> None:
    x = perfect(HEIGHTS, 5000) + 0.5
    whole = Distribution(bins=100)(x, HEIGHTS)["jsd_100bins_5k"]
    assert Distribution(num=5000, bins=100)(torch.cat([x, x + 9]), HEIGHTS)["jsd_100bins_5k"] == whole
    assert Divergence(bins=100)(x, HEIGHTS) == {"jsd_100bins_5k": whole}
    assert Divergence(num=5000, bins=100)(torch.cat([x, x + 9]), HEIGHTS) == {"jsd_100bins_5k": whole}


# All metrics


@pytest.mark.parametrize(
    ("metric", "data", "message"),
    [
        (Distribution, lambda: RING, "metric=distribution: needs one-dimensional"),
        (Distribution, lambda: dirac(0, 10), "metric=distribution: needs one-dimensional"),
        (Divergence, digits, "metric=divergence: needs"),
        (Divergence, lambda: dirac(0, 10), "metric=divergence: needs"),
        (Modes, lambda: HEIGHTS, "metric=modes: needs data whose modes are known"),
        (Modes, digits, "metric=modes: needs data whose modes are known"),
        (Modes, lambda: SPIRAL, "overlap"),
        (Modes, lambda: mixture1d([0, 5], [1, 1], None, 10), "metric.modes.sigmas=3: .*overlap"),
    ],
)
def test_data_for_which_a_metric_is_undefined_are_refused(
    metric: type, data: Callable[[], Dataset], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric().check(data())


def test_modes_that_barely_do_not_overlap_are_accepted() -> None:
    Modes().check(mixture1d([0, 6.1], [1, 1], None, 10))
    Modes(sigmas=2).check(mixture1d([0, 5], [1, 1], None, 10))
    Modes().check(mixture1d([0], [1], None, 10))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("metric.modes.num=0", "metric.modes.num=0: must be at least 1"),
        ("metric.modes.sigmas=0", "metric.modes.sigmas=0: must be greater than 0"),
        ("metric.modes.min_samples=0", "metric.modes.min_samples=0: must be at least 1"),
        ("metric.divergence.bins=1", "metric.divergence.bins=1: must be at least 2"),
        ("metric.divergence.num=1", "metric.divergence.num=1: must be at least 2"),
        ("metric.modes.sigmas=100", "overlap"),
    ],
)
def test_invalid_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_of("data=ring", "data.num=10", setting)
    with pytest.raises(ValueError, match=r"metric\.distribution\.bins=0: must be at least 2"):
        run_of("metric.distribution.bins=0")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("mixture1d", {"mean_2k", "w1_2k", "jsd_200bins_2k", "modes_covered_3sigma_2k", "tail_mass_3sigma_true"}),
        ("ring", {"modes_covered_3sigma_2k", "high_quality_3sigma_2k", "reverse_kl_2k", "jsd_128x128bins_2k"}),
        ("spiral", {"jsd_128x128bins_2k"}),
    ],
)
def test_run_ends_with_the_default_metrics_of_its_data(option: str, expected: set[str]) -> None:
    names = {"mixture1d": ("distribution", "modes"), "ring": ("modes", "divergence"), "spiral": ("divergence",)}[option]
    run = run_of(f"data={option}", "data.num=10", *(f"metric.{name}.num=2000" for name in names))
    found = Evaluation(run).metrics()
    assert expected <= found.keys()
    assert all(type(x) is float and math.isfinite(x) for x in found.values())
    assert json.loads(json.dumps(found)) == found
