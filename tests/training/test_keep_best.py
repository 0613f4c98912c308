"""The best checkpoint by a metric, and early stopping."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    assert_same_run,
    curves,
    kill_at,
    logged,
    recorded,
    result_of,
    run_of,
    same,
    small_state,
    train_in,
)

from ganrun.data.dataset import Dataset, DataSpec
from ganrun.data.toy import gaussian, mixture1d, ring
from ganrun.metric.distribution import Distribution
from ganrun.metric.divergence import Divergence
from ganrun.metric.modes import Modes
from ganrun.metric.theory import Theory
from ganrun.protocols import DFunction, Metric, MetricKey, complete
from ganrun.records import checkpoint
from ganrun.training.best import Best, choose_best

# Training so fast that the distance goes up and down
RUN = ["train.sample_every=0", "train.log_every=10", "train.checkpoint_every=10", "train.frame_every=0",
       "train.diagnose=false", "train.metric_every=2", "train.steps=40", "train.ema=0", "optimizer.lr=0.05",
       "schedule=constant", "data.num=2000", "metric=distribution", "metric.distribution.num=1000"]  # fmt: skip
BEST = [*RUN, "train.keep_best=w1_1k"]
KEY = "metric/w1_1k"


def best_of(curve: list[tuple[int, float]], patience: int) -> tuple[int, float, int]:
    """The step and value of the smallest value, and the step at which training stops with that patience."""
    least = [min(curve[: i + 1], key=lambda point: point[1]) for i in range(len(curve))]
    end = next((i for i in range(patience, len(curve)) if least[i] == least[i - patience]), len(curve) - 1)
    return *least[end], curve[end][0]


# The rule


@pytest.mark.parametrize(("higher", "expected"), [(True, [1, 2, 5]), (False, [1, 3])])
def test_best_value_depends_on_the_direction(higher: bool, expected: list[int]) -> None:
    best = Best("key", higher, patience=0)
    values = [(1, 3.0), (2, 4.0), (3, 2.0), (4, 4.0), (5, 5.0)]
    assert [step for step, value in values if best.improves(value, step)] == expected
    assert (best.step, best.value) == ((5, 5.0) if higher else (3, 2.0))


def test_patience_counts_consecutive_evaluations_and_each_step_once() -> None:
    best = Best("key", higher=False, patience=2)
    found = []
    for step, value in [(1, 3.0), (2, 4.0), (3, 2.0), (4, 2.0), (4, 2.0), (5, 2.5)]:
        best.improves(value, step)
        found.append((best.evaluations_since, best.exhausted))
    assert found == [(0, False), (1, False), (0, False), (1, False), (1, False), (2, True)]
    assert not Best("key", higher=False, patience=0, evaluations_since=100).exhausted


def test_nan_is_never_the_best() -> None:
    best = Best("key", higher=True, patience=0)
    for step, value in enumerate([float("nan"), float("inf"), -5.0, float("nan")]):
        best.improves(value, step)
    assert (best.value, best.step, best.evaluations_since) == (-5.0, 2, 1)


def test_state_has_plain_types_for_any_metric_value(tmp_path: Path) -> None:
    best = Best("key", higher=True, patience=0)
    best.improves(np.float64(2.5), 3)
    checkpoint.save_best(tmp_path, small_state(3, best=vars(best)))
    assert Best(**checkpoint.load(checkpoint.best_path(tmp_path))["best"]) == best


# Which metric


@pytest.mark.parametrize(
    ("metric", "data", "higher", "lower"),
    [
        (Distribution(num=100), gaussian(69, 3, 10), set(), {"ks_100", "w1_100", "jsd_200bins_100"}),
        (Divergence(num=100), ring(8, 2, 0.02, 10), set(), {"jsd_128x128bins_100"}),
        (
            Modes(num=100),
            mixture1d([-3, 3], [0.5, 1], None, 10),
            {"modes_covered_3sigma_100", "high_quality_3sigma_100"},
            {"reverse_kl_100"},
        ),
        (Theory(num=100), gaussian(69, 3, 10), set(), {"js_distance_100", "w1_100"}),
    ],
)
def test_metrics_declare_which_values_are_better(
    metric: Metric, data: Dataset, higher: set[str], lower: set[str]
) -> None:
    """All keys but the true values are declared before the computation. Only distances have a better direction."""
    x = torch.linspace(60, 80, 100)[:, None].expand(100, *data.spec.shape)
    declared: dict[str, MetricKey] = {}
    for logistic in (True, False):
        keys = metric.keys(data.spec, logistic)
        found = metric(x, data, DFunction(lambda x: torch.zeros(len(x)), logistic) if metric.needs_d else None)
        assert keys.keys() <= found.keys()
        assert found.keys() - keys.keys() == {key.true for key in keys.values()} - {""}
        declared |= keys
    assert {name for name, key in declared.items() if key.better == "higher"} == higher
    assert {name for name, key in declared.items() if key.better == "lower"} == lower
    assert not any(key.from_test for key in declared.values())


class Declared:
    """A user-defined metric that declares `keys`, and must not be computed."""

    num = 10

    def __init__(self, keys: Mapping[str, MetricKey]) -> None:
        self.declared = keys

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        return self.declared

    def __call__(self, samples: torch.Tensor, dataset: Dataset) -> dict[str, float]:
        raise AssertionError("it was computed")


class Bare:
    num = 10


LOSSES = {
    "loss_valid": MetricKey("lower"),
    "loss_test": MetricKey("lower", from_test=True),
    "loss_num": MetricKey(),
}


def chosen(key: str | None, **metrics: Any) -> Best | None:
    run = run_of("train.ema=0", "data.num=100")
    options = replace(run.options, keep_best=key, patience=3 if key else 0)
    metrics = {name: complete(metric, Metric) for name, metric in metrics.items()}
    return choose_best(replace(run, options=options, metrics=metrics))


def test_valid_keep_best_key_is_found_without_computing_metrics() -> None:
    assert chosen("loss_valid", a=Declared(LOSSES)) == Best("loss_valid", higher=False, patience=3)
    score = Declared({"score": MetricKey("higher")})
    assert chosen("score", a=Declared(LOSSES), b=Bare(), c=score) == Best("score", higher=True, patience=3)
    assert chosen(None) is None
    assert chosen(None, a=Declared(LOSSES)) is None


WRONG: Any = "up"


@pytest.mark.parametrize(
    ("key", "metrics", "message"),
    [
        (
            "loss_test",
            [Declared(LOSSES)],
            "is computed from test data, which must not choose a checkpoint; choose one of loss_valid.",
        ),
        (
            "loss_num",
            [Declared(LOSSES)],
            "it does not declare whether higher or lower values are better; choose one of loss_valid.",
        ),
        (
            "score",
            [Declared({"score": MetricKey(WRONG)})],
            "it does not declare whether higher or lower values are better; none of its metrics can choose a "
            "checkpoint.",
        ),
        (
            "loss",
            [Declared(LOSSES)],
            "this run's metrics declare no such key; choose one of loss_valid; your own metrics declare their keys "
            "in a method `keys` (ganrun.protocols.Metric).",
        ),
        (
            "score",
            [Bare()],
            "this run's metrics declare no such key; none of its metrics can choose a checkpoint; your own metrics "
            "declare their keys in a method `keys` (ganrun.protocols.Metric).",
        ),
        ("loss", [], "this run has no metric; choose one, as in metric=distribution."),
    ],
)
def test_invalid_keep_best_key_is_refused(key: str, metrics: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"train\.keep_best") as error:
        chosen(key, **{f"metric{i}": metric for i, metric in enumerate(metrics)})
    assert str(error.value) == f"train.keep_best={key}: {message}"


def test_invalid_keep_best_key_is_refused_before_anything_is_written(here, tmp_path: Path) -> None:
    code, _, err = here(*RUN, "train.keep_best=mean_1k", "run_dir=r")
    assert code == 2
    assert "it does not declare whether higher or lower values are better; choose one of ks_1k, w1_1k, jsd_" in err
    assert not (tmp_path / "r").exists()


# A run


@pytest.mark.slow
def test_best_checkpoint_equals_that_of_its_step(here, tmp_path: Path) -> None:
    assert here(*BEST, "train.keep_every=2", "train.checkpoint_every=2", "run_dir=r")[0] == 0
    run = tmp_path / "r"
    step, value, _ = best_of(recorded(run, KEY), patience=40)
    assert 2 < step < 40
    result = result_of(run)
    assert (result["best"], result["stopped_early"]) == ({"key": "w1_1k", "value": value, "step": step}, False)
    best, numbered = (checkpoint.load(run / "checkpoints" / name) for name in ("best.pt", f"step_{step:08d}.pt"))
    assert best["best"] == {"key": "w1_1k", "higher": False, "patience": 0, "value": value, "step": step,
                            "evaluations_since": 0, "last_step": step}  # fmt: skip
    assert all(same(best[key], numbered[key]) for key in best.keys() - {"seconds"})
    assert checkpoint.load_newest(run / "checkpoints")["best"]["step"] == step


def test_last_step_can_be_the_best(here, tmp_path: Path) -> None:
    assert here(*BEST, "train.steps=2", "train.metric_every=5", "run_dir=r")[0] == 0
    assert result_of(tmp_path / "r")["best"]["step"] == 2
    assert checkpoint.load(tmp_path / "r" / "checkpoints" / "best.pt")["step"] == 2


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stops early, with pictures, and one that does not."""
    folder = tmp_path_factory.mktemp("stopped")
    train_in(folder, [*RUN, "run_dir=whole"], [*BEST, "train.patience=4", "train.sample_every=100", "run_dir=r"])
    return folder / "r"


