"""Configs as plain dictionaries, and file names made from settings."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Config = dict[str, Any]
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that of libyaml is seven times as fast

CONF = next(p for p in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf") if p.is_dir())


def load_yaml(text: str | bytes) -> Any:
    """The content of a YAML text of plain types. Raises yaml.YAMLError if it is damaged."""
    return yaml.load(text, SAFE_LOADER)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config as a flat dictionary with dotted keys. Empty sections are kept as values.

    >>> flat({"train": {"steps": 3}})
    {'train.steps': 3}
    """
    if not isinstance(config, dict) or not config:
        return {prefix: config}
    nodes = {f"{prefix}.{key}" if prefix else str(key): node for key, node in config.items()}
    return {key: value for name, node in nodes.items() for key, value in flat(node, name).items()}


@cache
def defaults() -> Config:
    """The content of conf/train.yaml, which must not be changed."""
    found: Config = load_yaml((CONF / "train.yaml").read_text())
    return found


def resumable() -> set[str]:
    """The settings that may change when a run is resumed, as in `train.steps`: those of conf/resume.yaml."""
    return set(flat({"train": yaml.safe_load((CONF / "resume.yaml").read_text())["train"]}))


def slug(text: str, length: int = 100) -> str:
    """A file name made from `text`. If `text` has to be changed, a digest is added to keep the name unique.

    >>> slug("loss=wgan_seed=3")
    'loss=wgan_seed=3'
    >>> slug("data.root=../faces")
    'data.root=.._faces-b78524b7'
    """
    name = re.sub(r"[^\w.=,+-]+", "_", text, flags=re.ASCII)
    return name if name == text and len(name) <= length else f"{name[: length - 9]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
