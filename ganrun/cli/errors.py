"""Error messages for the command line: one sentence that names the problem and the remedy."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganrun.checks import as_typed, cannot_change, did_you_mean
from ganrun.cli.compose import compose, config_dirs, groups_and_options, root_keys
from ganrun.cli.overrides import WORDS
from ganrun.cli.settings import GLOBAL
from ganrun.config import flat

USERS_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException, yaml.YAMLError)
PLUGINS = {
    "hydra/launcher": ("joblib", "submitit", "ray", "rq"),
    "hydra/sweeper": ("optuna", "ax", "nevergrad"),
}
EXTRAS = {"submitit": "ganrun[slurm]", "ray": "ganrun[ray]"}  # that install a plugin
EXAMPLES = {
    "train": "train.steps=1000",
    "data": "data.root=DIR",
    "arch": "arch.z_dim=64",
    "init": "init.nets=generator",
    "search": "search.trials=50",
}


def sentence(error: Exception, verb: str, arguments: Sequence[str]) -> str:
    """The error as a one-line message."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return no_such_option(error, arguments)
    if wrong := in_defaults_list(str(error), arguments):
        return wrong
    if found := re.search(r"Could not override '([^']+)'", str(error)):
        key = found[1]
        typed = next((a for a in arguments if a.lstrip("+~").startswith(key)), key)
        return unknown_key(verb, key, typed.partition("=")[2], arguments)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be parsed; settings are key=value{reason_of(error)}."
    if isinstance(error, HydraException) and (wrong := in_override(error, verb, arguments)):
        return wrong
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        return f"{mark.name}, line {mark.line + 1}: {error.problem}."
    if isinstance(error, OmegaConfBaseException):
        key = error.full_key or ""
        if "Missing mandatory value" in str(error):
            return f"{key}: must be given, as in `ganrun {verb} {'DIR' if key == WORDS.get(verb) else f'{key}=...'}`."
        return f"{key}: {str(error).splitlines()[0]}."
    if isinstance(error, UnicodeDecodeError) and (path := file_with(error.object, config_dirs(arguments))):
        return f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}."
    return " ".join(str(error).split("\n\n")[0].split()).encode(errors="replace").decode()


def reason_of(error: OverrideParseException) -> str:
    key, equals, value = str(error.override).partition("=")
    if not equals:
        return ""
    if key.isascii() and not value.isascii():
        return """, with other letters than those of ASCII in quotes, as in 'labels=["Köln"]'"""
    return f" ({str(error).splitlines()[0]})" if key.isascii() else ", with ASCII letters in the key"


def in_override(error: HydraException, verb: str, arguments: Sequence[str]) -> str | None:
    """The message for a setting that Hydra cannot apply, or None for another error."""
    message = str(error)
    if found := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(([^=]+)=(.*?))'", message):
        line, key, value = found.groups()
        a_list = f" A list is in brackets, as in {key}=[{value}]." if message.startswith("Ambiguous") else ""
        if verb == "resume":
            return f"{line}: must be one value, since resume continues a single run.{a_list}"
        command = shlex.join(["ganrun", *([verb] if verb != "train" else []), "-m", line])
        return f"{line}: is a sweep, which needs -m, as in `{command}`.{a_list}"
    if found := re.match(r"Could not delete from config\. '(\S+)' does not exist", message):
        return f"~{found[1]}: no such setting{did_you_mean(found[1], known_keys(verb, arguments))}"
    if found := re.match(r"Could not delete from config\. The value of '(\S+)' is (.*) and not (.*)\.$", message):
        return f"~{found[1]}={found[3]}: its value is {found[2]}; '~{found[1]}' removes any."
    if (found := re.match(r"Error merging override (.*)", message)) and error.__cause__:
        return f"{found[1]}: {str(error.__cause__).splitlines()[0].rstrip('.')}."
    return None


