"""The updates of both players, against cases computed by hand. Docstrings name bugs of public implementations."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers import run_of, same, state_of
from torch import Tensor, nn

from ganrun.data.dataset import DataSpec
from ganrun.training.d_outputs import make_d_outputs
from ganrun.training.ema import EMA, decay_after
from ganrun.training.game import Game, treats_samples_independently
from ganrun.training.randomness import reseed
from ganrun.training.run import Run
from ganrun.training.updates import scalars

CPU = torch.device("cpu")


def record_inputs(layer: nn.Module) -> list[Tensor]:
    """A list to which the first input of each call of the layer is appended."""
    found: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, arguments: found.append(arguments[0].detach().clone()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["mlp_small", "heights", "batch_norm_in_both", "spectral_norm_in_both"])
def test_update_of_one_player_does_not_change_the_other(arch: str) -> None:
    """Common bugs: `zero_grad` on the wrong network; statistics of G updated by D's step, or of D by G's step."""
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
    game.d_update(0, noise=0)
    assert same(G, state_of(run.G))
    assert not same(D, state_of(run.D))
    D = state_of(run.D)
    game.g_update(0, noise=0)
    assert same(D, state_of(run.D))
    assert not same(G, state_of(run.G))
    assert all(p.grad is None for net in (run.G, run.D) for p in net.parameters())


def test_d_updates_use_different_batches_and_new_latents() -> None:
    """Common bugs, in several WGANs: k updates on one batch, or one z for all of them and for G."""
    run = run_of("loss=wgan", "train.n_critic=3", "train.n_gen=2", "train.batch_size=16")
    indices: list[int] = []
    latents: list[Tensor] = []

    class Recorded:
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None]:
            indices.append(index)
            return run.batches[index]

    def latent(n: int, device: torch.device) -> Tensor:
        latents.append(run.latent(n, device))
        return latents[-1]

    game = Game(replace(run, batches=Recorded(), latent=latent))
    for step in range(2):
        game.step(step)
    assert indices == [0, 1, 2, 3, 4, 5]
    assert [len(z) for z in latents] == [16] * 2 * (3 + 2)
    assert len({z[0].item() for z in latents}) == len(latents)


@pytest.mark.slow
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("loss", ["nonsaturating", "rpgan"])
def test_update_has_no_gradients_left_from_earlier_ones(loss: str, update: str) -> None:
    """Common bug: no zero_grad between the players, so that D's next update includes the gradient of G's loss.

    D's first update is the same, bit for bit, with or without an update of G before it, and vice versa.
    """

    def after_updates(order: str) -> dict[str, dict[str, Tensor]]:
        run = run_of(f"loss={loss}", "penalty=none", "arch=mlp_small", "optimizer=momentum", f"train.update={update}")
        game, start = Game(run), copy.deepcopy(run.state_dict())
        after = {}
        for step, player in enumerate(order):
            reseed(CPU, 0, player)
            if update == "simultaneous" and player == "D":
                game.simultaneous_update(0, noise=0)
            else:
                (game.d_update if player == "D" else game.g_update)(0, noise=0)
            after[player] = state_of(run.D if player == "D" else run.G)
            if step == 0:
                run.load_state_dict(copy.deepcopy(start))
        return after

    first, second = after_updates("DG"), after_updates("GD")
    assert same(first["D"], second["D"])
    assert same(first["G"], second["G"])


@pytest.mark.parametrize("num", [10, 12])
def test_batches_continue_over_epochs_and_after_resume(num: int) -> None:
    """n_critic is counted over the whole run. Common bug: `if i % n_critic` with i from 0 in each epoch, or on resume.

    10 examples are 2.5 batches of 4, so epochs end within a step and within a batch.
    """
    line = ["data=gaussian", f"data.num={num}", "train.n_critic=3", "train.batch_size=4", "loss=nonsaturating"]

    def real_examples(run: Run, *steps: int) -> Tensor:
        """D's real inputs in these steps. D's updates pass 4 real and 4 fake samples together, G's only 4 fakes."""
        inputs, game = record_inputs(run.D), Game(run)
        for step in steps:
            game.step(step)
        assert [len(x) for x in inputs] == [8, 8, 8, 4] * len(steps)  # at any position in an epoch
        return torch.cat([x[:4] for x in inputs if len(x) == 8]).flatten()

    run = run_of(*line)
    stream = real_examples(run, *range(5))
    examples = run.dataset.train.x.flatten().sort().values
    for epoch in stream[: len(stream) // num * num].split(num):
        assert torch.equal(epoch.sort().values, examples)
    resumed = run_of(*line)
    resumed.load_state_dict(copy.deepcopy(run.state_dict()))
    assert torch.equal(real_examples(resumed, 2), stream[2 * 12 : 3 * 12])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["gaussian", "digits"])
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("size", [1, 5, 2500])
def test_batch_size_one_and_larger_than_the_data(size: int, update: str, data: str) -> None:
    """Common bugs: a last partial batch that crashes batch norm, or has too much weight."""
    num = ["data.num=1000"] if data == "gaussian" else ["arch.generator.width=2", "arch.discriminator.width=2"]
    run = run_of(f"data={data}", *num, f"train.batch_size={size}", f"train.update={update}")
    game = Game(run)
    for step in range(2):
        d, g = game.step(step)
        assert len(d.real_logits) == len(d.fake_logits) == size  # every batch is full
        assert all(math.isfinite(value) for value in scalars(d, g).values())


