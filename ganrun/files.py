"""Files that are locked, or written without following links, since a run directory may come from someone else."""

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

IS_WINDOWS = os.name == "nt"
LOCK_TRIES = 10
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of flock on a file system without locks
MARK = "drawn by ganrun"  # a comment in picture files, which are not read as training data


def cache_folder() -> Path:
    """The folder for what can be computed again: $XDG_CACHE_HOME/ganrun, or ~/.cache/ganrun."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ganrun")


@contextmanager
def temporary_file(path: Path) -> Iterator[None]:
    """Create an empty file, which stays locked against `remove_left`. Raises OSError if there is one, or a link."""
    with _locked(_opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)):
        yield


@contextmanager
def temporary_folder(path: Path) -> Iterator[None]:
    """Create a folder, which stays locked against `remove_left`. Raises OSError if there is one."""
    path.mkdir()
    if IS_WINDOWS:  # which cannot open folders
        yield
        return
    with _locked(os.open(path, os.O_RDONLY)):
        yield


@contextmanager
def _locked(file: int) -> Iterator[None]:
    if IS_WINDOWS:  # which has no flock, and does not rename open files
        os.close(file)
        yield
        return
    try:
        with suppress(BlockingIOError):  # `remove_left` of another process was faster; the file is created again
            lock(file)
        yield
    finally:
        os.close(file)


def remove_left(paths: Iterable[Path]) -> None:
    """Remove temporary files and folders that a killed process has left, which are those that none has locked."""
    for path in paths:
        with suppress(OSError):  # locked, or removed by another process
            if path.is_symlink() or IS_WINDOWS:
                path.unlink()
                continue
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                lock(file, tries=1)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            finally:
                os.close(file)


def opened_to_append(path: Path) -> TextIO:
    """A text file to append to. Raises OSError if the path is a symbolic link."""
    return open(path, "a", encoding="utf-8", errors="backslashreplace", opener=_opened)


def _opened(path: str | Path, flags: int) -> int:
    """A file that is no link. Opening a FIFO, which has no reader, is an error in place of waiting for one."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def read_file(path: Path, tail: int | None = None) -> bytes:
    """The content of a regular file, or its last `tail` bytes.

    Raises ValueError for anything else, as for a FIFO, whose reader would wait.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(file, "rb") as opened:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is no regular file")
        opened.seek(max(0, found.st_size - tail) if tail else 0)
        return opened.read()


def lock(file: TextIO | int, tries: int = LOCK_TRIES) -> None:
    """Lock a file, or a descriptor of one. Raises BlockingIOError if another process has locked it.

    Does nothing on a system or a file system without flock. It tries again for a moment, in which
    `ganrun.records.state.is_locked` may share the lock.
    """
    try:
        import fcntl
    except ImportError:
        return
    for left in reversed(range(tries)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.01)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            break


def link_out_of(folder: Path, but: str) -> Path | None:
    """A symbolic link in the folder, or in a folder below it, that leads out of it, or None. No link is followed.

    but: the pattern of links, relative to the folder, that may do so, since nothing is written through them.
    """
    inside = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if (
                path.is_symlink()
                and not path.relative_to(folder).match(but)
                and not path.resolve().is_relative_to(inside)
            ):
                return path
    return None


def special_file(folder: Path) -> Path | None:
    """A file in the folder that is no regular one, such as a FIFO, or None. Links are not followed."""
    kinds = (stat.S_ISREG, stat.S_ISLNK)
    paths = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return next((path for path in paths if not any(kind(path.lstat().st_mode) for kind in kinds)), None)


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all, also if the process is killed. It is not flushed to the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", errors="backslashreplace", opener=_opened_to_replace) as file:
            file.write(text)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _opened_to_replace(path: str | Path, flags: int) -> int:
    return _opened(path, flags | os.O_TRUNC)
