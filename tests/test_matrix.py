"""Losses, penalties, conditions and nets together: trains and resumes bit for bit, or is refused with a remedy.

Every loss meets every penalty in every net; with conditions, any two of the four meet in every way, and any three in at
least half of their ways.
"""

import io
import itertools
import math
from pathlib import Path

import pytest
import torch
from helpers import config_of, write_folder

from ganrun.config import CONF
from ganrun.training.build import build
from ganrun.training.game import Game
from ganrun.training.randomness import reseed
from ganrun.training.run import Run

LOSSES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
PENALTIES = sorted(path.stem for path in (CONF / "penalty").glob("*.yaml"))
CONDITIONS = sorted(path.stem for path in (CONF / "condition").glob("*.yaml"))
NOT_WITH_MINIBATCH_LAYERS = {"gradient_penalty", "gradient_penalty_one_sided", "zero_centered", "dragan"}
NOT_WITH_BATCH_NORM = {*NOT_WITH_MINIBATCH_LAYERS, "r1", "r2"}
NETS = {
    "vectors": ["train.ema=0.9"],
    "images, fully connected": ["arch=mlp", "arch.generator.hidden=[4]", "arch.discriminator.hidden=[4]"],
    "images": ["arch.discriminator.norm=none", "augment=ada", "augment.p=0.5", "train.update=simultaneous"],
    "images with batch norm": ["train.precision=bf16", "arch.discriminator.spectral_norm=true"],
    "a minibatch layer": ["arch.discriminator.norm=layer", "arch.discriminator.minibatch=stddev", "train.ema=0.9"],
}
CASES = [
    (loss, penalty, condition, net)
    for i, loss in enumerate(LOSSES)
    for j, penalty in enumerate(PENALTIES)
    for k, condition in enumerate(sorted(CONDITIONS, key="none".__ne__))  # none first
    for n, net in enumerate(NETS)
    if condition == "none" or (i + j + k + n) % 6 == 0
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


def test_any_two_meet_in_every_way_and_any_three_in_half_of_them() -> None:
    every = (LOSSES, PENALTIES, CONDITIONS, list(NETS))
    for number, share in ((2, 1), (3, 1 / 2)):
        for some in itertools.combinations(range(4), number):
            met = {tuple(case[i] for i in some) for case in CASES}
            assert len(met) >= share * math.prod(len(every[i]) for i in some)


def saved(run: Run) -> bytes:
    buffer = io.BytesIO()
    torch.save(run.state_dict(), buffer)
    return buffer.getvalue()


def loaded(data: bytes) -> dict:
    return torch.load(io.BytesIO(data), weights_only=True)


def refusal(penalty: str, condition: str, net: str) -> str | None:
    """The sentence that a combination is refused with, or None where it is none to be refused."""
    mixes = {"images with batch norm": NOT_WITH_BATCH_NORM, "a minibatch layer": NOT_WITH_MINIBATCH_LAYERS}
    if condition != "none" and net == "vectors":
        return "condition: these data have no labels; use data that have, .* or condition=none"
    if condition == "projection" and net == "images, fully connected":
        return "condition.generator=batch_norm: .* no batch normalization; use condition.generator=concat"
    if penalty in mixes.get(net, ()):
        return rf"penalty={penalty.removesuffix('_one_sided')}: D has .*; use"
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "penalty", "condition", "net"), CASES)
def test_trains_and_resumes_or_is_refused(
    loss: str, penalty: str, condition: str, net: str, images: list[str], tmp_path: Path
) -> None:
    line = [f"loss={loss}", *NETS[net], *NOISE]
    line += ["train.batch_size=4", "train.n_critic=1", "train.threads=1", "train.device=cpu"]
    line += [] if net == "vectors" else images
    line += [] if "arch=mlp" in line or net == "vectors" else DCGAN
    apart = {"penalty": penalty, "condition": condition}  # which bring nothing along
    config = config_of(*line) | {group: config_of(f"{group}={option}")[group] for group, option in apart.items()}
    if sentence := refusal(penalty, condition, net):
        with pytest.raises(ValueError, match=sentence):
            build(config)
        return
    whole, resumed = build(config), build(config)
    play(whole, 0, 1)
    resumed.load_state_dict(loaded(saved(whole)))
    play(whole, 1, 3)
    play(resumed, 1, 3)
    assert whole.is_finite()
    assert same(loaded(saved(whole)), loaded(saved(resumed)))


def same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a.nan_to_num(9), b.nan_to_num(9)) if isinstance(a, torch.Tensor) else a == b
