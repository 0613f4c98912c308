"""`ganrun report`: time, memory and opening time for 500 runs, and its statistics against known answers.

python benchmarks/report.py [statistics|runs]: only one of both. Writes benchmarks/report.json.
"""

import json
import os
import re
import shutil
import statistics as st
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from machine import describe
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from sweeps import KEYS

from ganrun.reports.statistics import difference, holm, mean_of

OUT = Path(__file__).with_suffix(".json")
SEEDS = (3, 5, 10, 20)
SIMULATIONS = 10_000
RESAMPLES = 500
SHAPES: dict[str, tuple[Callable[..., np.ndarray], float]] = {  # distributions of values over seeds, and their means
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "uniform": (lambda rng, size: rng.uniform(-1, 1, size), 0.0),
    "t, 5 degrees of freedom (heavy tails)": (lambda rng, size: rng.standard_t(5, size), 0.0),
    "gamma, shape 4 (skewness 1)": (lambda rng, size: rng.gamma(4, 1, size), 4.0),
    "lognormal, sigma 1 (skewness 6)": (lambda rng, size: rng.lognormal(0, 1, size), float(np.exp(0.5))),
    "normal, 10% collapsed at +6": (lambda rng, size: rng.normal(size=size) + 6 * (rng.random(size) < 0.1), 0.6),
}


def coverage() -> dict[str, Any]:
    """How often 95% intervals cover the true mean: Student's, and those of a percentile bootstrap for comparison."""
    found: dict[str, Any] = {}
    for name, (draw, mean) in SHAPES.items():
        rng = np.random.default_rng(0)
        found[name] = {}
        for n in SEEDS:
            x = draw(rng, (SIMULATIONS, n))
            ends = np.array([mean_of(row).interval for row in x.tolist()])
            student = np.mean((ends[:, 0] <= mean) & (mean <= ends[:, 1]))
            part = x[:2000]
            picks = rng.integers(0, n, (len(part), RESAMPLES, n))
            means = np.take_along_axis(part[:, None, :].repeat(RESAMPLES, 1), picks, 2).mean(2)
            low, high = np.quantile(means, [0.025, 0.975], axis=1)
            bootstrap = np.mean((low <= mean) & (mean <= high))
            found[name][f"n={n}"] = {"student": round(float(student), 4), "bootstrap": round(float(bootstrap), 3)}
    return found


def differences() -> list[dict[str, Any]]:
    """Coverage of the intervals of differences, and false alarms, for unequal spreads (1 and 2)."""
    found = []
    for n in SEEDS:
        for paired in (True, False):
            for shift in (0.0, 1.5):
                rng = np.random.default_rng([n, paired])
                covered = alarms = 0
                for _ in range(SIMULATIONS):
                    shared = 2 * rng.normal(size=n) * paired
                    first = dict(enumerate((shared + shift + rng.normal(size=n)).tolist()))
                    other = enumerate((shared + rng.normal(0, 2, n)).tolist(), start=0 if paired else n)
                    d = difference(first, dict(other))
                    assert d is not None
                    covered += d.interval[0] <= shift <= d.interval[1]
                    alarms += d.p <= 0.05
                test = "paired" if paired else "Welch"
                row = {"n": n, "test": test, "true difference": shift, "coverage": covered / SIMULATIONS}
                found.append(
                    row | ({"false alarms": alarms / SIMULATIONS} if not shift else {"power": alarms / SIMULATIONS})
                )
    return found


def families() -> list[dict[str, Any]]:
    """Any false alarm among the best 8 of k equal settings, as a report compares them; also with unequal spreads."""
    found = []
    for k, n, spreads in ((2, 5, 1), (3, 3, 1), (3, 5, 1), (8, 5, 1), (30, 5, 1), (30, 3, 1), (8, 5, 3), (30, 5, 3)):
        rng, alarms, num = np.random.default_rng([k, n, spreads]), 0, 2000
        for _ in range(num):
            x = rng.normal(size=(k, n)) * np.linspace(1, spreads, k)[:, None]
            best = sorted(x, key=np.mean)[:8]
            pairs = [(a, b) for i, a in enumerate(best) for b in best[i + 1 :]]
            tests = [difference(dict(enumerate(a)), dict(enumerate(b))) for a, b in pairs]
            alarms += min(holm(d.p for d in tests if d)) <= 0.05
        found.append({"settings": k, "n": n, "largest spread / smallest": spreads, "any false alarm": alarms / num})
    return found


