"""Checks of a composed config before torch is imported. They raise ValueError for an invalid setting."""

from typing import Any

from ganrun.checks import as_typed, fits, must_be
from ganrun.cli.compose import UserConf, nullable_keys, recipe_groups, root_keys
from ganrun.cli.errors import is_a_section, unknown_key
from ganrun.cli.launch import SWEEP_KEYS
from ganrun.config import Config, flat
from ganrun.search.options import SearchOptions
from ganrun.training.options import TrainOptions

SECTIONS = ("train", "data", "arch", "init", "search")
TRAINS = ("train", "search")  # verbs that train

NOT_STORED = {"trust", "tracker", *SWEEP_KEYS}  # in the config of a run


def validate(verb: str, config: Config) -> TrainOptions | None:
    """Raise ValueError for an unknown key, or a setting of the wrong type or range.

    Returns the options of the training loop for verbs that train, else None.
    """
    recipes = recipe_groups(verb)
    known = root_keys(verb) - recipes
    for key in config.keys() & recipes:
        raise ValueError(
            f"{key}: has no settings of its own; a file in conf/{key}/ must begin with `# @package _global_`."
        )
    for key in config.keys() - known:
        key, value = next(iter(flat({key: config[key]}).items()))
        raise ValueError(unknown_key(verb, key, value, []))
    check_kind("seed", config, int | None if verb == "evaluate" else int)
    if (config.get("seed") or 0) < 0:
        raise ValueError(f"seed={config['seed']}: must be at least 0.")
    check_kind("run_dir", config, str | None if verb in TRAINS else str)
    for key in sorted(known - config.keys() - nullable_keys(verb) - NOT_STORED):
        raise ValueError(is_missing(verb, key))
    for key in known & {*SECTIONS}:
        if not isinstance(config[key], dict):
            raise ValueError(is_a_section(key, config[key]))
    if verb == "search":
        SearchOptions.of(config["search"])
    return validate_training(config) if verb in TRAINS else None


def is_missing(verb: str, key: str) -> str:
    if UserConf.primary is None:
        return f"{key}: was removed, but is required."
    return f"--config-name={UserConf.primary[1]}: has no {key}; begin it with `defaults: [{verb}, _self_]`."


def validate_training(config: Config) -> TrainOptions:
    if "_target_" in config["arch"]:
        raise ValueError(
            f"arch._target_={config['arch']['_target_']}: has no effect; an architecture has two networks, "
            "arch.generator._target_ and arch.discriminator._target_."
        )
    for key in config["arch"].keys() - {"z_dim", "generator", "discriminator"}:
        raise ValueError(unknown_key("train", f"arch.{key}", config["arch"][key], []))
    check_kind("init_from", config, str | None)
    check_kind("data.root", config["data"], str)
    check_kind("data.download", config["data"], bool)
    check_kind("data.verify", config["data"], bool)
    return TrainOptions.of(config["train"])


def check_kind(key: str, node: dict[str, Any], kind: Any) -> None:
    name = key.rpartition(".")[2]
    if name in node and not fits(node[name], kind):
        raise ValueError(f"{key}={as_typed(node[name])}: {must_be(node[name], kind)}")
