"""The metric by which a report ranks settings, and its direction."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ganrun.checks import did_you_mean
from ganrun.metric_key import MetricKey
from ganrun.reports.collect import DIAGNOSIS, Run


@dataclass(frozen=True)
class Ranking:
    """key: the metric. reason: why it was chosen. true: the key of its value for the data, which is then the aim."""

    key: str
    higher: bool
    unit: str = ""
    true: str = ""
    reason: str = ""

    @property
    def title(self) -> str:
        """What the numbers are, as in `distance of mean_100k from mean_true (inches)`."""
        name = f"distance of {self.key} from {self.true}" if self.true else self.key
        return f"{name} ({self.unit})" if self.unit else name

    @property
    def direction(self) -> str:
        return "higher is better" if self.higher else "lower is better"

    def value(self, metrics: Mapping[str, float]) -> float | None:
        """The value that counts of a run with these metrics."""
        value, true = metrics.get(self.key), metrics.get(self.true)
        if value is None or not math.isfinite(value) or (self.true and true is None):
            return None
        return value if true is None else abs(value - true)

    def order(self, value: float) -> float:
        """A sort key: the best value comes first."""
        return -value if self.higher else value


def choose(runs: Sequence[Run], by: str | None, better: str | None) -> Ranking | None:
    """The ranking by the metric `by`, else by that of train.keep_best, else by the first one of quality that all share.

    None if no run has a metric of quality. Raises ValueError for a metric that no run has, or without a direction.
    """
    keys = {name: key for run in reversed(runs) for name, key in run.keys.items()}
    present = Counter(name for run in runs for name in run.metrics)
    if by is not None:
        return _typed(by, better, keys, present, len(runs))
    kept = Counter(run.keep_best for run in runs if run.keep_best in present)
    if kept:
        name = kept.most_common(1)[0][0]
        assert name is not None, "it is in `present`"
        return _ranking(name, keys.get(name, MetricKey()), better, "the metric of train.keep_best")
    quality = [n for n, k in keys.items() if k.better and not k.about and n in present and n not in DIAGNOSIS]
    quality += [name for name in DIAGNOSIS if name in present]
    if not quality:
        return None
    most = max(present[name] for name in quality if (name in DIAGNOSIS) == (quality[0] in DIAGNOSIS))
    name = next(name for name in quality if present[name] == most)
    with_values = sum(bool(run.metrics) for run in runs)
    reason = "the first metric of quality " + ("that the runs share" if most == with_values else "of most runs")
    return _ranking(
        name, keys[name], better, "from the diagnosis, as there is no metric" if name in DIAGNOSIS else reason
    )


def _typed(by: str, better: str | None, keys: Mapping[str, MetricKey], present: Mapping[str, int], num: int) -> Ranking:
    if by not in present:
        some = ", ".join(name for name in present if keys.get(name, MetricKey()).better) or ", ".join(present)
        hint = did_you_mean(by, present)
        known = f" They have {some}." if some else " They have no metrics."
        raise ValueError(
            f"by={by}: {f'none of the {num} runs has' if num > 1 else 'the run has no'} such metric{hint}{known}"
        )
    return _ranking(by, keys.get(by, MetricKey()), better, "")


def _ranking(name: str, key: MetricKey, better: str | None, reason: str) -> Ranking:
    unit = "" if key.unit == "data" else key.unit
    if better or key.better:
        return Ranking(name, (better or key.better) == "higher", unit, "", reason)
    if key.true:
        return Ranking(name, False, unit, key.true, reason)
    raise ValueError(
        f"by={name}: this metric does not declare which values are better; add better=higher or better=lower."
    )
