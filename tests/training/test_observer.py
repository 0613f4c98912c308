"""An observer of a run is told of its evaluations, can stop it, and does not change it."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_same_run, config_of

from ganrun.protocols import Observer
from ganrun.training.train import Outcome, train

LINE = [
    "data.num=100", "train.steps=6", "train.metric_every=2", "train.batch_size=8", "train.threads=1",
    "train.device=cpu", "train.sample_every=0", "train.frame_every=0", "train.log_every=3", "metric=distribution",
    "metric.distribution.num=100",
]  # fmt: skip


class Recorder(Observer):
    """Records what it is told, and stops the run at a step."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        self.seen: list[tuple[int, float, tuple[str, ...]]] = []

    def evaluated(self, step: int, metrics: Mapping[str, float], findings: Callable[[], Collection[str]]) -> bool:
        self.seen.append((step, metrics["ks_100"], tuple(findings())))
        return step == self.last


def trained(path: Path, observer: Observer | None = None) -> tuple[Outcome, dict[str, Any]]:
    config = config_of(*LINE) | {"run_dir": str(path)}
    outcome = train(config, observer=observer)
    return outcome, outcome.result


@pytest.mark.slow
def test_observer_can_stop_a_run_which_is_then_resumed_bit_for_bit(tmp_path: Path) -> None:
    recorder = Recorder(last=4)
    outcome, result = trained(tmp_path / "a", recorder)
    assert (outcome.status, outcome.signal, result["steps"]) == ("interrupted", None, 4)
    assert [step for step, _, _ in recorder.seen] == [2, 4]
    assert [findings for _, _, findings in recorder.seen] == [(), ("too_early",)]
    assert [path.name for path in (tmp_path / "a" / "checkpoints").iterdir()] == ["step_00000004.pt"]
    assert trained(tmp_path / "a")[0].status == "finished"
    watching = Recorder()
    assert trained(tmp_path / "b", watching)[0].status == "finished"
    assert watching.seen == recorder.seen  # not of the evaluation at the end
    assert trained(tmp_path / "c")[0].status == "finished"
    assert_same_run(tmp_path / "a", tmp_path / "c")
    assert_same_run(tmp_path / "b", tmp_path / "c")
