"""One training job: from a config to a run directory with a result."""

import logging
import platform
import signal
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from ganrun import __version__
from ganrun.config import Config, slug
from ganrun.console import logging_to_file
from ganrun.diagnosis.diagnosis import Diagnosis
from ganrun.process import exit_as_error
from ganrun.protocols import Observer
from ganrun.records import checkpoint
from ganrun.records.board import Board
from ganrun.records.run_dir import RunDir, check_compatible, new_run_dir
from ganrun.training.best import choose_best
from ganrun.training.build import build, has_automatic_norm, make_trackers, reason_for_no_norm, with_norm
from ganrun.training.changes import check_last_step, has_finished, warn_of_changes
from ganrun.training.evaluation import protocols
from ganrun.training.init_from import init_from
from ganrun.training.interrupts import Interrupts
from ganrun.training.load import LoadedRun, load
from ganrun.training.loop import Diverged, Status, train_loop
from ganrun.training.options import TrainOptions
from ganrun.training.run import Run, check_same_data

log = logging.getLogger("ganrun")

Ending = Literal["finished", "interrupted", "diverged", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a training job ended.

    status: None if the run had already finished. error: the exception that ended it. signal: received during training.
    """

    run_dir: RunDir
    status: Ending | None
    result: dict[str, Any]
    run: Run | None = None
    diagnosis: Diagnosis | None = None
    error: BaseException | None = None
    signal: int | None = None


def train(
    config: Config,
    name: str = "run",
    overrides: Sequence[str] | None = None,
    options: TrainOptions | None = None,
    changes: Collection[str] = (),
    observer: Observer | None = None,
) -> Outcome:
    """Train a run in config["run_dir"], or in a new directory under outputs/ whose name ends in `name`.

    An existing run is resumed. overrides: the settings that were typed, to save them. options: of config["train"], if
    the caller has them already. changes: settings in which an existing run may differ. observer: is told of every
    evaluation, and can stop the run. Raises ValueError, before anything is written, for a config that cannot work.
    """
    config = dict(config)
    trackers = make_trackers(config.pop("tracker", None))
    path = config["run_dir"]
    with RunDir(Path(path)) if path else new_run_dir(Path("outputs"), slug(name)) as run_dir:
        if run_dir.is_run and not run_dir.config()["train"]["ema_debias"]:  # the default of earlier versions
            config, options = {**config, "train": {**config["train"], "ema_debias": False}}, None
        automatic = has_automatic_norm(config)
        config = with_norm({**config, "run_dir": str(run_dir.path)})
        check_compatible(run_dir, config, changes)
        result = run_dir.result()
        if result and has_finished(result, config, changes):
            return Outcome(run_dir, None, result)
        state, status = checkpoint.load_newest(run_dir.checkpoints), Status()
        if state:
            check_last_step(config, state, changes)
        run = build(config, options)
        if automatic and config["arch"]["discriminator"]["norm"] == "none":
            log.info("norm       none in D (arch.discriminator.norm), %s", reason_for_no_norm(config))
        status.best = choose_best(run)
        if state:
            check_same_data(run, run_dir.path, state)
            run.load_state_dict(state)
            warn_of_changes(run, config, state)
        else:
            init_from(run, config)
        run_dir.result_file.unlink(missing_ok=True)  # first: it may say that the run has finished
        if overrides is not None:
            run_dir.write_overrides(overrides)
        run_dir.write_config(config)
        with logging_to_file(run_dir.log_file), Interrupts() as interrupts:
            board, watch = Board(run_dir, trackers), observer or Observer()
            return _train(run, config, state, status, interrupts, board, watch)


def train_and_load(config: Config) -> LoadedRun:
    """`ganrun.train`: train a run as `ganrun` does, and return it as `ganrun.load` does.

    The run is in config["run_dir"], or in a new directory under outputs/. An existing run is resumed. Ctrl-C returns
    early; the same call with the same run_dir then continues. Raises ValueError for a config that cannot work, and the
    exception that ended a failed training: `ganrun.training.loop.Diverged`, or any other.
    """
    outcome = train(config)
    if outcome.error is not None:
        raise outcome.error
    return load(outcome.run_dir.path)


def _train(
    run: Run,
    config: Config,
    state: dict[str, Any] | None,
    status: Status,
    interrupts: Interrupts,
    board: Board,
    observer: Observer,
) -> Outcome:
    """Run the loop, and write result.json however it ends."""
    run_dir = board.run_dir
    log.info("run        %s", run_dir.path)
    num_g, num_d = (sum(p.numel() for p in net.parameters()) for net in (run.G, run.D))
    shape = "x".join(map(str, run.dataset.spec.shape))
    log.info(
        f"training   on {len(run.dataset.train):,} examples of shape {shape}; "
        f"G has {num_g:,} parameters, D {num_d:,}; {run.device}"
    )
    error: BaseException | None = None
    try:
        train_loop(run, run_dir, config, state, status, interrupts.received, board, observer)
        ending: Ending = "finished" if status.is_last(run) else "interrupted"
    except KeyboardInterrupt as found:  # a second Ctrl-C, in the middle of a step
        ending, error = "interrupted", found
        interrupts.signal = signal.SIGINT
    except Diverged as found:
        ending, error = "diverged", found
    except BaseException as found:
        ending, error = "failed", exit_as_error(found) if isinstance(found, SystemExit) else found
        log.debug("traceback", exc_info=True)
    result = make_result(run, status, ending, error)
    try:
        run_dir.sync()
        run_dir.write_result(result)
    except OSError as found:
        log.error("%s: cannot be written (%s).", run_dir.result_file, found.strerror)
    board.finish(result)  # last, since it may wait for a server
    return Outcome(run_dir, ending, result, run, status.diagnosis, error, interrupts.signal)


def make_result(run: Run, status: Status, ending: Ending, error: BaseException | None) -> dict[str, Any]:
    best = status.best
    text = {"diverged": str(error), "failed": f"{type(error).__name__}: {error}"}
    return {
        "status": ending,
        "error": text.get(ending),
        "steps": max(status.step, 0),
        "nimg": run.num_images(status.step),
        "wall_time": round(status.seconds, 3),
        "metrics": status.metrics if ending == "finished" else {},
        **({"metrics_raw": status.metrics_raw} if ending == "finished" and status.metrics_raw else {}),
        **({"protocols": found} if ending == "finished" and (found := protocols(run)) else {}),
        "best": {"key": best.key, "value": best.value, "step": best.step} if best else None,
        "stopped_early": ending == "finished" and status.step < run.options.steps,
        "diagnosis": status.diagnosis.as_json() if status.diagnosis else None,
        "seed": run.seed,
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else run.device.type,
        "versions": versions(),
        "git_commit": git_commit(),
    }


def versions() -> dict[str, str]:
    return {"ganrun": __version__, "python": platform.python_version()} | {
        package: version(package) for package in ("torch", "numpy", "hydra-core")
    }


def git_commit() -> str | None:
    """The commit of the folder in which ganrun was started, or None if it is not a git checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
