"""Recipes, such as loss=wgan, which choose options of other groups, and what is lost of them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ganrun.cli.compose import UserConf
from ganrun.config import CONF
from ganrun.records.state import may_differ

log = logging.getLogger("ganrun")


def report_replaced(choices: Mapping[str, str | None], overrides: Sequence[str]) -> None:
    """Say which choices of the loss or the experiment are lost to others, which take precedence.

    choices: the option of each group. overrides: as typed.
    """
    loss, experiment = f"loss/{choices.get('loss')}", f"experiment/{choices.get('experiment')}"
    typed: dict[str, Any] = dict(override.partition("=")[::2] for override in overrides)
    before_loss = recipe_choices(experiment) | typed if "loss" in typed else typed
    for recipe, others in ((loss, before_loss), (experiment, typed)):
        if lost := replaced(recipe, others):
            log.info("recipe     %s without its %s", recipe.replace("/", "=", 1), ", ".join(lost))


def replaced(recipe: str, others: Mapping[str, Any]) -> list[str]:
    """The choices of a recipe, such as "loss/wgan", that are lost to `others`: a phrase for each.

    others: options that take precedence, by group, as in {"penalty": "r1"}.
    """
    return [
        f"{group}={_as_typed(option)} (replaced by {group}={_as_typed(others[group])})"
        for group, option in recipe_choices(recipe).items()
        if group in others and not set(_as_list(option)) <= set(_as_list(others[group]))
    ]


def recipe_choices(recipe: str) -> dict[str, Any]:
    """The options of other groups that an option chooses in its defaults list, by group."""
    paths = [folder / f"{recipe}.yaml" for folder in (CONF, *UserConf.folders)]
    path = next((path for path in paths if path.exists()), None)
    content = yaml.safe_load(path.read_text()) if path else None
    found: dict[str, Any] = {}
    for entry in (content or {}).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            absolute = entry[1:] if entry.startswith("/") else f"{recipe.partition('/')[0]}/{entry}"
            found |= recipe_choices(absolute)
        elif isinstance(entry, dict):
            overridden = [(key, value) for key, value in entry.items() if key.startswith("override ")]
            found |= {key.removeprefix("override ").lstrip("/"): value for key, value in overridden}
    return found


def run_title(choices: Mapping[str, str | None], overrides: Sequence[str]) -> str:
    """The name of a new run: its data, its loss, and what else was typed, but for what may differ when it is resumed.

    overrides: as typed.

    >>> run_title({"data": "ring", "loss": "wgan"}, ["loss=wgan", "seed=3", "train.keep_every=9"])
    'ring_wgan_seed=3'
    """
    names = [str(choices[group]) for group in ("data", "loss") if choices.get(group)]
    typed = {line.partition("=")[0].lstrip("+"): line.lstrip("+") for line in overrides}
    return "_".join(
        [*names, *(line for key, line in typed.items() if key not in ("data", "loss") and not may_differ(key))]
    )


def _as_list(option: Any) -> list[Any]:
    option = yaml.safe_load(option) if isinstance(option, str) else option
    return option if isinstance(option, list) else [option]


def _as_typed(option: Any) -> str:
    return f"[{','.join(option)}]" if isinstance(option, list) else str(option)
