"""The options of config groups in conf/ that sections of a stored config were composed from."""

import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from ganrun.config import CONF, load_yaml

SETS = ("penalty", "metric")  # groups of which several options can be chosen; their files have a section for each


def lookup(config: Any, key: str) -> Any:
    """The node of a nested config at a dotted key, None if there is none. `optimizer@g_optimizer` is at g_optimizer."""
    for name in key.rpartition("@")[2].split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def has(config: Any, key: str) -> bool:
    """Whether a nested config has the dotted key, also with the value null."""
    section, _, name = key.rpartition("@")[2].rpartition(".")
    node = lookup(config, section) if section else config
    return isinstance(node, dict) and name in node


def as_text(value: Any) -> str:
    """A setting as typed on the command line, also a list.

    >>> as_text([16, 0.5]), as_text(None), as_text("mlp")
    ('[16,0.5]', 'null', 'mlp')
    """
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def option_of(group: str, node: Any) -> str:
    """The option of a group that a section was composed from; the name of its class if that is not known."""
    if not isinstance(node, dict):
        return as_text(node)
    if group in SETS or not node:
        names = [name for name, child in node.items() if isinstance(child, dict)]
        return names[0] if len(names) == 1 else f"[{','.join(names)}]" if names else "none"
    found = candidates(group, node)
    equal = [name for number, name, _ in found if number == found[0][0]]
    return equal[0] if len(equal) == 1 else class_of(node)


def class_of(node: Mapping[str, Any]) -> str:
    target = node.get("_target_")
    if isinstance(target, str):
        return target.rpartition(".")[2]
    return next((class_of(child) for child in node.values() if isinstance(child, dict)), "?")


def nearest_option(
    group: str, node: Mapping[str, Any], ignored: Collection[str] = (), typed: str = ""
) -> tuple[str, dict[str, Any]]:
    """The option with the fewest settings that differ from the section, and these settings by key.

    ignored: keys such as optimizer.lr that may differ. typed: the option to prefer among equally near ones. The option
    is "" if none has the same classes and keys.
    """
    found = candidates(group, node, ignored)
    return min(found, key=lambda entry: (entry[0], entry[1] != typed))[1:] if found else ("", {})


def candidates(
    group: str, node: Mapping[str, Any], ignored: Collection[str] = ()
) -> list[tuple[int, str, dict[str, Any]]]:
    """The options with the same classes and keys, and their other settings: with the fewest first, then by length."""
    found = []
    wanted = leaves(group, node)
    for name, own in options(group, Path.cwd()).items():
        same_classes = all(own.get(key) == wanted.get(key) for key in own | wanted if key.endswith("_target_"))
        if same_classes and own.keys() == wanted.keys():
            changed = {k: v for k, v in wanted.items() if k not in ignored and own[k] != v and not dynamic(own[k])}
            found.append((len(changed), name, changed))
    return sorted(found, key=lambda entry: (entry[0], len(entry[1]), entry[1]))


def dynamic(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def leaves(key: str, node: Any) -> dict[str, Any]:
    """A section as a flat dictionary with dotted keys."""
    if not isinstance(node, dict):
        return {key: node}
    return {k: v for name, child in node.items() for k, v in leaves(f"{key}.{name}", child).items()}


@functools.cache
def options(group: str, here: Path) -> dict[str, dict[str, Any]]:
    """The settings of each option of a group, flat: ganrun's own, and those in the folder conf/ of `here`."""
    found: dict[str, dict[str, Any]] = {}
    for folder in (CONF / group, here / "conf" / group):
        for path in sorted(folder.rglob("*.yaml")):
            try:
                content = load_yaml(path.read_bytes())
            except (OSError, ValueError, yaml.YAMLError):
                continue
            if isinstance(content, dict):
                own = content.get(group, content)  # files for the package _global_ have a section for the group
                own = {key: value for key, value in own.items() if key != "defaults"} if isinstance(own, dict) else {}
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), leaves(group, own))
    return found
