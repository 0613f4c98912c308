"""A run's row on TensorBoard's HParams page.

TensorBoard combines the rows of all runs that it finds. It puts the settings that differ between them first, in the
order of their names, and ticks the first five. If an experiment's summary existed, with its own list of settings and
metrics, TensorBoard would take the one of any run for all of them; so there is none, and a row has only the settings
that were typed. Then TensorBoard lists all scalars as metrics, in the order of their names, and ticks the first five.
Final metrics have tags that come first: capital letters precede small ones.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.metadata import (
    PLUGIN_DATA_VERSION,
    PLUGIN_NAME,
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from ganrun.config import flat
from ganrun.protocols import MetricKey
from ganrun.records.state import may_differ

FINAL = "Final/"  # before the keys of final metrics
ROW_TAGS = ("_hparams_", FINAL)  # the beginnings of the tags of a row
STATUS = {"finished": "STATUS_SUCCESS", "diverged": "STATUS_FAILURE", "interrupted": "STATUS_UNKNOWN"}
LEFT_OUT = ("run_dir", "trust", "tracker")
Settings = dict[str, bool | int | float | str]


def row(settings: Mapping[str, bool | int | float | str], ending: str) -> list[Summary]:
    """The summaries of a row. ending: finished, diverged or interrupted. Metrics are scalars, with tags FINAL + key."""
    start = SessionStartInfo()
    for key, value in settings.items():
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        setattr(start.hparams[key], f"{kind}_value", value)
    end = SessionEndInfo(status=Status.Value(STATUS[ending]))
    return [
        _summary(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start, version=PLUGIN_DATA_VERSION)),
        _summary(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end, version=PLUGIN_DATA_VERSION)),
    ]


def _summary(tag: str, data: HParamsPluginData) -> Summary:
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=data.SerializeToString())
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])


def settings_of(config: Mapping[str, Any], overrides: Sequence[str] | None) -> Settings:
    """The settings of a run's row: those that were typed, else its seed.

    overrides: as typed; None if they are unknown, as of a run that was started in Python, which has all its settings
    but lists.

    >>> config = {"seed": 3, "loss": {"_target_": "ganrun.loss.Wasserstein"}, "train": {"steps": 50, "diagnose": True}}
    >>> settings_of(config, ["loss=wgan", "train.steps=5e1", "run_dir=r"])
    {'loss': 'wgan', 'train.steps': 50}
    >>> settings_of(config, None)
    {'seed': 3, 'loss': 'Wasserstein', 'train.steps': 50}
    """
    known = flat(config)
    if overrides is None:
        found = {key: value for key, value in known.items() if not may_differ(key) and _is_plain(value)}
        return {
            key.removesuffix("._target_"): _plain(value.rpartition(".")[2] if key.endswith("_target_") else value)
            for key, value in found.items()
        }
    typed = {}
    for line in overrides:
        key, _, text = line.partition("=")
        name = key.lstrip("+~").rpartition("@")[2]
        if name not in LEFT_OUT and not name.startswith("tracker."):
            value: Any = "removed" if line.startswith("~") else known.get(name)
            typed[name] = _plain(value if _is_plain(value) else text)
    return typed or {"seed": config["seed"]}


def leading(metrics: Mapping[str, float], keys: Mapping[str, MetricKey]) -> dict[str, float]:
    """The metrics without those that belong to another: its standard error, or its value for the data.

    >>> keys = {"a": MetricKey(true="a_true"), "a_true": MetricKey(), "a_se": MetricKey(about="a")}
    >>> leading({"a": 1.0, "a_true": 2.0, "a_se": 3.0, "b": 4.0}, keys)
    {'a': 1.0, 'b': 4.0}
    """
    true = {keys[key].true for key in metrics if key in keys}
    return {k: v for k, v in metrics.items() if k not in true and keys.get(k, MetricKey()).about not in metrics}


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _plain(value: bool | int | float | str) -> bool | int | float | str:
    """The value as TensorBoard can show it: it has no infinite numbers, and text is UTF-8."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return utf8(value) if isinstance(value, str) else value


def utf8(text: str) -> str:
    """The text without the undecodable bytes that a path can have."""
    return text.encode(errors="replace").decode()
