"""The command line. It does not import torch, so that help, completion and most errors are fast."""

import gc
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ganrun import __version__
from ganrun.checks import did_you_mean
from ganrun.cli.compose import add_user_folders, compose, config_dirs, groups_and_options, plain, verbs
from ganrun.cli.errors import USERS_ERRORS, sentence
from ganrun.cli.help import help_text, overview
from ganrun.cli.overrides import SWEEP_DIR, is_override, parse, quote_path, single_choices, sweep_dir, unquote_path
from ganrun.cli.recipes import report_replaced
from ganrun.cli.settings import path_keys
from ganrun.cli.validate import validate
from ganrun.config import CONF, slug
from ganrun.console import logging_to_console

log = logging.getLogger("ganrun")

USAGE_ERROR, ERROR = 2, 1  # exit codes

MOST_CHECKED = 20  # values of each swept setting that are checked before the sweep starts, at 0.05 s each


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 2 for an invalid one, else that of the command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--traceback" in arguments
    arguments = [a for a in arguments if a != "--traceback"]
    verb = "train"
    with logging_to_console():
        try:
            typed = arguments
            verb, arguments = split_verb(arguments)
            if "--version" in arguments:
                print(f"ganrun {__version__}")
                return 0
            if {"--help", "-h"} & set(arguments):
                print(overview(arguments) if arguments == typed else help_text(verb, arguments))
                return 0
            return CommandLine(verb, arguments, show_traceback).run()
        except KeyboardInterrupt:
            log.error("interrupted.")
            return 130
        except USERS_ERRORS as error:
            if show_traceback:
                traceback.print_exc()
            log.error(sentence(error, verb, arguments))
            return USAGE_ERROR


def split_verb(arguments: list[str]) -> tuple[str, list[str]]:
    if not arguments or "=" in arguments[0] or arguments[0].startswith(("-", "+", "~")):
        return completed_verb(arguments), arguments
    word, *rest = arguments
    if word in verbs():
        return word, rest
    if word in groups_and_options(config_dirs(rest)):
        raise ValueError(f"{word}: is a group of options; choose one, as in {word}={(rest or ['OPTION'])[0]}.")
    raise ValueError(f"{word}: no such command{did_you_mean(word, verbs())} `ganrun --help` lists them.")


class CommandLine:
    """One verb with its overrides and Hydra's own flags."""

    def __init__(self, verb: str, arguments: list[str], show_traceback: bool) -> None:
        self.verb, self.show_traceback = verb, show_traceback
        self.multirun = bool({"-m", "--multirun"} & set(arguments))
        if self.multirun and verb == "resume":
            raise ValueError("ganrun resume: continues a single run; to finish a sweep, repeat its command.")
        if self.multirun and verb == "train":
            arguments = [sweep_dir(a) for a in arguments]
        self.paths = path_keys(config_dirs(arguments)) | {SWEEP_DIR}
        self.arguments = [quote_path(a, self.paths, self.multirun) for a in arguments]
        self.overrides = parse([a for a in self.arguments if is_override(a)])
        self.swept = [o.key_or_group for o in self.overrides if o.is_sweep_override()]
        self.codes: list[int] = []
        self.problems: list[str] = []

    def run(self) -> int:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to `main`
        sys.path.append(os.getcwd())
        logging.getLogger("hydra").addHandler(logging.NullHandler())
        logging.getLogger("hydra").propagate = False
        add_user_folders(self.arguments)
        if self.multirun:
            self.check_sweep()
        sys.argv = ["ganrun", *self.arguments]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=self.verb)(self.job)()
        if self.multirun and self.codes:
            log.info("sweep: %d of %d jobs succeeded", self.codes.count(0), len(self.codes))
            for problem in self.problems:
                log.error("  %s", problem)
        return next((code for code in self.codes if code), 0)

    def job(self, cfg: DictConfig) -> None:
        """Run one job; Hydra calls this. An error ends the job, not the sweep; an interrupt ends both."""
        choices, name = HydraConfig.get().runtime.choices, ""
        code = ERROR
        try:
            config = plain(cfg)
            options = validate(self.verb, config)
            if self.multirun:
                name = self.job_name()
                log.info("job %d: %s", len(self.codes), name)
                if self.verb == "train":
                    config["run_dir"] = str(Path(HydraConfig.get().sweep.dir) / slug(name))
            if self.verb == "train":
                report_replaced(choices, HydraConfig.get().overrides.task)
            command = load(self.verb)
            title = "_".join(str(choices[group]) for group in ("data", "loss") if choices.get(group))
            typed = [unquote_path(override, self.paths) for override in HydraConfig.get().overrides.task]
            job = {"overrides": typed, "options": options} if self.verb == "train" else {}
            code = command.main(config, title, **job)
            problem = f"ended with exit code {code}"
        except USERS_ERRORS as error:
            if self.show_traceback:
                traceback.print_exc()
            problem, code = sentence(error, self.verb, self.arguments), USAGE_ERROR
            log.error(problem)
        except Exception as error:
            traceback.print_exc()
            problem = f"{type(error).__name__}: {error}"
        self.codes.append(code)
        if code:
            self.problems.append(f"{name}: {problem}")
        if code in (130, 143):
            sys.exit(code)

    def job_name(self) -> str:
        """The swept settings of this job, `loss=wgan_seed=3`."""
        overrides = parse(list(HydraConfig.get().overrides.task))
        return "_".join(str(o.input_line) for o in overrides if o.key_or_group in self.swept) or "job"

    def check_sweep(self) -> None:
        """Check each value of the sweep, with the first values of the other settings, before the first job starts."""
        choices = {override.input_line: single_choices(override) for override in self.overrides}
        if empty := next((line for line, found in choices.items() if not found), None):
            raise ValueError(f"{empty}: sweeps over no values.")
        first = {line: found[0] for line, found in choices.items()}
        others = [{**first, line: choice} for line, found in choices.items() for choice in found[1:MOST_CHECKED]]
        for job in [first, *others]:
            validate(self.verb, plain(compose(self.verb, list(job.values()))))


def load(verb: str) -> ModuleType:
    """Import the module of a verb, and with it torch.

    THP_MEM_ALLOC_ENABLE lets torch use large pages for tensors of over 2 MB on Linux: a step takes 7% less time with
    layers of 1,200 units, 15% less with 8,000, and the same with convolutions. Garbage collection is off during the
    import, and later skips the imported objects, which saves 0.4 s here and 0.5 s at the exit. Objects of later jobs
    are collected as usual.
    """
    name = f"ganrun.commands.{verb}"
    if name in sys.modules:
        return sys.modules[name]
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def completed_verb(arguments: Sequence[str]) -> str:
    """The verb in the line that a shell completes, or train.

    It is removed from the line in the environment, which Hydra reads.
    """
    if not {"-sc", "--shell-completion"} & set(arguments) or "COMP_LINE" not in os.environ:
        return "train"
    program, *words = os.environ["COMP_LINE"].split(" ")
    if len(words) == 1:
        print(" ".join(verb for verb in verbs() if verb.startswith(words[0])), end=" ")
    if len(words) < 2 or words[0] not in verbs():
        return "train"
    os.environ["COMP_LINE"] = " ".join([program, *words[1:]])
    return words[0]
