"""The settings of a search (`search:`), with checks. Their defaults are in conf/search.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ganrun.checks import as_typed, check_arguments

Direction = Literal["minimize", "maximize"]
Reason = Literal["metric", "divergence", "mode_collapse"]
LEAST = {"trials": 1, "seeds": 1, "jobs": 1}
MOST_JOBS = 1024


@dataclass(frozen=True)
class SearchOptions:
    """The settings of a search. metric: one key or several; None: that of train.keep_best. Raises ValueError."""

    metric: str | Sequence[str] | None
    direction: Direction | Sequence[Direction] | None
    trials: int
    seeds: int
    sampler: Literal["tpe", "random", "cmaes"]
    prune: Sequence[Reason]
    jobs: int

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if vars(self)[name] < least:
                raise ValueError(f"search.{name}={vars(self)[name]}: must be at least {least}.")
        if self.jobs > MOST_JOBS:
            raise ValueError(f"search.jobs={self.jobs}: must be at most {MOST_JOBS}.")
        if not isinstance(self.metric, str | None) and (not self.metric or len({*self.metric}) < len(self.metric)):
            raise ValueError(f"search.metric={as_typed(self.metric)}: must be one key, or a list of different keys.")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "SearchOptions":
        """The options from a composed config. A single reason to prune needs no list. Raises ValueError."""
        prune = given.get("prune")
        given = {**given, "prune": [prune] if isinstance(prune, str) else prune}
        check_arguments("search", cls, given)
        if missing := set(cls.__dataclass_fields__) - set(given):
            raise ValueError(f"search.{min(missing)}: has no value; the defaults are in conf/search.yaml.")
        return cls(**given)

    def check_pruning(self, train: Mapping[str, Any]) -> None:
        """Raise ValueError if runs cannot be pruned. train: the settings of training."""
        if not self.prune:
            return
        typed = self.typed_prune
        if not 0 < train["metric_every"] < train["steps"]:
            raise ValueError(
                f"{typed}: runs are pruned when their metrics are computed during training; set how often they are, "
                f"as in train.metric_every={max(1, train['steps'] // 10)}."
            )

    def check_objectives(self, num: int) -> None:
        """Raise ValueError if `num` objectives are too many."""
        if num > 1 and "metric" in self.prune:
            raise ValueError(f"{self.typed_prune}: metric prunes by one objective; leave it out, or search by one.")
        if num > 1 and self.sampler == "cmaes":
            raise ValueError("search.sampler=cmaes: has one objective; use search.sampler=tpe, or one search.metric.")

    @property
    def typed_prune(self) -> str:
        return f"search.prune=[{','.join(self.prune)}]"
