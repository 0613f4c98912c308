"""Initialization from the weights of another run: `init_from=RUN_DIR`."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    assert_same_run,
    config_of,
    kill_at,
    recorded,
    result_of,
    run_of,
    same,
    state_of,
    train_in,
    write_tfd,
)
from torch import Tensor, nn

from ganrun.records import checkpoint
from ganrun.training.init_from import init_from, load_weights
from ganrun.training.run import Run

COMMON = ["arch=mlp_small", "data.num=500", "train.batch_size=16", "train.log_every=1", "train.sample_every=0",
          "train.frame_every=0", "train.diagnose=false", "metric=distribution", "metric.distribution.num=500",
          "schedule=constant", "optimizer.lr=0.05"]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with all its checkpoints, including the best one."""
    folder = tmp_path_factory.mktemp("source")
    kept = ["train.checkpoint_every=2", "train.keep_checkpoints=9", "train.metric_every=2", "train.keep_best=w1_500"]
    train_in(folder, [*COMMON, *kept, "train.steps=6", "train.ema=0.5", "run_dir=first"])
    return folder / "first"


@pytest.fixture
def first(source: Path, tmp_path: Path) -> Path:
    """A copy of that run in the working directory of the test."""
    return shutil.copytree(source, tmp_path / "first")


def initialized(*overrides: str) -> Run:
    """A run before its first step."""
    run = run_of(*COMMON, *overrides)
    init_from(run, config_of(*COMMON, *overrides))
    return run


# What is loaded


@pytest.mark.slow
@pytest.mark.parametrize("nets", ["both", "generator", "discriminator"])
def test_selected_networks_are_initialized_from_the_other_run(nets: str, source: Path) -> None:
    run, fresh = initialized(f"init_from={source}", f"init.nets={nets}", "train.ema=0.9"), run_of(*COMMON)
    loaded = checkpoint.load(checkpoint.path_of(source / "checkpoints", 6))
    assert same(state_of(run.G), loaded["G"] if nets != "discriminator" else state_of(fresh.G))
    assert same(state_of(run.D), loaded["D"] if nets != "generator" else state_of(fresh.D))
    assert not same(loaded["G"], state_of(fresh.G))
    assert not same(loaded["D"], state_of(fresh.D))
    assert run.G_ema is not None
    assert same(state_of(run.G_ema), state_of(run.G))  # not those of the other run
    assert not same(loaded["G_ema"], loaded["G"])
    for optimizer in (run.g_optimizer, run.d_optimizer):
        assert optimizer.state_dict()["state"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["last", "best", 2, 4])
def test_checkpoint_can_be_selected(which: str | int, source: Path) -> None:
    run = initialized(f"init_from={source}", f"init.checkpoint={which}", "train.ema=0")
    name = {"last": "step_00000006.pt", "best": "best.pt"}.get(str(which), f"step_0000000{which}.pt")
    loaded = checkpoint.load(source / "checkpoints" / name)
    assert loaded["step"] == {"last": 6, "best": result_of(source)["best"]["step"]}.get(str(which), which)
    assert same(state_of(run.G), loaded["G"])
    assert same(state_of(run.D), loaded["D"])


def test_without_another_run_networks_are_initialized_from_the_seed() -> None:
    assert same(state_of(initialized().G), state_of(run_of(*COMMON).G))


def test_run_trains_from_the_loaded_weights(first: Path, here, tmp_path: Path) -> None:
    """With a learning rate of 0, its final networks are those of the other run."""
    code, _, err = here(*COMMON, "init_from=first", "optimizer.lr=0", "train.steps=2", "train.ema=0.5", "run_dir=r")
    assert (code, err) == (0, "")
    before, after = (checkpoint.load_newest(path / "checkpoints") for path in (first, tmp_path / "r"))
    assert before is not None
    assert after is not None
    assert (after["step"], after["nimg"]) == (2, 32)
    assert same(after["G"], before["G"])
    assert same(after["D"], before["D"])
    assert same(after["G_ema"], before["G"])
    assert [step for step, _ in recorded(tmp_path / "r", "loss/d")] == [1, 2]


def test_path_can_contain_spaces_and_commas(first: Path, here, tmp_path: Path) -> None:
    first.rename(tmp_path / "my first run, of two")
    assert here(*COMMON, "init_from=my first run, of two", "train.steps=1", "run_dir=r")[0] == 0


# Errors


def refused(here, *line: str) -> str:
    """The error message of a run that is refused and leaves no files."""
    code, _, err = here(*COMMON, "train.steps=1", "run_dir=r", *line)
    assert code == 2
    assert not Path("r").exists()
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    return err.removesuffix("\n")


