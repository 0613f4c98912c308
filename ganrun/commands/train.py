"""`ganrun [key=value ...]`: train, or continue, one run."""

import logging
import platform
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ganrun import __version__
from ganrun.best import Best, choose
from ganrun.build import build
from ganrun.diagnosis.examine import measure
from ganrun.diagnosis.verdict import Diagnosis, diagnose
from ganrun.evaluation import evaluate_each
from ganrun.loop import Diverged, Position, State, changes_of_data, check_same_data, nimg, train
from ganrun.names import Config, slug
from ganrun.progress import logging_to_file
from ganrun.records import checkpoint
from ganrun.records.run_dir import RunDir, check_takes, new_run_dir
from ganrun.run import Run

log = logging.getLogger("ganrun")

FAILED, DIVERGED = 1, 3  # exit codes, beside 0 finished, 130 and 143 interrupted


def main(config: Config, name: str = "run", overrides: Sequence[str] | None = None) -> int:
    """Train what `config` says, in config["run_dir"] or a new directory under outputs/ that `name` ends.

    overrides: the settings that were typed, for the record. Returns the exit code. Raises ValueError, before anything
    is written, for a config that cannot work.
    """
    run_dir = RunDir(Path(config["run_dir"])) if config["run_dir"] else None
    if run_dir is not None:
        check_takes(run_dir, config)
        result = run_dir.result()
        if result and result["status"] == "finished":
            log.info("this run is finished already.")
            say_where(run_dir)
            return 0
    run = build(config)
    begun = run_dir is not None and bool(checkpoint.steps_in(run_dir.checkpoints))
    best = None if begun else start(run, config)
    run_dir = run_dir or new_run_dir(Path("outputs"), slug(name))
    config = {**config, "run_dir": str(run_dir.path)}
    with run_dir:
        check_takes(run_dir, config)  # again: building takes time, and only now is the directory ours
        state = checkpoint.load_newest(run_dir.checkpoints)
        if state:
            check_same_data(run, run_dir, state)
        elif begun:  # its checkpoints are damaged
            best = start(run, config)
        run_dir.write_config(config)
        if overrides is not None:
            run_dir.write_overrides(overrides)
        with logging_to_file(run_dir.log_file), Interrupts() as interrupts:
            return record(run, run_dir, config, state, Position(best=best), interrupts)


def start(run: Run, config: Config) -> Best | None:
    """What a run does that goes on from no checkpoint. Raises ValueError for settings that cannot work."""
    grow(run, config)
    return choose(run, lambda: evaluate_each(run))


def grow(run: Run, config: Config) -> None:
    """Put the generator of the run that arch.generator.grow_from names behind the first layers of this one's."""
    source = config["arch"]["generator"].get("grow_from")
    if source is None:
        return
    G: Any = run.G
    if not hasattr(G, "grow"):
        raise ValueError(
            f"arch.generator.grow_from={source}: this arch cannot grow; arch=goodfellow2014/tfd_grown can."
        )
    if not (first := RunDir(Path(source))).is_run:
        raise ValueError(f"arch.generator.grow_from={source}: no run there (it has no config.yaml).")
    state = first.load("last")
    if changed := changes_of_data(run, state):
        raise ValueError(
            f"arch.generator.grow_from={source}: was trained on other data, maybe on what this run is tested on: "
            f"{', '.join(changed)}. Give both runs the same data, and the same data.fold."
        )
    try:
        G.grow(state["G"])
    except ValueError as error:
        raise ValueError(f"arch.generator.grow_from={source}: {error}") from error
    if run.averaged is not None:
        run.averaged.load_state_dict(run.G.state_dict())


