"""A search whose best settings are known, for tests of `ganrun search`."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Here

MODULE = '''
import math
import os
import signal
from contextlib import suppress
from pathlib import Path
from ganrun.protocols import MetricKey

class Known:
    """`error` is 0 at x = 0.3 and y = 0.01, and `other` at x = 0.8."""

    num = 2

    def __init__(self, x: float = 0, y: float = 1, noise: float = 0) -> None:
        self.x, self.y, self.noise = x, y, noise

    def keys(self, spec, logistic):
        lower, higher = MetricKey("lower"), MetricKey("higher")
        test = MetricKey("lower", from_test=True)
        return {"error": lower, "other": lower, "gain": higher, "count": MetricKey(), "test": test}

    def __call__(self, samples, dataset):
        if Path("broken").exists():
            raise ValueError("the disk is full")
        with suppress(FileNotFoundError):
            Path("deadly").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        error = (self.x - 0.3) ** 2 + (math.log10(self.y) + 2) ** 2 + self.noise * samples.std().item()
        return {"error": error, "other": abs(self.x - 0.8), "gain": -error, "count": 1.0, "test": error}
'''
OPTION = "known:\n  _target_: my.Known\n  x: 0\n  y: 1\n  noise: 0\n"
X, Y = "metric.known.x=interval(-1.0,1.0)", "metric.known.y=tag(log,interval(1e-4,1.0))"
RUN = [
    "metric=known", "data.num=100", "train.steps=1", "train.batch_size=4", "train.threads=1", "train.device=cpu",
    "train.metric_every=0", "train.log_every=1", "train.sample_every=0", "train.frame_every=0", "train.diagnose=false",
]  # fmt: skip
LINE = ["search", X, Y, *RUN, "search.metric=error", "run_dir=s"]

Search = Callable[..., tuple[int, str, str]]


def write_metric(folder: Path) -> None:
    """Write the metric, and its option `metric=known`."""
    (folder / "conf" / "metric").mkdir(parents=True)
    (folder / "conf" / "metric" / "known.yaml").write_text(OPTION)
    (folder / "my.py").write_text(MODULE)


def searching(here: Here, folder: Path) -> Search:
    """Run `ganrun search` with settings in addition to LINE, in this process."""
    write_metric(folder)
    return lambda *words: here(*LINE, *words)


def trials_in(folder: Path) -> list[Any]:
    """The trials of the study of a search, in Optuna's form."""
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    found: list[Any] = optuna.load_study(study_name="search", storage=storage).trials
    storage.engine.dispose()
    return found


def distance(params: dict[str, float]) -> float:
    """From the best settings, in x and in the logarithm of y to base 10."""
    return math.hypot(params["metric.known.x"] - 0.3, math.log10(params["metric.known.y"]) + 2)