ADVICE = "Choose the same arch and settings, or load only one network, as in init.nets=generator."
MISFITS = [
    (
        ["arch.generator.hidden=[3]"],
        "its generator does not fit this one: layers.0.bias is (16,) there, (3,) here, "
        "layers.0.weight is (16, 1) there, (3, 1) here, layers.2.weight is (1, 16) there, (1, 3) here.",
    ),
    (["arch.z_dim=2"], "its generator does not fit this one: layers.0.weight is (16, 1) there, (16, 2) here."),
    (
        ["arch.discriminator.hidden=[3,16]", "init.nets=discriminator"],
        "its discriminator does not fit this one: layers.0.bias is (16,) there, (3,) here, "
        "layers.0.weight is (16, 1) there, (3, 1) here, layers.2.weight is (16, 16) there, (16, 3) here.",
    ),
    (
        ["arch.generator.hidden=[16,16]"],
        "its generator does not fit this one: layers.2.bias is (1,) there, (16,) here, "
        "layers.2.weight is (1, 16) there, (16, 16) here, layers.4.bias is only here and 1 more.",
    ),
    (
        ["arch.discriminator.hidden=[16]"],
        "its discriminator does not fit this one: layers.2.bias is only there, layers.2.weight is only there.",
    ),
    (
        ["arch.generator.spectral_norm=true"],
        "its generator does not fit this one: layers.0.parametrizations.weight.0._u is only here, "
        "layers.0.parametrizations.weight.0._v is only here, layers.0.parametrizations.weight.original is only here "
        "and 5 more.",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "message"), MISFITS)
def test_mismatched_networks_are_refused_with_both_shapes(settings: list[str], message: str, first: Path, here) -> None:
    assert refused(here, "init_from=first", *settings) == f"init_from=first: {message} {ADVICE}"


def test_network_that_is_not_loaded_can_have_other_shapes(source: Path) -> None:
    initialized(f"init_from={source}", "init.nets=discriminator", "arch.generator.hidden=[3]")
    initialized(f"init_from={source}", "init.nets=generator", "arch.discriminator.hidden=[3]")


@pytest.mark.slow
def test_missing_run_checkpoint_or_option_is_reported(first: Path, here, tmp_path: Path) -> None:
    assert refused(here, "init_from=nowhere") == "init_from=nowhere: no run there (it has no config.yaml)."
    assert refused(here, "init_from=first", "init.checkpoint=77") == (
        "init_from=first: first/checkpoints/step_00000077.pt: no such checkpoint; saved steps: 2, 4, 6."
    )
    assert refused(here, "init_from=first", "init.nets=both_of_them").startswith("init.nets=both_of_them: must be one")
    assert refused(here, "init_from=first", "init.checkpoint=first").startswith("init.checkpoint=first: must be")
    assert "init.net=generator: no such setting; did you mean init.nets?" in refused(here, "init.net=generator")
    checkpoint.best_path(first / "checkpoints").unlink()
    assert refused(here, "init_from=first", "init.checkpoint=best").startswith(
        "init_from=first: has no checkpoints/best.pt; a run writes one with train.keep_best"
    )
    for step in (2, 4, 6):
        checkpoint.path_of(first / "checkpoints", step).unlink()
    assert refused(here, "init_from=first") == "init_from=first: has no readable checkpoint yet."


@pytest.mark.slow
def test_other_data_are_reported_and_refused_on_request(first: Path, here, tmp_path: Path) -> None:
    other = ["init_from=first", "data.mean=70", "data.num=400"]
    changes = "mean (69.0 there, 70.0 now), num_train (500 there, 400 now), valid (50 examples with mean "
    message = refused(here, *other, "init.same_data=true")
    assert message.startswith(
        f"init_from=first: was trained on other data, possibly on this run's test data: {changes}"
    )
    assert message.endswith(". Use the same data, and the same data.fold, for both runs.")
    code, _, err = here(*COMMON, *other, "train.steps=1", "run_dir=r")
    assert code == 0
    assert err.startswith(f"init_from=first: was trained on other data: {changes}")
    assert changes in (tmp_path / "r" / "train.log").read_text()
    code, _, err = here(*COMMON, "init_from=first", "init.same_data=true", "train.steps=1", "run_dir=same")
    assert (code, err) == (0, "")


# Resume


TUNED = [*COMMON, "init_from=first", "train.steps=7", "train.checkpoint_every=3", "train.ema=0.5", "train.pretrain_d=2"]


@pytest.mark.slow
def test_killed_run_resumes_bit_for_bit_without_the_other_run(first: Path, here, tmp_path: Path) -> None:
    assert here(*TUNED, "run_dir=whole")[0] == 0
    kill_at(5, [*TUNED, "run_dir=killed"], tmp_path)
    shutil.rmtree(first)
    code, out, err = here("resume", "run_dir=killed")
    assert (code, err) == (0, "")
    assert "resuming at step 3 of 7" in out
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert here("sample", "run_dir=killed", "num=3")[0] == 0
    assert here("evaluate", "run_dir=killed", "seed=1")[0] == 0


