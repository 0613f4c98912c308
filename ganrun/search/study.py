"""The study of a search in SQLite, and which process runs which trial. Only this folder imports Optuna."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from ganrun.files import lock, opened_to_append
from ganrun.records.state import is_locked
from ganrun.search.options import Direction
from ganrun.search.space import Choice, Interval, Parameter, Value, name_of

NAME = "search"  # of the study, for optuna-dashboard
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
SQLITE_SECONDS = 60  # to wait for another process that writes to the study
STARTUP = 10  # trials that are drawn at random before TPE has enough of them

RETRIES, FOLDER = "retries", "folder"  # what is recorded of a trial that tries a failed one again


class SeededSampler(BaseSampler):
    """Draws every parameter with a random state that is a function of the seed, the trial's number and its name.

    A search with one process therefore proposes the same trials if it is killed and continued, even between two
    parameters of a trial. make: creates the sampler with a seed.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self.make, self.seed = make, seed

    def sampler(self, trial: FrozenTrial, name: str = "") -> BaseSampler:
        digest = hashlib.sha256(f"{self.seed} {trial.number} {name}".encode()).digest()
        return self.make(int.from_bytes(digest[:4], "big"))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self.sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def make_sampler(name: str, seed: int) -> SeededSampler:
    """name: tpe, random or cmaes."""
    makers: Mapping[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda number: TPESampler(seed=number, n_startup_trials=STARTUP),
        "random": lambda number: RandomSampler(seed=number),
        "cmaes": lambda number: CmaEsSampler(seed=number, warn_independent_sampling=False),
    }
    return SeededSampler(makers[name], seed)


def open_study(
    folder: Path, metrics: Sequence[str], directions: Sequence[Direction], sampler: BaseSampler
) -> optuna.Study:
    """The study in folder/study.db, which is created if there is none. Called with the folder's lock.

    metrics: the names of its objectives. Raises ValueError if the file cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of the names of metrics
    kwargs = {"connect_args": {"timeout": SQLITE_SECONDS}}
    try:
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(url_of(folder), engine_kwargs=kwargs),
            sampler=sampler,
            pruner=optuna.pruners.MedianPruner(),
            study_name=NAME,
            directions=list(directions),
            load_if_exists=True,
        )
        if study.metric_names != list(metrics):
            study.set_metric_names(list(metrics))
        return study
    except Exception as error:  # of SQLAlchemy or Optuna, of many types
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ValueError(f"{folder / 'study.db'}: cannot be read ({reason}).") from error


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file for a moment, against other processes of the search. Does nothing without flock."""
    with opened_to_append(path) as file:
        with suppress(ImportError, OSError):  # of a file system without locks
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass
class Claim:
    """A trial that this process runs. folder: of its runs. overrides: its parameters, as typed."""

    trial: Trial
    folder: Path
    overrides: list[str]
    lock: TextIO

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.close()


class Trials:
    """The trials of a search. Several processes share them."""

    def __init__(self, folder: Path, study: optuna.Study, parameters: Sequence[Parameter]) -> None:
        self.folder, self.study, self.parameters = folder, study, parameters

    def all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def failed(self) -> list[FrozenTrial]:
        """The failed trials that were not tried again."""
        trials = self.all()
        retried = {trial.user_attrs.get(RETRIES) for trial in trials}
        return [trial for trial in trials if trial.state == TrialState.FAIL and trial.number not in retried]

    def retry_failed(self) -> int:
        """Enqueue every failed trial again, with the same parameters and runs. Returns how many there are."""
        with locked(self.folder / ".lock"):
            failed = self.failed()
            for trial in failed:
                attributes = {RETRIES: trial.number, FOLDER: folder_of(trial)}
                self.study.enqueue_trial(trial.params, user_attrs=attributes)
        return len(failed)

    def claim(self, wanted: int) -> Claim | None:
        """The next trial for this process, until there are `wanted` trials; None if there is none.

        First come trials of processes that were killed, then failed ones that were enqueued again, then new ones. The
        lock on a trial's folder tells whether a process runs it.
        """
        with locked(self.folder / ".lock"):
            trials = self.all()
            for trial in (trial for trial in trials if trial.state == TrialState.RUNNING):
                if lock := self.lock(folder_of(trial)):
                    return self.claimed(Trial(self.study, trial._trial_id), lock)
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            failed = sum(trial.state == TrialState.FAIL for trial in trials) - len(self.failed())
            if not waiting and len(trials) - failed >= wanted:
                return None
            asked = self.study.ask()
            lock = self.lock(folder_of(asked))
            assert lock is not None, "nobody else knows of it"
            return self.claimed(asked, lock)

    def claimed(self, trial: Trial, lock: TextIO) -> Claim:
        """The claim, with a value for each parameter. A killed process may have left the trial without some."""
        words = [parameter.setting(suggest(trial, parameter)) for parameter in self.parameters]
        return Claim(trial, self.folder / folder_of(trial), words, lock)

    def lock(self, name: str) -> TextIO | None:
        """Lock a trial's folder; None if another process has done so."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        if is_locked(folder):
            return None
        file = opened_to_append(folder / ".lock")
        lock(file)
        return file

    def num_running(self) -> int:
        """The number of trials that other processes are running."""
        running = [trial for trial in self.all() if trial.state == TrialState.RUNNING]
        return sum(is_locked(self.folder / folder_of(trial)) for trial in running)


def folder_of(trial: Trial | FrozenTrial) -> str:
    """The name of a trial's folder, which a trial has in common with the failed one that it tries again."""
    return str(trial.user_attrs.get(FOLDER, f"trial_{trial.number:04d}"))


def suggest(trial: Trial, parameter: Parameter) -> Value:
    """The trial's value of a parameter: the one that it has, or a new one."""
    name = name_of(parameter)
    if isinstance(parameter, Choice):
        chosen = trial.suggest_categorical(name, list(parameter.words))
        assert chosen is not None
        return chosen
    assert isinstance(parameter, Interval)
    low, high, step, log = parameter.low, parameter.high, parameter.step, parameter.log
    if parameter.is_whole:
        return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=log)
    return trial.suggest_float(name, low, high, step=step, log=log)
