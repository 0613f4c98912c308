"""`ganrun search`: its space in Hydra's syntax of sweeps, and the composition of its runs."""

import copy
import itertools
import math
import re
from collections.abc import Collection, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig

from ganrun.checks import fits
from ganrun.cli.compose import compose, plain
from ganrun.cli.errors import USERS_ERRORS, sentence
from ganrun.cli.overrides import SWEEP_DIR, chooses, parse, single_choices, unquote_path
from ganrun.cli.validate import validate
from ganrun.config import Config, flat
from ganrun.search.space import Choice, Interval, Parameter, Problem, Value

MOST_COMBINATIONS = 64  # of options of groups, which are all checked
NO_PARAMETERS = {  # settings that cannot be searched
    "seed": "is no parameter of a trial; search.seeds=3 repeats each trial with three seeds",
    "run_dir": "must be one directory, which gets all trials",
    SWEEP_DIR: "has no effect; the directory of a search is run_dir",
    "trust": "must have one value",
}


class SearchLine:
    """A command line of `ganrun search`: the overrides of its space, and all others, which are fixed."""

    def __init__(self, overrides: Sequence[str], groups: Collection[str], paths: Collection[str]) -> None:
        """groups: those of which options can be chosen. paths: the keys of paths. Raises ValueError."""
        self.groups, self.paths = frozenset(groups), paths
        found = parse(overrides)
        self.fixed = [str(o.input_line) for o in found if not o.is_sweep_override() or o.is_hydra_override()]
        self.space = [override for override in found if str(override.input_line) not in self.fixed]
        for override in self.space:
            key = override.key_or_group
            if key in NO_PARAMETERS or key.startswith("search."):
                raise ValueError(f"{override.input_line}: {NO_PARAMETERS.get(key, 'must have one value')}.")
        self.bases: dict[tuple[str, ...], DictConfig] = {}

    def problem(self, line: Sequence[str]) -> Problem:
        """The search. Checks its options of groups in all combinations, and the ends of all other parameters.

        line: the arguments of the command. Raises ValueError.
        """
        if not self.space:
            raise ValueError(
                "ganrun search: no setting varies; give one several values, as in "
                "'optimizer.lr=tag(log,interval(1e-5,1e-2))' or loss=wgan,hinge."
            )
        options = [choice_of(override) for override in self.space if override.key_or_group in self.groups]
        rest = [override for override in self.space if override.key_or_group not in self.groups]
        combinations = list(itertools.product(*([o.setting(value) for value in o.ends()] for o in options)))
        defaults = self.defaults(combinations[0])
        numbers = [parameter_of(override, defaults.get(override.key_or_group)) for override in rest]
        firsts = [p.setting(p.ends()[0]) for p in numbers]
        for combination in combinations[:MOST_COMBINATIONS]:
            self([*combination, *firsts])
        for index, parameter in enumerate(numbers):
            for value in parameter.ends()[1:]:
                self([*combinations[0], *firsts[:index], parameter.setting(value), *firsts[index + 1 :]])
        order = [override.get_key_element() for override in self.space]
        parameters: list[Parameter] = sorted([*options, *numbers], key=lambda p: order.index(p.key))
        typed = [unquote_path(word, self.paths) for word in self.fixed]
        fixed = [word for word in typed if not word.lstrip("+").startswith(("search.", "run_dir=", "hydra."))]
        return Problem(parameters, fixed, self, line, [[*chosen, *firsts] for chosen in every_option(options)])

    def defaults(self, settings: Sequence[str]) -> Config:
        """The values of all settings, by their dotted keys, with these. Empty if a searched setting has to be given."""
        try:
            return flat(self.composed(settings))
        except USERS_ERRORS:  # found again, and reported, when a trial is composed
            return {}

    def __call__(self, settings: Sequence[str]) -> Config:
        """The config of a run with these settings in addition to the fixed ones. Raises ValueError."""
        try:
            config = self.composed(settings)
            validate("train", config)
        except USERS_ERRORS as error:
            problem = sentence(error, "search", [*self.fixed, *settings])
            hidden = [word for word in settings if word not in problem]
            raise ValueError(f"{problem} This is the trial {' '.join(settings)}." if hidden else problem) from error
        return config

    def composed(self, settings: Sequence[str]) -> Config:
        """The config, without its section `search`. Runs with the same options are composed once."""
        overrides = parse([*self.fixed, *settings])
        chosen = tuple(chooses(overrides, self.groups))
        if chosen not in self.bases:
            self.bases[chosen] = compose("search", chosen)
        config = copy.deepcopy(self.bases[chosen])
        ConfigLoaderImpl._apply_overrides_to_config([o for o in overrides if o.input_line not in chosen], config)
        return {key: value for key, value in plain(config).items() if key not in ("search", "trust")}


