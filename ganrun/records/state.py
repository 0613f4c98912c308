"""How far a run has come, read from its directory, also while it is running. Does not import torch."""

import json
import os
from pathlib import Path
from typing import Any, Literal

from ganrun.files import read_file

State = Literal["missing", "running", "finished", "diverged", "failed", "interrupted", "killed"]
ENDINGS: tuple[State, ...] = ("finished", "diverged", "failed", "interrupted")
MAY_DIFFER = {  # settings that may change when a run is resumed
    "run_dir",
    "trust",
    "tracker",
    "data.root",
    "data.download",
    "data.cache",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.diagnose",
}


def may_differ(key: str) -> bool:
    """Whether a setting may change when a run is resumed, without being one of conf/resume.yaml.

    >>> may_differ("tracker.wandb.project"), may_differ("data.num")
    (True, False)
    """
    return key in MAY_DIFFER or key.startswith("tracker.")


def state_of(path: Path) -> State:
    """The state of the run in a directory.

    missing: there is no run. running: a process has locked it. killed: it left no result, as after SIGKILL or a crash.
    The others are the status in result.json.
    """
    if is_locked(path):
        return "running"
    if not (path / "config.yaml").is_file():
        return "missing"
    status = ending_of(path).get("status")
    return next((state for state in ENDINGS if state == status), "killed")


def ending_of(path: Path) -> dict[str, Any]:
    """The content of result.json, which is not checked; empty if there is none, or none that can be read."""
    try:
        found = json.loads(read_file(path / "result.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_locked(path: Path) -> bool:
    """Whether a process has locked the run directory. Always False on a system or a file system without flock."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        file = os.open(path / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(file)
    return False
