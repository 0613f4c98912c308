"""What is wrong with a command line, in one sentence that says what to type."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganrun.checks import describe, did_you_mean, fits
from ganrun.cli.search import compose, config_dirs, groups_and_options, root_keys
from ganrun.names import flat
from ganrun.options import TrainOptions


def validate(verb: str, config: dict[str, Any]) -> None:
    """Raise ValueError for a key that nothing reads, or a setting of the loop that is out of range."""
    known = root_keys(verb)
    for key, value in config.items():
        if key not in known:
            key, value = next(iter(flat({key: value}).items()))
            raise ValueError(unknown_key(verb, key, value, []))
    for key, kind in (("seed", int), ("run_dir", str | None)):
        if not fits(config.get(key, 0 if kind is int else None), kind):
            raise ValueError(f"{key}={config[key]}: must be {describe(kind)}.")
    if config.get("seed", 0) < 0:
        raise ValueError(f"seed={config['seed']}: must be at least 0.")
    if verb == "train":
        if not isinstance(config["train"], dict):
            raise ValueError(f"train={config['train']}: is a group of settings, as in train.steps=1000.")
        TrainOptions.of(config["train"])


def sentence(error: Exception, verb: str, arguments: Sequence[str]) -> str:
    """The error in one line that says what to type."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = [o for o in error.options or [] if o]
        hint = did_you_mean(option, options)
        known = f" {group} is one of {', '.join(options)}." if options else ""
        return f"{group}={option}: no such option{hint}{known}"
    if found := re.search(r"Could not override '([^']+)'", str(error)):
        key = found[1]
        typed = next((a for a in arguments if a.lstrip("+~").startswith(key)), key)
        return unknown_key(verb, key, typed.partition("=")[2], arguments)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be understood; settings are key=value ({str(error).splitlines()[0]})."
    if isinstance(error, OmegaConfBaseException):
        key = error.full_key or ""
        if "Missing mandatory value" in str(error):
            return f"{key}: has to be given, as in `ganrun {verb} {key}=...`."
        return f"{key}: {str(error).splitlines()[0]}."
    return " ".join(str(error).split("\n\n")[0].split("\n"))


def unknown_key(verb: str, key: str, value: Any, arguments: Sequence[str]) -> str:
    player, _, group = key.partition(".")[0].partition("_")
    if player in ("g", "d") and group in ("optimizer", "schedule"):
        return (
            f"{key}={value}: {player.upper()} shares the {group} with the other player; "
            f"give it one of its own, as in {group}@{player}_{group}=OPTION {key}={value}."
        )
    hint = did_you_mean(key, known_keys(verb, arguments))
    return f"{key}={value}: no such setting{hint} `ganrun --cfg job` lists them all."


def known_keys(verb: str, arguments: Sequence[str]) -> list[str]:
    """Every key of the config that the choices on the command line make, as far as they can be made."""
    groups = groups_and_options(config_dirs(arguments))
    chosen = [a for a in arguments if a.partition("=")[0].lstrip("+").partition("@")[0] in groups and "," not in a]
    for overrides in (chosen, []):
        try:
            cfg = compose(verb, overrides, config_dirs(arguments))
        except HydraException:
            continue
        keys = [key for key in flat(OmegaConf.to_container(cfg)) if "_target_" not in key]
        return [*keys, *sorted(root_keys(verb))]
    return sorted(root_keys(verb))
