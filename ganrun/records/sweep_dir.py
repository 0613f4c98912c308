"""The directory of a sweep: its list of jobs, and how far each of them has come. Does not import torch.

Next to the run directories is a folder `.sweep`, with

- `jobs.json`: the jobs of the last command,
- `jobs/NAME.json`: the start and the end of a job, in the words of the process that started it,
- `jobs/NAME.log`: the output of a job that runs beside others, until it has finished,
- `.lock`, which the command locks while it runs, and `stop`, with which it stops its jobs.

Processes on other machines see the same files, so they are all that the parts of a sweep have in common.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import yaml

from ganrun.config import slug
from ganrun.console import status_text, time_left
from ganrun.files import lock, opened_to_append, read_file, replace_text
from ganrun.records.state import State, ending_of, is_locked, state_of

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
TAIL = 10_000  # bytes at the end of metrics.jsonl that hold its last rows
KILLED = "the process was killed by signal"  # how the error of a job begins whose process did not survive
UNFINISHED: tuple[State, ...] = ("missing", "interrupted", "killed")


@dataclass(frozen=True)
class Job:
    """A job of a sweep, with its run directory."""

    name: str
    path: Path


@dataclass(frozen=True)
class Row:
    """How far a job has come. error: its first line. share: of the steps that are done, in [0, 1]."""

    job: Job
    state: State
    error: str = ""
    share: float = 0.0

    @property
    def is_done(self) -> bool:
        return self.state in ("finished", "diverged", "failed")


@dataclass
class Plan:
    """The content of jobs.json.

    launched: the names of the jobs that were started together, in the order of their numbers. started, share: the time
    of that, and how much of the jobs was done then, in jobs.
    """

    launch: str = ""
    jobs: list[tuple[str, str]] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)
    started: float = 0.0
    share: float = 0.0


class SweepDir:
    """The files of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.own = self.path / ".sweep"
        self.plan_file = self.own / "jobs.json"
        self.lock_file: TextIO | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the sweep. Raises ValueError if another command runs it."""
        self.own.mkdir(parents=True, exist_ok=True)
        self.lock_file = opened_to_append(self.own / ".lock")
        try:
            try:
                lock(self.lock_file)
            except BlockingIOError:
                raise ValueError(
                    f"run_dir={self.path}: another command runs this sweep; `ganrun status {self.path}` shows it."
                ) from None
            yield
        finally:
            self.unlock()

    def unlock(self) -> None:
        """Close the lock file, also in a copy of the process, so that the lock ends with the process itself."""
        if self.lock_file:
            self.lock_file.close()

    @property
    def is_running(self) -> bool:
        return is_locked(self.own)

    def write_plan(self, plan: Plan) -> None:
        replace_text(self.plan_file, json.dumps(asdict(plan), indent=1) + "\n")

    def plan(self) -> Plan:
        """The last plan; an empty one if there is none, or none that can be read."""
        with suppress(OSError, ValueError, TypeError, RecursionError):
            plan = Plan(**json.loads(read_file(self.plan_file)))
            plan.jobs = [(str(name), str(path)) for name, path in plan.jobs]
            plan.started, plan.share = float(plan.started), float(plan.share)
            return plan
        return Plan()

    def jobs(self) -> list[Job]:
        """The jobs of the last command, then all other runs in the directory; a single run is its own job.

        The runs of a search are one level deeper, in the folders of its trials.
        """
        if (self.path / "config.yaml").is_file():
            return [Job(self.path.name, self.path)]
        planned = [Job(name, self.path / path) for name, path in self.plan().jobs]
        known = {job.path for job in planned}
        found = [*self.path.glob("*/config.yaml"), *self.path.glob("trial_*/*/config.yaml")]
        others = sorted({path.parent for path in found} - known)
        return [*planned, *(Job(str(path.relative_to(self.path)), path) for path in others)]

    def record(self, name: str, **facts: Any) -> None:
        """Record how a job started or ended, in place of what was recorded before."""
        path = self._file(name, "json")
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(facts) + "\n")

    def recorded(self, name: str) -> dict[str, Any]:
        with suppress(OSError, ValueError, RecursionError):
            found = json.loads(read_file(self._file(name, "json")))
            return found if isinstance(found, dict) else {}
        return {}

    def forget(self, name: str) -> None:
        self._file(name, "json").unlink(missing_ok=True)

    def output_of(self, name: str) -> Path:
        return self._file(name, "log")

    def _file(self, name: str, kind: str) -> Path:
        return self.own / "jobs" / f"{slug(name)}.{kind}"

    def stop(self, launch: str) -> None:
        """Ask all jobs that were started under this name to stop."""
        replace_text(self.own / "stop", launch)

    def is_stopped(self, launch: str) -> bool:
        with suppress(OSError, ValueError):
            return read_file(self.own / "stop").decode() == launch
        return False

    def row(self, job: Job) -> Row:
        state, facts = state_of(job.path), self.recorded(job.name)
        error = ending_of(job.path).get("error") or ""
        if state in UNFINISHED and facts.get("failed"):
            state, error = "failed", facts["failed"]
        error = str(error).strip().splitlines()[0] if state in ("failed", "diverged") and error else ""
        return Row(job, state, error, 1.0 if state == "finished" else share_of(job.path))

    def log_of(self, row: Row) -> Path | None:
        """The file that tells most about a job: of one that was killed, the output of its process."""
        files = [row.job.path / "train.log", self.output_of(row.job.name)]
        if row.error.startswith(KILLED):
            files.reverse()
        return next((path for path in files if path.exists()), None)


def share_of(path: Path) -> float:
    """The share of the steps of a run that are done, from its last logged row."""
    steps = steps_of(path)
    return min(1.0, last_step(path) / steps) if steps else 0.0


_steps: dict[Path, tuple[int, int]] = {}


def steps_of(path: Path) -> int:
    """train.steps of the run; 0 if it cannot be read."""
    file = path / "config.yaml"
    with suppress(OSError, yaml.YAMLError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        changed = file.stat().st_mtime_ns
        if _steps.get(path, (0, 0))[0] != changed:
            _steps[path] = changed, int(yaml.load(read_file(file), LOADER)["train"]["steps"])
        return _steps[path][1]
    return 0


def last_step(path: Path) -> int:
    """The step of the last complete row of metrics.jsonl; 0 if there is none."""
    with suppress(OSError, ValueError):
        lines = read_file(path / "metrics.jsonl", TAIL).split(b"\n")
        for line in reversed(lines[:-1]):
            with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
                return max(0, int(json.loads(line)["step"]))
    return 0


def remaining_seconds(rows: Sequence[Row], plan: Plan, now: float) -> float | None:
    """The time until all jobs are done, at the rate since the launch; None while it is unknown.

    Work is counted in jobs, and one that has not finished counts by its steps, so that jobs of one length are assumed.

    >>> done, half = Row(Job("a", Path()), "finished", share=1), Row(Job("b", Path()), "running", share=0.5)
    >>> remaining_seconds([done, half], Plan(started=100, share=0), 130)
    10.0
    """
    left = sum(1 - row.share for row in rows if not row.is_done)
    return time_left(left, sum(row.share for row in rows) - plan.share, now - plan.started)


def counts(rows: Sequence[Row]) -> Mapping[str, int]:
    """The number of jobs in each state that occurs.

    >>> counts([Row(Job("a", Path()), "finished"), Row(Job("b", Path()), "running")])
    {'finished': 1, 'running': 1}
    """
    order = ("finished", "running", "diverged", "failed", "interrupted", "killed", "missing")
    number = {state: sum(row.state == state for row in rows) for state in order}
    return {state: count for state, count in number.items() if count}


def table(sweep: SweepDir, rows: Sequence[Row], width: int = 60) -> list[str]:
    """The lines of a table of jobs: name, state, first line of the error, log file."""
    cells = [("job", "status", "error", "log")]
    for row in rows:
        done = f"{row.state} {row.share:.0%}" if row.state in ("running", "interrupted", "killed") else row.state
        log = sweep.log_of(row)
        cells.append((row.job.name, done, row.error, os.path.relpath(log) if log else "-"))
    sizes = [max(len(cell[column]) for cell in cells) for column in range(3)]
    sizes[2] = min(sizes[2], width)  # a longer error is not cut off, but moves the log file
    return ["  " + "  ".join([*(c.ljust(s) for c, s in zip(row[:3], sizes, strict=True)), row[3]]) for row in cells]


def progress_line(rows: Sequence[Row], seconds: float | None = None) -> str:
    """
    >>> progress_line([Row(Job("a", Path()), "finished"), Row(Job("b", Path()), "missing")], 75)
    'sweep: 1 of 2 done, 1 to do, ETA 0:01:15'
    """
    found = {state: sum(row.state == state for row in rows) for state in ("running", "failed", "diverged")}
    found["to do"] = sum(row.state in UNFINISHED for row in rows)
    return status_text("sweep", sum(row.is_done for row in rows), len(rows), found, seconds)
