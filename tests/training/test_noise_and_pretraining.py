"""Label noise, instance noise, and pre-training of D."""

import copy
import math
from pathlib import Path

import pytest
import torch
from helpers import curves, logged, recorded, result_of, run_of, same, state_of
from torch import Tensor

from ganrun.figures.logits import logits_figure
from ganrun.protocols import DOutput
from ganrun.training.game import Game
from ganrun.training.interrupts import Interrupts
from ganrun.training.randomness import reseed
from ganrun.training.updates import DUpdate

CPU = torch.device("cpu")
QUICK = ["train.batch_size=16", "train.log_every=1", "train.sample_every=5", "train.ema=0", "run_dir=r"]


def test_label_noise_exchanges_the_given_share_of_a_batch() -> None:
    """By hand: the hinge loss with real logits 3 and fake logits -3 is 0, or 4 + 4 if exchanged, so the mean is 8 p."""
    run = run_of("loss=hinge", "penalty=none", "train.label_noise=0.2", "train.batch_size=20000")
    game = Game(run)
    reseed(CPU, 0, "step")
    real, fake = DOutput(torch.full((20000,), 3.0)), DOutput(torch.full((20000,), -3.0))
    loss, _, _ = game.d_loss(0, torch.zeros(1), torch.zeros(1), None, real, fake)
    assert loss.item() == pytest.approx(8 * 0.2, rel=0.05)
    loss, _, _ = game.g_loss(fake, real, None)
    assert loss.item() == 3.0  # G's loss has no label noise


def test_instance_noise_is_on_real_and_fake_and_decays_to_zero() -> None:
    """Common bug: noise only on real samples, by which D can tell them, or noise that does not decay."""
    settings = ["train.instance_noise=0.5", "train.instance_noise_until=50"]
    run = run_of(*settings, "train.steps=100", "train.batch_size=4000")
    game = Game(run)
    inputs: list[Tensor] = []
    run.D.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].detach()))
    for step, share in ((0, 1.0), (25, 0.5), (50, 0.0), (99, 0.0)):
        std = game.instance_noise(step)
        assert std == pytest.approx(0.5 * run.dataset.spec.std * share)
        inputs.clear()
        reseed(CPU, 0, "step", step)
        G = copy.deepcopy(run.G)
        game.step(step)
        reseed(CPU, 0, "step", step)
        with torch.no_grad():
            fake = G(game.latents())
        noise = inputs[0] - torch.cat([run.batches[step][0], fake])
        for part in noise.split(4000):
            assert part.std().item() == pytest.approx(std, rel=0.05, abs=1e-4)
    inputs.clear()
    game.g_update(0, noise=game.instance_noise(0))
    assert inputs[0].std() > 0.5 * run.dataset.spec.std


def test_disabled_noise_uses_no_random_numbers() -> None:
    """The random state is the same as in an update without noise."""
    run = run_of("train.batch_size=16")
    game = Game(run)
    reseed(CPU, 0, "step")
    game.latents()
    expected = torch.rand(3)
    reseed(CPU, 0, "step")
    game.d_update(0, noise=game.instance_noise(0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.label_noise=0.5", r"train.label_noise=0.5: must lie in \[0, 0.5\)"),
        ("train.label_noise=-0.1", r"-0.1: must lie in"),
        ("train.instance_noise=-1", r"train.instance_noise=-1: must be at least 0"),
        ("train.instance_noise_until=10", r"has no effect without instance noise; add"),
        ("train.pretrain_d=-1", r"train.pretrain_d=-1: must be at least 0"),
    ],
)
def test_invalid_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_of(setting)


@pytest.mark.slow
def test_pretraining_updates_only_d_on_its_own_batches(here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training begins with the batch after those of pre-training, and with the initial G."""
    calls: list[tuple[int, bool]] = []
    fresh = state_of(run_of(*QUICK).G)
    original = Game.d_update

    def d_update(game: Game, index: int, noise: float) -> DUpdate:
        calls.append((index, same(fresh, state_of(game.run.G))))
        return original(game, index, noise)

    monkeypatch.setattr(Game, "d_update", d_update)
    assert here(*QUICK, "train.steps=3", "train.n_critic=2", "train.pretrain_d=7")[0] == 0
    assert [index for index, _ in calls] == list(range(7 + 2 * 3))
    assert [untouched for _, untouched in calls] == [True] * (7 + 2) + [False] * 4


@pytest.mark.slow
def test_records_of_pretraining(here) -> None:
    """Steps that count up to 0, two additional pictures, and nimg that includes its examples."""
    code, out, _ = here(*QUICK, "train.steps=2", "train.pretrain_d=4")
    assert code == 0
    assert "D was pre-trained with 4 updates" in out
    rows = [row for row in logged(Path("r")) if "loss/d" in row]
    assert [row["step"] for row in rows] == [-3, -2, -1, 0, 1, 2]
    assert [row["nimg"] for row in rows] == [16, 32, 48, 64, 80, 96]
    assert "loss/g" not in rows[0]
    pictures = {path.name for path in Path("r/samples").iterdir()}
    assert pictures == {"before_pretraining.png", "pretrained_d.png", "step_00000000.png", "step_00000002.png"}


@pytest.mark.slow
@pytest.mark.parametrize("net", ["data=digits", "data=heights"])
def test_pretraining_lowers_ds_loss(net: str) -> None:
    """After it D distinguishes real from fake, which an untrained D does not."""
    run = run_of(net, "train.batch_size=32", "optimizer.lr=0.002")
    game = Game(run)
    first = game.d_update(0, noise=0).loss
    assert first.item() == pytest.approx(2 * math.log(2), rel=0.1)
    for index in range(1, 300):
        last = game.d_update(index, noise=0).loss
    assert last < 0.7 * first


@pytest.mark.slow
def test_run_stopped_during_pretraining_starts_again(here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its curves have no duplicates."""
    asked = iter([False, False])
    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "received", lambda self: next(asked, True))
        here(*QUICK, "train.steps=2", "train.pretrain_d=5")
    result = result_of(Path("r"))
    assert (result["status"], result["steps"], result["nimg"]) == ("interrupted", 0, 2 * 16)
    assert here("resume", "run_dir=r")[0] == 0
    rows = recorded(Path("r"), "loss/d")
    assert [step for step, _ in rows] == [-4, -3, -2, -1, 0, 1, 2]
    assert [step for step, _ in curves(Path("r"))["loss/d"]] == [step for step, _ in rows]


@pytest.mark.slow
def test_run_resumed_after_pretraining_keeps_its_curves(here) -> None:
    line = [*QUICK, "train.pretrain_d=3", "train.checkpoint_every=2", "train.keep_checkpoints=9", "train.steps=4"]
    assert here(*line)[0] == 0
    Path("r/checkpoints/step_00000004.pt").unlink()
    Path("r/result.json").unlink()
    assert here("resume", "run_dir=r")[0] == 0
    assert [step for step, _ in recorded(Path("r"), "loss/d")] == [-2, -1, 0, 1, 2, 3, 4]
    assert [step for step, _ in curves(Path("r"))["loss/d"]] == [-2, -1, 0, 1, 2, 3, 4]


def test_legend_of_histograms_of_d_has_its_accuracy() -> None:
    """Logits above 0 are classified as real. Real logits: 1, -1; fake logits: -1, -1."""
    figure = logits_figure(torch.tensor([1.0, -1.0]), torch.tensor([-1.0, -1.0]), True, "t")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["real, 50% classified correctly", "generated, 100% classified correctly"]
