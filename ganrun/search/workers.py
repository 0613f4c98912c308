"""Several processes that work on the same search, each with the same command."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

import torch
from tqdm import tqdm

from ganrun.training.interrupts import Interrupts

WORKER = "GANRUN_SEARCH_WORKER"  # the variable of the environment that tells a process that it is a worker
POLL_SECONDS = 0.2
SHOW_SECONDS = 1.0  # between two looks at the study, for the progress
LAST_LINES_SECONDS = 5.0  # to print what a worker has printed before its end
MOST_RESTARTS = 10  # of each worker


def is_worker() -> bool:
    return WORKER in os.environ


def end_with_parent() -> None:
    """Let this worker stop, as on SIGTERM, when the process that started it ends. Its standard input then ends."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run_workers(line: Sequence[str], num: int, show: Callable[[], None]) -> int | None:
    """Run `num` processes until no trial is left. Returns the signal that this process has received, or None.

    line: the arguments of ganrun. show: shows the progress. A worker that is killed, as for its use of memory, is
    started again. A signal stops all workers, each after it has saved its run.
    """
    workers = {number: Worker(line, number, num) for number in range(num)}
    restarts = dict.fromkeys(workers, 0)
    told, shown = False, -math.inf
    try:
        with Interrupts() as interrupts:
            while True:
                if interrupts.received() and not told:
                    told = True
                    for worker in workers.values():
                        worker.process.send_signal(signal.SIGTERM)
                for number, worker in workers.items():
                    if worker.was_killed and not interrupts.received() and restarts[number] < MOST_RESTARTS:
                        restarts[number] += 1
                        workers[number] = Worker(line, number, num)
                if not any(worker.is_running for worker in workers.values()):
                    return interrupts.signal
                if time.monotonic() - shown >= SHOW_SECONDS:
                    show()
                    shown = time.monotonic()
                time.sleep(POLL_SECONDS)
    finally:
        for worker in workers.values():
            worker.end()


class Worker:
    """A process with its share of the cores, and one of the GPUs. What it prints is printed here, line by line."""

    def __init__(self, line: Sequence[str], number: int, num: int) -> None:
        program = [sys.executable, "-m", "ganrun", *line, "search.jobs=1"]
        variables = {**os.environ, WORKER: str(number)}
        if gpus := visible_gpus():
            variables["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            program, stdin=pipe, stdout=pipe, stderr=pipe, env=variables, text=True, errors="replace"
        )
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self.process.pid, cores[number % len(cores) :: num])
        streams = ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr))
        self.threads = [threading.Thread(target=copy_lines, args=pair, daemon=True) for pair in streams]
        for thread in self.threads:
            thread.start()

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def was_killed(self) -> bool:
        return (self.process.poll() or 0) < 0

    def end(self) -> None:
        """Kill the process if it is still running, and print the rest of what it has printed."""
        self.process.kill()
        for thread in self.threads:
            thread.join(LAST_LINES_SECONDS)


def visible_gpus() -> list[str]:
    """The GPUs of this process, as in CUDA_VISIBLE_DEVICES."""
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return chosen.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def copy_lines(pipe: IO[str], stream: IO[str]) -> None:
    """Print each line, without breaking the progress line of this process."""
    for line in pipe:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it
            tqdm.write(line, file=stream, end="")
            stream.flush()
