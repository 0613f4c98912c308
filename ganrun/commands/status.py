"""`ganrun status DIR`: how far the jobs of a sweep have come."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from ganrun.checks import check_arguments
from ganrun.config import Config
from ganrun.records.sweep_dir import SweepDir, counts, progress_line, remaining_seconds, table

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class StatusOptions:
    """The settings of conf/status.yaml."""

    dirs: str | list[str]


def main(config: Config, name: str = "") -> int:
    """Print the states of all jobs. Raises ValueError for a directory without any."""
    check_arguments("", StatusOptions, config)
    dirs = StatusOptions(**config).dirs
    for path in [dirs] if isinstance(dirs, str) else dirs:
        sweep = SweepDir(Path(path))
        rows = [sweep.row(job) for job in sweep.jobs()]
        if not rows:
            raise ValueError(f"{path}: no sweep and no run there.")
        seconds = remaining_seconds(rows, sweep.plan(), time.time()) if sweep.is_running else None
        log.info(progress_line(rows, seconds))
        log.info("  %s", ", ".join(f"{number} {state}" for state, number in counts(rows).items()))
        if unfinished := [row for row in rows if row.state != "finished"]:
            for line in table(sweep, unfinished):
                log.info(line)
    return 0
