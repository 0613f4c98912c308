"""Penalties in a run: when and with which weight and learning rates they are applied, and to which networks."""

import math
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import Here
from helpers import run_of, write_folder
from torch.nn.modules.batchnorm import _BatchNorm

from ganrun.penalty.gradient import R1
from ganrun.protocols import DOutput
from ganrun.records.run_dir import RunDir
from ganrun.training.game import Game
from ganrun.training.instantiate import make
from ganrun.training.randomness import reseed
from ganrun.training.updates import scalars


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    write_folder(tmp_path / "images")
    return [
        "data=folder", "data.root=images", "data.cache=cache", "data.size=16", "train.batch_size=4",
        "arch.generator.width=2", "arch.discriminator.width=2",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradient_penalty", "zero_centered", "r1", "r2", "dragan"])
def test_batch_norm_in_d_is_refused_and_the_remedy_works(name: str, tmp_path: Path) -> None:
    """Common bug: WGAN-GP with batch norm in the critic, where a gradient depends on the whole batch."""
    small = ["data=folder", f"data.root={tmp_path}", "data.size=16", "arch.discriminator.width=4", "train.batch_size=4"]
    write_folder(tmp_path)
    with pytest.raises(ValueError, match=rf"penalty={name}: D has batch normalization.*arch.discriminator.norm=none"):
        run_of(*small, f"penalty={name}", "arch.discriminator.norm=batch")
    for norm in ("none", "layer", "auto"):
        run = run_of(*small, f"penalty={name}", f"arch.discriminator.norm={norm}")
        assert math.isfinite(scalars(*Game(run).step(0))[f"penalty/{name}"])


@pytest.mark.parametrize("penalty", ["none", "lecam", "weight_clip"])
def test_d_has_batch_norm_without_a_gradient_penalty(penalty: str, images: list[str]) -> None:
    run = run_of(*images, f"penalty={penalty}")
    assert any(isinstance(layer, _BatchNorm) for layer in run.D.modules())


@pytest.mark.parametrize("line", [["loss=wgan_gp"], ["loss=rpgan"], ["penalty=[lecam,r1]", "penalty.r1.gamma=0"]])
def test_gradient_penalty_chooses_a_d_without_batch_norm(line: list[str], images: list[str]) -> None:
    """Common bug: two documented options, loss=wgan_gp data=mnist, do not work together."""
    run = run_of(*images, *line)
    assert not any(isinstance(layer, _BatchNorm) for layer in run.D.modules())
    assert any(isinstance(layer, _BatchNorm) for layer in run.G.modules())


def test_penalty_of_the_user_chooses_a_d_without_batch_norm(images: list[str], tmp_path: Path) -> None:
    (tmp_path / "my_r1.py").write_text("from ganrun.penalty.gradient import R1\nclass Mine(R1): name = 'mine'\n")
    sys.path.append(str(tmp_path))
    run = run_of(*images, "+penalty.mine={_target_: my_r1.Mine}")
    assert not any(isinstance(layer, _BatchNorm) for layer in run.D.modules())


@pytest.mark.slow
def test_choice_of_norm_is_printed_in_a_line_and_stored(images: list[str], here: Here, tmp_path: Path) -> None:
    line = [*images, "train.steps=2", "train.sample_every=0", "train.diagnose=false"]
    for loss, own, norm, reason in (
        ("wgan_gp", "", "none", "since penalty=gradient_penalty excludes batch norm"),
        ("hinge", "arch.discriminator.spectral_norm=true", "none", "as usual with spectral_norm=true"),
        ("nonsaturating", "", "batch", ""),
    ):
        for again in ("", "train.keep_every=7"):  # the same command finds its run
            code, out, err = here(*line, f"loss={loss}", f"run_dir={loss}", *own.split(), *again.split())
            assert code == 0, err
            assert ("none in D (arch.discriminator.norm)" in out) == (reason != "" and not again)
            assert reason in out or again
        assert RunDir(tmp_path / loss).config()["arch"]["discriminator"]["norm"] == norm
    code, out, err = here(*line, "loss=wgan_gp", "arch.discriminator.norm=batch", "run_dir=refused")
    assert (code, err.count("\n")) == (2, 1)
    assert "penalty=gradient_penalty: D has batch normalization" in err
    assert not (tmp_path / "refused").exists()


def test_lazy_penalties_are_added_every_k_updates_times_k_with_rescaled_rates() -> None:
    """Common bugs: the weight is not multiplied, Adam's rates are not rescaled, or a resume restarts the count."""
    run = run_of("penalty=r1", "penalty.r1.every=4", "optimizer=adam", "train.n_critic=3", "train.ema=0")
    c = 4 / 5
    assert run.d_optimizer.defaults["lr"] == pytest.approx(2e-4 * c)
    assert run.d_optimizer.defaults["betas"] == pytest.approx((0.5**c, 0.999**c))
    assert run.g_optimizer.defaults["betas"] == (0.5, 0.999)
    game = Game(run)
    logged = [game.d_update(index, noise=0).terms["penalty/r1"].item() for index in range(9)]
    assert [index for index in range(1, 9) if logged[index] != logged[index - 1]] == [4, 8]  # else the last value
    real, fake = torch.randn(4, 1) + 69, torch.randn(4, 1) + 69
    loss, terms, total = game.d_loss(4, real, fake, None, DOutput(run.D(real)), DOutput(run.D(fake)))
    assert total.item() == pytest.approx(loss.item() + 4 * terms["penalty/r1"].item(), rel=1e-5)
    loss, _, total = game.d_loss(5, real, fake, None, DOutput(run.D(real)), DOutput(run.D(fake)))
    assert total.item() == loss.item()
    with pytest.raises(ValueError, match="every=0: must be at least 1"):
        R1(every=0)


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["+arch.discriminator.batch_norm=true", "arch.discriminator.spectral_norm=true"])
def test_penalties_do_not_update_statistics_of_d(layers: str) -> None:
    """Common bug: passes for a penalty also update batch norm's statistics, or run more power iterations."""
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


