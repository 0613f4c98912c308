"""How far a search has come, in one line on a terminal."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ganrun.console import StatusLine, status_text, time_left
from ganrun.search.study import Trials
from ganrun.search.summary import best_text, kinds_of


class Progress:
    """The progress of a search, which `show` reads from its study. Elsewhere than on a terminal it shows nothing."""

    def __init__(self, trials: Trials, metrics: Sequence[str], wanted: int) -> None:
        """metrics: the objectives. wanted: the number of trials."""
        self.trials, self.metrics, self.wanted = trials, metrics, wanted
        self.status = StatusLine()
        self.began, self.before = time.monotonic(), kinds_of(trials).total()

    def show(self) -> None:
        if not self.status.is_plain:
            self.status.show(self.text(time.monotonic() - self.began))

    def text(self, seconds: float) -> str:
        """seconds: since `began`."""
        kinds = kinds_of(self.trials)
        done, running = kinds.total(), self.trials.num_running()
        total = max(self.wanted, done + running)
        others = {kind: number for kind, number in kinds.items() if kind != "finished"}
        best = best_text(self.trials.study, self.metrics)
        left = time_left(total - done, done - self.before, seconds)
        return status_text("search", done, total, {"running": running, **others}, left, best and f"best {best}")


@contextmanager
def progress(trials: Trials, metrics: Sequence[str], wanted: int) -> Iterator[Progress]:
    found = Progress(trials, metrics, wanted)
    try:
        yield found
        found.show()
    finally:
        found.status.close()
