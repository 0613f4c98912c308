"""The process: closed and broken standard streams, early interrupts, and crashes in native code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import result_of

SHORT = "train.steps=3 train.log_every=1 train.sample_every=0 train.diagnose=false metric=none"


def shell(line: str) -> subprocess.CompletedProcess:
    """Run a line of the shell, in which `ganrun` is the program. The exit code of a pipe is that of a failing part."""
    line = line.replace("ganrun", f"{sys.executable} -m ganrun")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, env=env)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full"])
def test_run_finishes_with_closed_or_full_standard_streams(closed: str, tmp_path: Path) -> None:
    done = shell(f"ganrun {SHORT} run_dir=r {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert result_of(tmp_path / "r")["status"] == "finished"
    assert "finished: 3 steps" in (tmp_path / "r" / "train.log").read_text()
    assert [row.count('"step"') for row in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("line", ["--help", "--cfg job", "--hydra-help", "sample --help", f"{SHORT} run_dir=r"])
def test_reader_that_stops_reading_is_no_error(line: str) -> None:
    done = shell(f"ganrun {line} | head -c 1")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) == 1


@pytest.mark.slow
def test_help_that_cannot_be_written_is_an_error_of_one_line() -> None:
    done = shell("ganrun --version > /dev/full")
    assert done.returncode in (1, 2)
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_log_of_the_job_may_be_in_its_directory(tmp_path: Path) -> None:
    done = shell(f"mkdir r; ganrun {SHORT} run_dir=r > r/log.txt 2> r/errors.txt")
    assert done.returncode == 0, (tmp_path / "r" / "errors.txt").read_text()
    assert "finished: 3 steps" in (tmp_path / "r" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["ganrun.cli.main", "torch"])
def test_interrupt_during_an_import_ends_the_process_without_a_traceback(module: str, tmp_path: Path) -> None:
    """The interrupt comes when the import of the module begins."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "ganrun", *SHORT.split(), "run_dir=r"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_crash_in_native_code_prints_where_it_happened(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text("import faulthandler\nfaulthandler._sigsegv()\n")
    done = shell(f"ganrun {SHORT} loss._target_=crashing.Loss run_dir=r")
    assert done.returncode in (-signal.SIGSEGV, 128 + signal.SIGSEGV)
    assert "Segmentation fault" in done.stderr
    assert "crashing.py" in done.stderr
