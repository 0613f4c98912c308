"""Shell completion of verbs and paths; Hydra completes the rest."""

import os
from collections.abc import Sequence
from pathlib import Path

from ganrun.cli.compose import config_dirs, root_keys, verbs
from ganrun.cli.flags import flags_first
from ganrun.cli.overrides import WORDS
from ganrun.cli.settings import path_keys
from ganrun.console import visible


def completed_verb(arguments: Sequence[str]) -> str:
    """The verb in the line that a shell completes, or train.

    The line is in the environment, from which Hydra reads it. Its verb is removed, and its flags are put first.
    """
    if "--shell-completion" not in arguments or "COMP_LINE" not in os.environ:
        return "train"
    program, *before, last = os.environ["COMP_LINE"].split(" ") if " " in os.environ["COMP_LINE"] else ["", ""]
    try:
        before = flags_first([word for word in before if word])
    except ValueError:  # an incomplete flag
        return "train"
    verb = next((word for word in before if word in verbs()), None)
    if verb:
        before.remove(verb)
    elif not any("=" in word for word in (*before, last) if not word.startswith("-")):
        print("".join(f"{name}{separator(arguments)}" for name in verbs() if name.startswith(last)), end="")
    os.environ["COMP_LINE"] = " ".join([program, *before, last])
    return verb or "train"


def completed_paths(arguments: Sequence[str], verb: str) -> str | None:
    """The completions of a path in the last word of the line, as in run_dir=out; None if it is something else.

    For a verb that takes paths as words, that is any word but a setting.

    Names with spaces are left out, since shells split the completions at them, and so are control characters.
    """
    if "--shell-completion" not in arguments or not any(a.startswith("query=") for a in arguments):
        return None
    word = os.environ.get("COMP_LINE", "").split(" ")[-1]
    key, equals, value = word.partition("=")
    is_word = verb in WORDS and not (equals and key in root_keys(verb))
    if is_word:
        key, equals, value = "", "", word
    elif not equals or key not in path_keys(config_dirs(arguments)):
        return None
    folder, slash, prefix = value.rpartition("/")
    parent = Path(os.path.expanduser(f"{folder}{slash}") or ".")
    entries = sorted(parent.iterdir()) if parent.is_dir() else []
    shown = [p for p in entries if p.name.startswith(prefix) and (prefix or not p.name.startswith("."))]
    found = [
        f"{key}{equals}{folder}{slash}{p.name}{'/' if p.is_dir() else ''}"
        for p in shown
        if "".join(visible(p.name).split()) == p.name
    ]
    return separator(arguments).join(found) if found or not is_word else None


def separator(arguments: Sequence[str]) -> str:
    return "\n" if "query=fish" in arguments else " "