def test_real_and_fake_share_a_pass_only_if_samples_are_independent() -> None:
    """Common bug: one pass of both through batch norm, or another layer that mixes samples."""
    assert treats_samples_independently(nn.Sequential(nn.Linear(1, 2), nn.LayerNorm(2), nn.InstanceNorm2d(2)))
    assert not treats_samples_independently(nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)))
    own = nn.Linear(1, 1)
    own.mixes_samples = True
    assert not treats_samples_independently(own)


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_real_and_fake_pass_ds_batch_norm_separately(update: str) -> None:
    """Common bug: D(cat(real, fake)), with batch norm statistics of both, which reveal the fakes."""
    net = ["data=digits", "arch=mlp", "+arch.discriminator.batch_norm=true"]
    run = run_of(*net, "train.batch_size=8", f"train.update={update}")
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in run.D.modules())
    game, before = Game(run), copy.deepcopy(run.D)
    passes = record_inputs(run.D)
    d, _ = game.step(0)
    real = run.batches[0][0]
    assert [len(x) for x in passes] == [8] * (3 if update == "alternating" else 2)
    assert torch.equal(passes[0], real)
    assert not (passes[1][:, None] == real).flatten(2).all(2).any()
    with torch.no_grad():
        torch.testing.assert_close(d.real_logits.detach(), before(passes[0]))
        torch.testing.assert_close(d.fake_logits.detach(), before(passes[1]))
    for layer, now in zip(before.modules(), run.D.modules(), strict=True):
        if isinstance(layer, nn.BatchNorm1d):  # real and fake each updated the statistics once, and G's update did not
            assert now.num_batches_tracked == layer.num_batches_tracked == 2
            torch.testing.assert_close(now.running_mean, layer.running_mean)


def test_shared_pass_gives_the_outputs_of_separate_passes() -> None:
    run = run_of("loss=feature_matching", "train.batch_size=8")
    game = Game(run)
    assert game.independent
    real, fake = torch.randn(8, 1) + 69, torch.randn(8, 1) + 60
    shared, separate = (game.outputs(real, fake, None, together) for together in (True, False))
    assert all(out.features is not None for out in (*shared, *separate))
    torch.testing.assert_close(shared, separate)


ONE_PASS = {
    "feature matching": ["loss=feature_matching"],
    "AC-GAN": ["data=digits", "condition=acgan"],
    "AC-GAN with feature matching": ["data=digits", "condition=acgan", "loss=feature_matching"],
    "AC-GAN with a loss of pairs": ["data=digits", "condition=acgan", "loss=rpgan"],
}


