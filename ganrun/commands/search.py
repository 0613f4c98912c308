"""`ganrun search 'KEY=interval(LOW,HIGH)' search.metric=KEY`: search for the settings with the best metric."""

import importlib.util
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ganrun.commands.train import print_outcome
from ganrun.config import Config
from ganrun.console import logging_to_file, quiet
from ganrun.protocols import Observer
from ganrun.search.objective import declared_keys, directions, objectives
from ganrun.search.options import SearchOptions
from ganrun.search.space import Interval, Problem
from ganrun.search.workers import end_with_parent, is_worker
from ganrun.training.train import Outcome, train

log = logging.getLogger("ganrun")

FINISHED, FAILED = 0, 1  # exit codes; interrupted by signal N: 128 + N
MISSING = "needs {}, which is not installed; `pip install 'ganrun[search]'`."


def main(config: Config, name: str = "", problem: Problem | None = None) -> int:
    """Search, print the answer, and return the exit code: FAILED if a trial failed, or if none has finished.

    config: of one of the runs, with the section `search`. Raises ValueError for settings that cannot work.
    """
    assert problem is not None, "the command line makes one for this verb"
    if is_worker():
        end_with_parent()
    options = SearchOptions.of(config["search"])
    check_sampler(options, problem)
    options.check_pruning(config["train"])
    known = declared_keys([problem.compose(settings) for settings in problem.first])
    metrics = objectives(options, config["train"]["keep_best"], known)
    options.check_objectives(len(metrics))
    seeds = range(config["seed"], config["seed"] + options.seeds)
    from ganrun.search.run import Search  # imports Optuna
    from ganrun.search.trial import Plan

    plan = Plan(problem, metrics, options.prune, seeds, config["train"]["steps"], train_run)
    folder = Path(config["run_dir"]).expanduser() if config["run_dir"] else new_folder()
    search = Search(folder, options, plan, directions(options, metrics, known), config["seed"])
    number = search.run()
    if number:
        return 128 + number
    return FINISHED if search.succeeded() else FAILED


def check_sampler(options: SearchOptions, problem: Problem) -> None:
    """Raise ValueError if the sampler is not installed, or cannot draw these parameters."""
    if importlib.util.find_spec("optuna") is None:
        raise ValueError(f"ganrun search: {MISSING.format('Optuna')}")
    if options.sampler != "cmaes":
        return
    if importlib.util.find_spec("cmaes") is None:
        raise ValueError(f"search.sampler=cmaes: {MISSING.format('the package cmaes')}")
    if sum(isinstance(parameter, Interval) for parameter in problem.parameters) < 2:
        raise ValueError("search.sampler=cmaes: needs at least two settings with an interval or a range; use tpe.")


def new_folder() -> Path:
    return Path("outputs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}_search"


def train_run(config: Config, overrides: Sequence[str], observer: Observer) -> Outcome:
    """Train one run of a trial. Only its warnings are printed; the rest is in its train.log."""
    with quiet():
        outcome = train(config, overrides=overrides, observer=observer)
    if outcome.status is not None:
        with quiet(logging.CRITICAL), logging_to_file(outcome.run_dir.log_file):
            print_outcome(outcome)
    return outcome
