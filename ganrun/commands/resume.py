"""`ganrun resume run_dir=DIR`: continue an interrupted run with its own config, or extend a finished one."""

from pathlib import Path

from ganrun.checks import as_typed, cannot_change
from ganrun.commands import train
from ganrun.config import Config, resumable
from ganrun.records.run_dir import RunDir
from ganrun.training.options import TrainOptions
from ganrun.trusted import add_run


def main(config: Config, name: str = "") -> int:
    """Continue the run, and return the exit code.

    Raises ValueError if there is no run, and for a setting that cannot change.
    """
    run_dir, typed_trackers = RunDir(Path(config["run_dir"])), config.get("tracker")
    add_run(run_dir.path)
    stored = run_dir.config(config["data"].get("root"))
    given = {key: value for key, value in config["train"].items() if value is not None}
    for key, value in given.items():
        if f"train.{key}" not in resumable():
            raise ValueError(cannot_change(f"train.{key}", as_typed(value)))
    options = TrainOptions.of({**stored["train"], **given})
    changes = {f"train.{key}": value for key, value in given.items() if value != stored["train"].get(key)}
    overrides = None
    if changes and run_dir.command_file.exists():
        typed = [override for override in run_dir.overrides() if override.partition("=")[0] not in changes]
        overrides = [*typed, *(f"{key}={as_typed(value)}" for key, value in changes.items())]
    config = {**stored, "train": {**stored["train"], **given}, "run_dir": config["run_dir"]}
    config["tracker"] = typed_trackers
    return train.main(config, overrides=overrides, options=options, changes=changes.keys())
