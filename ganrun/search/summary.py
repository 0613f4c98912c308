"""What a search prints: its space, each trial, and the answer at the end."""

import shlex
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ganrun.search.space import Parameter, Problem, name_of
from ganrun.search.study import Trials, folder_of, url_of
from ganrun.search.trial import KIND, REASON, Ending

WIDTH = 11  # of the words before a line's text
SHOWN = 10  # of the trials of a Pareto front, and of failed trials


def line(word: str, text: str) -> str:
    return f"{word:{WIDTH}}{text}"


def heading(problem: Problem, metrics: Sequence[str], directions: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
    for number, parameter in enumerate(problem.parameters):
        yield line("" if number else "space", f"{name_of(parameter)}: {parameter}")
    goals = [f"{direction} {key}" for key, direction in zip(metrics, directions, strict=True)]
    yield line("objective", " and ".join(goals) + (f", the mean of {len(seeds)} seeds" if len(seeds) > 1 else ""))


def trial_line(number: int, metrics: Sequence[str], overrides: Sequence[str], ending: Ending, is_best: bool) -> str:
    """One line on a trial that has ended."""
    if ending.kind == "finished":
        text = values_text(metrics, ending.values) + (" (best so far)" if is_best else "")
    else:
        text = f"{ending.kind}: {ending.reason.rstrip('.')}"
    return line(f"trial {number}", f"{text}  {' '.join(map(shortened, overrides))}")


def values_text(metrics: Sequence[str], values: Sequence[float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in zip(metrics, values, strict=True))


def shortened(setting: str) -> str:
    """A setting with four digits of its number, to read and not to copy.

    >>> shortened("optimizer.lr=0.00123456"), shortened("train.steps=12345"), shortened("loss=wgan")
    ('optimizer.lr=0.001235', 'train.steps=12345', 'loss=wgan')
    """
    key, _, value = setting.partition("=")
    try:
        return setting if value.lstrip("+-").isdigit() else f"{key}={float(value):.4g}"
    except ValueError:
        return setting


def settings_of(trial: FrozenTrial, parameters: Sequence[Parameter]) -> list[str]:
    return [parameter.setting(trial.params[name_of(parameter)]) for parameter in parameters]


def command_of(trial: FrozenTrial, problem: Problem) -> str:
    """The command of a trial's first run, in a new run directory."""
    return shlex.join(["ganrun", *problem.fixed, *settings_of(trial, problem.parameters)])


def conclusion(trials: Trials, problem: Problem, metrics: Sequence[str], running: int) -> Iterator[str]:
    """The lines at the end: how many trials ended how, the best of them, its command, and where to look."""
    study = trials.study
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    yield line("search", f"{counts(trials)}{f', {running} running in other processes' if running else ''}")
    for trial in trials.failed()[:SHOWN]:
        yield line("", f"trial {trial.number} failed: {trial.user_attrs.get(REASON)}")
    if not finished:
        yield line("best", "none, since no trial has finished")
    else:
        yield from best_lines(trials, problem, metrics)
        yield from importance_lines(study, metrics)
    yield line("look", f"optuna-dashboard {shlex.quote(url_of(trials.folder))}")


def kinds_of(trials: Trials) -> Counter[str]:
    """How many trials ended how. Trials that failed and were tried again count once."""
    failed = {trial.number for trial in trials.failed()}
    ended = [t for t in trials.all() if t.state.is_finished() and (t.state != TrialState.FAIL or t.number in failed)]
    return Counter(str(trial.user_attrs.get(KIND, trial.state.name.lower())) for trial in ended)


def counts(trials: Trials) -> str:
    kinds = kinds_of(trials)
    number = kinds.total()
    ended = ", ".join(f"{num} {kind}" for kind, num in kinds.most_common())
    return f"{number} trial{'' if number == 1 else 's'}: {ended}"


def best_text(study: optuna.Study, metrics: Sequence[str]) -> str:
    """The best value so far; "" if there is none, or if there are several objectives."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return values_text(metrics, study.best_trial.values) if finished and len(metrics) == 1 else ""


def best_lines(trials: Trials, problem: Problem, metrics: Sequence[str]) -> Iterator[str]:
    """The best trial, or for several objectives those of which none is better in all of them."""
    best = trials.study.best_trials if len(metrics) > 1 else [trials.study.best_trial]
    best.sort(key=lambda trial: trial.values)
    if len(best) > SHOWN:
        yield line("best", f"{len(best)} trials, none better than another in all objectives; the first {SHOWN}:")
    for number, trial in enumerate(best[:SHOWN]):
        first = "best" if number == 0 and len(best) <= SHOWN else ""
        settings = " ".join(map(shortened, settings_of(trial, problem.parameters)))
        yield line(first, f"{values_text(metrics, trial.values)}  {settings}  (trial {trial.number})")
    for number, trial in enumerate(best[:SHOWN]):
        yield line("" if number else "command", command_of(trial, problem))
    yield line("runs", str(trials.folder / folder_of(best[0])))


def importance_lines(study: optuna.Study, metrics: Sequence[str]) -> Iterator[str]:
    """The share of each parameter in the differences of the objectives. Needs a few trials, and different values."""
    for index, key in enumerate(metrics):
        try:
            found = importances(study, index)
        except (ValueError, RuntimeError):  # of too few trials, in Optuna's words
            continue
        if text := ", ".join(f"{name} {share:.2f}" for name, share in found.items()):
            yield line("importance", f"{text}{f' (for {key})' if len(metrics) > 1 else ''}")


def importances(study: optuna.Study, index: int) -> dict[str, float]:
    """PED-ANOVA's share of each parameter in what makes the values of an objective good (Watanabe et al. 2023)."""
    sign = -1 if study.directions[index] == StudyDirection.MAXIMIZE else 1  # low values are good

    def target(trial: FrozenTrial) -> float:
        return sign * float(trial.values[index])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that low values are good
        return optuna.importance.get_param_importances(study, target=target)


def is_best(study: optuna.Study, number: int) -> bool:
    """Whether no earlier or later trial is better; False for several objectives."""
    return len(study.directions) == 1 and study.best_trial.number == number
