"""p-values of scores and their combination, on data that they were not calibrated on."""

import numpy as np
import pytest
from scipy.stats import kstest

from ganrun.anomaly.calibration import Calibration, Combination


def correlated(n: int, seed: int) -> dict[str, np.ndarray]:
    """Three scores: two that are correlated, and one on another scale, all of real examples."""
    random = np.random.default_rng(seed)
    common = random.normal(size=n)
    return {
        "a": common + 0.5 * random.normal(size=n),
        "b": np.exp(common + random.normal(size=n)),
        "c": 1000 * random.standard_cauchy(size=n),
    }


def test_p_counts_held_out_scores() -> None:
    calibration = Calibration(np.array([3.0, 1.0, 2.0, 2.0]))
    assert calibration.p(np.array([0.5, 2.0, 2.5, 3.0, 4.0])).tolist() == [1.0, 0.8, 0.4, 0.4, 0.2]


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_p_values_of_new_real_data_are_uniform(name: str) -> None:
    calibration = Calibration(correlated(5000, 0)[name])
    p = calibration.p(correlated(5000, 1)[name])
    assert kstest(p, "uniform").statistic < 0.03  # 1.7 times its median for two samples of 5,000
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() == pytest.approx(level, abs=3 * (2 * level / 5000) ** 0.5)


def test_the_combination_is_calibrated_on_dependent_scores() -> None:
    """Fisher's chi-squared distribution, which assumes independence, would not be."""
    held_out, new = correlated(5000, 0), correlated(5000, 1)
    combination = Combination(held_out)
    p = Calibration(combination.of_held_out()).p(combination(new))
    assert kstest(p, "uniform").statistic < 0.03
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(("num", "times"), [(2, 400), (9, 400), (49, 100), (199, 40)])
def test_new_real_data_exceed_all_held_out_ones_as_rarely_as_promised(num: int, times: int) -> None:
    """Of independent scores, where it is hardest: compared with themselves, 19 % would exceed 19 held-out examples."""
    random, shares = np.random.default_rng(0), []
    for _ in range(times):
        combination = Combination({name: random.normal(size=num) for name in "abcd"})
        new = combination({name: random.normal(size=300) for name in "abcd"})
        shares.append((new > combination.of_held_out().max()).mean())
    assert np.mean(shares) < 1.15 / (num + 1)


def test_each_held_out_example_is_compared_with_the_others() -> None:
    held_out = {"a": np.array([3.0, 1.0, 2.0, 2.0, 9.0]), "b": np.array([5.0, 4.0, 3.0, 2.0, 1.0])}
    expected = [
        Combination({name: np.delete(values, i) for name, values in held_out.items()})(
            {name: values[[i]] for name, values in held_out.items()}
        )[0]
        for i in range(5)
    ]
    assert Combination(held_out).of_held_out().tolist() == pytest.approx(expected)


def test_the_combination_finds_what_single_scores_find() -> None:
    held_out, new = correlated(2000, 0), correlated(2000, 1)
    combination = Combination(held_out)
    p = Calibration(combination.of_held_out()).p
    for name in new:
        outlier = {other: np.array([np.median(values)]) for other, values in new.items()}
        outlier[name] = np.array([1e9])
        assert p(combination(outlier))[0] <= 1 / 2001


def test_beyond_the_held_out_scores_the_order_is_kept() -> None:
    calibration = Calibration(np.random.default_rng(0).normal(size=1000))
    surprise = calibration.surprise(np.array([3.0, 5.0, 10.0, 100.0]))
    assert (np.diff(surprise) > 0).all()
    assert calibration.p(np.array([5.0, 100.0])).tolist() == pytest.approx([1 / 1001, 1 / 1001])


def test_equal_held_out_scores() -> None:
    calibration = Calibration(np.zeros(9))
    assert calibration.p(np.array([-1.0, 0.0, 1.0])).tolist() == [1.0, 1.0, 0.1]
    assert np.isfinite(calibration.surprise(np.array([1.0]))).all()
