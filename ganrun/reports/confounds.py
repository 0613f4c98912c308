"""What differs along with a key that varies, as loss=wgan brings RMSprop and n_critic 5, and the controlled sweep."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganrun.reports import commands
from ganrun.reports.options import SETS, as_text, has, leaves, lookup, nearest_option, option_of
from ganrun.reports.settings import Setting, different_leaves, relevant, short, typed_values, value_of

GROUPS = ("optimizer", "schedule", "penalty", "augment", "condition", "latent")  # named by option, others by setting
PLAYERS = {f"{player}_{group}": group for player in "gd" for group in ("optimizer", "schedule")}
SCHEDULES = ("momentum", "beta2_schedule", "penalty_schedule", "ema_schedule", "augment_schedule")
PLAYERS |= dict.fromkeys(SCHEDULES, "schedule")
RECIPES = ("experiment", "data")  # choose everything, so that nothing can be held fixed
OWN = {"loss": ("penalty",)}  # groups that belong to an option: a loss may need its penalty
LARGE = 4  # how many times more settings a controlled sweep may have
SAFEST = {"arch.discriminator.norm": "none"}  # values that work with every loss and penalty


@dataclass(frozen=True)
class Change:
    """One value of a key that varies, with what differs along with it: for each unit its value, and that of others."""

    key: str
    value: str
    units: Mapping[str, tuple[str, str]]

    def __str__(self) -> str:
        parts = [f"{unit}={own or 'none'} (instead of {other or 'none'})" for unit, (own, other) in self.units.items()]
        return f"{short(self.key)}={self.value} also has {joined(parts)}"


@dataclass(frozen=True)
class Confounds:
    """All changes of a report. command: the controlled sweep; "" if there is none. kept: groups that it leaves."""

    changes: Sequence[Change]
    command: str = ""
    kept: Sequence[str] = ()

    def sentences(self) -> list[str]:
        """What the report says above its table."""
        if not self.changes:
            return []
        if len(self.changes) == 1:
            return [f"Not a controlled comparison: {self.changes[0]}. These can be the cause of a difference, too."]
        lead = "Not a controlled comparison: other settings differ, too, and can be the cause of a difference."
        return [lead, *(f"- {change}" for change in self.changes)]

    @property
    def about_command(self) -> str:
        """What is said before the command."""
        own = f", with the {joined(self.kept)} of each loss" if self.kept else ""
        return f"The controlled sweep{own}:"


def joined(parts: Sequence[str]) -> str:
    """
    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)


def confounds(settings: Sequence[Setting]) -> Confounds:
    """The units that are a function of a key that varies, without being part of it."""
    keys = list(settings[0].values)
    units = other_units(settings, keys)
    owners = {unit: owner for unit in units if (owner := owner_of(settings, keys, unit)) is not None}
    common = {unit: common_value(settings, owner, unit) for unit, owner in owners.items()}
    changes = []
    for key in keys:
        for value in dict.fromkeys(setting.values[key] for setting in settings):
            setting = next(setting for setting in settings if setting.values[key] == value)
            own = {unit: text_of(setting, unit) for unit, owner in owners.items() if owner == key}
            different = {unit: (text, common[unit]) for unit, text in own.items() if text != common[unit]}
            parts = {unit for unit, texts in different.items() if section_of(unit) in different and "" in texts}
            if different := {unit: texts for unit, texts in different.items() if unit not in parts}:
                changes.append(Change(key, value, different))
    kept = [unit for unit, owner in owners.items() if unit in OWN.get(short(owner), ())]
    fixed = [
        unit
        for unit, owner in owners.items()
        if unit not in kept and section_of(unit) not in kept and short(owner) not in RECIPES and common[unit]
    ]
    return Confounds(changes, controlled(settings, common, fixed), kept)


def section_of(unit: str) -> str:
    """The section that a setting is in: penalty of penalty.r1.gamma, which only settings with that penalty have."""
    return unit.partition(".")[0] if "." in unit else ""


