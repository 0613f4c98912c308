"""The flags of the command line: Hydra's, and --traceback."""

import os
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from ganrun.checks import did_you_mean, nearest
from ganrun.cli.compose import config_dirs, groups_and_options
from ganrun.cli.errors import known_keys


class Parser(ArgumentParser):
    """Raises ValueError where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message.removeprefix('argument ')}; `ganrun --hydra-help` lists the flags.")


def flags_first(arguments: Sequence[str]) -> list[str]:
    """The arguments in the order in which Hydra accepts them: flags as --name or --name=value, then all other words.

    >>> flags_first(["seed=0,1", "-m", "run_dir=x", "-cd", "mine"])
    ['--multirun', '--config-dir=mine', 'seed=0,1', 'run_dir=x']

    Raises ValueError for an unknown flag.
    """
    parser = Parser(parents=[get_args_parser()], add_help=False)
    parser.add_argument("--traceback", action="store_true")
    found, unknown = parser.parse_known_intermixed_args([a for a in arguments if a != "--version"])
    if unknown:
        raise ValueError(unknown_flag(unknown[0], arguments))
    if found.experimental_rerun:
        raise ValueError(
            "--experimental-rerun: ganrun writes no pickles of jobs; `ganrun resume run_dir=DIR` continues a run, and "
            "`ganrun --config-path=DIR --config-name=config run_dir=NEW` repeats it."
        )
    values = {f"--{name.replace('_', '-')}": value for name, value in vars(found).items() if name != "overrides"}
    if (folder := values["--config-path"]) and "://" not in folder:
        values["--config-path"] = os.path.abspath(folder)
    flags = [name if value is True else f"{name}={value}" for name, value in values.items() if value]
    return [*flags, *(["--version"] if "--version" in arguments else []), *found.overrides]


def unknown_flag(flag: str, arguments: Sequence[str]) -> str:
    """The message for an unknown flag. It may be a setting in the style of other programs, as in --loss wgan."""
    name, _, value = flag.lstrip("-").partition("=")
    groups = groups_and_options(config_dirs(arguments))
    if key := name if name in groups else nearest(name, known_keys("train", [])):
        following = [*arguments, "", ""][[*arguments, flag].index(flag) + 1]
        value = value or (following if following and "=" not in following and following[0] != "-" else "VALUE")
        return f"{flag}: no such flag; settings are key=value; did you mean {key}={value}?"
    hint = did_you_mean(flag, get_args_parser()._option_string_actions)
    return f"{flag}: no such flag{hint} `ganrun --hydra-help` lists them."
