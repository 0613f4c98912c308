"""The networks of SNGAN, WGAN-GP, BigGAN and R3GAN in training: gradients, penalties, bf16, and resume bit for bit."""

import io
from typing import Any

import pytest
import torch
from helpers import run_of, same
from torch import Tensor

from ganrun.penalty.gradient import R1, R2, GradientPenalty
from ganrun.training.game import Game
from ganrun.training.randomness import reseed
from ganrun.training.run import Run
from ganrun.training.updates import scalars

SMALL = ["data=digits", "arch.generator.width=4", "arch.discriminator.width=4", "train.batch_size=4", "metric=none"]
ALL_PARTS = ["arch.generator.shared_dim=4", "arch.generator.hierarchical=true", "arch.generator.attention=[8]"]
RECIPES = {
    "sngan": ["arch=sngan", "loss=hinge"],
    "sngan, projection": ["arch=sngan", "loss=hinge", "condition=projection"],
    "wgan_gp": ["arch=wgan_gp", "loss=wgan_gp", "train.n_critic=2"],
    "wgan_gp, acgan": ["arch=wgan_gp", "loss=wgan_gp", "train.n_critic=2", "condition=acgan"],
    "biggan": ["arch=biggan", "loss=hinge", "train.n_critic=2", "condition=own", "train.ema=0.9"],
    "biggan, all parts": ["arch=biggan", "loss=hinge", "train.n_critic=2", "condition=own", *ALL_PARTS],
    "biggan, projection": ["arch=biggan", "loss=hinge", "train.n_critic=2", "condition=projection"],
    "r3gan": ["arch=r3gan", "loss=rpgan", "train.ema=0.9"],
    "r3gan, own": ["arch=r3gan", "loss=rpgan", "condition=own"],
}
each_recipe = pytest.mark.parametrize("line", RECIPES.values(), ids=RECIPES)


def play(run: Run, start: int, stop: int) -> list[dict[str, float]]:
    game, found = Game(run), []
    for step in range(start, stop):
        reseed(run.device, run.seed, "step", step)
        found.append(scalars(*game.step(step)))
    return found


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@each_recipe
def test_recipe_trains_and_resumes_bit_for_bit(line: list[str], precision: str) -> None:
    whole, resumed = (run_of(*SMALL, *line, f"train.precision={precision}") for _ in range(2))
    before = [p.detach().clone() for p in (*whole.G.parameters(), *whole.D.parameters())]
    values = play(whole, 0, 2)
    assert all(value == value and abs(value) < 1e6 for row in values for value in row.values())
    moved = [not torch.equal(a, b) for a, b in zip(before, (*whole.G.parameters(), *whole.D.parameters()), strict=True)]
    assert sum(moved) > 0.9 * len(moved)  # the first steps cannot change what is multiplied by 0
    resumed.load_state_dict(saved_and_loaded(whole.state_dict()))
    play(whole, 2, 4)
    play(resumed, 2, 4)
    assert whole.is_finite()
    assert same(whole.state_dict(), resumed.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sngan", "wgan_gp", "biggan", "r3gan"])
def test_gradient_penalties_have_the_gradients_of_finite_differences(arch: str) -> None:
    """Double backward through the convolutions of resampling, in float64."""
    run = run_of(*SMALL, f"arch={arch}")
    D = run.D.double().eval()
    torch.manual_seed(0)
    with torch.no_grad():  # blocks of R3GAN start as the identity
        for p in D.parameters():
            p.add_(0.1 * torch.randn_like(p))
    real, fake = torch.rand(2, 3, 1, 8, 8, dtype=torch.float64) * 2 - 1
    weight = max(D.parameters(), key=lambda p: p.numel())
    direction = torch.randn_like(weight)
    for penalty in (R1(gamma=1), R2(gamma=1), GradientPenalty(weight=1)):

        def value(penalty: Any = penalty) -> Tensor:
            torch.manual_seed(1)  # of the interpolates
            found = penalty.term(D, real, fake, None)
            assert found is not None
            return found

        (grad,) = torch.autograd.grad(value(), weight)
        h, ends = 1e-8, []  # so small that no activation changes its sign
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(sign * h * direction)
            ends.append(value().item())
            with torch.no_grad():
                weight.sub_(sign * h * direction)
        slope = (ends[0] - ends[1]) / (2 * h)
        assert slope == pytest.approx((grad * direction).sum().item(), rel=1e-3, abs=1e-6)
        assert abs(slope) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["arch=dcgan", "condition=own"], "condition.generator=own: .* no way of its own .*; use arch=biggan or r3gan"),
        (["arch=biggan", "condition=concat"], "condition.generator=concat: .* no inputs for labels .* condition=own"),
        (["arch=r3gan", "condition=projection"], "condition.generator=batch_norm: .* no batch normalization"),
        (["arch=r3gan", "data.value_range=[0,1]"], "makes values in"),
    ],
)
def test_combinations_that_cannot_work_are_refused(line: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_of(*SMALL, *line)
