"""The process: its standard streams and its interrupts. Imports nothing heavy, since it is used before all else."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

UNREAD = (errno.EPIPE, errno.EIO)  # nobody reads the output: of `ganrun | head`, and of a closed terminal


def open_closed_streams() -> None:
    """Open the standard streams that the caller has closed, as in `ganrun >&-`. What is written to them is discarded.

    Otherwise the first files of the run get their numbers, and what a library prints is written into these files.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, unless a file has taken it
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def discard(stream: TextIO) -> None:
    """Discard what is, and was, written to a stream that fails. The end of the program would otherwise fail, too."""
    with contextlib.suppress(OSError, ValueError):  # of a stream without a file, as in a notebook
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)


def flush_streams() -> bool:
    """Flush the standard streams, for the end of the program. False: what was printed is lost, as on a full disk."""
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            discard(stream)
            if error.errno not in UNREAD:
                written = False
                print(f"standard output: {error.strerror}.", file=sys.stderr)
    return written


@contextlib.contextmanager
def interrupts_end_the_process() -> Iterator[None]:
    """Let Ctrl-C end the process at once and without a traceback, for imports.

    KeyboardInterrupt has a traceback before the command line can catch it, and within the import of torch it can be
    lost, or abort the process.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler:  # ignored, or of the calling program
        yield
        return
    with contextlib.suppress(ValueError):  # not in the main thread, where alone Python allows handlers
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, handler)


def exit_as_error(found: SystemExit) -> RuntimeError:
    """An error in place of the sys.exit() of a component, which would end the process, or the sweep, without a word."""
    import traceback

    at = traceback.extract_tb(found.__traceback__)[-1]
    return RuntimeError(f"sys.exit({found.code!r}) was called in {at.filename}, line {at.lineno}")
