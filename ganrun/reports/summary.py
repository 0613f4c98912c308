"""The content of a report: for each data set a ranked list of settings, their comparisons, and a conclusion."""

import dataclasses
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganrun.reports import commands
from ganrun.reports.collect import Run
from ganrun.reports.confounds import Confounds, confounds, joined
from ganrun.reports.options import class_of
from ganrun.reports.ranking import Ranking, choose
from ganrun.reports.settings import Setting, settings_of, unequal_records
from ganrun.reports.statistics import Difference, Mean, difference, holm, mean_of


@dataclass(frozen=True)
class Line:
    """One setting of a report. values: by seed, those that count. rank: from 1, None without a value."""

    setting: Setting
    values: Mapping[int, float]
    mean: Mean | None
    best: float | None
    worst: float | None
    command: str
    rank: int | None = None

    @property
    def name(self) -> str:
        return self.setting.name

    @property
    def runs(self) -> Sequence[Run]:
        return self.setting.runs

    @property
    def diverged(self) -> int:
        return sum(run.diverged for run in self.runs)

    @property
    def collapsed(self) -> int:
        return sum(run.collapsed for run in self.runs)

    @property
    def has_diagnosis(self) -> bool:
        return any(run.diagnosis for run in self.runs)

    @property
    def is_reliable(self) -> bool:
        """Whether at least half of the runs that have ended have a value."""
        return 2 * len(self.values) >= sum(run.state in ("finished", "diverged", "failed") for run in self.runs)

    def command_of(self, run: Run) -> str:
        """The command that repeats one of its runs."""
        return commands.repeated(run.typed, [run.seed], run.path)

    def median(self, name: str) -> float:
        """The median over runs of `steps`, `nimg` or `seconds`."""
        return float(statistics.median(getattr(run, name) for run in self.runs))


@dataclass(frozen=True)
class Comparison:
    """A comparison of two lines; `first` has the better mean. difference: of the means, None with too few values."""

    first: Line
    second: Line
    difference: Difference | None


@dataclass(frozen=True)
class Part:
    """The settings of one data set, the best first."""

    data: str
    lines: Sequence[Line]
    ranking: Ranking | None
    confounds: Confounds
    comparisons: Sequence[Comparison] = ()
    notes: Sequence[str] = ()

    @property
    def keys(self) -> list[str]:
        """The keys that vary."""
        return list(self.lines[0].setting.values)

    @property
    def runs(self) -> list[Run]:
        return [run for line in self.lines for run in line.runs]

    @property
    def ranked(self) -> list[Line]:
        return [line for line in self.lines if line.rank is not None]

    @property
    def has_differences(self) -> bool:
        """Whether any two settings have enough seeds to be compared."""
        return any(comparison.difference for comparison in self.comparisons)


@dataclass(frozen=True)
class Report:
    """All parts. problems: a sentence for each directory that could not be read."""

    parts: Sequence[Part]
    problems: Sequence[str] = ()
    title: str = ""

    @property
    def runs(self) -> list[Run]:
        return [run for part in self.parts for run in part.runs]

    @property
    def counts(self) -> str:
        """How many runs there are, by state, as in `6 runs: 5 finished, 1 diverged`."""
        return counts_of(self.runs)


@dataclass(frozen=True)
class Choices:
    """by, better: the metric and its direction, None for the default. compare: how many settings are compared."""

    by: str | None = None
    better: str | None = None
    compare: int = 8


def make_report(runs: Sequence[Run], problems: Sequence[str], choices: Choices, title: str = "") -> Report:
    """Summarize the runs. Raises ValueError for a metric that cannot rank them."""
    by_data: dict[str, list[Run]] = {}
    for run in runs:
        by_data.setdefault(class_of(run.config["data"]), []).append(run)
    if choices.by is not None:
        choose(runs, choices.by, choices.better)  # an unknown metric is an error, a metric of some data is not
    parts = []
    for data, members in by_data.items():
        has = choices.by is None or any(choices.by in run.metrics for run in members)
        parts.append(make_part(data, members, choices if has else dataclasses.replace(choices, by=None)))
    return Report(parts, problems, title)


def make_part(data: str, runs: Sequence[Run], choices: Choices) -> Part:
    settings = settings_of(runs)
    counted = [run for setting in settings for run in setting.runs]
    ranking = choose(counted, choices.by, choices.better)
    step = None if ranking is None or any(run.is_finished for run in counted) else common_step(counted, ranking.key)
    lines = [make_line(setting, ranking, step) for setting in settings]
    lines = ranked(lines, ranking) if ranking else lines
    comparisons = compared([line for line in lines if line.rank is not None][: choices.compare])
    return Part(data, lines, ranking, confounds(settings), comparisons, notes(settings, lines, ranking, step, choices))


def common_step(runs: Sequence[Run], key: str) -> int | None:
    """If no run has finished: the last step at which all that have logged the metric have a value."""
    found = [set(curve[0].astype(int)) for run in runs if (curve := curve_of(run, key)) is not None]
    return max(set.intersection(*found), default=None) if found else None


def curve_of(run: Run, key: str) -> Any:
    """The logged values of a metric, (2, n), or None."""
    return next((run.curves[tag] for group in ("metric/", "metric_raw/") if (tag := group + key) in run.curves), None)


