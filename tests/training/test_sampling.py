"""Sampling and metrics: samples do not depend on how they are drawn, and sampling does not change a run."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import config_of, logged, run_of, same, state_of
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.nn.modules.batchnorm import _BatchNorm

from ganrun.arch.mlp import AlwaysDropout
from ganrun.config import CONF
from ganrun.data.dataset import Dataset
from ganrun.protocols import DFunction, Metric
from ganrun.training.capture import capture
from ganrun.training.evaluation import Evaluation
from ganrun.training.game import Game
from ganrun.training.pictures import Pictures
from ganrun.training.randomness import seeded
from ganrun.training.run import Run
from ganrun.training.sampling import CHUNK, d_logits, draw, evaluating, fixed_latents, generate, spread_batches

CPU = torch.device("cpu")
EVERY_ARCH = sorted(path.stem for path in (CONF / "arch").glob("*.yaml") if "goodfellow2014" not in path.stem)
FOR_IMAGES = {name: ["data=digits", "arch.generator.width=16", "arch.discriminator.width=16"]
              for name in ("dcgan", "sngan", "wgan_gp", "biggan", "r3gan")}  # fmt: skip
WITH_NORMS = ["+arch.generator.batch_norm=true", "+arch.discriminator.batch_norm=true", "+arch.generator.dropout=0.5"]
NETS = {
    **{arch: [f"arch={arch}", *FOR_IMAGES.get(arch, [])] for arch in EVERY_ARCH if arch != "table"},
    "table": ["data=breast_cancer"],
    "maxout and dropout": ["data=digits", "arch=goodfellow2014_mnist", "data.value_range=[0,1]"],
    "mlp with batch norm and dropout": ["arch=mlp", *WITH_NORMS],
    "spectral norm in both": ["arch.generator.spectral_norm=true", "arch.discriminator.spectral_norm=true"],
    "layer norm in D": ["data=digits", "arch.discriminator.norm=layer"],
}
each_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())


def trained(net: list[str]) -> Game:
    """A run after two steps, so that running statistics are not at their initial values."""
    game = Game(run_of(*net, "train.batch_size=8"))
    for step in range(2):
        game.step(step)
    return game


@pytest.mark.slow
@each_net
def test_eval_output_of_a_sample_is_independent_of_its_batch(net: list[str]) -> None:
    """Common bug: G or D left in train mode, where batch norm makes a sample depend on its batch."""
    run = trained(net).run
    for layer in run.G.modules():
        if isinstance(layer, AlwaysDropout):  # its noise differs between positions in the batch
            layer.p = 0.0
    z = run.latent(CHUNK + 50, CPU)
    samples = generate(run.G, z)
    size = run.dataset.spec.std
    for k in (0, 1, CHUNK, CHUNK + 49):
        torch.testing.assert_close(generate(run.G, z[k : k + 1])[0], samples[k], rtol=1e-5, atol=1e-5 * size)
    with evaluating(run.D):
        logits = run.D(samples[:9])
        for k in (0, 8):
            torch.testing.assert_close(run.D(samples[k : k + 1])[0], logits[k], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@each_net
def test_sampling_restores_modes_random_state_and_buffers(net: list[str]) -> None:
    """Common bugs: model.eval() without model.train(); batch norm's statistics updated by samples for a metric."""
    run = trained(net).run

    class Count(Metric):
        num = 20

        def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
            return {"num": len(samples)}

    run = replace(run, metrics={"count": Count()})
    list(run.G.modules())[1].eval()  # one layer, on purpose: it must stay in eval mode
    modes = [[m.training for m in x.modules()] for x in (run.G, run.D)]
    before, random = [state_of(run.G), state_of(run.D)], torch.get_rng_state()
    draw(run.G, run.latent, 10, CPU, seed=0)
    assert Evaluation(run).metrics() == {"num": 20}
    Pictures(run).draw("step 2")
    assert torch.equal(torch.get_rng_state(), random)
    assert [[m.training for m in x.modules()] for x in (run.G, run.D)] == modes
    assert same([state_of(run.G), state_of(run.D)], before)
    assert all(p.grad is None for x in (run.G, run.D) for p in x.parameters())


def test_modes_are_restored_after_an_error() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Linear(1, 1))

    def fail() -> None:
        with evaluating(net):
            assert not net[0].training
            assert not net(torch.ones(1, 1)).requires_grad
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert net.training
    assert net[0].training


def test_samples_are_a_function_of_the_weights_and_the_seed() -> None:
    """Common bug: each evaluation continues from the random state of the last one."""
    run = run_of("train.batch_size=8")
    first = draw(run.G, run.latent, 5, CPU, seed=1)
    torch.rand(3)
    assert torch.equal(draw(run.G, run.latent, 5, CPU, seed=1), first)
    assert not torch.equal(draw(run.G, run.latent, 5, CPU, seed=2), first)
    assert torch.equal(fixed_latents(run.latent, 5, CPU, 1), fixed_latents(run.latent, 5, CPU, 1))


def test_random_state_is_restored() -> None:
    def fail() -> None:
        with seeded(CPU, 0, "anything"):
            torch.rand(9)
            raise ZeroDivisionError

    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("num", [1, CHUNK, CHUNK + 1])
def test_last_partial_chunk_is_drawn(num: int) -> None:
    """Common bug: only full batches, so a metric on 50,000 samples gets 49,984."""
    run = run_of("data=digits")
    assert draw(run.G, run.latent, num, CPU, seed=0).shape == (num, 1, 8, 8)


