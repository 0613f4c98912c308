"""A search from its start to its answer, in one process or several."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ganrun.search import summary
from ganrun.search.options import Direction, SearchOptions
from ganrun.search.progress import progress
from ganrun.search.record import check_record, record_of
from ganrun.search.study import Trials, locked, make_sampler, open_study
from ganrun.search.trial import Plan, run_trial
from ganrun.search.workers import is_worker, run_workers

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class Search:
    """A search in a directory. seed: of the sampler."""

    folder: Path
    options: SearchOptions
    plan: Plan
    directions: Sequence[Direction]
    seed: int

    def run(self) -> int | None:
        """Run the trials that are missing, and print the answer. Returns the signal that ended it, or None.

        Raises ValueError if the directory contains another search.
        """
        trials = self.open()
        if is_worker():
            return self.work(trials)
        log.info(summary.line("search", f"{self.folder}; the same command with this run_dir goes on"))
        for text in summary.heading(self.plan.problem, self.plan.metrics, self.directions, self.plan.seeds):
            log.info(text)
        if retried := trials.retry_failed():
            log.info(summary.line("search", f"{retried} failed trials are tried again"))
        with progress(trials, self.plan.metrics, self.options.trials) as shown:
            if self.options.jobs > 1:
                line = [*self.plan.problem.line, f"run_dir={self.folder}"]
                number = run_workers(line, self.options.jobs, shown.show)
            else:
                number = self.work(trials, shown.show)
        if number:
            log.info(summary.line("search", "interrupted"))
        running = trials.num_running()
        for text in summary.conclusion(trials, self.plan.problem, self.plan.metrics, running):
            log.info(text)
        return number

    def succeeded(self) -> bool:
        """Whether all trials have ended, or run elsewhere, at least one has finished, and none has failed."""
        trials = self.open()
        kinds = summary.kinds_of(trials)
        enough = kinds.total() + trials.num_running() >= self.options.trials
        return enough and kinds["finished"] > 0 and kinds["failed"] == 0

    def open(self) -> Trials:
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = self.plan
        with locked(self.folder / ".lock"):
            check_record(self.folder, record_of(plan.problem, plan.metrics, self.directions, plan.seeds))
            sampler = make_sampler(self.options.sampler, self.seed)
            study = open_study(self.folder, plan.metrics, self.directions, sampler)
        return Trials(self.folder, study, plan.problem.parameters)

    def work(self, trials: Trials, show: Callable[[], None] = lambda: None) -> int | None:
        """Run trials until none is left. Returns the signal that stopped it, or None. show: shows the progress."""
        while claim := trials.claim(self.options.trials):
            with claim:
                show()
                ending = run_trial(claim, self.plan)
            if ending.kind != "interrupted":
                number = claim.trial.number
                best = ending.kind == "finished" and summary.is_best(trials.study, number)
                log.info(summary.trial_line(number, self.plan.metrics, claim.overrides, ending, best))
            if ending.signal or ending.kind == "interrupted":
                return ending.signal
        return None