@pytest.mark.slow
def test_run_without_improvement_stops_and_is_finished(stopped: Path) -> None:
    whole = recorded(stopped.parent / "whole", KEY)
    best_step, value, end = best_of(whole, patience=4)
    assert best_step < end < 40
    result = result_of(stopped)
    assert (result["status"], result["steps"], result["stopped_early"]) == ("finished", end, True)
    assert result["best"] == {"key": "w1_1k", "value": value, "step": best_step}
    assert recorded(stopped, KEY) == [point for point in whole if point[0] <= end]
    assert checkpoint.steps_in(stopped / "checkpoints")[-1] == end
    assert checkpoint.load(stopped / "checkpoints" / "best.pt")["step"] == best_step


@pytest.mark.slow
def test_run_stopped_early_has_all_final_results(stopped: Path) -> None:
    end = result_of(stopped)["steps"]
    assert result_of(stopped)["metrics"]["w1_1k"] == recorded(stopped, KEY)[-1][1]
    assert (stopped / "samples" / f"step_{end:08d}.png").exists()
    assert (stopped / "frames").is_dir()
    assert recorded(stopped, "loss/d")[-1][0] == end
    assert curves(stopped)[KEY] == [(step, pytest.approx(value)) for step, value in recorded(stopped, KEY)]
    events = b"".join(path.read_bytes() for path in stopped.glob("events.*"))
    assert events.count(b"_hparams_/session_start_info") == 1


