"""One command line: its preparation for Hydra, and its jobs, which Hydra calls."""

import logging
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig

from ganrun.cli.compose import (
    VERSION_BASE,
    UserConf,
    add_user_folders,
    compose,
    config_dirs,
    default_options,
    flag_value,
    groups_and_options,
    ignore_empty_variables,
    plain,
    plugins,
    primary_configs,
)
from ganrun.cli.errors import USERS_ERRORS, sentence
from ganrun.cli.isolation import ignored_signals
from ganrun.cli.launch import SWEEPER, GivenJobs, check_no_sweep, is_of_sweep, plan_launch
from ganrun.cli.load import load
from ganrun.cli.overrides import (
    NO_EFFECT,
    SWEEP_DIR,
    TIDY,
    check_choices,
    check_verbose,
    chooses,
    directory,
    parse,
    quote_path,
    unquote_path,
    words_as_setting,
)
from ganrun.cli.recipes import report_replaced, run_title
from ganrun.cli.search import SearchLine
from ganrun.cli.settings import comments_of, path_keys, with_comments
from ganrun.cli.supervisor import Supervisor
from ganrun.cli.sweep import Sweep
from ganrun.cli.typed_only import check_tracker_is_typed, typed_trust
from ganrun.cli.validate import validate
from ganrun.cli.worker import Worker
from ganrun.config import CONF, Config
from ganrun.console import logging_to_console, print_traceback, visible
from ganrun.process import exit_as_error
from ganrun.search.space import Problem
from ganrun.training.interrupts import SIGNALS
from ganrun.trusted import trusting

log = logging.getLogger("ganrun")

USAGE_ERROR, ERROR = 2, 1  # exit codes