def make_line(setting: Setting, ranking: Ranking | None, step: int | None) -> Line:
    """step: of the values that count, if no run has finished."""
    found = {run.seed: value_of(run, ranking, step) for run in setting.runs} if ranking else {}
    values = {seed: value for seed, value in found.items() if value is not None}
    ordered = sorted(values.values(), key=ranking.order) if ranking else []
    best, worst = (ordered[0], ordered[-1]) if ordered else (None, None)
    return Line(setting, values, mean_of(ordered) if ordered else None, best, worst, commands.command_of(setting))


def value_of(run: Run, ranking: Ranking, step: int | None) -> float | None:
    """The value of a finished run; that at `step`, if no run has finished."""
    if step is None:
        return ranking.value(run.metrics) if run.is_finished else None
    curves = {key: curve_of(run, key) for key in (ranking.key, ranking.true)}
    return ranking.value({k: c[1, c[0] == step][-1] for k, c in curves.items() if c is not None and step in c[0]})


def ranked(lines: Sequence[Line], ranking: Ranking) -> list[Line]:
    """The lines by their mean, the best first; those with a value of fewer than half of their runs come last."""

    def place(line: Line) -> tuple[bool, bool, float]:
        return line.mean is None, not line.is_reliable, ranking.order(line.mean.value) if line.mean else 0.0

    found = sorted(lines, key=place)
    return [dataclasses.replace(line, rank=i if line.mean else None) for i, line in enumerate(found, 1)]


def compared(lines: Sequence[Line]) -> list[Comparison]:
    """All pairs of these lines, with p-values corrected for their number."""
    pairs = list(itertools.combinations(lines, 2))
    found = [difference(first.values, second.values, len(pairs)) for first, second in pairs]
    corrected = iter(holm(d.p for d in found if d))
    done = [d and dataclasses.replace(d, corrected=next(corrected)) for d in found]
    return [Comparison(*pair, d) for pair, d in zip(pairs, done, strict=True)]


def counts_of(runs: Sequence[Run]) -> str:
    states = Counter(run.state for run in runs)
    listed = [f"{number} {state}" for state, number in states.most_common()]
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}: {', '.join(listed)}"


def notes(
    settings: Sequence[Setting], lines: Sequence[Line], ranking: Ranking | None, step: int | None, choices: Choices
) -> list[str]:
    """What a reader must know about the values."""
    found = []
    runs = [run for setting in settings for run in setting.runs]
    if ranking is None:
        found.append("No run has a metric of quality yet; add one with `ganrun evaluate run_dir=DIR metric=NAME`.")
    if step is not None:
        found.append(f"No run has finished: values are those of step {step:,}, the last one that all runs have logged.")
    elif waiting := [run for run in runs if run.state in ("running", "killed", "interrupted", "failed")]:
        found.append(f"Means are over finished runs, without {counts_of(waiting)}.")
    if lost := [line.name for line in lines if line.values and len(line.values) < len(line.runs) and line.diverged]:
        found.append(f"Diverged runs have no value, so the means of {'; '.join(lost)} are too good.")
    finished = [line for line in lines for run in line.runs if run.is_finished and run.seed not in line.values]
    if ranking and step is None and finished:
        some = "run has" if len(finished) == 1 else "runs have"
        found.append(f"{len(finished)} finished {some} no value of {ranking.key}, or none that is finite.")
    if repeats := sum(len(setting.repeats) for setting in settings):
        again = "runs repeat" if repeats > 1 else "run repeats"
        found.append(f"{repeats} more {again} a seed of the same setting; each seed counts once.")
    if different := unequal_records(settings):
        found.append(
            "Runs also differ in " + ", ".join(f"{key} ({', '.join(v)})" for key, v in different.items()) + "."
        )
    for name, facts in different_protocols(runs).items():
        found.append(f"Values of {name} cannot be compared: runs differ in {joined(facts)} of its protocol.")
    if any(key.startswith("data.") for key in settings[0].values):
        found.append("The data differ, so that values may not be comparable.")
    if (
        ranking
        and ranking.key in (keys := {k: v for run in runs for k, v in run.keys.items()})
        and keys[ranking.key].from_test
    ):
        found.append(f"{ranking.key} is computed from test data: it can report, but should not choose, a setting.")
    if len(lines) > choices.compare:
        found.append(
            f"Only the best {choices.compare} of {len(lines)} settings are compared with each other (compare=N). The "
            "best of many is also the luckiest: its mean is too good, and new seeds tell by how much."
        )
    return found


def different_protocols(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The protocols in which runs differ, and their facts that differ, as the network of features with data.num."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        for name, facts in run.protocols.items():
            by_name.setdefault(name, []).append(facts)
    found = {}
    for name, all_facts in by_name.items():
        keys = dict.fromkeys(key for facts in all_facts for key in facts)
        if differ := [key for key in keys if any(f.get(key) != all_facts[0].get(key) for f in all_facts)]:
            found[name] = differ
    return found


def formatted(value: float | None) -> str:
    """A value with four significant digits.

    >>> formatted(0.123456), formatted(12345.6), formatted(None), formatted(-0.0)
    ('0.1235', '12,346', '-', '0')
    """
    if value is None or not math.isfinite(value):
        return "-"
    value = value or 0.0  # without the sign of -0
    return f"{value:,.0f}" if abs(value) >= 10000 else f"{value:.4g}"
