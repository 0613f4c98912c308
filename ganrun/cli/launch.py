"""The settings of a sweep, and what they mean for the launcher, a plugin of Hydra, that starts its jobs."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ganrun.checks import check_arguments
from ganrun.cli import devices
from ganrun.cli.devices import Share

SWEEP_KEYS = ("launch", "jobs", "sweep_file", "retry", "fail_fast")  # settings of a sweep, which are in no job's config
Kind = Literal["serial", "joblib", "ray", "submitit", "other"]
BESIDE: tuple[Kind, ...] = ("joblib", "ray")  # run jobs side by side, whose output goes into files


def is_of_sweep(line: str) -> bool:
    """Whether a setting is one of the sweep, as launch.jobs=2 is.

    >>> is_of_sweep("+launch.jobs=2"), is_of_sweep("loss=wgan")
    (True, False)
    """
    return line.partition("=")[0].lstrip("+~").partition(".")[0] in SWEEP_KEYS


def check_no_sweep(overrides: Sequence[str]) -> None:
    """Raise ValueError for a setting of a sweep in the command line of a single job."""
    if found := next((line for line in overrides if is_of_sweep(line)), None):
        raise ValueError(f"{found}: is a setting of a sweep, and has no effect without -m.")


@dataclass(frozen=True)
class SweepOptions:
    """retry: the states of runs that are tried again, besides missing and interrupted ones."""

    retry: list[Literal["failed", "diverged"]]
    fail_fast: bool
    jobs: list[Any] = field(default_factory=list)
    sweep_file: str | None = None
    launch: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "SweepOptions":
        """Raises ValueError for a setting of the wrong type or range."""
        found = {key: config[key] for key in SWEEP_KEYS if config.get(key) is not None}
        found = {"retry": [], "fail_fast": False, **found}
        if isinstance(found["retry"], str):
            found["retry"] = [found["retry"]]
        check_arguments("", cls, found)
        for key, value in found.get("launch", {}).items():
            check_launch(key, value)
        return cls(**found)


def check_launch(key: str, value: Any) -> None:
    """Raise ValueError for a wrong value of a setting in `launch`."""
    if key in ("partition", "address"):
        return
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
        raise ValueError(f"launch.{key}={value}: must be a number, at least 0.")
    if value is not None and key in ("jobs", "threads", "time") and (value < 1 or value != int(value)):
        raise ValueError(f"launch.{key}={value}: must be a whole number, at least 1.")


def kind_of(target: str) -> Kind:
    """The kind of a launcher, from its `_target_`."""
    if target.startswith("hydra._internal.core_plugins.basic_"):
        return "serial"
    kinds: tuple[Kind, ...] = ("joblib", "ray", "submitit")
    return next((kind for kind in kinds if target.startswith(f"hydra_plugins.hydra_{kind}_launcher")), "other")


@dataclass(frozen=True)
class Launch:
    """How the jobs of a sweep are started. overrides: Hydra's settings that say so."""

    kind: Kind
    share: Share = field(default_factory=Share)
    overrides: tuple[str, ...] = ()
    jobs: int | None = None


def plan_launch(kind: Kind, options: Mapping[str, Any], typed: Sequence[Override], on_gpu: bool) -> Launch:
    """Divide this machine among the jobs. typed: overrides, which win. on_gpu: whether any job may use a GPU."""
    keys = {override.key_or_group for override in typed}
    if kind == "joblib" and "hydra.launcher.n_jobs" not in keys:
        names = devices.gpus() if on_gpu else []
        jobs = int(options.get("jobs") or len(names) or devices.cores())
        threads = int(options.get("threads") or max(1, devices.cores() // jobs))
        share = Share(threads, tuple(names), max(1, math.ceil(jobs / len(names))) if names else 1)
        return Launch(kind, share, (f"hydra.launcher.n_jobs={jobs}",), jobs)
    if kind == "ray" and options:
        gpus = options.get("gpus")
        local = options.get("address") is None
        if gpus is None:
            gpus = 1 if on_gpu and local and devices.gpus() else 0
        settings = {"remote.num_gpus": gpus}
        if local:  # Ray refuses these for a running cluster
            settings |= {"init.object_store_memory": 78643200, "init._node_ip_address": "'127.0.0.1'"}
            settings |= {"init.include_dashboard": "false"}
        known = {f"hydra.launcher.ray.{key}": value for key, value in settings.items()}
        overrides = [f"++{key}={value}" for key, value in known.items() if key not in keys]
        return Launch(kind, Share(max(1, int(options.get("cpus") or 1))), tuple(overrides))
    return Launch(kind)


class GivenJobs(Sweeper):
    """Gives the launcher the jobs that ganrun has chosen and checked, in place of all combinations."""

    jobs: Sequence[Sequence[str]] = ()
    one_by_one = False  # the launcher would compose all of them before the first starts

    def __init__(self, max_batch_size: int | None = None, params: Any = None) -> None:
        self.size = 1 if self.one_by_one else max_batch_size or len(self.jobs)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.folder, self.content = Path(config.hydra.sweep.dir), config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        assert self.launcher is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.content, self.folder / "multirun.yaml")
        for start in range(0, len(self.jobs), self.size):
            for job in self.launcher.launch(self.jobs[start : start + self.size], initial_job_idx=start):
                _ = job.return_value  # raises the error of a job, if it has one


# Hydra takes sweepers from the package hydra_plugins only, and imports them by their names.
GivenJobs.__module__ = "hydra_plugins.ganrun"
sys.modules[GivenJobs.__module__] = sys.modules[__name__]
SWEEPER = "hydra.sweeper._target_=hydra_plugins.ganrun.GivenJobs"


def without_sweep(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a job: without the settings of the sweep."""
    return {key: value for key, value in config.items() if key not in SWEEP_KEYS}
