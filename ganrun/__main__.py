"""The program `ganrun`: what the process needs around the command line, so that it never ends in a Python traceback."""

import faulthandler
import os
import signal
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` adds the working directory, where libraries would find ./dill.py

from ganrun.process import flush_streams, interrupts_end_the_process, open_closed_streams


def main() -> int:
    """Run the command line, and return its exit code."""
    open_closed_streams()
    faulthandler.enable()  # a crash in native code prints where it happened
    with interrupts_end_the_process():
        from ganrun.cli.main import main as command_line
    try:
        return command_line(is_program=True)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the end of Python prints tracebacks, too
        if not flush_streams():
            sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