@pytest.mark.slow
@pytest.mark.parametrize("minibatch", ["none", "stddev"])
@pytest.mark.parametrize("settings", ONE_PASS.values(), ids=ONE_PASS.keys())
def test_each_sample_passes_d_once_per_update(settings: list[str], minibatch: str) -> None:
    """Common bug: separate passes for the logits, the classes and the features.

    With minibatch=stddev real and fake examples pass D separately.
    """
    nets = ["arch=mlp", "+arch.discriminator.dropout=0.1", f"arch.discriminator.minibatch={minibatch}"]
    run = run_of(*settings, *nets, "penalty=none", "train.batch_size=8")
    layers = [record_inputs(layer) for layer in run.D.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) == (4 if "condition=acgan" in settings else 3)
    game, real = Game(run), 8 if run.loss.g_needs_real else 0
    for update, num in ((game.d_update, 8 + 8), (game.g_update, real + 8), (game.simultaneous_update, 8 + 8)):
        update(0, noise=0)
        assert [sum(map(len, inputs)) for inputs in layers] == [num] * len(layers)
        assert len(torch.cat(layers[0]).unique(dim=0)) == num  # all samples are different
        assert len(layers[0]) <= 2
        for inputs in layers:
            inputs.clear()


SPEC = DataSpec((3,), mean=2.0, std=0.5)


class OnlyFeatures(nn.Module):
    """A user-defined D with a method `features`, but no layer `output`."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(3, 4), nn.Linear(4, 1)
        self.num_passes = 0

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.num_passes += 1
        return self.hidden(x).tanh()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.last(self.features(x, y)).squeeze(1)


class WithHead(OnlyFeatures):
    """D(x) = output(features(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.output = self.last


class Scaled(WithHead):
    """D(x) = 2 output(features(x))."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return 2 * super().forward(x, y)


class SkipConnection(WithHead):
    """D(x) = output(features(x)) + the standardized input, which is 0 for the mean of the data."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(x, y) + ((x - SPEC.mean) / SPEC.std).sum(1)


class WideOutput(WithHead):
    """D(x) is the difference of the two outputs of its layer `output`."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        both = self.output(self.features(x, y))
        return both[:, 0] - both[:, 1]


class OtherFeatures(WithHead):
    """Its features are not the input of its layer `output`."""

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return 3 * super().features(x, y)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.output(super().features(x, y)).squeeze(1)


@pytest.mark.parametrize("kind", [WithHead, OnlyFeatures, Scaled, SkipConnection, WideOutput, OtherFeatures])
def test_user_defined_d_gives_its_own_logits_and_features(kind: Callable[[], OnlyFeatures]) -> None:
    """One pass gives both if D's features are the input of its layer `output`, whatever D does with the result."""
    torch.manual_seed(0)
    D, x = kind(), torch.randn(6, 3)
    d_outputs = make_d_outputs(D, SPEC, None, features=True)
    assert D.training
    D.num_passes = 0
    out = d_outputs(x, None)
    assert D.num_passes == (2 if kind in (OnlyFeatures, OtherFeatures) else 1)
    assert torch.equal(out.logits, D(x))
    assert torch.equal(out.features, D.features(x))
    assert out.classes is None
    D.num_passes = 0
    out = make_d_outputs(D, SPEC, None, features=False)(x, None)
    assert D.num_passes == 1
    assert torch.equal(out.logits, D(x))
    assert out.features is None


@pytest.mark.parametrize("kind", [WithHead, OnlyFeatures])
def test_outputs_are_float32_under_autocast(kind: Callable[[], OnlyFeatures]) -> None:
    D = kind()
    d_outputs = make_d_outputs(D, SPEC, None, features=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = d_outputs(torch.randn(6, 3), None)
        assert D(torch.randn(6, 3)).dtype == torch.bfloat16
    assert out.logits.dtype == out.features.dtype == torch.float32


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_features_of_a_user_defined_d_do_not_update_its_statistics_twice(update: str) -> None:
    """For features that need a separate pass: real and fake each update D's batch norm once per step."""

    class OwnD(OnlyFeatures):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4))

    run = run_of("loss=feature_matching", "train.batch_size=8", f"train.update={update}")
    D = OwnD()
    optimizer = torch.optim.SGD(D.parameters(), lr=0.1)
    d_outputs = make_d_outputs(D, run.dataset.spec, None, features=True)
    Game(replace(run, D=D, d_outputs=d_outputs, d_optimizer=optimizer)).step(0)
    assert D.hidden[1].num_batches_tracked == 2


def test_ema_averages_floats_and_copies_counters() -> None:
    """Common bugs: averaging `num_batches_tracked`, which truncates it, or omitting buffers."""
    G = nn.BatchNorm1d(1)
    G_ema = copy.deepcopy(G).requires_grad_(False)
    ema = EMA(G_ema, G, decay=0.75)
    with torch.no_grad():
        G.weight.fill_(5.0)
    G.running_mean.fill_(4.0)
    G.num_batches_tracked.fill_(7)
    ema.update()
    assert G_ema.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 5)
    assert G_ema.running_mean.item() == pytest.approx(1.0)
    assert G_ema.num_batches_tracked.item() == 7


