"""Settings as typed on the command line: key=value, in Hydra's grammar."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, Quote, QuotedString

from ganrun.cli.compose import UserConf, groups_and_options, root_keys
from ganrun.config import CONF

SWEEP_DIR = "hydra.sweep.dir"
SEVERAL = ("experiment", "metric", "penalty")  # groups of which several options can be chosen
NO_EFFECT = {  # settings of Hydra
    "hydra.run.dir": "this command writes into run_dir or out",
    "hydra.sweep.subdir": "the directory of each job is named after its swept settings",
    "hydra.job.chdir": "every job runs in the folder where ganrun is started",
    "hydra.output_subdir": "config.yaml and command.json are in the run directory itself",
}
TIDY = [  # the settings in conf/hydra/shared.yaml, for a primary config without them
    "hydra/hydra_logging=none",
    "hydra/job_logging=none",
    "hydra.job.name=ganrun",
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
    "hydra.sweep.subdir=.",
]
WORDS = dict.fromkeys(("report", "status"), "dirs")  # the setting that gets the words of `ganrun report DIR DIR`
FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(")  # a sweep in Hydra's grammar


def parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def single_choices(override: Override) -> list[str]:
    """The single overrides of a sweep: loss=a,b gives loss=a and loss=b."""
    line = str(override.input_line)
    if not override.is_sweep_override() or override.is_hydra_override():
        return [line]
    key = line.partition("=")[0]
    swept: Any = override.value()  # Hydra's annotation lacks Glob
    if isinstance(swept, IntervalSweep):
        return [f"{key}={swept.start}"]
    if isinstance(swept, Glob):
        names = swept.filter(groups_and_options([CONF, *UserConf.folders]).get(override.key_or_group, []))
        return [f"{key}={name}" for name in names]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def words_as_setting(words: Sequence[str], verb: str) -> list[str]:
    """The settings of a line, in which the paths typed as words are one setting of the verb, a list."""
    if verb not in WORDS:
        return list(words)
    known = root_keys(verb)
    paths = [word for word in words if is_path(word, known)]
    quoted = ",".join(_quoted(path, literally=True) for path in paths)
    return [*([f"{WORDS[verb]}=[{quoted}]"] if paths else []), *(word for word in words if word not in paths)]


def is_path(word: str, known: Collection[str]) -> bool:
    """Whether a word is a path, and not one of the known settings: `loss=wgan_seed=0` can be a run directory."""
    key, equals, _ = word.partition("=")
    if re.split(r"[.@]", key.lstrip("+~"))[0] in known or key.lstrip("+~").startswith("hydra"):
        return not equals
    return not equals or "/" in key or os.path.exists(os.path.expanduser(word))


def quote_path(argument: str, paths: Collection[str], sweep: bool) -> str:
    """Quote a path, so that Hydra's grammar does not interpret the characters in it. In a sweep, commas separate paths.

    >>> quote_path("run_dir=my runs/1,2", {"run_dir"}, sweep=False)
    "run_dir='my runs/1,2'"
    >>> quote_path("run_dir=s/seed=0,s/seed=1", {"run_dir"}, sweep=True)
    "run_dir='s/seed=0','s/seed=1'"
    """
    key, _, value = argument.partition("=")
    if key.lstrip("+") not in paths:
        return quote_letters(argument)
    if sweep and key != SWEEP_DIR:
        literal = value[:1] in ("'", '"', "$", "[", "") or FUNCTION.match(value)
        return argument if literal else f"{key}={','.join(map(_quoted, value.split(',')))}"
    return f"{key}={_quoted(value)}"


def _quoted(path: str, literally: bool = False) -> str:
    """literally: whether the path was typed as a word, which cannot be quoted or interpolated."""
    if literally:
        path = path.replace("${", r"\${")
    elif path == "null" or path[:1] in ("'", '"', "$", ""):
        return path
    return QuotedString(os.path.expanduser(path), Quote.single).with_quotes()


def quote_letters(argument: str) -> str:
    """Quote values with letters outside ASCII, which Hydra's grammar accepts only in quotes.

    >>> quote_letters("loss=größe,wgan")
    "loss='größe',wgan"
    """
    key, equals, value = argument.partition("=")
    if value.isascii() or not re.fullmatch(r"[\w./,-]+", value):
        return argument
    return key + equals + ",".join(word if word.isascii() else f"'{word}'" for word in value.split(","))


def unquote_path(override: str, paths: Collection[str]) -> str:
    """The inverse of `quote_path`, for a single path.

    >>> unquote_path("run_dir='my runs/1,2'", {"run_dir"})
    'run_dir=my runs/1,2'
    """
    key, _, value = override.partition("=")
    quoted = value[:1] == "'" and (key.lstrip("+") in paths or not value.isascii())
    return f"{key}={parse([override])[0].value()}" if quoted else override


def chooses(overrides: Sequence[Override], groups: Collection[str]) -> list[str]:
    """The overrides that choose one option of a group, or are Hydra's own, as lines."""
    return [
        str(override.input_line)
        for override in overrides
        if not override.is_sweep_override()
        and (
            override.is_hydra_override() or (override.key_or_group in groups and not isinstance(override.value(), dict))
        )
    ]


