"""One run from start to end: when to log, to show, to save, and to stop."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ganrun.figures.pictures import Pictures, save_png
from ganrun.names import Config
from ganrun.progress import Progress
from ganrun.randomness import reseed
from ganrun.records import checkpoint, dashboard
from ganrun.records.dashboard import Dashboard
from ganrun.records.run_dir import RunDir
from ganrun.run import Run
from ganrun.sampling import draw, labels_like
from ganrun.steps import Game, scalars

log = logging.getLogger("ganrun")

State = dict[str, Any]


class Diverged(Exception):
    """A loss or a weight is no finite number."""


@dataclass
class Position:
    """Where a run stands: `step` counts those done, negative while D is pre-trained; `seconds` is what they took."""

    step: int = 0
    seconds: float = 0.0


def train(
    run: Run, run_dir: RunDir, config: Config, state: State | None, stop: Callable[[], bool], at: Position
) -> dict[str, float]:
    """Play `run` from `state`, a checkpoint's, or the start, to its last step, or until `stop()`; `at` is moved along.

    Returns the metrics, which are taken at the last step. Raises Diverged; the last good checkpoint stays.
    """
    resume(run, run_dir, state, at)
    board = Dashboard(run_dir.path)
    progress = Progress(at.step, run.options.steps)
    try:
        if state is None:
            board.config(config)
        play(run, run_dir, config, board, progress, at, stop)
        metrics = evaluate(run) if at.step == run.options.steps else {}
        if metrics:
            run_dir.log_metrics({"step": at.step, **{f"metric/{k}": v for k, v in metrics.items()}})
            board.scalars({f"metric/{key}": value for key, value in metrics.items()}, at.step)
        if at.step == run.options.steps:
            board.hparams(config, metrics)
        return metrics
    finally:
        progress.close()
        board.close()


def resume(run: Run, run_dir: RunDir, state: State | None, at: Position) -> None:
    """Load the state, if any, and forget what was logged after it, and what is logged at the end in any case."""
    at.step = -run.options.pretrain_d
    if state:
        run.load_state_dict(state)
        at.step, at.seconds = state["step"], state["seconds"]
        log.info("resuming at step %s of %s", f"{at.step:,}", f"{run.options.steps:,}")
    logged, at_end = at.step if state else at.step - 1, at.step == run.options.steps
    run_dir.rewind(logged, drop_metrics=at_end)
    dashboard.rewind(run_dir.path, logged, drop_metrics=at_end)


def check_same_data(run: Run, run_dir: RunDir, state: State) -> None:
    """Raise ValueError where the data are not those of the checkpoint: a root may move, its content may not change."""
    before, now = state["data"], data_facts(run)
    changed = [f"{key} ({before.get(key)} there, {now[key]} now)" for key in now if before.get(key) != now[key]]
    if changed:
        raise ValueError(
            f"run_dir={run_dir.path}: its run was trained on other data: {', '.join(changed)}. Name a new run_dir."
        )


def data_facts(run: Run) -> dict[str, Any]:
    """Shape, range, moments and number of the training data: other content has other moments."""
    return asdict(run.dataset.spec) | {"num_train": len(run.dataset.train)}


def play(
    run: Run,
    run_dir: RunDir,
    config: Config,
    board: Dashboard,
    progress: Progress,
    at: Position,
    stop: Callable[[], bool],
) -> None:
    """Algorithm 1, and what has to be done between its steps. Moves `at`."""
    options, game, pictures = run.options, Game(run), Pictures(run)
    began = time.perf_counter() - at.seconds

    def due(every: int) -> bool:
        return bool(every) and (at.step % every == 0 or at.step == options.steps)

    def keep(image: np.ndarray, name: str, tag: str, step: int) -> None:
        save_png(image, run_dir.samples / f"{name}.png")
        board.image(tag, image, step)

    def show() -> None:
        if pictures.possible:
            keep(pictures.draw(f"step {at.step:,}"), f"step_{at.step:08d}", pictures.tag, at.step)

    def record(values: dict[str, float]) -> None:
        check_finite(values, at.step)
        run_dir.log_metrics({"step": at.step, "nimg": nimg(run, at.step), **values})
        board.scalars(values, at.step)

    def pretrain() -> None:
        """D alone, in steps that count up to 0."""
        if options.sample_every and pictures.possible:
            keep(pictures.draw("before pre-training"), "before_pretraining", pictures.tag, at.step)
        while at.step < 0 and not stop():
            reseed(run.device, run.seed, "pretrain", at.step)
            moves = game.d_update(options.pretrain_d + at.step)
            at.step += 1
            if options.log_every and at.step % options.log_every == 0:
                record(scalars(moves))
        if at.step == 0 and options.sample_every:
            keep(pictures.verdicts(f"D after {options.pretrain_d:,} updates alone"), "pretrained_d", "figure/d", 0)

    def save() -> None:
        if not run.is_finite():
            raise Diverged(f"step {at.step}: a weight is not a finite number.")
        board.flush()
        run_dir.sync()
        state = {"format": 1, "step": at.step, "nimg": nimg(run, at.step), "seconds": at.seconds}
        state |= {"config": config, "spec": asdict(run.dataset.spec), "data": data_facts(run)} | run.state_dict()
        checkpoint.save(run_dir.checkpoints, state, options.keep_checkpoints, options.keep_every)

    if options.sample_every and not pictures.possible:
        log.warning("samples of shape %s cannot be shown as a picture.", run.dataset.spec.shape)
    if at.step < 0:
        pretrain()
        if at.step < 0:
            return
        log.info("D had %s updates before the game", f"{options.pretrain_d:,}")
    if at.step == 0 and options.sample_every:
        show()
    last_logged, last_time = at.step, time.perf_counter()
    while at.step < options.steps:
        reseed(run.device, run.seed, "step", at.step)
        moves = game.step(at.step)
        at.step += 1
        at.seconds = time.perf_counter() - began
        if due(options.log_every):
            values = scalars(*moves)
            if (p := getattr(run.augment, "p", None)) is not None:
                values["augment/p"] = float(p)
            now = time.perf_counter()
            values["time/steps_per_sec"] = (at.step - last_logged) / (now - last_time)
            last_logged, last_time = at.step, now
            record(values)
            progress.update(at.step, values)
        if due(options.sample_every):
            show()
        stopping = stop()
        if due(options.checkpoint_every) or at.step == options.steps or stopping:
            save()
        if stopping:
            return


def nimg(run: Run, step: int) -> int:
    """Real examples shown to D until `step`, negative before the game: what runs of other n_critic are compared by."""
    updates = step if step < 0 else step * run.options.n_critic
    return (run.options.pretrain_d + updates) * run.options.batch_size


def check_finite(values: dict[str, float], step: int) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise Diverged(f"step {step}: {name} is {value}.")


def evaluate(run: Run) -> dict[str, Any]:
    """All metrics of the run, on samples that are a function of the weights and the seed."""
    if not run.metrics:
        return {}
    num = max(metric.num for metric in run.metrics.values())
    y = None if run.condition is None else labels_like(run.dataset.train, num, run.seed)
    samples = draw(run.sampler, run.latent, num, run.device, run.seed, y)
    return {key: value for metric in run.metrics.values() for key, value in metric(samples, run.dataset).items()}
