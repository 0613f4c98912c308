"""The game's rules, against cases computed by hand. Each test names the public mistake that it guards against."""

import copy
import math
from typing import Any

import pytest
import torch
from helpers import run_of
from torch import Tensor, nn

from ganrun.training.game import Average, Game, scalars, treats_samples_independently
from ganrun.training.randomness import reseed

CPU = torch.device("cpu")


def state_of(net: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in net.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("arch", ["mlp_small", "heights", "batch_norm_in_both", "spectral_norm_in_both"])
def test_a_player_leaves_the_other_as_it_is(arch: str) -> None:
    """Public mistakes: `zero_grad` on the wrong net; G's statistics moved by the D step, or D's by the G step."""
    if arch == "spectral_norm_in_both":
        choice = ["arch.generator.spectral_norm=true", "arch.discriminator.spectral_norm=true"]
    elif arch == "batch_norm_in_both":
        choice = ["arch=heights", "+arch.discriminator.batch_norm=true"]
    else:
        choice = [f"arch={arch}"]
    run = run_of(*choice, "train.batch_size=8")
    game = Game(run)
    reseed(CPU, 0, "step")
    G, D = state_of(run.G), state_of(run.D)
    game.d_update(0)
    assert same(G, state_of(run.G))
    assert not same(D, state_of(run.D))
    D = state_of(run.D)
    game.g_update(0)
    assert same(D, state_of(run.D))
    assert not same(G, state_of(run.G))
    assert all(p.grad is None for net in (run.G, run.D) for p in net.parameters())


def test_d_steps_use_different_batches_and_fresh_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public mistakes, in several WGANs: k steps on one batch; one z for all of them, and for G."""
    run = run_of("loss=wgan", "train.n_critic=3", "train.n_gen=2", "train.batch_size=16")
    game = Game(run)
    batches, latents = [], []
    original = type(run.batches).__getitem__
    monkeypatch.setattr(type(run.batches), "__getitem__", lambda s, i: batches.append(i) or original(s, i))
    draw = game._latents
    monkeypatch.setattr(game, "_latents", lambda: latents.append(draw()) or latents[-1])
    for step in range(2):
        game.step(step)
    assert batches == [0, 1, 2, 3, 4, 5]
    assert len(latents) == 2 * (3 + 2)
    assert len({z[0].item() for z in latents}) == len(latents)


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("loss", ["nonsaturating", "rpgan"])
def test_an_update_is_free_of_leftovers(loss: str, update: str) -> None:
    """Public mistake: no zero_grad between the players, so that D's next update has G's gradient in it.

    D's first update is the same, bit for bit, whether G has moved before it or not, and so is G's after D's.
    """

    def deltas(order: str) -> dict[str, list[Tensor]]:
        run = run_of(f"loss={loss}", "penalty=none", "arch=mlp_small", "optimizer=momentum", f"train.update={update}")
        game, start = Game(run), copy.deepcopy(run.state_dict())
        after = {}
        for step, player in enumerate(order):
            reseed(CPU, 0, player)
            if update == "simultaneous" and player == "D":
                game.both_update(0)
            else:
                (game.d_update if player == "D" else game.g_update)(0)
            after[player] = state_of(run.D if player == "D" else run.G)
            if step == 0:
                run.load_state_dict(copy.deepcopy(start))
        return after

    first, second = deltas("DG"), deltas("GD")
    assert same(first["D"], second["D"])
    assert same(first["G"], second["G"])


@pytest.mark.parametrize("num", [10, 12])
def test_batches_go_on_over_epochs_and_a_resume(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """n_critic counts over the whole run. Public mistakes: `if i % n_critic` with i anew in each epoch, or resume.

    10 examples make 2.5 batches of 4: epochs end within a step, and within a batch.
    """
    line = ["data=gaussian", f"data.num={num}", "train.n_critic=3", "train.batch_size=4", "loss=nonsaturating"]
    run = run_of(*line)
    shown: list[Tensor] = []
    judge = Game._judge

    def watched(game: Game, real: Tensor, *rest: Any) -> Any:
        shown.append(real)
        return judge(game, real, *rest)

    monkeypatch.setattr(Game, "_judge", watched)
    game = Game(run)
    for step in range(5):
        game.step(step)
    assert len(shown) == 5 * 3  # and G moved 5 times, whatever the epochs
    stream = torch.cat(shown).flatten()
    examples = run.dataset.train.x.flatten().sort().values
    for epoch in stream[: len(stream) // num * num].split(num):
        torch.testing.assert_close(epoch.sort().values, examples, rtol=0, atol=0)
    resumed = run_of(*line)
    resumed.load_state_dict(copy.deepcopy(run.state_dict()))
    shown.clear()
    Game(resumed).step(2)
    assert torch.equal(torch.cat(shown).flatten(), stream[2 * 12 : 3 * 12])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["gaussian", "digits"])
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("size", [1, 5, 2500])
def test_batch_size_one_and_larger_than_the_data(size: int, update: str, data: str) -> None:
    """Public mistakes: a last partial batch that crashes batch norm, or that counts for more than it should."""
    num = ["data.num=1000"] if data == "gaussian" else ["arch.generator.width=2", "arch.discriminator.width=2"]
    run = run_of(f"data={data}", *num, f"train.batch_size={size}", f"train.update={update}")
    game = Game(run)
    for step in range(2):
        d, g = game.step(step)
        assert len(d.real_logits) == len(d.fake_logits) == size  # every batch is full
        assert all(math.isfinite(value) for value in scalars(d, g).values())


def test_real_and_fake_share_a_pass_only_where_samples_are_independent() -> None:
    """Public mistake: one pass of both through batch norm, or another layer that looks across the batch."""
    assert treats_samples_independently(nn.Sequential(nn.Linear(1, 2), nn.LayerNorm(2), nn.InstanceNorm2d(2)))
    assert not treats_samples_independently(nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)))
    own = nn.Linear(1, 1)
    own.mixes_samples = True
    assert not treats_samples_independently(own)


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_real_and_fake_pass_ds_batch_norm_separately(update: str) -> None:
    """Public mistake: D(cat(real, fake)), where batch norm sees two kinds at once and gives the fakes away."""
    net = ["data=digits", "arch=mlp", "+arch.discriminator.batch_norm=true"]
    run = run_of(*net, "train.batch_size=8", f"train.update={update}")
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in run.D.modules())
    passes: list[Tensor] = []
    game, before = Game(run), copy.deepcopy(run.D)
    run.D.register_forward_pre_hook(lambda module, inputs: passes.append(inputs[0].detach().clone()))
    d, _ = game.step(0)
    real = run.batches[0][0]
    assert [len(x) for x in passes] == [8] * (3 if update == "alternating" else 2)
    assert torch.equal(passes[0], real)
    assert not (passes[1][:, None] == real).flatten(2).all(2).any()
    with torch.no_grad():
        torch.testing.assert_close(d.real_logits.detach(), before(passes[0]))
        torch.testing.assert_close(d.fake_logits.detach(), before(passes[1]))
    for layer, now in zip(before.modules(), run.D.modules(), strict=True):
        if isinstance(layer, nn.BatchNorm1d):  # each kind moved the statistics once; G's step did not
            assert now.num_batches_tracked == layer.num_batches_tracked == 2
            torch.testing.assert_close(now.running_mean, layer.running_mean)


def test_a_shared_pass_gives_the_logits_of_separate_ones() -> None:
    run = run_of("train.batch_size=8")
    game = Game(run)
    real, fake = torch.randn(8, 1) + 69, torch.randn(8, 1) + 60
    assert game.shared_pass
    together = game._judge(real, fake, None)
    game.shared_pass = False
    torch.testing.assert_close(together, game._judge(real, fake, None))


def test_average_moves_floats_and_copies_counters() -> None:
    """Public mistakes: `num_batches_tracked` averaged and truncated; buffers that are never averaged at all."""
    net = nn.BatchNorm1d(1)
    averaged = copy.deepcopy(net).requires_grad_(False)
    average = Average(averaged, net, ema=0.75)
    with torch.no_grad():
        net.weight.fill_(5.0)
    net.running_mean.fill_(4.0)
    net.num_batches_tracked.fill_(7)
    average.update()
    assert averaged.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 5)
    assert averaged.running_mean.item() == pytest.approx(1.0)
    assert averaged.num_batches_tracked.item() == 7


def test_average_is_saved_and_goes_on_from_there() -> None:
    """Public mistake: a resume starts the average anew, from the weights of that moment or from the first ones."""
    line = [
        "data=digits",
        "train.ema=0.9",
        "train.batch_size=8",
        "arch.generator.width=2",
        "arch.discriminator.width=2",
    ]
    run, resumed = run_of(*line), run_of(*line)
    game = Game(run)
    for step in range(3):
        game.step(step)
    buffers = {name for name, _ in run.G_ema.named_buffers()}
    assert any("running_mean" in name for name in buffers)
    assert not same(state_of(run.G_ema), state_of(run.G))
    resumed.load_state_dict(copy.deepcopy(run.state_dict()))
    assert same(state_of(run.G_ema), state_of(resumed.G_ema))
    for r in (run, resumed):
        reseed(CPU, 0, "step", 3)
        Game(r).step(3)
    assert same(state_of(run.G_ema), state_of(resumed.G_ema))
    tracked = {name: value.item() for name, value in run.G_ema.state_dict().items() if "num_batches" in name}
    assert set(tracked.values()) == {4}  # as many as G's: its own steps alone count
    assert run.sampler is run.G_ema


def test_average_counts_tied_weights_once() -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    net[1].weight = net[0].weight
    nn.init.zeros_(net[0].weight)
    averaged = copy.deepcopy(net).requires_grad_(False)
    nn.init.ones_(net[0].weight)
    Average(averaged, net, ema=0.9).update()
    assert averaged[1].weight.item() == pytest.approx(0.1)


def test_average_copies_singular_vectors() -> None:
    """The mean of two unit vectors is none: every weight of the averaged net would be scaled wrongly."""
    run = run_of("arch.generator.spectral_norm=true", "train.ema=0.5", "train.batch_size=8")
    game = Game(run)
    for step in range(3):
        game.step(step)
    vectors = {name: v for name, v in run.G_ema.state_dict().items() if name.endswith(("._u", "._v"))}
    assert vectors
    for name, vector in vectors.items():
        assert torch.equal(vector, run.G.state_dict()[name])


@pytest.mark.parametrize("minibatch", ["stddev", "discrimination"])
@pytest.mark.parametrize("data", ["heights", "digits"])
def test_minibatch_layers_fit_every_d_and_part_real_from_fake(minibatch: str, data: str) -> None:
    run = run_of(f"data={data}", f"arch.discriminator.minibatch={minibatch}", "train.batch_size=8")
    game = Game(run)
    assert not game.shared_pass
    d, _ = game.step(0)
    assert all(grad is not None and grad.isfinite().all() for grad in d.grads)


def test_bf16_trains_with_float32_losses_and_weights() -> None:
    """Weights cast under no_grad, cached, and used again where a gradient is needed: no gradient at all."""
    run = run_of("data=digits", "train.precision=bf16", "train.batch_size=8")
    before = state_of(run.D)
    d, g = Game(run).step(0)
    assert d.loss.dtype == g.loss.dtype == torch.float32
    assert all(grad is not None and grad.abs().sum() > 0 for grad in (*d.grads, *g.grads))
    assert not same(before, state_of(run.D))


def test_rates_follow_the_schedule() -> None:
    run = run_of("schedule=linear", "train.steps=4", "optimizer=sgd", "optimizer.lr=0.4")
    game = Game(run)
    rates = []
    for step in range(4):
        game.step(step)
        rates.append(run.g_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_feature_matching_trains_g_on_features(update: str) -> None:
    run = run_of("loss=feature_matching", f"train.update={update}", "train.batch_size=64")
    game = Game(run)
    before = state_of(run.G)
    _, g = game.step(0)
    assert g.loss.item() >= 0
    assert not same(before, state_of(run.G))
    if update == "alternating":
        D = state_of(run.D)
        game.g_update(1)
        assert same(D, state_of(run.D))


def test_the_average_forgets_the_beginning_as_fast_as_its_rampup_says() -> None:
    """After step t its half-life is rampup * t, until that of the decay is reached."""
    average = Game(run_of("train.ema=0.99", "train.ema_rampup=0.1")).average
    assert average is not None
    assert average.decay(0) == pytest.approx(0.5**10)
    assert average.decay(99) == pytest.approx(0.5**0.1)
    assert average.decay(10_000) == 0.99
    run = run_of("train.ema=0.99", "train.ema_rampup=1", "train.batch_size=8")
    game = Game(run)
    assert run.G_ema is not None
    for step in range(3):
        before = [p.clone() for p in run.G_ema.parameters()]
        game.step(step)
        share = 0.5 ** (1 / (step + 1))
        for old, now, new in zip(before, run.G.parameters(), run.G_ema.parameters(), strict=True):
            assert torch.allclose(new, share * old + (1 - share) * now, atol=1e-6)
