"""Settings of the process: device, threads, and deterministic results."""

import math
import os
from pathlib import Path

import torch

from ganrun.data.dataset import DataSpec
from ganrun.training.eager import skip_compiler_import


def choose_device(name: str, key: str = "train.device") -> torch.device:
    """The device `name`; auto: CUDA, else MPS, else the CPU. Raises ValueError if it is not available."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"{key}={name}: not available here; use auto, or cpu.") from error
    if device.type not in ("cuda", "mps", "cpu"):
        raise ValueError(f"{key}={name}: must be auto, cuda, mps or cpu.")
    return device


def prepare_process(threads: int, spec: DataSpec) -> None:
    """Set the number of threads, make CUDA deterministic, and keep torch from importing its compiler."""
    set_threads(threads, spec)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    skip_compiler_import()


def set_threads(threads: int, spec: DataSpec) -> None:
    """Use `threads`; 0: one for vectors, whose operations are too small to parallelize, and all cores for images."""
    torch.set_num_threads(threads or (available_cores() if spec.is_image else 1))


def memory_format(channels_last: bool | None, spec: DataSpec) -> torch.memory_format:
    """The memory format of networks and batches. None: channels_last for images, which was measured to be faster."""
    return torch.channels_last if channels_last is not False and spec.is_image else torch.contiguous_format


def peak_memory(device: torch.device) -> float | None:
    """The peak memory so far, in GiB: of torch's tensors on CUDA, else of the process. None if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM:")), None)


def memory_of(device: torch.device) -> float:
    """The memory of the device in bytes; of the machine for the CPU, or infinity if it is unknown."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError):  # not available on every system
        return math.inf


def available_cores() -> int:
    """The cores that this process may use: its share of those of a sweep, else all (ganrun/cli/devices.py)."""
    if share := os.environ.get("GANRUN_CORES"):
        return int(share)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not available on every system
        return os.cpu_count() or 1
