"""One run from start to end: when to log, to show, to save, and to stop."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ganrun import frames
from ganrun.best import Best, choose
from ganrun.evaluation import evaluate, evaluate_each
from ganrun.figures.gallery import galleries
from ganrun.figures.pictures import Pictures, save_png
from ganrun.names import Config
from ganrun.progress import Progress
from ganrun.randomness import reseed
from ganrun.records import checkpoint, dashboard
from ganrun.records.dashboard import Dashboard
from ganrun.records.run_dir import RunDir
from ganrun.run import Run
from ganrun.steps import DUpdate, Game, GUpdate, scalars

log = logging.getLogger("ganrun")

State = dict[str, Any]


class Diverged(Exception):
    """A loss or a weight is no finite number."""


@dataclass
class Position:
    """Where a run stands: `step` counts those done, negative while D is pre-trained; `seconds` is what they took.

    best: of train.keep_best, else None.
    """

    step: int = 0
    seconds: float = 0.0
    best: Best | None = None

    def ends(self, run: Run) -> bool:
        """Whether this is the last step, be it that nothing better has come for too long."""
        return self.step == run.options.steps or (self.best is not None and self.best.exhausted)


def train(
    run: Run,
    run_dir: RunDir,
    config: Config,
    state: State | None,
    stop: Callable[[], bool],
    at: Position,
    judge: Callable[[bool], str] | None = None,
) -> dict[str, float]:
    """Play `run` from `state`, a checkpoint's, or `at`, to its last step, or until `stop()`; `at` is moved along.

    judge: asked at the end for what the dashboard is to say of the run, and told whether it diverged.
    Returns the metrics, which are taken at the last step. Raises Diverged; the last good checkpoint stays.
    """
    resume(run, run_dir, state, at)
    board = Dashboard(run_dir.path)
    progress = Progress(at.step, run.options.steps)
    try:
        if state is None:
            board.config(config)
        training = Training(run, run_dir, config, board, progress, at)
        training.play(stop)
        if not at.ends(run):
            return {}
        metrics = training.last_metrics()
        board.hparams(config, metrics)
        if judge:
            board.text("diagnosis", judge(False), at.step)
        return metrics
    except Diverged:
        if judge:
            board.text("diagnosis", judge(True), at.step)
        raise
    finally:
        progress.close()
        board.close()


def resume(run: Run, run_dir: RunDir, state: State | None, at: Position) -> None:
    """Load the state, if any, and forget what was logged after it, and what is logged at the end in any case."""
    at.step = -run.options.pretrain_d
    if state:
        run.load_state_dict(state)
        at.step, at.seconds = state["step"], state["seconds"]
        at.best = Best(**state["best"]) if state.get("best") else None
        log.info("resuming at step %s of %s", f"{at.step:,}", f"{run.options.steps:,}")
    elif at.best is None:
        at.best = choose(run, lambda: evaluate_each(run))
    logged, at_end = at.step if state else at.step - 1, at.ends(run)
    run_dir.rewind(logged, drop_metrics=at_end)
    dashboard.rewind(run_dir.path, logged, drop_metrics=at_end)
    frames.rewind(run_dir.path, logged)


def check_same_data(run: Run, run_dir: RunDir, state: State) -> None:
    """Raise ValueError where the data are not those of the checkpoint: a root may move, its content may not change."""
    if changed := changes_of_data(run, state):
        raise ValueError(
            f"run_dir={run_dir.path}: its run was trained on other data: {', '.join(changed)}. Name a new run_dir."
        )


def changes_of_data(run: Run, state: State) -> list[str]:
    before, now = state["data"], data_facts(run)
    return [f"{key} ({before.get(key)} there, {now[key]} now)" for key in now if before.get(key) != now[key]]


def data_facts(run: Run) -> dict[str, Any]:
    """Shape, range, moments and number of the training data: other content has other moments."""
    return asdict(run.dataset.spec) | {"num_train": len(run.dataset.train)}


class Training:
    """Algorithm 1, and what has to be done between its steps."""

    def __init__(
        self, run: Run, run_dir: RunDir, config: Config, board: Dashboard, progress: Progress, at: Position
    ) -> None:
        self.run, self.options, self.run_dir, self.config = run, run.options, run_dir, config
        self.board, self.progress, self.at = board, progress, at
        self.game, self.pictures = Game(run), Pictures(run)
        self.last_logged, self.last_time = at.step, time.perf_counter()
        self.measured: dict[str, float] | None = None  # at the step where the run stops for want of a better one
        if self.options.sample_every and not self.pictures.possible:
            log.warning("samples of shape %s cannot be shown as a picture.", run.dataset.spec.shape)

    def play(self, stop: Callable[[], bool]) -> None:
        """To the last step, or until `stop()`. Moves `at`."""
        at, options = self.at, self.options
        began = time.perf_counter() - at.seconds
        if at.step < 0:
            self.pretrain(stop)
        if at.step == 0 and options.sample_every:
            self.show(f"step_{at.step:08d}", "step 0")
        if at.step == 0:
            self.frame()
        while at.step >= 0 and not at.ends(self.run):
            reseed(self.run.device, self.run.seed, "step", at.step)
            moves = self.game.step(at.step)
            at.step += 1
            at.seconds = time.perf_counter() - began
            if self.due(options.metric_every) and at.step < options.steps:
                self.measure()  # first, because it may make this step the last one
            if self.due(options.log_every):
                self.log(moves)
            if self.due(options.sample_every):
                self.show(f"step_{at.step:08d}", f"step {at.step:,}")
            self.frame()
            stopping = stop()
            if self.due(options.checkpoint_every) or at.ends(self.run) or stopping:
                self.save()
            if stopping:
                return

    def pretrain(self, stop: Callable[[], bool]) -> None:
        """D alone, in steps that count up to 0, or until `stop()`."""
        at, alone = self.at, self.options.pretrain_d
        if self.options.sample_every:
            self.show("before_pretraining", "before pre-training")
        while at.step < 0 and not stop():
            self.frame()
            reseed(self.run.device, self.run.seed, "pretrain", at.step)
            move = self.game.d_update(alone + at.step)
            at.step += 1
            if self.options.log_every and at.step % self.options.log_every == 0:
                self.record(scalars(move))
        if at.step == 0:
            log.info("D had %s updates before the game", f"{alone:,}")
            if self.options.sample_every:
                image = self.pictures.verdicts(f"D after {alone:,} updates alone")
                self.keep(image, "pretrained_d", "figure/pretrained_d")

    def due(self, every: int) -> bool:
        return bool(every) and (self.at.step % every == 0 or self.at.ends(self.run))

    def log(self, moves: tuple[DUpdate, GUpdate]) -> None:
        values = scalars(*moves)
        if (p := getattr(self.run.augment, "p", None)) is not None:
            values["augment/p"] = float(p)
        now = time.perf_counter()
        values["time/steps_per_sec"] = (self.at.step - self.last_logged) / (now - self.last_time)
        self.last_logged, self.last_time = self.at.step, now
        self.record(values)
        self.progress.update(self.at.step, values)

    def record(self, values: dict[str, float]) -> None:
        check_finite(values, self.at.step)
        self.run_dir.log_metrics({"step": self.at.step, "nimg": nimg(self.run, self.at.step), **values})
        self.board.scalars(values, self.at.step)

    def measure(self) -> None:
        """All metrics along the way, logged; or kept for the end, where they say that this is the end."""
        self.check_weights()
        metrics = evaluate(self.run)
        self.keep_best(metrics)
        if self.at.ends(self.run):
            self.measured = metrics
        else:
            self.log_metrics(metrics)

    def last_metrics(self) -> dict[str, float]:
        """All metrics at the end, logged."""
        metrics = evaluate(self.run) if self.measured is None else self.measured
        self.keep_best(metrics)
        self.log_metrics(metrics)
        return metrics

    def log_metrics(self, metrics: dict[str, float]) -> None:
        if metrics:
            tagged = {f"metric/{key}": value for key, value in metrics.items()}
            self.show_galleries()
            self.run_dir.log_metrics({"step": self.at.step, **tagged})
            self.board.scalars(tagged, self.at.step)

    def keep_best(self, metrics: dict[str, float]) -> None:
        best = self.at.best
        if best and best.improves(metrics.get(best.key, math.nan), self.at.step):
            checkpoint.save_best(self.run_dir.checkpoints, self.state())

    def show(self, name: str, title: str) -> None:
        if self.pictures.possible:
            self.keep(self.pictures.draw(title), name, self.pictures.tag)

    def show_galleries(self) -> None:
        for name, image in galleries(self.run).items():
            self.keep(image, f"{name}_step_{self.at.step:08d}", f"samples/{name}")

    def frame(self) -> None:
        """Record what figures of this moment are drawn from: where it is due, at the start of each part, at the end."""
        step, options = self.at.step, self.options
        due = any(self.due(every) for every in (options.sample_every, options.frame_every))
        if (due or step in (-options.pretrain_d, 0) or self.at.ends(self.run)) and frames.possible(self.run):
            frames.save(frames.capture(self.run, step), self.run_dir.path, options.pretrain_d)

    def keep(self, image: np.ndarray, name: str, tag: str) -> None:
        save_png(image, self.run_dir.samples / f"{name}.png")
        self.board.image(tag, image, self.at.step)

    def save(self) -> None:
        self.check_weights()
        self.board.flush()
        self.run_dir.sync()
        options = self.options
        checkpoint.save(self.run_dir.checkpoints, self.state(), options.keep_checkpoints, options.keep_every)

    def state(self) -> State:
        """What a checkpoint holds."""
        at, run = self.at, self.run
        state: State = {"step": at.step, "nimg": nimg(run, at.step), "seconds": at.seconds}
        state |= {"config": self.config, "spec": asdict(run.dataset.spec), "data": data_facts(run)}
        return state | {"best": asdict(at.best) if at.best else None} | run.state_dict()

    def check_weights(self) -> None:
        if not self.run.is_finite():
            raise Diverged(f"step {self.at.step}: a weight is not a finite number.")


def nimg(run: Run, step: int) -> int:
    """Real examples shown to D until `step`, negative before the game: what runs of other n_critic are compared by."""
    updates = step if step < 0 else step * run.options.n_critic
    return (run.options.pretrain_d + updates) * run.options.batch_size


def check_finite(values: dict[str, float], step: int) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise Diverged(f"step {step}: {name} is {value}.")