def every_option(choices: Sequence[Choice]) -> list[list[str]]:
    """Combinations of options that have every option at least once, and are as few as possible."""
    num = max((len(choice.words) for choice in choices), default=1)
    return [[list(map(c.setting, c.ends()))[index % len(c.words)] for c in choices] for index in range(num)]


def parameter_of(override: Override, value: Any) -> Parameter:
    """The parameter that an override describes. value: that of the setting in a config. Raises ValueError."""
    swept: Any = override.value()
    if isinstance(swept, IntervalSweep):
        return interval_of(override, swept, value)
    if isinstance(swept, RangeSweep):
        return range_of(override, swept)
    return choice_of(override)


def choice_of(override: Override) -> Choice:
    """A choice(...), a comma list, a glob, or a range of group options. Numbers are stored as such, others as typed."""
    swept: Any = override.value()
    key, line = override.get_key_element(), str(override.input_line)
    words = [single.partition("=")[2] for single in single_choices(override)]
    values: list[Any] = list(swept.list) if isinstance(swept, ChoiceSweep) else words
    if isinstance(swept, ChoiceSweep) and swept.tags:
        raise ValueError(f"{line}: a choice takes no tag; log is for interval(LOW,HIGH) and range(LOW,HIGH).")
    found: dict[Value, str] = {}
    for value, word in zip(values, words, strict=True):
        found.setdefault(value if fits(value, float) else word, word)
    if len(found) < max(2, len(words)):
        raise ValueError(f"{line}: needs at least two different values.")
    assert isinstance(swept, ChoiceSweep | Glob | RangeSweep)
    return Choice(key, line, found)


def interval_of(override: Override, swept: IntervalSweep, value: Any) -> Interval:
    """An interval; of whole numbers if it is int(interval(1,9)), or interval(1,9) of a setting with a whole number."""
    line = str(override.input_line)
    assert swept.start is not None
    assert swept.end is not None
    written = re.search(r"interval\(\s*(?:start\s*=\s*)?[+-]?\d+\s*,\s*(?:end\s*=\s*)?[+-]?\d+\s*\)", line)
    whole = isinstance(swept.start, int) or (written is not None and fits(value, int))
    low, high = float(swept.start), float(swept.end)
    if whole and math.isfinite(low) and math.isfinite(high):
        low, high = math.ceil(low), math.floor(high)
    step = 1 if whole else None
    return checked(Interval(override.get_key_element(), line, low, high, step, is_log(line, swept.tags)))


def range_of(override: Override, swept: RangeSweep) -> Interval:
    """A range, without its end, as elsewhere in Hydra's grammar."""
    line, words = str(override.input_line), single_choices(override)
    if not words:
        raise ValueError(f"{line}: is empty.")
    start, step = swept.start or 0, swept.step
    if step < 0:
        raise ValueError(f"{line}: must count up.")
    last = start + (len(words) - 1) * step
    return checked(Interval(override.get_key_element(), line, start, last, step, is_log(line, swept.tags)))


def is_log(line: str, tags: Collection[str]) -> bool:
    """Whether the parameter is on a log scale. Raises ValueError for any other tag."""
    if unknown := {*tags} - {"log"}:
        raise ValueError(f"{line}: unknown tag {min(unknown)}; the only one is log.")
    return "log" in tags


def checked(interval: Interval) -> Interval:
    line = interval.typed
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        raise ValueError(f"{line}: both ends must be finite.")
    if interval.low >= interval.high:
        raise ValueError(f"{line}: its low end must be smaller than its high end.")
    if interval.log and interval.low <= 0:
        raise ValueError(f"{line}: a log scale needs a low end above 0.")
    if interval.log and interval.step not in (None, 1):
        raise ValueError(f"{line}: a log scale allows no steps but 1 between whole numbers; use interval(LOW,HIGH).")
    return interval
