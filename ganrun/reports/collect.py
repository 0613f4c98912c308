"""The runs of a report, read from their directories: also those that are running, have failed, or are damaged."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ganrun.config import Config
from ganrun.metric_key import MetricKey
from ganrun.records.run_dir import RunDir
from ganrun.records.state import State, state_of

CURVES = ("loss/d", "loss/g", "accuracy/pairs")  # drawn in addition to metrics
MOST_POINTS = 200  # of such a curve
DIAGNOSIS = {  # measurements of the diagnosis that can rank runs without metrics
    "diagnosis/energy": MetricKey("lower"),
    "diagnosis/coverage": MetricKey("higher"),
}
PICTURE = "step_[0-9]*.png"


@dataclass(frozen=True)
class Finding:
    """A finding of a run's diagnosis."""

    name: str
    measurement: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Run:
    """What a report needs of one run.

    typed: the settings that were typed to start it, None if they are unknown. metrics: the values that count, of step
    `step`; so far, if the run has not ended. steps: completed. curves: by tag, arrays (2, n) of steps and values.
    clock: (3, n), steps, images seen and seconds at moments of the run. diagnosis: its name, "" without one.
    protocols: how metrics were computed, for those that say so, by name and fact ("features.weights").
    """

    path: Path
    state: State
    config: Config
    typed: Sequence[str] | None
    metrics: Mapping[str, float]
    step: int
    keys: Mapping[str, MetricKey]
    steps: int
    nimg: int
    seconds: float
    keep_best: str | None = None
    error: str = ""
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)
    clock: np.ndarray = field(default_factory=lambda: np.zeros((3, 1)))
    pictures: Mapping[int, Path] = field(default_factory=dict)
    diagnosis: str = ""
    findings: Sequence[Finding] = ()
    protocols: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        seed: int = self.config["seed"]
        return seed

    @property
    def is_finished(self) -> bool:
        return self.state == "finished"

    @property
    def diverged(self) -> bool:
        return self.state == "diverged" or self.found("divergence")

    @property
    def collapsed(self) -> bool:
        return self.found("mode_collapse")

    def found(self, name: str) -> bool:
        return any(finding.name == name for finding in self.findings)

    def at(self, steps: np.ndarray) -> np.ndarray:
        """The images seen and the seconds at these steps, (2, n)."""
        return np.stack([np.interp(steps, self.clock[0], self.clock[i]) for i in (1, 2)])


@dataclass(frozen=True)
class Selection:
    """Which values of a run count: at which checkpoint, and whether of G_ema, if the run has one."""

    checkpoint: Literal["last", "best"] = "last"
    ema: bool = True


def collect(dirs: Sequence[str], selection: Selection) -> tuple[list[Run], list[str]]:
    """All runs in these folders, and a sentence for each directory that looks like a run and cannot be read.

    Raises ValueError if a folder does not exist, and if there is no run at all.
    """
    problems: list[str] = []
    found: dict[Path, Run] = {}
    for name in dirs:
        path = Path(name).expanduser()
        if not path.is_dir():
            raise ValueError(
                f"{name}: {'is a file' if path.exists() else 'no such folder'}; name run directories, or folders that "
                "contain some, as in `ganrun report outputs/losses`."
            )
        for run_dir, config in find(path, problems):
            found.setdefault(run_dir.path.resolve(), read(run_dir, config, selection))
    if not found:
        raise ValueError(problems[0] if problems else f"{' '.join(dirs)}: no run there; a run has a config.yaml.")
    return list(found.values()), list(dict.fromkeys(problems))


def find(folder: Path, problems: list[str]) -> Iterator[tuple[RunDir, Config]]:
    """The run directories in a folder with their configs, without hidden folders, links, and folders inside a run.

    A directory whose config cannot be read is added to the problems, and searched.
    """
    for parent, folders, files in os.walk(folder):
        if "config.yaml" in files:
            run_dir = RunDir(Path(parent))
            try:
                yield run_dir, run_dir.config()
            except (ValueError, OSError) as error:
                problems.append(str(error))
            else:
                folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def read(run_dir: RunDir, config: Config, selection: Selection) -> Run:
    """Read one run. Damaged files are ignored, with a warning."""
    result = run_dir.result() or {}
    rows = list(run_dir.rows())
    group = "metric/" if selection.ema or not config["train"].get("ema") else "metric_raw/"
    curves = curves_of(rows, group)
    step, metrics = metrics_of(result, curves, selection, group)
    clock = clock_of(rows, result)
    diagnosis = section(result.get("diagnosis"))
    return Run(
        path=run_dir.path,
        state=state_of(run_dir.path),
        config=config,
        typed=run_dir.overrides() if run_dir.command_file.exists() else None,
        metrics={key: value for key, value in metrics.items() if math.isfinite(value)},
        step=step,
        keys=run_dir.metric_keys() | DIAGNOSIS,
        steps=int(clock[0, -1]),
        nimg=int(clock[1, -1]),
        seconds=float(clock[2, -1]),
        keep_best=config["train"].get("keep_best"),
        error=str(result.get("error") or ""),
        curves=curves,
        clock=clock,
        pictures={int(p.stem[5:]): p for p in sorted(run_dir.samples.glob(PICTURE)) if p.stem[5:].isdigit()},
        diagnosis=text(diagnosis.get("name")),
        findings=findings_of(diagnosis),
        protocols={name: flat(section(facts)) for name, facts in section(result.get("protocols")).items()},
    )