def no_such_option(error: MissingConfigException, arguments: Sequence[str]) -> str:
    """The message for a choice that no file has, with the file that makes it, if it was not typed."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    by_file = re.match(r"In '((?!hydra/)([^']+)/[^']+)'", str(error))
    where = f"conf/{by_file[1]}.yaml: " if by_file else ""
    if by_file and group.startswith(f"{by_file[2]}/"):
        group = group.removeprefix(f"{by_file[2]}/")
        return f"{where}groups in a defaults list begin with a slash, as in `override /{group}: {option}`."
    if not group and where:
        return f"{where}`{option}` in its defaults list is no config; choose an option, as in `override /loss: hinge`."
    if not group:
        return f"--config-name={option}: no such config."
    plugins = PLUGINS.get(group, ())
    if group.startswith("hydra/"):
        options = list(error.options or [])
    else:
        top, _, rest = f"{group}/{option}".partition("/")
        group, option = top, rest
        options = groups_and_options(config_dirs(arguments)).get(group, [])
    if plugin := next((name for name in plugins if option.partition("_")[0] == name), None):
        kind = group.rpartition("/")[2]
        package = f"'{EXTRAS[plugin]}'" if plugin in EXTRAS else f"hydra-{plugin}-{kind}"
        hint = f"; it is a plugin: `pip install {package}`."
    else:
        hint = did_you_mean(option, [*options, *plugins])
    known = f" {group} is one of {', '.join(options)}." if options else ""
    if not where and not any(argument.lstrip("+").startswith((f"{group}=", f"{group}@")) for argument in arguments):
        where = next((f"conf/{name}.yaml: " for name in choosing(group, option, arguments)), "")
    return f"{where}{group}={option}: no such option{hint}{known}"


def choosing(group: str, option: str, arguments: Sequence[str]) -> Iterator[str]:
    """The user's files that choose an option in their defaults lists, those that were typed first."""
    for name, path in users_files(arguments):
        defaults = defaults_of(path)
        for entry in defaults if isinstance(defaults, list) else []:
            for key, value in entry.items() if isinstance(entry, dict) else []:
                names = value if isinstance(value, list) else [value]
                if str(key).removeprefix("override ").lstrip("/").partition("@")[0] == group and option in names:
                    yield name


def users_files(arguments: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The files in the user's folders, by their names as in `loss/mine`, those that were typed first."""
    chosen = [argument.lstrip("+").replace("=", "/") for argument in arguments]
    for folder in config_dirs(arguments)[1:]:
        files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}
        yield from sorted(files.items(), key=lambda item: (item[0] not in chosen, item[0]))


def in_defaults_list(message: str, arguments: Sequence[str]) -> str | None:
    """The message for an error that a defaults list causes, with its file, or None."""
    overridden = r"In '([^']+)': (?:Could not override|Invalid [^\n]+\nNo earlier Group Default for) '([^'@]+)"
    if found := re.match(overridden, message):  # in the words of Hydra 1.3 and 1.4
        file, group = f"conf/{found[1]}.yaml", found[2].removeprefix(f"{found[1].rpartition('/')[0]}/")
        groups = groups_and_options(config_dirs(arguments))
        if not found[2].startswith(f"{found[1].rpartition('/')[0]}/") and group in groups:
            return f"{file}: has `override` in its defaults list, and must begin with `{GLOBAL}`."
        if group in groups or group.startswith("hydra/"):
            return f"{file}: groups in a defaults list begin with a slash, as in `override /{group}: OPTION`."
        return f"{file}: `override /{group}` in its defaults list: no such group{did_you_mean(group, groups)}"
    if found := re.match(r"Multiple values for (\S+)\. To override", message):
        group = found[1].rstrip(".")
        if typed := next((argument for argument in arguments if argument.startswith(f"+{group}=")), None):
            return f"{typed}: has a default option, which is replaced without a plus, by {typed[1:]}."
        return f"{group}: is chosen twice; a file that changes the choice needs `override /{group}: OPTION`."
    if "default" in message and "Could not" not in message:
        for name, path in users_files(arguments):
            if (entry := wrong_entry(path)) is not None:
                return (
                    f"conf/{name}.yaml: `{entry}` in its defaults list: must be a list of "
                    "`- override /GROUP: OPTION`, one choice per line."
                )
    return None


