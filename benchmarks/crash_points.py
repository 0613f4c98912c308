"""Crashes at every file operation of short runs and of other commands. Writes benchmarks/crash_points.json.

Each command runs once in full, with every state recorded in which a crash can leave the disk (tests/crashes.py). From
each different state the next command continues, and all records are compared bit for bit with those of a run without a
crash. Then processes are killed just before and just after each operation, which must leave one of these states.

`python benchmarks/crash_points.py NAME ...` runs only these commands, and keeps the other results.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from machine import describe

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from crashes import DCGAN, HEIGHTS, Campaign, resume
from helpers import kill_at, train_in

OUT = Path(__file__).with_suffix(".json")


def campaigns(folder: Path, names: list[str]) -> Iterator[tuple[str, Campaign]]:
    """The campaigns of these names, or all."""
    before = {name: folder / name for name in ("empty", "heights", "dcgan", "killed")}
    for path in before.values():
        path.mkdir()
    train_in(before["heights"], HEIGHTS)
    train_in(before["dcgan"], DCGAN)
    kill_at(3, HEIGHTS, before["killed"])
    lines: dict[str, tuple[str, list[str]]] = {
        "heights": ("empty", HEIGHTS),
        "dcgan": ("empty", DCGAN),
        "resume": ("killed", ["resume", "run_dir=r"]),
        "extend": ("heights", ["resume", "run_dir=r", "train.steps=6"]),
        "evaluate": ("dcgan", ["evaluate", "run_dir=r", "metric=neighbors", "metric.neighbors.num=64"]),
        "sample": ("dcgan", ["sample", "run_dir=r", "num=20"]),
        "sample png": ("dcgan", ["sample", "run_dir=r", "num=3", "format=png"]),
        "figures": ("heights", ["figures", "run_dir=r"]),
    }
    for name, (start, line) in lines.items():
        if not names or name in names:
            scratch = folder / f"crashes of {name}"
            scratch.mkdir()
            again = partial(resume, line=line) if start == "empty" else None
            yield name, Campaign(before[start], line, scratch, again)
            shutil.rmtree(scratch)


def run(campaign: Campaign) -> None:
    """Continue from all states, and kill processes at all operations. Prints each difference."""
    for key in campaign.different:
        if found := campaign.recover(key):
            print(campaign.describe(key)[0], found, flush=True)
    labels = [label for moment, label, kind, _ in campaign.crashes if (moment, kind) == ("after", "killed")]
    for label in labels:
        for moment in ("before", "after"):
            if found := campaign.kill(moment, label):
                print("killed", moment, label, found, flush=True)


def main() -> None:
    results = json.loads(OUT.read_text())["commands"] if OUT.exists() and sys.argv[1:] else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, campaign in campaigns(Path(folder), sys.argv[1:]):
            run(campaign)
            results[name] = {"command": " ".join(["ganrun", *campaign.line]), **campaign.counts()}
            print(name, json.dumps(results[name]), flush=True)
            OUT.write_text(json.dumps({"machine": describe(), "commands": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
