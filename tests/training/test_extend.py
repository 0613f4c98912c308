"""`ganrun resume run_dir=DIR train.steps=N` extends a run, and changes only settings that keep its bits."""

import shutil
import signal
from pathlib import Path

import pytest
from helpers import curves, logged, recorded, result_of, same, send_at, train_in

from ganrun.records import checkpoint

LINE = ["schedule=constant", "train.pretrain_d=3", "penalty=r1", "penalty.r1.every=7", "train.checkpoint_every=4",
        "train.log_every=1", "train.sample_every=0", "train.metric_every=4", "train.diagnose=false", "data.num=2000",
        "metric=distribution", "metric.distribution.num=1000", "train.keep_best=ks_1k"]  # fmt: skip


def state_of_step(run_dir: Path, step: int | None = None) -> dict:
    folder = run_dir / "checkpoints"
    state = checkpoint.load(checkpoint.path_of(folder, step) if step else checkpoint.best_path(folder))
    return {key: value for key, value in state.items() if key not in ("config", "seconds")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of 8 and of 16 steps."""
    folder = tmp_path_factory.mktemp("extended")
    for steps in (8, 16):
        train_in(folder, [*LINE, f"train.steps={steps}", f"run_dir={steps}"])
    return folder


@pytest.fixture
def short(folder: Path, tmp_path: Path) -> Path:
    """A copy of the finished run of 8 steps."""
    return shutil.copytree(folder / "8", tmp_path / "r")


def assert_same_training(whole: Path, run_dir: Path) -> None:
    """All steps, metrics and checkpoints are the same bit for bit."""
    for step in checkpoint.steps_in(whole / "checkpoints"):
        assert same(state_of_step(whole, step), state_of_step(run_dir, step))
    assert same(state_of_step(whole), state_of_step(run_dir))
    for key in ("loss/d", "penalty/r1", "metric/ks_1k"):
        assert recorded(whole, key) == recorded(run_dir, key)
    assert curves(whole) == curves(run_dir)
    results = [result_of(path) for path in (whole, run_dir)]
    for key in results[0].keys() - {"wall_time"}:
        assert results[0][key] == results[1][key]


@pytest.mark.slow
def test_extended_run_is_the_same_as_one_of_that_length(folder: Path, short: Path, here) -> None:
    code, out, err = here("resume", "run_dir=r", "train.steps=16")
    assert (code, err) == (0, "")
    assert "resuming at step 8 of 16" in out
    assert_same_training(folder / "16", short)
    assert '"train.steps=16"' in (short / "command.json").read_text()
    assert "already finished" in here("resume", "run_dir=r")[1]


@pytest.mark.slow
def test_extension_that_is_killed_continues_to_the_new_last_step(folder: Path, short: Path, here, tmp_path) -> None:
    ended = send_at(10, [signal.SIGKILL], ["resume", "run_dir=r", "train.steps=16"], tmp_path)
    assert ended.code == -signal.SIGKILL
    assert here("resume", "run_dir=r")[0] == 0
    assert_same_training(folder / "16", short)


@pytest.mark.slow
def test_evaluations_of_the_former_last_step_are_kept(folder: Path, short: Path, here) -> None:
    assert here("evaluate", "run_dir=r", "metric=parzen", "metric.parzen.num=100")[0] == 0
    before = [row for row in logged(short) if "evaluated" in row]
    assert before
    assert here("resume", "run_dir=r", "train.steps=16")[0] == 0
    assert [row for row in logged(short) if "evaluated" in row] == before
    tags = {key for key in before[0] if "/" in key}
    assert tags <= curves(short).keys()
    assert recorded(short, "metric/ks_1k") == recorded(folder / "16", "metric/ks_1k")


@pytest.mark.slow
def test_records_can_be_made_more_often_without_changing_the_training(folder: Path, short: Path, here) -> None:
    line = ["train.log_every=2", "train.sample_every=5", "train.checkpoint_every=3", "train.keep_checkpoints=9"]
    code, _, err = here("resume", "run_dir=r", "train.steps=16", *line)
    assert (code, err) == (0, "")
    assert same(state_of_step(folder / "16", 16), state_of_step(short, 16))
    assert [step for step, _ in recorded(short, "loss/g")] == [*range(1, 9), 10, 12, 14, 16]
    assert checkpoint.steps_in(short / "checkpoints") == [4, 8, 9, 12, 15, 16]
    assert {path.name for path in (short / "samples").iterdir()} >= {"step_00000010.png", "step_00000015.png"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("schedule=constant", None),
        ("schedule=cosine", "schedule (Cosine)"),
        ("schedule@g_schedule=linear", "g_schedule (Linear)"),
        ("train.instance_noise=0.1", "train.instance_noise"),
    ],
)
def test_what_depends_on_the_last_step_is_named(setting: str, named: str | None, here) -> None:
    line = ["train.sample_every=0", "train.diagnose=false", "metric=none", "data.num=500", "schedule=constant"]
    assert here(*line, setting, "train.steps=4", "run_dir=r")[0] == 0
    code, _, err = here("resume", "run_dir=r", "train.steps=6")
    assert code == 0
    assert (f"train.steps=6: {named} depends on the last step." in err) if named else not err


@pytest.mark.slow
def test_run_that_stopped_early_is_extended_only_with_more_patience(here, tmp_path: Path) -> None:
    line = [*LINE, "train.metric_every=1", "optimizer.lr=1"]
    assert here(*line, "train.steps=16", "train.patience=1", "run_dir=r")[0] == 0
    assert here(*line, "train.steps=16", "run_dir=whole")[0] == 0
    stopped = result_of(tmp_path / "r")["steps"]
    assert stopped < 14
    code, _, err = here("resume", "run_dir=r", "train.steps=18")
    assert code == 2
    assert f"train.steps=18: the run stopped early at step {stopped}, because of train.patience=1; set this" in err
    assert result_of(tmp_path / "r")["status"] == "finished"
    assert here("resume", "run_dir=r", "train.patience=0")[0] == 0
    for step in (None, 16):
        states = [state_of_step(tmp_path / name, step) for name in ("r", "whole")]
        assert same(*(state | {"best": state["best"] | {"patience": 0}} for state in states))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("train.batch_size=5", "train.batch_size=5: cannot change when a run is resumed, because its steps so far"),
        ("+train.batch_size=5", "train.batch_size=5: cannot change when a run is resumed, because its steps so far"),
        ("loss=wgan", "loss=wgan: cannot change when a run is resumed, because its steps so far"),
        ("seed=4", "seed=4: cannot change"),
        ("arch.z_dim=3", "arch.z_dim=3: cannot change when a run is resumed, because its weights"),
        ("metric=modes", "compute others with `ganrun evaluate"),
        ("data.num=5", "data.num=5: cannot change when a run is resumed, because it continues on its own data"),
        ("init_from=b", "because it has no effect after the first step"),
        ("train.stepz=4", "train.stepz=4: no such setting; did you mean train.steps?"),
        ("train.steps=6", "train.steps=6: the run is already at step 8; choose a later step."),
        ("train.steps=1.5", "train.steps=1.5: must be a whole number."),
        ("train.steps=9 train.keep_best=x", "train.keep_best=x: this run's metrics declare no such key"),
    ],
)
def test_setting_that_cannot_change_is_refused_with_its_reason(setting: str, reason: str, short: Path, here) -> None:
    before = {path: path.read_bytes() for path in short.rglob("*") if path.is_file()}
    code, out, err = here("resume", "run_dir=r", *setting.split())
    assert (code, out) == (2, "")
    assert reason in err
    assert len(err.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in short.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_command_with_more_steps_is_answered_with_the_command_that_extends(short: Path, here) -> None:
    code, _, err = here(*LINE, "train.steps=16", "run_dir=r")
    assert code == 2
    assert "continue that run with `ganrun resume run_dir=r train.steps=16`." in err
    assert "`ganrun resume run_dir=r train.steps=N` extends it" in here("resume", "run_dir=r")[1]


@pytest.mark.slow
def test_events_of_lost_rows_are_not_logged_twice(folder: Path, short: Path, here) -> None:
    """Of the last evaluation a power failure may leave the events, but not the row."""
    (short / "result.json").unlink()
    rows = (short / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert "metric/mean_1k" in rows[-1]
    (short / "metrics.jsonl").write_text("".join(rows[:-1]))
    assert here("resume", "run_dir=r")[0] == 0
    assert curves(short) == curves(folder / "8")
