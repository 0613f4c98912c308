"""The command line: what it answers, how fast, and what it says of a slip."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Command
from helpers import mostly_slow

from ganrun.cli.main import load
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
    ("experiment=rign", "experiment=rign: no such option; did you mean ring? experiment is one of goodfellow2014/"),
    ("+experiment.steps=3", "experiment: has no settings of its own"),
    ("experiment=ring train.stepz=3", "train.stepz=3: no such setting; did you mean train.steps?"),
    ("los=wgan", "los=wgan: no such setting; did you mean loss?"),
    ("train.steps=-1", "train.steps=-1: must be at least 1."),
    ("train.batch_size=abc", "train.batch_size=abc: must be a whole number."),
    ("train.batch_size=1.5", "train.batch_size=1.5: must be a whole number."),
    ("train.ema_rampup=0.1 train.ema=0", "train.ema_rampup=0.1: has no effect without an average"),
    ("train.ema=1", "train.ema=1: must lie in [0, 1)"),
    ("train.update=both", "train.update=both: must be one of alternating, simultaneous."),
    ("train.device=gpu9", "train.device=gpu9: not available here"),
    ("train=3", "train=3: is a group of settings"),
    ("seed=abc", "seed=abc: must be a whole number."),
    ("seed=-1", "seed=-1: must be at least 0."),
    ("optimizer.lr=abc", "optimizer.lr=abc: must be a number."),
    ("data.std=0", "data.std=0: must be greater than 0."),
    ("train.steps=[1,", "cannot be understood"),
    ("train.steps=null", "train.steps=null: must be a whole number."),
    ("arch.z_dim=abc", "arch.z_dim=abc: must be a whole number"),
    ("data.root=null", "data.root=null: must be a word."),
    ("optimizer.lr=null", "optimizer.lr=null: must be a number."),
    ("optimizer.betas=[0.5]", "optimizer.betas=[0.5]: must be 2 values"),
    ("schedule=step schedule.every=0", "schedule.every=0: must be at least 1."),
    ("data=digits arch.generator.width=0", "arch.generator.width=0: must be at least 1."),
    ("data=digits metric=distribution", "metric=distribution: needs one-dimensional data"),
    ("arch=heights train.batch_size=1", "train.batch_size=1: has no variance"),
    ("loss._target_=torch.nn.Identity", "loss: its d_loss(real_logits, fake_logits) does not work"),
    ("+arch.foo=3", "arch.foo=3: no such setting"),
    ("~loss", "loss: was taken away"),
    ("run_dir=/proc/x", "No such file or directory"),
    ("-m seed=range(0)", "is a sweep over nothing"),
    ("smaple", "smaple: no such command; did you mean sample?"),
    ("loss wgan", "loss: is a group, whose options are chosen as in loss=wgan."),
    ("arch=dcgan", "use arch=mlp"),
    ("data=cifar10 data.download=false", "no CIFAR-10 there"),
    ("data=fer2013", "data.root=data: no FER2013 there"),
    ("data=fer2013 data.fold=5", "data.fold=5: must be 0, 1, 2, 3 or 4."),
    ("data=olivetti data.download=false", "data.root=data: no Olivetti faces there"),
    ("data=olivetti data.held_out=person", "data.held_out=person: must be one of people, images."),
    ("data=tfd", "data.root=data: no TFD there"),
    ("data=tfd data.train=all", "data.train=all: must be one of unlabeled, labeled."),
    ("data=faces", "data.root=data: no such folder"),
    ("train.keep_best=ks_100k train.metric_every=0", "metrics are taken only at the end; say how often"),
    ("train.keep_best=ks_100k metric=none", "train.keep_best=ks_100k: this run takes no metric; choose one"),
    ("train.keep_best=mean_100k", "does not say whether higher or lower is better; choose one of ks_100k, w1_100k, "),
    ("train.keep_best=ks_10k", "train.keep_best=ks_10k: this run takes no such metric; choose one of ks_100k, "),
    ("train.patience=3", "train.patience=3: has no effect where no metric says what is better; add train.keep_best="),
    ("train.patience=-1", "train.patience=-1: must be at least 0."),
    ("train.n_critic=2 train.update=simultaneous", "train.update=simultaneous: takes one step of each player"),
    ("sample", "run_dir: has to be given"),
    ("sample runn_dir=3", "runn_dir=3: no such setting; did you mean run_dir?"),
    ("sample run_dir=nowhere", "run_dir=nowhere: no run there"),
    ("resume run_dir=nowhere", "run_dir=nowhere: no run there"),
    ("evaluate", "run_dir: has to be given, as in `ganrun evaluate run_dir=...`."),
    ("evaluate metric=modis", "metric=modis: no such option; did you mean modes?"),
    ("-m loss=wgan,wgam", "loss=wgam: no such option; did you mean wgan?"),
    ("-m train.steps=3,-1", "train.steps=-1: must be at least 1."),
    ("-m +trian.steps=3,4", "trian.steps=3: no such setting"),
]


@pytest.mark.parametrize(("line", "message"), mostly_slow(SLIPS))
def test_a_slip_is_one_sentence_and_leaves_nothing(line: str, message: str, here, tmp_path: Path) -> None:
    code, out, err = here(*line.split())
    assert code == 2
    assert message in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not any(tmp_path.iterdir())


def test_traceback_switch_shows_where_a_slip_was_found(here) -> None:
    assert "Traceback" in here("train.steps=-1", "--traceback")[2]


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["sample", "--help"]])
def test_help_and_config_answer_in_a_second_without_torch(arguments: list[str], command: Command) -> None:
    before = os.times()  # the processor's time: that of the clock depends on what else the machine does
    done = command(*arguments)
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1
    code = f"import sys; from ganrun.cli.main import main; main({arguments}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_names_verbs_groups_and_options(here) -> None:
    text = here("--help")[1]
    for word in ("train", "resume", "sample", "nonsaturating", "dcgan", "rmsprop", "ganrun -m", "minimax"):
        assert word in text
    assert "  experiment  goodfellow2014/cifar_conv, " in text


@pytest.mark.slow
def test_the_users_own_options_and_modules(command: Command, here, tmp_path: Path) -> None:
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
    assert "arch.generator._target_=my_parts.Generater: cannot be imported" in err


def test_a_clash_with_an_option_of_ganruns_own_is_reported_but_no_copy_of_one(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "wgan.yaml").write_text("_target_: nowhere.Loss\n")
    (tmp_path / "conf" / "loss" / "hinge.yaml").write_bytes((CONF / "loss" / "hinge.yaml").read_bytes())
    done = command("loss=wgan", "--cfg", "job")
    assert "ganrun.loss.Wasserstein" in done.stdout
    assert "conf/loss/wgan.yaml: ganrun has an option of that name" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_config_dir(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "slow.yaml").write_text("_target_: torch.optim.SGD\nlr: 0.25\n")
    done = command("optimizer=slow", "--config-dir", "mine", "--cfg", "job")
    assert "lr: 0.25" in done.stdout


@pytest.mark.slow
def test_completion_knows_verbs_groups_and_options(command: Command) -> None:
    def complete(line: str) -> set[str]:
        return set(command("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line))).stdout.split())

    assert {"resume", "sample"} <= complete("ganrun ")
    assert "loss=wgan" in complete("ganrun loss=w")
    assert "train.n_critic=" in complete("ganrun train.n_cr")
    assert {"run_dir=", "num="} <= complete("ganrun sample ")
    assert "bash_completion" in command("-sc", "install=bash").stdout


@pytest.mark.slow
def test_sweep_runs_every_combination_and_again_only_what_is_missing(here, tmp_path: Path) -> None:
    line = ["-m", "loss=minimax,wgan", "seed=range(2)", "train.steps=3", "train.sample_every=0", "run_dir=sweep"]
    code, out, _ = here(*line)
    assert code == 0
    names = {p.name for p in (tmp_path / "sweep").iterdir() if p.is_dir()}
    assert names == {f"loss={loss}_seed={seed}" for loss in ("minimax", "wgan") for seed in (0, 1)}
    assert "4 of 4" in out
    (tmp_path / "sweep" / "loss=wgan_seed=1" / "result.json").unlink()
    code, out, _ = here(*line)
    assert code == 0
    assert out.count("finished already") == 3


@pytest.mark.slow
def test_sweep_over_seeds_of_an_experiment(here, tmp_path: Path) -> None:
    fast = ["train.steps=3", "train.sample_every=0", "metric=none", "run_dir=s"]
    code, out, _ = here("-m", "experiment=ring", "seed=range(3)", *fast)
    assert code == 0
    assert "3 of 3" in out
    assert {f"seed={seed}" for seed in range(3)} <= {path.name for path in (tmp_path / "s").iterdir()}


@pytest.mark.slow
def test_a_failed_job_does_not_end_a_sweep(here) -> None:
    code, out, err = here("-m", "data.std=0,1", "train.steps=3", "train.sample_every=0")
    assert code == 2
    assert "1 of 2" in out
    assert "data.std=0: data.std=0: must be greater than 0." in err


def test_paths_are_typed_as_they_are(here, tmp_path: Path) -> None:
    code, out, _ = here("run_dir=a b,c (1)", "train.steps=2", "train.sample_every=0")
    assert code == 0
    assert "ganrun sample run_dir='a b,c (1)' num=64" in out
    assert (tmp_path / "a b,c (1)" / "result.json").exists()


@pytest.mark.slow
def test_a_reader_who_leaves_stops_no_training(tmp_path: Path) -> None:
    line = f"{sys.executable} -m ganrun train.steps=300 train.sample_every=0 run_dir=r | head -n 1"
    subprocess.run(line, shell=True, cwd=tmp_path, check=True, capture_output=True)
    for _ in range(100):  # head is gone before ganrun is
        if (tmp_path / "r" / "result.json").exists():
            break
        time.sleep(0.1)
    assert '"status": "finished"' in (tmp_path / "r" / "result.json").read_text()


@pytest.mark.slow
def test_sweeps_over_a_glob_and_over_names_that_differ_only_in_slashes(here, tmp_path: Path) -> None:
    short = ["train.steps=2", "train.sample_every=0"]
    assert here("-m", "loss=glob(w*n)", "run_dir=a", *short)[0] == 0
    assert [p.name for p in (tmp_path / "a").iterdir() if p.is_dir()] == ["loss=wgan"]
    assert here("-m", "data.root=x/y,x_y", "run_dir=b", *short)[0] == 0
    assert len([p for p in (tmp_path / "b").iterdir() if p.is_dir()]) == 2


def test_version(here) -> None:
    assert here("--version")[1].startswith("ganrun ")


@pytest.mark.slow
def test_runs_from_a_read_only_folder_with_a_run_dir_elsewhere(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    os.chmod(folder, 0o555)
    done = command(f"run_dir={tmp_path / 'r'}", "train.steps=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not any(folder.iterdir())


def test_only_what_a_first_job_imports_is_never_looked_at_as_garbage() -> None:
    """Else all that each job of a sweep leaves behind would stay, too."""
    first = load("train")
    frozen = gc.get_freeze_count()
    garbage = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    assert load("train") is first
    assert gc.get_freeze_count() == frozen
    assert gc.isenabled()
    assert len(garbage) == 1000


ON_LARGE_PAGES = """
from ganrun.cli.main import load
load("train")
import torch
tensor = torch.ones(4 << 20)
for line in open("/proc/self/smaps"):
    if "-" in (span := line.split()[0]):
        start, stop = (int(end, 16) for end in span.split("-"))
    elif line.startswith("VmFlags:") and start <= tensor.data_ptr() < stop:
        print(line)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no large pages here")
def test_large_tensors_ask_for_large_pages_unless_told_not_to() -> None:
    free = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    for environment, asked in [(free, True), ({**free, "THP_MEM_ALLOC_ENABLE": "0"}, False)]:
        line = [sys.executable, "-c", ON_LARGE_PAGES]
        flags = subprocess.run(line, env=environment, check=True, capture_output=True, text=True).stdout
        assert flags.startswith("VmFlags:")
        assert (" hg " in flags) is asked
