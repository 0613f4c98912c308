"""The settings of a report: runs with the same config but for the seed, and the keys that vary between them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ganrun.config import Config, flat
from ganrun.records.state import MAY_DIFFER
from ganrun.reports.collect import Run
from ganrun.reports.options import as_text, lookup, option_of

OF_METRICS = ("metric", "features")  # sections that do not change what a run learns
NO_EFFECT = {  # settings that do not change what a run learns, or only within rounding
    *MAY_DIFFER,
    "train.device",
    "train.threads",
    "train.log_every",
    "train.sample_every",
    "train.metric_every",
    "train.frame_every",
    "train.checkpoint_every",
    "train.keep_best",
}
LONG = 8  # characters of a number that is rounded to be shown
ENDINGS = ("finished", "diverged", "failed")  # states of a run that has ended by itself
ORDER = ("experiment", "data", "arch", "loss", "penalty", "optimizer", "schedule", "train")  # of keys, in names


@dataclass
class Setting:
    """The runs with one config, one for each seed.

    values: of each key that varies, as typed. shown: the same with four digits of long numbers. repeats: further runs
    with the same seed, which do not count: on one machine they are the same run.
    """

    runs: list[Run]
    values: dict[str, str] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    repeats: list[Run] = field(default_factory=list)
    along: Sequence[str] = ()  # keys that were typed and vary, but are determined by one of `values`
    known: dict[str, str] = field(default_factory=dict, repr=False)  # what `value_of` has found
    texts: dict[str, str] = field(default_factory=dict, repr=False)  # what `confounds.text_of` has found

    @property
    def config(self) -> Config:
        return self.runs[0].config

    @property
    def typed(self) -> Sequence[str] | None:
        """The settings typed to start its first run of which they are known."""
        return next((run.typed for run in self.runs if run.typed is not None), None)

    @property
    def name(self) -> str:
        """What varies, as in `loss=wgan optimizer.lr=0.001`."""
        return " ".join(f"{short(key)}={value}" for key, value in self.shown.items() if value) or "all runs"


def short(key: str) -> str:
    return key.removesuffix("._target_")


def settings_of(runs: Iterable[Run]) -> list[Setting]:
    """The settings in the order of their names, named by the keys that vary."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(identity(run.config), []).append(run)
    settings = [one_per_seed(members) for members in found.values()]
    keys, along = varying_keys(settings)
    for key in keys:
        values = [value_of(setting, key) for setting in settings]
        shown = {value: rounded(value) for value in values}
        for setting, value in zip(settings, values, strict=True):
            setting.along = along
            setting.values[key] = value
            setting.shown[key] = shown[value] if len({*shown.values()}) == len(shown) else value
    return sorted(settings, key=lambda setting: [natural(value) for value in setting.values.values()])


def rounded(value: str) -> str:
    """A long number with four digits.

    >>> rounded("0.0012345678"), rounded("12345678"), rounded("nonsaturating")
    ('0.001235', '12345678', 'nonsaturating')
    """
    try:
        return value if len(value) <= LONG or value.lstrip("+-").isdigit() else f"{float(value):.4g}"
    except ValueError:
        return value


