"""The runs of a report, from paths and patterns on the command line."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from ganrun.records.run_dir import RunDir


def find_runs(runs: str | Sequence[str]) -> list[Path]:
    """The named run directories, and those that match the patterns, without duplicates."""
    found: dict[Path, Path] = {}
    for pattern in listed(runs) if isinstance(runs, str) else runs:
        path = Path(pattern).expanduser()
        paths = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(str(path))) if RunDir(Path(p)).is_run]
        if not paths:
            raise ValueError(f"runs={pattern}: no run there; name run directories, as in 'runs=[DIR,DIR]'.")
        for path in paths:
            RunDir(path).config()  # raises ValueError if it is not a run
            found.setdefault(path.resolve(), path)
    if not found:
        raise ValueError("runs=[]: names no run; name run directories, as in 'runs=[DIR,DIR]'.")
    return list(found.values())


def listed(runs: str) -> list[str]:
    """The items of a list as typed on the command line. An existing path is always a single item.

    >>> listed("[outputs/mnist_[01], 'a,b']"), listed("mnist_[01]")
    (['outputs/mnist_[01]', 'a,b'], ['mnist_[01]'])
    """
    if Path(runs).expanduser().exists():
        return [runs]
    inner = runs[1:-1] if runs.startswith("[") and runs.endswith("]") else runs
    return [item.strip(" '\"") for item in re.findall(r"""\s*(?:'[^']*'|"[^"]*"|[^,])+""", inner)]
