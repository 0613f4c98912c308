"""`ganrun --help` and `ganrun VERB --help`, generated from conf/."""

import re
import textwrap
from collections.abc import Collection, Sequence

from ganrun.cli.compose import config_dirs, default_options, groups_and_options, primary_configs, verbs
from ganrun.cli.settings import title_of
from ganrun.config import CONF

EXAMPLES = """\
  ganrun                                              # the heights GAN, in seconds
  ganrun data=mnist loss=wgan train.steps=5000        # another data set, another loss
  ganrun -m loss=minimax,wgan 'seed=range(3)'         # a sweep: every combination"""
WIDTH = 110  # of the lists of options
EXAMPLE = "# Example:"  # before an example in the first comments of a primary config


def overview(arguments: Sequence[str]) -> str:
    """An overview of the verbs, groups and options."""
    lines = ["ganrun [VERB] [key=value ...]", ""]
    lines += [f"  {verb:12}{title_of(text_of(verb))}" for verb in verbs()]
    lines += ["", "Groups, selected with group=option:", *group_lines(arguments)]
    lines += [
        "",
        "Examples:",
        EXAMPLES,
        "",
        "All settings of a verb: ganrun VERB --help. The composed config of a job: ganrun --cfg job.",
        'Shell completion: eval "$(ganrun -sc install=bash)". Hydra\'s flags: --hydra-help. Tracebacks: --traceback.',
    ]
    return "\n".join(lines)


def help_text(verb: str, arguments: Sequence[str]) -> str:
    """The settings of one verb with their comments, the groups that it takes, and an example."""
    text = text_of(verb)
    parts = [title_of(text), settings_body(text)]
    if chosen := choices_body(text):
        parts.append(f"Groups, selected with group=option, and their default options:\n{chosen}")
    if len(configs := primary_configs(verb)) > 1:
        parts.append(f"It takes all settings and groups of `ganrun {configs[0]} --help`, too.")
    elif verb != "train" and (groups := default_options(verb)):  # `ganrun --help` lists those of training
        parts.append("\n".join(["Options:", *group_lines(arguments, groups)]))
    parts.append("\n".join(["Examples:", *examples_of(text)]))
    return "\n\n".join(parts)


def text_of(verb: str) -> str:
    return (CONF / f"{verb}.yaml").read_text()


def group_lines(arguments: Sequence[str], of: Collection[str] | None = None) -> list[str]:
    """The options of each group, or of each group in `of`."""
    groups = groups_and_options(config_dirs(arguments))
    indent = " " * 14
    return [
        textwrap.fill(f"  {group:12}{', '.join(options)}", WIDTH, subsequent_indent=indent, break_on_hyphens=False)
        for group, options in groups.items()
        if of is None or group in of
    ]


def examples_of(text: str) -> list[str]:
    return [f"  {line.removeprefix(EXAMPLE).strip()}" for line in text.splitlines() if line.startswith(EXAMPLE)]


def settings_body(text: str) -> str:
    """The settings of a primary config with their comments, without its first comments, its groups and Hydra's part."""
    sections = re.split(r"\n(?=\S)", text)
    kept = [s for s in sections if not s.startswith(("#", "defaults:", "hydra:"))]
    return "\n".join(section.rstrip() for section in kept)


def choices_body(text: str) -> str:
    """The groups in the defaults list, with their comments."""
    section = next((s for s in re.split(r"\n(?=\S)", text) if s.startswith("defaults:")), "")
    entries = [line.strip().removeprefix("- ") for line in section.splitlines()[1:]]
    return "\n".join(f"  {entry}" for entry in entries if ":" in entry and not entry.startswith("hydra:"))
