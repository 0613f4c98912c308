"""`ganrun resume run_dir=DIR`: continue an interrupted run with the config that it was started with."""

from pathlib import Path

from ganrun.commands import train
from ganrun.config import Config
from ganrun.records.run_dir import RunDir


def main(config: Config, name: str = "") -> int:
    """Raises ValueError where there is no run."""
    stored = RunDir(Path(config["run_dir"])).config(config["data"].get("root"))
    return train.main({**stored, "run_dir": config["run_dir"]})
