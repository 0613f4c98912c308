"""Schedules of beta2, of penalties, of the average of G, and of augmentation: those of R3GAN."""

import math

import pytest
import torch
from helpers import run_of

from ganrun.schedule import Cosine
from ganrun.training.ema import EMA
from ganrun.training.game import Game

SMALL = ["data=digits", "arch=mlp", "arch.generator.hidden=[4]", "arch.discriminator.hidden=[4]", "train.batch_size=8"]
FOUR = ["metric=none", "train.steps=4", "train.threads=1"]


def at(step: int, *line: str) -> Game:
    """The game of a run of four steps, with the schedules' values at that step."""
    game = Game(run_of(*SMALL, *FOUR, *line))
    game.follow_schedules(step)
    return game


def test_beta2_rises_by_a_cosine_of_its_distance_from_1() -> None:
    line = ["optimizer.betas=[0,0.9]", "schedule@beta2_schedule=cosine", "beta2_schedule.final=0.1"]
    for step, beta2 in ((0, 0.9), (2, 0.945), (4, 0.99)):
        game = at(step, *line)
        for optimizer in (game.run.d_optimizer, game.run.g_optimizer):
            assert optimizer.param_groups[0]["betas"] == (0.0, pytest.approx(beta2))


def test_penalties_are_scaled_in_the_loss_and_in_the_log() -> None:
    line = ["penalty=[r1,r2]", "train.update=simultaneous"]
    plain, scaled = at(2, *line), at(2, *line, "schedule@penalty_schedule=cosine")
    assert scaled.penalty_factor == pytest.approx(0.5)
    terms = []
    for game in (plain, scaled):
        torch.manual_seed(0)
        terms.append(game.step(2)[0].terms)
    assert set(terms[0]) == {"penalty/r1", "penalty/r2"}
    for tag, term in terms[0].items():
        assert terms[1][tag].item() == pytest.approx(term.item() / 2)
        assert term > 0


def test_half_life_of_the_average_follows_its_schedule() -> None:
    """decay = 0.5 ** (1 / half-life): with a half-life of 4 steps, and half of it, 0.5 ** (1 / 2)."""
    G, G_ema = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    schedule = Cosine(final=1, initial=0)
    ema = EMA(G_ema, G, 0.5 ** (1 / 4), debias=True, schedule=lambda step: schedule(step, 4))
    values = []
    for step in range(4):
        with torch.no_grad():
            G.weight.fill_(float(step + 1))
        ema.update(step)
        values.append(G_ema.weight.item())
    expected, average = [], 0.0
    for step in range(4):
        factor = (1 - math.cos(math.pi * step / 4)) / 2
        decay = 0.5 ** (1 / (4 * factor)) if factor else 0.0
        average = decay * average + (1 - decay) * (step + 1)
        expected.append(average)
    assert values == pytest.approx(expected)
    resumed = EMA(G_ema, G, 0.5 ** (1 / 4), debias=True, schedule=lambda step: schedule(step, 4))
    assert resumed.weight_of_g(4) == pytest.approx(ema.weight_of_g(4))
    assert at(0, "train.ema=0.9", "schedule@ema_schedule=cosine_rise").ema is not None


def test_probability_of_augmentation_follows_its_schedule_and_does_not_adapt() -> None:
    line = ["augment=ada", "augment.target=null", "augment.p=0.6", "schedule@augment_schedule=cosine_rise"]
    game = at(2, *line)
    assert game.run.augment.p.item() == pytest.approx(0.3)
    for _ in range(9):
        game.run.augment.observe(torch.ones(1000))
    assert game.run.augment.p.item() == pytest.approx(0.3)
    assert at(0, *line[:-1]).run.augment.p.item() == pytest.approx(0.6)  # without a schedule it is constant


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["schedule@beta2_schedule=cosine", "optimizer=sgd"], "beta2_schedule: needs optimizers with betas"),
        (["schedule@penalty_schedule=cosine"], "penalty_schedule: there is no penalty"),
        (["schedule@ema_schedule=cosine_rise"], "ema_schedule: has no effect without train.ema"),
        (["schedule@augment_schedule=cosine_rise"], "augment_schedule: this augmentation has no strength"),
        (["schedule@augment_schedule=cosine", "augment=ada"], r"probability that adapts; add augment.target=null"),
    ],
)
def test_schedules_without_effect_are_refused(line: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_of(*SMALL, *FOUR, *line)
