"""Runs of an earlier version: they load, and resume bit for bit.

`legacy_runs/` was written by ganrun at commit 14cadb4: eight steps each, with a checkpoint after the fourth. On the
kind of machine that wrote them, identified by `fingerprint`, the eighth step must be the same bit for bit. On others,
where torch rounds differently, it must be close.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import recorded, result_of, same
from torch import Tensor, nn

import ganrun
from ganrun.records import checkpoint, frames
from ganrun.records.run_dir import RunDir
from ganrun.training.run import LATER

STORED = Path(__file__).with_name("legacy_runs")
FINGERPRINT = "2122b6c58ee52e52"
RESUMED = sorted(path.name for path in STORED.iterdir() if path.name != "first_stage")


def fingerprint() -> str:
    """A hash of the results of torch operations on this machine, in float32 and with one thread."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 8, 8, generator=source).requires_grad_()
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.ConvTranspose2d(4, 2, 4, 2), nn.Tanh(), nn.Flatten(),
        nn.Linear(392, 5), nn.LeakyReLU(0.2), nn.Linear(5, 1),
    )  # fmt: skip
    for p in net.parameters():
        nn.init.normal_(p, std=0.1, generator=source)
    nn.functional.softplus(net(x)).mean().backward()
    results = [x.grad, *(p.grad for p in net.parameters()), torch.randn(1000, generator=source).exp()]
    digest = hashlib.sha256(torch.__version__.partition("+")[0].encode())
    for result in results:
        assert result is not None
        digest.update(result.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def copy_of(name: str, folder: Path) -> Path:
    shutil.copytree(STORED / name, folder / name)
    return folder / name


def interrupted_copy_of(name: str, folder: Path) -> Path:
    """The run as if stopped after its checkpoint at step 4, with rows of later steps, which a resume must remove."""
    run_dir = copy_of(name, folder)
    checkpoint.path_of(run_dir / "checkpoints", 8).unlink()
    (run_dir / "result.json").unlink()
    return run_dir


def close(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Tensor):
        return torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-4)
    return a == pytest.approx(b, rel=1e-3) if isinstance(a, float) else a == b


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_run_of_an_earlier_version_resumes_bit_for_bit(name: str, here, tmp_path: Path) -> None:
    run_dir = interrupted_copy_of(name, tmp_path)
    code, out, err = here("resume", f"run_dir={name}")
    assert code == 0, err
    assert "resuming at step 4 of 8" in out
    stored, resumed = (checkpoint.load(checkpoint.path_of(d / "checkpoints", 8)) for d in (STORED / name, run_dir))
    compare = same if fingerprint() == FINGERPRINT else close
    assert stored.keys() == resumed.keys() - {"lazy_terms"}
    resumed["data"] = {key: value for key, value in resumed["data"].items() if key not in LATER}
    for key in stored.keys() - {"config", "seconds"}:
        assert compare(stored[key], resumed[key]), key
    for tag in ("loss/d", "loss/g", "grad_norm/g"):
        before, after = recorded(STORED / name, tag), recorded(run_dir, tag)
        assert [step for step, _ in before] == [step for step, _ in after]
        assert compare([value for _, value in before], [value for _, value in after])
    assert close(result_of(STORED / name)["metrics"], result_of(run_dir)["metrics"])


@pytest.mark.parametrize("name", RESUMED)
def test_run_of_an_earlier_version_loads(name: str) -> None:
    run = ganrun.load(STORED / name, checkpoint=4, device="cpu")
    assert run.step == 4
    assert run.sample(2).isfinite().all()
    assert (run.G_ema is not None) == (run.config["train"]["ema"] > 0)
    assert run.build().options.steps == 8


def test_same_command_continues_a_run_of_an_earlier_version(here, tmp_path: Path) -> None:
    """Its targets and settings have been renamed since, which is not a change of the config."""
    interrupted_copy_of("penalties_and_noise", tmp_path)
    line = json.loads((STORED / "penalties_and_noise" / "command.json").read_text())
    code, _, err = here(*line)
    assert code == 0, err