def record(
    run: Run, run_dir: RunDir, config: Config, state: State | None, at: Position, interrupts: "Interrupts"
) -> int:
    """Train from `state`, or `at`, and write result.json whatever happens."""
    sizes = [sum(p.numel() for p in net.parameters()) for net in (run.G, run.D)]
    log.info("run        %s", run_dir.path)
    log.info(
        "training   on %s examples of shape %s; G has %s parameters, D %s; %s",
        f"{len(run.dataset.train):,}",
        "x".join(map(str, run.dataset.spec.shape)),
        *(f"{size:,}" for size in sizes),
        run.device,
    )
    metrics, error, code = {}, None, 0
    doctor = Doctor(run, run_dir, config)
    try:
        metrics = train(run, run_dir, config, state, interrupts.stop, at, doctor if run.options.diagnose else None)
        status = "finished" if at.ends(run) else "interrupted"
        code = interrupts.exit_code  # of a run that finished nevertheless, too: a sweep is to stop
    except KeyboardInterrupt:  # a second Ctrl-C, which does not wait for the step to end
        status, code = "interrupted", 128 + signal.SIGINT
    except Diverged as found:
        status, error, code = "diverged", str(found), DIVERGED
    except Exception as found:
        status, error, code = "failed", f"{type(found).__name__}: {found}", FAILED
        log.debug("traceback", exc_info=True)
    result = {
        "status": status,
        "error": error,
        "steps": max(at.step, 0),
        "nimg": nimg(run, at.step),
        "wall_time": round(at.seconds, 3),
        "metrics": metrics,
        "best": {"key": at.best.key, "value": at.best.value, "step": at.best.step} if at.best else None,
        "stopped_early": status == "finished" and at.step < run.options.steps,
        "diagnosis": doctor.found.as_json() if doctor.found else None,
        "seed": run.seed,
        "device": torch_device_name(run),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    try:
        run_dir.write_result(result)
    except OSError as found:
        log.error("%s: cannot be written (%s).", run_dir.result_file, found.strerror)
    say_result(run_dir, result)
    if metrics:
        say_caveats(run)
    for line in doctor.lines:
        log.info(line)
    return code


class Doctor:
    """Asked at the end what went wrong in a run, if anything, and remembers the answer."""

    def __init__(self, run: Run, run_dir: RunDir, config: Config) -> None:
        self.run, self.run_dir, self.config = run, run_dir, config
        self.found: Diagnosis | None = None

    def __call__(self, diverged: bool) -> str:
        run, run_dir = self.run, self.run_dir
        try:
            measurements = measure(run, run_dir.metrics(), diverged)
            self.found = diagnose(measurements, self.config, run_dir.overrides(), run.dataset.spec.is_image)
        except Exception as error:  # a run that has done its work does not fail for want of a diagnosis
            log.warning("there is no diagnosis: %s: %s", type(error).__name__, error)
            log.debug("traceback", exc_info=True)
        return self.found.text() if self.found else "none"

    @property
    def lines(self) -> list[str]:
        return self.found.lines() if self.found else []


def say_result(run_dir: RunDir, result: dict[str, Any]) -> None:
    status, steps = result["status"], f"{result['steps']:,} steps"
    kept = checkpoint.steps_in(run_dir.checkpoints)
    last = f"the last checkpoint is step {kept[-1]:,}" if kept else "there is no checkpoint yet"
    again = f"ganrun resume run_dir={shlex.quote(str(run_dir.path))}"
    if status == "finished":
        log.info("finished: %s in %.1f s", steps, result["wall_time"])
        say_metrics(result["metrics"])
        say_best(result)
        say_where(run_dir)
    elif status == "interrupted":
        log.info("interrupted after %s; %s; continue with `%s`.", steps, last, again)
    elif status == "diverged":
        log.error(
            "diverged: %s %s. A smaller rate may help, as in optimizer.lr=0.00005.",
            result["error"], last[0].upper() + last[1:],
        )  # fmt: skip
    else:
        log.error(
            "failed after %s: %s; %s; the traceback stands in %s; continue with `%s`.",
            steps, result["error"], last, run_dir.log_file, again,
        )  # fmt: skip


def say_metrics(metrics: dict[str, float]) -> None:
    """One line each; what `NAME_true` says stands beside NAME, whatever the number of samples in its key.

    What goes on from the key of another, as `NAME_10k_se` does from NAME_10k, is about that, and stands beside it too.
    """
    owners = {key: owner(key, metrics) for key in metrics}
    for key, value in metrics.items():
        beside = {other.removeprefix(f"{key}_"): metrics[other] for other in metrics if owners[other] == key}
        truth = f"{key.rpartition('_')[0]}_true"
        if truth in metrics and truth != key:
            beside["true"] = metrics[truth]
        shown = ", ".join(f"{name}: {number(about)}" for name, about in beside.items())
        if beside or not (owners[key] or key.endswith("_true")):
            log.info("  %-28s %s%s", key, number(value), shown and f"  ({shown})")


def owner(key: str, keys: Iterable[str]) -> str:
    """The longest of the other keys that this one goes on from, or nothing.

    >>> owner("parzen_10k_anchor_se", ["parzen_10k", "parzen_10k_anchor", "parzen_10k_anchor_se"])
    'parzen_10k_anchor'
    """
    return max((other for other in keys if key.startswith(f"{other}_")), key=len, default="")


def number(value: float) -> str:
    """
    >>> number(10000.0), number(2056.93), number(0.16681)
    ('10,000', '2057', '0.1668')
    """
    return f"{value:,.0f}" if value >= 10000 and value == round(value) else f"{value:.4g}"


def say_caveats(run: Run) -> None:
    """What a metric's numbers do not mean, where it says so."""
    for metric in run.metrics.values():
        if caveat := getattr(metric, "caveat", ""):
            log.info(caveat)


def say_best(result: dict[str, Any]) -> None:
    best = result["best"]
    if best and best["step"] is not None:
        early = "; nothing better came, so it stopped early" if result["stopped_early"] else ""
        log.info(
            "best       %s %.4g at step %s: checkpoint=best%s", best["key"], best["value"], f"{best['step']:,}", early
        )


def say_where(run_dir: RunDir) -> None:
    pictures = sorted(run_dir.samples.glob("step_*.png"))
    lines = [f"results    {run_dir.path}"]
    lines += [f"picture    {pictures[-1]}"] if pictures else []
    lines += [f"samples    ganrun sample run_dir={shlex.quote(str(run_dir.path))} num=64"]
    lines += [f"dashboard  tensorboard --logdir {shlex.quote(str(run_dir.path.parent))}"]
    for line in lines:
        log.info(line)


class Interrupts:
    """SIGINT and SIGTERM, noticed and kept until the step is done. A second SIGINT does not wait."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._notice)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number

    def stop(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return 128 + self.signal if self.signal else 0


def versions() -> dict[str, str]:
    return {"ganrun": __version__, "python": platform.python_version()} | {
        package: version(package) for package in ("torch", "numpy", "hydra-core")
    }


def torch_device_name(run: Run) -> str:
    import torch

    return torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else run.device.type


def git_commit() -> str | None:
    """The commit of the folder that ganrun was started in, where it is a git checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
