"""Statistics of reports against known answers: simulations with a true difference and without one."""

import numpy as np
import pytest
from scipy import stats

from ganrun.reports.statistics import difference, holm, mean_of, seeds_needed

SIMULATIONS = 1000
TOLERANCE = 3.5 * (0.05 * 0.95 / SIMULATIONS) ** 0.5  # of a share near 5%, in 3.5 standard errors


def seeded(values: np.ndarray) -> dict[int, float]:
    return dict(enumerate(values.tolist()))


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 5, 10, 20])
def test_intervals_of_means_cover_the_truth_95_percent_of_the_time(n: int) -> None:
    rng = np.random.default_rng(n)
    ends = np.array([mean_of(rng.normal(7, 2, n).tolist()).interval for _ in range(SIMULATIONS)])
    assert abs(np.mean((ends[:, 0] <= 7) & (ends[:, 1] >= 7)) - 0.95) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("n", "paired"), [(3, True), (3, False), (10, True), (10, False)])
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_intervals_and_false_alarms_of_differences(n: int, paired: bool, shift: float) -> None:
    rng = np.random.default_rng([n, paired])
    covered = alarms = 0
    for _ in range(SIMULATIONS):
        shared = rng.normal(size=n) * 2 if paired else np.zeros(n)
        first, second = seeded(shared + shift + rng.normal(size=n)), seeded(shared + rng.normal(0, 2, n))
        found = difference(first, second if paired else {seed + 100: value for seed, value in second.items()})
        assert found is not None
        assert found.pairs == (n if paired else 0)
        covered += found.interval[0] <= shift <= found.interval[1]
        alarms += found.p <= 0.05
    assert 0.93 <= covered / SIMULATIONS <= 0.97
    assert shift or alarms / SIMULATIONS <= 0.05 + TOLERANCE


@pytest.mark.slow
def test_any_false_alarm_among_all_pairs_of_equal_settings() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        settings = [seeded(row) for row in rng.normal(size=(4, 5))]
        found = [difference(settings[i], settings[j]) for i in range(4) for j in range(i)]
        alarms += min(holm(d.p for d in found if d)) <= 0.05
    assert alarms / 300 <= 0.05 + 3.5 * (0.05 * 0.95 / 300) ** 0.5


def test_tests_agree_with_scipy() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=5), rng.normal(1, 3, 7)
    welch, own = stats.ttest_ind(x, y, equal_var=False), difference(seeded(x), {s + 9: v for s, v in enumerate(y)})
    assert own is not None
    assert own.p == pytest.approx(welch.pvalue)
    assert own.interval == pytest.approx(tuple(welch.confidence_interval(0.95)))
    paired, own = stats.ttest_rel(x, y[:5]), difference(seeded(x), seeded(y[:5]))
    assert own is not None
    assert own.p == pytest.approx(paired.pvalue)
    assert own.interval == pytest.approx(tuple(paired.confidence_interval(0.95)))


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [(range(5), range(5), 5), (range(5), range(3), 3), (range(10), range(3), 0), (range(5), range(4, 9), 0)],
)
def test_settings_are_paired_if_at_least_half_of_the_seeds_match(first: range, second: range, pairs: int) -> None:
    found = difference({s: s + 0.5 * (s % 2) for s in first}, {s: float(s) for s in second})
    assert found is not None
    assert found.pairs == pairs


def test_one_seed_has_no_interval_and_no_test() -> None:
    assert mean_of([2.0]).interval is None
    assert difference({0: 1.0}, {0: 2.0}) is None
    assert difference({0: 1.0, 1: 2.0}, {5: 2.0}) is None


def test_values_without_spread_are_no_proof() -> None:
    """A t test would divide by 0, as with the same number of modes in all seeds; a permutation test has a least p."""
    same = difference(dict.fromkeys(range(3), 8.0), dict.fromkeys(range(3), 8.0))
    other = difference(dict.fromkeys(range(3), 8.0), dict.fromkeys(range(3), 7.0))
    unpaired = difference(dict.fromkeys(range(3), 0.3), {s + 9: 0.1 for s in range(3)})
    assert same is not None
    assert other is not None
    assert unpaired is not None
    assert (same.p, same.effect, same.needed) == (1.0, None, None)
    assert (other.p, other.effect, other.value) == (0.25, None, 1.0)
    assert unpaired.p == pytest.approx(2 / 20)


def test_needed_seeds_have_a_power_of_80_percent() -> None:
    """Against the tables of Cohen 1988: d = 0.5, 0.8 and 1 need 64, 26 and 17 in each of two groups."""
    assert [seeds_needed(d, 1, paired=False) for d in (0.5, 0.8, -1.0)] == [64, 26, 17]
    assert [seeds_needed(d, 1, paired=True) for d in (0.5, 0.8)] == [34, 15]
    assert seeds_needed(0.001, 1, paired=True) is None
    assert seeds_needed(1e6, 1, paired=True) == 2
    few, many = (seeds_needed(1.0, m, paired=False) for m in (1, 10))
    assert few is not None
    assert many is not None
    assert few < many


@pytest.mark.slow
def test_needed_seeds_find_the_difference_in_a_simulation() -> None:
    rng = np.random.default_rng(5)
    n = seeds_needed(1.2, 1, paired=False)
    assert n is not None
    found = [
        difference(seeded(rng.normal(1.2, 1, n)), {s + n: v for s, v in enumerate(rng.normal(size=n))})
        for _ in range(1000)
    ]
    assert 0.76 <= np.mean([d.p <= 0.05 for d in found if d]) <= 0.86


def test_effect_is_hedges_g() -> None:
    found = difference({0: 1.0, 1: 2.0, 2: 3.0}, {7: 2.0, 8: 3.0, 9: 4.0})
    assert found is not None
    assert found.effect == pytest.approx(-0.8)  # d = -1, times 1 - 3 / (4 * 4 - 1)
