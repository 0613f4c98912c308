"""`ganrun [key=value ...]`: train or continue one run."""

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ganrun.config import Config
from ganrun.console import logging_to_file
from ganrun.diagnosis.remedy import command, remedy
from ganrun.protocols import MetricKey
from ganrun.records import checkpoint
from ganrun.records.run_dir import RunDir
from ganrun.training.ema import share_of_start
from ganrun.training.evaluation import setup_of
from ganrun.training.options import TrainOptions
from ganrun.training.run import Run
from ganrun.training.train import Outcome, train

log = logging.getLogger("ganrun")

UNSETTLED = 0.1  # weight of the start in a plain average, from which on G_ema has not settled
FINISHED, FAILED, DIVERGED = 0, 1, 3  # exit codes; interrupted by signal N: 128 + N


def main(
    config: Config,
    name: str = "run",
    overrides: Sequence[str] | None = None,
    options: TrainOptions | None = None,
    changes: Collection[str] = (),
) -> int:
    """Train, print the outcome, and return the exit code. Arguments and errors are those of `train`."""
    outcome = train(config, name, overrides, options, changes)
    if outcome.status is None:
        again = command_of("resume", outcome.run_dir)
        log.info("this run has already finished; `%s train.steps=N` extends it.", again)
        print_paths(outcome.run_dir)
        return FINISHED
    with logging_to_file(outcome.run_dir.log_file):
        print_outcome(outcome)
    if outcome.signal:
        return 128 + outcome.signal  # even if the run finished, since a sweep must stop
    return {"diverged": DIVERGED, "failed": FAILED}.get(outcome.status, FINISHED)


def command_of(verb: str, run_dir: RunDir) -> str:
    """The command line of a verb for this run, with the modules that were typed to be trusted."""
    trusted = [shlex.quote(override) for override in run_dir.overrides() if override.startswith("trust=")]
    return " ".join(["ganrun", verb, f"run_dir={shlex.quote(str(run_dir.path))}", *trusted])


def print_outcome(outcome: Outcome) -> None:
    run_dir, result = outcome.run_dir, outcome.result
    steps = f"{result['steps']:,} steps"
    kept = checkpoint.steps_in(run_dir.checkpoints)
    last = f"the last checkpoint is step {kept[-1]:,}" if kept else "there is no checkpoint yet"
    again = command_of("resume", run_dir)
    if outcome.status == "finished":
        log.info("finished: %s in %.1f s", steps, result["wall_time"])
        print_metrics(result["metrics"], run_dir.metric_keys(), result.get("metrics_raw", {}))
        print_unsettled(outcome.run.options if outcome.run else None, result["steps"])
        print_best(result)
        print_paths(run_dir)
        if outcome.run:
            print_caveats(outcome.run)
    elif outcome.status == "interrupted":
        log.info("interrupted after %s; %s; continue with `%s`.", steps, last, again)
    elif outcome.status == "diverged":
        log.error("diverged: %s %s.", result["error"], last[0].upper() + last[1:])
        if outcome.run and not outcome.diagnosis:  # which has the same remedy
            changes = remedy("divergence", setup_of(outcome.run, run_dir.config()))
            log.info("try        %s", command(run_dir.overrides(), changes))
    else:
        log.error(
            "failed after %s: %s; %s; the traceback is in %s; continue with `%s`.",
            steps, result["error"], last, run_dir.log_file, again,
        )  # fmt: skip
    for line in outcome.diagnosis.summary() if outcome.diagnosis else []:
        log.info(line)


def print_metrics(
    metrics: Mapping[str, float], keys: Mapping[str, MetricKey], raw: Mapping[str, float] | None = None
) -> None:
    """Print a line for each metric, followed by the values that belong to it, and the value of the data.

    raw: the metrics of G itself, if `metrics` are those of G_ema.
    """
    owners = {key: keys[key].about for key in metrics if key in keys}
    true_keys = {keys[key].true for key in metrics if key in keys}
    for key, value in metrics.items():
        known = keys.get(key, MetricKey())
        related = {other.removeprefix(f"{key}_"): metrics[other] for other, owner in owners.items() if owner == key}
        if known.true in metrics:
            related["true"] = metrics[known.true]
        belongs = known.about in metrics or key in true_keys
        if belongs and not related:
            continue
        if raw and key in raw and key not in true_keys:
            related["without EMA"] = raw[key]
        text = ", ".join(f"{name}: {formatted(number)}" for name, number in related.items())
        if related or not belongs:
            log.info("  %-28s %s%s", key, formatted(value), text and f"  ({text})")


def formatted(value: float) -> str:
    """A value with four significant digits, or all digits of a large whole number.

    >>> formatted(10000.0), formatted(2056.93), formatted(0.16681)
    ('10,000', '2057', '0.1668')
    """
    return f"{value:,.0f}" if value >= 10000 and float(value).is_integer() else f"{value:.4g}"


def print_unsettled(options: TrainOptions | None, steps: int) -> None:
    """Print a warning if G_ema averages over so many steps that it cannot have settled."""
    if options is None or not options.ema:
        return
    start = share_of_start(steps, options.ema, options.ema_rampup)
    if start < UNSETTLED:
        return
    if options.ema_debias:
        what = f"G_ema averages G over most of the {steps:,} steps, and so lags behind it"
    else:
        what = f"after {steps:,} steps, {start:.0%} of G_ema are still the initial weights of G"
    log.info("warning    train.ema=%g: %s; train.ema_rampup=0.05 makes the average shorter.", options.ema, what)


def print_caveats(run: Run) -> None:
    """Print the caveats of the metrics."""
    for metric in run.metrics.values():
        if metric.caveat:
            log.info(metric.caveat)


def print_best(result: dict[str, Any]) -> None:
    best = result["best"]
    if best and best["step"] is not None:
        early = "; no improvement after that, so it stopped early" if result["stopped_early"] else ""
        log.info(
            "best       %s %.4g at step %s: checkpoint=best%s", best["key"], best["value"], f"{best['step']:,}", early
        )


def print_paths(run_dir: RunDir) -> None:
    pictures = sorted(run_dir.samples.glob("step_*.png"))
    log.info("results    %s", run_dir.path)
    if pictures:
        log.info("picture    %s", pictures[-1])
    log.info("samples    %s num=64", command_of("sample", run_dir))
    log.info("dashboard  tensorboard --logdir %s", shlex.quote(str(run_dir.path.parent)))
