"""search.json in the directory of a search: its space, objectives and settings, which all its trials have in common."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ganrun.config import flat
from ganrun.files import read_file
from ganrun.records.checkpoint import write_atomically
from ganrun.records.run_dir import LEFTOVERS
from ganrun.records.state import may_differ
from ganrun.search.options import Direction
from ganrun.search.space import Problem, name_of

NAME = "search.json"


def record_of(
    problem: Problem, metrics: Sequence[str], directions: Sequence[Direction], seeds: Sequence[int]
) -> dict[str, Any]:
    """The record of a search, with one key for everything that must not change.

    The settings are those of one possible trial.
    """
    space = {name_of(parameter): "".join(parameter.typed.partition("=")[2].split()) for parameter in problem.parameters}
    goals = {"search.metric": list(metrics), "search.direction": list(directions), "search.seeds": len(seeds)}
    config = {key: value for key, value in flat(problem.compose(problem.first[0])).items() if not may_differ(key)}
    return config | goals | space


def check_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record into a new directory, or compare it with that of an existing search. Called with its lock.

    Raises ValueError if the directory contains anything else than this search.
    """
    path = folder / NAME
    if "?" in str(folder):
        raise ValueError(f"run_dir={folder}: must have no question mark, as in addresses of SQLite.")
    if not path.exists():
        if other := next((entry for entry in folder.iterdir() if entry.name not in LEFTOVERS), None):
            raise ValueError(f"run_dir={folder}: contains {other.name}, but no search; choose a new directory.")
        text = json.dumps(record, indent=2) + "\n"
        write_atomically(path, lambda partial: partial.write_text(text))
        return
    before = read(path)
    now = json.loads(json.dumps(record))
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        named = [f"{key} ({before.get(key)} there, {now.get(key)} now)" for key in changed]
        raise ValueError(
            f"run_dir={folder}: contains another search, which differs in {', '.join(named)}; choose a new run_dir."
        )


def read(path: Path) -> dict[str, Any]:
    """The record in a file. Raises ValueError if it is damaged."""
    try:
        found = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is damaged ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: is damaged (it is not a record of a search).")
    return found