def write_runs(folder: Path) -> None:
    """500 runs: 5 losses x 5 learning rates x 4 batch sizes x 5 seeds, with 60 logged rows, metrics and pictures."""
    from helpers import config_of

    rng = np.random.default_rng(0)
    for loss in ("minimax", "nonsaturating", "lsgan", "hinge", "wgan"):
        base = config_of(f"loss={loss}", "train.steps=6000")
        for lr in (0.0001, 0.0003, 0.001, 0.003, 0.01):
            for size in (50, 100, 200, 400):
                typed = [f"loss={loss}", f"optimizer.lr={lr}", f"train.batch_size={size}", "train.steps=6000"]
                config = base | {
                    "optimizer": base["optimizer"] | {"lr": lr},
                    "train": base["train"] | {"batch_size": size},
                }
                level = abs(np.log10(lr) + 3) + 0.2 * rng.random()
                for seed in range(5):
                    path = folder / "_".join([*typed[:3], f"seed={seed}"])
                    write_one(path, [*typed, f"seed={seed}"], config | {"seed": seed}, level, rng)


def write_one(path: Path, typed: list[str], config: dict[str, Any], level: float, rng: np.random.Generator) -> None:
    (path / "samples").mkdir(parents=True)
    size = config["train"]["batch_size"]
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (path / "command.json").write_text(json.dumps(typed))
    keys = {name: asdict(KEYS[name]) for name in ("ks_100k", "w1_100k")}
    (path / "metric_keys.json").write_text(json.dumps(keys))
    rows: list[dict[str, Any]] = []
    for step in range(100, 6001, 100):
        logged = {"loss/d": 1.4, "loss/g": 0.7, "logits/real": 0.1, "logits/fake": -0.1, "accuracy/pairs": 0.6}
        logged |= {"grad_norm/d": 0.1, "grad_norm/g": 0.2, "time/steps_per_sec": 500.0}
        rows.append({"step": step, "nimg": step * size, **{k: v + 0.05 * rng.normal() for k, v in logged.items()}})
        if step % 1000 == 0:
            rows.append({"step": step, "metric/ks_100k": level + 300 / step, "metric/w1_100k": 2 * level})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = {"ks_100k": level + 0.05 * rng.normal(), "w1_100k": 2 * level}
    finding = {"name": "not_converged", "measurement": "samples differ", "remedy": "ganrun " + " ".join(typed)}
    diagnosis = {"name": "not_converged", "findings": [finding], "measurements": {"energy": 0.1, "coverage": 0.5}}
    result = {"status": "finished", "steps": 6000, "nimg": 6000 * size, "wall_time": 12.0, "metrics": metrics}
    (path / "result.json").write_text(json.dumps(result | {"diagnosis": diagnosis}))
    for step in (3000, 6000):
        image = rng.integers(0, 256, (60, 60, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(image).save(path / "samples" / f"step_{step:08d}.png")


MEASURE = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
assert status == 0, status
print(json.dumps([time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


def measured(command: list[str], cwd: Path) -> tuple[float, float, float]:
    """Wall-clock and CPU time in seconds, and peak memory in MB, of a process.

    Started by a small process, since the peak of a process counts from the memory of the one that it was forked from.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], cwd=cwd, capture_output=True, text=True, check=True
    )
    wall, cpu, memory = json.loads(done.stdout)
    return wall, cpu, memory


def open_in_chromium(page: Path, folder: Path) -> dict[str, float] | None:
    """Milliseconds from the start of the navigation to its end, by the browser's own clock; median of five."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    script = """addEventListener('load', () => {
      document.body.offsetHeight; document.body.dataset.ms = performance.now(); });"""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page.read_text())
    timed = folder / "timed.html"
    timed.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    line = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    line += ["--dump-dom", timed.as_uri()]
    loads = []
    for _ in range(5):
        dom = subprocess.run(line, capture_output=True, text=True).stdout
        loads.append(float(re.search(r'data-ms="([\d.]+)"', dom)[1]))  # type: ignore[index]
    return {"median ms until loaded and laid out": round(st.median(loads)), "largest": round(max(loads))}


def runs() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_runs(folder / "s")
        command = [sys.executable, "-m", "ganrun", "report", "s"]
        trials = [measured(command, folder) for _ in range(5)]
        page = folder / "s" / "report" / "report.html"
        return {
            "runs": 500,
            "settings": 100,
            "seconds": sorted(round(wall, 2) for wall, _, _ in trials),
            "CPU seconds": sorted(round(cpu, 2) for _, cpu, _ in trials),
            "peak memory in MB": round(max(memory for *_, memory in trials)),
            "page in MB": round(page.stat().st_size / 1e6, 2),
            "opening the page": open_in_chromium(page, folder),
            "load of the machine, other processes included": round(os.getloadavg()[0], 1),
        }


def main(only: str) -> None:
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    found["machine"] = describe()
    if only in ("", "runs"):
        found["500 runs"] = runs()
    if only in ("", "statistics"):
        found["coverage of 95% intervals of means"] = coverage()
        found["differences"] = differences()
        found["comparisons of several equal settings"] = families()
    OUT.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
