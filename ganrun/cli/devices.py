"""The cores and GPUs of this machine, and how jobs that run side by side share them. Does not import torch."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ganrun.files import opened_to_append

CORES = "GANRUN_CORES"  # the cores that a job may use for train.threads=0
VISIBLE = "CUDA_VISIBLE_DEVICES"
WAIT = 0.5  # seconds between two looks for a free GPU


@dataclass(frozen=True)
class Share:
    """What each job may use. threads: None if they are left to the job. gpus: of which it takes one; per_gpu: jobs."""

    threads: int | None = None
    gpus: tuple[str, ...] = ()
    per_gpu: int = 1


def cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not available on every system
        return os.cpu_count() or 1


def gpus() -> list[str]:
    """The NVIDIA GPUs of this machine, or those of them that CUDA_VISIBLE_DEVICES lists, as it names them."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = [str(k) for k, line in enumerate(x for x in done.stdout.splitlines() if x.startswith("GPU "))]
    if done.returncode or not found or VISIBLE not in os.environ:
        return [] if done.returncode else found
    listed = [name.strip() for name in os.environ[VISIBLE].split(",")]
    return listed[: listed.index("-1")] if "-1" in listed else [name for name in listed if name]


def use(share: Share, is_stopped: Callable[[], bool]) -> IO[str] | None:
    """Let this process use its share: call it before CUDA is initialized, and keep the file, which locks the GPU."""
    if share.threads:
        os.environ[CORES] = str(share.threads)
    if not share.gpus:
        return None
    device, lock = free_gpu(share.gpus, share.per_gpu, is_stopped)
    os.environ[VISIBLE] = device
    return lock


def free_gpu(names: Sequence[str], per_gpu: int, is_stopped: Callable[[], bool]) -> tuple[str, IO[str]]:
    """A GPU on which fewer than `per_gpu` jobs of this user run, also of other sweeps, and the file that locks it.

    Waits until there is one. Raises InterruptedError if the sweep is stopped meanwhile.
    """
    import fcntl

    folder = lock_folder()
    while not is_stopped():
        for slot in range(per_gpu):
            for name in names:
                file = opened_to_append(folder / f"{name.replace('/', '_')}.{slot}")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return name, file
                except BlockingIOError:
                    file.close()
        time.sleep(WAIT)
    raise InterruptedError("the sweep was stopped.")


def lock_folder() -> Path:
    """The folder of the locks of this user's GPUs. Raises OSError if it is someone else's."""
    folder = Path(tempfile.gettempdir()) / f"ganrun-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder}: belongs to someone else")
    return folder