def check_choices(overrides: Sequence[Override], groups: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError if more options are chosen than a group can have, which Hydra would merge, or something else."""
    for override in overrides:
        value, group, line = override.value(), override.key_or_group, override.input_line
        if group not in groups or override.is_delete() or override.is_sweep_override() or isinstance(value, dict):
            continue
        options = value if isinstance(value, list) else [value]
        if not all(isinstance(option, str | QuotedString) for option in options):
            raise ValueError(f"{line}: is not the name of an option; {group} is one of {', '.join(groups[group])}.")
        if len(options) > 1 and group not in SEVERAL:
            names = ",".join(map(str, options))
            raise ValueError(f"{line}: only one option can be chosen; a sweep is `ganrun -m {group}={names}`.")


def check_verbose(overrides: Sequence[Override]) -> None:
    """Raise ValueError for a value of hydra.verbose at which Hydra stops with a traceback."""
    for override in overrides:
        if override.key_or_group == "hydra.verbose":
            value: Any = override.value()
            names = value if isinstance(value, list) else [value]
            if not isinstance(value, bool) and not all(isinstance(name, str | QuotedString) for name in names):
                raise ValueError(f"{override.input_line}: must be true, false, or a list of loggers, as in [ganrun].")


def one_value_sweep(override: Override, groups: Collection[str]) -> str:
    """A single setting as a sweep over one value, train.steps=3 as train.steps=choice(3).

    Hydra composes a sweep once without its swept choices, and then each job. A swept setting is left out of the first
    config, which may lack it, as data.num_modes in `-m experiment=heights,ring data.num_modes=5`. Choices of groups and
    Hydra's own settings are not changed: they can choose the sweeper and its parameters.
    """
    line = str(override.input_line)
    if override.is_sweep_override() or override.is_delete() or chooses([override], groups):
        return line
    key, _, value = line.partition("=")
    value = value or "''"
    return f"{key}=choice({value})"


def directory(argument: str, verb: str, multirun: bool) -> str:
    """The setting of the directory that an argument names, as Hydra or ganrun calls it; other arguments unchanged.

    Hydra's name for the directory of one run is hydra.run.dir, and for that of a sweep hydra.sweep.dir. Raises
    ValueError for a setting of Hydra that has no effect.
    """
    key, _, value = argument.partition("=")
    key = key.lstrip("+")
    if verb == "train" and key in ("run_dir", "hydra.run.dir"):
        return f"{SWEEP_DIR}={'' if value == 'null' else value}" if multirun else f"run_dir={value}"
    if key == "hydra":
        group, _, option = value.rpartition("/")
        raise ValueError(f"{argument}: has no effect; choose an option as in hydra/{group or 'launcher'}={option}.")
    if key in NO_EFFECT:
        raise ValueError(f"{argument}: has no effect; {NO_EFFECT[key]}.")
    return argument
