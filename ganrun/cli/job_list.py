"""The jobs of a sweep as a list, for sweeps that are no product: `jobs` in an experiment, or `sweep_file=runs.yaml`."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override

from ganrun.checks import fits
from ganrun.cli.overrides import parse, quote_path, single_choices


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


def selected_jobs(jobs: Sequence[Sequence[str]], typed: Sequence[Override]) -> list[list[str]]:
    """The jobs that an experiment lists, with what was typed: this wins, as it does over all of an experiment.

    If the key of a job's first setting was typed, as in loss=wgan,hinge, only the jobs with these values are left.
    Raises ValueError if none is.
    """
    chosen = {o.key_or_group: [line.partition("=")[2] for line in single_choices(o)] for o in typed}
    found = []
    for job in jobs:
        (key, value), *_ = [(o.key_or_group, str(o.input_line).partition("=")[2]) for o in parse(job)]
        if value in chosen.get(key, [value]):
            found.append([job[0], *(line for line in job[1:] if parse([line])[0].key_or_group not in chosen)])
    if jobs and not found:
        names = ", ".join(dict.fromkeys(job[0] for job in jobs))
        raise ValueError(
            f"jobs: the experiment lists none with the settings typed, but {names}; jobs=[] ignores its list."
        )
    return found


def words(line: str, source: str) -> list[str]:
    """The settings in a line, in which quotes work as in a shell. Raises ValueError for a quote without an end."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        raise ValueError(f"{source}: the job {line} has a quote without an end.") from None
