"""Frames: recorded for figures of a run on one- or two-dimensional data, without changing the run."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_of, send_at
from torch import Tensor, nn

from ganrun.figures.album import Album
from ganrun.records import checkpoint, frames
from ganrun.training.capture import capture
from ganrun.training.game import Game
from ganrun.training.pictures import Pictures
from ganrun.training.randomness import reseed
from ganrun.training.run import Run

SHORT = ["train.batch_size=16", "train.log_every=2", "train.sample_every=0", "train.ema=0.5", "train.frame_every=2",
         "data.num=2000", "metric=none", "train.diagnose=false"]  # fmt: skip


class Affine(nn.Module):
    """G(z) = 69 + 3 z, with the distribution of the data; D(x) = (x - 69) / 3."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return 69 + 3 * x


class Slope(nn.Module):
    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (x[:, 0] - 69) / 3


class Fixed(nn.Module):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.tensor([[1.0, -2.0]]).expand(len(z), 2)


def perfect_run() -> Run:
    return replace(run_of("train.ema=0"), G=Affine(), D=Slope())


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "frames").iterdir())


def test_frame_of_a_known_generator() -> None:
    """G(z) = 69 + 3 z: counts follow the normal distribution, z -> x is a line, and D's logits are recorded."""
    frame = capture(perfect_run(), 7)
    assert (frame.step, frame.num, frame.z_dim, frame.logistic) == (7, 20_000, 1, True)
    assert (frame.low.item(), frame.high.item()) == (54.0, 84.0)
    assert frame.mean.item() == pytest.approx(69, abs=0.1)
    assert frame.std.item() == pytest.approx(3, rel=0.03)
    edges = torch.linspace(54, 84, 401, dtype=torch.float64)
    expected = 20_000 * torch.special.ndtr((edges - 69) / 3).diff().numpy()
    deviation = (frame.counts - expected) / np.sqrt(np.maximum(expected, 1))
    assert frame.counts.sum() == 20_000
    assert np.abs(deviation).max() < 5
    assert (np.diff(frame.z) > 0).all()
    assert np.allclose(frame.samples[:, 0], 69 + 3 * frame.z)
    assert np.allclose(np.quantile(frame.z, [0.25, 0.5, 0.75]), [-0.674, 0, 0.674], atol=0.08)
    assert np.allclose(frame.logits, (frame.positions() - 69) / 3, atol=1e-5)
    assert np.allclose(frame.d_values, 1 / (1 + np.exp(-frame.logits)))


def test_first_index_of_a_2d_frame_is_the_first_coordinate() -> None:
    run = run_of("data=ring", "arch.discriminator.hidden=[8]", "arch.generator.hidden=[8]")
    frame = capture(replace(run, D=Slope()), 0)
    assert frame.logits.shape == (64, 64)
    assert frame.samples.shape == (2500, 2)
    assert np.allclose(frame.logits, ((frame.positions(0) - 69) / 3)[:, None] + 0 * frame.positions(1))
    assert (frame.low < -2.4).all()
    assert (frame.high > 2.4).all()


def test_2d_samples_are_counted_by_cell() -> None:
    """For G(z) = (1, -2), all samples are in the cell of this point."""
    run = run_of("data=ring", "arch.discriminator.hidden=[8]", "arch.generator.hidden=[8]", "train.ema=0")
    frame = capture(replace(run, G=Fixed()), 0)
    side = (frame.high - frame.low) / 64
    i, j = ((np.array([1.0, -2.0]) - frame.low) / side).astype(int)
    assert frame.counts.shape == (64, 64)
    assert frame.counts[i, j] == frame.counts.sum() == frame.num == 10_000
    assert frame.counts_g.size == 0


def test_samples_come_from_g_ema_and_samples_of_g_are_also_counted() -> None:
    run = replace(run_of("train.ema=0.9", "data=mixture1d", "arch=mlp_small"), G_ema=Affine())
    frame = capture(run, 0)
    assert frame.mean.item() == pytest.approx(69, abs=0.1)
    assert frame.counts.sum() == 0  # all samples of G are outside the box
    assert frame.counts_g.sum() == 20_000


@pytest.mark.parametrize("data", ["heights", "ring", "dirac"])
def test_frame_is_unchanged_after_saving_and_loading(data: str, tmp_path: Path) -> None:
    frame = capture(run_of(f"data={data}", "arch=mlp_small"), -3)
    frames.save(frame, tmp_path, pretrain_d=10)
    assert names(tmp_path) == ["pretrain_00000007"]
    (again,) = frames.load_all(tmp_path)
    assert (again.step, again.logistic) == (-3, True)
    for key, value in vars(frame).items():
        assert np.array_equal(value, getattr(again, key)), key
    assert (tmp_path / "frames" / "pretrain_00000007.npz").stat().st_size < 90_000


