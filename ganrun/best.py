"""The best checkpoint of a run, by one of its metrics, and when to stop for want of a better one."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ganrun.run import Run

Measured = dict[str, dict[str, float]]  # of each metric by its name: what it found


@dataclass
class Best:
    """The best value so far of the metric `key`, and the step it was taken at. All of it is part of a checkpoint.

    higher: whether higher values are better. patience: how many measurements in a row may bring nothing better before
    the run stops; 0: any number. without: how many have. measured: the step of the last one.
    """

    key: str
    higher: bool
    patience: int
    value: float | None = None
    step: int | None = None
    without: int = 0
    measured: int | None = None

    def improves(self, value: float, step: int) -> bool:
        """Take note of a measurement, and say whether it is the best so far. One that is no finite number is not.

        A step that was measured already, as where a run is resumed at it, does not count again.
        """
        if step == self.measured:
            return False
        self.measured, value = step, float(value)  # of numpy's numbers, a checkpoint could not be read
        better = self.value is None or (value > self.value if self.higher else value < self.value)
        if better and math.isfinite(value):
            self.value, self.step, self.without = value, step, 0
            return True
        self.without += 1
        return False

    @property
    def exhausted(self) -> bool:
        return 0 < self.patience <= self.without


def choose(run: Run, measure: Callable[[], Measured]) -> Best | None:
    """What train.keep_best asks for; None where it asks for nothing.

    measure: takes all metrics of the run, whose names are not known before. Raises ValueError for a key that is not
    among them, that is made from test data, or of which it is not known whether higher or lower is better.
    """
    key = run.options.keep_best
    if key is None:
        return None
    if not run.metrics:
        raise ValueError(f"train.keep_best={key}: this run takes no metric; choose one, as in metric=distribution.")
    if any(sees_test(metric, key) for metric in run.metrics.values()):
        raise ValueError(
            f"train.keep_best={key}: is made from test data, which must not choose a checkpoint; "
            "choose a metric that is made from validation data."
        )
    found = measure()
    owner = next((run.metrics[name] for name, values in found.items() if key in values), None)
    if owner is None:
        raise ValueError(f"train.keep_best={key}: this run takes no such metric; {can_choose(run, found)}.")
    if (better := direction(owner, key)) is None:
        raise ValueError(
            f"train.keep_best={key}: its metric does not say whether higher or lower is better; "
            f'{can_choose(run, found)}; a metric of your own says it by a method direction(key) -> "higher" or "lower".'
        )
    return Best(key, better == "higher", run.options.patience)


def can_choose(run: Run, found: Measured) -> str:
    keys: Iterable[str] = (
        key
        for name, values in found.items()
        for key in values
        if direction(run.metrics[name], key) and not sees_test(run.metrics[name], key)
    )
    names = ", ".join(keys)
    return f"choose one of {names}" if names else "none of its metrics can choose"


def direction(metric: Any, key: str) -> str | None:
    """ "higher" or "lower": what is better, of one of the metric's keys. None where the metric does not say."""
    said = metric.direction(key) if hasattr(metric, "direction") else None
    if said not in ("higher", "lower", None):
        raise ValueError(f'metric: its direction({key!r}) is {said!r}; it must be "higher", "lower" or None.')
    return said


def sees_test(metric: Any, key: str) -> bool:
    """Whether one of the metric's keys is made from test data; a metric that does not say sees none."""
    return hasattr(metric, "sees_test") and bool(metric.sees_test(key))
