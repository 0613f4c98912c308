"""`ganrun resume run_dir=DIR`: continue an interrupted run with its own config."""

from pathlib import Path

from ganrun.commands import train
from ganrun.config import Config
from ganrun.records.run_dir import RunDir
from ganrun.trusted import add_run


def main(config: Config, name: str = "") -> int:
    """Continue the run, and return the exit code. Raises ValueError if there is no run."""
    run_dir = RunDir(Path(config["run_dir"]))
    add_run(run_dir.path)
    stored = run_dir.config(config["data"].get("root"))
    return train.main({**stored, "run_dir": config["run_dir"]})
