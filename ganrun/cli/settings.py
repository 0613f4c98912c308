"""The settings of a config file with their comments, which are the documentation of conf/.

A comment that begins with `path:` declares that the value is a path: it is then taken as it is typed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

GLOBAL = "# @package _global_"
SETTING = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?: +(?P<value>[^#\s].*?))?(?: +# *(?P<comment>.*))?$")


@dataclass(frozen=True)
class Setting:
    """One setting, as in train.steps. default: as it stands in the file, or nothing of a section."""

    key: str
    default: str
    comment: str

    @property
    def is_path(self) -> bool:
        return self.comment.startswith("path:")


def settings_in(text: str, prefix: str = "") -> Iterator[Setting]:
    """Those of a YAML text in block style, but for its defaults and Hydra's own part. prefix: of their keys.

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
    """Those of one file of a config group, with the keys that they have in a composed config."""
    text = path.read_text(errors="replace")
    group = path.relative_to(folder).parts[0]
    prefix = "" if text.startswith(GLOBAL) or path.parent == folder else group
    return list(settings_in(text, prefix))


def path_keys(folders: Sequence[Path]) -> set[str]:
    """The keys of all settings that are declared as paths."""
    files = [(folder, path) for folder in folders for path in folder.rglob("*.yaml")]
    return {setting.key for folder, path in files for setting in settings_of_option(folder, path) if setting.is_path}


def title_of(text: str) -> str:
    """What a config file says it is: its first comment."""
    return next(line for line in text.splitlines() if line != GLOBAL).lstrip("# ")
