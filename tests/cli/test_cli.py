"""The command line: help, user errors, sweeps, paths, and user-defined options."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Command, Here
from helpers import result_of

import ganrun
from ganrun.cli.compose import verbs
from ganrun.cli.launch import without_sweep
from ganrun.cli.overrides import parse, single_choices
from ganrun.cli.settings import path_keys
from ganrun.cli.validate import validate
from ganrun.config import CONF

SLIPS = [
    ("trian.steps=3", "trian.steps=3: no such setting; did you mean train.steps?"),
    ("train.stepz=3", "train.stepz=3: no such setting; did you mean train.steps?"),
    ("+trian.steps=3", "trian.steps=3: no such setting; did you mean train.steps?"),
    ("+train.stepz=3", "train.stepz=3: no such setting; did you mean train.steps?"),
    ("+data.meen=3", "data.meen=3: no such setting; did you mean data.mean?"),
    ("optimizer.lrr=3", "optimizer.lrr=3: no such setting; did you mean optimizer.lr?"),
    ("lr=3", "lr=3: no such setting; did you mean optimizer.lr?"),
    ("d_optimizer.lr=3", "optimizer@d_optimizer=OPTION"),
    ("loss=wgam", "loss=wgam: no such option; did you mean wgan?"),
    ("experiment=rign", "experiment=rign: no such option; did you mean ring? experiment is one of biggan/"),
    ("+experiment.steps=3", "experiment: has no settings of its own"),
    ("experiment=ring train.stepz=3", "train.stepz=3: no such setting; did you mean train.steps?"),
    ("los=wgan", "los=wgan: no such setting; did you mean loss?"),
    ("train.steps=-1", "train.steps=-1: must be at least 1."),
    ("train.batch_size=abc", "train.batch_size=abc: must be a whole number."),
    ("train.batch_size=1.5", "train.batch_size=1.5: must be a whole number."),
    ("train.ema_rampup=0.1 train.ema=0", "train.ema_rampup=0.1: has no effect without train.ema"),
    ("train.ema=1", "train.ema=1: must lie in [0, 1)"),
    ("train.update=both", "train.update=both: must be one of alternating, simultaneous."),
    ("train.device=gpu9", "train.device=gpu9: not available here"),
    ("train=3", "train=3: is a group of settings"),
    ("seed=abc", "seed=abc: must be a whole number."),
    ("seed=-1", "seed=-1: must be at least 0."),
    ("optimizer.lr=abc", "optimizer.lr=abc: must be a number."),
    ("data.std=0", "data.std=0: must be greater than 0."),
    ("train.steps=[1,", "cannot be parsed"),
    ("train.steps=null", "train.steps=null: must be a whole number."),
    ("arch.z_dim=abc", "arch.z_dim=abc: must be a whole number"),
    ("data.root=null", "data.root=null: must be a string."),
    ("optimizer.lr=null", "optimizer.lr=null: must be a number."),
    ("optimizer.betas=[0.5]", "optimizer.betas=[0.5]: must be 2 values"),
    ("schedule=step schedule.every=0", "schedule.every=0: must be at least 1."),
    ("data=digits arch.generator.width=0", "arch.generator.width=0: must be at least 1."),
    ("data=digits metric=distribution", "metric=distribution: needs one-dimensional data"),
    ("arch=heights train.batch_size=1", "train.batch_size=1: is too small for this arch's batch norm"),
    ("loss._target_=torch.nn.Identity", "loss: its d_loss(real_logits, fake_logits) does not work"),
    ("+arch.foo=3", "arch.foo=3: no such setting"),
    ("~loss", "loss: was removed"),
    ("run_dir=/proc/x", "No such file or directory"),
    ("-m seed=range(0)", "sweeps over no values"),
    ("smaple", "smaple: no such command; did you mean sample?"),
    ("loss wgan", "loss: is a group of options; choose one, as in loss=wgan."),
    ("arch=dcgan", "use arch=mlp"),
    ("data=cifar10 data.download=false", "no CIFAR-10 there"),
    ("data=fer2013", "data.root=data: no FER2013 there"),
    ("data=fer2013 data.fold=5", "data.fold=5: must be 0, 1, 2, 3 or 4."),
    ("data=olivetti data.download=false", "data.root=data: no Olivetti faces there"),
    ("data=olivetti data.held_out=person", "data.held_out=person: must be one of people, images."),
    ("data=tfd", "data.root=data: no TFD there"),
    ("data=tfd data.train=all", "data.train=all: must be one of unlabeled, labeled."),
    ("data=faces", "data.root=data: no such folder"),
    ("train.keep_best=ks_100k train.metric_every=0", "metrics are computed only at the end; set how often"),
    ("train.keep_best=ks_100k metric=none", "train.keep_best=ks_100k: this run has no metric; choose one"),
    (
        "train.keep_best=mean_100k",
        "it does not declare whether higher or lower values are better; choose one of ks_100k, w1_100k, ",
    ),
    (
        "train.keep_best=ks_10k",
        "train.keep_best=ks_10k: this run's metrics declare no such key; choose one of ks_100k, ",
    ),
    ("train.patience=3", "train.patience=3: has no effect without train.keep_best; add a metric's key"),
    ("train.patience=-1", "train.patience=-1: must be at least 0."),
    ("train.n_critic=2 train.update=simultaneous", "train.update=simultaneous: makes one update of each player"),
    ("init=3", "init=3: is a group of settings, as in init.nets=generator."),
    ("init_from=nowhere", "init_from=nowhere: no run there (it has no config.yaml)."),
    ("init.nets=generator", "init.nets=generator: has no effect without init_from; add init_from=RUN_DIR."),
    ("init.same_data=true", "init.same_data=true: has no effect without init_from"),
    ("init.checkpoint=7 init.nets=G", "init.nets=G: must be one of both, generator, discriminator."),
    ("experiment=heights metric=none +metric.parzen.num_valid=3", "metric.parzen: has no _target_"),
    ("init_from=nowhere init.nets=G", "init.nets=G: must be one of both, generator, discriminator."),
    ("sample", "run_dir: must be given"),
    ("sample runn_dir=3", "runn_dir=3: no such setting; did you mean run_dir?"),
    ("sample run_dir=nowhere", "run_dir=nowhere: no run there"),
    ("resume run_dir=nowhere", "run_dir=nowhere: no run there"),
    ("evaluate", "run_dir: must be given, as in `ganrun evaluate run_dir=...`."),
    ("evaluate metric=modis", "metric=modis: no such option; did you mean modes?"),
    ("-m loss=wgan,wgam", "loss=wgam: no such option; did you mean wgan?"),
    ("-m train.steps=3,-1", "train.steps=-1: must be at least 1."),
    ("-m +trian.steps=3,4", "trian.steps=3: no such setting"),
    ("-m loss=wgan_gp,wgan optimizer.betas=[0,0.9]", "optimizer.betas=[0,0.9]: no such setting"),
    ("-m loss=wgan_gp,wgan optimizer.betas=[0,0.9]", "This is the job loss=wgan."),
    (
        "-m train.ema=0 train.ema_rampup=0,0.1 seed=1,2",
        "0.1: has no effect without train.ema; add train.ema=0.999. This is the job",
    ),
    ("-m optimizer.lr=interval(0,1)", "optimizer.lr=interval(0,1): Hydra's own sweeper needs a list of values"),
    ("-m seed=1,2 hydra.sweep.subdir=x", "hydra.sweep.subdir=x: has no effect; the directory of each job is named"),
    (
        "-m seed=1,2 hydra/launcher=rq",
        "hydra/launcher=rq: no such option; it is a plugin: `pip install hydra-rq-launch",
    ),
    ("launch=local", "launch=local: is a setting of a sweep, and has no effect without -m."),
    ("-m seed=1,2 launch=local,serial", "launch=local,serial: is a setting of the whole sweep; choose one."),
    ("-m seed=1,2 launch=local launch.jobs=0", "launch.jobs=0: must be a whole number, at least 1."),
    ("-m seed=1,2 launch=local launch.job=2", "launch.job=2: no such setting"),
    ("-m seed=1,2 retry=[finished]", "retry=['finished']: must be a list, each one of failed, diverged."),
    ("-m sweep_file=gone.yaml", "sweep_file=gone.yaml: cannot be read (No such file or directory)."),
    ("status", "dirs: must be given, as in `ganrun status DIR`."),
    ("status nowhere", "nowhere: no sweep and no run there."),
    ("-m seed=1,2 hydra/launcher=basik", "hydra/launcher=basik: no such option; did you mean basic?"),
    ("-m seed=1,2 hydra/sweeper=optuna", "`pip install hydra-optuna-sweeper`. hydra/sweeper is one of basic."),
    ("--loss wgan", "--loss: no such flag; settings are key=value; did you mean loss=wgan?"),
    ("-m --train.steps=3", "--train.steps=3: no such flag; settings are key=value; did you mean train.steps=3?"),
    ("--lr", "did you mean optimizer.lr=VALUE?"),
    ("--zzz 3", "--zzz: no such flag. `ganrun --hydra-help` lists them."),
    ("seed=1 --cfg", "--cfg/-c: expected one argument; `ganrun --hydra-help` lists the flags."),
    ("--cfg jobs", "--cfg/-c: invalid choice: 'jobs'"),
    ("-cn nosuch", "--config-name=nosuch: no such config."),
    ("seed=1 sample", "sample: a command comes before its settings, as in `ganrun sample seed=1`."),
    ("sample hydra.run.dir=x run_dir=r", "hydra.run.dir=x: has no effect; this command writes into run_dir or out."),
    ("train.steps=1e3", "train.steps=1000.0: must be a whole number; write 1000."),
    ("seed=1.0", "seed=1.0: must be a whole number; write 1."),
    (
        "seed=0,1",
        "seed=0,1: is a sweep, which needs -m, as in `ganrun -m seed=0,1`. A list is in brackets, as in seed=[",
    ),
    ("evaluate run_dir=r metric=modes,parzen", "as in `ganrun evaluate -m metric=modes,parzen`. A list is in brackets"),
    ("seed=range(3)", "seed=range(3): is a sweep, which needs -m, as in `ganrun -m 'seed=range(3)'`.\n"),
    ("resume run_dir=r train.steps=1,2", "train.steps=1,2: must be one value, since resume continues a single run."),
    ("~optimizer.betaz", "~optimizer.betaz: no such setting; did you mean optimizer.betas?"),
    ("~optimizer.lr=3", "~optimizer.lr=3: its value is 0.002; '~optimizer.lr' removes any."),
    ("+loss=wgan", "+loss=wgan: has a default option, which is replaced without a plus, by loss=wgan."),
    ("loss=3", "loss=3: is not the name of an option; loss is one of feature_matching, "),
    ("-m loss=wgan,3", "loss=3: is not the name of an option; loss is one of feature_matching, "),
    (
        "metric=[modes,3]",
        "metric=[modes,3]: is not the name of an option; metric is one of anomaly_auroc, augmentation_gain, ",
    ),
    ("experiment=null", "experiment=null: is not the name of an option"),
    ("loss=[wgan,hinge]", "only one option can be chosen; a sweep is `ganrun -m loss=wgan,hinge`."),
    ("arch._target_=my.G", "arch._target_=my.G: no such setting"),
    (
        "+arch._target_=my.G",
        "arch._target_=my.G: has no effect; an architecture has two networks, arch.generator._target_",
    ),
    ("train.steps 3", "train.steps: has no value; settings are key=value, as in train.steps=3."),
    ("train.steps = 3", "=: has no key; settings are key=value, without spaces."),
    ("sample =3", "=3: has no key; settings are key=value, without spaces."),
    ("train help", "help: cannot be parsed; settings are key=value.\n"),
    (
        "data=digits metric=fidelity features.epochs=2",
        "features.epochs=2: no feature network is chosen; choose one, as in features=classifier features.epochs=2.",
    ),
    ("trust=[größe]", "trust=[größe]: cannot be parsed; settings are key=value, with other letters"),
    ("größe=3", "größe=3: cannot be parsed; settings are key=value, with ASCII letters in the key."),
    ("hydra.verbose=3", "hydra.verbose=3: must be true, false, or a list of loggers, as in [ganrun].\n"),
    ("hydra.mode=multirun", "hydra.mode=multirun: must be RUN or MULTIRUN."),
    ("hydra.nosuch=3", "hydra.nosuch=3: no such setting. `ganrun --cfg hydra` lists them all."),
    ("hydra=launcher/joblib", "hydra=launcher/joblib: has no effect; choose an option as in hydra/launcher=joblib."),
    (
        "-m hydra.launcher=joblib seed=1,2",
        "hydra.launcher=joblib: is a group of settings; choose hydra/launcher=joblib.",
    ),
    ("hydra.job.chdir=true", "hydra.job.chdir=true: has no effect; every job runs in the folder"),
    ("--experimental-rerun x.pickle", "--experimental-rerun: ganrun writes no pickles of jobs; `ganrun resume"),
    (
        "-m loss=wgan_gp,hinge ~penalty.gradient_penalty",
        "~penalty.gradient_penalty: no such setting. This is the job loss=h",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("line", "message"), SLIPS)
def test_user_error_is_one_sentence_and_leaves_no_files(line: str, message: str, here: Here, tmp_path: Path) -> None:
    code, out, err = here(*line.split())
    assert code == 2
    assert message in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not any(tmp_path.iterdir())


def test_traceback_flag_shows_where_a_user_error_was_found(here: Here) -> None:
    assert "Traceback" in here("train.steps=-1", "--traceback")[2]


def test_version(here: Here) -> None:
    assert here("--version")[1].startswith("ganrun ")


# ---- help


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["sample", "--help"], ["train.steps=-1"]])
def test_help_config_and_user_errors_do_not_import_torch(arguments: list[str]) -> None:
    code = f"import sys; from ganrun.cli.main import main; main({arguments}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_training_imports_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    """scikit-learn alone would add .8 s to the start of each run, and 60 MiB to its memory."""
    arguments = ["train.steps=1", "train.diagnose=false", f"run_dir={tmp_path}/r"]
    others = ["sklearn", "scipy", "pandas", "pyarrow", "onnx", "onnxscript", "safetensors", "optuna", "torch._dynamo"]
    code = f"import sys; from ganrun.cli.main import main; main({arguments}); print({{*sys.modules}} & {{*{others}}})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_help_lists_verbs_groups_and_options(here: Here) -> None:
    code, text, err = here("--help")
    assert (code, err) == (0, "")
    entries = re.findall(r"^  (\w+) +(.*(?:\n {14}.*)*)", text, re.MULTILINE)  # options can take several lines
    found = {name: words.replace(",", "").split() for name, words in entries}
    assert set(verbs()) <= found.keys()
    for path in CONF.glob("*/**/*.yaml"):
        group, *option = path.relative_to(CONF).with_suffix("").parts
        assert group == "hydra" or "/".join(option) in found[group]
    assert here("-h") == (code, text, err)


def lines_of(verb: str) -> Iterator[str]:
    """The lines of conf/VERB.yaml that help shows: settings and groups with their comments."""
    section = ""
    for line in (CONF / f"{verb}.yaml").read_text().splitlines():
        if not line.startswith((" ", "#")):
            section = line.partition(":")[0]
        if section in ("", "hydra") or line in ("defaults:", "  - hydra: shared", "  - train", "  - _self_"):
            continue
        yield line.replace("- ", "", 1) if section == "defaults" else line


@pytest.mark.parametrize("verb", verbs())
def test_verb_help_has_its_settings_and_groups_with_their_comments(verb: str, here: Here) -> None:
    code, text, err = here(verb, "--help")
    assert (code, err) == (0, "")
    found = [line.strip() for line in text.splitlines()]
    assert [line for line in lines_of(verb) if line.strip() not in found] == []
    settings = yaml.safe_load((CONF / f"{verb}.yaml").read_text())
    body = text.split("\n\n")[1]
    assert yaml.safe_load(body) == {key: value for key, value in settings.items() if key not in ("defaults", "hydra")}


def examples_in(text: str) -> list[list[str]]:
    """The command lines in a help text, split as by a shell."""
    lines = text.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("verb", verbs())
def test_verb_help_has_an_example_that_composes(verb: str, here: Here) -> None:
    examples = examples_in(here(verb, "--help")[1])
    assert examples
    for program, *arguments in examples:
        assert program == "ganrun"
        assert verb == "train" or arguments[0] == verb
        validate(verb, config_from(here, *arguments))


@pytest.mark.slow
def test_help_has_examples_that_compose(here: Here) -> None:
    examples = examples_in(here("--help")[1])
    assert ["ganrun"] in examples
    for program, *arguments in examples:
        assert program == "ganrun"
        for override in parse([argument for argument in arguments if argument != "-m"]):
            for choice in single_choices(override):
                validate("train", config_from(here, choice))


def config_from(here: Here, *arguments: str) -> dict[str, Any]:
    """What `ganrun ARGUMENTS --cfg job` prints."""
    code, out, err = here(*arguments, "--cfg", "job", "--resolve")
    assert (code, err) == (0, "")
    return yaml.safe_load(out)


# ---- user-defined options


@pytest.mark.slow
def test_user_defined_options_and_modules(command: Command, here: Here, tmp_path: Path) -> None:
    """README's two files, for each of data, arch and loss."""
    (tmp_path / "my_parts.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from ganrun.data.dataset import Dataset, DataSpec, Split\n"
        "class Loss:\n"
        "    def d_loss(self, real_logits, fake_logits):\n"
        "        return (real_logits - 1).square().mean() + fake_logits.square().mean()\n"
        "    def g_loss(self, fake_logits, real_logits=None):\n"
        "        return (fake_logits - 1).square().mean()\n"
        "class Generator(nn.Module):\n"
        "    def __init__(self, spec, z_dim, scale=1.0):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(z_dim, spec.numel)\n"
        "    def forward(self, z, y=None):\n"
        "        return self.layer(z)\n"
        "class Discriminator(nn.Module):\n"
        "    def __init__(self, spec):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(spec.numel, 1)\n"
        "    def forward(self, x, y=None):\n"
        "        return self.layer(x).squeeze(1)\n"
        "def plane(num):\n"
        "    x = torch.arange(2.0 * num).view(num, 2)\n"
        "    return Dataset(DataSpec((2,)), Split(x), Split(x[:0]), Split(x[:0]))\n"
    )
    options = {
        "loss/squares": "_target_: my_parts.Loss\n",
        "data/plane": "_target_: my_parts.plane\nnum: 40\n",
        "arch/line": "generator: {_target_: my_parts.Generator, scale: 2.0}\n"
        "discriminator: {_target_: my_parts.Discriminator}\n",
    }
    for name, text in options.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    done = command("loss=squares", "data=plane", "arch=line", "train.steps=4", "run_dir=r")
    assert done.returncode == 0, done.stderr
    assert "squares" in here("--help")[1]
    assert here("sample", "run_dir=r", "num=3")[0] == 0
    code, _, err = here("loss=squares", "data=plane", "arch=line", "arch.generator._target_=my_parts.Generater")
    assert code == 2
    assert "arch.generator._target_=my_parts.Generater: my_parts has no Generater; did you mean Generator?" in err


