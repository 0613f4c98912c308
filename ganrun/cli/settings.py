"""The settings of a config file with their comments, which document conf/.

A comment that begins with `path:` declares that the value is a path, which needs no quotes on the command line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganrun.config import CONF

GLOBAL = "# @package _global_"
SETTING = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?: +(?P<value>[^#\s].*?))?(?: +# *(?P<comment>.*))?$")


@dataclass(frozen=True)
class Setting:
    """One setting, such as train.steps. default: as written in the file; empty for a section."""

    key: str
    default: str
    comment: str

    @property
    def is_path(self) -> bool:
        return self.comment.startswith("path:")


def settings_in(text: str, prefix: str = "") -> Iterator[Setting]:
    """The settings of a YAML text in block style, without `defaults` and `hydra`. prefix: put before their keys.

    >>> [s.key for s in settings_in("train:\\n  steps: 3  # how many")]
    ['train', 'train.steps']
    """
    for _, names, found in keyed_lines(text):
        if found and names[0] not in ("defaults", "hydra"):
            key = ".".join(name for name in (prefix, *names) if name)
            yield Setting(key, found["value"] or "", found["comment"] or "")


def keyed_lines(text: str) -> Iterator[tuple[str, list[str], re.Match[str] | None]]:
    """The lines of a YAML text, each with the names of its setting and of the sections around it, and its match."""
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        if found := SETTING.match(line):
            indent = len(found["indent"])
            parents = [*((i, name) for i, name in parents if i < indent), (indent, found["key"])]
        yield line, [name for _, name in parents], found


def comments_of(verbs: Sequence[str], choices: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, str]:
    """The comments on the settings of a composed config, by key.

    verbs: its primary configs. choices: the options of its groups, as in {"loss": "wgan", "optimizer@g_optimizer":
    None, "penalty": "*"}.
    """
    found = {s.key: s.comment for verb in verbs for s in settings_in((CONF / f"{verb}.yaml").read_text())}
    for choice, option in choices.items():
        group, _, package = choice.partition("@")
        for path in (path for folder in folders for path in (folder / group).glob(f"{option}.yaml")):
            text = path.read_text(errors="replace")
            prefix = "" if text.startswith(GLOBAL) else package or group
            found |= {s.key: s.comment for s in settings_in(text, prefix) if s.comment}
    return found


def with_comments(text: str, comments: Mapping[str, str]) -> str:
    """The YAML of a composed config, with comments at the ends of its lines.

    >>> with_comments("train:\\n  steps: 3\\n", {"train.steps": "how many"})
    'train:\\n  steps: 3  # how many\\n'
    """
    lines = [
        f"{line}  # {comments[key]}" if found and comments.get(key := ".".join(names)) else line
        for line, names, found in keyed_lines(text)
    ]
    return "".join(f"{line}\n" for line in lines)


def settings_of_option(folder: Path, path: Path) -> list[Setting]:
    """The settings of one file, with their keys in a composed config."""
    text = path.read_text(errors="replace")
    group = path.relative_to(folder).parts[0]
    prefix = "" if text.startswith(GLOBAL) or path.parent == folder else group
    return list(settings_in(text, prefix))


def path_keys(folders: Sequence[Path]) -> set[str]:
    """The keys of all settings that are declared as paths."""
    files = [(folder, path) for folder in folders for path in folder.rglob("*.yaml")]
    return {setting.key for folder, path in files for setting in settings_of_option(folder, path) if setting.is_path}


def title_of(text: str) -> str:
    """The title of a config file: its first comment."""
    return next(line for line in text.splitlines() if line != GLOBAL).lstrip("# ")