def test_recording_does_not_change_any_state() -> None:
    """The states of batch norm and spectral norm, and the random state that dropout uses, do not change."""
    nets = ["arch=heights", "arch.discriminator.spectral_norm=true", "train.batch_size=16"]
    runs = [run_of(*nets), run_of(*nets)]
    for i, run in enumerate(runs):
        game = Game(run)
        for step in range(3):
            reseed(run.device, run.seed, "step", step)
            if i:
                capture(run, step)
            game.step(step)
    for a, b in zip(runs[0].G.state_dict().values(), runs[1].G.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(runs[0].D.state_dict().values(), runs[1].D.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_when_frames_are_recorded(here, tmp_path: Path) -> None:
    """At the start, after pre-training D, at the end, and in between at the given interval or with pictures."""
    assert here(*SHORT, "train.steps=5", "train.pretrain_d=3", "run_dir=a")[0] == 0
    assert names(tmp_path / "a") == [
        "pretrain_00000000", "pretrain_00000001", "step_00000000", "step_00000002", "step_00000004", "step_00000005",
    ]  # fmt: skip
    assert [frame.step for frame in frames.load_all(tmp_path / "a")] == [-3, -2, 0, 2, 4, 5]
    seldom = ["train.steps=5", "train.frame_every=0", "train.sample_every=3", "run_dir=b"]
    assert here(*SHORT, *seldom)[0] == 0
    assert names(tmp_path / "b") == ["step_00000000", "step_00000003", "step_00000005"]
    assert here("data=digits", "arch=mlp", "train.threads=1", "train.steps=2", "run_dir=c")[0] == 0
    assert not (tmp_path / "c" / "frames").exists()


@pytest.mark.slow
def test_resumed_run_has_the_frames_of_an_uninterrupted_one(here, tmp_path: Path) -> None:
    line = [*SHORT, "train.steps=8", "train.pretrain_d=2", "train.checkpoint_every=4", "train.keep_checkpoints=9"]
    assert here(*line, "run_dir=whole")[0] == 0
    assert here(*line, "run_dir=cut")[0] == 0
    cut = tmp_path / "cut"
    checkpoint.path_of(cut / "checkpoints", 8).unlink()
    (cut / "result.json").unlink()
    (cut / "frames" / "step_00000006.npz").write_bytes(b"of a run that was killed")
    (cut / "frames" / "step_00000007.npz").write_bytes(b"of another life")
    (cut / "frames" / "step_00000008.npz.partial").write_bytes(b"half")
    assert here("resume", "run_dir=cut")[0] == 0
    assert names(cut) == names(tmp_path / "whole")
    for a, b in zip(frames.load_all(cut), frames.load_all(tmp_path / "whole"), strict=True):
        assert all(np.array_equal(value, getattr(b, key)) for key, value in vars(a).items())


@pytest.mark.slow
def test_run_stopped_during_pretraining_restarts_its_frames(here, tmp_path: Path) -> None:
    line = [*SHORT, "train.log_every=1", "train.steps=2", "train.pretrain_d=4", "run_dir=r"]
    ended = send_at(-1, [signal.SIGTERM], line, tmp_path)
    assert ended.code == 143, ended
    assert [frame.step for frame in frames.load_all(tmp_path / "r")] == [-4, -2]
    assert not (tmp_path / "r" / "checkpoints").exists()
    frames.save(replace(frames.load_all(tmp_path / "r")[0], step=-3), tmp_path / "r", pretrain_d=4)
    assert here("resume", "run_dir=r")[0] == 0
    assert [frame.step for frame in frames.load_all(tmp_path / "r")] == [-4, -2, 0, 2]


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_damaged_frame_is_reported_and_skipped(damage: bytes | None, tmp_path: Path, caplog) -> None:
    run = perfect_run()
    for step in (0, 2):
        frames.save(capture(run, step), tmp_path)
    path = frames.path_of(tmp_path, 0, 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000] if damage is None else damage)
    assert [frame.step for frame in frames.load_all(tmp_path)] == [2]
    assert "step_00000000.npz: is not a readable frame" in caplog.text
    assert "It is skipped." in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("data", ["heights", "ring"])
def test_diverged_run_has_a_frame(data: str, value: float, tmp_path: Path) -> None:
    """Divergence is reported for the loss or the checkpoint, not as an error of the frame or the figure."""
    run = run_of(f"data={data}", "arch=mlp_small", "train.ema=0")
    with torch.no_grad():
        for net in (run.G, run.D):
            next(net.parameters()).fill_(value)
    frames.save(capture(run, 0), tmp_path)
    (frame,) = frames.load_all(tmp_path)
    assert not frame.counts.sum()
    assert Pictures(run).draw("step 0").shape[2] == 3
    assert Album([frame, frame], run.dataset, [], [], 1, 0, None).images()[0].shape[2] == 3
