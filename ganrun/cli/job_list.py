"""The jobs of a sweep as a list, for sweeps that are no product: `jobs` in an experiment, or `sweep_file=runs.yaml`."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from ganrun.checks import fits
from ganrun.cli.overrides import quote_path


def read_sweep_file(name: str, paths: Collection[str]) -> list[list[str]]:
    """The settings of each job in a file. paths: the keys of paths, whose values are quoted.

    Raises ValueError if it cannot be read, and for anything but a list of jobs.
    """
    path = Path(name).expanduser()
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ValueError(f"sweep_file={name}: cannot be read ({reason}).") from None
    except yaml.YAMLError as error:
        raise ValueError(f"sweep_file={name}: is no YAML ({str(error).splitlines()[0]}).") from None
    if not isinstance(found, list) or not found:
        raise ValueError(f"sweep_file={name}: has no list of jobs, with lines as in `- [loss=wgan, seed=0]`.")
    return listed_jobs(found, paths, f"sweep_file={name}")


def listed_jobs(found: Sequence[Any], paths: Collection[str], source: str = "jobs") -> list[list[str]]:
    """The settings of each job in a list. A job is a list of settings, or a line as on the command line.

    paths: the keys of paths, whose values are quoted. source: names the list in errors. Raises ValueError for anything
    else.
    """
    jobs = [words(job, source) if isinstance(job, str) else job for job in found]
    for number, job in enumerate(jobs, 1):
        if not fits(job, list[str]) or not all("=" in line or line.startswith("~") for line in job):
            raise ValueError(
                f"{source}: job {number} is {job}, and must be a list of settings, as in `- [loss=wgan, seed=0]`."
            )
    return [[quote_path(line, paths, sweep=True) for line in job] for job in jobs]


def words(line: str, source: str) -> list[str]:
    """The settings in a line, in which quotes work as in a shell. Raises ValueError for a quote without an end."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        raise ValueError(f"{source}: the job {line} has a quote without an end.") from None
