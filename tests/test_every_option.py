"""Every option of every group runs to its end on the command line, with each kind of data that it accepts.

The runs have a few steps, with metrics, pictures and the diagnosis. To save time, a run tries an option of each of
several groups; an option that these data refuse is left out, and the rest tried again.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Here
from helpers import in_miniature, result_of, too_large, write_folder
from hydra._internal.hydra import Hydra
from hydra.types import RunMode
from matplotlib.figure import Figure

from ganrun.cli import command_line
from ganrun.cli.compose import groups_and_options, plain
from ganrun.config import CONF, Config
from ganrun.diagnosis import measure
from ganrun.figures import density, logits, plane, table

OPTIONS = groups_and_options([CONF])
KINDS = {
    "one dimension": ["data=heights", "data.num=500"],
    "two dimensions": ["data=ring", "data.num=500"],
    "a table": ["data=table", "data.label=job"],
    "gray images": ["data=digits"],
    "color images": ["data=folder", "data.root=images", "data.cache=cache", "data.size=16", "data.test=0.3"],
}
CLASSIFIER = "ganrun.features.classifier.Classifier"
MINIBATCH = "arch.discriminator.minibatch"
# Groups whose options are tried in the same runs. A loss chooses an optimizer, a schedule and a penalty, which are
# tried with it, so options of these groups are tried in other runs.
TOGETHER = [
    ["loss", "latent", "metric", "condition", "augment"],
    ["arch", "penalty", "optimizer", "schedule"],
]
REFUSALS = [  # why data can refuse an option
    "condition: these data have no labels",
    "condition.generator=batch_norm: .* has no batch normalization",
    "metric=(distribution|modes|divergence|theory): needs .*data",
    "metric=(neighbors|parzen): .*images",
    "metric=(class_balance|fidelity|intra_fid|label_accuracy|ms_ssim|stacked_modes): ",
    "metric=table: needs a table",
    "metric=(anomaly_auroc|augmentation_gain|linear_probe|train_on_samples): ",
    "metric.(augmentation_gain|linear_probe).num_labelled=",
    "arch.generator: makes rows of a table",
    "metric.fidelity.num=|features=",
    r"augment=\w+: transforms images",
    r"arch.generator: (DCGAN|SNGAN|WGAN-GP|BigGAN|R3GAN) makes images",
    r"condition.(generator|discriminator)=own: .* no way of its own",
    r"condition.(generator|discriminator)=concat: .* no inputs for labels",
    "arch.generator.output=sigmoid: is bounded, but the data are not",
    "arch.generator.deconvolution=.* images",
]
NEEDS = {  # settings without which no images are accepted
    "arch=goodfellow2014_cifar_fc": ["data.gcn=55"],
    "arch=goodfellow2014_mnist": ["data.value_range=[0,1]"],
    "arch=goodfellow2014_tfd": ["data.value_range=[0,1]"],
    "arch=goodfellow2014_tfd_grown": ["data.value_range=[0,1]"],
}
FEW = {"num": 200, "seeds": 1, "num_labelled": [10], "C": [1.0], "updates": 2}  # of each metric that has them
SHORT = [
    "train.steps=2", "train.batch_size=4", "train.threads=1", "train.device=cpu", "train.log_every=1",
    "train.sample_every=2", "train.frame_every=2",
]  # fmt: skip


class Small(Figure):
    """A figure of few pixels, without a layout, both of which take most of the time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "dpi": 20, "layout": None})


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the config of each command line small, and compose it once, where Hydra first composes the mode."""
    monkeypatch.setattr(measure, "NUM", 100)
    monkeypatch.setattr(command_line, "plain", lambda config: small(plain(config), tmp_path))
    monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: RunMode.RUN)
    for module in (density, plane, logits, table):
        monkeypatch.setattr(module, "Figure", Small)
    write_folder(tmp_path / "images")


def small(config: Config, root: Path) -> Config:
    """The config with miniature data, narrow networks, few samples of each metric, and a short start."""
    config = in_miniature(config, root)
    for net in config["arch"].values():
        if isinstance(net, dict) and "width" in net:
            net["width"] = 2
    for metric in config["metric"].values():
        metric |= {name: value for name, value in FEW.items() if name in metric}
    config["features"] = config.get("features") or {"_target_": CLASSIFIER, "width": 2, "epochs": 1}
    config["train"]["pretrain_d"] = min(2, config["train"]["pretrain_d"])
    return config


def ends_well(here: Here, line: list[str], tmp_path: Path) -> str:
    """Run the line. Returns the sentence that refuses it, or an empty string for a run that finished."""
    number = len(list(tmp_path.glob("run_*")))
    run_dir = tmp_path / f"run_{number}"
    code, _, err = here(*SHORT, *line, f"run_dir={run_dir.name}")
    if code == 2:
        assert err.count("\n") == 1, err
        return err
    assert code in (0, 3), f"{' '.join(line)}\n{err}"
    result = result_of(run_dir)
    assert result["steps"] == 2
    assert result["diagnosis"] is not None, f"{' '.join(line)}\n{err}"
    assert "failed" not in err
    drawn = list((run_dir / "samples").glob("*.png"))
    assert drawn or "condition" in " ".join(line) or "train.sample_every=0" in line, line
    return ""


def lines_of(together: list[str]) -> list[list[str]]:
    """Choices of an option of each group, such that each option is chosen at least once."""
    options = [OPTIONS[group] for group in together]
    return [
        [f"{group}={some[i % len(some)]}" for group, some in zip(together, options, strict=True)]
        for i in range(max(map(len, options)))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("together", TOGETHER, ids=lambda groups: groups[0])
def test_every_option_runs_to_its_end_or_is_refused_for_these_data(
    kind: str, together: list[str], here: Here, tmp_path: Path
) -> None:
    refused: set[str] = set()
    pictures = [] if "loss" in together else ["train.sample_every=0"]  # drawing takes as long as all the rest
    for line in lines_of(together):
        while chosen := [choice for choice in line if choice not in refused]:
            needs = [need for choice in chosen for need in NEEDS.get(choice, []) if "images" in kind]
            refusal = ends_well(here, [*KINDS[kind], *chosen, *needs, *pictures], tmp_path)
            if not refusal:
                break
            assert any(re.match(reason, refusal) for reason in REFUSALS), f"{' '.join(chosen)}\n{refusal}"
            group = re.split("[.=:]", refusal)[0]
            refused |= {choice for choice in chosen if choice.startswith(f"{group}=")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_mix_samples_run_to_their_end(kind: str, here: Here, tmp_path: Path) -> None:
    for minibatch in ("stddev", "discrimination"):
        assert ends_well(here, [*KINDS[kind], f"{MINIBATCH}={minibatch}"], tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("group", ["data", "experiment"])
def test_every_data_set_and_experiment_runs_to_its_end(group: str, here: Here, tmp_path: Path) -> None:
    for option in OPTIONS[group]:
        first_stage = f"init_from=run_{len(list(tmp_path.glob('run_*'))) - 1}"  # the option before this one
        line = [f"{group}={option}", *([first_stage] if option.endswith("tfd_grown") else [])]
        line += too_large(option) if group == "experiment" else []
        assert ends_well(here, line, tmp_path) == "", line