def metrics_of(
    result: Mapping[str, Any], curves: Mapping[str, np.ndarray], selection: Selection, group: str
) -> tuple[int, dict[str, float]]:
    """The values that count, and their step: the newest ones of a run that has not finished."""
    metrics = {tag.removeprefix(group): curve for tag, curve in curves.items() if tag.startswith(group)}
    if selection.checkpoint == "best":
        step = section(result.get("best")).get("step")
        return step or 0, at_step(metrics, step)
    if result.get("status") == "finished":
        own = section(result.get("metrics" if group == "metric/" else "metrics_raw"))
        measured = section(section(result.get("diagnosis")).get("measurements"))
        own |= {key: measured.get(key.partition("/")[2]) for key in DIAGNOSIS}
        return result["steps"], {key: float(value) for key, value in own.items() if isinstance(value, int | float)}
    newest = max((int(curve[0, -1]) for curve in metrics.values()), default=0)
    return newest, at_step(metrics, newest)


def at_step(curves: Mapping[str, np.ndarray], step: int | None) -> dict[str, float]:
    """The value of each curve that has one at this step; of several, the last."""
    found = {key: curve[1, curve[0] == step] for key, curve in curves.items()}
    return {key: float(values[-1]) for key, values in found.items() if len(values)}


def curves_of(rows: Sequence[Mapping[str, Any]], group: str) -> dict[str, np.ndarray]:
    """The metrics of a group, and some other curves, thinned."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for tag, value in row.items():
            if tag.startswith(group) or tag in CURVES:
                points.setdefault(tag, []).append((row["step"], value))
    found = {tag: np.array(pairs, float).T for tag, pairs in points.items()}
    return {tag: thinned(curve) if tag in CURVES else curve for tag, curve in found.items()}


def thinned(curve: np.ndarray) -> np.ndarray:
    """Every k-th point, counted from the end, so that at most MOST_POINTS are left."""
    every = math.ceil(curve.shape[1] / MOST_POINTS)
    return curve[:, ::-1][:, ::every][:, ::-1]


def clock_of(rows: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> np.ndarray:
    """Steps, images seen and seconds, (3, n), from the logged rates; the last moment is that of the result."""
    moments = [(0.0, 0.0, 0.0)]
    for row in rows:
        step, rate = row["step"], row.get("time/steps_per_sec")
        if step > moments[-1][0] and isinstance(row.get("nimg"), int | float):
            seconds = (step - moments[-1][0]) / rate if rate and rate > 0 else 0.0
            moments.append((step, row["nimg"], moments[-1][2] + seconds))
    if result:
        end = (result["steps"], result.get("nimg", moments[-1][1]), result.get("wall_time", moments[-1][2]))
        moments = [moment for moment in moments if moment[0] < end[0]] + [end]
    return np.array(moments, float).T


def findings_of(diagnosis: Mapping[str, Any]) -> list[Finding]:
    listed = diagnosis.get("findings")
    found = [section(entry) for entry in listed] if isinstance(listed, list) else []
    return [Finding(*(text(entry.get(key)) for key in ("name", "measurement", "remedy"))) for entry in found]


def flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """
    >>> flat({"num": 3, "features": {"weights": "a1"}})
    {'num': 3, 'features.weights': 'a1'}
    """
    found: dict[str, Any] = {}
    for key, value in facts.items():
        found |= {f"{key}.{k}": v for k, v in flat(value).items()} if isinstance(value, dict) else {key: value}
    return found


def section(node: Any) -> dict[str, Any]:
    """A part of result.json that is not checked when it is read; empty if it has another type."""
    return dict(node) if isinstance(node, dict) else {}


def text(node: Any) -> str:
    return node if isinstance(node, str) else ""
