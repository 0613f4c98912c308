"""Several processes that work on the same search, each with the same command."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import torch

from ganrun.training.interrupts import Interrupts

WORKER = "GANRUN_SEARCH_WORKER"  # the variable of the environment that tells a process that it is a worker
POLL_SECONDS = 0.2
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


def run_workers(line: Sequence[str], num: int) -> int | None:
    """Run `num` processes until no trial is left. Returns the signal that this process has received, or None.

    line: the arguments of ganrun. A worker that is killed, as for its use of memory, is started again. A signal stops
    all workers, each after it has saved its run.
    """
    processes = {number: started(line, number, num) for number in range(num)}
    restarts = dict.fromkeys(processes, 0)
    told = False
    try:
        with Interrupts() as interrupts:
            while any(process.poll() is None for process in processes.values()):
                if interrupts.received() and not told:
                    told = True
                    for process in processes.values():
                        process.send_signal(signal.SIGTERM)
                for number, process in processes.items():
                    killed = process.poll() is not None and process.returncode < 0
                    if killed and not interrupts.received() and restarts[number] < MOST_RESTARTS:
                        restarts[number] += 1
                        processes[number] = started(line, number, num)
                time.sleep(POLL_SECONDS)
            return interrupts.signal
    finally:
        for process in processes.values():
            process.kill()


def started(line: Sequence[str], number: int, num: int) -> "subprocess.Popen[str]":
    """A worker, with its share of the cores, and one of the GPUs."""
    program = [sys.executable, "-m", "ganrun", *line, "search.jobs=1"]
    variables = {**os.environ, WORKER: str(number)}
    if gpus := visible_gpus():
        variables["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    process = subprocess.Popen(
        program, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=variables, text=True, errors="replace"
    )
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process.pid, cores[number % len(cores) :: num])
    threading.Thread(target=copy_lines, args=(process,), daemon=True).start()
    return process


def visible_gpus() -> list[str]:
    """The GPUs of this process, as in CUDA_VISIBLE_DEVICES."""
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return chosen.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def copy_lines(process: "subprocess.Popen[str]") -> None:
    """Print what a worker prints on standard error, which is no terminal for it: progress bars would mix there."""
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)
