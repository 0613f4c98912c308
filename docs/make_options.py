"""Writes docs/options.md: every setting and every option of conf/, with what stands beside it there. `make docs`."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ganrun.cli.compose import default_options, groups_and_options, verbs
from ganrun.cli.help import examples_of, text_of
from ganrun.cli.settings import Setting, settings_in, settings_of_option, title_of
from ganrun.config import CONF, flat

MANY = 4  # options that are not named one by one
WIDTH = 118  # of a line of prose
OUT = Path(__file__).with_name("options.md")

HEAD = """\
# Every setting, and every option

Written by `make docs` from the files of `conf/`, so change those. `ganrun VERB --help` prints the same settings. A
setting is typed as `key=value`, an option as `group=option`. A choice on the command line beats what another option
chooses, and what an experiment chooses beats what `data` and `loss` choose.
"""


def page() -> str:
    parts = [HEAD, "## Verbs"]
    parts += [part for verb in verbs() for part in verb_section(verb)]
    parts.append("## Groups")
    options = groups_and_options([CONF])
    parts += [part for group in options for part in group_section(group, options[group])]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def verb_section(verb: str) -> Iterator[str]:
    text = text_of(verb)
    yield f"### ganrun {verb}"
    yield f"{title_of(text)}"
    yield "```\n" + "\n".join(line.strip() for line in examples_of(text)) + "\n```"
    yield settings_table((setting, "") for setting in settings_in(text))
    if groups := default_options(verb):
        chosen = [f"`{key}={'null' if option is None else option}`" for key, option in groups.items()]
        yield "\n".join(textwrap.wrap(f"Groups, with the options by default: {', '.join(chosen)}.", WIDTH))


def group_section(group: str, options: Iterable[str]) -> Iterator[str]:
    yield f"### {group}"
    rows = ["| option | | also chooses |", "|---|---|---|"]
    found: dict[tuple[str, str, str], list[str]] = {}
    for option in options:
        path = CONF / group / f"{option}.yaml"
        rows.append(f"| `{option}` | {cell(title_of(path.read_text()))} | {', '.join(choices(group, path))} |")
        for setting in settings_of_option(CONF, path):
            if setting.comment:
                found.setdefault((setting.key, setting.default, setting.comment), []).append(option)
    yield "\n".join(rows)
    settings = [(Setting(*key), options_cell(names)) for key, names in found.items()]
    if settings and group != "experiment":
        yield settings_table(settings)


def choices(group: str, path: Path) -> Iterator[str]:
    """What an option chooses beside its own settings: options of other groups, and settings of the job."""
    content: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            yield f"all of `{group}={entry.partition('@')[0].removeprefix(f'/{group}/')}`"
        for key, option in entry.items() if isinstance(entry, dict) else ():
            chosen = f"[{','.join(option)}]" if isinstance(option, list) else option
            yield f"`{key.removeprefix('override /').removeprefix('/')}={chosen}`"
    for section in ("train", "init_from", "init"):
        for key, value in flat(content.get(section, {}), section).items() if section in content else ():
            yield f"`{key}={value}`"


def settings_table(settings: Iterable[tuple[Setting, str]]) -> str:
    kept = [(setting, options) for setting, options in settings if setting.default or setting.comment]
    apart = any(options for _, options in kept)
    rows = [f"| setting | by default | {'of | ' if apart else ''}|", f"|---|---|{'---|' if apart else ''}---|"]
    for setting, options in kept:
        default = "required" if setting.default == "???" else f"`{setting.default}`" if setting.default else ""
        middle = f"{options} | " if apart else ""
        rows.append(f"| `{setting.key}` | {cell(default)} | {middle}{cell(setting.comment)} |")
    return "\n".join(rows)


def options_cell(names: Sequence[str]) -> str:
    return "most" if len(names) > MANY else ", ".join(f"`{name}`" for name in names)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    OUT.write_text(page())
