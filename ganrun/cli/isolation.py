"""Processes of a sweep: each job in a process of its own, none of which outlives the command that started it.

A job is forked from a worker that has imported torch, but has not used it: starting takes a few milliseconds, a crash
ends this job alone, and every job finds the same fresh process, whatever ran before it.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ganrun.records.sweep_dir import KILLED
from ganrun.training.interrupts import SIGNALS

EVERY = 0.3  # seconds between two looks at the parent process
CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"  # there, libraries of the system do not survive a fork


class Killed(Exception):
    """A process was ended by a signal. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{KILLED} {number} ({meaning(number)})")
        self.number = number


def meaning(number: int) -> str:
    """The meaning of a signal.

    >>> meaning(11), meaning(9)
    ('segmentation fault', 'killed, perhaps for its memory')
    """
    if number == signal.SIGKILL:
        return "killed, perhaps for its memory"
    return (signal.strsignal(number) or "unknown").lower()


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, in a process with threads
        flush()
        return os.fork()


def in_child(function: Callable[[], Any], prepare: Callable[[], None]) -> Any:
    """Call `prepare()` and `function()` in a forked process, and return the result, which must be as in JSON.

    Raises Killed if the process does not survive, and RuntimeError if it ends otherwise without a result.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    if not (pid := fork()):
        code = 1
        try:
            os.close(reader)
            watch(parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
            prepare()
            found = json.dumps(function()).encode()
            flush()
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(found)
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            flush()
            os._exit(code)  # the rest of this program belongs to the parent
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        raise Killed(os.WTERMSIG(status))
    if not found:
        raise RuntimeError(f"the process ended with exit code {os.WEXITSTATUS(status)}")
    return json.loads(found)


def watch(parent: int, ended: Callable[[], object], stopped: Callable[[], bool] = lambda: False) -> None:
    """In a thread, call `ended()` once: when `parent` is no longer the parent process, or `stopped()` is true."""

    def look() -> None:
        while os.getppid() == parent and not stopped():
            time.sleep(EVERY)
        ended()

    threading.Thread(target=look, daemon=True).start()


def ignored_signals() -> list[int]:
    """Those of SIGNALS that the calling program had set to be ignored, as nohup does."""
    return [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]


def ignore_signals() -> None:
    """Ignore SIGNALS in a process between the command, which receives them, and the job, to which it passes them on.

    Processes started from here ignore them, too.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def receive_signals(ignored: Collection[int]) -> None:
    """Undo `ignore_signals` in a job. ignored: those that stay ignored."""
    for number in SIGNALS:
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        elif number not in ignored:
            signal.signal(number, signal.SIG_DFL)


def write_output_to(path: Path) -> None:
    """Append standard output and standard error of this process to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(file, number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))
    os.close(file)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
