"""Checks of a run that is resumed with other settings, in particular with another last step."""

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ganrun.checks import as_typed
from ganrun.config import Config
from ganrun.training.run import Run

log = logging.getLogger("ganrun")

ROUNDING = ("device", "threads")  # settings of `train` on which the last bits of all results depend
MOST_COMPARED = 1000  # steps at which schedules are compared


def has_finished(result: Mapping[str, Any], config: Config, changes: Collection[str]) -> bool:
    """Whether a run with this result has no steps left under `config`, in which `changes` are new."""
    if result["status"] != "finished":
        return False
    stopped_early = result.get("stopped_early") and not {"train.steps", "train.patience"} & {*changes}
    return result["steps"] == config["train"]["steps"] or bool(stopped_early)


def check_last_step(config: Config, state: Mapping[str, Any], changes: Collection[str]) -> None:
    """Raise ValueError for a new last step that the run has passed, or that early stopping keeps it from reaching."""
    steps, step, best = config["train"]["steps"], state["step"], state.get("best")
    if "train.steps" not in changes:
        return
    if steps < step:
        raise ValueError(f"train.steps={steps}: the run is already at step {step}; choose a later step.")
    patience = config["train"]["patience"]
    if steps > step and best and 0 < patience <= best["evaluations_since"]:
        raise ValueError(
            f"train.steps={steps}: the run stopped early at step {step}, because of train.patience={patience}; "
            f"set this, too, as in train.patience=0, which never stops early."
        )


def warn_of_changes(run: Run, config: Config, state: Mapping[str, Any]) -> None:
    """Warn if the steps before this checkpoint were not those of a run with the present config."""
    before, now, step = state["config"]["train"], config["train"], state["step"]
    for name in ROUNDING:
        old, new = (as_typed(options.get(name)) for options in (before, now))
        if old != new:
            log.warning("train.%s=%s: was %s until step %d, and can round differently.", name, new, old, step)
    if names := list(_depending_on_the_end(run, config, before["steps"], step)):
        log.warning(
            "train.steps=%d: %s on the last step. The first %d steps were those of a run of %d steps, the others will "
            "be those of a run of %d steps, so the result differs from a run of that length.",
            now["steps"], " and ".join(names) + (" depend" if len(names) > 1 else " depends"),
            step, before["steps"], now["steps"],
        )  # fmt: skip


def _depending_on_the_end(run: Run, config: Config, before: int, step: int) -> Iterator[str]:
    """What had other values in the first `step` steps with `before` as the last step than it would have now."""
    options = run.options
    if before == options.steps:
        return
    others = {
        "momentum": run.momentum,
        "beta2_schedule": run.beta2_schedule,
        "penalty_schedule": run.penalty_schedule,
        "ema_schedule": run.ema_schedule,
        "augment_schedule": run.augment_schedule,
    }
    schedules = {key: schedule for key, schedule in others.items() if schedule is not None}
    for key, schedule in (("g_schedule", run.g_schedule), ("d_schedule", run.d_schedule)):
        schedules[key if config.get(key) else "schedule"] = schedule
    for name, schedule in schedules.items():
        compared = range(0, step, max(1, step // MOST_COMPARED))
        if any(schedule(k, before) != schedule(k, options.steps) for k in compared):
            yield f"{name} ({type(schedule).__name__})"
    if options.instance_noise and not options.instance_noise_until and step > 1:
        yield "train.instance_noise"
