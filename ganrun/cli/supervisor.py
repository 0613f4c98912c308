"""The command that runs a sweep: it finds out which jobs are to run, starts them, and reports how they ended.

All it knows about the jobs it reads from the directory of the sweep. The launcher runs in a child process, so that
nothing that happens to a job or to the launcher can end the sweep.
"""

import atexit
import json
import logging
import os
import secrets
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from ganrun.cli import isolation
from ganrun.cli.launch import GivenJobs, SweepOptions
from ganrun.cli.worker import SIGNAL, Worker
from ganrun.console import StatusLine
from ganrun.files import replace_text
from ganrun.records.state import ENDINGS, ending_of, is_locked
from ganrun.records.sweep_dir import (
    Job,
    Plan,
    Row,
    SweepDir,
    counts,
    last_step,
    progress_line,
    remaining_seconds,
    table,
)
from ganrun.training.interrupts import SIGNALS

log = logging.getLogger("ganrun")

LOOK = 0.2  # seconds between two looks at the launcher
LOOK_AT_RUNS = 1.0  # and at the runs
GRACE = 10.0  # seconds for a launcher to end after its last job
LAUNCHES = 2  # in which a job may be killed before it counts as failed; the last one runs it alone


class Supervisor:
    """One command that runs a sweep."""

    def __init__(
        self, sweep: SweepDir, jobs: Sequence[tuple[Job, list[str]]], options: SweepOptions, worker: Worker,
        start: Callable[[], None],
    ) -> None:  # fmt: skip
        """jobs: all of the sweep, each with its overrides. start: starts Hydra with the jobs of `GivenJobs`."""
        self.sweep, self.options, self.worker, self.start = sweep, options, worker, start
        self.jobs = [job for job, _ in jobs]
        self.overrides = {job.name: overrides for job, overrides in jobs}
        self.rows: dict[str, Row] = {}
        self.ended: set[str] = set()  # jobs that are not started again by this command
        self.deaths: dict[str, int] = {}
        self.signal: int | None = None
        self.is_unsent = False  # whether the signal has yet to be passed on
        self.child = 0
        self.problem = ""

    def run(self) -> int:
        """Run what is missing, and return the exit code."""
        with self.sweep.locked(), self.receiving_signals():
            (self.sweep.own / "stop").unlink(missing_ok=True)
            self.look()
            self.announce()
            self.ended |= {row.job.name for row in self.rows.values() if row.is_done and not self.is_retried(row)}
            with self.progress() as show:
                while self.signal is None and not self.problem:
                    if jobs := self.due():
                        self.launch(jobs, show)
                    elif any(row.state == "running" for row in self.rows.values()):
                        time.sleep(LOOK_AT_RUNS)  # until another process has finished with it
                        self.look()
                        show()
                    else:
                        break
            self.look()
            return self.report()

    def is_retried(self, row: Row) -> bool:
        return row.state in self.options.retry

    def look(self) -> None:
        """Read the states of all jobs that this command may still have to do with."""
        for job in self.jobs:
            old = self.rows.get(job.name)
            if old is None or not (old.is_done and job.name in self.ended):
                self.rows[job.name] = self.sweep.row(job)

    def due(self) -> list[Job]:
        """The jobs to start next: all together, and then one by one those that did not survive that."""
        self.look()
        jobs = [job for job in self.jobs if job.name not in self.ended and self.rows[job.name].state != "running"]
        together = [job for job in jobs if not self.deaths.get(job.name)]
        return together or jobs[:1]

    def announce(self) -> None:
        rows = list(self.rows.values())
        done = {state: number for state, number in counts(rows).items() if state != "missing"}
        jobs = "1 job" if len(rows) == 1 else f"{len(rows)} jobs"
        states = ", of which " + ", ".join(f"{number} {state}" for state, number in done.items()) if done else ""
        log.info("sweep: %s in %s%s", jobs, os.path.relpath(self.sweep.path), states)

    def launch(self, jobs: Sequence[Job], show: Callable[[], None]) -> None:
        """Start these jobs, and wait until the launcher has ended."""
        names = [job.name for job in jobs]
        for name in names:
            self.sweep.forget(name)
        worker = self.worker
        worker.id, worker.names = secrets.token_hex(8), tuple(names)
        share = sum(self.rows[name].share for name in self.rows)
        everything = [(job.name, os.path.relpath(job.path, self.sweep.path)) for job in self.jobs]
        self.sweep.write_plan(Plan(worker.id, everything, names, time.time(), share))
        GivenJobs.jobs = [self.overrides[name] for name in names]
        GivenJobs.one_by_one = worker.launch.kind == "serial"
        if worker.isolated and isolation.CAN_FORK:
            code, error = self.in_child(show)
        else:
            code, error = self.in_this_process()
        self.look()
        self.settle(names, code, error)

    def in_this_process(self) -> tuple[int, str]:
        try:
            self.start()
        except SystemExit as found:
            return int(found.code or 0), ""
        return 0, ""

    def in_child(self, show: Callable[[], None]) -> tuple[int, str]:
        """Run the launcher in a child process; its exit code, or minus the signal that ended it, and its error."""
        reader, writer = os.pipe()
        parent = os.getpid()
        if not (child := isolation.fork()):
            os.close(reader)
            self.run_launcher(parent, writer)
        os.close(writer)
        self.child = child
        try:
            code = self.wait(show)
        finally:
            self.child = 0
        with os.fdopen(reader, "rb") as pipe:
            os.set_blocking(pipe.fileno(), False)  # an orphan may hold the other end
            error = (pipe.read() or b"").decode(errors="replace")
        return code, error

    def run_launcher(self, parent: int, writer: int) -> None:
        """Run the launcher, in a child process, and end this process."""
        code = 1
        try:
            os.setpgid(0, 0)
            self.sweep.unlock()
            isolation.ignore_signals()
            isolation.watch(parent, lambda: os._exit(1))
            os.environ["PYTHONSAFEPATH"] = "1"  # workers do not import modules of the working directory
            os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # which cleans up after this process
            if self.worker.is_beside:
                isolation.write_output_to(self.sweep.own / "launcher.log")
            self.start()
            code = 0
        except SystemExit as found:
            code = int(found.code or 0) if not isinstance(found.code, str) else 1
        except BaseException as error:
            if self.worker.is_beside:
                traceback.print_exc()  # in launcher.log
            os.write(writer, f"{type(error).__name__}: {error}".encode(errors="replace")[:4000])
        finally:
            with suppress(BaseException):
                self.end_workers()
            isolation.flush()
            os._exit(code)

    def end_workers(self) -> None:
        """End the launcher's idle workers. Those of joblib would need seconds to end by themselves."""
        if self.worker.launch.kind == "joblib":
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True, kill_workers=True)
        elif self.worker.launch.kind != "serial":
            atexit._run_exitfuncs()

    def wait(self, show: Callable[[], None]) -> int:
        """Wait for the launcher; pass signals on to its jobs, and end it if it outlives them."""
        over_since, looked = 0.0, time.monotonic()
        while True:
            if self.signal is not None and self.is_unsent:
                self.is_unsent = False
                self.stop_jobs(self.signal)
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            now = time.monotonic()
            if now - looked >= LOOK_AT_RUNS:
                looked = now
                self.look()
                show()
                if not self.is_over():
                    over_since = 0.0
                elif not over_since:
                    over_since = now
                elif now - over_since > GRACE:
                    os.kill(self.child, signal.SIGKILL)  # its workers end with it
            time.sleep(LOOK)

    def is_over(self) -> bool:
        """Whether no job of the launch is running, and none will be."""
        names = self.worker.names
        return not any(self.rows[name].state == "running" for name in names) and (
            self.worker.is_stopped() or all(self.has_ended(name) for name in names)
        )

    def settle(self, names: Sequence[str], code: int, error: str) -> None:
        """Decide what becomes of the jobs of a launch that has ended."""
        started = [name for name in names if self.sweep.recorded(name).get("started") or self.has_ended(name)]
        for name in names:
            facts, row = self.sweep.recorded(name), self.rows[name]
            if row.is_done or "code" in facts:
                self.ended.add(name)
            elif name in started and row.state != "running" and not self.worker.is_stopped():
                self.deaths[name] = self.deaths.get(name, 0) + 1
                if self.deaths[name] >= LAUNCHES:
                    self.give_up(row.job, facts.get("killed") or "its worker was killed, perhaps for its memory")
        if self.signal is None and code - SIGNAL in SIGNALS:
            self.signal = code - SIGNAL  # a job was interrupted, and with it a serial sweep
        if error and not started:
            self.problem = error
        elif (error or code < 0) and self.signal is None and not self.worker.is_stopped():
            log.warning("the launcher ended (%s); its jobs are tried again.", error.splitlines()[0] if error else code)
        if self.worker.is_stopped() and self.signal is None:
            self.problem = "fail_fast=true: stopped at the first job that failed."

    def has_ended(self, name: str) -> bool:
        return "code" in self.sweep.recorded(name)

    def give_up(self, job: Job, problem: str) -> None:
        """Record that a job failed, since it was killed again and again."""
        self.sweep.record(job.name, code=1, failed=problem, launch=self.worker.id)
        if (job.path / "config.yaml").exists() and not is_locked(job.path):
            result = {"status": "failed", "error": problem, "steps": last_step(job.path), "metrics": {}}
            replace_text(job.path / "result.json", json.dumps(result, indent=2) + "\n")
        self.ended.add(job.name)
        self.look()

    @contextmanager
    def receiving_signals(self) -> Iterator[None]:
        """Pass SIGNALS on to the jobs; a stop from the keyboard (Ctrl-Z) stops the launcher, too."""
        if not self.worker.isolated or not isolation.CAN_FORK:
            yield
            return
        before: dict[int, Any] = {}
        for number in SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, self.interrupt)
        before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self.suspend)
        try:
            yield
        finally:
            for received, handler in before.items():
                signal.signal(received, handler)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Only record the signal, which may come at any moment; `wait` passes it on."""
        self.signal, self.is_unsent = number, True

    def stop_jobs(self, number: int) -> None:
        """Let no more jobs start, and send a signal to those that run here; those elsewhere read the file."""
        with suppress(OSError):
            self.sweep.stop(self.worker.id)
        for name in self.worker.names:
            facts = self.sweep.recorded(name)
            pid, is_here = facts.get("pid"), facts.get("host") == os.uname().nodename
            is_current = facts.get("launch") == self.worker.id and "code" not in facts
            if is_current and pid and pid != self.child and is_here:
                with suppress(OSError):
                    os.kill(pid, number)

    def suspend(self, number: int, frame: FrameType | None) -> None:
        self.send_to_launcher(signal.SIGSTOP)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # returns when the process is continued
        signal.signal(number, self.suspend)
        self.send_to_launcher(signal.SIGCONT)

    def send_to_launcher(self, number: int) -> None:
        """Send a signal to the launcher and its workers, if there are any."""
        with suppress(OSError):
            if self.child:
                os.killpg(self.child, number)

    @contextmanager
    def progress(self) -> Iterator[Callable[[], None]]:
        """A function that shows the progress: in one line on a terminal, in plain lines elsewhere.

        Jobs that run one by one show their own.
        """
        if not self.worker.is_beside:
            yield lambda: None
            return
        status = StatusLine()
        known = {name: row.state for name, row in self.rows.items()}

        def show() -> None:
            rows = list(self.rows.values())
            for row in rows:
                if row.state != known[row.job.name]:
                    known[row.job.name] = row.state
                    if row.state in ENDINGS:
                        log.info("  %s: %s", row.job.name, row.state)
            status.show(progress_line(rows, remaining_seconds(rows, self.sweep.plan(), time.time())))

        try:
            yield show
        finally:
            show()
            status.close()

    def report(self) -> int:
        """Print how the jobs ended, and return the exit code: 1 if any failed, else of what else happened."""
        rows = list(self.rows.values())
        good = sum(row.state == "finished" for row in rows)
        log.info("sweep: %d of %d jobs succeeded", good, len(rows))
        if bad := [row for row in rows if row.state != "finished"]:
            for line in table(self.sweep, bad):
                log.error(line)
        if self.problem:
            log.error(self.problem)
        if self.signal is not None:
            log.error("interrupted; the same command continues.")
            return SIGNAL + self.signal
        return self.exit_code(rows)

    def exit_code(self, rows: Sequence[Row]) -> int:
        codes = {self.code_of(row) for row in rows} - {0}
        if self.problem:
            codes.add(1)
        return next(iter(codes)) if len(codes) == 1 else 1 if codes else 0

    def code_of(self, row: Row) -> int:
        if row.state == "finished":
            return 0
        if row.state == "diverged":
            return 3
        code = self.sweep.recorded(row.job.name).get("code")
        has_result = ending_of(row.job.path).get("status") == "failed"
        return code if isinstance(code, int) and code and not has_result else 1
