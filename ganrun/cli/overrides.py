"""Settings as typed on the command line: key=value, in Hydra's grammar."""

import os
import re
from collections.abc import Collection, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override

from ganrun.cli.compose import UserConf, groups_and_options
from ganrun.config import CONF

SWEEP_DIR = "hydra.sweep.dir"


def is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def single_choices(override: Override) -> list[str]:
    """The single overrides of a sweep: loss=a,b gives loss=a and loss=b."""
    line = str(override.input_line)
    if not override.is_sweep_override() or override.is_hydra_override():
        return [line]
    key = line.partition("=")[0]
    swept: Any = override.value()  # Hydra's annotation lacks Glob
    if isinstance(swept, Glob):
        names = swept.filter(groups_and_options([CONF, *UserConf.folders]).get(override.key_or_group, []))
        return [f"{key}={name}" for name in names]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def quote_path(argument: str, paths: Collection[str], sweep: bool) -> str:
    """Quote a path, so that Hydra's grammar does not interpret commas, spaces and brackets in it.

    >>> quote_path("run_dir=my runs/1,2", {"run_dir"}, sweep=False)
    "run_dir='my runs/1,2'"
    """
    key, _, value = argument.partition("=")
    swept = sweep and "," in value and key != SWEEP_DIR
    if key not in paths or value == "null" or value[:1] in ("'", '"', "$", "") or swept:
        return argument
    value = os.path.expanduser(value).replace("'", "\\'")
    return f"{key}='{value}'"


def unquote_path(override: str, paths: Collection[str]) -> str:
    """The inverse of `quote_path`.

    >>> unquote_path("run_dir='my runs/1,2'", {"run_dir"})
    'run_dir=my runs/1,2'
    """
    key, _, value = override.partition("=")
    quoted = key in paths and len(value) > 1 and value[0] == value[-1] == "'"
    return f"{key}={value[1:-1]}".replace("\\'", "'") if quoted else override


def sweep_dir(argument: str) -> str:
    """In a sweep, run_dir=DIR names the directory of all its runs."""
    return re.sub(r"^\+*run_dir=", f"{SWEEP_DIR}=", argument)
