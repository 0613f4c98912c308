"""The output of a run: a progress bar on a terminal, plain lines elsewhere, and everything in train.log."""

import contextlib
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from ganrun.files import opened_to_append
from ganrun.process import UNREAD, discard

log = logging.getLogger("ganrun")

LINE_SECONDS = 10  # between plain lines


class Progress:
    """The progress of a run, from step `start` to `steps`."""

    def __init__(self, start: int, steps: int) -> None:
        self.steps, self.at, self.time = steps, start, time.perf_counter()
        self.printed = -float("inf")
        disable = None if sys.stderr else True  # None: unless it is a terminal
        leave = not is_quiet()
        self.bar = tqdm(total=steps, initial=start, unit="step", disable=disable, dynamic_ncols=True, leave=leave)

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Show the losses and the rate at `step`."""
        losses = {"D": values["loss/d"], "G": values["loss/g"]}
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()}, refresh=False)
        self.bar.update(step - self.bar.n)
        now = time.perf_counter()
        due = self.bar.disable and (now - self.printed >= LINE_SECONDS or step == self.steps)
        rate = (step - self.at) / (now - self.time)
        self.at, self.time = step, now
        line = f"step {step:,}/{self.steps:,}  " + "  ".join(f"loss {k} {v:.3f}" for k, v in losses.items())
        line += f"  {rate:,.3g} steps/s  ETA {eta((self.steps - step) / rate)}"
        log.log(logging.INFO if due else logging.DEBUG, line)
        if due:
            self.printed = now

    def close(self) -> None:
        self.bar.close()


class Counter:
    """How many of `total` things a command has made, such as samples: a bar on a terminal, lines elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.began = self.printed = time.monotonic()
        disable = None if sys.stderr else True  # None: unless it is a terminal
        leave = not is_quiet()
        self.bar = tqdm(total=total, unit=f" {what}", disable=disable, dynamic_ncols=True, leave=leave)

    def add(self, num: int) -> None:
        """Count `num` more. Without a terminal, a line is printed every LINE_SECONDS."""
        self.done += num
        self.bar.update(num)
        now = time.monotonic()
        if self.bar.disable and now - self.printed >= LINE_SECONDS:
            self.printed = now
            left = time_left(self.total - self.done, self.done, now - self.began)
            log.info(status_text(self.what, self.done, self.total, {}, left))

    def close(self) -> None:
        self.bar.close()


class StatusLine:
    """A line that says how far several runs have come: on a terminal one line, which is replaced.

    is_plain: whether it is no terminal. `show` then prints a line every LINE_SECONDS at most, if it has changed.
    """

    def __init__(self) -> None:
        self.bar = tqdm(bar_format="{desc}", disable=None if sys.stderr else True, dynamic_ncols=True)
        self.is_plain = bool(self.bar.disable)
        self.printed, self.before = time.monotonic(), ""

    def show(self, text: str) -> None:
        self.bar.set_description_str(text)
        if self.is_plain and text != self.before and time.monotonic() - self.printed >= LINE_SECONDS:
            self.printed, self.before = time.monotonic(), text
            log.info(text)

    def close(self) -> None:
        self.bar.close()


def status_text(
    what: str, done: int, total: int, counts: Mapping[str, int], seconds: float | None = None, more: str = ""
) -> str:
    """How far several runs have come.

    counts: further numbers by their names. seconds: until the end, if that is known. more: what else is to be said.

    >>> status_text("sweep", 1, 3, {"running": 1, "to do": 1}, 75)
    'sweep: 1 of 3 done, 1 running, 1 to do, ETA 0:01:15'
    """
    parts = [f"{done} of {total} done", *(f"{number} {name}" for name, number in counts.items() if number)]
    parts += [more] if more else []
    parts += [f"ETA {eta(seconds)}"] if seconds is not None and done < total else []
    return f"{what}: {', '.join(parts)}"


def time_left(left: float, done: float, seconds: float) -> float | None:
    """The time that the work that is left takes, if what is done took these seconds; None while that is unknown."""
    return left * seconds / done if done > 0 and seconds > 0 else None


def eta(seconds: float) -> str:
    """The remaining time as H:MM:SS.

    >>> eta(3725), eta(59.9)
    ('1:02:05', '0:00:59')
    """
    return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}:{int(seconds % 60):02d}"


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """`text` with escapes for control characters, which could erase or color lines on a terminal, or reorder them.

    Newlines and tabs are kept. So are lone surrogates, bytes in file names that are not UTF-8.

    >>> print(visible("run\\x1b[2J"))
    run\\x1b[2J
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def print_traceback() -> None:
    """Print the traceback of the current exception, on standard error."""
    print(visible(traceback.format_exc()), end="", file=sys.stderr)


class Visible(logging.Formatter):
    """Formats messages without control characters. A message is one line, so that a name in it cannot add others."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).replace("\n", "\\n")

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class Console(logging.Handler):
    """Messages on standard output, warnings on standard error, without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        text = self.format(record)
        if stream is None:  # closed, in Python without a console
            return
        try:
            encoding = stream.encoding or "utf-8"
            tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
            stream.flush()
        except (OSError, ValueError) as error:  # a closed pipe, as in `ganrun | head`, must not stop training
            if not isinstance(error, OSError) or error.errno in UNREAD:
                discard(stream)


class LogFile(logging.StreamHandler[TextIO]):
    """A file of messages. If it cannot be written, as on a full disk, one warning says so."""

    def __init__(self, path: Path) -> None:
        super().__init__(opened_to_append(path))
        self.path, self.failed = path, False
        self.setFormatter(Visible("%(asctime)s %(levelname)-7s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            self.failed = True
            log.warning("%s: cannot be written (%s).", self.path, sys.exception())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a write that failed, and is tried again
            self.stream.close()
        super().close()


@contextmanager
def logging_to_console() -> Iterator[None]:
    """Print messages, and keep them for a log file that `logging_to_file` may open later."""
    console, memory = (
        Console(logging.INFO),
        MemoryHandler(10**6, flushLevel=logging.CRITICAL + 1, flushOnClose=False),
    )
    console.setFormatter(Visible())
    log.setLevel(logging.DEBUG)
    log.propagate = False
    for handler in (console, memory):
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in (console, memory):
            log.removeHandler(handler)
            handler.close()


@contextmanager
def quiet(least: int = logging.WARNING) -> Iterator[None]:
    """Print only messages of this level or above; log files get all. A progress bar vanishes at its end."""
    consoles = [handler for handler in log.handlers if isinstance(handler, Console)]
    levels = [console.level for console in consoles]
    for console in consoles:
        console.setLevel(least)
    try:
        yield
    finally:
        for console, level in zip(consoles, levels, strict=True):
            console.setLevel(level)


def is_quiet() -> bool:
    return any(isinstance(handler, Console) and handler.level > logging.INFO for handler in log.handlers)


@contextmanager
def logging_to_file(path: Path) -> Iterator[None]:
    """Append all messages, including earlier ones, to the file."""
    file = LogFile(path)
    memories = [handler for handler in log.handlers if isinstance(handler, MemoryHandler)]
    for memory in memories:
        memory.setTarget(file)
        memory.flush()
        memory.setTarget(None)
        log.removeHandler(memory)
    log.addHandler(file)
    try:
        yield
    finally:
        log.removeHandler(file)
        file.stream.close()
        for memory in memories:  # for the next run of a sweep
            log.addHandler(memory)
