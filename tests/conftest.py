"""Fixtures for all tests, and separate cores for pytest-xdist workers."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ganrun.cli.compose import UserConf


def pytest_configure() -> None:
    """Give each worker its own cores: threads that wait for each other on a shared core waste its time."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        if own := cores[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]:
            os.sched_setaffinity(0, own)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test in its own folder, with one thread and a fixed random seed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GANRUN_DATA", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "exit", sys.exit)  # wandb replaces it
    monkeypatch.setattr(UserConf, "folders", ())  # of an earlier command line in this process
    monkeypatch.setattr(UserConf, "primary", None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


Command = Callable[..., subprocess.CompletedProcess]
Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `ganrun` as a user does: in a separate process, in an empty folder."""

    def run(*arguments: str, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "ganrun", *arguments],
            cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1", **env}, capture_output=True, text=True,
        )  # fmt: skip

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Here:
    """Run a command line in this process, which is faster: (exit code, standard output, standard error)."""
    from ganrun.cli.main import main

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ganrun"])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        capsys.readouterr()
        try:
            code = main(list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that GANRUN_DATA names when pytest starts; skips the test if there is none."""
    root = REAL_DATA
    if root is None or not (root / "MNIST").is_dir():
        pytest.skip("GANRUN_DATA is not a folder with MNIST")
    return root


# Removed before tests compose configs, which have it in data.root. Workers of pytest-xdist start later, and get a copy.
FOLDER = os.environ.pop("GANRUN_DATA", "") or os.environ.get("GANRUN_TEST_DATA", "")
os.environ["GANRUN_TEST_DATA"] = FOLDER
REAL_DATA = Path(FOLDER).absolute() if FOLDER else None