def test_run_stopped_early_is_not_continued(stopped: Path, here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stopped.parent)
    before = (stopped / "result.json").read_bytes()
    for line in (["resume", "run_dir=r"], [*BEST, "train.patience=4", "train.sample_every=100", "run_dir=r"]):
        code, out, _ = here(*line)
        assert code == 0
        assert "already finished" in out
    assert (stopped / "result.json").read_bytes() == before


@pytest.mark.slow
def test_all_commands_accept_the_best_checkpoint(stopped: Path, here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stopped.parent)
    best, end = result_of(stopped)["best"], result_of(stopped)["steps"]
    samples = {}
    for which in ("best", "last"):
        assert here("sample", "run_dir=r", "num=20", f"checkpoint={which}", "out=drawn")[0] == 0
        step = best["step"] if which == "best" else end
        samples[which] = np.load(stopped.parent / "drawn" / f"sample_step_{step:08d}_seed_0.npz")["samples"]
    assert not np.array_equal(samples["best"], samples["last"])
    assert f"step {best['step']}" in here("diagnose", "run_dir=r", "checkpoint=best")[1]
    curve = recorded(stopped, KEY)
    assert here("evaluate", "run_dir=r", "checkpoint=best")[0] == 0
    (found,) = result_of(stopped)["evaluations"]
    assert (found["checkpoint"], found["step"], found["metrics"]["w1_1k"]) == ("best", best["step"], best["value"])
    assert recorded(stopped, KEY) == curve


@pytest.mark.slow
def test_missing_and_damaged_best_checkpoints_are_reported(here, tmp_path: Path) -> None:
    assert here(*RUN, "train.steps=1", "run_dir=r")[0] == 0
    for verb in ("sample", "diagnose", "evaluate"):
        code, _, err = here(verb, "run_dir=r", "checkpoint=best")
        assert code == 2
        assert "run_dir=r: has no checkpoints/best.pt; a run writes one with train.keep_best" in err
    (tmp_path / "r" / "checkpoints" / "best.pt").write_bytes(b"no zip")
    code, _, err = here("sample", "run_dir=r", "checkpoint=best")
    assert code == 2
    assert "best.pt: cannot be read" in err