def wrong_entry(path: Path) -> Any:
    """The first entry of a file's defaults list that Hydra does not accept, or None."""
    defaults = defaults_of(path)
    if not isinstance(defaults, list):
        return defaults
    return next((entry for entry in defaults if not is_entry(entry)), None)


def defaults_of(path: Path) -> Any:
    """The defaults list of a file, which is not checked; empty if there is none, or none that can be read."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, ValueError):
        return []
    return content.get("defaults", []) if isinstance(content, dict) else []


def is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return isinstance(entry, str)
    options = next(iter(entry.values()), None)
    names = options if isinstance(options, list) else [options]
    return len(entry) == 1 and all(name is None or isinstance(name, str) for name in names)


def file_with(content: bytes, folders: Sequence[Path]) -> Path | None:
    """The first config file that contains these bytes, and is not UTF-8; None if there is none."""
    for path in (path for folder in folders for path in sorted(folder.rglob("*.yaml"))):
        data = path.read_bytes()
        if content in data and "\N{REPLACEMENT CHARACTER}" in data.decode(errors="replace"):
            return path
    return None


def is_a_section(key: str, value: Any) -> str:
    return f"{key}={as_typed(value)}: is a group of settings, as in {EXAMPLES[key]}."


def unknown_key(verb: str, key: str, value: Any, arguments: Sequence[str]) -> str:
    player, _, group = key.partition(".")[0].partition("_")
    if player in ("g", "d") and group in ("optimizer", "schedule"):
        return (
            f"{key}={value}: {player.upper()} shares the {group} with the other player; "
            f"give it one of its own, as in {group}@{player}_{group}=OPTION {key}={value}."
        )
    if key in EXAMPLES and key in root_keys(verb):
        return is_a_section(key, value)
    known = known_keys(verb, arguments)
    if verb == "resume" and is_fixed(key):
        return cannot_change(key, as_typed(value))
    if verb == "evaluate" and key.startswith("metric.") and not any(name.startswith("metric.") for name in known):
        return f"{key}={value}: no metric is chosen; choose one, as in metric=modes metric.modes.num=10000."
    if key.startswith("features.") and not any(name.startswith("features.") for name in known):
        return f"{key}={value}: no feature network is chosen; choose one, as in features=classifier {key}={value}."
    if (own := key.removeprefix(f"{verb}.")) != key and own in known:
        return f"{key}={value}: the settings of `ganrun {verb}` have no prefix; type {own}={value}."
    hint = did_you_mean(key, known)
    of_training = verb == "train" or (verb == "search" and not key.startswith("search."))
    lists = "ganrun --cfg job" if of_training else f"ganrun {verb} --help"
    lists = "ganrun --cfg hydra" if key.startswith("hydra") else lists
    return f"{key}={value}: no such setting{hint} `{lists}` lists them all."


def is_fixed(key: str) -> bool:
    """Whether `key` is a setting of a run, or a group, that cannot change when the run is resumed."""
    group = re.split(r"[.@/]", key)[0]
    return group in root_keys("train") and (group not in ("train", "data") or key in known_keys("train", []))


def known_keys(verb: str, arguments: Sequence[str]) -> list[str]:
    """All keys of the config with the options on the command line, or if these cannot be composed with the defaults."""
    groups = groups_and_options(config_dirs(arguments))
    chosen = [a for a in arguments if a.partition("=")[0].lstrip("+").partition("@")[0] in groups and "," not in a]
    for overrides in (chosen, []):
        try:
            cfg = compose(verb, overrides)
        except HydraException:
            continue
        keys = [key for key in flat(OmegaConf.to_container(cfg)) if "_target_" not in key]
        return [*keys, *sorted(root_keys(verb))]
    return sorted(root_keys(verb))