def test_ema_is_saved_and_resumes() -> None:
    """Common bug: a resume restarts the EMA, from the current or the initial weights."""
    small = ["arch.generator.width=2", "arch.discriminator.width=2"]
    line = ["data=digits", *small, "train.ema=0.9", "train.batch_size=8"]
    run, resumed = run_of(*line), run_of(*line)
    game = Game(run)
    for step in range(3):
        game.step(step)
    assert any("running_mean" in name for name, _ in run.G_ema.named_buffers())
    assert not same(state_of(run.G_ema), state_of(run.G))
    resumed.load_state_dict(copy.deepcopy(run.state_dict()))
    assert same(state_of(run.G_ema), state_of(resumed.G_ema))
    for r in (run, resumed):
        reseed(CPU, 0, "step", 3)
        Game(r).step(3)
    assert same(state_of(run.G_ema), state_of(resumed.G_ema))
    tracked = {name: value.item() for name, value in run.G_ema.state_dict().items() if "num_batches" in name}
    assert set(tracked.values()) == {4}  # as many as G's: only its own updates count
    assert run.sampler is run.G_ema


def test_ema_counts_tied_weights_once() -> None:
    G = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    G[1].weight = G[0].weight
    nn.init.zeros_(G[0].weight)
    G_ema = copy.deepcopy(G).requires_grad_(False)
    nn.init.ones_(G[0].weight)
    EMA(G_ema, G, decay=0.9).update()
    assert G_ema[1].weight.item() == pytest.approx(0.1)


def test_ema_copies_singular_vectors() -> None:
    """The mean of two unit vectors is not a unit vector: every weight of G_ema would have a wrong scale."""
    run = run_of("arch.generator.spectral_norm=true", "train.ema=0.5", "train.batch_size=8")
    game = Game(run)
    for step in range(3):
        game.step(step)
    vectors = {name: v for name, v in run.G_ema.state_dict().items() if name.endswith(("._u", "._v"))}
    assert vectors
    for name, vector in vectors.items():
        assert torch.equal(vector, run.G.state_dict()[name])


def test_ema_rampup_limits_the_half_life() -> None:
    """After step t the half-life is rampup * t, until it reaches that of the decay."""
    G = nn.Linear(1, 1)
    ema = EMA(copy.deepcopy(G), G, decay=0.99, rampup=0.1)
    assert 1 - ema.weight_of_g(0) == pytest.approx(0.5**10)
    assert 1 - ema.weight_of_g(99) == pytest.approx(0.5**0.1)
    assert ema.weight_of_g(10_000) == 1 - 0.99
    run = run_of("train.ema=0.99", "train.ema_rampup=1", "train.ema_debias=false", "train.batch_size=8")
    game = Game(run)
    assert run.G_ema is not None
    for step in range(3):
        before = [p.clone() for p in run.G_ema.parameters()]
        game.step(step)
        share = 0.5 ** (1 / (step + 1))
        for old, now, new in zip(before, run.G.parameters(), run.G_ema.parameters(), strict=True):
            assert torch.allclose(new, share * old + (1 - share) * now, atol=1e-6)


