"""The state of a run, from its directory."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganrun.records.run_dir import RunDir, RunIsLocked
from ganrun.records.state import is_locked, state_of


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
