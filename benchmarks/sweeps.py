"""Sweeps: the time of launch=local against launch=serial, and sweeps whose processes are killed.

    python benchmarks/sweeps.py timing        # 16 heights jobs, in turns, on two cores
    python benchmarks/sweeps.py kills [ray]   # 24 jobs, killed three times, with serial, local and ray

The results are in benchmarks/sweeps.json. Needs Linux, and ray for that launcher.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from machine import describe
from torch import Tensor

from ganrun.records.checkpoint import load_newest
from ganrun.records.sweep_dir import SweepDir

OUT = Path(__file__).with_suffix(".json")
GANRUN = [sys.executable, "-m", "ganrun"]
HEIGHTS = ["-m", "seed=range(16)", "experiment=heights"]
ROUNDS, STEPS = int(os.environ.get("ROUNDS", "3")), int(os.environ.get("STEPS", "2000"))
SEED = 17
KILLS = 3
DIGITS = ["data=digits", "arch=mlp_small", "metric=none", "train.batch_size=32"]
SHORT = ["train.sample_every=0", "train.diagnose=false", "train.threads=1", "train.checkpoint_every=50"]
LOSSES = ("nonsaturating", "wgan", "hinge")


def timing() -> dict[str, Any]:
    """Seconds of a sweep of 16 heights jobs, in turns with both launchers, on two cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    seconds: dict[str, list[float]] = {"serial": [], "local": []}
    cpu: dict[str, list[float]] = {"serial": [], "local": []}  # of all processes
    load: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            for launch in ("serial", "local") if number % 2 == 0 else ("local", "serial"):
                line = [*GANRUN, *HEIGHTS, f"train.steps={STEPS}", f"launch={launch}", f"run_dir={launch}_{number}"]
                began, before = time.perf_counter(), cpu_seconds()
                done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
                seconds[launch].append(round(time.perf_counter() - began, 1))
                cpu[launch].append(round(cpu_seconds() - before, 1))
                load.append(round(os.getloadavg()[0], 1))
                assert "16 of 16 jobs succeeded" in done.stdout, done.stdout + done.stderr
                print(launch, seconds[launch][-1], "s, load", load[-1], flush=True)
    ratios = [local / serial for serial, local in zip(seconds["serial"], seconds["local"], strict=True)]
    return {
        "jobs": 16, "steps": STEPS, "cores": 2, "seconds": seconds, "cpu_seconds": cpu,
        "load_average": load,
        "ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios],
    }  # fmt: skip


def cpu_seconds() -> float:
    """The CPU time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def kills(launch: str) -> dict[str, Any]:
    """Kill a sweep of 24 jobs three times, and compare its runs with those of an undisturbed sweep."""
    rng = random.Random(f"{SEED} {launch}")
    folder = Path(tempfile.mkdtemp())
    write_jobs(folder)
    line = [*GANRUN, "-m", "sweep_file=jobs.yaml", f"launch={launch}", *SHORT]
    began = time.perf_counter()
    whole = subprocess.run([*line, "run_dir=whole"], cwd=folder, capture_output=True, text=True)
    length = time.perf_counter() - began
    assert "24 of 24 jobs succeeded" in whole.stdout, whole.stdout + whole.stderr
    events, killed = [], SweepDir(folder / "killed")
    for _ in range(KILLS):
        share = rng.uniform(0.1, 0.3)
        process = subprocess.Popen(
            [*line, "run_dir=killed"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        time.sleep(share * length)
        victims = descendants(process.pid)
        some = rng.sample(victims, rng.randint(0, len(victims)))
        for pid in [process.pid, *some]:
            kill(pid)
        process.communicate()
        states = [killed.row(job).state for job in killed.jobs()]
        events.append({
            "after": round(share * length, 1), "killed": ["the command", f"{len(some)} of {len(victims)} others"],
            "finished": states.count("finished"),
        })  # fmt: skip
        print(launch, events[-1], flush=True)
    done = subprocess.run([*line, "run_dir=killed"], cwd=folder, capture_output=True, text=True)
    print(done.stdout[-200:], done.stderr[-2000:], flush=True)
    names = sorted(path.parent.name for path in (folder / "whole").glob("*/config.yaml"))
    same = [name for name in names if is_same(folder / "whole" / name, folder / "killed" / name)]
    left = descendants_of_sweep(folder)
    shutil.rmtree(folder)
    return {
        "jobs": len(names), "seconds_undisturbed": round(length, 1), "kills": events, "exit_code": done.returncode,
        "same_bits": len(same), "different": sorted(set(names) - set(same)), "processes_left": left,
    }  # fmt: skip


def write_jobs(folder: Path) -> None:
    """12 jobs with heights and 12 with digits, of three losses each."""
    jobs = [
        [f"loss={loss}", f"seed={seed}", *data]
        for data in (["data=heights", "train.steps=400"], [*DIGITS, "train.steps=200"])
        for loss in LOSSES
        for seed in range(4)
    ]
    (folder / "jobs.yaml").write_text(json.dumps(jobs))


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and that these have started."""
    rows = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout.split("\n")
    parent = {int(row.split()[0]): int(row.split()[1]) for row in rows if row}
    found = [pid]
    for candidate in found:
        found += [child for child, its in parent.items() if its == candidate]
    return found[1:]


def descendants_of_sweep(folder: Path) -> int:
    """The number of processes that still work in the folder, two seconds after the end of the command."""
    time.sleep(2)
    found = 0
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found += Path(os.readlink(path)).is_relative_to(folder)
        except OSError:
            continue
    return found


def is_same(a: Path, b: Path) -> bool:
    """Whether two runs have the same weights, optimizer states, and rows, bit for bit."""
    states = [load_newest(path / "checkpoints") or {} for path in (a, b)]
    kept = [{key: value for key, value in state.items() if key not in ("config", "seconds")} for state in states]
    return bool(kept[0]) and equal(kept[0], kept[1]) and rows(a) == rows(b)


def rows(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in found]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def main(what: Sequence[str]) -> None:
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    if "timing" in what:
        results["timing"] = describe() | timing()
        OUT.write_text(json.dumps(results, indent=2) + "\n")
    if "kills" in what:
        for launch in [name for name in what if name != "timing"][1:] or ("serial", "local", "ray"):
            results.setdefault("kills", {})[launch] = describe() | kills(launch)
            OUT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ["timing", "kills"])
