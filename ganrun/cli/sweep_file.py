"""`sweep_file=runs.yaml`: the jobs of a sweep as a list, for sweeps that are no product."""

import shlex
from collections.abc import Collection
from pathlib import Path

import yaml

from ganrun.checks import fits
from ganrun.cli.overrides import quote_path


def read_sweep_file(name: str, paths: Collection[str]) -> list[list[str]]:
    """The settings of each job in a file. paths: the keys of paths, whose values are quoted.

    A job is a list of settings, or a line as on the command line. Raises ValueError for anything else.
    """
    path = Path(name).expanduser()
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ValueError(f"sweep_file={name}: cannot be read ({reason}).") from None
    except yaml.YAMLError as error:
        raise ValueError(f"sweep_file={name}: is no YAML ({str(error).splitlines()[0]}).") from None
    jobs = [shlex.split(job) if isinstance(job, str) else job for job in found] if isinstance(found, list) else []
    for number, job in enumerate(jobs, 1):
        if not fits(job, list[str]) or not all("=" in line or line.startswith("~") for line in job):
            raise ValueError(
                f"sweep_file={name}: job {number} is {job}, and must be a list of settings, as in "
                "`- [loss=wgan, seed=0]`."
            )
    if not jobs:
        raise ValueError(f"sweep_file={name}: has no list of jobs, with lines as in `- [loss=wgan, seed=0]`.")
    return [[quote_path(line, paths, sweep=True) for line in job] for job in jobs]
