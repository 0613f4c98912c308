"""`ganrun --help` and `ganrun VERB --help`, made from what stands in conf/."""

import re
from collections.abc import Sequence

from ganrun.cli.search import CONF, config_dirs, groups_and_options, verbs

EXAMPLES = """\
  ganrun                                              # the heights GAN, in seconds
  ganrun data=mnist loss=wgan train.steps=5000        # another data set, another loss
  ganrun -m loss=minimax,nonsaturating 'seed=range(3)'  # a sweep: every combination"""


def help_text(verb: str, arguments: Sequence[str]) -> str:
    if verb != "train":
        text = (CONF / f"{verb}.yaml").read_text()
        title = text.partition("\n")[0].lstrip("# ")
        body = yaml_body(text)
        return f"{title}\n\n{body}"
    lines = ["ganrun [VERB] [key=value ...]", ""]
    for name in verbs():
        title = (CONF / f"{name}.yaml").read_text().partition("\n")[0].lstrip("# ")
        lines.append(f"  {name:12}{title}")
    lines += ["", "Groups, each chosen as group=option:"]
    for group, options in groups_and_options(config_dirs(arguments)).items():
        lines.append(f"  {group:12}{', '.join(options)}")
    lines += [
        "",
        "To copy:",
        EXAMPLES,
        "",
        "All settings: ganrun --cfg job. Of a verb: ganrun VERB --help. Hydra's own flags: ganrun --hydra-help.",
        'Shell completion: eval "$(ganrun -sc install=bash)". Errors in full: --traceback.',
    ]
    return "\n".join(lines)


def yaml_body(text: str) -> str:
    """The settings of a primary config with their comments, without Hydra's part."""
    sections = re.split(r"\n(?=\S)", text)
    kept = [s for s in sections if not s.startswith(("#", "defaults:", "hydra:"))]
    return "\n".join(section.rstrip() for section in kept)
