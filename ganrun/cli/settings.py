"""The settings of a config file with their comments, which document conf/.

A comment that begins with `path:` declares that the value is a path, which needs no quotes on the command line.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not (found := SETTING.match(line)):
            continue
        indent = len(found["indent"])
        parents = [(i, name) for i, name in parents if i < indent]
        parents.append((indent, found["key"]))
        if parents[0][1] not in ("defaults", "hydra"):
            key = ".".join(name for name in (prefix, *(name for _, name in parents)) if name)
            yield Setting(key, found["value"] or "", found["comment"] or "")


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
