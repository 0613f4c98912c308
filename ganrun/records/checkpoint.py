"""Checkpoints: written atomically, verified when read, and loadable with weights_only=True.

torch is imported only to write or read one, so that the other files of a run can be read without it.
"""

import glob
import io
import logging
import os
import pickle
import re
import secrets
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ganrun.checks import fits
from ganrun.files import remove_left, temporary_file
from ganrun.records import shapes
from ganrun.records.legacy import upgraded_state

log = logging.getLogger("ganrun")

FORMAT = 2  # format 1 has other names (legacy.py)


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}.pt"


def best_path(folder: Path) -> Path:
    return folder / "best.pt"


def steps_in(folder: Path) -> list[int]:
    """The steps of all checkpoints in `folder`, ascending."""
    found = (re.fullmatch(r"step_(\d{8,})\.pt", path.name) for path in folder.glob("step_*.pt"))
    return sorted(int(match[1]) for match in found if match)


def save(folder: Path, state: dict[str, Any], keep: int, keep_every: int) -> None:
    """Write the checkpoint of state["step"], then remove old ones, and any of later steps, which a resume has skipped.

    Kept are the newest `keep`, and those at multiples of `keep_every` (0: none). The old ones are removed only when the
    new one is on the disk.
    """
    _make(folder)
    write_atomically(path_of(folder, state["step"]), partial(_save, state))
    for step in steps_in(folder):
        if step > state["step"]:  # damaged
            path_of(folder, step).unlink()
    remove_old(folder, state["step"], keep, keep_every)


def remove_old(folder: Path, newest: int, keep: int, keep_every: int) -> None:
    """Remove the checkpoints that `save` does not keep, up to step `newest`, for example after it was killed."""
    steps = [step for step in steps_in(folder) if step <= newest]
    for step in steps[:-keep]:
        if not keep_every or step % keep_every:
            path_of(folder, step).unlink()


def save_best(folder: Path, state: dict[str, Any]) -> None:
    """Write the state as the best checkpoint, replacing the previous one."""
    _make(folder)
    write_atomically(best_path(folder), partial(_save, state))


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir()
        sync(folder.parent)


def _save(state: dict[str, Any], path: Path) -> None:
    import torch

    with _Writer(io.FileIO(path, "w")) as writer:
        try:
            torch.save({"format": FORMAT, **state}, writer)
        except RuntimeError as error:
            raise writer.error or error from None


class _Writer(io.BufferedWriter):
    """Keeps the error of a failed write: that of torch.save is only "unexpected pos"."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` write a temporary file next to `path`, and rename it to `path` once it is on the disk.

    The file is new and has a random name, so that no link is followed. A link at `path` is replaced. An OSError, as
    of a full disk, names `path`.
    """
    remove_left(path.parent.glob(f"{glob.escape(path.name)}.*.partial"))
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with errors_name(path), temporary_file(unfinished):
            write(unfinished)
            sync(unfinished)
            unfinished.replace(path)
            sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Let an error of the system name `path`: that of a failed write names no file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a library, with its own message
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power failure.

    Does nothing for a folder on a system that cannot open folders.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load(path: Path) -> dict[str, Any]:
    """The state in `path`, on the CPU. Raises ValueError if it is damaged; torch itself verifies no checksums."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{path}: is damaged (checksum of {damaged}).")
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        saved = ", ".join(map(str, steps_in(path.parent))) or "none"
        raise ValueError(f"{path}: no such checkpoint; saved steps: {saved}.") from None
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path}: cannot be read ({str(error).splitlines()[0] if str(error) else error!r})."
        ) from error
    number = state.pop("format", None) if isinstance(state, dict) else None
    if not fits(number, int) or number not in (1, FORMAT):
        raise ValueError(f"{path}: is not a checkpoint of this version of ganrun.")
    try:
        return shapes.state(upgraded_state(state) if number == 1 else state)
    except ValueError as error:
        raise ValueError(f"{path}: is damaged ({str(error).rstrip('.')}).") from error


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None. Warns of each damaged one that it skips."""
    for step in reversed(steps_in(folder)):
        try:
            return load(path_of(folder, step))
        except ValueError as error:
            log.warning("%s It is skipped.", error)
    return None
