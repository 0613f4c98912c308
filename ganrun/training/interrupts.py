"""Handling of Ctrl-C and other signals, on which a run stops after the current step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # Ctrl-C, kill, a closed terminal, schedulers
SIGNALS = tuple(signal.Signals[name] for name in NAMES if name in signal.Signals.__members__)


class Interrupts:
    """Records SIGNALS for the training loop. A second SIGINT raises KeyboardInterrupt at once.

    Signals that are ignored when the run starts stay ignored, as SIGHUP is by nohup; not SIGINT, which a shell ignores
    for every program in the background.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in SIGNALS:
                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._notice)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number

    def received(self) -> bool:
        return self.signal is not None
