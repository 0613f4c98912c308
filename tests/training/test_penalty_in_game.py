"""Penalties as the game applies them: when, how much, with which rates, and to which networks."""

import math
from pathlib import Path

import pytest
import torch
from helpers import run_of, write_folder

from ganrun.penalty.gradient import R1
from ganrun.protocols import DOutput
from ganrun.training.game import Game, scalars
from ganrun.training.randomness import reseed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradient_penalty", "zero_centered", "r1", "r2", "dragan"])
def test_batch_norm_in_d_is_refused_and_the_remedy_works(name: str, tmp_path: Path) -> None:
    """Public mistake: WGAN-GP with batch norm in the critic: the gradient at a sample is one of the whole batch."""
    small = ["data=folder", f"data.root={tmp_path}", "data.size=16", "arch.discriminator.width=4", "train.batch_size=4"]
    write_folder(tmp_path)
    with pytest.raises(ValueError, match=rf"penalty={name}: D has batch normalization.*arch.discriminator.norm=none"):
        run_of(*small, f"penalty={name}")
    for norm in ("none", "layer"):
        run = run_of(*small, f"penalty={name}", f"arch.discriminator.norm={norm}")
        assert math.isfinite(scalars(*Game(run).step(0))[f"penalty/{name}"])


def test_lazy_penalties_come_every_k_updates_times_k_with_rescaled_rates() -> None:
    """Public mistakes: the weight not multiplied; Adam's rates not rescaled; the count begun anew at a resume."""
    run = run_of("penalty=r1", "penalty.r1.every=4", "optimizer=adam", "train.n_critic=3", "train.ema=0")
    c = 4 / 5
    assert run.d_optimizer.defaults["lr"] == pytest.approx(2e-4 * c)
    assert run.d_optimizer.defaults["betas"] == pytest.approx((0.5**c, 0.999**c))
    assert run.g_optimizer.defaults["betas"] == (0.5, 0.999)
    game = Game(run)
    due = [index for index in range(9) if "penalty/r1" in game.d_update(index, noise=0).terms]
    assert due == [0, 4, 8]
    real, fake = torch.randn(4, 1) + 69, torch.randn(4, 1) + 69
    loss, terms, total = game.d_loss(4, real, fake, None, DOutput(run.D(real)), DOutput(run.D(fake)))
    assert total.item() == pytest.approx(loss.item() + 4 * terms["penalty/r1"].item(), rel=1e-5)
    with pytest.raises(ValueError, match="every=0: must be at least 1"):
        R1(every=0)


@pytest.mark.parametrize("layers", ["+arch.discriminator.batch_norm=true", "arch.discriminator.spectral_norm=true"])
def test_penalties_do_not_move_ds_statistics(layers: str) -> None:
    """Public mistake: every pass for a penalty moves batch norm's statistics, or iterates the spectral norm, again."""
    buffers = []
    for penalty in ("none", "consistency"):
        run = run_of("arch=mlp_small", layers, f"penalty={penalty}", "train.batch_size=8")
        reseed(torch.device("cpu"), 0, "step")
        Game(run).d_update(0, noise=0)
        buffers.append(dict(run.D.named_buffers()))
    assert len(buffers[0]) > 2
    for name, value in buffers[0].items():
        assert torch.equal(value, buffers[1][name]), name


def test_several_penalties_add_up() -> None:
    run = run_of("penalty=[r1,lecam,orthogonal]")
    assert list(run.penalties) == ["r1", "lecam", "orthogonal"]
    d, _ = Game(run).step(0)
    assert set(d.terms) == {"penalty/r1", "penalty/lecam", "penalty/orthogonal"}


def test_lecams_anchors_are_in_the_checkpoint() -> None:
    """Public mistake: adaptive state that a resume forgets."""
    run = run_of("penalty=lecam")
    Game(run).step(0)
    assert run.state_dict()["penalty/lecam"]["started"]


def test_a_penalty_of_the_users_own_needs_no_more_than_a_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_penalty.py").write_text(
        "class Square:\n    def term(self, D, real, fake, y):\n        return 2 * D(real).square().mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = run_of("+penalty.own._target_=own_penalty.Square")
    game = Game(run)
    expected = 2 * run.D(run.batches[0][0]).square().mean()
    d, _ = game.step(0)
    torch.testing.assert_close(d.terms, {"penalty/own": expected})
