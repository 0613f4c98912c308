"""Combinations of losses, penalties, conditions and networks train and resume bit for bit, or are refused.

All combinations of two of the four, and at least half of the combinations of three, are covered.
"""

import functools
import io
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import config_of, same, write_folder

from ganrun.config import CONF, Config
from ganrun.protocols import Penalty
from ganrun.training.build import build
from ganrun.training.game import Game
from ganrun.training.instantiate import make_component
from ganrun.training.randomness import reseed
from ganrun.training.run import Run

LOSSES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
PENALTIES = sorted(path.stem for path in (CONF / "penalty").glob("*.yaml"))
CONDITIONS = sorted(path.stem for path in (CONF / "condition").glob("*.yaml"))
NETS = {
    "vectors": ["train.ema=0.9"],
    "images, fully connected": ["arch=mlp", "arch.generator.hidden=[4]", "arch.discriminator.hidden=[4]"],
    "images": ["arch.discriminator.norm=none", "augment=ada", "augment.p=0.5", "train.update=simultaneous"],
    "images with batch norm": [
        "arch.discriminator.norm=batch",
        "train.precision=bf16",
        "arch.discriminator.spectral_norm=true",
    ],
    "a minibatch layer": ["arch.discriminator.norm=layer", "arch.discriminator.minibatch=stddev", "train.ema=0.9"],
}
CASES = [
    (loss, penalty, condition, net)
    for i, loss in enumerate(LOSSES)
    for j, penalty in enumerate(PENALTIES)
    for k, condition in enumerate(sorted(CONDITIONS, key="none".__ne__))  # none first
    for n, net in enumerate(NETS)
    if (i + j + k + n) % (2 if condition == "none" else 6) == 0
]
DCGAN = ["arch.generator.width=2", "arch.discriminator.width=2"]
NOISE = ["train.label_noise=0.1", "train.instance_noise=0.1"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("images")
    write_folder(root, 8)
    return ["data=folder", f"data.root={root}", f"data.cache={root}/c", "data.size=16", "data.valid=0", "data.test=0"]


def play(run: Run, start: int, stop: int) -> None:
    game = Game(run)
    for step in range(start, stop):
        reseed(run.device, run.seed, "step", step)
        game.step(step)


def test_all_pairs_and_half_of_the_triples_are_covered() -> None:
    every = (LOSSES, PENALTIES, CONDITIONS, list(NETS))
    for number, share in ((2, 1), (3, 1 / 2)):
        for some in itertools.combinations(range(4), number):
            met = {tuple(case[i] for i in some) for case in CASES}
            assert len(met) >= share * math.prod(len(every[i]) for i in some)


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


@functools.cache
def option(group: str, name: str) -> Config:
    """The settings of an option that makes no other choices."""
    return config_of(f"{group}={name}")[group]


def refusal(config: Config, net: str) -> str | None:
    """The message with which a combination is refused, or None. It follows from the components' declarations."""
    condition, penalties = config["condition"], config["penalty"]
    if condition and net == "vectors":
        return "condition: these data have no labels; use data with labels, .* or condition=none"
    if condition.get("generator") == "own":
        return "condition.generator=own: .* no way of its own to use labels .*; use arch=biggan or r3gan"
    if condition.get("generator") == "batch_norm" and net == "images, fully connected":
        return "condition.generator=batch_norm: .* no batch normalization; use condition.generator=concat"
    for name, node in penalties.items():
        penalty = make_component(f"penalty.{name}", node, Penalty)
        if net == "images with batch norm" and penalty.bounds_gradient:
            return r"^penalty=\w+: D has batch normalization, .*; use .*penalty=none"
        if net == "a minibatch layer" and penalty.needs_independent_samples:
            return r"^penalty=\w+: D has a layer MinibatchStdDev, .*; use .*penalty=none"
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "penalty", "condition", "net"), CASES)
def test_combination_trains_and_resumes_or_is_refused(
    loss: str, penalty: str, condition: str, net: str, images: list[str], tmp_path: Path
) -> None:
    line = [f"loss={loss}", *NETS[net], *NOISE]
    line += ["train.batch_size=4", "train.n_critic=1", "train.threads=1", "train.device=cpu"]
    line += [] if net == "vectors" else images
    line += [] if "arch=mlp" in line or net == "vectors" else DCGAN
    config = config_of(*line) | {"penalty": option("penalty", penalty), "condition": option("condition", condition)}
    if sentence := refusal(config, net):
        with pytest.raises(ValueError, match=sentence):
            build(config)
        return
    whole, resumed = build(config), build(config)
    play(whole, 0, 1)
    resumed.load_state_dict(saved_and_loaded(whole.state_dict()))
    play(whole, 1, 3)
    play(resumed, 1, 3)
    assert whole.is_finite()
    assert same(whole.state_dict(), resumed.state_dict())
