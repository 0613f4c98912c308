"""A run directory, or a working directory, that comes from someone else runs no code, and writes nowhere else."""

import json
import logging
import os
import pickle
import py_compile
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
import yaml
from conftest import Command, Here
from helpers import REPO, train_in, write_cifar10, write_olivetti
from PIL import Image

import ganrun
from ganrun import trusted
from ganrun.console import logging_to_console, visible
from ganrun.data.decode import CANNOT_BE_READ, Decoding, decode
from ganrun.data.olivetti import olivetti
from ganrun.data.published import cifar10
from ganrun.diagnosis.remedy import command
from ganrun.records.checkpoint import write_atomically
from ganrun.records.run_dir import RunDir
from ganrun.training.instantiate import create, find_target
from ganrun.trusted import trusting

EVIL = "import os\nos.mkdir('marker')\ndef f(**_):\n    pass\n"
VERBS = [
    ["sample"], ["evaluate", "metric=modes"], ["diagnose"], ["resume"], ["figures", "animation=false"],
    ["score", "input=points.csv"], ["export", "format=safetensors"],
]  # fmt: skip
POINTS = "a,b\n1,2\n3,4\n"
LINE = ["data=ring", "data.num=300", "metric=none", "train.steps=2", "train.batch_size=8", "train.sample_every=1"]