def natural(value: str) -> tuple[int, float, str]:
    """A sort key: numbers by size, before texts."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def one_per_seed(runs: Sequence[Run]) -> Setting:
    """One run for each seed: one that has ended, if there is any, then the one with the most steps."""
    best: dict[int, Run] = {}
    for run in sorted(runs, key=lambda run: (run.state not in ENDINGS, -run.steps, str(run.path))):
        best.setdefault(run.seed, run)
    counted = sorted(best.values(), key=lambda run: run.seed)
    return Setting(counted, repeats=[run for run in runs if not any(run is other for other in counted)])


def relevant(config: Config) -> dict[str, Any]:
    """The settings that make a difference, flat, without the seed and the metrics."""
    settings = flat({key: node for key, node in config.items() if key not in ("seed", *OF_METRICS)})
    return {key: value for key, value in settings.items() if key not in NO_EFFECT}


def identity(config: Config) -> str:
    return json.dumps(relevant(config), sort_keys=True)


def varying_keys(settings: Sequence[Setting]) -> tuple[list[str], list[str]]:
    """The keys that tell the settings apart, and the typed ones that vary along with one of them.

    The first are those typed with different values; then, if needed, others. A rate that was tuned for each loss varies
    along with the loss.
    """
    typed = [key for key in typed_keys(settings) if differs(settings, key)]
    typed.sort(key=lambda key: (not is_choice(key), rank(key)))
    along = [key for i, key in enumerate(typed) if any(determines(settings, other, key) for other in typed[:i])]
    keys = [key for key in typed if key not in along]
    others = different_leaves([relevant(setting.config) for setting in settings])
    while True:
        free = [key for key in others if key not in keys and key not in along]
        if distinct(settings, keys) == len(settings) or not free:
            return sorted(keys, key=rank), along
        keys.append(max(free, key=lambda key: (distinct(settings, [*keys, key]), -rank(key))))


def rank(key: str) -> int:
    """The place of a key in ORDER, by its first word."""
    group = key.partition(".")[0].partition("@")[0]
    return ORDER.index(group) if group in ORDER else len(ORDER)


def is_choice(key: str) -> bool:
    """Whether a key chooses the option of a group, or the class of a component."""
    return "." not in short(key)


def determines(settings: Sequence[Setting], key: str, other: str) -> bool:
    """Whether the choice of an option determines the value of another key."""
    pairs = {(value_of(setting, key), value_of(setting, other)) for setting in settings}
    return is_choice(key) and len(pairs) == len({value for value, _ in pairs})


def distinct(settings: Sequence[Setting], keys: Sequence[str]) -> int:
    return len({tuple(value_of(setting, key) for key in keys) for setting in settings})


def differs(settings: Sequence[Setting], key: str) -> bool:
    return len({value_of(setting, key) for setting in settings}) > 1


def typed_keys(settings: Sequence[Setting]) -> list[str]:
    """All keys that were typed and can make a difference, in the order in which they were typed."""
    keys = dict.fromkeys(key for setting in settings for key in typed_values(setting.typed or ()))
    return [
        key for key in keys if key not in NO_EFFECT and key != "seed" and not key.startswith((*OF_METRICS, "hydra"))
    ]


def typed_values(typed: Iterable[str]) -> dict[str, str]:
    """The typed settings by key; of several with the same key, the last.

    >>> typed_values(["loss=wgan", "+train.steps=5", "train.steps=9"])
    {'loss': 'wgan', 'train.steps': '9'}
    """
    return {override.lstrip("+~").partition("=")[0]: override.partition("=")[2] for override in typed}


def value_of(setting: Setting, key: str) -> str:
    """The value of a setting, or the option of a group, as typed on the command line; "" if it has none."""
    if key not in setting.known:
        setting.known[key] = _value_of(setting, key)
    return setting.known[key]


def _value_of(setting: Setting, key: str) -> str:
    node = lookup(setting.config, key)
    if key.endswith("_target_") and isinstance(node, str):
        return node.rpartition(".")[2]
    typed = typed_values(setting.typed or ())
    is_leaf = node is not None and not isinstance(node, dict)
    if key in typed and not is_leaf:
        return typed[key]
    if node is None:
        return "null" if key.rpartition(".")[2] in (lookup(setting.config, key.rpartition(".")[0]) or {}) else ""
    return option_of(key.partition("@")[0], node)


def different_leaves(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of flat configs with more than one value, in the order of the first config that has them."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({as_text(config.get(key)) for config in configs}) > 1]


def unequal_records(settings: Sequence[Setting]) -> dict[str, list[str]]:
    """Settings without an effect on learning, and of metrics, in which runs differ, with their values."""
    configs = [flat(run.config) for setting in settings for run in setting.runs]
    keys = [k for k in different_leaves(configs) if (k in NO_EFFECT - MAY_DIFFER) or k.partition(".")[0] in OF_METRICS]
    return {key: sorted({as_text(config.get(key)) for config in configs}) for key in keys}
