"""Sweeps: which jobs run again, isolation of jobs, signals, and what each job may use."""

import faulthandler
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Command, Here
from helpers import assert_same_run, at_step, end_of, result_of, send
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from ganrun.cli import devices, isolation
from ganrun.cli.compose import compose
from ganrun.cli.errors import sentence
from ganrun.cli.isolation import Killed, in_child
from ganrun.cli.launch import SweepOptions, kind_of, plan_launch
from ganrun.cli.overrides import parse
from ganrun.records.run_dir import RunDir
from ganrun.records.sweep_dir import Job, Plan, Row, SweepDir, remaining_seconds

SHORT = ["train.steps=2", "train.sample_every=0", "train.diagnose=false", "metric=none", "train.threads=1"]


def names_in(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/result.json")}


def config_of(path: Path) -> dict[str, Any]:
    return yaml.safe_load((path / "config.yaml").read_text())


def events_in(path: Path) -> int:
    """The number of times that training was started in a run directory."""
    return len(list(path.glob("events.*")))


# ---- which jobs run


@pytest.mark.slow
def test_wider_or_other_sweep_runs_only_the_new_jobs(here: Here, tmp_path: Path) -> None:
    """Jobs are found by their configs, although their names have changed."""
    assert here("-m", "seed=range(2)", *SHORT, "run_dir=s")[0] == 0
    code, out, err = here("-m", "loss=nonsaturating,hinge", "seed=range(3)", *SHORT, "run_dir=s")
    assert (code, err) == (0, "")
    assert "sweep: 6 jobs in s, of which 2 finished" in out
    assert "\nsweep: 5 of 6 done, 1 to do, ETA" in out
    assert "\\n" not in out
    assert "sweep: 6 of 6 jobs succeeded" in out
    old, new = {"seed=0", "seed=1"}, {"loss=nonsaturating_seed=2", *(f"loss=hinge_seed={k}" for k in range(3))}
    assert names_in(tmp_path / "s") == old | new
    assert {events_in(tmp_path / "s" / name) for name in old | new} == {1}


@pytest.mark.slow
def test_settings_of_the_sweep_are_in_no_run(here: Here, tmp_path: Path) -> None:
    assert here("-m", "seed=range(1)", *SHORT, "run_dir=s", "retry=[]", "fail_fast=true", "launch=serial")[0] == 0
    assert not {"launch", "retry", "fail_fast", "sweep_file", "jobs"} & config_of(tmp_path / "s" / "seed=0").keys()
    assert json.loads((tmp_path / "s" / "seed=0" / "command.json").read_text()) == ["seed=0", *SHORT]
    assert "of which 1 finished" in here("-m", "seed=range(1)", *SHORT, "run_dir=s")[1]


@pytest.mark.slow
def test_failed_runs_are_tried_again_and_diverged_ones_left_alone(here: Here, tmp_path: Path) -> None:
    line = ["-m", "optimizer=sgd", "optimizer.lr=0.1,1e38", "train.log_every=1", *SHORT, "run_dir=s"]
    assert here(*line)[0] == 3
    diverged = tmp_path / "s" / "optimizer.lr=1e+38"
    assert result_of(diverged)["status"] == "diverged"
    code, out, err = here(*line)
    assert code == 3
    assert "of which 1 finished, 1 diverged" in out
    assert "job " not in out
    assert "optimizer.lr=1e+38  diverged  step 1: loss/g is nan." in err
    assert here(*line, "retry=diverged")[1].count("job 0: optimizer.lr=1e+38") == 1
    failed = tmp_path / "s" / "optimizer.lr=0.1"
    (failed / "result.json").write_text(json.dumps(result_of(failed) | {"status": "failed", "error": "Error: x\ny"}))
    code, out, err = here(*line, "retry=[]")
    assert code == 1
    assert "optimizer.lr=0.1    failed    Error: x  " in err
    assert here(*line)[0] == 3
    assert result_of(failed)["status"] == "finished"


@pytest.mark.slow
def test_name_that_another_run_has_is_refused_before_anything_starts(here: Here, tmp_path: Path) -> None:
    assert here("-m", "seed=range(1)", *SHORT, "run_dir=s")[0] == 0
    code, _, err = here("-m", "seed=0,1", *SHORT, "train.steps=3", "run_dir=s")
    assert code == 2
    assert "seed=0: contains a run with another config, which differs in train.steps (2 there, 3 now)" in err
    assert names_in(tmp_path / "s") == {"seed=0"}


@pytest.mark.slow
def test_automatic_norm_does_not_hide_a_run(here: Here, tmp_path: Path) -> None:
    """The stored config of a run says which norm it has."""
    digits = ["data=digits", "arch=dcgan", "data.num_test=100", "arch.generator.width=2", "arch.discriminator.width=2"]
    assert here("-m", "seed=range(1)", *digits, *SHORT, "run_dir=s")[0] == 0
    assert config_of(tmp_path / "s" / "seed=0")["arch"]["discriminator"]["norm"] == "batch"
    assert (
        "of which 1 finished"
        in here("-m", "loss=choice(nonsaturating)", "seed=range(1)", *digits, *SHORT, "run_dir=s")[1]
    )


@pytest.mark.slow
def test_sweep_over_a_list_of_jobs(here: Here, tmp_path: Path) -> None:
    (tmp_path / "runs.yaml").write_text(
        "- [loss=wgan, train.steps=3]\n- loss=hinge 'optimizer.betas=[0.0,0.9]'\n- []\n"
    )
    code, out, err = here("-m", "sweep_file=runs.yaml", "seed=4,5", *SHORT, "run_dir=s")
    assert (code, err) == (0, "")
    assert "6 of 6" in out
    runs = [config_of(path.parent) for path in (tmp_path / "s").glob("*/config.yaml")]
    found = {(run["loss"]["_target_"].split(".")[-1], run["train"]["steps"], run["seed"]) for run in runs}
    losses = (("Wasserstein", 3), ("Hinge", 2), ("NonSaturating", 2))
    assert found == {(loss, steps, seed) for loss, steps in losses for seed in (4, 5)}


WRONG = {
    "": "has no list of jobs",
    "loss: wgan": "has no list of jobs",
    "- [loss=wgan]\n- [loss]": "job 2 is ['loss'], and must be a list of settings",
    "- [seed=1\n": "is no YAML",
    "- [sead=1]": "sead=1: no such setting; did you mean seed?",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", WRONG)
def test_wrong_list_of_jobs(text: str, here: Here, tmp_path: Path) -> None:
    (tmp_path / "runs.yaml").write_text(text)
    code, _, err = here("-m", "sweep_file=runs.yaml", "run_dir=s")
    assert code == 2
    assert WRONG[text] in err
    assert err.count("\n") == 1


LIST = """# @package _global_
jobs:
  - [loss=wgan, optimizer.lr=0.001, train.n_critic=1, train.steps=3]
  - loss=hinge optimizer.lr=0.002 train.n_critic=1
hydra: {sweeper: {params: {seed: "range(2)"}}}
"""


def write_experiment(text: str) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(text)


@pytest.mark.slow
def test_experiment_with_a_list_of_jobs(here: Here, tmp_path: Path) -> None:
    """Jobs are named by what they do not have in common. What was typed wins, and selects jobs by their first key."""
    write_experiment(LIST)
    short = [line for line in SHORT if not line.startswith("train.steps")]
    assert here("-m", "experiment=mine", *short, "run_dir=s", "loss=wgan", "seed=3")[0] == 0
    assert names_in(tmp_path / "s") == {"loss=wgan_optimizer.lr=0.001_train.steps=3"}
    assert "jobs" not in config_of(tmp_path / "s" / "loss=wgan_optimizer.lr=0.001_train.steps=3")
    code, out, _ = here("-m", "experiment=mine", *SHORT, "run_dir=t")
    assert (code, "4 of 4" in out) == (0, True)
    assert names_in(tmp_path / "t") == {
        f"loss={loss}_optimizer.lr={lr}_seed={seed}"
        for loss, lr in (("wgan", 0.001), ("hinge", 0.002))
        for seed in (0, 1)
    }
    assert {config_of(path.parent)["train"]["steps"] for path in (tmp_path / "t").glob("*/config.yaml")} == {2}
    assert here("-m", "experiment=mine", "jobs=[]", *SHORT, "run_dir=u")[0] == 0
    assert names_in(tmp_path / "u") == {"seed=0", "seed=1"}


def test_wrong_list_of_jobs_in_an_experiment(here: Here) -> None:
    write_experiment(LIST)
    code, _, err = here("-m", "experiment=mine", "loss=lsgan", "run_dir=s")
    assert code == 2
    listed = "loss=wgan, loss=hinge"
    assert err == f"jobs: the experiment lists none with the settings typed, but {listed}; jobs=[] ignores its list.\n"
    code, _, err = here("-m", "jobs=[3]", "run_dir=s")
    assert (code, err) == (2, "jobs: job 1 is 3, and must be a list of settings, as in `- [loss=wgan, seed=0]`.\n")
    code, _, err = here("-m", 'jobs=["loss=\'wgan"]', "run_dir=s")
    assert (code, err) == (2, "jobs: the job loss='wgan has a quote without an end.\n")
    assert here("jobs=[[loss=wgan]]")[0] == 2


@pytest.mark.slow
def test_fail_fast_stops_at_the_first_failure(here: Here, tmp_path: Path) -> None:
    code, _, err = here("-m", "data.std=0,1", *SHORT, "run_dir=s", "fail_fast=true")
    assert code in (1, 2)
    assert "fail_fast=true: stopped at the first job that failed." in err
    assert names_in(tmp_path / "s") == set()
    assert here("-m", "data.std=0,1", *SHORT, "run_dir=s")[0] == 2
    assert names_in(tmp_path / "s") == {"data.std=1"}


# ---- isolation


def test_function_in_a_child_process() -> None:
    assert in_child(lambda: ["a", 1], lambda: None) == ["a", 1]
    with pytest.raises(Killed, match=r"killed by signal 11 \(segmentation fault\)"):
        in_child(partial(kill_itself, signal.SIGSEGV), faulthandler.disable)
    with pytest.raises(Killed, match=r"signal 9 \(killed, perhaps for its memory\)"):
        in_child(partial(kill_itself, signal.SIGKILL), lambda: None)
    with pytest.raises(RuntimeError, match="ended with exit code 7"):
        in_child(partial(os._exit, 7), lambda: None)


def kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)


CRASHING = """
import os, signal
from ganrun.loss import NonSaturating
class Loss(NonSaturating):
    calls = 0
    def d_loss(self, real, fake):
        Loss.calls += 1
        if Loss.calls == 5:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().d_loss(real, fake)
"""


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["serial", "local"])
def test_crash_of_one_job_does_not_end_the_others(launch: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    jobs = "- [loss._target_=crashing.Loss]\n- [optimizer=sgd, optimizer.lr=1e38, train.log_every=1]\n- [seed=7]\n"
    (tmp_path / "runs.yaml").write_text(jobs)
    done = command("-m", "sweep_file=runs.yaml", *SHORT, "train.steps=20", "run_dir=s", f"launch={launch}")
    assert done.returncode == 1, done.stderr
    assert "sweep: 1 of 3 jobs succeeded" in done.stdout
    crashed = result_of(tmp_path / "s" / "loss._target_=crashing.Loss")
    assert (crashed["status"], crashed["metrics"]) == ("failed", {})
    assert crashed["error"] == "the process was killed by signal 11 (segmentation fault)"
    assert RunDir(tmp_path / "s" / "loss._target_=crashing.Loss").result() == crashed
    assert "loss._target_=crashing.Loss" in done.stderr
    assert result_of(tmp_path / "s" / "seed=7")["steps"] == 20
    shown = command("status", "s").stdout
    assert "sweep: 3 of 3 done, 1 failed, 1 diverged" in shown
    assert crashed["error"] in shown
    assert "crashing.py" in (done.stderr if launch == "serial" else Path(log_in(shown, tmp_path)).read_text())


def log_in(shown: str, folder: Path) -> Path:
    """The log file of the crashed job in the output of `ganrun status`: of its process, since it has a traceback."""
    assert "train.log" in shown
    return folder / "s" / ".sweep" / "jobs" / "loss._target_=crashing.Loss.log"


FULL = 'mount -t tmpfs -o size=24k full "$0" && exec "$@"'


@pytest.mark.slow
def test_crash_full_disk_and_divergence_leave_the_other_jobs_alone(command: Command, tmp_path: Path) -> None:
    """The run directory of one job is a file system of 24 KB, which only the processes of the first command see."""
    full = tmp_path / "s" / "seed=7"
    full.mkdir(parents=True)
    mounting = ["unshare", "-rm", "sh", "-c", FULL, str(full)]
    if shutil.which("unshare") is None or subprocess.run([*mounting, "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    (tmp_path / "crashing.py").write_text(CRASHING)
    crash, diverge = "loss._target_=crashing.Loss", ["optimizer=sgd", "optimizer.lr=1e38", "train.log_every=1"]
    (tmp_path / "runs.yaml").write_text(json.dumps([[crash], ["seed=7"], diverge, ["seed=8"], ["seed=9"]]))
    line = ["-m", "sweep_file=runs.yaml", *SHORT, "train.steps=20", "run_dir=s", "launch=local"]
    program = [*mounting, sys.executable, "-m", "ganrun", *line]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "sweep: 2 of 5 jobs succeeded" in done.stdout
    assert re.search(rf"{crash} +failed +the process was killed by signal 11", done.stderr)
    assert re.search(r"seed=7 +failed .*No space left on device", done.stderr)
    assert re.search(rf"{'_'.join(diverge)} +diverged +step 1: ", done.stderr)
    assert names_in(tmp_path / "s") == {crash, "_".join(diverge), "seed=8", "seed=9"}
    done = command(*line)  # with enough space
    assert "of which 2 finished, 1 diverged, 2 failed" in done.stdout
    assert "sweep: 3 of 5 jobs succeeded" in done.stdout
    assert result_of(full)["status"] == "finished"


@pytest.mark.slow
def test_killed_job_is_resumed_and_equals_one_that_was_not_killed(tmp_path: Path) -> None:
    line = ["-m", "seed=1,2", *SHORT, "train.steps=20", "train.log_every=1", "train.checkpoint_every=5"]
    assert end_of([*line, "run_dir=whole"], tmp_path, nothing).code == 0
    ended = end_of([*line, "run_dir=s"], tmp_path, partial(kill_once_at, 12, tmp_path / "killed"))
    assert ended.code == 0, ended
    assert "2 of 2 jobs succeeded" in ended.out
    assert "resuming at step 10 of 20" in ended.out
    for name in ("seed=1", "seed=2"):
        assert_same_run(tmp_path / "whole" / name, tmp_path / "s" / name)


def nothing() -> None:
    pass


def kill_once_at(step: int, marker: Path) -> None:
    def kill() -> None:
        if not marker.exists():
            marker.touch()
            send([signal.SIGKILL])

    at_step(step, kill)


@pytest.mark.slow
def test_interrupt_is_passed_on_to_the_job_and_the_same_command_continues(tmp_path: Path, here: Here) -> None:
    """The signal comes to the command alone, as from `kill`."""
    line = ["-m", "seed=1,2", *SHORT, "train.steps=20", "train.log_every=1", "run_dir=s"]
    ended = end_of(line, tmp_path, partial(interrupt_command_at, 5))
    assert ended.code == 128 + signal.SIGTERM, ended
    assert "interrupted; the same command continues." in ended.err
    result = result_of(tmp_path / "s" / "seed=1")
    assert result["status"] == "interrupted"
    assert 5 <= result["steps"] < 20
    assert not (tmp_path / "s" / "seed=2").exists()
    code, out, _ = here(*line)
    assert code == 0
    assert "of which 1 interrupted" in out


def interrupt_command_at(step: int) -> None:
    command = os.getpid()
    isolation.EVERY = 3600  # so that the job gets the signal itself

    def interrupt() -> None:
        handler, arrived = signal.getsignal(signal.SIGTERM), []
        signal.signal(signal.SIGTERM, lambda *received: (arrived.append(1), handler(*received)))
        os.kill(command, signal.SIGTERM)
        while not arrived:  # the signal may have come already, so `signal.pause` could wait forever
            time.sleep(0.01)

    at_step(step, interrupt)


@pytest.mark.slow
def test_interrupt_in_the_moment_in_which_the_launcher_starts(tmp_path: Path) -> None:
    ended = end_of(["-m", "seed=1,2", *SHORT, "train.steps=1000000", "run_dir=s"], tmp_path, interrupt_after_fork)
    assert ended.code == 128 + signal.SIGTERM, ended
    assert not any(result_of(tmp_path / "s" / name)["status"] == "finished" for name in names_in(tmp_path / "s"))


def interrupt_after_fork() -> None:
    fork = isolation.fork

    def fork_and_interrupt() -> int:
        if child := fork():
            send([signal.SIGTERM])  # which the launcher, and its worker, ignore
        return child

    isolation.fork = fork_and_interrupt


@pytest.mark.slow
def test_jobs_do_not_outlive_a_command_that_is_killed(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "ganrun", "-m", "seed=1,2", *SHORT, "train.steps=1000000", "train.log_every=1"]
    sweep = SweepDir(tmp_path / "s")
    with subprocess.Popen([*line, "run_dir=s"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step "):
            pass
        process.kill()
        while process.stdout.read():  # until the last process with this output has ended
            pass
    states = [sweep.row(job).state for job in sweep.jobs()]
    assert states == ["interrupted", "missing"]
    assert not sweep.is_running


@pytest.mark.slow
def test_second_command_on_the_same_sweep_is_refused(here: Here, tmp_path: Path) -> None:
    with SweepDir(tmp_path / "s").locked():
        code, _, err = here("-m", "seed=1", *SHORT, "run_dir=s")
    assert code == 2
    assert "another command runs this sweep" in err


# ---- launchers


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["local", "ray"])
def test_parallel_jobs_have_the_same_bits_and_a_device_of_their_own(
    launch: str, command: Command, tmp_path: Path
) -> None:
    """With two pretended GPUs, which jobs see one by one; torch finds none. Every worker imports torch once."""
    if launch == "ray":
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A (UUID: a)'\necho 'GPU 1: A (UUID: b)'\n")
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    (tmp_path / "seeing.py").write_text(
        "import os\nfrom pathlib import Path\nfrom ganrun.loss import NonSaturating\n"
        "class Loss(NonSaturating):\n"
        "    def __init__(self, real_label=1.0):\n"
        "        super().__init__(real_label)\n"
        "        with open('seen.txt', 'a') as file:\n"
        "            file.write(f\"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getppid()}\\n\")\n"
    )
    line = ["-m", "seed=range(4)", "loss._target_=seeing.Loss", *SHORT]
    assert command(*line, "run_dir=a").returncode == 0
    (tmp_path / "seen.txt").unlink()
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    fake = ["+hydra.launcher.ray.init.num_gpus=2", "+hydra.launcher.ray.init.num_cpus=2"] if launch == "ray" else []
    locks = {"TMPDIR": str(tmp_path)} if launch == "local" else {}  # the path is too long for Ray's sockets
    done = command(*line, "run_dir=b", f"launch={launch}", *fake, PATH=path, **locks)
    assert done.returncode == 0, done.stderr + (tmp_path / "b" / ".sweep" / "launcher.log").read_text()
    assert (done.stderr, "4 of 4 jobs succeeded" in done.stdout) == ("", True)
    for seed in range(4):
        assert_same_run(tmp_path / "a" / f"seed={seed}", tmp_path / "b" / f"seed={seed}")
        assert config_of(tmp_path / "b" / f"seed={seed}") == config_of(tmp_path / "a" / f"seed={seed}") | {
            "run_dir": f"b/seed={seed}"
        }
    seen = [line.split() for line in (tmp_path / "seen.txt").read_text().splitlines()]
    assert len(seen) == 4
    assert {device for device, _ in seen} <= {"0", "1"}
    assert len({worker for _, worker in seen}) <= 2


def test_machine_is_divided_among_local_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.setattr(devices, "gpus", lambda: ["2", "3"])
    launch = plan_launch("joblib", {}, [], on_gpu=True)
    assert (launch.jobs, launch.share) == (2, devices.Share(4, ("2", "3"), 1))
    assert launch.overrides == ("hydra.launcher.n_jobs=2",)
    launch = plan_launch("joblib", {"jobs": 3}, [], on_gpu=True)
    assert launch.share == devices.Share(2, ("2", "3"), 2)
    launch = plan_launch("joblib", {}, [], on_gpu=False)
    assert (launch.jobs, launch.share) == (8, devices.Share(1))
    assert plan_launch("joblib", {}, parse(["hydra.launcher.n_jobs=3"]), on_gpu=True).overrides == ()
    assert plan_launch("serial", {}, [], on_gpu=True).share == devices.Share()
    assert "++hydra.launcher.ray.remote.num_gpus=1" in plan_launch("ray", {"cpus": 1}, [], on_gpu=True).overrides
    remote = plan_launch("ray", {"cpus": 1, "address": "auto"}, [], on_gpu=True)
    assert remote.overrides == ("++hydra.launcher.ray.remote.num_gpus=0",)


@pytest.mark.slow
def test_each_job_takes_a_free_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "lock_folder", lambda: tmp_path)
    first, second = (devices.free_gpu(["0", "1"], 1, lambda: False) for _ in range(2))
    assert [first[0], second[0]] == ["0", "1"]
    with pytest.raises(InterruptedError):
        devices.free_gpu(["0", "1"], 1, iter([False, True]).__next__)
    first[1].close()
    again = devices.free_gpu(["0", "1"], 1, lambda: False)
    shared = devices.free_gpu(["0", "1"], 2, lambda: False)
    assert [again[0], shared[0]] == ["0", "0"]
    for _, file in (second, again, shared):
        file.close()


def test_visible_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A'\necho '  MIG 1g'\necho 'GPU 1: A'\n")
    program.chmod(0o755)
    assert devices.gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5a, 7,-1,3")
    assert devices.gpus() == ["GPU-5a", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.gpus() == []
    program.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert devices.gpus() == []


def test_kinds_of_launchers() -> None:
    targets = {
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher": "serial",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": "joblib",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": "submitit",
        "hydra_plugins.hydra_rq_launcher.rq_launcher.RQLauncher": "other",
    }
    assert {target: kind_of(target) for target in targets} == targets


def test_options_of_a_sweep() -> None:
    assert SweepOptions.of({"retry": "diverged", "fail_fast": True}).retry == ["diverged"]
    assert SweepOptions.of({"retry": None, "fail_fast": False}).retry == []
    with pytest.raises(ValueError, match=r"launch\.time=1\.5: must be a whole number"):
        SweepOptions.of({"launch": {"time": 1.5}})
    with pytest.raises(ValueError, match=r"launch\.gpus=-1: must be a number"):
        SweepOptions.of({"launch": {"gpus": -1}})


# ---- the directory


def test_states_of_a_sweep(tmp_path: Path) -> None:
    sweep = SweepDir(tmp_path)
    with sweep.locked():
        assert sweep.is_running
        sweep.write_plan(Plan("x", [("a", "a"), ("b", "elsewhere")], ["a"], time.time()))
    assert not sweep.is_running
    for name, rows in (("elsewhere", 3), ("old", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("train: {steps: 4}\n")
        (tmp_path / name / "metrics.jsonl").write_text('{"step": 1}\n{"step": ' + str(rows) + '}\n{"step": 9')
    a, b, old = (sweep.row(job) for job in sweep.jobs())
    assert (a.job.name, a.state, b.job.path) == ("a", "missing", tmp_path / "elsewhere")
    assert (b.state, b.share) == ("killed", 0.75)
    assert (old.job.name, old.state) == ("old", "killed")
    sweep.record("a", code=2, failed="x=1: is wrong.\nmore")
    assert sweep.row(a.job) == Row(a.job, "failed", "x=1: is wrong.", 0.0)
    sweep.forget("a")
    assert sweep.row(a.job).state == "missing"
    sweep.stop("x")
    assert (sweep.is_stopped("x"), sweep.is_stopped("y")) == (True, False)
    for damaged in ("", "[]", "{}", '{"jobs": 1}', '{"more": []}', '{"jobs": [1]}'):
        sweep.plan_file.write_text(damaged)
        assert [job.name for job in sweep.jobs()] == ["elsewhere", "old"]


def test_runs_of_a_search_are_found_in_the_folders_of_its_trials(tmp_path: Path) -> None:
    for path in ("trial_0000/seed=0", "trial_0001/seed=0", "other/deeper/seed=0"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "config.yaml").write_text("train: {steps: 4}\n")
    assert [job.name for job in SweepDir(tmp_path).jobs()] == ["trial_0000/seed=0", "trial_0001/seed=0"]


def test_remaining_time_counts_the_steps_of_running_jobs() -> None:
    job = Job("a", Path("a"))
    rows = [Row(job, "finished", share=1.0), Row(job, "running", share=0.5), Row(job, "missing")]
    assert remaining_seconds(rows, Plan(started=10, share=1.0), now=20) == pytest.approx(30)
    early = [*rows, Row(job, "failed", share=0.0)]  # at once, which says nothing about the time of the others
    assert remaining_seconds(early, Plan(started=10, share=1.0), now=20) == pytest.approx(30)
    assert remaining_seconds(rows, Plan(started=10, share=1.5), now=20) is None


def test_launcher_that_is_not_installed_is_named_with_its_command() -> None:
    for plugin, option, extra in (("ray", "ray", "ray"), ("submitit_slurm", "slurm", "slurm")):
        message = f"In 'launch/{option}': Could not find 'hydra/launcher/{plugin}'"
        error = MissingConfigException(message, f"hydra/launcher/{plugin}", ["basic", "joblib"])
        assert sentence(error, "train", [f"launch={option}"]) == (
            f"conf/launch/{option}.yaml: hydra/launcher={plugin}: no such option; it is a plugin: "
            f"`pip install 'ganrun[{extra}]'`. hydra/launcher is one of basic, joblib."
        )


# ---- clusters

PREEMPTED = """
import os, signal
from pathlib import Path
from ganrun.loss import NonSaturating
class Loss(NonSaturating):
    calls = 0
    def d_loss(self, real, fake):
        Loss.calls += 1
        if Loss.calls == 8 and not Path("preempted").exists():
            Path("preempted").touch()
            os.kill(os.getpid(), signal.SIGUSR2)
        return super().d_loss(real, fake)
"""


@pytest.mark.slow
def test_preempted_job_is_queued_again_and_resumes(command: Command, tmp_path: Path) -> None:
    """With submitit's executor on this machine, which handles the signal as on a SLURM cluster."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "losses.py").write_text(PREEMPTED)
    line = ["-m", "seed=range(1)", "loss._target_=losses.Loss", *SHORT, "train.steps=20", "train.log_every=1"]
    done = command(*line, "run_dir=s", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60")
    assert done.returncode == 0, done.stderr
    assert "sweep: 1 of 1 jobs succeeded" in done.stdout
    log = (tmp_path / "s" / "seed=0" / "train.log").read_text()
    assert "interrupted after " in log
    assert "resuming at step " in log
    assert command(*line, "run_dir=whole").returncode == 0
    assert_same_run(tmp_path / "whole" / "seed=0", tmp_path / "s" / "seed=0")


def test_slurm_script_has_the_settings_of_the_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the launcher makes it: the options of sbatch (https://slurm.schedmd.com/sbatch.html) and their values."""
    submitit = pytest.importorskip("submitit")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    config = compose("train", ["launch=slurm", "launch.partition=gpu", "launch.jobs=3"], hydra_config=True)
    config.hydra.sweep.dir = "sweep"
    params = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    assert isinstance(params, dict)
    base = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name")
    given = {k if k in (*base, "stderr_to_stdout") else f"slurm_{k}": v for k, v in params.items()}
    for key in ("_target_", "submitit_folder", "max_num_timeout"):
        given.pop(f"slurm_{key}")
    executor = submitit.AutoExecutor(params["submitit_folder"], cluster="slurm", slurm_max_num_timeout=10)
    executor.update_parameters(**given)
    executor._executor.parameters["map_count"] = 24
    text = executor._executor._make_submission_file_text("program", "id")
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in text.splitlines() if line.startswith("#SBATCH")
    )
    assert {key: value for key, value in options.items() if key not in ("output", "error", "wckey")} == {
        "array": "0-23%3", "cpus-per-task": "4", "gpus-per-node": "1", "job-name": "ganrun", "mem": "16GB",
        "nodes": "1", "ntasks-per-node": "1", "open-mode": "append", "partition": "gpu", "signal": "USR2@120",
        "time": "240",
    }  # fmt: skip
    assert options["output"].endswith("sweep/.sweep/slurm/%A_%a/%A_%a_0_log.out")
    assert "\nsrun " in text
