"""Compatibility with run directories of earlier versions of ganrun: names in their files are converted when read."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ganrun.config import Config, defaults

TARGETS = {  # of components that were moved to other modules
    f"ganrun.penalty.{name}": f"ganrun.penalty.{module}.{name}"
    for module, names in {
        "consistency": ["Consistency"],
        "gradient": ["R1", "R2", "Dragan", "GradientPenalty", "ZeroCentered"],
        "lecam": ["LeCam"],
        "weights": ["Orthogonal", "WeightClip"],
    }.items()
    for name in names
}
GOODFELLOW = ("cifar_conv", "cifar_fc", "mnist", "tfd")
OPTIONS = {  # of config groups, as typed on the command line
    "arch=mlp_unrolled": "arch=mlp_metz2017",
    "optimizer=adam_unrolled": "optimizer=adam_metz2017",
    **{f"arch=goodfellow2014/{name}": f"arch=goodfellow2014_{name}" for name in (*GOODFELLOW, "tfd_grown")},
    **{f"optimizer=goodfellow2014/{name}": f"optimizer=goodfellow2014_{name}" for name in GOODFELLOW},
}
STATES = {"averaged": "G_ema"}
BEST = {"without": "evaluations_since", "measured": "last_step"}
AUGMENT = {"seen": "num_signs"}
FRAMES = {"counts_g": "played"}  # current to old, as files are read


def upgraded_config(config: Config) -> Config:
    """A stored config with the current names, and defaults for settings that did not exist when it was written."""
    config = _with_defaults(_moved(config))
    generator = dict(config["arch"]["generator"])
    source = generator.pop("grow_from", None)
    if source is not None:  # now a top-level setting
        config["init_from"] = source
        config["init"] = {**config["init"], "nets": "generator", "same_data": True}
    return {**config, "arch": {**config["arch"], "generator": generator}}


def _moved(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: TARGETS.get(v, v) if k == "_target_" and isinstance(v, str) else _moved(v) for k, v in node.items()}
    return [_moved(item) for item in node] if isinstance(node, list) else node


def _with_defaults(config: Config) -> Config:
    own = copy.deepcopy(defaults())
    if config["train"].get("ema"):
        own["train"]["ema_debias"] = False
    return (
        config
        | {key: {**own[key], **config[key]} for key in ("train", "data")}
        | {key: own[key] for key in ("init_from", "init") if key not in config}
    )


def upgraded_overrides(overrides: Sequence[str]) -> list[str]:
    """The settings typed on the command line of a stored run, with the current names."""
    found = [OPTIONS.get(override, override) for override in overrides]
    grown = [f"init_from={o.partition('=')[2]}" if o.startswith("arch.generator.grow_from=") else o for o in found]
    return [*grown, "init.nets=generator"] if grown != found else found


def upgraded_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics.jsonl with the current names."""
    how = row.get("evaluated")
    return {**row, "evaluated": _renamed(how, {"average": "ema"})} if isinstance(how, dict) else row


def upgraded_state(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint of format 1, with the names of format 2."""
    state = _renamed(state, STATES)
    if isinstance(state.get("best"), dict):
        state["best"] = _renamed(state["best"], BEST)
    if isinstance(state.get("augment"), dict):
        state["augment"] = _renamed(state["augment"], AUGMENT)
    return state


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}
