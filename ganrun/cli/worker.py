"""One job of a sweep, in the process in which a launcher calls it."""

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from ganrun.cli import isolation
from ganrun.cli.devices import use
from ganrun.cli.isolation import Killed
from ganrun.cli.launch import BESIDE, Launch
from ganrun.cli.load import load
from ganrun.records.sweep_dir import Job, SweepDir, progress_line, remaining_seconds
from ganrun.training.interrupts import SIGNALS

log = logging.getLogger("ganrun")

DIVERGED = 3  # exit code
SIGNAL = 128  # an exit code of 128 + N means that signal N interrupted the job
WATCHED: set[int] = set()  # this process, once it watches its parent


@dataclass
class Worker:
    """What a process needs to run the jobs of one launch. It is sent to other processes, by pickle.

    id: of the launch. names: of its jobs, in their order. command: the process of the command, on its host; isolated:
    whether that is a program, which starts other processes. ignored: the signals that its jobs ignore.
    """

    folder: Path
    id: str
    launch: Launch
    isolated: bool
    fail_fast: bool = False
    names: tuple[str, ...] = ()
    ignored: tuple[int, ...] = ()
    command: int = 0
    cwd: str = ""

    @property
    def sweep(self) -> SweepDir:
        return SweepDir(self.folder)

    @property
    def is_beside(self) -> bool:
        return self.launch.kind in BESIDE

    def is_stopped(self) -> bool:
        return self.sweep.is_stopped(self.id)

    def job(self, number: int) -> Job:
        plan = dict(self.sweep.plan().jobs)
        name = self.names[number]
        return Job(name, self.sweep.path / plan.get(name, name))

    def work(self, number: int, run: Callable[[], tuple[str, int, str]]) -> tuple[str, int, str]:
        """Run a job, record how it ended, and return its name, exit code and problem. Does nothing if stopped."""
        name = self.names[number]
        if self.is_stopped():
            return name, 0, ""
        if self.launch.kind == "serial" and len(self.names) > 1:
            self.log_progress()
        self.sweep.record(name, started=True, pid=os.getpid(), host=os.uname().nodename, launch=self.id)
        if not self.isolated or self.launch.kind in ("submitit", "other") or not isolation.CAN_FORK:
            found = self.run_here(name, run)
        else:
            found = self.run_apart(name, run)
        if found[1] == -1:  # killed: the command decides whether it is tried again
            return name, 0, ""
        self.record(*found)
        if self.fail_fast and is_failure(found[1]):
            self.sweep.stop(self.id)
        return found

    def run_here(self, name: str, run: Callable[[], tuple[str, int, str]]) -> tuple[str, int, str]:
        """Run the job in this process, which may serve no other job."""
        _, code, problem = run()
        if self.launch.kind == "submitit" and code - SIGNAL in SIGNALS:
            self.record(name, code, problem)
            signal.raise_signal(code - SIGNAL)  # now for submitit, which queues a preempted job again
        return name, code, problem

    def run_apart(self, name: str, run: Callable[[], tuple[str, int, str]]) -> tuple[str, int, str]:
        """Run the job in a child process; the exit code -1 means that it was killed."""
        self.prepare()
        output = self.sweep.output_of(name)
        try:
            found: list[Any] = isolation.in_child(run, partial(self.prepare_child, name, output))
        except Killed as killed:
            if killed.number in SIGNALS:  # before training, which catches it
                return name, SIGNAL + killed.number, "interrupted"
            self.sweep.record(name, started=True, killed=str(killed), launch=self.id)
            return name, -1, str(killed)
        except RuntimeError as error:
            return name, 1, f"{error}; see {output}" if output.exists() else str(error)
        if self.is_beside and found[1] == 0:
            output.unlink(missing_ok=True)
        return name, int(found[1]), str(found[2])

    def prepare(self) -> None:
        """Prepare this process for its jobs: import what most of them need, once, and end with the parent."""
        if os.getpid() in WATCHED:
            return
        WATCHED.add(os.getpid())
        if self.is_beside:
            isolation.watch(os.getppid(), partial(os._exit, 1))
            isolation.ignore_signals()
        with suppress(OSError):
            os.chdir(self.cwd)
        load("train")
        import ganrun.figures.density  # noqa: F401

    def prepare_child(self, name: str, output: Path) -> None:
        """Prepare the process of one job."""
        isolation.receive_signals(self.ignored)
        for memory in (handler for handler in log.handlers if isinstance(handler, MemoryHandler)):
            memory.buffer.clear()  # messages about the sweep, which do not belong into the log of a job
        if self.is_beside:
            isolation.write_output_to(output)
        here = os.getpid()
        self.sweep.record(name, started=True, pid=here, host=os.uname().nodename, launch=self.id)
        isolation.watch(os.getppid(), partial(os.kill, here, signal.SIGTERM), self.is_stopped)
        self.lock = use(self.launch.share, self.is_stopped)

    def record(self, name: str, code: int, problem: str) -> None:
        failed = {"failed": problem} if is_failure(code) else {}
        self.sweep.record(name, code=code, launch=self.id, **failed)

    def log_progress(self) -> None:
        sweep = self.sweep
        rows = [sweep.row(job) for job in sweep.jobs()]
        log.info("")
        log.info(progress_line(rows, remaining_seconds(rows, sweep.plan(), time.time())))


def is_failure(code: int) -> bool:
    return code not in (0, DIVERGED) and code - SIGNAL not in SIGNALS
