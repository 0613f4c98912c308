"""Every YAML file in conf/ begins with a description, can be built, and trains for two steps."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import REPO, config_of, in_miniature, run_of, too_large

from ganrun.cli.compose import groups_and_options
from ganrun.config import CONF
from ganrun.training.build import build
from ganrun.training.game import Game
from ganrun.training.run import Run
from ganrun.training.updates import scalars

FILES = [f"{group}/{option}" for group, options in groups_and_options([CONF]).items() for option in options]
EXPERIMENTS = [name.partition("/")[2] for name in FILES if name.startswith("experiment/")]

# Command lines for options that need particular other settings. For all others they are found by trial.
NEEDS = {
    "arch/table": ["arch=table", "data=breast_cancer"],
    "arch/goodfellow2014_cifar_conv": ["arch=goodfellow2014_cifar_conv", "data=cifar10", "data.gcn=55"],
    "condition/own": ["condition=own", "data=digits", "arch=r3gan"],
    **{f"experiment/{name}": [f"experiment={name}", *too_large(name)] for name in EXPERIMENTS if too_large(name)},
    "metric/anomaly_auroc": ["metric=anomaly_auroc", "data=digits", "data.without=[3]"],
    "metric/augmentation_gain": [
        "metric=augmentation_gain",
        "metric.augmentation_gain.num_labelled=[5]",
        "data=digits",
        "condition=concat",
    ],
    "metric/intra_fid": ["metric=intra_fid", "metric.intra_fid.split=train", "data=digits", "condition=concat"],
    "metric/label_accuracy": ["metric=label_accuracy", "data=digits", "condition=concat"],
    "metric/ms_ssim": ["metric=ms_ssim", "data=fer2013"],
    "metric/table": ["metric=table", "data=breast_cancer"],
    "metric/stacked_modes": ["metric=stacked_modes", "data=stacked_mnist"],
    "metric/train_on_samples": ["metric=train_on_samples", "data=digits", "condition=concat"],
    "schedule/momentum_goodfellow2014": ["schedule@momentum=momentum_goodfellow2014", "optimizer=momentum"],
}
PLUGINS = {  # of options that need an optional library
    "data/table": "pandas",
    "launch/ray": "hydra_plugins.hydra_ray_launcher",
    "launch/slurm": "hydra_plugins.hydra_submitit_launcher",
}
SHORT = ["init_from=null", "train.steps=2", "train.batch_size=4", "train.threads=1", "train.device=cpu"]


def overrides_for(name: str) -> Iterator[list[str]]:
    """Command lines to try the option with: the default data, images, and data with several modes."""
    if name in NEEDS:
        yield NEEDS[name]
        return
    group, _, option = name.partition("/")
    yield [f"{group}={option}"]
    if group not in ("data", "experiment"):  # those choose their own data
        yield [f"{group}={option}", "data=digits"]
        yield [f"{group}={option}", "data=ring"]


def first_valid_run(name: str, root: Path) -> Run:
    if name in PLUGINS:
        pytest.importorskip(PLUGINS[name])
    refusals = []
    for overrides in overrides_for(name):
        try:
            return build(in_miniature(config_of(*overrides, *SHORT), root))
        except ValueError as error:
            refusals.append(f"{' '.join(overrides)}: {error}")
    raise AssertionError("\n".join(refusals))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_option_trains_two_steps(name: str, tmp_path: Path) -> None:
    run = first_valid_run(name, tmp_path)
    before = [p.detach().clone() for p in run.G.parameters()]
    game = Game(run)
    for step in range(2):
        values = scalars(*game.step(step))
    assert all(np.isfinite(value) for value in values.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, run.G.parameters(), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_option_begins_with_a_description(name: str) -> None:
    lines = [x for x in (CONF / f"{name}.yaml").read_text().splitlines() if not x.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 15


@pytest.mark.parametrize("group", groups_and_options([CONF]))
def test_all_files_of_a_group_have_the_same_package(group: str) -> None:
    """Either all set only keys of their own group, or all begin with `# @package _global_`."""
    texts = [path.read_text() for path in (CONF / group).rglob("*.yaml")]
    assert len({"@package" in text for text in texts}) == 1
    if "@package" in texts[0]:
        assert all(text.startswith("# @package _global_\n") for text in texts)


def test_no_line_of_conf_is_longer_than_130_characters() -> None:
    lines = [(path, line) for path in CONF.rglob("*.yaml") for line in path.read_text().splitlines()]
    assert [f"{path}: {line}" for path, line in lines if len(line) > 130] == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_begins_with_its_command_and_expected_results(name: str) -> None:
    package, *lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    header = " ".join(line.lstrip("# ") for line in lines[: lines.index("defaults:")])
    assert package == "# @package _global_"
    for word in (f"`ganrun experiment={name}`", "Expected: ", "Time: "):
        assert word in header


def test_command_line_overrides_the_choices_of_a_loss() -> None:
    recipe = config_of("loss=wgan")
    assert recipe["optimizer"]["_target_"] == "torch.optim.RMSprop"
    assert (recipe["train"]["n_critic"], recipe["penalty"]["weight_clip"]["bound"]) == (5, 0.01)
    own = config_of("loss=wgan", "optimizer=adam", "penalty=none", "train.n_critic=2")
    assert own["optimizer"]["_target_"] == "torch.optim.Adam"
    assert (own["train"]["n_critic"], own["penalty"]) == (2, {})


@pytest.mark.slow
def test_command_line_overrides_the_choices_of_an_experiment() -> None:
    experiment = config_of("experiment=heights_article")
    assert (experiment["optimizer"]["_target_"], experiment["optimizer"]["lr"]) == ("torch.optim.SGD", 1.0)
    assert (experiment["train"]["steps"], experiment["train"]["ema"]) == (10000, 0)
    assert experiment["latent"]["_target_"] == "ganrun.latent.Data"
    own = config_of(
        "experiment=heights_article", "loss=wgan", "train.steps=100", "train.ema=0.9", "optimizer=adam", "latent=normal"
    )
    assert own["loss"]["_target_"] == "ganrun.loss.Wasserstein"
    assert (own["train"]["n_critic"], own["penalty"]["weight_clip"]["bound"]) == (5, 0.01)  # chosen by loss=wgan
    assert (own["train"]["steps"], own["train"]["ema"]) == (100, 0.9)
    assert own["optimizer"]["_target_"] == "torch.optim.Adam"
    assert own["latent"]["_target_"] == "ganrun.latent.Normal"
    assert config_of("experiment=ring", "data=grid")["data"]["side"] == 5
    assert config_of("experiment=ring", "penalty=none")["penalty"] == {}


def test_heights_experiment_is_the_default_job_with_simultaneous_updates() -> None:
    assert config_of("experiment=heights", "train.update=alternating") == config_of()
    assert config_of("experiment=heights") == config_of("train.update=simultaneous")


def test_players_can_have_separate_optimizers_and_schedules() -> None:
    run = run_of("optimizer=adam", "optimizer@d_optimizer=sgd", "d_optimizer.lr=0.5", "schedule@g_schedule=cosine")
    assert type(run.d_optimizer).__name__ == "SGD"
    assert run.d_optimizer.defaults["lr"] == 0.5
    assert type(run.g_optimizer).__name__ == "Adam"
    assert (type(run.g_schedule).__name__, type(run.d_schedule).__name__) == ("Cosine", "Linear")


@pytest.mark.parametrize("data", ["heights", "ring", "mnist"])
@pytest.mark.parametrize("kind", ["", "_controlled"])
def test_study_has_the_learning_rates_that_the_search_found(data: str, kind: str) -> None:
    found = json.loads((REPO / "benchmarks" / "compare_losses.json").read_text())[data + kind]
    jobs = yaml.safe_load((CONF / "experiment" / "compare_losses" / f"{data}{kind}.yaml").read_text())["jobs"]
    rates = {
        " ".join(line for line in job if not line.startswith("optimizer.lr=")): float(line.partition("=")[2])
        for job in jobs
        for line in job
        if line.startswith("optimizer.lr=")
    }
    assert rates == {job: result["lr"] for job, result in found.items()}