class CommandLine:
    """One verb with its overrides and Hydra's own flags."""

    def __init__(self, verb: str, arguments: list[str], show_traceback: bool, is_program: bool) -> None:
        """arguments: flags as by `flags_first`, and overrides."""
        self.verb, self.show_traceback, self.arguments = verb, show_traceback, arguments
        self.is_program = is_program
        self.worker: Worker | None = None
        self.flags = [a for a in arguments if a.startswith("-")]
        self.codes: list[int] = []
        self.problems: list[str] = []
        self.sweep: Sweep | None = None
        self.single: list[str] = []  # settings with which a job's command line is no sweep
        self.problem: Problem | None = None  # of a search
        self.process = os.getpid()

    def prepare(self) -> list[str]:
        """The command line for Hydra. Raises ValueError if it is invalid."""
        add_user_folders(self.flags)
        words = words_as_setting([a for a in self.arguments if not a.startswith("-")], self.verb)
        self.paths = path_keys(config_dirs(self.flags)) | {SWEEP_DIR}
        groups = groups_and_options(config_dirs(self.flags))
        check_verbose(parse([word for word in words if word.lstrip("+").startswith("hydra.verbose=")]))
        multirun = "--multirun" in self.flags or is_multirun(self.verb, self.quoted(words, sweep=True), groups)
        if multirun and self.verb == "resume":
            raise ValueError("ganrun resume: continues a single run; to finish a sweep, repeat its command.")
        if self.verb == "search":
            if multirun:
                raise ValueError("ganrun search: is one search, with several trials; leave out -m and hydra.mode.")
            return self.prepare_search(self.quoted(words, sweep=True), groups)
        words = [directory(word, self.verb, multirun) for word in words]
        overrides = [*(TIDY if UserConf.primary else []), *self.quoted(words, sweep=multirun)]
        self.arguments = [*self.flags, *overrides]
        check_choices(parse(overrides), groups)
        if not multirun:
            if self.verb == "train" and not any(flag.startswith("--cfg") for flag in self.flags):
                check_no_sweep(overrides)
            return self.arguments
        if "--multirun" not in self.flags and not any(word.startswith("hydra.mode=") for word in words):
            self.single = ["hydra.mode=RUN"]  # a config file makes it a sweep
        self.sweep = Sweep(self.verb, parse(overrides), groups, self.paths)
        self.sweep.check()
        own = self.plan_launch(self.sweep, parse(overrides)) if self.sweep.is_planned else []
        return ["--multirun", *(flag for flag in self.flags if flag != "--multirun"), *self.sweep.hydras, *own]

    def plan_launch(self, sweep: Sweep, typed: Sequence[Override]) -> list[str]:
        """Prepare the worker of a sweep, and return Hydra's settings for its launcher."""
        plugins().register(GivenJobs)
        launch = plan_launch(sweep.kind, sweep.options.launch, typed, sweep.on_gpu)
        self.worker = Worker(
            Path(sweep.dir).expanduser().absolute(), "", launch, self.is_program, sweep.options.fail_fast,
            ignored=tuple(ignored_signals()), cwd=os.getcwd(),
        )  # fmt: skip
        return [SWEEPER, *launch.overrides]

    def prepare_search(self, words: Sequence[str], groups: Collection[str]) -> list[str]:
        """The command line for Hydra, with the settings of one trial. Raises ValueError."""
        search = SearchLine(words, groups, self.paths)
        self.problem = search.problem(["search", *self.arguments])
        return [*self.flags, *(TIDY if UserConf.primary else []), *search.fixed, *self.problem.first[0]]

    def quoted(self, words: Sequence[str], sweep: bool) -> list[str]:
        return [quote_path(word, self.paths, sweep) for word in words]

    def run(self) -> int:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to `main`
        ignore_empty_variables()
        line = self.prepare()
        logging.getLogger("hydra").addHandler(logging.NullHandler())
        logging.getLogger("hydra").propagate = bool(flag_value(self.flags, "--info"))  # which is logged
        with sweep_folder(self.verb, self.sweep) as folder:
            sys.argv = ["ganrun", *line, *folder]
            if self.sweep and self.worker:
                jobs = list(self.sweep.planned.values())
                self.sweep.planned = {}  # a launcher may send this object to other processes
                sweep_dir = self.worker.sweep
                return Supervisor(sweep_dir, jobs, self.sweep.options, self.worker, self.start).run()
            try:
                self.start()
            finally:
                if self.sweep:
                    self.summarize(self.sweep)
        return next((code for code in self.codes if code), 0)

    def start(self) -> None:
        start = hydra.main(**VERSION_BASE, config_path=str(CONF), config_name=self.verb)(self.job)
        completes = "--shell-completion" in self.flags
        if not completes and ("--cfg=job" not in self.flags or flag_value(self.flags, "--package")):
            start()
            return
        with redirect_stdout(StringIO()) as printed:
            start()
        if completes:
            print(visible(printed.getvalue()), end="")
            return
        several = dict.fromkeys(default_options(self.verb), "*")  # Hydra does not list the choices in a list
        choices = several | dict(HydraConfig.get().runtime.choices)
        comments = comments_of(primary_configs(self.verb), choices, config_dirs(self.flags))
        print(with_comments(printed.getvalue(), comments), end="")

    def job(self, cfg: DictConfig) -> None:
        """Run one job; Hydra calls this. An error ends the job, not the sweep; an interrupt ends both.

        A launcher that is a plugin calls it in another process, which has none of the handlers of `log`.
        """
        is_elsewhere = os.getpid() != self.process
        with nullcontext() if log.handlers else logging_to_console():
            if self.worker:
                _, code, _ = self.worker.work(HydraConfig.get().job.num, partial(self.run_job, cfg))
                if code - 128 in SIGNALS and self.worker.launch.kind == "serial":
                    sys.exit(code)
                return
            name, code, problem = self.run_job(cfg)
        if is_elsewhere and code and (code == USAGE_ERROR or self.verb != "train"):
            raise ValueError(f"{name}: {problem}")  # no run directory records it; the launcher passes it on
        self.codes.append(code)
        if code:
            self.problems.append(f"{name}: {problem}")
        if code - 128 in SIGNALS:
            sys.exit(code)

    def run_job(self, cfg: DictConfig) -> tuple[str, int, str]:
        """Run one job, and return its name, its exit code, and how it ended."""
        choices, name = HydraConfig.get().runtime.choices, ""
        try:
            task = list(HydraConfig.get().overrides.task)
            if self.sweep:
                cfg = self.sweep.without_deleted(cfg)
                task += [*self.sweep.deletions, *self.single]
            config = plain(cfg)
            follow_hydra(config, self.verb, HydraConfig.get())
            options = validate(self.verb, config)
            trusted = typed_trust(config)
            check_tracker_is_typed(self.verb, config)
            if self.sweep:
                name = self.sweep.name(task)
                log.info("job %d: %s", HydraConfig.get().job.num, name)
                if self.verb == "train":
                    config["run_dir"] = str(self.sweep.run_dir(name))
                if self.worker:
                    config["run_dir"] = os.path.relpath(self.worker.job(HydraConfig.get().job.num).path)
            if self.verb == "train":
                report_replaced(choices, task)
            command = load(self.verb)
            typed = [unquote_path(override, self.paths) for override in task if not is_of_sweep(override)]
            title = run_title(choices, typed)
            flags = [flag for flag in self.flags if flag.startswith("--config-")]
            job: dict[str, Any] = {"overrides": [*flags, *typed], "options": options} if self.verb == "train" else {}
            if self.problem:
                job = {"problem": self.problem}
            with trusting(trusted):
                code = command.main(config, title or "run", **job)
            return name, code, "interrupted" if code - 128 in SIGNALS else f"ended with exit code {code}"
        except USERS_ERRORS as error:
            if self.show_traceback:
                print_traceback()
            problem = sentence(error, self.verb, self.arguments)
            log.error(problem)
            return name, USAGE_ERROR, problem
        except SystemExit as found:
            if self.show_traceback:
                print_traceback()
            problem = f"failed: {exit_as_error(found)}."
            log.error(problem)
            return name, ERROR, problem
        except Exception as error:
            print_traceback()
            return name, ERROR, f"{type(error).__name__}: {error}"

    def summarize(self, sweep: Sweep) -> None:
        """Print how many jobs succeeded, and the problems of the others."""
        if not sweep.is_local and self.verb == "train":
            ended = sweep.ended()
            self.codes = [code for _, code, _ in ended]
            self.problems = [f"{name}: {problem}" for name, code, problem in ended if code]
        if self.codes:
            log.info("sweep: %d of %d jobs succeeded", self.codes.count(0), len(self.codes))
        for problem in self.problems:
            log.error("  %s", problem)