class Payload:
    def __reduce__(self) -> Any:
        return os.mkdir, ("marker",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_in(folder, [*LINE, "train.diagnose=false", "run_dir=r"])
    return folder / "r"


@pytest.fixture
def received(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the run as ./received/r, with code and a pickle in it and next to it."""
    run = tmp_path / "received" / "r"
    shutil.copytree(trained, run)
    for folder in (run, run.parent):
        (folder / "evil.py").write_text(EVIL)
    (tmp_path / "mine.py").write_text("import torch\nfrom torch import load\nfrom pathlib import Path\n")
    (tmp_path / "points.csv").write_text(POINTS)
    torch.save(Payload(), run / "checkpoints" / "x.pt")
    (run / "result.json").unlink()  # or resume would have nothing to do
    yield run
    imported = ("received", "mine", "own", "own_a", "own_b", "evil")
    for name in [name for name in sys.modules if name.partition(".")[0] in imported]:
        del sys.modules[name]


def change(run: Path, **sections: Any) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | sections))


PICKLE = {"f": "received/r/checkpoints/x.pt", "weights_only": False}
ATTACKS = [
    {"_target_": "torch.load", **PICKLE},
    {"_target_": "ganrun.latent.torch.load", **PICKLE},  # through a module that another one imports
    {"_target_": "mine.torch.load", **PICKLE},
    {"_target_": "mine.load", **PICKLE},
    {"_target_": "mine.Path.touch", "self": "marker"},
    {"_target_": "torch.serialization.load", **PICKLE},
    {"_target_": "received.r.evil.f"},
    {"_target_": "received.evil.f"},
    {"_target_": "os.system", "command": "touch marker"},
    {"_target_": "torch.nn.Sequential", "_args_": [[{"a": {"_target_": "torch.load", **PICKLE}}]]},
    {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "received.r.evil.f", "_partial_": True}]},
    {"_target_": "ganrun.cli.main.main", "arguments": ["run_dir=marker"]},
    {"_target_": "ganrun.data.folder._decode_all"},
    {"_target_": "ganrun.files.os.mkdir", "path": "marker"},
    {"_target_": "ganrun.penalty.base.nn.modules.module.torch.load", **PICKLE},
    {"_target_": "torch.nn.modules.module.torch.load", **PICKLE},
    {"_target_": "torch.nn.Module.load_state_dict", "self": None},
    {"_target_": "torch.jit.load", "f": "received/r/checkpoints/x.pt"},
    {"_target_": "torch.ops.load_library", "path": "received/r/evil.so"},
    {"_target_": "torch.classes.load_library", "path": "received/r/evil.so"},
    {"_target_": "torch.hub.load", "repo_or_dir": "received/r", "model": "f", "source": "local"},
    {"_target_": "torch.utils.cpp_extension.load", "name": "evil", "sources": []},
    {"_target_": "hydra.utils.get_method", "path": "os.mkdir"},
    {"_target_": "hydra.utils.instantiate", "config": {"target": "os.mkdir"}},
    {"_target_": "functools.partial", "_args_": [{"_target_": "builtins.open", "_partial_": True}, "marker", "w"]},
]


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_no_verb_executes_code_of_a_received_run(verb: list[str], received: Path, here: Here) -> None:
    attack = {"_target_": "received.r.evil.f"}
    arch = {"generator": attack, "discriminator": attack}
    change(received, data=attack, latent=attack, loss=attack, arch=arch, optimizer=attack, metric={"own": attack})
    code, _, err = here(*verb, "run_dir=received/r")
    assert code == (0 if verb[0] == "figures" else 2)  # figures does without what it cannot make
    assert not Path("marker").exists()
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_config_executes_no_code(attack: Any, received: Path) -> None:
    change(received, latent=attack)
    with pytest.raises(ValueError, match=r"^latent.*; if you trust that code, add trust=\["):
        ganrun.load(received).sample(1)
    assert not Path("marker").exists()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["torch.load", "received.r.evil.f", "received.evil.f", "json.loads", "mine.load"])
def test_refusal_names_the_module_to_trust(target: str, received: Path, here: Here) -> None:
    change(received, latent={"_target_": target})
    _, _, err = here("sample", "run_dir=received/r")
    module = "torch.serialization" if target == "mine.load" else target.rpartition(".")[0]
    assert err == (
        f"latent._target_={target}: is neither a component of ganrun or torch, nor in a module of the working "
        f"directory outside run directories; if you trust that code, add trust=[{module}].\n"
    )
    _, _, err = here("sample", "run_dir=received/r", f"trust=[{module}]")
    assert "trust" not in err


def test_run_in_the_working_directory_executes_no_code_of_it(
    received: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(received, latent={"_target_": "evil.f"})
    monkeypatch.chdir(received)
    code, _, err = here("sample", "run_dir=.")
    assert (code, Path("marker").exists()) == (2, False)
    assert "add trust=[evil]" in err


@pytest.mark.slow
def test_trusted_modules_are_used_by_each_verb(received: Path, here: Here) -> None:
    (received / "own.py").write_text("from ganrun.latent import Normal\nclass Latent(Normal):\n    pass\n")
    change(received, latent={"_target_": "received.r.own.Latent"})
    assert here("sample", "run_dir=received/r")[0] == 2
    for line in (["sample"], ["evaluate", "metric=modes"], ["diagnose"]):
        code, _, err = here(*line, "run_dir=received/r", "trust=[received.r.own]")
        assert (code, err) == (0, "")
    assert here("sample", "run_dir=received/r")[0] == 2  # trust lasts for one command


@pytest.mark.slow
def test_printed_commands_trust_the_modules_that_were_typed(here: Here) -> None:
    code, out, err = here(*LINE, "loss=hinge", "train.diagnose=false", "trust=[ganrun.loss,own]", "run_dir=r")
    assert (code, err) == (0, "")
    assert "ganrun sample run_dir=r 'trust=[ganrun.loss,own]' num=64" in out


def test_python_trusts_modules_until_its_end(received: Path) -> None:
    (received / "own.py").write_text("from ganrun.latent import Normal\nclass Latent(Normal):\n    pass\n")
    change(received, latent={"_target_": "received.r.own.Latent"})
    with trusting([]):
        with pytest.raises(ValueError, match=r"trust=\[received\.r\.own\]"):
            ganrun.load(received).sample(1)
        ganrun.trust("received.r.own")
        assert ganrun.load(received).sample(1).shape == (1, 2)
    with pytest.raises(ValueError, match=r"in Python, call ganrun\.trust\(MODULE\)"):
        ganrun.compose("trust=[os]")


def test_config_files_cannot_trust_modules(here: Here, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ntrust: [os]\nloss: {_target_: os.system}\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    code, _, err = here("experiment=mine", "train.steps=2")
    assert code == 2
    assert "trust=['os']: must be typed on the command line" in err


def test_stored_trust_is_ignored(received: Path, here: Here) -> None:
    change(received, latent={"_target_": "received.r.evil.f"}, trust=["received"])
    for verb in (["sample"], ["resume"]):
        assert here(*verb, "run_dir=received/r")[0] == 2
    assert not Path("marker").exists()


def test_stored_interpolations_are_not_resolved(received: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "the secret")
    change(received, data={"_target_": "ganrun.data.folder.folder", "root": "${oc.env:SECRET}"})
    code, out, err = here("diagnose", "run_dir=received/r")
    assert code == 2
    assert "data.root=${oc.env:SECRET}: no such folder" in err
    assert "the secret" not in out + err
    assert create("x", {"a": ["${oc.env:SECRET}"], "_recursive_": False}) == {"a": ["${oc.env:SECRET}"]}


def test_nodes_are_made_as_by_hydra() -> None:
    linear = {"_target_": "torch.nn.Linear", "_args_": [2, 3], "bias": False}
    assert create("x", [linear])[0].weight.shape == (3, 2)
    assert create("x", {**linear, "_partial_": True})().weight.shape == (3, 2)
    assert create("x", {"a": {"b": linear}})["a"]["b"].bias is None
    with pytest.raises(ValueError, match=r"^x\.a\._target_=5: must be the name of a class or function\."):
        create("x", {"a": {"_target_": 5}})


@pytest.mark.parametrize("target", ["torch.nn.Identity", "torch.optim.AdamW", "ganrun.loss.Hinge", "mine.Mine"])
def test_components_modules_and_optimizers_need_no_trust(target: str, received: Path) -> None:
    Path("mine.py").write_text("class Mine:\n    pass\n")
    assert find_target("x", target).__name__ == target.rpartition(".")[2]


def test_module_of_the_working_directory_does_not_hide_an_installed_one(received: Path) -> None:
    Path("json.py").write_text(EVIL)
    with pytest.raises(ValueError, match=r"add trust=\[json\]"):
        find_target("x", "json.loads")


def test_modules_of_the_working_directory_import_each_other(received: Path) -> None:
    Path("own").mkdir()
    Path("own/__init__.py").write_text("")
    Path("own/parts.py").write_text("import mine\nclass Part:\n    def other(self):\n        import evil\n")
    Path("evil.py").write_text(EVIL)
    part = find_target("x", "own.parts.Part")()
    assert not Path("marker").exists()
    part.other()
    assert Path("marker").exists()
    with pytest.raises(ModuleNotFoundError):
        import own_sibling  # noqa: F401


def test_code_of_a_run_is_not_taken_for_a_module_of_its_name(received: Path) -> None:
    """Python prefers the folder ./mine to ./mine.py, and takes code from files of several types."""
    (received / "checkpoints" / "x.pt").unlink()
    shutil.move(received, "mine")
    py_compile.compile(str(Path("received/evil.py")), "mine/__init__.pyc")
    change(Path("mine"), latent={"_target_": "mine.f"})
    with pytest.raises(ValueError, match=r"add trust=\[mine\]"):
        ganrun.load("mine").sample(1)
    assert not Path("marker").exists()


@pytest.mark.parametrize("name", ["own_a", "own_b.part"])
def test_modules_of_the_working_directory_do_not_import_those_of_a_run(name: str, received: Path) -> None:
    """For example in `try: import wandb`, with a run directory ./wandb."""
    top, _, part = name.partition(".")
    shutil.move(received, top)
    Path(top, f"{part or '__init__'}.py").write_text(EVIL)
    Path("mine.py").write_text(f"class Mine:\n    def other(self):\n        import {name}\n")
    trusted.add_run(Path(top))
    with pytest.raises(ModuleNotFoundError):
        find_target("x", "mine.Mine")().other()
    assert not Path("marker").exists()


@pytest.mark.parametrize(
    "target", ["ganrun.cli.main.main", "ganrun.files.create", "ganrun.console.LogFile", "torch.load"]
)
def test_clone_of_the_program_is_not_a_module_of_the_user(
    target: str, received: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    with pytest.raises(ValueError, match="trust="):
        find_target("x", target)


def test_script_of_the_user_is_trusted_and_a_program_started_by_python_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    exec("def f(): pass", vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert find_target("x", "__main__.f") is main.f
    main.__spec__ = ModuleSpec("ganrun.__main__", None)
    with pytest.raises(ValueError, match=r"add trust=\[__main__\]"):
        find_target("x", "__main__.f")


def test_trusted_module_gives_no_others(received: Path) -> None:
    with trusting(["mine"]):
        assert find_target("x", "mine.load") is torch.load  # which the module chose to have
        with pytest.raises(ValueError, match=r"add trust=\[torch\]"):
            find_target("x", "mine.torch.load")


@pytest.mark.slow
def test_files_in_the_working_directory_are_not_imported(command: Command, tmp_path: Path) -> None:
    """Neither optional dependencies of the libraries nor installed modules, by any verb."""
    for name in (
        "dill", "google", "triton", "tensorflow", "pandas", "torchvision", "numpy", "torch", "hydra", "sklearn",
        "scipy", "onnx", "onnxruntime", "onnxscript", "safetensors", "pyarrow",
    ):  # fmt: skip
        (tmp_path / f"{name}.py").write_text(f"open('marker-{name}', 'w').close()\n")
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "evil.py").write_text("open('marker-plugin', 'w').close()\n")
    (tmp_path / "mine.py").write_text("from ganrun.loss import Hinge\n")
    (tmp_path / "points.csv").write_text(POINTS)
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "mine.yaml").write_text("_target_: mine.Hinge\n")
    lines = [[*LINE, "loss=mine", "run_dir=r"], *([*verb, "run_dir=r"] for verb in VERBS), ["-m", *LINE, "seed=1"]]
    code = f"from ganrun.cli.main import main\nfor line in {lines}: assert main(line) == 0, line"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert command("--help").returncode == command("loss=").returncode - 2 == 0
    assert not list(tmp_path.glob("marker*"))


@pytest.mark.slow
def test_settings_of_matplotlib_in_the_working_directory_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("figure.facecolor: red\n")
    code = "from ganrun.figures.mpl import matplotlib\nassert matplotlib.rcParams['figure.facecolor'] == 'white'"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_data_that_are_pickles_execute_no_code(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    write_olivetti(tmp_path)
    assert cifar10(str(tmp_path), verify=False, num_valid=5).train.x.shape == (95, 3, 32, 32)
    objects = np.array([Payload()] * 4, dtype=object)
    for payload in (Payload(), objects):
        (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps({"data": payload}))
        joblib.dump(payload, tmp_path / "olivetti" / "olivetti_py3.pkz", compress=1)
        with pytest.raises(ValueError, match=r"cannot be read \(it holds a \w+\.mkdir, not only arrays\)"):
            cifar10(str(tmp_path), verify=False)
        with pytest.raises(ValueError, match=r"cannot be read \(it holds a \w+\.mkdir, not only arrays\)"):
            olivetti(str(tmp_path), verify=False)
    assert not Path("marker").exists()


def test_image_that_is_eps_under_another_name_is_not_read(tmp_path: Path) -> None:
    """Pillow runs Ghostscript to read it."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format="EPS")
    assert decode(tmp_path / "a.png", Decoding(8, "center", 3)) == CANNOT_BE_READ


# Links


@pytest.mark.slow
@pytest.mark.parametrize("name", [".lock", "train.log", "metrics.jsonl", "result.json", "samples/step_00000002.png"])
@pytest.mark.parametrize("verb", [VERBS[0], VERBS[3]], ids=lambda verb: verb[0])
def test_files_that_are_links_are_not_written(verb: list[str], name: str, received: Path, here: Here) -> None:
    Path("victim").write_text("precious")
    (received / name).unlink(missing_ok=True)
    (received / name).symlink_to(Path("victim").absolute())
    code, _, err = here(*verb, "run_dir=received/r")
    assert Path("victim").read_text() == "precious"
    assert code == 2
    assert f"received/r/{name}: is a link to" in err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoints", "samples", "figures", "frames"])
def test_folders_that_are_links_are_not_written(name: str, received: Path, here: Here) -> None:
    (received / name).rename("elsewhere") if (received / name).exists() else Path("elsewhere").mkdir()
    Path("elsewhere/x.partial").write_text("precious")
    before = sorted(Path("elsewhere").iterdir())
    (received / name).symlink_to(Path("elsewhere").absolute())
    for verb in VERBS:
        here(*verb, "run_dir=received/r")
        assert sorted(Path("elsewhere").iterdir()) == before


@pytest.mark.slow
def test_run_directory_and_links_within_it_may_be_links(received: Path, here: Here) -> None:
    Path("latest").symlink_to("received/r")
    (received / "checkpoints" / "latest.pt").symlink_to("step_00000002.pt")
    for verb in (VERBS[0], VERBS[3]):
        code, _, err = here(*verb, "run_dir=latest")
        assert (code, err) == (0, "")


def test_temporary_files_are_new_and_have_other_names_each_time(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        write_atomically(tmp_path / "a", lambda path: (names.append(path.name), path.write_text("x")))
    assert len({"a.partial", *names}) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_temporary_files_of_killed_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "video.partial").write_text("precious")
    with RunDir(tmp_path):
        pass
    assert (tmp_path / "video.partial").exists()  # it is not a run
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.yaml.partial", "a.1234.partial", "checkpoints/b.1234.partial"):
        (tmp_path / name).write_text("half")
    with RunDir(tmp_path):
        assert not list(tmp_path.rglob("*.1234.partial"))


def test_names_of_classes_and_metrics_do_not_lead_out_of_the_run(received: Path, here: Here, tmp_path: Path) -> None:
    from ganrun.commands.sample import folder_name

    assert not any(
        "/" in folder_name(name) or folder_name(name) in ("..", ".", "") for name in ("../a", "..", ".", "/")
    )
    change(received, metric={"../../x": {"_target_": "ganrun.metric.modes.Modes"}})
    code, _, err = here("evaluate", "run_dir=received/r")
    assert (code, err) == (2, "metric.../../x: must be a name without slashes.\n")


# Control characters


@pytest.mark.slow
def test_control_characters_are_visible_in_all_messages(received: Path, here: Here, tmp_path: Path) -> None:
    characters = "\x1b\r\x08\x07\x9b\u202e\x7f"
    text = f"a{characters}[2Jb"
    change(received, latent={"_target_": text})
    (received / "command.json").write_text(json.dumps([f"data={text}"]))
    (received / "frames").mkdir(exist_ok=True)
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / f"{text}.yaml").write_text("")
    (tmp_path / "mine.py").write_text(f"class Loss:\n    def __init__(self):\n        raise KeyError({text!r})\n")
    for line in (["sample", "run_dir=received/r"], ["--help"], [f"run_dir={text}", "train.steps=no"],
                 ["loss._target_=mine.Loss"], [f"los={text}"], [text]):  # fmt: skip
        _, out, err = here(*line)
        assert not set(characters) & set(out + err), line
    assert visible(text) in here("sample", "run_dir=received/r")[2]


def test_message_is_one_line(received: Path, here: Here) -> None:
    change(received, latent={"_target_": "a\nfinished: 2 steps"}, metric={"b\nfinished": {"_target_": "x"}})
    (received / "command.json").write_text(json.dumps(["loss=c\nfinished"]))
    with logging_to_console():
        logging.getLogger("ganrun").warning("%s", "d\nfinished")
    for line in (["sample"], ["evaluate"], ["resume"]):
        _, out, err = here(*line, "run_dir=received/r")
        assert "\nfinished" not in out + err
    assert "\n" not in command(["loss=c\nfinished"], {})


def test_control_characters_are_visible_in_the_log_file(tmp_path: Path) -> None:
    from ganrun.console import logging_to_console, logging_to_file

    with logging_to_console(), logging_to_file(tmp_path / "log"):
        logging.getLogger("ganrun").debug("a\x1b[2J\tb")
    assert "a\\x1b[2J\tb" in (tmp_path / "log").read_text()


def test_payload_of_these_tests_works() -> None:
    pickle.loads(pickle.dumps(Payload()))
    assert Path("marker").exists()
