"""Small run directories, written without training, for tests and benchmarks of reports."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from helpers import config_of

from ganrun.figures.grid import save_png
from ganrun.metric_key import MetricKey
from ganrun.records.run_dir import RunDir

KEYS = {
    "ks_100k": MetricKey("lower"),
    "w1_100k": MetricKey("lower", unit="data"),
    "modes_2500": MetricKey("higher", unit="modes"),
    "mean_100k": MetricKey(unit="data", true="mean_true"),
    "speed": MetricKey(),
}
COLLAPSE = {
    "name": "mode_collapse",
    "measurement": "20% are lost",
    "threshold": "",
    "origin": "",
    "remedy": "ganrun x=1",
}


def write_run(
    path: Path | str,
    *typed: str,
    seed: int = 0,
    metrics: Mapping[str, float] | None = None,
    status: str | None = "finished",
    steps: int = 300,
    keys: Mapping[str, MetricKey] = KEYS,
    command: bool = True,
    findings: Sequence[Mapping[str, str]] = (),
    picture: bool = False,
    **result: Any,
) -> Path:
    """Write the directory of a run with logged rows at three steps.

    metrics: its final ones; in the rows they are larger before the end. status: in result.json; None: it has none.
    command: whether there is a command.json, with what was `typed` and the seed.
    """
    path, metrics = Path(path), metrics or {}
    path.mkdir(parents=True)
    run_dir = RunDir(path)
    run_dir.write_config(config_of(*typed) | {"seed": seed, "run_dir": str(path)})
    if command:
        run_dir.write_overrides([*typed, f"seed={seed}"])
    run_dir.describe_metrics(keys)
    with run_dir:
        for i in (1, 2, 3):
            step = steps * i // 3
            values = {"loss/d": 1.4, "loss/g": 0.7, "accuracy/pairs": 0.5 + 0.1 * i, "time/steps_per_sec": 100.0}
            run_dir.log_row({"step": step, "nimg": 64 * step, **values})
            if metrics:
                run_dir.log_row({"step": step, **{f"metric/{k}": v * (4 - i) for k, v in metrics.items()}})
            if picture:
                noise = np.random.default_rng([seed, step]).integers(0, 256, (40, 40, 3), np.uint8)
                save_png(noise, run_dir.samples / f"step_{step:08d}.png")
    if status is not None:
        diagnosis = {"name": findings[0]["name"] if findings else "healthy", "findings": list(findings)}
        diagnosis["measurements"] = {"energy": 0.01 * (seed + 1), "coverage": 0.9}
        found = {"status": status, "steps": steps, "nimg": 64 * steps, "wall_time": 3.0, "diagnosis": diagnosis}
        run_dir.write_result({**found, "metrics": dict(metrics) if status == "finished" else {}, **result})
    return path


def write_sweep(folder: Path | str, values: Mapping[str, Sequence[float]], *typed: str, key: str = "ks_100k") -> Path:
    """A run for each seed of each choice, as in {"loss=wgan": [0.3, 0.2]}, in folders named as a sweep does."""
    for choice, listed in values.items():
        for seed, value in enumerate(listed):
            name = f"{choice.replace(' ', '_')}_seed={seed}"
            write_run(Path(folder) / name, *choice.split(), *typed, seed=seed, metrics={key: value})
    return Path(folder)


def loaded(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())
