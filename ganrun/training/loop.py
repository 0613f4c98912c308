"""The training loop: Algorithm 1, and when to log, draw, save, evaluate and stop."""

import logging
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ganrun.config import Config
from ganrun.console import Progress
from ganrun.diagnosis.diagnosis import Diagnosis
from ganrun.figures.grid import save_png
from ganrun.protocols import Observer
from ganrun.records import checkpoint, dashboard, frames
from ganrun.records.board import Board
from ganrun.records.run_dir import RunDir
from ganrun.training.best import Best
from ganrun.training.capture import can_capture, capture
from ganrun.training.evaluation import Evaluation, metric_keys
from ganrun.training.game import Game
from ganrun.training.pictures import FINAL_PICTURES, Pictures
from ganrun.training.precision import LEAST_SCALE
from ganrun.training.randomness import reseed
from ganrun.training.run import Run
from ganrun.training.runtime import peak_memory
from ganrun.training.updates import DUpdate, GUpdate, scalars

log = logging.getLogger("ganrun")


class Diverged(Exception):
    """A loss or a weight is not finite."""


@dataclass
class Status:
    """The progress of a run, updated during training.

    step: completed steps, negative while D is pre-trained. seconds: the time they took. best: for train.keep_best.
    metrics, diagnosis: at the end of the run. metrics_raw: those of G itself, if `metrics` are of G_ema.
    extended: whether the run had its last step here before it was resumed.
    """

    step: int = 0
    seconds: float = 0.0
    best: Best | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    metrics_raw: dict[str, float] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    extended: bool = False

    def is_last(self, run: Run) -> bool:
        """Whether this is the last step: all steps are completed, or the run stops early (train.patience)."""
        return self.step == run.options.steps or (self.best is not None and self.best.exhausted)


def train_loop(
    run: Run, run_dir: RunDir, config: Config, state: dict[str, Any] | None, status: Status, stop: Callable[[], bool],
    board: Board, observer: Observer,
) -> None:  # fmt: skip
    """Train `run` from the checkpoint `state`, or from the start if it is None, to the last step or until `stop()`.

    Updates `status`. `observer` can stop it, too. Raises Diverged; the last good checkpoint is kept.
    """
    restore(run, run_dir, state, status)
    board.open(config, is_new=state is None)
    progress = Progress(status.step, run.options.steps)
    try:
        run_dir.describe_metrics(metric_keys(run))
        loop = Loop(run, run_dir, config, board, progress, status, observer)
        loop.game.lazy_terms = {tag: x.to(run.device) for tag, x in (state or {}).get("lazy_terms", {}).items()}
        try:
            loop.train(stop)
        except Diverged:
            loop.diagnose(diverged=True)
            board.hparams({}, "diverged", status.step)
            raise
        if status.is_last(run):
            loop.finish()
        else:
            board.hparams({}, "interrupted", status.step)
    finally:
        progress.close()
        board.close()


def restore(run: Run, run_dir: RunDir, state: dict[str, Any] | None, status: Status) -> None:
    """Continue after `state`, which `run` has loaded, or start if it is None.

    Removes what was logged later, and at the last step also what is evaluated again.
    """
    status.step = -run.options.pretrain_d
    if state:
        status.step, status.seconds = state["step"], state["seconds"]
        options = run.options
        checkpoint.remove_old(run_dir.checkpoints, status.step, options.keep_checkpoints, options.keep_every)
        best = state.get("best")
        if best and best["key"] == run.options.keep_best:
            status.best = Best(**{**best, "patience": run.options.patience})
        status.extended = not status.is_last(run) and was_last(state)
        log.info("resuming at step %s of %s", f"{status.step:,}", f"{run.options.steps:,}")
    last = status.step if state else status.step - 1
    at_end = status.is_last(run) or status.extended
    again = own_evaluation(run, run_dir, last) if at_end else lambda tag: False
    dashboard.rewind(run_dir.path, last, again)
    frames.rewind(run_dir.path, last)
    run_dir.rewind(last, again)  # last, since `again` is found in its rows


def was_last(state: dict[str, Any]) -> bool:
    """Whether the checkpoint is of the last step of the run, as configured then."""
    best = state.get("best")
    return state["step"] == state["config"]["train"]["steps"] or bool(best and Best(**best).exhausted)


def own_evaluation(run: Run, run_dir: RunDir, step: int) -> Callable[[str], bool]:
    """Whether the run itself, not `ganrun evaluate`, logged a tag at `step`, when it evaluated its samples."""
    groups = ("metric/",) if run.G_ema is None else ("metric/", "metric_raw/")
    rows = [row for row in run_dir.rows() if row["step"] == step]
    own = {f"{group}{key}" for group in groups for key in metric_keys(run)}
    own |= {key for row in rows if "evaluated" not in row for key in row}
    others = {key for row in rows if "evaluated" in row for key in row} - own
    rest = {f"samples/{name}" for name in [*run.metrics, *FINAL_PICTURES]} | {"diagnosis/text_summary"}
    return lambda tag: tag in rest or (tag.startswith(groups) and tag not in others)