@pytest.mark.slow
def test_sweep_counts_a_run_stopped_early_as_done(here) -> None:
    line = ["-m", *BEST, "train.patience=1,4", "run_dir=s"]
    assert "2 of 2" in here(*line)[1]
    assert "2 jobs in s, of which 2 finished" in here(*line)[1]


# Resume, and evaluations without side effects


KILLED = [*BEST, "train.patience=4", "train.log_every=1", "train.checkpoint_every=7"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stops early and is not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    train_in(folder, [*KILLED, "run_dir=whole"])
    return folder / "whole"


@pytest.mark.slow
def test_run_killed_between_its_end_and_its_result(whole: Path, here, tmp_path: Path) -> None:
    assert here(*KILLED, "run_dir=killed")[0] == 0
    (tmp_path / "killed" / "result.json").unlink()
    assert here("resume", "run_dir=killed")[0] == 0
    assert_same_best(whole, tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["at the best step", "after it", "at the end"])
def test_killed_run_keeps_the_same_best_and_stops_at_the_same_step(
    moment: str, whole: Path, here, tmp_path: Path
) -> None:
    best, end = result_of(whole)["best"]["step"], result_of(whole)["steps"]
    step = {"at the best step": best, "after it": best + 1, "at the end": end}[moment]
    start = (step - 1) // 7 * 7
    assert 7 < best < end < 40
    kill_at(step, [*KILLED, "run_dir=killed"], tmp_path)
    killed = tmp_path / "killed"
    assert not (killed / "result.json").exists()
    assert checkpoint.load(killed / "checkpoints" / "best.pt")["step"] == best
    assert checkpoint.steps_in(killed / "checkpoints")[-1] == start
    assert f"resuming at step {start} of 40" in here("resume", "run_dir=killed")[1]
    assert_same_best(whole, killed)


def assert_same_best(a: Path, b: Path) -> None:
    assert_same_run(a, b)
    states = [checkpoint.load(path / "checkpoints" / "best.pt") for path in (a, b)]
    assert all(same(states[0][key], states[1][key]) for key in states[0].keys() - {"config", "seconds"})
    results = [result_of(path) for path in (a, b)]
    for key in ("status", "steps", "metrics", "best", "stopped_early"):
        assert results[0][key] == results[1][key]


@pytest.mark.slow
@pytest.mark.parametrize("line", [["data=digits", "train.ema=0.9", "train.threads=1"], ["arch=heights"], ["data=ring"]])
def test_metrics_during_training_do_not_change_the_run(line: list[str], here, tmp_path: Path) -> None:
    """With batch norm, spectral norm and an EMA of G, and with a user-defined metric."""
    (tmp_path / "own.py").write_text(
        "from ganrun.protocols import MetricKey\n"
        "class Spread:\n"
        "    num = 300\n"
        "    needs_d = True\n"
        "    def keys(self, spec, logistic): return {'spread': MetricKey('higher')}\n"
        "    def __call__(self, samples, dataset, D):\n"
        "        return {'spread': float(samples.std()) + 0 * float(D.logits(samples).mean())}\n"
    )
    (tmp_path / "conf" / "metric").mkdir(parents=True)
    (tmp_path / "conf" / "metric" / "spread.yaml").write_text("spread: {_target_: own.Spread}\n")
    own = [*line, "arch.discriminator.spectral_norm=true", "train.steps=12", "train.sample_every=0", "metric=spread",
           "train.log_every=1", "train.diagnose=false", "train.frame_every=0"]  # fmt: skip
    assert here(*own, "run_dir=never", "train.metric_every=0")[0] == 0
    assert here(*own, "run_dir=often", "train.metric_every=2", "train.keep_best=spread")[0] == 0
    states = [checkpoint.load_newest(tmp_path / name / "checkpoints") for name in ("never", "often")]
    assert all(same(states[0][key], states[1][key]) for key in states[0].keys() - {"config", "seconds", "best"})
    never, often = ([row for row in logged(tmp_path / name) if "loss/d" in row] for name in ("never", "often"))
    assert never == often
    assert len(recorded(tmp_path / "often", "metric/spread")) == 6
    assert result_of(tmp_path / "often")["best"]["step"] is not None