def other_units(settings: Sequence[Setting], keys: Sequence[str]) -> list[str]:
    """What else differs between settings: sections by their group, other settings by their key."""
    different = different_leaves([relevant(setting.config) for setting in settings])
    different = [leaf for leaf in different if not any(is_part(leaf, key) for key in keys)]
    found = dict.fromkeys(leaf if leaf in settings[0].along else unit_of(leaf) for leaf in different)
    return [unit for unit in found if len({text_of(setting, unit) for setting in settings}) > 1]


def unit_of(leaf: str) -> str:
    group = leaf.partition(".")[0]
    return group if group in GROUPS or group in PLAYERS else leaf


def is_part(leaf: str, key: str) -> bool:
    """Whether a setting is one that varies, or in the section of a group that varies."""
    name = short(key).rpartition("@")[2]
    return leaf in (key, name) or leaf.startswith(f"{name}.")


def text_of(setting: Setting, unit: str) -> str:
    """The value of a unit, as typed: that of a group is its option, with the settings that differ from it."""
    if unit not in setting.texts:
        choice, changed = overrides_of(setting, unit)
        more = ",".join(f"{key.removeprefix(f'{unit}.')}={as_text(value)}" for key, value in changed.items())
        setting.texts[unit] = f"{choice} with {more}" if more else choice
    return setting.texts[unit]


def overrides_of(setting: Setting, unit: str) -> tuple[str, dict[str, Any]]:
    """The option or the value of a unit, and the settings by key in which it differs from the option.

    Settings that were typed, or vary, do not count: they are named elsewhere.
    """
    node, group = lookup(setting.config, unit), PLAYERS.get(unit, unit)
    typed = typed_values(setting.typed or ())
    ignored = {group + key.removeprefix(unit) for key in {*typed, *setting.values, *setting.along}}
    if not isinstance(node, dict) or group in SETS or not node:
        return ("" if node is None and "." in unit and not has(setting.config, unit) else option_of(group, node)), {}
    option, changed = nearest_option(group, node, ignored, typed.get(unit, ""))
    if not option:
        return option_of(group, node), {k: v for k, v in leaves(unit, node).items() if not k.endswith("_target_")}
    return option, {unit + key.removeprefix(group): value for key, value in changed.items()}


def owner_of(settings: Sequence[Setting], keys: Sequence[str], unit: str) -> str | None:
    """The key that varies and determines the unit; the first one, if no single key does. None if there is no key."""
    for key in keys:
        pairs = {(setting.values[key], text_of(setting, unit)) for setting in settings}
        if len(pairs) == len({value for value, _ in pairs}):
            return key
    return keys[0] if keys else None


def common_value(settings: Sequence[Setting], owner: str, unit: str) -> str:
    """The value that most values of the owner have; of several, the first."""
    texts = {setting.values[owner]: text_of(setting, unit) for setting in settings}
    safe = SAFEST.get(unit)
    return safe if safe and safe in texts.values() else Counter(texts.values()).most_common(1)[0][0]


def controlled(settings: Sequence[Setting], common: Mapping[str, str], units: Sequence[str]) -> str:
    """The sweep in which these units have their common value; "" without units, if it is large, or not known."""
    typed = settings[0].typed
    if not units or typed is None or any("._target_" in key for key in settings[0].values):
        return ""
    fixed: list[str] = []
    for unit in units:
        setting = next(setting for setting in settings if text_of(setting, unit) == common[unit])
        choice, changed = overrides_of(setting, unit)
        group = PLAYERS.get(unit)
        fixed.append(f"{group}@{unit}={choice or 'null'}" if group else f"{unit}={choice or 'null'}")
        fixed += [f"{key}={as_text(value)}" for key, value in changed.items()]
    axes = {key: [*dict.fromkeys(setting.values[key] for setting in settings)] for key in settings[0].values}
    if math.prod(map(len, axes.values())) > LARGE * len(settings):  # as of the trials of a search
        return ""
    same = [o for o in typed if all(commands_equal(setting, o) for setting in settings)]
    return commands.sweep(same, axes, fixed, [run.seed for setting in settings for run in setting.runs])


def commands_equal(setting: Setting, override: str) -> bool:
    """Whether a setting was started with the same override, or has its value anyway."""
    key = commands.key_of(override)
    return override in (setting.typed or ()) or value_of(setting, key) == override.partition("=")[2]
