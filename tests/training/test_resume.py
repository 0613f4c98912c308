"""An interrupted run resumes bit for bit, however it was interrupted."""

import resource
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import (
    assert_same_run,
    end_of,
    kill_at,
    kill_before_renaming,
    logged,
    recorded,
    result_of,
    send_at,
    train_in,
    waiting_at,
)

from ganrun.records import checkpoint

HEIGHTS = ["train.steps=60", "train.pretrain_d=3", "penalty=r1", "penalty.r1.every=7", "train.checkpoint_every=20",
           "train.log_every=1", "train.sample_every=0", "train.metric_every=15", "train.frame_every=0", "data.num=2000",
           "metric.distribution.num=1000", "metric.theory.num=1000"]  # fmt: skip
WGAN = ["data=digits", "train.threads=1", "arch.generator.width=8", "arch.discriminator.width=8", "loss=wgan",
        "train.ema=0.99", "train.steps=14", "train.batch_size=16", "latent=uniform", "train.checkpoint_every=5",
        "train.log_every=1", "train.sample_every=7"]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of HEIGHTS without an interruption."""
    folder = tmp_path_factory.mktemp("heights")
    train_in(folder, [*HEIGHTS, "run_dir=whole"])
    return folder / "whole"


@pytest.fixture(scope="module")
def whole_wgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wgan")
    train_in(folder, [*WGAN, "run_dir=whole"])
    return folder / "whole"


def assert_resumes_as(whole: Path, run_dir: Path, start: int | None, here, *line: str) -> None:
    """start: the step of the checkpoint that it resumes from; None: it starts again."""
    code, out, err = here(*(line or ("resume", f"run_dir={run_dir.name}")))
    assert code == 0, err
    assert (f"resuming at step {start} of" in out) if start else ("resuming" not in out)
    assert_same_run(whole, run_dir)
    results = [result_of(path) for path in (whole, run_dir)]
    for key in results[0].keys() - {"wall_time", "diagnosis"}:
        assert results[0][key] == results[1][key], key
    assert results[0]["diagnosis"]["measurements"] == results[1]["diagnosis"]["measurements"]
    assert not list(run_dir.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "start"),
    [(-1, None), (20, None), (39, 20), (40, 20), (41, 40)],
)
def test_killed_run_resumes_from_its_last_checkpoint_bit_for_bit(
    step: int, start: int | None, whole: Path, here, tmp_path: Path
) -> None:
    """Killed during pre-training, and just before, at and after a step with a checkpoint.

    The loop logs before it saves, so a run killed at step 40 has the row of this step, but not its checkpoint.
    """
    killed = tmp_path / "killed"
    kill_at(step, [*HEIGHTS, "run_dir=killed"], tmp_path)
    assert not (killed / "result.json").exists()
    assert recorded(killed, "loss/d")[-1][0] == step
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99999')  # a row truncated by the kill
    assert_resumes_as(whole, killed, start, here)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "start"), [(10, 5), (11, 10)])
def test_killed_run_of_a_dcgan_with_ema_resumes_bit_for_bit(
    step: int, start: int, whole_wgan: Path, here, tmp_path: Path
) -> None:
    kill_at(step, [*WGAN, "run_dir=killed"], tmp_path)
    assert_resumes_as(whole_wgan, tmp_path / "killed", start, here)


@pytest.mark.slow
def test_run_killed_twice_resumes_bit_for_bit(whole: Path, here, tmp_path: Path) -> None:
    kill_at(30, [*HEIGHTS, "run_dir=killed"], tmp_path)
    kill_at(50, ["resume", "run_dir=killed"], tmp_path)
    assert_resumes_as(whole, tmp_path / "killed", 40, here)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "start"),
    [("config.yaml", None), ("step_00000020.pt", None), ("step_00000040.pt", 20), ("result.json", 60)],
)
def test_run_killed_while_writing_a_file_keeps_the_previous_one(
    name: str, start: int | None, whole: Path, here, tmp_path: Path
) -> None:
    line = [*HEIGHTS, "run_dir=killed"]
    kill_before_renaming(name, line, tmp_path)
    assert not list((tmp_path / "killed").rglob(name))
    assert_resumes_as(whole, tmp_path / "killed", start, here, *line)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.jsonl", "events"])
def test_resume_killed_while_removing_later_logs_loses_nothing(name: str, whole: Path, here, tmp_path: Path) -> None:
    kill_at(30, [*HEIGHTS, "run_dir=killed"], tmp_path)
    kill_before_renaming(name, ["resume", "run_dir=killed"], tmp_path)
    assert_resumes_as(whole, tmp_path / "killed", 20, here)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_stops_the_run_after_its_step_with_a_checkpoint(
    number: signal.Signals, code: int, whole: Path, here, tmp_path: Path
) -> None:
    line = [*HEIGHTS, "train.checkpoint_every=0", "run_dir=stopped"]
    ended = send_at(33, [number], line, tmp_path)
    assert ended.code == code, ended
    stopped = tmp_path / "stopped"
    assert (result_of(stopped)["status"], result_of(stopped)["steps"]) == ("interrupted", 33)
    assert checkpoint.steps_in(stopped / "checkpoints") == [33]
    assert logged(stopped)[-1]["step"] == 33
    assert "interrupted after 33 steps; the last checkpoint is step 33; continue with `ganrun resume" in ended.out
    assert_resumes_as(whole, stopped, 33, here, *line)  # the same command also continues the run


@pytest.mark.slow
def test_second_interrupt_does_not_wait_for_the_end_of_the_step(whole: Path, here, tmp_path: Path) -> None:
    ended = send_at(33, [signal.SIGINT, signal.SIGINT], [*HEIGHTS, "run_dir=stopped"], tmp_path)
    assert ended.code == 130, ended
    stopped = tmp_path / "stopped"
    assert (result_of(stopped)["status"], result_of(stopped)["steps"]) == ("interrupted", 33)
    assert "interrupted after 33 steps; the last checkpoint is step 20;" in ended.out
    assert_resumes_as(whole, stopped, 20, here)


@pytest.mark.slow
def test_damaged_checkpoint_is_reported_and_the_previous_one_is_used(here, tmp_path: Path) -> None:
    line = ["train.steps=60", "train.checkpoint_every=20", "train.log_every=10", "train.sample_every=0"]
    assert here(*line, "run_dir=whole")[0] == 0
    assert here(*line, "run_dir=damaged")[0] == 0
    damaged = tmp_path / "damaged"
    (damaged / "result.json").unlink()
    newest = damaged / "checkpoints" / "step_00000060.pt"
    weights = checkpoint.load(newest)["G"]["layers.0.weight"].numpy().tobytes()
    data = bytearray(newest.read_bytes())
    data[data.index(weights)] ^= 1  # one bit, which torch would not detect
    newest.write_bytes(data)
    torch.load(newest, weights_only=True)
    code, out, err = here("resume", "run_dir=damaged")
    assert code == 0
    assert "step_00000060.pt" in err
    assert "resuming at step 40" in out
    assert_same_run(tmp_path / "whole", damaged)


@pytest.mark.slow
def test_changed_config_is_refused_and_the_changed_keys_are_named(here) -> None:
    line = ["train.steps=4", "train.sample_every=0", "run_dir=r"]
    assert here(*line)[0] == 0
    code, _, err = here(*line, "seed=5", "optimizer.lr=0.1")
    assert code == 2
    assert "seed (0 there, 5 now)" in err
    assert "optimizer.lr (0.002 there, 0.1 now)" in err
    assert here(*line, "train.keep_checkpoints=5")[0] == 0


def test_folder_that_is_not_a_run_is_refused_and_unchanged(here, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    code, _, err = here("run_dir=mine")
    assert code == 2
    assert "contains files, but no run" in err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_active_run_is_refused(here, tmp_path: Path) -> None:
    line = ["train.steps=4", "train.sample_every=0", "train.log_every=1", "run_dir=busy"]
    with waiting_at(2, line, tmp_path):
        answers = [here("resume", "run_dir=busy"), here(*line)]
    for code, _, err in answers:
        assert code == 2
        assert "run_dir=busy: another process is writing to it." in err


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(here, tmp_path: Path) -> None:
    (tmp_path / "breaking.py").write_text(
        "from ganrun.loss import NonSaturating\n"
        "class Loss(NonSaturating):\n"
        "    calls = 0\n"
        "    def d_loss(self, real, fake):\n"
        "        self.calls += 1\n"
        "        return super().d_loss(real, fake) * (float('nan') if self.calls > 12 else 1)\n"
    )
    sys.path.append(str(tmp_path))
    code, _, err = here("loss._target_=breaking.Loss", "train.steps=30", "train.log_every=5", "run_dir=r",
                        "train.checkpoint_every=5", "train.sample_every=0")  # fmt: skip
    assert code == 3
    assert "diverged: step 15: loss/d is nan" in err
    assert "step 10" in err
    assert (result_of(tmp_path / "r")["status"], result_of(tmp_path / "r")["steps"]) == ("diverged", 15)
    state = checkpoint.load_newest(tmp_path / "r" / "checkpoints")
    assert state is not None
    assert state["step"] == 10
    assert all(torch.isfinite(tensor).all() for tensor in state["G"].values())


def test_error_during_training_is_recorded(here, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "from ganrun.loss import NonSaturating\n"
        "class Loss(NonSaturating):\n"
        "    calls = 0\n"
        "    def d_loss(self, real, fake):\n"
        "        self.calls += 1\n"
        "        return super().d_loss(real, fake) + (1 // (self.calls < 9) and 0)\n"
    )
    sys.path.append(str(tmp_path))
    code, _, err = here("loss._target_=failing.Loss", "train.steps=30", "train.checkpoint_every=5", "run_dir=r")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "failed after 7 steps: ZeroDivisionError" in err
    assert "step 5" in err
    assert "Traceback" in (tmp_path / "r" / "train.log").read_text()
    assert result_of(tmp_path / "r")["status"] == "failed"


@pytest.mark.slow
def test_full_disk_is_reported_in_one_sentence_and_loses_nothing(here, tmp_path: Path) -> None:
    line = ["train.steps=30", "train.log_every=5", "train.checkpoint_every=10", "train.sample_every=0"]
    assert here(*line, "run_dir=whole")[0] == 0
    limit = (tmp_path / "whole" / "checkpoints" / "step_00000030.pt").stat().st_size // 2
    ended = end_of([*line, "run_dir=r"], tmp_path, partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)))
    assert ended.code == 1
    assert "File too large" in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert result_of(tmp_path / "r")["status"] == "failed"
    assert not list((tmp_path / "r" / "checkpoints").iterdir())
    assert here("resume", "run_dir=r")[0] == 0
    assert_same_run(tmp_path / "whole", tmp_path / "r")


@pytest.mark.slow
def test_same_seed_gives_the_same_bits_and_another_seed_does_not(here, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert (
            here(
                "data=digits",
                "train.threads=1",
                "train.steps=6",
                f"seed={seed}",
                f"run_dir={name}",
                "train.log_every=1",
            )[0]
            == 0
        )
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert logged(tmp_path / "a") != logged(tmp_path / "c")
    pictures = [(tmp_path / name / "samples" / "step_00000006.png").read_bytes() for name in "ab"]
    assert pictures[0] == pictures[1]


@pytest.mark.slow
def test_pictures_and_checkpoints_do_not_change_training(here, tmp_path: Path) -> None:
    for name, every in (("often", 3), ("never", 0)):
        line = [f"train.sample_every={every}", f"train.checkpoint_every={every}", f"run_dir={name}"]
        assert here("data=digits", "train.threads=1", "train.steps=12", "train.log_every=4", *line)[0] == 0
    assert logged(tmp_path / "often") == logged(tmp_path / "never")
