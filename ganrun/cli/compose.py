"""The composition of configs, and the folders that are searched for them."""

import logging
import os
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from ganrun.cli.launch import without_sweep
from ganrun.cli.settings import GLOBAL
from ganrun.config import CONF

log = logging.getLogger("ganrun")

# Hydra 1.3 needs it to act as version 1.3, and Hydra 1.4, which acts so anyway, warns of it.
VERSION_BASE: Any = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def verbs() -> list[str]:
    """One verb for each primary config. Without a verb, the command line uses `train`."""
    names = sorted(path.stem for path in CONF.glob("*.yaml"))
    return ["train", *(name for name in names if name != "train")]


def config_dirs(arguments: Sequence[str]) -> list[Path]:
    """The folders that are searched for options: ganrun's own conf/, --config-dir, and ./conf."""
    found = [CONF]
    for i, argument in enumerate(arguments):
        flag, equals, attached = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            found.append(Path(attached if equals else "".join(arguments[i + 1 : i + 2])).absolute())
    user = Path.cwd() / "conf"
    if user.is_dir() and user.resolve() != CONF.resolve():
        found.append(user)
    return found


def plugins() -> Plugins:
    """Hydra's plugins, which the first call imports. Warnings of their modules are for their authors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="hydra_plugins")
        return Plugins.instance()


class UserConf(SearchPathPlugin):
    """Adds the user's folders to Hydra's search path, after ganrun's own.

    primary: the folder and the name of the primary config, if --config-path or --config-name chooses another one.
    """

    folders: Sequence[Path] = ()
    primary: tuple[str, str] | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for path in self.folders:
            search_path.append("ganrun-user", f"file://{path}")


def add_user_folders(arguments: Sequence[str]) -> None:
    """Add the user's folders to Hydra's search path, and warn of options in them that ganrun's own options hide."""
    UserConf.folders = config_dirs(arguments)[1:]
    primary, config_name = (flag_value(arguments, flag) for flag in ("--config-path", "--config-name"))
    is_given = primary or config_name
    UserConf.primary = (primary or str(CONF), config_name or "train") if is_given else None
    plugins().register(UserConf)
    for folder in UserConf.folders:
        for file in folder.rglob("*.yaml"):
            name = file.relative_to(folder)
            if (CONF / name).exists() and (CONF / name).read_bytes() != file.read_bytes():
                log.warning("%s: ganrun has an option of that name, which is used; rename yours.", folder.name / name)


def groups_and_options(folders: Sequence[Path]) -> dict[str, list[str]]:
    """The options of each group in all folders: {"loss": ["minimax", ...]}. Options in a sub-folder are named a/b."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.rglob("*.yaml"):
            group, _, option = path.relative_to(folder).with_suffix("").as_posix().partition("/")
            if option and group != "hydra":
                found.setdefault(group, set()).add(option)
    return {group: sorted(options) for group, options in sorted(found.items())}


def flag_value(arguments: Sequence[str], flag: str) -> str:
    """The value of a flag, written as --flag=value; "" without the flag."""
    return next((a.partition("=")[2] for a in arguments if a.startswith(f"{flag}=")), "")


def compose(verb: str, overrides: Sequence[str], hydra_config: bool = False, own: bool = False) -> DictConfig:
    """Compose the config of a verb. Hydra's global state is restored, so this works within a job.

    hydra_config: whether to keep Hydra's own settings, in the section `hydra`. own: whether to start from ganrun's
    primary config even if --config-path or --config-name chooses another one.
    """
    plugins()
    folder, name = (None if own else UserConf.primary) or (str(CONF), verb)
    instance = GlobalHydra.instance()
    before = instance.hydra
    instance.clear()
    try:
        with hydra.initialize_config_dir(folder, **VERSION_BASE):
            return hydra.compose(name, list(overrides), return_hydra_config=hydra_config)
    finally:
        instance.hydra = before


def ignore_empty_variables() -> None:
    """Unset GANRUN_DATA if it is empty: an empty path would be the current folder."""
    if not os.environ.get("GANRUN_DATA"):
        os.environ.pop("GANRUN_DATA", None)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config of a job as dictionaries, without the settings of its sweep."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    return without_sweep(config)


@cache  # PyYAML takes 20 ms
def primary_config(verb: str) -> dict[str, Any]:
    """The content of conf/VERB.yaml, which must not be changed."""
    return yaml.safe_load((CONF / f"{verb}.yaml").read_text())  # type: ignore[no-any-return]


def default_options(verb: str) -> dict[str, str | None]:
    """The entries of a primary config's defaults list: for each key its option, as in {"loss": "nonsaturating"}."""
    configs = [primary_config(name) for name in primary_configs(verb)]
    entries = [entry for config in configs for entry in config["defaults"] if isinstance(entry, dict)]
    return {key: option for entry in entries for key, option in entry.items() if key != "hydra"}


def primary_configs(verb: str) -> list[str]:
    """The verb, after the verbs that its defaults list includes: that of search includes train."""
    included = [entry for entry in primary_config(verb)["defaults"] if isinstance(entry, str) and entry != "_self_"]
    return [*(name for entry in included for name in primary_configs(entry)), verb]


def root_keys(verb: str) -> set[str]:
    """The top-level settings and the config groups of a primary config."""
    groups = {key.rpartition("@")[2] for key in default_options(verb)}
    keys = {key for name in primary_configs(verb) for key in primary_config(name)}
    return (keys - {"defaults", "hydra"}) | groups


def nullable_keys(verb: str) -> set[str]:
    """The keys of groups without a default option, which a config may lack."""
    return {key.rpartition("@")[2] for key, option in default_options(verb).items() if option is None}


def recipe_groups(verb: str) -> set[str]:
    """The groups whose options only set keys of other groups, such as `experiment`."""
    groups = [key for key, option in default_options(verb).items() if option is None and "@" not in key]
    return {group for group in groups if all(_is_global(path) for path in (CONF / group).rglob("*.yaml"))}


def _is_global(path: Path) -> bool:
    return path.read_text().startswith(GLOBAL)
