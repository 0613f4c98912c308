"""The game's rules, against cases computed by hand. Each test names the public mistake that it guards against."""

import copy
import math

import pytest
import torch
from conftest import run_of
from torch import Tensor, nn

from ganrun.randomness import reseed
from ganrun.steps import Average, Game, scalars, treats_samples_independently

CPU = torch.device("cpu")


def state_of(net: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in net.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("arch", ["mlp_small", "heights", "batch_norm_in_both", "spectral_norm_in_both"])
def test_a_player_leaves_the_other_as_it_is(arch: str) -> None:
    """Leftover gradients: `zero_grad` on the wrong net, or D's batch-norm statistics moved by the G step."""
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
    """k steps on one batch, or one z for all of them and for G: found in several public WGANs."""
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


def test_batch_size_one_and_larger_than_the_data() -> None:
    """A last partial batch that crashes batch norm, or that counts for more than it should."""
    for size in (1, 2500):
        run = run_of("data=gaussian", "data.num=1000", f"train.batch_size={size}")
        values = scalars(*Game(run).step(0))
        assert all(math.isfinite(v) for v in values.values())


def test_real_and_fake_share_a_pass_only_where_samples_are_independent() -> None:
    """D's batch norm over real and fake together tells them apart by the batch, and lets statistics leak."""
    assert treats_samples_independently(nn.Sequential(nn.Linear(1, 2), nn.LayerNorm(2), nn.InstanceNorm2d(2)))
    assert not treats_samples_independently(nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)))
    own = nn.Linear(1, 1)
    own.mixes_samples = True
    assert not treats_samples_independently(own)


def test_a_shared_pass_gives_the_logits_of_separate_ones() -> None:
    run = run_of("train.batch_size=8")
    game = Game(run)
    real, fake = torch.randn(8, 1) + 69, torch.randn(8, 1) + 60
    assert game.shared_pass
    together = game._judge(real, fake, None)
    game.shared_pass = False
    torch.testing.assert_close(together, game._judge(real, fake, None))


def test_average_moves_floats_and_copies_counters() -> None:
    """`num_batches_tracked` averaged to a fraction and truncated, or buffers never averaged at all."""
    net = nn.BatchNorm1d(1)
    averaged = copy.deepcopy(net).requires_grad_(False)
    average = Average(averaged, net, decay=0.75)
    with torch.no_grad():
        net.weight.fill_(5.0)
    net.running_mean.fill_(4.0)
    net.num_batches_tracked.fill_(7)
    average.update()
    assert averaged.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 5)
    assert averaged.running_mean.item() == pytest.approx(1.0)
    assert averaged.num_batches_tracked.item() == 7


def test_average_counts_tied_weights_once() -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    net[1].weight = net[0].weight
    nn.init.zeros_(net[0].weight)
    averaged = copy.deepcopy(net).requires_grad_(False)
    nn.init.ones_(net[0].weight)
    Average(averaged, net, decay=0.9).update()
    assert averaged[1].weight.item() == pytest.approx(0.1)


def test_average_copies_singular_vectors() -> None:
    """The mean of two unit vectors is none: every weight of the averaged net would be scaled wrongly."""
    run = run_of("arch.generator.spectral_norm=true", "train.ema=0.5", "train.batch_size=8")
    game = Game(run)
    for step in range(3):
        game.step(step)
    vectors = {name: v for name, v in run.averaged.state_dict().items() if name.endswith(("._u", "._v"))}
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