@pytest.mark.slow
def test_user_option_that_overrides_one_of_ganrun_is_reported_unless_identical(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "wgan.yaml").write_text("_target_: nowhere.Loss\n")
    (tmp_path / "conf" / "loss" / "hinge.yaml").write_bytes((CONF / "loss" / "hinge.yaml").read_bytes())
    done = command("loss=wgan", "--cfg", "job")
    assert "ganrun.loss.Wasserstein" in done.stdout
    assert "conf/loss/wgan.yaml: ganrun has an option of that name" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_compose_in_python_equals_the_command_line(here: Here, tmp_path: Path) -> None:
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "squares.yaml").write_text("_target_: my_parts.Loss\n")
    line = ["loss=squares", "data=digits", "train.steps=3", "run_dir=a b,c (1)"]
    assert ganrun.compose(*line) == without_sweep(config_from(here, *line))
    for wrong, message in (("train.stepz=3", "did you mean train.steps?"), ("train.steps=0", "must be at least 1.")):
        with pytest.raises(ValueError, match=message) as error:
            ganrun.compose(wrong)
        assert "\n" not in str(error.value)


FILES = [
    ("override loss: hinge", "groups in a defaults list begin with a slash, as in `override /loss: OPTION`."),
    ("override /los: hinge", "`override /los` in its defaults list: no such group; did you mean loss?"),
    (
        "override /loss: 3",
        "`{'override /loss': 3}` in its defaults list: must be a list of `- override /GROUP: OPTION`",
    ),
    ("{override /loss: hinge, override /data: ring}", "one choice per line."),
    ("3", "`3` in its defaults list"),
    ("/loss", "`loss` in its defaults list is no config; choose an option, as in `override /loss: hinge`."),
    ("nosuch", "experiment=nosuch: no such option."),
    ("override /loss: hinje", "loss=hinje: no such option; did you mean hinge?"),
    ("override /optimizer@g_optimizer: adamm", "optimizer=adamm: no such option; did you mean adam?"),
    ("override /metric: [modes, mode]", "metric=mode: no such option; did you mean modes?"),
    ("loss: hinge", "groups in a defaults list begin with a slash, as in `override /loss: hinge`."),
]


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "message"), FILES)
def test_wrong_defaults_list_is_reported_with_its_file(entry: str, message: str, here: Here, tmp_path: Path) -> None:
    write_conf(tmp_path, "experiment/mine", f"# @package _global_\n# Mine.\ndefaults:\n  - {entry}\n")
    write_conf(tmp_path, "experiment/another", "# @package _global_\n# Another.\ndefaults: hinge\n")
    code, _, err = here("experiment=mine")
    assert code == 2
    assert err.startswith("conf/experiment/mine.yaml: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_file_without_its_first_line_and_a_second_choice_are_reported(here: Here, tmp_path: Path) -> None:
    write_conf(tmp_path, "experiment/mine", "# Mine.\ndefaults:\n  - override /loss: hinge\n")
    assert "mine.yaml: has `override` in its defaults list, and must begin with `# @pack" in here("experiment=mine")[2]
    write_conf(tmp_path, "experiment/mine", "# @package _global_\n# Mine.\ndefaults:\n  - /loss: hinge\n")
    assert here("experiment=mine")[2].startswith(
        "loss: is chosen twice; a file that changes the choice needs `override"
    )


def test_yaml_that_cannot_be_read_is_reported_with_its_line(here: Here, tmp_path: Path) -> None:
    write_conf(tmp_path, "experiment/mine", "# @package _global_\n# Mine.\ntrain: {steps: 2}\ntrain: {steps: 3}\n")
    assert here("experiment=mine")[2].endswith("conf/experiment/mine.yaml, line 4: found duplicate key train.\n")


@pytest.mark.slow
def test_settings_of_hydra_in_a_file_act_as_in_hydra_or_are_refused(here: Here, tmp_path: Path) -> None:
    write_conf(tmp_path, "experiment/mine", "# @package _global_\n# Mine.\nhydra: {run: {dir: a/b}}\n")
    short = ["train.steps=2", "train.sample_every=0", "train.diagnose=false", "metric=none"]
    assert here("experiment=mine", *short)[0] == 0
    assert result_of(tmp_path / "a" / "b")["status"] == "finished"
    write_conf(tmp_path, "experiment/mine", "# @package _global_\n# Mine.\nhydra: {job: {chdir: true}}\n")
    assert here("experiment=mine", *short)[2].startswith("hydra.job.chdir=true: has no effect; every job runs")


def test_parameters_that_ganrun_fills_in_are_not_suggested(here: Here, tmp_path: Path) -> None:
    (tmp_path / "filled.py").write_text("def G(spec, z_dim, *args, width=2): pass\n")
    removed = ["~arch.generator.hidden", "~arch.generator.spectral_norm", "arch.generator._target_=filled.G"]
    code, _, err = here("data=ring", *removed)
    assert (code, err) == (2, "arch.generator.activation=relu: no such setting.\n")


def test_option_with_letters_outside_ascii(here: Here, tmp_path: Path) -> None:
    write_conf(tmp_path, "loss/größe", "_target_: ganrun.loss.Hinge\n")
    assert config_from(here, "loss=größe")["loss"] == {"_target_": "ganrun.loss.Hinge"}


def write_conf(folder: Path, name: str, text: str) -> None:
    path = folder / "conf" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# ---- Hydra's flags


def test_info(command: Command) -> None:
    done = command("--info", "defaults", "data=ring")
    assert (done.returncode, done.stderr) == (0, "")
    assert "data/ring" in done.stdout


def test_primary_config_of_the_user(here: Here, tmp_path: Path) -> None:
    write_conf(tmp_path, "mine", "defaults: [train, _self_]\ntrain: {steps: 7}\n")
    assert config_from(here, "-cn", "mine")["train"]["steps"] == 7
    write_conf(tmp_path, "bare", "train: {steps: 7}\n")
    code, _, err = here("-cn", "bare")
    assert code == 2
    assert "--config-name=bare: has no arch; begin it with `defaults: [train, _self_]`." in err


@pytest.mark.slow
def test_saved_config_in_a_relative_path_runs_again_and_in_a_sweep(here: Here, tmp_path: Path) -> None:
    short = ["train.steps=2", "train.sample_every=0", "train.diagnose=false", "metric=none"]
    assert here(*short, "run_dir=a")[0] == 0
    saved = ["--config-path", "a", "--config-name", "config"]
    assert here(*saved, "run_dir=b", "seed=3")[0] == 0
    assert result_of(tmp_path / "b")["seed"] == 3
    assert here(*saved, "-m", "seed=1,2", "run_dir=c")[0] == 0
    assert result_of(tmp_path / "c" / "seed=2")["steps"] == 2
    assert here(*saved, "-m", "seed=4,5", "train.steps=1")[0] == 0
    assert len(list((tmp_path / "outputs" / "sweeps").glob("*/seed=4"))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "outputs"}
    assert not (tmp_path / "b" / ".hydra").exists()


def test_hydras_name_for_the_run_directory(here: Here, tmp_path: Path) -> None:
    assert config_from(here, "hydra.run.dir=x")["run_dir"] == "x"


def test_composed_config_has_the_comments_of_its_settings(here: Here) -> None:
    line = ["data=digits", "penalty=[r1,lecam]", "optimizer@d_optimizer=adam", "--cfg", "job"]
    text = here(*line)[1]
    assert "  steps: 3000  # each has n_critic updates of D, then n_gen of G\n" in text
    assert "    gamma: 10  # the weight is gamma/2; 0: off\n" in text
    assert "  num_valid: 250  # images held out for validation\n" in text
    assert text.count("  lr: 0.0002  # learning rate\n") == 2
    assert "  - 0.999\n" in text
    assert yaml.safe_load(text)["penalty"]["r1"]["gamma"] == 10
    assert "#" not in here(*line, "-p", "penalty")[1].partition("\n")[2]


def test_evaluate_help_lists_metrics(here: Here) -> None:
    assert re.search(
        r"^  metric +anomaly_auroc, augmentation_gain, class_balance, distribution, divergence, ",
        here("evaluate", "--help")[1],
        re.MULTILINE,
    )
    assert here("--help", "evaluate") == here("evaluate", "--help")


def test_config_dir(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "slow.yaml").write_text("_target_: torch.optim.SGD\nlr: 0.25\n")
    done = command("optimizer=slow", "--config-dir", "mine", "--cfg", "job")
    assert "lr: 0.25" in done.stdout


@pytest.mark.slow
def test_completion_suggests_verbs_groups_and_options(command: Command) -> None:
    def complete(line: str) -> set[str]:
        return set(command("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line))).stdout.split())

    assert {"resume", "sample"} <= complete("ganrun ")
    assert "loss=wgan" in complete("ganrun loss=w")
    assert "train.n_critic=" in complete("ganrun train.n_cr")
    assert {"run_dir=", "num="} <= complete("ganrun sample ")
    assert "loss=wgan" in complete("ganrun seed=1 -m loss=w")
    assert "bash_completion" in command("-sc", "install=bash").stdout


def test_completion_of_paths(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outputs" / "ring").mkdir(parents=True)
    (tmp_path / "out.txt").touch()
    (tmp_path / "out of reach").touch()

    def complete(line: str, shell: str = "bash") -> str:
        monkeypatch.setenv("COMP_LINE", line)
        return here("-sc", f"query={shell}")[1]

    assert complete("ganrun run_dir=out") == "run_dir=out.txt run_dir=outputs/\n"
    assert complete("ganrun sample num=3 run_dir=outputs/") == "run_dir=outputs/ring/\n"
    assert complete("ganrun run_dir=out", "fish") == "run_dir=out.txt\nrun_dir=outputs/\n"
    assert complete("ganrun run_dir=nowhere/") == "\n"
    for name in ("out\x1b[2J", "out\nrm"):
        (tmp_path / name).touch()
    assert complete("ganrun run_dir=out") == "run_dir=out.txt run_dir=outputs/\n"
    write_conf(tmp_path, "loss/mine\x1b[2J", "_target_: nowhere.Loss\n")
    assert complete("ganrun loss=mi") == "loss=mine\\x1b[2J loss=minimax\n"


# ---- sweeps


@pytest.mark.slow
def test_sweep_runs_every_combination_and_when_repeated_only_missing_ones(here: Here, tmp_path: Path) -> None:
    line = ["-m", "loss=minimax,wgan", "seed=range(2)", "train.steps=3", "train.sample_every=0", "run_dir=sweep"]
    code, out, _ = here(*line)
    assert code == 0
    names = {p.parent.name for p in (tmp_path / "sweep").glob("*/result.json")}
    assert names == {f"loss={loss}_seed={seed}" for loss in ("minimax", "wgan") for seed in (0, 1)}
    assert "4 of 4" in out
    (tmp_path / "sweep" / "loss=wgan_seed=1" / "result.json").unlink()
    code, out, _ = here(*line)
    assert code == 0
    assert "sweep: 4 jobs in sweep, of which 3 finished, 1 killed" in out
    assert out.count("job 0: ") == 1
    assert "job 1: " not in out


@pytest.mark.slow
def test_sweep_over_seeds_of_an_experiment(here: Here, tmp_path: Path) -> None:
    fast = ["train.steps=3", "train.sample_every=0", "metric=none", "run_dir=s"]
    code, out, _ = here("-m", "experiment=ring", "seed=range(3)", *fast)
    assert code == 0
    assert "3 of 3" in out
    assert {f"seed={seed}" for seed in range(3)} <= {path.name for path in (tmp_path / "s").iterdir()}


@pytest.mark.slow
def test_failed_job_does_not_stop_a_sweep(here: Here) -> None:
    code, out, err = here("-m", "data.std=0,1", "train.steps=3", "train.sample_every=0")
    assert code == 2
    assert "1 of 2" in out
    assert "data.std=0  failed  data.std=0: must be greater than 0." in err


@pytest.mark.slow
def test_sweep_over_a_glob_and_over_names_that_differ_only_in_slashes(here: Here, tmp_path: Path) -> None:
    short = ["train.steps=2", "train.sample_every=0"]
    assert here("-m", "loss=glob(w*n)", "run_dir=a", *short)[0] == 0
    assert [p.parent.name for p in (tmp_path / "a").glob("*/result.json")] == ["loss=wgan"]
    assert here("-m", "data.root=x/y,x_y", "run_dir=b", *short)[0] == 0
    assert len(list((tmp_path / "b").glob("*/result.json"))) == 2


# ---- paths


ODD = "it's [a], b (1) #2 {x}=3"
PATHS = [
    "run_dir", "init_from", "data.root", "data=folder data.cache", "data=table data.file", "diagnose run_dir",
    "diagnose data.root", "evaluate run_dir", "evaluate data.root", "export run_dir", "export out",
    "figures run_dir", "figures out", "resume run_dir", "resume data.root", "interpolate run_dir", "interpolate out",
    "score run_dir", "score input", "score data.root", "score out", "sample run_dir", "sample out", "sweep_file",
    "table1 runs", "table1 figure", "features=classifier features.cache", "features=inception features.weights",
    "metric=stacked_modes metric.stacked_modes.mnist",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("line", PATHS)
def test_path_settings_are_taken_literally(line: str, here: Here) -> None:
    *before, key = line.split()
    assert value_of(key, config_from(here, *before, f"{key}={ODD}")) == ODD
    assert value_of(key, config_from(here, *before, f"{key}=it\\")) == "it\\"
    assert value_of(key, config_from(here, *before, f"{key}=~/{ODD}")) == os.path.expanduser(f"~/{ODD}")


def value_of(key: str, config: Any) -> Any:
    for name in key.split("."):
        config = config[name]
    return config


def test_all_path_settings_in_conf_are_tested() -> None:
    assert path_keys([CONF]) == {line.split()[-1] for line in PATHS}


def test_user_option_can_declare_a_path(here: Here, tmp_path: Path) -> None:
    (tmp_path / "conf" / "data").mkdir(parents=True)
    text = "_target_: nowhere.scans\nfile: null   # path: of the scans\nsheets: null  # which ones\n"
    (tmp_path / "conf" / "data" / "scans.yaml").write_text(text)
    assert config_from(here, "data=scans", f"data.file={ODD}")["data"]["file"] == ODD
    assert config_from(here, "data=scans", "data.sheets=[1,2]")["data"]["sheets"] == [1, 2]
    code, _, err = here("data=scans", f"data.sheets={ODD}")
    assert code == 2
    assert "cannot be parsed" in err


@pytest.mark.slow
def test_commands_printed_by_a_run_quote_its_path(here: Here, tmp_path: Path) -> None:
    code, out, _ = here("run_dir=a b,c (1)", "train.steps=2", "train.sample_every=0")
    assert code == 0
    assert (tmp_path / "a b,c (1)" / "result.json").exists()
    assert "ganrun sample run_dir='a b,c (1)' num=64" in out
    assert here("sample", "run_dir=a b,c (1)", "num=64")[0] == 0


# ---- the process


@pytest.mark.slow
def test_closed_output_pipe_does_not_stop_training(tmp_path: Path) -> None:
    """For example in `ganrun | head -n 1`."""
    line = [sys.executable, "-m", "ganrun", "train.steps=300", "train.sample_every=0", "run_dir=r"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("run ")
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)
    assert result_of(tmp_path / "r")["status"] == "finished"


@pytest.mark.slow
def test_run_in_a_read_only_folder_with_run_dir_elsewhere(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    os.chmod(folder, 0o555)
    done = command(f"run_dir={tmp_path / 'r'}", "train.steps=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not any(folder.iterdir())


@pytest.mark.parametrize(("group", "option"), [("loss", "mine"), ("data", "mine"), ("experiment", "deep/mine")])
def test_config_file_that_is_not_utf8_is_named(group: str, option: str, here: Here, tmp_path: Path) -> None:
    path = tmp_path / "conf" / group / f"{option}.yaml"
    path.parent.mkdir(parents=True)
    (tmp_path / "conf" / "a.yaml").write_bytes(b"# \xff")  # another file that is not UTF-8
    path.write_bytes("# @package _global_\n# café\nseed: 1\n".encode("latin-1"))
    assert here(f"{group}={option}") == (
        2, "", f"{path}: is not UTF-8 (invalid continuation byte at byte 25); save it as UTF-8.\n"
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["data=folder"], ["data=mnist", "data.download=false"]])
def test_empty_folder_of_data_is_not_the_current_folder(
    arguments: list[str], here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANRUN_DATA", "")
    assert here(*arguments)[2].startswith("data.root=data: no ")
    monkeypatch.setenv("GANRUN_DATA", "")
    assert ganrun.compose(*arguments)["data"]["root"] == "data"
    assert here(*arguments, "data.root=")[2] == "data.root=: is empty; name a folder, as in data.root=photos.\n"
