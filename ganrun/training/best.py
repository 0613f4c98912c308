"""The best checkpoint of a run according to one of its metrics, and early stopping."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ganrun.protocols import MetricKey
from ganrun.training.evaluation import metric_keys
from ganrun.training.run import Run

BETTER = ("higher", "lower")  # the values of `MetricKey.better` with which a key can choose a checkpoint


@dataclass
class Best:
    """The best value so far of the metric `key`, and its step. All fields are saved in checkpoints.

    higher: whether higher values are better. patience: after this many evaluations in a row without a better value, the
    run stops; 0: never. evaluations_since: how many there have been. last_step: of the last evaluation.
    """

    key: str
    higher: bool
    patience: int
    value: float | None = None
    step: int | None = None
    evaluations_since: int = 0
    last_step: int | None = None

    def improves(self, value: float, step: int) -> bool:
        """Record a value, and return whether it is the best so far. A value that is not finite never is.

        A step that was already recorded, because the run was resumed there, does not count again.
        """
        if step == self.last_step:
            return False
        self.last_step = step
        better = self.value is None or (value > self.value if self.higher else value < self.value)
        if better and math.isfinite(value):
            self.value, self.step, self.evaluations_since = float(value), step, 0  # not a NumPy scalar
            return True
        self.evaluations_since += 1
        return False

    @property
    def exhausted(self) -> bool:
        return 0 < self.patience <= self.evaluations_since


def choose_best(run: Run) -> Best | None:
    """The initial state for train.keep_best; None if that is null.

    Raises ValueError for a key that the run's metrics do not declare, that is computed from test data, or that does not
    declare whether higher or lower values are better.
    """
    key = run.options.keep_best
    if key is None:
        return None
    if not run.metrics:
        raise ValueError(f"train.keep_best={key}: this run has no metric; choose one, as in metric=distribution.")
    known = metric_keys(run)
    if key not in known:
        raise ValueError(
            f"train.keep_best={key}: this run's metrics declare no such key; {choices(known)}; "
            "your own metrics declare their keys in a method `keys` (ganrun.protocols.Metric)."
        )
    if known[key].from_test:
        raise ValueError(
            f"train.keep_best={key}: is computed from test data, which must not choose a checkpoint; {choices(known)}."
        )
    if known[key].better not in BETTER:
        raise ValueError(
            f"train.keep_best={key}: it does not declare whether higher or lower values are better; {choices(known)}."
        )
    return Best(key, known[key].better == "higher", run.options.patience)


def choices(known: Mapping[str, MetricKey]) -> str:
    names = ", ".join(name for name, key in known.items() if key.better in BETTER and not key.from_test)
    return f"choose one of {names}" if names else "none of its metrics can choose a checkpoint"
