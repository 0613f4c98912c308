"""The state of a run, from its directory."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganrun.cli.found_runs import FoundRuns
from ganrun.files import opened_to_append
from ganrun.records.run_dir import RunDir, RunIsLocked
from ganrun.records.state import is_locked, state_of
from ganrun.records.sweep_dir import SweepDir, last_step, steps_of


def test_state_of_a_directory(tmp_path: Path) -> None:
    assert state_of(tmp_path / "none") == "missing"
    with RunDir(tmp_path / "r") as run_dir:
        assert state_of(run_dir.path) == "running"  # locked, before its config is written
        run_dir.write_config({"seed": 0})
    assert state_of(run_dir.path) == "killed"
    for status in ("finished", "diverged", "failed", "interrupted"):
        run_dir.result_file.write_text(json.dumps({"status": status}))
        assert state_of(run_dir.path) == status
    for damaged in ("[1]", "{", '{"status": 5}', '{"status": "odd"}'):
        run_dir.result_file.write_text(damaged)
        assert state_of(run_dir.path) == "killed"
    with run_dir:
        assert state_of(run_dir.path) == "running"


def test_question_does_not_keep_a_run_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`is_locked` shares the lock for a moment, in which a run that starts waits."""
    fcntl = pytest.importorskip("fcntl")
    with RunDir(tmp_path) as run_dir:
        run_dir.write_config({"seed": 0})
    question = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(question, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(RunIsLocked), RunDir(tmp_path):
        pass
    monkeypatch.setattr(time, "sleep", lambda _: os.close(question))
    with RunDir(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_state_is_read_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ganrun.records.state import state_of; state_of(Path(sys.argv[1])); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 0


def test_reader_does_not_wait_for_a_fifo(tmp_path: Path) -> None:
    tmp_path /= "run"
    tmp_path.mkdir()
    for name in ("config.yaml", "result.json", "metrics.jsonl", ".lock"):
        os.mkfifo(tmp_path / name)
    assert state_of(tmp_path) == "missing"
    assert last_step(tmp_path) == 0
    assert FoundRuns(tmp_path.parent).configs == {}
    run_dir = RunDir(tmp_path)
    assert run_dir.result() is None
    assert list(run_dir.rows()) == []
    with pytest.raises(ValueError, match=r"config\.yaml: is damaged, or not a config of ganrun \(is no regular file\)"):
        run_dir.config()
    with pytest.raises(ValueError, match="is no regular file; remove it from the run directory"), run_dir:
        pass
    with pytest.raises(OSError, match="No such device"):
        opened_to_append(tmp_path / "metrics.jsonl")


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with RunDir(tmp_path / "r"), SweepDir(tmp_path / "s").locked():
        assert not is_locked(tmp_path / "r")


def test_odd_numbers_in_records_are_no_steps(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 4}\n{"step": Infinity}\n{"step": "x"}\n')
    (tmp_path / "config.yaml").write_text("train: {steps: .inf}\n")
    assert (last_step(tmp_path), steps_of(tmp_path)) == (4, 0)
