"""Sweeps: their jobs, which are all checked before the first one starts, and how jobs of other processes ended."""

import copy
import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ganrun.cli.compose import compose, plain
from ganrun.cli.errors import USERS_ERRORS, sentence
from ganrun.cli.found_runs import FoundRuns
from ganrun.cli.job_list import listed_jobs, read_sweep_file, selected_jobs
from ganrun.cli.launch import SweepOptions, is_of_sweep, kind_of
from ganrun.cli.overrides import SWEEP_DIR, check_choices, chooses, one_value_sweep, parse, single_choices, unquote_path
from ganrun.cli.validate import validate
from ganrun.config import Config, slug
from ganrun.records.sweep_dir import Job

log = logging.getLogger("ganrun")

FEW = 20  # jobs are checked without a message
EVERY = 100  # jobs between messages
BASIC = "hydra._internal.core_plugins.basic_"  # Hydra's own launcher, in this process, and sweeper, of all combinations
ENDINGS = {"finished": 0, "failed": 1, "diverged": 3, "interrupted": 130}  # exit codes by status in result.json
LEFT_NO_RESULT = 1


class Sweep:
    """The sweep that the overrides of a command line describe, with the parameters of `hydra.sweeper` in the config."""

    def __init__(
        self, verb: str, overrides: Sequence[Override], groups: Mapping[str, Sequence[str]], paths: Collection[str]
    ) -> None:
        """groups: the options of each group. paths: the keys of paths. Raises ValueError."""
        self.verb, self.groups, self.paths = verb, groups, paths
        self.bases: dict[tuple[str, ...], DictConfig] = {}
        self.runs: FoundRuns | None = None
        self.planned: dict[Path, tuple[Job, list[str]]] = {}  # by run directory
        self.on_gpu = False
        own = [o for o in overrides if is_of_sweep(str(o.input_line))] if verb == "train" else []
        if swept := next((o for o in own if o.is_sweep_override()), None):
            raise ValueError(f"{swept.input_line}: is a setting of the whole sweep; choose one.")
        chosen = list(dict.fromkeys([*chooses(overrides, groups), *(str(o.input_line) for o in own)]))
        config = compose(verb, chosen, hydra_config=True)
        HydraConfig.instance().set_config(config)  # for ${hydra:...} in hydra.sweep.dir
        hydra = config.hydra
        for part in ("launcher", "sweeper"):
            if not isinstance(hydra[part], DictConfig):
                raise ValueError(
                    f"hydra.{part}={hydra[part]}: is a group of settings; choose hydra/{part}={hydra[part]}."
                )
        self.is_local = hydra.launcher._target_.startswith(BASIC)
        self.is_basic = hydra.sweeper._target_.startswith(BASIC)
        self.options = SweepOptions.of(cast(dict[str, Any], OmegaConf.to_container(config)) if verb == "train" else {})
        self.kind = kind_of(hydra.launcher._target_)
        self.is_planned = verb == "train" and self.is_basic
        self.dir = str(hydra.sweep.dir or "")
        if not self.dir or self.dir.startswith("multirun/"):  # Hydra's default, of a primary config without another
            self.dir = f"outputs/sweeps/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
        params = dict(hydra.sweeper.params or {}) if self.is_basic else {}
        found = [*parse([f"{key}={value}" for key, value in params.items()]), *overrides]
        self.overrides = list({override.get_key_element(): override for override in found}.values())
        self.swept = [override.key_or_group for override in self.overrides if override.is_sweep_override()]
        file = self.options.sweep_file
        listed = read_sweep_file(file, paths) if file else listed_jobs(self.options.jobs, paths)
        self.listed = listed if file else selected_jobs(listed, overrides)
        left = {line for job in self.listed for line in job}
        self.swept += swept_in([[line for line in job if line in left] for job in listed])
        self.deletions = [str(o.input_line) for o in overrides if self.is_applied_by_job(o)]
        kept = [o for o in overrides if o.key_or_group != SWEEP_DIR and o.input_line not in self.deletions]
        self.hydras = [one_value_sweep(override, groups) for override in kept]
        if self.is_local and self.is_basic and hydra.sweeper.max_batch_size is None:
            self.hydras.append("hydra.sweeper.max_batch_size=1")  # else Hydra composes all jobs before the first starts

    def is_applied_by_job(self, override: Override) -> bool:
        """Whether an override is the deletion of a key that Hydra's first config, without swept choices, may lack.

        Not if other settings replace what it deletes.
        """
        key = override.key_or_group
        replaced = [o for o in self.overrides if o is not override and f"{o.key_or_group}.".startswith(f"{key}.")]
        return override.is_delete() and not chooses([override], self.groups) and not replaced

    def jobs(self) -> list[list[str]]:
        """The overrides of each job; of another sweeper than Hydra's own only those of one possible job."""
        for override in self.overrides if self.is_basic else []:
            if override.is_interval_sweep():
                raise ValueError(
                    f"{override.input_line}: Hydra's own sweeper needs a list of values, as in "
                    f"{override.key_or_group}=0.1,0.2; sweepers that draw from an interval are plugins, as in "
                    "hydra/sweeper=optuna."
                )
        jobs = [job for lines in self.listed or [[]] for job in self.product(lines)]
        return list({tuple(job): job for job in jobs}.values())

    def product(self, lines: Sequence[str]) -> list[list[str]]:
        """The overrides of all combinations of the swept settings. lines: settings of a job in a list."""
        own = parse(lines)
        overrides = {o.get_key_element(): o for o in [*own, *self.overrides, *own]}.values()  # its own first, and win
        choices = {str(override.input_line): single_choices(override) for override in overrides}
        if empty := next((line for line, found in choices.items() if not found), None):
            raise ValueError(f"{empty}: sweeps over no values.")
        if not self.is_basic:
            return [[found[0] for found in choices.values()]]
        return [list(job) for job in itertools.product(*choices.values())]

    def check(self) -> None:
        """Compose and check every job. Raises ValueError for the first that is invalid."""
        jobs = self.jobs()
        if len(jobs) > FEW:
            log.info("sweep: checking the settings of %d jobs", len(jobs))
        for number, job in enumerate(jobs):
            if number and number % EVERY == 0:
                log.info("sweep: checked %d of %d jobs", number, len(jobs))
            try:
                config = plain(self.composed(job))
                validate(self.verb, config)
            except USERS_ERRORS as error:
                raise ValueError(self.about(job, sentence(error, self.verb, job))) from error
            if self.is_planned:
                self.plan(job, config)
        self.runs = None
        self.bases.clear()  # a launcher may send this object to other processes

    def plan(self, job: Sequence[str], config: Config) -> None:
        """Find the run of a job, or its new directory. Raises ValueError if that holds another run."""
        if self.runs is None:
            self.runs = FoundRuns(Path(self.dir).expanduser())
        name = self.name(job)
        path = self.runs.path_of(config, Path(self.dir).expanduser() / slug(name))
        if path not in self.planned:  # else the same job is in the list twice
            own = [line for line in job if line not in self.deletions]
            lines = [line for line in own if not line.lstrip("+~").startswith("hydra")]
            self.planned[path] = Job(name, path.absolute()), lines
        self.on_gpu |= config["train"]["device"] not in ("cpu", "mps")

    def composed(self, job: Sequence[str]) -> DictConfig:
        """The config of a job. Jobs with the same options are composed once, which takes most of the time."""
        overrides = parse(job)
        check_choices(overrides, self.groups)
        chosen = tuple(chooses(overrides, self.groups))
        if chosen not in self.bases:
            self.bases[chosen] = compose(self.verb, chosen)
        config = copy.deepcopy(self.bases[chosen])
        ConfigLoaderImpl._apply_overrides_to_config([o for o in overrides if o.input_line not in chosen], config)
        return config

    def without_deleted(self, config: DictConfig) -> DictConfig:
        """A config from Hydra without the keys that are deleted. Raises HydraException if it lacks one."""
        ConfigLoaderImpl._apply_overrides_to_config(parse(self.deletions), config)
        return config

    def about(self, job: Sequence[str], problem: str) -> str:
        """The problem, with the name of the job if it does not mention all of its settings."""
        missing = [name for name in self.settings(job) if name not in problem]
        return f"{problem} This is the job {self.name(job)}." if missing else problem

    def settings(self, job: Sequence[str]) -> list[str]:
        """The swept settings of a job, as typed."""
        swept = [str(o.input_line) for o in parse(list(job)) if o.key_or_group in self.swept]
        return [unquote_path(line, self.paths) for line in swept]

    def name(self, job: Sequence[str]) -> str:
        """The name of a job, as in `loss=wgan_seed=3`."""
        return "_".join(self.settings(job)) or "job"

    def run_dir(self, name: str) -> Path:
        """The run directory of a training job."""
        return Path(self.dir) / slug(name)

    def ended(self) -> list[tuple[str, int, str]]:
        """The name, exit code and problem of each training job, from its run directory.

        Needed where jobs run in other processes, which may have died.
        """
        if self.is_basic:
            names = [self.name(job) for job in self.jobs()]
        else:
            names = sorted(path.parent.name for path in Path(self.dir).glob("*/config.yaml"))
        return [(name, *ending(self.run_dir(name))) for name in names]


def swept_in(jobs: Sequence[Sequence[str]]) -> list[str]:
    """The keys of the settings in a list of jobs that not all jobs have in common."""
    common = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    return [override.key_or_group for job in jobs for override in parse([line for line in job if line not in common])]


def ending(path: Path) -> tuple[int, str]:
    """The exit code of the run in a directory, and its problem."""
    from ganrun.records.run_dir import RunDir  # imports torch

    result = RunDir(path).result() or {}
    status = result.get("status")
    if status not in ENDINGS:
        return LEFT_NO_RESULT, f"left no result in {path}"
    return ENDINGS[status], f"{status}: {result['error']}" if result.get("error") else status
