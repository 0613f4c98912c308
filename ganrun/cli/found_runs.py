"""The runs that a sweep directory holds, found by their configs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ganrun.config import Config, flat, resumable
from ganrun.files import read_file
from ganrun.records.legacy import upgraded_config
from ganrun.records.state import may_differ
from ganrun.records.sweep_dir import LOADER

NORM = "arch.discriminator.norm"  # "auto" in the config of a job is replaced in that of its run


class FoundRuns:
    """The runs in the folders of a directory."""

    def __init__(self, folder: Path) -> None:
        found = ((path.parent, config_at(path)) for path in sorted(folder.glob("*/config.yaml")))
        self.configs = {path: comparable(config) for path, config in found if config is not None}
        self.paths: dict[Any, Path] = {}
        for path, config in reversed(self.configs.items()):
            self.paths[key_of(config)] = self.paths[key_of(without_norm(config))] = path

    def path_of(self, config: Config, default: Path) -> Path:
        """The directory of the run with this config, or `default` if there is none.

        Raises ValueError if `default` holds a run with another config.
        """
        wanted = comparable(config)
        if wanted.get(NORM) == "auto":
            wanted = without_norm(wanted)
        there = self.configs.get(default)
        if there is None:
            return self.paths.get(key_of(wanted), default)
        if not (changed := differences(there, wanted)):
            return default
        if path := self.paths.get(key_of(wanted)):
            return path
        named = [f"{key} ({there[key]} there, {wanted[key]} now)" for key in changed if key in there and key in wanted]
        named += [key for key in changed if key not in there or key not in wanted]
        extended = [f"{key}={wanted[key]}" for key in changed if key in resumable() and key in wanted]
        raise ValueError(
            f"run_dir={default}: contains a run with another config, which differs in {', '.join(named)}. Choose a new "
            f"run_dir, or continue that run with `ganrun resume {' '.join([f'run_dir={default}', *extended])}`."
        )


def config_at(path: Path) -> Config | None:
    """The config in a file; None if it cannot be read, which the run itself reports."""
    try:
        return upgraded_config(yaml.load(read_file(path), LOADER))
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def comparable(config: Config) -> dict[str, Any]:
    """The settings that make a run what it is, with dotted keys."""
    return {key: value for key, value in flat(config).items() if not may_differ(key)}


def without_norm(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != NORM}


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The keys in which a job differs from a run, apart from those that the run has replaced itself."""
    keys: Iterable[str] = there.keys() | wanted.keys()
    changed = sorted(key for key in keys if there.get(key) != wanted.get(key))
    replaced = set() if NORM in wanted else {NORM}
    if there.get("train.ema_debias") is False:  # the default of earlier versions, which their runs keep
        replaced.add("train.ema_debias")
    return [key for key in changed if key not in replaced]


def key_of(config: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((key, repr(value)) for key, value in config.items() if value is not None)
