"""The command line. It does not import torch, so that help, completion and most errors are fast."""

import logging
import signal
import sys
from collections.abc import Sequence

from ganrun import __version__
from ganrun.checks import did_you_mean
from ganrun.cli.command_line import USAGE_ERROR, CommandLine
from ganrun.cli.completion import completed_paths, completed_verb
from ganrun.cli.compose import (
    config_dirs,
    flag_value,
    groups_and_options,
    verbs,
)
from ganrun.cli.errors import USERS_ERRORS, known_keys, sentence
from ganrun.cli.flags import flags_first
from ganrun.cli.help import help_text, overview
from ganrun.console import logging_to_console, print_traceback, visible
from ganrun.process import discard

log = logging.getLogger("ganrun")


def main(arguments: Sequence[str] | None = None, is_program: bool = False) -> int:
    """Run a command line and return its exit code: 2 for an invalid one, else that of the command.

    is_program: whether this process has no other purpose, so that it may be forked.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--traceback" in arguments
    verb = "train"
    with logging_to_console():
        try:
            arguments = flags_first([a for a in arguments if a != "--traceback"])
            typed = arguments
            verb, arguments = split_verb(arguments)
            if "--version" in arguments:
                print(f"ganrun {__version__}")
                return 0
            if "--help" in arguments:
                print(visible(overview(arguments) if arguments == typed else help_text(verb, arguments)))
                return 0
            if (paths := completed_paths(arguments, verb)) is not None:
                print(paths)
                return 0
            return CommandLine(verb, arguments, show_traceback, is_program).run()
        except KeyboardInterrupt:
            log.error("interrupted.")
            return 128 + signal.SIGINT
        except BrokenPipeError:  # nobody reads the rest, as in `ganrun --help | head`
            discard(sys.stdout)
            return 0
        except USERS_ERRORS as error:
            if show_traceback:
                print_traceback()
            log.error(sentence(error, verb, arguments))
            return USAGE_ERROR


def split_verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb, which is the first word that is no flag, and the other arguments."""
    words = [a for a in arguments if not a.startswith("-")]
    if wrong := next((word for word in words if word.startswith("=")), None):
        raise ValueError(f"{wrong}: has no key; settings are key=value, without spaces.")
    if not words or "=" in words[0] or words[0].startswith(("+", "~")):
        if name := next((word for word in words if word in verbs()), None):
            raise ValueError(f"{name}: a command comes before its settings, as in `ganrun {name} {words[0]}`.")
        named = flag_value(arguments, "--config-name")
        return named if named in verbs() else completed_verb(arguments), arguments
    word, *rest = words
    if word in verbs():
        return word, [a for a in arguments if a.startswith("-")] + rest
    if word in groups_and_options(config_dirs(arguments)):
        raise ValueError(f"{word}: is a group of options; choose one, as in {word}={(rest or ['OPTION'])[0]}.")
    if word in known_keys("train", []):
        raise ValueError(f"{word}: has no value; settings are key=value, as in {word}={(rest or ['VALUE'])[0]}.")
    raise ValueError(f"{word}: no such command{did_you_mean(word, verbs())} `ganrun --help` lists them.")
