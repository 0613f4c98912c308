"""One trial of a search: its runs, one for each seed, and what the study is told of them."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.trial import Trial, TrialState

from ganrun.config import Config
from ganrun.protocols import Observer
from ganrun.records import checkpoint
from ganrun.records.run_dir import RunDir, RunIsLocked
from ganrun.search.space import Problem
from ganrun.search.study import Claim
from ganrun.training.train import Outcome

Kind = Literal["finished", "pruned", "diverged", "invalid", "failed", "interrupted"]
TrainRun = Callable[[Config, Sequence[str], Observer], Outcome]

DEATHS = 3  # of a trial's processes, one after the other without any progress, after which it has failed
KIND, REASON, STARTS = "ending", "reason", "starts"  # what is recorded of a trial, beside its values

# Optuna's samplers ignore failed trials, and rank pruned ones below all that have finished. So a trial that diverged,
# or whose settings cannot work, counts as pruned: its settings are to blame. An error such as a full disk is not.
STATES: Mapping[Kind, TrialState] = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "invalid": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Ending:
    """How a trial ended. values: of its objectives. signal: received during its last run."""

    kind: Kind
    values: Sequence[float] = ()
    reason: str = ""
    signal: int | None = None


@dataclass(frozen=True)
class Plan:
    """What all trials of a search have in common.

    metrics: the keys of its objectives. prune: reasons to stop a run early. steps: in one run, at most. train_run:
    trains one run, from its config, the settings typed for it, and an observer.
    """

    problem: Problem
    metrics: Sequence[str]
    prune: Collection[str]
    seeds: Sequence[int]
    steps: int
    train_run: TrainRun


class Watcher(Observer):
    """Reports a run's metric to the study, and stops the run if it is to be pruned.

    first: the step of the trial at which the run starts; the runs of its other seeds come before.
    """

    def __init__(self, trial: Trial, plan: Plan, first: int) -> None:
        self.trial, self.plan, self.first = trial, plan, first
        self.reported = {*trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values}
        self.reason = ""

    def evaluated(self, step: int, metrics: Mapping[str, float], findings: Callable[[], Collection[str]]) -> bool:
        if len(self.plan.metrics) == 1:
            self.report(self.first + step, metrics.get(self.plan.metrics[0], math.nan))
        self.reason = self.reason_to_stop(step, findings)
        if self.reason:  # recorded before the run stops, in case the process is killed until then
            self.trial.set_user_attr(REASON, self.reason)
        return bool(self.reason)

    def report(self, step: int, value: float) -> None:
        """Report a value, unless a process that was killed has done so."""
        if step not in self.reported:
            self.reported.add(step)
            self.trial.report(value, step)

    def reason_to_stop(self, step: int, findings: Callable[[], Collection[str]]) -> str:
        if "metric" in self.plan.prune and self.trial.should_prune():
            return f"worse than the median at step {step:,}"
        diagnoses = [name for name in self.plan.prune if name != "metric"]
        found = findings() if diagnoses else ()
        return next((f"{name} at step {step:,}" for name in diagnoses if name in found), "")


def run_trial(claim: Claim, plan: Plan) -> Ending:
    """Run the trial, from where it was interrupted, and tell the study how it ended, unless it is interrupted again."""
    ending = ending_of(claim, plan)
    trial = claim.trial
    if ending.kind == "interrupted":
        trial.set_user_attr(STARTS, [])
        return ending
    trial.set_user_attr(KIND, ending.kind)
    if ending.reason:
        trial.set_user_attr(REASON, ending.reason)
    values = list(ending.values) if ending.kind == "finished" else None
    trial.study.tell(trial, values, STATES[ending.kind])
    return ending


def ending_of(claim: Claim, plan: Plan) -> Ending:
    trial, attributes = claim.trial, claim.trial.user_attrs
    if reason := attributes.get(REASON):  # its process was killed before the study was told
        return Ending(attributes.get(KIND, "pruned"), reason=reason)
    starts = [*attributes.get(STARTS, []), progress_of(claim.folder)]
    if starts[-DEATHS - 1 :] == starts[-1:] * (DEATHS + 1):
        return Ending("failed", reason=f"its process was killed {DEATHS} times without any progress")
    trial.set_user_attr(STARTS, starts)
    found: list[Sequence[float]] = []
    for index, seed in enumerate(plan.seeds):
        ending = run_seed(claim, plan, seed, index * plan.steps)
        if ending.kind != "finished":
            return ending
        found.append(ending.values)
        trial.set_user_attr(f"seed={seed}", list(ending.values))
        if ending.signal and index + 1 < len(plan.seeds):
            return Ending("interrupted", signal=ending.signal)
    return Ending(
        "finished", [math.fsum(values) / len(values) for values in zip(*found, strict=True)], "", ending.signal
    )


def progress_of(folder: Path) -> str:
    """The newest checkpoint of each run in a trial's folder, as text."""
    kept = {path.name: checkpoint.steps_in(path / "checkpoints") for path in folder.glob("seed=*")}
    return ", ".join(f"{name} at step {steps[-1]}" for name, steps in sorted(kept.items()) if steps)


def run_seed(claim: Claim, plan: Plan, seed: int, first: int) -> Ending:
    """Train the run with one seed. first: as in `Watcher`."""
    settings = [*claim.overrides, f"seed={seed}"]
    fixed = [word for word in plan.problem.fixed if not word.startswith("seed=")]
    watcher, run_dir = Watcher(claim.trial, plan, first), RunDir(claim.folder / f"seed={seed}")
    try:
        config = plan.problem.compose(settings) | {"run_dir": str(run_dir.path)}
        outcome = plan.train_run(config, [*fixed, *settings], watcher)
    except RunIsLocked as error:
        return Ending("failed", reason=str(error))
    except ValueError as error:  # of a run that has started, its files are to blame, and not its settings
        return Ending("failed" if run_dir.is_run else "invalid", reason=str(error))
    except OSError:  # as of a full disk, which would stop the other trials, too
        raise
    except Exception as error:  # as of too little memory for its networks
        return Ending("failed", reason=f"{type(error).__name__}: {error}")
    if outcome.status == "interrupted":
        if watcher.reason and not outcome.signal:
            return Ending("pruned", reason=watcher.reason)
        return Ending("interrupted", signal=outcome.signal)
    if outcome.status in ("diverged", "failed"):
        return Ending(outcome.status, reason=str(outcome.result["error"]), signal=outcome.signal)
    return ending_with_values(outcome.result, plan.metrics, config["train"]["keep_best"], outcome.signal)


def ending_with_values(
    result: Mapping[str, Any], metrics: Sequence[str], keep_best: str | None, signal: int | None
) -> Ending:
    """The ending of a run that has finished. Its value is that at the end, or the best one, if the run has kept it."""
    found = dict(result["metrics"])
    if keep_best is not None and result["best"] and result["best"]["value"] is not None:
        found[keep_best] = result["best"]["value"]
    if missing := [key for key in metrics if key not in found]:
        return Ending("failed", reason=f"the run has no metric {missing[0]}", signal=signal)
    if odd := [key for key in metrics if not math.isfinite(found[key])]:
        return Ending("diverged", reason=f"{odd[0]} is {found[odd[0]]}", signal=signal)
    return Ending("finished", [float(found[key]) for key in metrics], signal=signal)