@pytest.mark.slow
def test_run_killed_before_its_first_checkpoint_restarts_from_the_other_run(first: Path, here, tmp_path: Path) -> None:
    assert here(*TUNED, "run_dir=whole")[0] == 0
    kill_at(2, [*TUNED, "run_dir=killed"], tmp_path)
    first.rename(tmp_path / "elsewhere")
    code, _, err = here("resume", "run_dir=killed")
    assert (code, err) == (2, "init_from=first: no run there (it has no config.yaml).\n")
    (tmp_path / "elsewhere").rename(first)
    assert here(*TUNED, "run_dir=killed")[0] == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_other_init_settings_are_a_different_config(first: Path, here) -> None:
    line = [*COMMON, "init_from=first", "train.steps=1", "run_dir=r"]
    assert here(*line)[0] == 0
    for setting, named in (
        ("init_from=null", "init_from (first there, None now)"),
        ("init.nets=generator", "init.nets (both there, generator now)"),
    ):
        code, _, err = here(*line, setting)
        assert code == 2
        assert named in err


# Growing


FACES = ["data.root=tfd", "data.verify=false", "metric=parzen", "metric.parzen.num=20", "train.batch_size=7",
         "train.sample_every=0", "train.log_every=1", "train.diagnose=false", "train.threads=1",
         "arch.generator.output_sparse=3", "arch.discriminator.hidden=[4,4]"]  # fmt: skip
GROWN = ["experiment=goodfellow2014/tfd_grown", *FACES, "arch.generator.hidden=[6,100,9,8]", "train.steps=1",
         "run_dir=second"]  # fmt: skip


@pytest.fixture
def first_stage(here, tmp_path: Path) -> Path:
    write_tfd(tmp_path / "tfd")
    stage = ["experiment=goodfellow2014/tfd", *FACES, "arch.generator.hidden=[9,8]", "train.steps=2"]
    assert here(*stage, "run_dir=first_stage")[0] == 0
    return tmp_path / "first_stage"


@pytest.mark.slow
def test_second_stage_has_the_generator_of_the_first_behind_new_layers(first_stage: Path, here, tmp_path: Path) -> None:
    code, _, err = here(*GROWN, "init_from=first_stage", "optimizer.lr=0", "train.ema=0.5")
    assert (code, err) == (0, "")
    before, after = (checkpoint.load_newest(path / "checkpoints") for path in (first_stage, tmp_path / "second"))
    assert before is not None
    assert after is not None
    behind = {"hidden.0": "hidden.2", "hidden.1": "hidden.3"}
    for net in ("G", "G_ema"):
        assert after[net]["hidden.0.weight"].shape == (6, 100)
        for name, value in before["G"].items():
            assert torch.equal(after[net][behind.get(name[:8], name[:8]) + name[8:]], value), name
    assert not same(after["D"], before["D"])


@pytest.mark.slow
def test_second_stage_needs_a_matching_first_stage_on_the_same_data(first_stage: Path, here, tmp_path: Path) -> None:
    for settings, message in (
        ([], "init_from=FIRST_STAGE: no run there"),
        (
            ["init_from=first_stage", "data.train=labeled"],
            "init_from=first_stage: was trained on other data, possibly",
        ),
        (
            ["init_from=first_stage", "arch.generator.hidden=[6,100,9,7]"],
            "init_from=first_stage: its generator has 2 hidden layers, which are not the last of this one's 4 (hidden.",
        ),
    ):
        code, _, err = here(*GROWN, *settings)
        assert code == 2
        assert err.startswith(message)
        assert not (tmp_path / "second").exists()


# Networks that adapt weights


class Wider(nn.Linear):
    """Can load weights of a layer with fewer outputs; the other weights are 0."""

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        num = len(state["bias"])
        if num > self.out_features:
            raise ValueError(f"its {num} outputs are more than {self.out_features}.")
        found: dict[str, Any] = {name: torch.zeros_like(value) for name, value in self.state_dict().items()}
        for name, value in state.items():
            found[name][:num] = value
        return found


def test_network_can_adapt_weights_of_other_shapes() -> None:
    small, wide, z = nn.Linear(2, 3), Wider(2, 5), torch.randn(4, 2)
    load_weights("first", "generator", wide, small.state_dict())
    assert torch.equal(wide(z), torch.cat([small(z), torch.zeros(4, 2)], 1))
    with pytest.raises(ValueError, match=r"^init_from=first: its 7 outputs are more than 5\.$"):
        load_weights("first", "generator", wide, nn.Linear(2, 7).state_dict())
    with pytest.raises(ValueError, match=r"its generator does not fit this one: weight is \(3, 9\) there, \(3, 2\)"):
        load_weights("first", "generator", nn.Linear(2, 3), nn.Linear(9, 3).state_dict())


def test_matching_weights_are_not_adapted() -> None:
    """So a run can be initialized from a run that has already been grown."""
    wide, other = Wider(2, 5), nn.Linear(2, 5)
    wide.adapted = lambda state: pytest.fail("it was adapted")  # type: ignore[method-assign]
    load_weights("first", "generator", wide, other.state_dict())
    assert same(state_of(wide), state_of(other))