@pytest.mark.slow
def test_sampling_during_training_does_not_change_a_run(here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Common bug: the frequency of evaluations changes a run."""
    plain = Pictures.draw

    def disturbing(self: Pictures, moment: str) -> object:
        Evaluation(self.run).metrics()
        torch.rand(7)
        return plain(self, moment)

    monkeypatch.setattr(Pictures, "draw", disturbing)
    for name, every in (("often", 1), ("never", 0)):
        line = ["metric=distribution", "metric.distribution.num=100", "arch=heights", f"train.sample_every={every}"]
        assert here(*line, "train.steps=4", "train.log_every=1", "train.ema=0.5", f"run_dir={name}")[0] == 0
    assert logged(tmp_path / "often") == logged(tmp_path / "never")


@pytest.mark.slow
@each_net
def test_batch_norm_has_the_intended_eps_and_momentum(net: list[str]) -> None:
    """Common bug: `BatchNorm2d(n, 0.8)`, in which 0.8, meant as the momentum of Keras, becomes eps."""
    run = run_of(*net)
    layers = [m for x in (run.G, run.D) for m in x.modules() if isinstance(m, _BatchNorm)]
    assert layers or net not in (NETS["dcgan"], NETS["heights"], NETS["mlp with batch norm and dropout"])
    for layer in layers:
        assert layer.eps <= 1e-3
        assert layer.momentum is not None
        assert 0 < layer.momentum <= 0.5


def batches_of_d(run: Run) -> list[Tensor]:
    """A list of the batches that D gets from now on."""
    found: list[Tensor] = []
    run.D.register_forward_pre_hook(lambda net, inputs: found.append(inputs[0].detach()))
    return found


EVALUATIONS = {
    "metrics": lambda run: Evaluation(run).metrics(),
    "frame": lambda run: capture(run, 0),
    "picture": lambda run: Pictures(run).draw_discriminator("D"),
    "diagnosis": lambda run: Evaluation(run).diagnosis([], config_of(), []),
}
each_evaluation = pytest.mark.parametrize("evaluate", EVALUATIONS.values(), ids=EVALUATIONS.keys())
FEW = ["metric=theory", "metric.theory.num=500", "train.batch_size=40"]
ON_IMAGES = [
    "data=digits",
    "arch.discriminator.width=2",
    "arch.generator.width=2",
    "metric=none",
    "train.batch_size=40",
]


@pytest.mark.slow
@each_evaluation
@pytest.mark.parametrize("minibatch", ["stddev", "discrimination"])
def test_d_that_mixes_samples_is_asked_in_batches_of_the_training_size(
    minibatch: str, evaluate: Callable[[Run], object]
) -> None:
    """Common bug: D gets all samples of a metric at once, which needs 200 GB, and changes what it answers."""
    run = run_of(*FEW, f"arch.discriminator.minibatch={minibatch}")
    seen = batches_of_d(run)
    evaluate(run)
    assert {len(x) for x in seen} == {40}


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["none", "concat"])
def test_d_of_images_that_mixes_samples_is_asked_in_batches_of_the_training_size(condition: str) -> None:
    run = run_of(*ON_IMAGES, "arch.discriminator.minibatch=stddev", f"condition={condition}")
    seen = batches_of_d(run)
    EVALUATIONS["picture"](run)
    EVALUATIONS["diagnosis"](run)
    assert {len(x) for x in seen} == {40}


@pytest.mark.slow
@each_evaluation
def test_other_d_gets_all_samples_at_once(evaluate: Callable[[Run], object]) -> None:
    run = run_of(*FEW)
    seen = batches_of_d(run)
    evaluate(run)
    assert 1 <= len(seen) <= 2
    assert all(len(x) >= 200 for x in seen)


@pytest.mark.parametrize(("num", "size"), [(10, 4), (12, 4), (9, 4), (401, 64), (5, 5), (3, 5), (1, 1)])
def test_batches_cover_all_samples_without_repeating_one_within_a_batch(num: int, size: int) -> None:
    batches = spread_batches(num, size)
    assert {len(batch) for batch in batches} == {min(num, size)}
    assert len(batches) == math.ceil(num / size)
    assert torch.cat(batches).unique().tolist() == list(range(num))
    assert all(len(batch.unique()) == len(batch) for batch in batches)


def test_logits_are_in_the_order_of_the_samples() -> None:
    """Whatever the batches are: here the mean of each batch is subtracted."""
    found = d_logits(Minus(), torch.arange(10.0)[:, None], CPU, batch_size=5)
    expected = torch.arange(10.0) - torch.tensor([4.0, 5.0] * 5)  # 0, 2, ... 8 and 1, 3, ... 9
    assert torch.equal(found, expected)


class Minus(nn.Module):
    mixes_samples = True

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.flatten() - x.mean()


def test_value_of_a_d_that_mixes_samples_is_a_mean_over_real_batches() -> None:
    """Its logits on a grid of points are no answers about the data."""
    run = run_of(*FEW, "arch.discriminator.minibatch=stddev")
    seen = batches_of_d(run)
    found = Evaluation(run).metrics()["value_500"]
    assert all(any(torch.equal(row, x) for x in run.dataset.train.x[:500]) for row in seen[0])
    real = d_logits(run.D, run.dataset.train.x[:500], CPU, 40).double()
    fake = d_logits(run.D, Evaluation(run).samples[0][:500], CPU, 40).double()
    assert found == pytest.approx((logsigmoid(real).mean() + logsigmoid(-fake).mean()).item())
