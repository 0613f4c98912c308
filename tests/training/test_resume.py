"""An interrupted run continues bit for bit, however it was interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import assert_same_run, logged, train_in

from ganrun.records import checkpoint

NARROW = ["arch.generator.width=16", "arch.discriminator.width=16"]
HEIGHTS = ["train.steps=900", "train.checkpoint_every=100", "train.log_every=10", "train.sample_every=450"]
WGAN = ["data=digits", *NARROW, "loss=wgan", "train.ema=0.99", "train.steps=40", "train.batch_size=16",
        "latent=uniform", "train.checkpoint_every=7", "train.log_every=2", "train.sample_every=20"]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of HEIGHTS that nothing interrupted."""
    folder = tmp_path_factory.mktemp("heights")
    train_in(folder, [*HEIGHTS, "run_dir=whole"])
    return folder / "whole"


def kill_and_resume(line: list[str], here, tmp_path: Path) -> Path:
    process = start([*line, "run_dir=killed"], tmp_path)
    wait_for(tmp_path / "killed" / "checkpoints", process)
    time.sleep(random.uniform(0.05, 0.6))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "result.json").exists()
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99999')  # a row that the kill cut off
    code, out, err = here("resume", "run_dir=killed")
    assert code == 0, err
    assert "resuming at step" in out
    assert json.loads((tmp_path / "killed" / "result.json").read_text())["status"] == "finished"
    return tmp_path / "killed"


@pytest.mark.slow
def test_kill_and_resume_is_the_whole_run(whole: Path, here, tmp_path: Path) -> None:
    assert_same_run(whole, kill_and_resume(HEIGHTS, here, tmp_path))


@pytest.mark.slow
def test_kill_and_resume_is_the_whole_run_of_a_dcgan_with_an_average(here, tmp_path: Path) -> None:
    assert here(*WGAN, "run_dir=whole")[0] == 0
    assert_same_run(tmp_path / "whole", kill_and_resume(WGAN, here, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_are_recorded(number: int, code: int, whole: Path, here, tmp_path: Path) -> None:
    line = [*HEIGHTS, "train.checkpoint_every=0", "run_dir=stopped"]
    process = start(line, tmp_path)
    wait_for(tmp_path / "stopped" / "metrics.jsonl", process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code, out
    result = json.loads((tmp_path / "stopped" / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert 0 < result["steps"] < 900
    assert f"step {result['steps']}" in out
    assert here(*line)[0] == 0  # the same command continues, too
    assert_same_run(whole, tmp_path / "stopped")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(here, tmp_path: Path) -> None:
    line = ["train.steps=60", "train.checkpoint_every=20", "train.log_every=10", "train.sample_every=0"]
    assert here(*line, "run_dir=whole")[0] == 0
    assert here(*line, "run_dir=damaged")[0] == 0
    damaged = tmp_path / "damaged"
    (damaged / "result.json").unlink()
    newest = damaged / "checkpoints" / "step_00000060.pt"
    weights = checkpoint.load(newest)["G"]["layers.0.weight"].numpy().tobytes()
    data = bytearray(newest.read_bytes())
    data[data.index(weights)] ^= 1  # one bit: torch itself would load it
    newest.write_bytes(data)
    torch.load(newest, weights_only=True)
    code, out, err = here("resume", "run_dir=damaged")
    assert code == 0
    assert "step_00000060.pt" in err
    assert "resuming at step 40" in out
    assert_same_run(tmp_path / "whole", damaged)


@pytest.mark.slow
def test_a_changed_config_is_refused_and_its_keys_are_named(here) -> None:
    line = ["train.steps=4", "train.sample_every=0", "run_dir=r"]
    assert here(*line)[0] == 0
    code, _, err = here(*line, "seed=5", "optimizer.lr=0.1")
    assert code == 2
    assert "seed (0 there, 5 now)" in err
    assert "optimizer.lr (0.002 there, 0.1 now)" in err
    assert here(*line, "train.keep_checkpoints=5")[0] == 0


@pytest.mark.slow
def test_a_folder_of_someone_else_and_a_run_that_is_under_way_are_refused(here, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    code, _, err = here("run_dir=mine")
    assert code == 2
    assert "holds files, but no run" in err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]

    process = start(["train.steps=100000", "run_dir=busy"], tmp_path)
    wait_for(tmp_path / "busy" / "metrics.jsonl", process)
    code, _, err = here("resume", "run_dir=busy")
    process.kill()
    process.communicate()
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
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("diverged", 15)
    state = checkpoint.load_newest(tmp_path / "r" / "checkpoints")
    assert state["step"] == 10
    assert all(torch.isfinite(tensor).all() for tensor in state["G"].values())


def test_an_error_in_the_middle_is_recorded(here, tmp_path: Path) -> None:
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
    assert json.loads((tmp_path / "r" / "result.json").read_text())["status"] == "failed"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs resource limits")
def test_a_full_disk_is_one_sentence_and_loses_nothing(here, tmp_path: Path) -> None:
    line = ["train.steps=300", "train.log_every=50", "train.checkpoint_every=100", "train.sample_every=0", "run_dir=r"]
    assert here(*line[:-1], "run_dir=whole")[0] == 0
    limit = (tmp_path / "whole" / "checkpoints" / "step_00000300.pt").stat().st_size // 2
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"from ganrun.cli.main import main; sys.exit(main({line}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert json.loads((tmp_path / "r" / "result.json").read_text())["status"] == "failed"
    assert not list((tmp_path / "r" / "checkpoints").iterdir())
    assert here("resume", "run_dir=r")[0] == 0
    assert_same_run(tmp_path / "whole", tmp_path / "r")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_other_ones(here, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert here("data=digits", "train.steps=6", f"seed={seed}", f"run_dir={name}", "train.log_every=1")[0] == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert logged(tmp_path / "a") != logged(tmp_path / "c")
    pictures = [(tmp_path / name / "samples" / "step_00000006.png").read_bytes() for name in "ab"]
    assert pictures[0] == pictures[1]


@pytest.mark.slow
def test_showing_and_saving_do_not_disturb_training(here, tmp_path: Path) -> None:
    for name, every in (("often", 3), ("never", 0)):
        line = [f"train.sample_every={every}", f"train.checkpoint_every={every}", f"run_dir={name}"]
        assert here("data=digits", "train.steps=12", "train.log_every=4", *line)[0] == 0
    assert logged(tmp_path / "often") == logged(tmp_path / "never")
