"""`ganrun evaluate run_dir=DIR metric=modes`: any metric of a run, at any of its checkpoints."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ganrun.build import build, choose_device
from ganrun.checks import check_arguments
from ganrun.commands.train import say_caveats, say_metrics
from ganrun.evaluation import evaluate
from ganrun.figures.gallery import galleries
from ganrun.figures.pictures import save_png
from ganrun.loop import check_same_data
from ganrun.names import Config
from ganrun.records import dashboard
from ganrun.records.dashboard import Dashboard
from ganrun.records.run_dir import RunDir, UnderWay
from ganrun.run import Run

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class EvaluateOptions:
    """The settings of conf/evaluate.yaml."""

    run_dir: str
    data: Config
    checkpoint: int | Literal["last", "best"]
    average: bool
    seed: int | None
    device: str
    metric: Any = None  # null: those of the run


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one checkpoint, and how they were taken."""

    checkpoint: int | str
    step: int
    average: bool
    seed: int
    metrics: dict[str, float]
    group: str  # of the names on record: `metric`, as the run itself takes them, `metric_raw`, `metric_seed_5`
    pictures: dict[str, np.ndarray] = field(default_factory=dict)  # of metrics that draw one, by the metric's name

    @property
    def tagged(self) -> dict[str, float]:
        return {f"{self.group}/{key}": value for key, value in self.metrics.items()}

    @property
    def named_pictures(self) -> dict[str, np.ndarray]:
        """By `neighbors`, or `neighbors_raw` where the metrics are `metric_raw/...`."""
        return {f"{name}{self.group.removeprefix('metric')}": image for name, image in self.pictures.items()}

    def show(self, board: Dashboard) -> None:
        board.scalars(self.tagged, self.step)
        for name, image in self.named_pictures.items():
            board.image(f"samples/{name}", image, self.step)


def main(config: Config, name: str = "") -> int:
    """Take the metrics, print and record them. Raises ValueError for a run, checkpoint or metric that cannot work."""
    check_arguments("", EvaluateOptions, config)
    options = EvaluateOptions(**config)
    run_dir = RunDir(Path(options.run_dir))
    run, step = load(run_dir, options)
    found = take(run, step, options)
    log.info("run        %s, step %s", run_dir.path, f"{step:,}")
    say_metrics(found.metrics)
    say_caveats(run)
    try:
        with run_dir:
            record(run_dir, found)
        log.info("recorded   %s", run_dir.metrics_file)
    except UnderWay:
        log.warning("run_dir=%s: is under way, so nothing was recorded.", run_dir.path)
    return 0


def load(run_dir: RunDir, options: EvaluateOptions) -> tuple[Run, int]:
    """The run as it was at the checkpoint, with the metrics that are asked for, and the checkpoint's step."""
    stored = run_dir.config(options.data.get("root"))
    state = run_dir.load(options.checkpoint)
    metrics = stored.get("metric") if options.metric is None else options.metric
    if not metrics:
        raise ValueError(f"run_dir={run_dir.path}: was given no metric; choose one, as in metric=distribution.")
    choose_device(options.device, "device")
    run = build({**stored, "metric": metrics, "train": {**stored["train"], "device": options.device}})
    check_same_data(run, run_dir, state)
    run.load_state_dict(state)
    return run, state["step"]


def take(run: Run, step: int, options: EvaluateOptions) -> Evaluation:
    average = options.average and run.averaged is not None
    seed = run.seed if options.seed is None else options.seed
    played = run if average else replace(run, averaged=None)
    metrics, pictures = evaluate(played, seed), galleries(played, seed)
    raw = "" if options.average or run.averaged is None else "_raw"
    other = "" if seed == run.seed else f"_seed_{seed}"
    return Evaluation(options.checkpoint, step, average, seed, metrics, f"metric{raw}{other}", pictures)


def record(run_dir: RunDir, found: Evaluation) -> None:
    """Into metrics.jsonl, samples/, TensorBoard's events and, of a run that has ended, result.json."""
    how = {"checkpoint": found.checkpoint, "average": found.average, "seed": found.seed}
    run_dir.insert_metrics({"step": found.step, **found.tagged, "evaluated": how})
    dashboard.insert(run_dir.path, found.step, found.show)
    for name, image in found.named_pictures.items():
        path = run_dir.samples / f"{name}_step_{found.step:08d}.png"
        save_png(image, path)
        log.info("picture    %s", path)
    if result := run_dir.result():
        run_dir.write_result(result)
