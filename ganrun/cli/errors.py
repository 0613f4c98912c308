"""Error messages for the command line: one sentence that names the problem and the remedy."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganrun.checks import as_typed, did_you_mean
from ganrun.cli.compose import compose, config_dirs, groups_and_options, root_keys
from ganrun.config import flat

USERS_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException, yaml.YAMLError)
EXAMPLES = {
    "train": "train.steps=1000",
    "data": "data.root=DIR",
    "arch": "arch.z_dim=64",
    "init": "init.nets=generator",
}


def sentence(error: Exception, verb: str, arguments: Sequence[str]) -> str:
    """The error as a one-line message."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.partition("/")
        if not option:
            return f"--config-name={group}: no such config."
        options = groups_and_options(config_dirs(arguments)).get(group, [])
        hint = did_you_mean(option, options)
        known = f" {group} is one of {', '.join(options)}." if options else ""
        return f"{group}={option}: no such option{hint}{known}"
    if found := re.search(r"Could not override '([^']+)'", str(error)):
        key = found[1]
        typed = next((a for a in arguments if a.lstrip("+~").startswith(key)), key)
        return unknown_key(verb, key, typed.partition("=")[2], arguments)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be parsed; settings are key=value ({str(error).splitlines()[0]})."
    if isinstance(error, OmegaConfBaseException):
        key = error.full_key or ""
        if "Missing mandatory value" in str(error):
            return f"{key}: must be given, as in `ganrun {verb} {key}=...`."
        return f"{key}: {str(error).splitlines()[0]}."
    if isinstance(error, UnicodeDecodeError) and (path := file_with(error.object, config_dirs(arguments))):
        return f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}."
    return " ".join(str(error).split("\n\n")[0].split("\n")).encode(errors="replace").decode()


def file_with(content: bytes, folders: Sequence[Path]) -> Path | None:
    """The first config file that contains these bytes, and is not UTF-8; None if there is none."""
    for path in (path for folder in folders for path in sorted(folder.rglob("*.yaml"))):
        data = path.read_bytes()
        if content in data and "\N{REPLACEMENT CHARACTER}" in data.decode(errors="replace"):
            return path
    return None


def is_a_section(key: str, value: Any) -> str:
    return f"{key}={as_typed(value)}: is a group of settings, as in {EXAMPLES[key]}."


def unknown_key(verb: str, key: str, value: Any, arguments: Sequence[str]) -> str:
    player, _, group = key.partition(".")[0].partition("_")
    if player in ("g", "d") and group in ("optimizer", "schedule"):
        return (
            f"{key}={value}: {player.upper()} shares the {group} with the other player; "
            f"give it one of its own, as in {group}@{player}_{group}=OPTION {key}={value}."
        )
    if key in EXAMPLES and key in root_keys(verb):
        return is_a_section(key, value)
    known = known_keys(verb, arguments)
    if verb == "evaluate" and key.startswith("metric.") and not any(name.startswith("metric.") for name in known):
        return f"{key}={value}: no metric is chosen; choose one, as in metric=modes metric.modes.num=10000."
    hint = did_you_mean(key, known)
    lists = "ganrun --cfg job" if verb == "train" else f"ganrun {verb} --help"
    return f"{key}={value}: no such setting{hint} `{lists}` lists them all."


def known_keys(verb: str, arguments: Sequence[str]) -> list[str]:
    """All keys of the config with the options on the command line, or if these cannot be composed with the defaults."""
    groups = groups_and_options(config_dirs(arguments))
    chosen = [a for a in arguments if a.partition("=")[0].lstrip("+").partition("@")[0] in groups and "," not in a]
    for overrides in (chosen, []):
        try:
            cfg = compose(verb, overrides)
        except HydraException:
            continue
        keys = [key for key in flat(OmegaConf.to_container(cfg)) if "_target_" not in key]
        return [*keys, *sorted(root_keys(verb))]
    return sorted(root_keys(verb))
