"""`ganrun evaluate run_dir=DIR metric=modes`: compute any metric of a run, at any of its checkpoints."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ganrun.checks import check_arguments
from ganrun.commands.train import print_caveats, print_metrics
from ganrun.config import Config
from ganrun.figures.grid import save_png
from ganrun.records import dashboard
from ganrun.records.dashboard import Dashboard
from ganrun.records.hparams import leading
from ganrun.records.run_dir import RunDir, RunIsLocked
from ganrun.training.evaluation import Evaluation, metric_keys, protocols
from ganrun.training.load import LoadedRun
from ganrun.training.run import Run
from ganrun.training.runtime import choose_device

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class EvaluateOptions:
    """The settings of conf/evaluate.yaml."""

    run_dir: str
    data: Config
    checkpoint: int | Literal["last", "best"]
    ema: bool
    seed: int | None
    device: str
    metric: Any = None  # None: the metrics of the run
    features: Any = None  # None: those of the run


@dataclass(frozen=True)
class Measured:
    """Metrics of one checkpoint, and how they were computed."""

    checkpoint: int | str
    step: int
    ema: bool
    seed: int
    metrics: dict[str, float]
    group: str  # the prefix of their tags: `metric`, as for the run's own metrics, `metric_raw`, `metric_seed_5`
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)  # how they were computed
    pictures: dict[str, np.ndarray] = field(default_factory=dict)  # by the metric's name, if it draws a picture

    @property
    def tagged(self) -> dict[str, float]:
        """The metrics by TensorBoard tag."""
        return {f"{self.group}/{key}": value for key, value in self.metrics.items()}

    @property
    def named_pictures(self) -> dict[str, np.ndarray]:
        """The pictures by file name: `neighbors`, or `neighbors_raw` if the group is `metric_raw`."""
        return {f"{name}{self.group.removeprefix('metric')}": image for name, image in self.pictures.items()}

    def log_to(self, board: Dashboard, final: Mapping[str, float]) -> None:
        """final: those that are final metrics of the run."""
        board.scalars(self.tagged, self.step)
        board.final(final, self.step)
        for name, image in self.named_pictures.items():
            board.image(f"samples/{name}", image, self.step)


def main(config: Config, name: str = "") -> int:
    """Compute, print and record the metrics. Raises ValueError for a run, checkpoint or metric that cannot work."""
    check_arguments("", EvaluateOptions, config)
    options = EvaluateOptions(**config)
    run_dir = RunDir(Path(options.run_dir))
    run_dir.check_links()
    loaded = LoadedRun(run_dir, options.checkpoint, choose_device(options.device, "device"), options.data.get("root"))
    metrics = loaded.config.get("metric") if options.metric is None else options.metric
    if options.metric == {}:
        raise ValueError("metric=none: leaves nothing to compute; choose a metric, as in metric=distribution.")
    if not metrics:
        raise ValueError(f"run_dir={run_dir.path}: has no metric of its own; choose one, as in metric=distribution.")
    run = loaded.build(metric=metrics, **({"features": options.features} if options.features else {}))
    found = compute(run, loaded.step, options)
    log.info("run        %s, step %s", run_dir.path, f"{loaded.step:,}")
    print_metrics(found.metrics, metric_keys(run))
    print_caveats(run)
    try:
        with run_dir:
            run_dir.describe_metrics(metric_keys(run))
            record(run_dir, found)
        log.info("recorded   %s", run_dir.metrics_file)
    except RunIsLocked:
        log.warning("run_dir=%s: another process is writing to it, so nothing was recorded.", run_dir.path)
    return 0


def compute(run: Run, step: int, options: EvaluateOptions) -> Measured:
    """Compute all metrics of `run`, and their pictures."""
    seed = run.seed if options.seed is None else options.seed
    evaluation = Evaluation(run, seed, options.ema)
    raw = "" if options.ema or run.G_ema is None else "_raw"
    other = "" if seed == run.seed else f"_seed_{seed}"
    return Measured(
        checkpoint=options.checkpoint,
        step=step,
        ema=options.ema and run.G_ema is not None,
        seed=seed,
        metrics=evaluation.metrics(),
        group=f"metric{raw}{other}",
        protocols=protocols(run),
        pictures=evaluation.galleries(),
    )


def record(run_dir: RunDir, found: Measured) -> None:
    """Write the metrics to metrics.jsonl, TensorBoard's event files and, if the run has ended, result.json.

    Their pictures are written to samples/.
    """
    how = {"checkpoint": found.checkpoint, "ema": found.ema, "seed": found.seed}
    run_dir.insert_metrics({"step": found.step, **found.tagged, "evaluated": how})
    result = run_dir.result()
    is_end = result is not None and (result["status"], result["steps"]) == ("finished", found.step)
    final = leading(found.metrics, run_dir.metric_keys()) if is_end and found.group == "metric" else {}
    dashboard.insert(run_dir.path, found.step, lambda board: found.log_to(board, final))
    for name, image in found.named_pictures.items():
        path = run_dir.samples / f"{name}_step_{found.step:08d}.png"
        save_png(image, path)
        log.info("picture    %s", path)
    if result:
        if found.protocols and final:
            result = {**result, "protocols": {**(result.get("protocols") or {}), **found.protocols}}
        run_dir.write_result(result)
