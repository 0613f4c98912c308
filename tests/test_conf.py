"""Every YAML file under conf/ says what it is, builds, and trains two steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    config_of,
    mostly_slow,
    run_of,
    write_cifar10,
    write_fer2013,
    write_folder,
    write_mnist,
    write_olivetti,
    write_tfd,
)

from ganrun.config import CONF
from ganrun.training.game import Game, scalars

FILES = sorted(p.relative_to(CONF).with_suffix("").as_posix() for p in CONF.rglob("*.yaml") if p.parent != CONF)
NARROW = [
    "arch.generator.hidden=[20,20]",
    "arch.discriminator.hidden=[8,8]",
]  # as wide as they are, 8,000 units cost GBs
NEEDS = {
    "penalty/weight_clip": ["loss=wgan"],
    "arch/dcgan": ["data=digits"],
    "condition/concat": ["data=digits"],
    "condition/acgan": ["data=digits"],
    "condition/projection": ["data=digits"],
    "augment/diffaugment": ["data=digits"],
    "augment/ada": ["data=digits"],
    "metric/modes": ["data=ring"],
    "schedule/momentum_goodfellow2014": ["optimizer=momentum"],
    "arch/goodfellow2014/mnist": ["data=digits", *NARROW],
    "arch/goodfellow2014/tfd": ["data=digits", "arch.generator.output_sparse=5", *NARROW],
    "arch/goodfellow2014/tfd_grown": ["data=digits", "arch.generator.output_sparse=5", "arch.generator.grow_from=null"],
    "arch/goodfellow2014/cifar_fc": ["data=digits", "data.gcn=55", *NARROW],
    "experiment/goodfellow2014/mnist": NARROW,
    "experiment/goodfellow2014/tfd": ["arch.generator.output_sparse=5", *NARROW],
    "experiment/goodfellow2014/tfd_grown": ["arch.generator.output_sparse=5", "arch.generator.grow_from=null"],
    "experiment/goodfellow2014/cifar_fc": NARROW,
    "arch/goodfellow2014/cifar_conv": ["data=cifar10", "data.gcn=55", "arch.generator.hidden=[20,8000]"],
    "experiment/goodfellow2014/cifar_conv": ["arch.generator.hidden=[20,8000]"],
    "metric/parzen": ["data=digits"],
    "metric/neighbors": ["data=digits"],
}
for grown in ("arch", "experiment"):
    NEEDS[f"{grown}/goodfellow2014/tfd_grown"] += ["arch.generator.hidden=[20,10,20,20]", NARROW[1]]


def overrides_for(name: str, tmp_path: Path) -> list[str]:
    group, _, option = name.partition("/")
    chosen = [f"{group}={option}", *NEEDS.get(name, []), "train.steps=2", "train.batch_size=4"]
    if group == "schedule" and option.startswith("momentum"):
        chosen[0] = f"schedule@momentum={option}"
    root = tmp_path / "d"
    if group == "experiment" or "data=cifar10" in chosen:
        option = {"mnist": "mnist", "tfd": "tfd", "tfd_grown": "tfd"}.get(option.rpartition("/")[2], option)
        option = "cifar10" if "cifar" in option else option
    if option == "mnist":
        write_mnist(root)
        chosen += ["data.verify=false", "data.num_valid=10"]
    if option == "cifar10":
        write_cifar10(root)
        chosen += ["data.verify=false", "data.num_valid=10"]
    if option == "fer2013":
        write_fer2013(root)
        chosen += ["data.verify=false"]
    if option == "olivetti":
        write_olivetti(root)
        chosen += ["data.verify=false"]
    if option == "tfd":
        write_tfd(root)
    if option in ("folder", "faces"):
        write_folder(root)
    if option == "folder":
        chosen += ["data.size=16"]
    return [*chosen, f"data.root={root}"]


@pytest.mark.parametrize("name", mostly_slow(FILES))
def test_option_trains_two_steps(name: str, tmp_path: Path) -> None:
    run = run_of(*overrides_for(name, tmp_path))
    before = [p.detach().clone() for p in run.G.parameters()]
    game = Game(run)
    for step in range(2):
        values = scalars(*game.step(step))
    assert all(np.isfinite(value) for value in values.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, run.G.parameters(), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_option_says_what_it_is(name: str) -> None:
    lines = [x for x in (CONF / f"{name}.yaml").read_text().splitlines() if not x.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 15


def test_a_choice_on_the_command_line_beats_the_recipe() -> None:
    recipe = config_of("loss=wgan")
    assert recipe["optimizer"]["_target_"] == "torch.optim.RMSprop"
    assert (recipe["train"]["n_critic"], recipe["penalty"]["weight_clip"]["bound"]) == (5, 0.01)
    own = config_of("loss=wgan", "optimizer=adam", "penalty=none", "train.n_critic=2")
    assert own["optimizer"]["_target_"] == "torch.optim.Adam"
    assert (own["train"]["n_critic"], own["penalty"]) == (2, {})


EXPERIMENTS = [name.partition("/")[2] for name in FILES if name.startswith("experiment/")]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_opens_with_its_command_and_what_to_expect(name: str) -> None:
    package, *lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    header = " ".join(line.lstrip("# ") for line in lines[: lines.index("defaults:")])
    assert package == "# @package _global_"
    for word in (f"`ganrun experiment={name}`", "Expected: ", "Time: "):
        assert word in header


def test_a_choice_on_the_command_line_beats_the_experiment() -> None:
    experiment = config_of("experiment=heights_article")
    assert (experiment["optimizer"]["_target_"], experiment["optimizer"]["lr"]) == ("torch.optim.SGD", 1.0)
    assert (experiment["train"]["steps"], experiment["train"]["ema"]) == (10000, 0)
    assert experiment["latent"]["_target_"] == "ganrun.latent.Data"
    own = config_of(
        "experiment=heights_article", "loss=wgan", "train.steps=100", "train.ema=0.9", "optimizer=adam", "latent=normal"
    )
    assert own["loss"]["_target_"] == "ganrun.loss.Wasserstein"
    assert (own["train"]["n_critic"], own["penalty"]["weight_clip"]["bound"]) == (5, 0.01)  # which loss=wgan brings
    assert (own["train"]["steps"], own["train"]["ema"]) == (100, 0.9)
    assert own["optimizer"]["_target_"] == "torch.optim.Adam"
    assert own["latent"]["_target_"] == "ganrun.latent.Normal"
    assert config_of("experiment=ring", "data=grid")["data"]["side"] == 5
    assert config_of("experiment=ring", "penalty=none")["penalty"] == {}


def test_the_experiment_heights_is_the_default_job_with_both_players_updated_at_once() -> None:
    assert config_of("experiment=heights", "train.update=alternating") == config_of()
    assert config_of("experiment=heights") == config_of("train.update=simultaneous")


def test_players_may_have_optimizers_and_schedules_apart() -> None:
    run = run_of("optimizer=adam", "optimizer@d_optimizer=sgd", "d_optimizer.lr=0.5", "schedule@g_schedule=cosine")
    assert type(run.d_optimizer).__name__ == "SGD"
    assert run.d_optimizer.defaults["lr"] == 0.5
    assert type(run.g_optimizer).__name__ == "Adam"
    assert (type(run.g_schedule).__name__, type(run.d_schedule).__name__) == ("Cosine", "Linear")
