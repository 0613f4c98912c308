"""Statistics over seeds: means, differences between two settings, and the number of seeds that would tell them apart.

The intervals are Student's, not percentiles of a bootstrap: with 3 to 20 values, those of a bootstrap are too narrow
(`python benchmarks/report.py` measures the coverage of both).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import comb, nctdtr, stdtr, stdtrit

LEVEL = 0.95  # of intervals
ALPHA, POWER = 0.05, 0.8
MOST_SEEDS = 10_000  # the largest number that `seeds_needed` looks for
ROUNDING = 1e-9  # a spread below this share of the values comes from rounding


@dataclass(frozen=True)
class Mean:
    """The mean of n values with its 95% interval, None for a single value. std: their standard deviation."""

    n: int
    value: float
    std: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Difference:
    """The difference of two settings' means, first minus second.

    interval: 95%, of this difference alone. effect: Hedges' g, the difference in standard deviations, or None without
    any spread. p: of a two-sided test that it is 0. corrected: p after Holm's correction for all comparisons.
    pairs: the number of seeds by which it is paired; 0: Welch's test. needed: the number of seeds in each setting that
    would tell a difference of this size, with a probability of 80%; None if there are more than 10,000.
    """

    value: float
    interval: tuple[float, float]
    effect: float | None
    p: float
    pairs: int
    needed: int | None
    corrected: float = 1.0

    @property
    def is_significant(self) -> bool:
        return self.corrected <= ALPHA


def mean_of(values: Sequence[float]) -> Mean:
    """The mean with Student's interval. values: one for each seed, all finite.

    >>> found = mean_of([1.0, 2.0, 3.0])
    >>> found.value, [round(end, 2) for end in found.interval]
    (2.0, [-0.48, 4.48])
    """
    x = np.asarray(values, float)
    if len(x) < 2:
        return Mean(len(x), float(x.mean()))
    std = spread(x)
    reach = quantile(len(x) - 1) * std / math.sqrt(len(x))
    return Mean(len(x), float(x.mean()), std, (float(x.mean() - reach), float(x.mean() + reach)))


def difference(first: Mapping[int, float], second: Mapping[int, float], comparisons: int = 1) -> Difference | None:
    """Compare two settings. first, second: a value for each seed. comparisons: how many are made, for `needed`.

    Paired by seed if at least half of the seeds of the larger setting are in both; else by Welch's test, which does
    not assume equal spreads. None if there are fewer than two pairs, or values of a setting.
    """
    common = sorted(first.keys() & second.keys())
    if len(common) >= max(2, max(len(first), len(second)) / 2):
        return _paired(np.array([[s[seed] for seed in common] for s in (first, second)], float), comparisons)
    if min(len(first), len(second)) < 2:
        return None
    return _welch(np.array([*first.values()], float), np.array([*second.values()], float), comparisons)


def _paired(x: np.ndarray, comparisons: int) -> Difference:
    """x: (2, n), the values of both settings for each seed. The t test of the n differences."""
    n = x.shape[1]
    change = x[0] - x[1]
    std = spread(change, x)
    value, error = float(change.mean()), std / math.sqrt(n)
    needed = seeds_needed(value / std, comparisons, paired=True) if std else None
    least = 2.0 ** (1 - n)  # of the n differences all signs are equal
    p, interval = _test(value, error, n - 1, least)
    return Difference(value, interval, hedges(x[0], x[1], n - 1), p, n, needed)


def _welch(first: np.ndarray, second: np.ndarray, comparisons: int) -> Difference:
    """The t test of Welch 1947, for independent samples."""
    n = np.array([len(first), len(second)])
    stds = np.array([spread(first, second), spread(second, first)])
    shares = stds**2 / n
    value, error = float(first.mean() - second.mean()), math.sqrt(shares.sum())
    df = shares.sum() ** 2 / (shares**2 / (n - 1)).sum() if error else float(n.sum() - 2)
    std = math.sqrt((stds**2).mean())
    needed = seeds_needed(value / std, comparisons, paired=False) if std else None
    least = 2 / comb(n.sum(), n[0])  # of all divisions of the values in two groups, the most extreme two
    p, interval = _test(value, error, df, least)
    return Difference(value, interval, hedges(first, second, n.sum() - 2), p, 0, needed)


def _test(value: float, error: float, df: float, least: float) -> tuple[float, tuple[float, float]]:
    """The p-value of a t test, and the 95% interval. Values without any spread have the p of a permutation test."""
    if not error:
        return (least if value else 1.0), (value, value)
    reach = quantile(df) * error
    return float(2 * stdtr(df, -abs(value) / error)), (value - reach, value + reach)


def quantile(df: float, level: float = LEVEL) -> float:
    """How many standard errors the two-sided interval reaches, for df degrees of freedom.

    >>> round(quantile(4), 3)
    2.776
    """
    return float(stdtrit(df, (1 + level) / 2))


def spread(x: np.ndarray, others: np.ndarray | None = None) -> float:
    """The standard deviation of the sample; 0 if it is as small as rounding errors of the values, or of `others`."""
    largest = max(float(np.abs(part).max()) for part in (x, others) if part is not None)
    std = float(x.std(ddof=1))
    return 0.0 if std <= ROUNDING * largest else std


def hedges(first: np.ndarray, second: np.ndarray, df: float) -> float | None:
    """Hedges' g: the difference of the means in units of the settings' standard deviation, corrected for its bias."""
    std = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    if std <= ROUNDING * max(np.abs(first).max(), np.abs(second).max()):
        return None
    return float((1 - 3 / (4 * df - 1)) * (first.mean() - second.mean()) / std)


def seeds_needed(effect: float, comparisons: int, paired: bool) -> int | None:
    """The number of seeds with which the test finds a true difference of this size with a probability of 80%.

    effect: in standard deviations, of the paired differences or of the values. The level is 5%, divided by the number
    of comparisons. None if more than 10,000 seeds are needed.
    """
    low, high = 1, 2
    while _power(high, effect, comparisons, paired) < POWER:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, effect, comparisons, paired) >= POWER else (middle, high)
    return high if high <= MOST_SEEDS else None


def _power(n: int, effect: float, comparisons: int, paired: bool) -> float:
    """The probability that a two-sided t test with n seeds in each setting finds the difference."""
    df, shift = (n - 1, abs(effect) * math.sqrt(n)) if paired else (2 * n - 2, abs(effect) * math.sqrt(n / 2))
    if shift > 35:  # beyond the range of `nctdtr`
        return 1.0
    reach = quantile(df, 1 - ALPHA / comparisons)
    return float(1 - nctdtr(df, shift, reach)) if math.isfinite(reach) else 0.0


def holm(p: Iterable[float]) -> list[float]:
    """The p-values corrected for their number, so that the chance of any false alarm is that of one. Holm 1979.

    >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(list(p), float)
    order = np.argsort(values)
    scaled = np.minimum(values[order] * np.arange(len(values), 0, -1), 1)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(scaled)
    return [float(value) for value in corrected]