@pytest.mark.parametrize(("decay", "rampup"), [(0.75, 0.0), (0.999, 0.0), (0.999, 0.5)])
def test_debiased_ema_is_a_weighted_mean_of_g_after_each_step(decay: float, rampup: float) -> None:
    """Common bug: after 500 steps with decay .999, 61% of the average are the initial weights."""
    G = nn.Linear(1, 1, dtype=torch.float64)
    G_ema = copy.deepcopy(G).requires_grad_(False)
    G_ema.weight.fill_(1e9)
    ema = EMA(G_ema, G, decay, rampup, debias=True)
    weights = torch.zeros(0, dtype=torch.float64)
    for step in range(20):
        torch.nn.init.constant_(G.weight, step**2)
        ema.update(step)
        now = decay_after(step, decay, rampup)
        weights = torch.cat([weights * now, torch.tensor([1 - now], dtype=torch.float64)])
        expected = (weights * torch.arange(step + 1) ** 2).sum() / weights.sum()
        assert G_ema.weight.item() == pytest.approx(expected.item())


def test_debiased_ema_of_a_resumed_run_has_the_same_weights() -> None:
    G = nn.Linear(1, 1)
    for rampup in (0.0, 0.3):
        whole = EMA(copy.deepcopy(G), G, 0.9, rampup, debias=True)
        expected = [whole.weight_of_g(step) for step in range(600)]
        for start in (1, 7, 550):
            resumed = EMA(copy.deepcopy(G), G, 0.9, rampup, debias=True)
            assert [resumed.weight_of_g(step) for step in range(start, 600)] == expected[start:]


@pytest.mark.slow
@pytest.mark.parametrize("line", [[], ["data=ring"], ["data=mixture1d"], ["train.ema=0.99999", "train.ema_rampup=0.8"]])
def test_average_of_a_run_is_free_of_its_start(line: list[str]) -> None:
    averages = []
    for start in (0.0, 1e9):
        run = run_of(*line, "train.batch_size=8", "data.num=100")
        assert run.G_ema is not None
        for weight in run.G_ema.parameters():
            weight.fill_(start)
        game = Game(run)
        for step in range(3):
            reseed(run.device, run.seed, "step", step)
            game.step(step)
        averages.append(state_of(run.G_ema))
    assert same(*averages)


@pytest.mark.slow
@pytest.mark.parametrize("minibatch", ["stddev", "discrimination"])
@pytest.mark.parametrize("data", ["heights", "digits"])
def test_minibatch_layers_work_in_every_d_and_separate_real_from_fake(minibatch: str, data: str) -> None:
    run = run_of(f"data={data}", f"arch.discriminator.minibatch={minibatch}", "train.batch_size=8")
    passes = record_inputs(run.D)
    d, _ = Game(run).step(0)
    assert [len(x) for x in passes] == [8, 8, 8]  # real, fake, and fake in G's update
    assert all(grad is not None and grad.isfinite().all() for grad in d.grads)


def test_bf16_trains_with_float32_losses_and_weights() -> None:
    """Common bug: weights cast under no_grad, cached, and reused when gradients are needed, have no gradients."""
    run = run_of("data=digits", "train.precision=bf16", "train.batch_size=8")
    before = state_of(run.D)
    d, g = Game(run).step(0)
    assert d.loss.dtype == g.loss.dtype == torch.float32
    assert all(grad is not None and grad.abs().sum() > 0 for grad in (*d.grads, *g.grads))
    assert not same(before, state_of(run.D))


def test_learning_rates_follow_the_schedule() -> None:
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
        game.g_update(1, noise=0)
        assert same(D, state_of(run.D))