def test_anchors_of_lecam_are_in_the_checkpoint() -> None:
    """Common bug: adaptive state that is lost on resume."""
    run = run_of("penalty=lecam")
    Game(run).step(0)
    assert run.state_dict()["penalty/lecam"]["started"]


def test_user_defined_penalty_needs_only_a_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_penalty.py").write_text(
        "class Square:\n    def term(self, D, real, fake, y):\n        return 2 * D(real).square().mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = run_of("+penalty.own._target_=own_penalty.Square")
    game = Game(run)
    expected = 2 * run.D(run.batches[0][0]).square().mean()
    d, _ = game.step(0)
    torch.testing.assert_close(d.terms, {"penalty/own": expected})


TERM = "def term(self, D, real, fake, y):\n        return "
NOT_SCALAR = "must return a scalar tensor that depends on the outputs of D, or None."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{TERM}D(real).square()", f"penalty.own: its term {NOT_SCALAR}"),
        (f"{TERM}D(real).square().mean().detach()", f"penalty.own: its term {NOT_SCALAR}"),
        (f"{TERM}0.5", f"penalty.own: its term {NOT_SCALAR}"),
        (f"{TERM}D(real, fake, y)", "penalty.own: its term(D, real, fake, y) does not work ("),
        ("def term(self, D): ...", "penalty.own: its term(D, real, fake, y) does not work ("),
        ("def logits_term(self, real, fake):\n        return real", f"penalty.own: its logits_term {NOT_SCALAR}"),
        ("def terms(self, D): ...", "penalty.own: has none of the methods term, logits_term and project"),
        (f"every = 0\n    {TERM}D(real).mean()", "penalty.own.every=0: must be a whole number of at least 1."),
        (f"every = 2.5\n    {TERM}D(real).mean()", "penalty.own.every=2.5: must be a whole number of at least 1."),
    ],
    ids=["vector", "detached", "float", "raises", "signature", "logits", "no_method", "every_0", "every_2.5"],
)
def test_a_wrong_penalty_is_refused_before_training(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_penalty.py").write_text(f"class Own:\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_penalty", raising=False)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        run_of("+penalty.own._target_=own_penalty.Own")


def test_a_weighted_penalty_without_a_value_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "valueless.py").write_text("from ganrun.penalty.base import WeightedPenalty as Valueless\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"penalty\.own: .* \(WeightedPenalty has no method value\(D, real, fake, y\)"):
        run_of("+penalty.own._target_=valueless.Valueless", "+penalty.own.weight=1")


def test_a_penalty_that_only_projects_needs_no_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halving.py").write_text(
        "class Halving:\n    def project(self, D):\n        for p in D.parameters():\n            p.data.mul_(0.5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    runs = (
        run_of("optimizer=sgd", "optimizer.lr=0"),
        run_of("optimizer=sgd", "optimizer.lr=0", "+penalty.own._target_=halving.Halving"),
    )
    for run in runs:
        Game(run).d_update(0, noise=0)
    for whole, half in zip(runs[0].D.parameters(), runs[1].D.parameters(), strict=True):
        assert torch.equal(whole / 2, half)


@pytest.mark.parametrize("name", ["lecam", "gradient_penalty", "consistency"])
def test_the_check_of_penalties_changes_no_state_and_no_draw(name: str) -> None:
    """The networks' initial weights, and what comes after, are the same with the penalty as without it."""
    plain, run = run_of("penalty=none"), run_of(f"penalty={name}")
    assert all(map(torch.equal, plain.D.state_dict().values(), run.D.state_dict().values()))
    if name == "lecam":
        assert not run.state_dict()["penalty/lecam"]["started"]
    assert run.D.training
    assert run.G.training


@pytest.mark.parametrize("group", ["penalty", "metric"])
def test_a_component_without_a_name_is_refused(group: str) -> None:
    """As from an option file whose first line is `_target_`."""
    with pytest.raises(ValueError, match=rf"^{group}\._target_=.* write conf/{group}/NAME.yaml as `NAME: "):
        run_of(f"{group}=none", f"+{group}._target_=ganrun.penalty.gradient.R1")


def test_an_error_in_a_nested_component_is_given() -> None:
    layer = {"_target_": "torch.nn.Linear", "in_features": -1, "out_features": 2}
    with pytest.raises(ValueError, match=r"^arch: Trying to create tensor with negative dimension -1"):
        make("arch", {"_target_": "torch.nn.TransformerEncoder", "encoder_layer": layer, "num_layers": 1})


def test_a_misspelled_class_is_named_with_its_module() -> None:
    with pytest.raises(ValueError, match=r"gradient has no GradPenalty; did you mean GradientPenalty\?"):
        run_of("penalty=r1", "penalty.r1._target_=ganrun.penalty.gradient.GradPenalty")