@pytest.mark.slow
def test_same_command_continues_an_average_of_an_earlier_version_bit_for_bit(here, tmp_path: Path) -> None:
    """The average of an earlier version includes the initial weights of G, which is no longer the default."""
    states = []
    for how in ("resume", "repeat"):
        run_dir = interrupted_copy_of("penalties_and_noise", tmp_path / how)
        line = json.loads((run_dir / "command.json").read_text())
        line = [override for override in line if not override.startswith("run_dir=")] if how == "repeat" else ["resume"]
        code, _, err = here(*line, f"run_dir={run_dir}")
        assert code == 0, err
        assert RunDir(run_dir).config()["train"]["ema_debias"] is False
        states.append(checkpoint.load(checkpoint.path_of(run_dir / "checkpoints", 8)))
    assert same(states[0]["G_ema"], states[1]["G_ema"])
    assert not same(states[0]["G_ema"], states[0]["G"])


@pytest.mark.parametrize("name", RESUMED)
def test_average_of_an_earlier_version_keeps_its_start(name: str) -> None:
    train = RunDir(STORED / name).config()["train"]
    assert train["ema_debias"] is (train["ema"] == 0)


def test_grow_from_setting_of_the_arch_becomes_init_from() -> None:
    run_dir = RunDir(STORED / "grown")
    config = run_dir.config()
    assert "grow_from" not in config["arch"]["generator"]
    assert config["init_from"] == "first_stage"
    assert config["init"] == {"nets": "generator", "checkpoint": "last", "same_data": True}
    overrides = run_dir.overrides()
    assert {"init_from=first_stage", "init.nets=generator"} <= set(overrides)
    assert not any("grow_from" in override for override in overrides)


@pytest.mark.slow
def test_renamed_targets_are_found_by_their_old_names(tmp_path: Path, here) -> None:
    """In a stored config, and in a user-defined option."""
    penalties = RunDir(STORED / "penalties_and_noise").config()["penalty"]
    assert penalties["r1"]["_target_"] == "ganrun.penalty.gradient.R1"
    (tmp_path / "conf" / "penalty").mkdir(parents=True)
    (tmp_path / "conf" / "penalty" / "mine.yaml").write_text("mine: {_target_: ganrun.penalty.R1, gamma: 2}\n")
    code, _, err = here("penalty=mine", "train.steps=2", "train.sample_every=0", "metric=none")
    assert code == 0, err


def test_recorded_overrides_get_their_new_names(tmp_path: Path) -> None:
    run_dir = RunDir(copy_of("wgan", tmp_path))
    run_dir.write_overrides(["arch=mlp_unrolled", "optimizer=goodfellow2014/tfd", "seed=1"])
    assert run_dir.overrides() == ["arch=mlp_metz2017", "optimizer=goodfellow2014_tfd", "seed=1"]


def test_evaluation_of_an_earlier_version_is_kept(here, tmp_path: Path) -> None:
    """It has `average` where it is now `ema`. A new evaluation of the same step and G replaces it."""
    run_dir = copy_of("penalties_and_noise", tmp_path)
    (row,) = (row for row in RunDir(run_dir).rows() if "evaluated" in row)
    assert row["evaluated"] == {"checkpoint": 4, "ema": False, "seed": 0}
    code, _, err = here("evaluate", "run_dir=penalties_and_noise", "checkpoint=4", "ema=false")
    assert code == 0, err
    (found,) = result_of(run_dir)["evaluations"]
    assert close(found["metrics"], result_of(STORED / "penalties_and_noise")["evaluations"][0]["metrics"])
    assert found["ema"] is False


def test_frame_of_an_earlier_version_is_read() -> None:
    (frame,) = frames.load_all(STORED / "penalties_and_noise")
    assert frame.counts_g.sum() == frame.num


def test_first_stage_of_an_earlier_version_can_be_grown(here, tmp_path: Path) -> None:
    copy_of("first_stage", tmp_path)
    line = [override for override in RunDir(STORED / "grown").overrides() if not override.startswith("run_dir=")]
    code, _, err = here(*line, "train.steps=1", "run_dir=again")
    assert code == 0, err