class Loop:
    """Algorithm 1, with logging, pictures, evaluations and checkpoints between its steps."""

    def __init__(
        self,
        run: Run,
        run_dir: RunDir,
        config: Config,
        board: Board,
        progress: Progress,
        status: Status,
        observer: Observer,
    ) -> None:
        self.run, self.options, self.run_dir, self.config = run, run.options, run_dir, config
        self.board, self.progress, self.status, self.observer = board, progress, status, observer
        self.stopped = False  # by the observer
        self.game, self.pictures = Game(run), Pictures(run)
        self.last_logged, self.last_time = status.step, time.perf_counter()
        self.last_evaluation: Evaluation | None = None  # of the last step, if the run stops early
        if self.options.sample_every and not self.pictures.possible:
            log.warning("samples of shape %s cannot be drawn as pictures.", run.dataset.spec.shape)

    def train(self, stop: Callable[[], bool]) -> None:
        """Train to the last step, or until `stop()`."""
        status, options = self.status, self.options
        began = time.perf_counter() - status.seconds
        if status.step < 0:
            self.pretrain(stop)
        if status.step == 0 and options.sample_every:
            self.draw_real()
            self.draw_samples("step 0")
        if status.step == 0:
            self.record_frame()
        if status.extended:
            self.evaluate()  # as at its last step before, also for train.keep_best
        while status.step >= 0 and not status.is_last(self.run):
            reseed(self.run.device, self.run.seed, "step", status.step)
            updates = self.game.step(status.step)
            status.step += 1
            status.seconds = time.perf_counter() - began
            if self.is_due(options.metric_every) and status.step < options.steps:
                self.evaluate()  # first, since it may end the run at this step
            if self.is_due(options.log_every):
                self.log(updates)
            del updates  # its gradients would take memory during the next step
            if self.is_due(options.sample_every):
                self.draw_samples(f"step {status.step:,}")
            self.record_frame()
            stopping = stop() or self.stopped
            if self.is_due(options.checkpoint_every) or status.is_last(self.run) or stopping:
                self.save()
            if stopping:
                return

    def pretrain(self, stop: Callable[[], bool]) -> None:
        """Train D alone, in steps that count up to 0, or until `stop()`."""
        status, num = self.status, self.options.pretrain_d
        noise = self.game.instance_noise(0)
        if self.options.sample_every and self.pictures.possible:
            self.add_picture(self.pictures.draw("before pre-training"), "before_pretraining", self.pictures.tag)
        while status.step < 0 and not stop():
            self.record_frame()
            reseed(self.run.device, self.run.seed, "pretrain", status.step)
            update = self.game.d_update(num + status.step, noise)
            status.step += 1
            if self.options.log_every and status.step % self.options.log_every == 0:
                self.log_scalars(self.without_skipped(scalars(update)))
        if status.step == 0:
            log.info("D was pre-trained with %s updates", f"{num:,}")
            if self.options.sample_every:
                image = self.pictures.draw_discriminator(f"D after {num:,} updates alone")
                self.add_picture(image, "pretrained_d", "figure/pretrained_d")

    def is_due(self, every: int) -> bool:
        return bool(every) and (self.status.step % every == 0 or self.status.is_last(self.run))

    def log(self, updates: tuple[DUpdate, GUpdate]) -> None:
        values = scalars(*updates) | {tag: float(value) for tag, value in self.run.augment.scalars().items()}
        values = self.without_skipped(values)
        if (peak := peak_memory(self.run.device)) is not None:
            values["memory/peak_gib"] = peak
        now = time.perf_counter()
        values["time/steps_per_sec"] = (self.status.step - self.last_logged) / (now - self.last_time)
        self.last_logged, self.last_time = self.status.step, now
        self.log_scalars(values)
        self.progress.update(self.status.step, values)

    def without_skipped(self, values: dict[str, float]) -> dict[str, float]:
        """With float16, the values with the scales of the losses, and without the infinite norm of a skipped step.

        Raises Diverged if steps are skipped again and again, which the scale shows.
        """
        for player, scaler in (("d", self.run.d_scaler), ("g", self.run.g_scaler)):
            if scaler is None:
                continue
            scale, tag = scaler.get_scale(), f"grad_norm/{player}"
            if scale < LEAST_SCALE:
                raise Diverged(f"step {self.status.step}: {tag} is too large for train.precision=fp16.")
            values = {t: v for t, v in values.items() if t != tag or math.isfinite(v)} | {f"scale/{player}": scale}
        return values

    def log_scalars(self, values: dict[str, float]) -> None:
        step = self.status.step
        for tag, value in values.items():
            if not math.isfinite(value):
                raise Diverged(f"step {step}: {tag} is {value}.")
        self.run_dir.log_row({"step": step, "nimg": self.run.num_images(step), **values})
        self.board.scalars(values, step)

    def evaluate(self) -> None:
        """Compute all metrics during training, and log them, or keep them for `finish` if the run stops early here."""
        self.check_weights()
        evaluation = Evaluation(self.run)
        metrics = evaluation.metrics()
        self.keep_best(metrics)
        if self.status.is_last(self.run):
            self.last_evaluation, self.status.metrics = evaluation, metrics
        else:
            self.log_metrics(evaluation, metrics, self.raw_metrics("always"))
            findings = partial(self.findings, evaluation)
            self.stopped = self.observer.evaluated(self.status.step, metrics, findings)

    def raw_metrics(self, *when: str) -> dict[str, float]:
        """The metrics of G itself, beside those of G_ema, if train.metric_raw is one of `when`."""
        if self.run.G_ema is None or self.options.metric_raw not in when:
            return {}
        return Evaluation(self.run, ema=False).metrics()

    def findings(self, evaluation: Evaluation) -> Collection[str]:
        """The names of the findings of a diagnosis during training. None before losses are logged, which it needs."""
        rows = list(self.run_dir.rows())
        if not any("loss/d" in row for row in rows):
            return []
        found = evaluation.diagnosis(rows, self.config, self.run_dir.overrides())
        return [finding.name for finding in found.findings]

    def finish(self) -> None:
        """Log all metrics, the HParams row and the diagnosis at the end of the run."""
        if self.last_evaluation is None:
            self.last_evaluation = Evaluation(self.run)
            self.status.metrics = self.last_evaluation.metrics()
            self.keep_best(self.status.metrics)
        self.status.metrics_raw = self.raw_metrics("always", "end")
        self.log_metrics(self.last_evaluation, self.status.metrics, self.status.metrics_raw)
        self.board.hparams(self.status.metrics, "finished", self.status.step)
        if self.options.sample_every:
            for name, image in self.pictures.draw_final():
                self.add_picture(image, name, f"samples/{name}")
        self.diagnose()

    def log_metrics(self, evaluation: Evaluation, metrics: dict[str, float], raw: dict[str, float]) -> None:
        if metrics:
            tagged = {f"metric/{key}": value for key, value in metrics.items()}
            for name, image in evaluation.galleries().items():
                self.add_picture(image, f"{name}_step_{self.status.step:08d}", f"samples/{name}")
            tagged |= {f"metric_raw/{key}": value for key, value in raw.items()}
            self.run_dir.log_row({"step": self.status.step, **tagged})
            self.board.scalars(tagged, self.status.step)

    def keep_best(self, metrics: dict[str, float]) -> None:
        best = self.status.best
        if best and best.improves(metrics.get(best.key, math.nan), self.status.step):
            checkpoint.save_best(self.run_dir.checkpoints, self.state())

    def diagnose(self, diverged: bool = False) -> None:
        """Store the diagnosis in `status` and TensorBoard. An error in the diagnosis does not make the run fail."""
        if not self.options.diagnose:
            return
        try:
            evaluation = self.last_evaluation or Evaluation(self.run)
            rows, overrides = self.run_dir.rows(), self.run_dir.overrides()
            self.status.diagnosis = evaluation.diagnosis(rows, self.config, overrides, diverged)
        except Exception as error:
            log.warning("the diagnosis failed: %s: %s", type(error).__name__, error)
            log.debug("traceback", exc_info=True)
        text = self.status.diagnosis.text() if self.status.diagnosis else "none"
        self.board.text("diagnosis", text, self.status.step)

    def draw_samples(self, title: str) -> None:
        if self.pictures.possible:
            self.add_picture(self.pictures.draw(title), f"step_{self.status.step:08d}", self.pictures.tag)
        if (raw := self.pictures.draw_raw()) is not None:
            self.add_picture(raw, f"raw_step_{self.status.step:08d}", f"{self.pictures.tag}_raw")

    def draw_real(self) -> None:
        """Draw real examples once, to compare samples with."""
        if (real := self.pictures.draw_real()) is not None:
            self.add_picture(real, "real", "samples/real")

    def record_frame(self) -> None:
        """Save a frame, for figures of this step, if one is due, at the start, after pre-training D, and at the end."""
        step, options = self.status.step, self.options
        due = any(self.is_due(every) for every in (options.sample_every, options.frame_every))
        if (due or step in (-options.pretrain_d, 0) or self.status.is_last(self.run)) and can_capture(self.run):
            frames.save(capture(self.run, step), self.run_dir.path, options.pretrain_d)

    def add_picture(self, image: np.ndarray, name: str, tag: str) -> None:
        save_png(image, self.run_dir.samples / f"{name}.png")
        self.board.image(tag, image, self.status.step)

    def save(self) -> None:
        self.check_weights()
        self.board.flush()
        self.run_dir.sync()
        options = self.options
        checkpoint.save(self.run_dir.checkpoints, self.state(), options.keep_checkpoints, options.keep_every)

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint."""
        status, run = self.status, self.run
        return {
            "step": status.step,
            "nimg": run.num_images(status.step),
            "seconds": status.seconds,
            "config": self.config,
            "spec": run.dataset.spec.plain(),
            "data": run.data_facts(),
            "best": asdict(status.best) if status.best else None,
            "lazy_terms": dict(self.game.lazy_terms),
            **run.state_dict(),
        }

    def check_weights(self) -> None:
        if not self.run.is_finite():
            raise Diverged(f"step {self.status.step}: a weight is not finite.")
