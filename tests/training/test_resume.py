"""An interrupted run resumes bit for bit, however it was interrupted."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import (
    assert_same_run,
    at_step,
    end_of,
    kill_at,
    kill_before_renaming,
    limit_file_size,
    logged,
    recorded,
    result_of,
    send,
    send_at,
    train_in,
    waiting_at,
)

import ganrun
from ganrun.records import checkpoint
from ganrun.records.run_dir import RunDir, check_compatible
from ganrun.training.parts import load_part

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
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
        (signal.SIGUSR1, 128 + signal.SIGUSR1),
        (signal.SIGUSR2, 128 + signal.SIGUSR2),
        (signal.SIGXCPU, 128 + signal.SIGXCPU),
    ],
)
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
def test_closed_terminal_stops_the_run_with_a_checkpoint(whole: Path, here, tmp_path: Path) -> None:
    """The terminal is gone when the progress bar and the last messages are written to it."""
    line = [*HEIGHTS, "train.checkpoint_every=0", "run_dir=stopped"]
    ended = end_of(line, tmp_path, partial(close_terminal_at, 33))
    assert ended.code == 129, ended
    assert result_of(tmp_path / "stopped")["status"] == "interrupted"
    assert_resumes_as(whole, tmp_path / "stopped", 33, here)


def close_terminal_at(step: int) -> None:
    """Write to a terminal, which is closed after a row of that step has been logged."""
    terminal, program = os.openpty()
    for number in (1, 2):
        os.dup2(program, number)
    os.close(program)
    assert sys.stderr.isatty()

    def close() -> None:
        os.close(terminal)
        os.kill(os.getpid(), signal.SIGHUP)

    at_step(step, close)


@pytest.mark.slow
def test_signal_that_is_ignored_at_the_start_stays_ignored_as_by_nohup(tmp_path: Path) -> None:
    ended = end_of(["train.steps=20", "train.log_every=1", "train.sample_every=0", "metric=none", "run_dir=r"],
                   tmp_path, hang_up_with_nohup)  # fmt: skip
    assert ended.code == 0, ended
    assert result_of(tmp_path / "r")["steps"] == 20


def hang_up_with_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    at_step(5, partial(send, [signal.SIGHUP]))


@pytest.mark.slow
def test_signal_also_stops_the_sweep(tmp_path: Path) -> None:
    line = ["-m", "seed=1,2", "train.steps=20", "train.log_every=1", "train.sample_every=0", "metric=none"]
    ended = send_at(5, [signal.SIGUSR1], [*line, "run_dir=s"], tmp_path)
    assert ended.code == 128 + signal.SIGUSR1, ended
    assert [path.parent.name for path in (tmp_path / "s").glob("*/result.json")] == ["seed=1"]


def test_state_of_an_optimizer_of_the_user_is_loaded_without_a_step() -> None:
    class Own(torch.optim.SGD):
        def step(self, closure: object = None) -> None:
            raise AssertionError

    mine, other = (Own([torch.zeros(2)], lr=lr) for lr in (0.1, 0.2))
    load_part("g_optimizer", mine, {"step": 1, "g_optimizer": other.state_dict()})
    assert mine.param_groups[0]["lr"] == 0.2


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


@pytest.mark.parametrize("name", ["slurm-7.out", "slurm-7.err", "tee.log"])
def test_output_of_the_job_in_its_directory_is_not_a_file_of_another_program(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    check_compatible(RunDir(tmp_path), {})
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="contains files, but no run"):
        check_compatible(RunDir(tmp_path), {})


def test_name_that_is_not_utf8_is_refused_before_training(here, tmp_path: Path) -> None:
    code, _, err = here("run_dir=caf\udce9")
    assert code == 2
    assert "is not UTF-8" in err
    assert not list(tmp_path.iterdir())


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


@pytest.mark.slow
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
@pytest.mark.parametrize("status", [0, 3, None])
def test_exit_of_a_component_is_a_failure_and_does_not_end_the_sweep(
    status: int | None, here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"leaving_{status}"
    (tmp_path / f"{module}.py").write_text(
        "import sys\n"
        "from ganrun.loss import NonSaturating\n"
        "class Loss(NonSaturating):\n"
        "    calls = 0\n"
        "    def d_loss(self, real, fake):\n"
        "        self.calls += 1\n"
        f"        return super().d_loss(real, fake) if self.calls < 9 else sys.exit({status})\n"
    )
    sys.path.append(str(tmp_path))
    line = [f"loss._target_={module}.Loss", "train.steps=20", "train.checkpoint_every=5", "train.sample_every=0"]
    code, out, err = here("-m", "seed=1,2", *line, "run_dir=s")
    assert code == 1
    assert "sweep: 0 of 2 jobs succeeded" in out
    assert f"RuntimeError: sys.exit({status}) was called in {tmp_path / module}.py, line 7" in err
    for seed in (1, 2):
        result = result_of(tmp_path / "s" / f"seed={seed}")
        assert (result["status"], result["steps"]) == ("failed", 7)
    with pytest.raises(RuntimeError, match=r"sys\.exit"):
        ganrun.train(ganrun.compose(*line, "run_dir=api"))


@pytest.mark.slow
def test_exit_while_a_component_is_built_is_a_failure(here, tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text("import sys\nsys.exit(0)\n")
    sys.path.append(str(tmp_path))
    code, _, err = here("-m", "seed=1,2", "loss._target_=gone.Loss", "run_dir=s")
    assert code == 1
    assert err.count("failed: sys.exit(0) was called in") == 4  # at the job, and in the summary


@pytest.mark.slow
def test_full_disk_is_reported_in_one_sentence_and_loses_nothing(here, tmp_path: Path) -> None:
    line = ["train.steps=30", "train.log_every=5", "train.checkpoint_every=10", "train.sample_every=0"]
    assert here(*line, "run_dir=whole")[0] == 0
    limit = (tmp_path / "whole" / "checkpoints" / "step_00000030.pt").stat().st_size // 2
    ended = end_of([*line, "run_dir=r"], tmp_path, partial(limit_file_size, limit))
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