def follow_hydra(config: Config, verb: str, hydra: Any) -> None:
    """Use `hydra.run.dir` of a config file as the run directory. Raises ValueError for `hydra.job.chdir`."""
    if hydra.job.chdir:
        raise ValueError(f"hydra.job.chdir=true: has no effect; {NO_EFFECT['hydra.job.chdir']}.")
    if verb == "train" and hydra.mode == RunMode.RUN and hydra.run.dir != "." and not config.get("run_dir"):
        config["run_dir"] = hydra.run.dir


def is_multirun(verb: str, words: Sequence[str], groups: Collection[str]) -> bool:
    """Whether `hydra.mode` is MULTIRUN, on the command line or in a config file of the user. Raises ValueError."""
    if mode := next((word for word in reversed(words) if word.startswith("hydra.mode=")), None):
        if (name := mode.partition("=")[2]) not in RunMode.__members__:
            raise ValueError(f"{mode}: must be {' or '.join(RunMode.__members__)}.")
        return name == RunMode.MULTIRUN.name
    files = [path for folder in UserConf.folders for path in folder.rglob("*.yaml")]
    if not any("MULTIRUN" in path.read_text(errors="replace") for path in files):
        return False
    try:
        return str(compose(verb, chooses(parse(words), groups), hydra_config=True).hydra.mode) == "RunMode.MULTIRUN"
    except USERS_ERRORS:
        return False  # the error is found again, and reported, when the job is composed


@contextmanager
def sweep_folder(verb: str, sweep: Sweep | None) -> Iterator[list[str]]:
    """The setting of the folder for multirun.yaml, which Hydra writes: that of the runs; else a temporary one."""
    if sweep is None:
        yield []
    elif verb == "train":
        yield [quote_path(f"{SWEEP_DIR}={sweep.dir}", {SWEEP_DIR}, sweep=True)]
    else:
        with TemporaryDirectory() as folder:
            yield [f"{SWEEP_DIR}={folder}"]
