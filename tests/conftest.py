"""What the tests share: configs composed as the command line does, runs built from them, and the command itself."""

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ganrun.build import build
from ganrun.cli.search import compose, plain
from ganrun.run import Run

REPO = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Gives each of several workers cores of its own: threads that wait for each other on a shared core waste it."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        if own := cores[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]:
            os.sched_setaffinity(0, own)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test works in a folder of its own, with one thread, and leaves torch's state as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GANRUN_DATA", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config_of(*overrides: str, verb: str = "train") -> dict[str, Any]:
    return copy.deepcopy(composed(verb, overrides))


@functools.cache  # Hydra takes a fifth of a second
def composed(verb: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    return plain(compose(verb, list(overrides)))


def run_of(*overrides: str) -> Run:
    return build(config_of("train.threads=1", "train.device=cpu", *overrides))


Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `ganrun` as a person does: in a process of its own, in an empty folder."""

    def run(*arguments: str, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "ganrun", *arguments],
            cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1", **env}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process, which is faster: (exit code, standard output, standard error)."""
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


def train_in(folder: Path, *lines: list[str]) -> None:
    """Runs command lines in this process, for what several tests share, which `here` is not for."""
    from ganrun.cli.main import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["ganrun"])
        patch.setattr(sys, "path", [*sys.path])
        patch.setenv("HYDRA_FULL_ERROR", "1")
        for line in lines:
            assert main(line) == 0


def mostly_slow(cases: Sequence[Any]) -> list[Any]:
    """Of many cases alike, each fourth for `make test-fast`, and the others for `make test`."""
    slow = (pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases)
    return [case if number % 4 == 0 else other for number, (case, other) in enumerate(zip(cases, slow, strict=True))]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data, where the environment has it: GANRUN_DATA at the time pytest was started."""
    root = REAL_DATA
    if root is None or not (root / "MNIST").is_dir():
        pytest.skip("GANRUN_DATA names no folder with MNIST")
    return root


REAL_DATA = Path(os.environ["GANRUN_DATA"]).absolute() if os.environ.get("GANRUN_DATA") else None
