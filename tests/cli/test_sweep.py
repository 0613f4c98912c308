"""Sweeps: every job is checked, in Hydra's forms of a sweep, and with launchers that start other processes."""

import json
import os
from pathlib import Path

import pytest
from conftest import Command, Here
from helpers import result_of
from hydra.plugins.sweeper import Sweeper

from ganrun.cli import sweep
from ganrun.cli.overrides import one_value_sweep, parse, quote_path, unquote_path

SHORT = ["train.steps=2", "train.sample_every=0", "train.diagnose=false", "metric=none"]


def runs_in(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/result.json")}


@pytest.mark.slow
def test_settings_of_a_swept_choice_can_be_set(here: Here, tmp_path: Path) -> None:
    """Hydra composes a sweep once without its swept choices; data.num_modes and width are then no settings."""
    line = ["-m", "experiment=ring,ring_minimax", "data.num_modes=5", *SHORT, "run_dir=a"]
    code, out, err = here(*line)
    assert (code, err) == (0, "")
    assert "2 of 2 jobs" in out
    assert "num_modes: 5" in (tmp_path / "a" / "experiment=ring_minimax" / "config.yaml").read_text()
    digits = ["data=digits", "data.num_test=100", "arch.generator.width=2", "arch.discriminator.width=2"]
    code, out, err = here("-m", "arch=dcgan", "loss=wgan,hinge", *digits, *SHORT, "run_dir=b")
    assert (code, err) == (0, "")
    assert runs_in(tmp_path / "b") == {"loss=wgan", "loss=hinge"}


@pytest.mark.slow
@pytest.mark.parametrize("empty", ["run_dir=", "run_dir=null"])
def test_sweep_without_a_directory_has_a_new_one(empty: str, here: Here, tmp_path: Path) -> None:
    assert here("-m", "optimizer.betas=[0,0.9]", *SHORT, empty)[0] == 0
    assert runs_in(next((tmp_path / "outputs" / "sweeps").iterdir())) == {"job"}


@pytest.mark.slow
def test_settings_of_a_swept_choice_can_be_deleted(here: Here, tmp_path: Path) -> None:
    line = ["-m", "experiment=ring,ring_minimax", "~data.std", "+data.std=0.1", "~data.num_modes", *SHORT, "run_dir=s"]
    (tmp_path / "own.py").write_text(
        "from ganrun.data.toy import grid\ndef data(std, num, **_): return grid(2, 1, std, num)\n"
    )
    code, _, err = here(*line, "data._target_=own.data", "penalty=none")
    assert (code, err) == (0, "")
    for name in ("experiment=ring", "experiment=ring_minimax"):
        assert "num_modes" not in (tmp_path / "s" / name / "config.yaml").read_text()
        assert "~data.num_modes" in (tmp_path / "s" / name / "command.json").read_text()


LINES = [
    ["seed=0,1", "-m", "run_dir=s"],
    ["seed=0,1", "run_dir=s", "--multirun"],
    ["hydra.mode=MULTIRUN", "seed=0,1", "run_dir=s"],
    ["train", "-m", "seed=0,1", "run_dir=s"],
    ["-m", "train", "seed=0,1", "hydra.sweep.dir=s"],
]


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_hydras_forms_of_a_sweep(line: list[str], here: Here, tmp_path: Path) -> None:
    code, out, err = here(*line, *SHORT)
    assert (code, err) == (0, "")
    assert "sweep: 2 of 2 jobs succeeded" in out
    assert runs_in(tmp_path / "s") == {"seed=0", "seed=1"}


@pytest.mark.slow
def test_sweep_that_an_experiment_describes(here: Here, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "losses.yaml").write_text(
        "# @package _global_\n# A sweep.\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      loss: wgan,hinge\n      seed: range(2)\n"
    )
    code, out, err = here("experiment=losses", "run_dir=a", *SHORT)
    assert (code, err) == (0, "")
    assert "4 of 4" in out
    assert runs_in(tmp_path / "a") == {f"loss={loss}_seed={seed}" for loss in ("wgan", "hinge") for seed in (0, 1)}
    assert "hydra.mode=RUN" in json.loads((tmp_path / "a" / "loss=wgan_seed=1" / "command.json").read_text())
    assert here("-m", "experiment=losses", "seed=5", "run_dir=b", *SHORT)[0] == 0
    assert runs_in(tmp_path / "b") == {"loss=wgan", "loss=hinge"}


@pytest.mark.slow
def test_sweep_over_paths_with_equals_signs_leaves_only_its_results(here: Here, tmp_path: Path) -> None:
    assert here("-m", "data.root=a=b,c=d", *SHORT, "run_dir=s")[0] == 0
    names = {"data.root=a=b", "data.root=c=d"}
    assert runs_in(tmp_path / "s") == names
    code, out, err = here("-m", "sample", f"run_dir={','.join(f's/{name}' for name in sorted(names))}", "num=2")
    assert (code, err) == (0, "")
    assert "job 1: run_dir=s/data.root=c=d" in out
    assert all(list((tmp_path / "s" / name / "samples").glob("*.npz")) for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]  # and no folder multirun/


def test_paths_of_a_sweep_are_quoted_one_by_one() -> None:
    paths = {"run_dir"}
    assert quote_path("run_dir=a b\\,c", paths, sweep=True) == r"run_dir='a b\\','c'"
    for literal in ("run_dir=choice(a,b)", "run_dir='a,b'", "run_dir=[a,b]", "run_dir=${x},b"):
        assert quote_path(literal, paths, sweep=True) == literal
    for path in ("a\\", "it's", "a\\'b", "\\\\"):
        quoted = quote_path(f"run_dir={path}", paths, sweep=False)
        assert parse([quoted])[0].value() == path
        assert unquote_path(quoted, paths) == f"run_dir={path}"


def test_single_settings_become_sweeps_over_one_value() -> None:
    swept = {"a.b=3": "a.b=choice(3)", "+a.b=[1,2]": "+a.b=choice([1,2])", "a=": "a=choice('')"}
    kept = ["a=1,2", "loss=wgan", "hydra.verbose=true", "~a.b", "seed=range(3)"]
    for line, expected in {**swept, **{line: line for line in kept}}.items():
        assert one_value_sweep(parse([line])[0], {"loss"}) == expected


def test_long_check_prints_its_progress_and_hydra_composes_each_job_before_it_starts(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    monkeypatch.setattr(sweep, "FEW", 2)
    monkeypatch.setattr(sweep, "EVERY", 2)
    monkeypatch.setattr(Sweeper, "validate_batch_is_legal", lambda self, batch: batches.append(len(batch)))
    code, out, _ = here("sample", "-m", "run_dir=nowhere", "seed=range(3)")
    assert code == 2
    assert out.startswith("sweep: checking the settings of 3 jobs\nsweep: checked 2 of 3 jobs\njob 0: seed=0\n")
    assert batches == [1, 1, 1]


LAUNCHER = '''
"""A launcher that runs every job in a new process, as joblib and submitit do."""
import multiprocessing
import os
from dataclasses import dataclass
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore

@dataclass
class Conf:
    _target_: str = "hydra_plugins.other.OtherLauncher"

ConfigStore.instance().store(group="hydra/launcher", name="other", node=Conf, provider="other")

class OtherLauncher(BasicLauncher):
    def launch(self, job_overrides, initial_job_idx):
        import ganrun.training.train  # once, for all
        found = []
        for number, overrides in enumerate(job_overrides):
            pipe, end = multiprocessing.Pipe()
            if not (child := os.fork()):
                end.send(super().launch([overrides], number)[0])
                os._exit(0)
            end.close()
            os.waitpid(child, 0)
            found.append(pipe.recv())
        return found
'''


@pytest.mark.slow
def test_failures_in_other_processes_are_reported(command: Command, tmp_path: Path) -> None:
    (tmp_path / "plugins" / "hydra_plugins").mkdir(parents=True)
    (tmp_path / "plugins" / "hydra_plugins" / "other.py").write_text(LAUNCHER)
    path = os.pathsep.join([str(tmp_path / "plugins"), os.environ.get("PYTHONPATH", "")])
    line = ["-m", "hydra/launcher=other", "optimizer=sgd", "train.log_every=1", *SHORT]
    done = command(*line, "optimizer.lr=0.1,1e38", "run_dir=a", PYTHONPATH=path)
    assert done.returncode == 3, done.stderr
    assert "sweep: 1 of 2 jobs succeeded" in done.stdout
    assert "\n  optimizer.lr=1e+38  diverged  step 1: loss/g is nan.  a/optimizer.lr=1e+38/train.log\n" in done.stderr
    assert result_of(tmp_path / "a" / "optimizer.lr=0.1")["status"] == "finished"
    assert "finished: 2 steps" in (tmp_path / "a" / "optimizer.lr=0.1" / "train.log").read_text()
    done = command("sample", "-m", "hydra/launcher=other", "run_dir=a/optimizer.lr=0.1,nowhere", PYTHONPATH=path)
    assert done.returncode == 2, done.stderr
    assert "run_dir=nowhere: no run there" in done.stderr
    assert "Traceback" not in done.stderr
