"""Results that are computed once from data, and kept in a cache folder by the content that they depend on."""

import hashlib
import io
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from ganrun.data.dataset import DataSpec, Split
from ganrun.files import cache_folder, lock

log = logging.getLogger("ganrun")

ROWS = 4096  # examples hashed at a time, which bounds the memory
DIGEST = hashlib.sha256().digest_size  # bytes at the beginning of a file: the hash of the rest
WAIT = 0.1  # seconds between two tries to lock an entry


def digest(split: Split, spec: DataSpec) -> str:
    """A hash of a split's content, 32 hexadecimal digits: examples, labels, and how examples are decoded."""
    found = hashlib.sha256(repr((tuple(split.x.shape), split.x.dtype, spec.value_range, spec.gcn)).encode())
    for x in split.x.split(ROWS):
        found.update(x.cpu().contiguous().numpy().data)
    if split.y is not None:
        found.update(split.y.cpu().contiguous().numpy().data)
    return found.hexdigest()[:32]


def digest_of(*parts: Any) -> str:
    """A hash of plain values, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def digest_of_state(state: dict[str, Tensor]) -> str:
    """A hash of a network's weights, 32 hexadecimal digits."""
    found = hashlib.sha256()
    for name, value in state.items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]


def cached(name: str, compute: Callable[[], dict[str, Any]], folder: str | None = None) -> dict[str, Any]:
    """The entry `name`, as `compute` returns it: a dictionary of tensors and plain values. It is computed only once.

    Of several processes that need it at the same time, one computes it, and the others wait. A damaged file is
    computed again, with a warning. If the folder cannot be written, the result is not kept, with a warning.
    folder: null: the cache folder of the user.
    """
    where = Path(folder) if folder else cache_folder()
    path = where / f"{name}.pt"
    if (found := _read(path, logging.DEBUG)) is not None:
        return found
    with _locked(path) as is_locked:
        found = _read(path)  # another process may have computed it
        if found is None:
            found = compute()
            if is_locked:
                _write(path, found)
    return found


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock the entry. Gives whether it can be written. The lock file stays: removing it could let two processes in."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f".{path.name}.lock").open("a")
    except OSError as error:
        _warn_unwritten(path, error)
        yield False
        return
    with file:
        _wait(file, path)
        for left in path.parent.glob(f".{path.name}.*.partial"):  # by a process that was killed
            left.unlink(missing_ok=True)
        yield True


def _warn_unwritten(path: Path, error: OSError) -> None:
    log.warning("%s: cannot be written (%s); the result is not kept.", path, error.strerror or error)


def _wait(file: TextIO, path: Path) -> None:
    told = False
    while True:
        try:
            lock(file)
            return
        except BlockingIOError:
            if not told:
                log.info("cache      waiting for another process, which computes %s", path.name)
                told = True
            time.sleep(WAIT)


def _read(path: Path, level: int = logging.WARNING) -> dict[str, Any] | None:
    """The content of a file, or None if there is none, or a damaged one, which is logged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.log(level, "%s: cannot be read (%s); it is computed again.", path, error.strerror)
        return None
    if hashlib.sha256(content[DIGEST:]).digest() == content[:DIGEST]:
        found = torch.load(io.BytesIO(content[DIGEST:]), weights_only=True)
        if isinstance(found, dict):
            return found
    log.log(level, "%s: is damaged; it is computed again.", path)
    return None


def _write(path: Path, found: dict[str, Any]) -> None:
    """Write the file whole or not at all, also if the process is killed. Warns if it cannot be written."""
    buffer = io.BytesIO()
    torch.save(found, buffer)
    content = buffer.getbuffer()
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(content).digest())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except OSError:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        _warn_unwritten(path, error)
