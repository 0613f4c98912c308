"""The face: verbs, Hydra, the user's own conf/, and the wording of errors. Torch is not loaded here."""

import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganrun import __version__
from ganrun.checks import did_you_mean
from ganrun.names import flat, slug
from ganrun.options import TrainOptions
from ganrun.progress import logging_to_console

log = logging.getLogger("ganrun")

CONF = next(p for p in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf") if p.is_dir())

USAGE_ERROR, ERROR = 2, 1  # exit codes

EXAMPLES = """\
  ganrun                                              # the heights GAN, in seconds
  ganrun data=mnist loss=wgan train.steps=5000        # another data set, another loss
  ganrun -m loss=minimax,nonsaturating 'seed=range(3)'  # a sweep: every combination"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and return its exit code: 2 for one that cannot work, else what the command says."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--traceback" in arguments
    arguments = [a for a in arguments if a != "--traceback"]
    with logging_to_console():
        try:
            verb, arguments = split_verb(arguments)
            if "--version" in arguments:
                print(f"ganrun {__version__}")
                return 0
            if {"--help", "-h"} & set(arguments):
                print(help_text(verb))
                return 0
            return CommandLine(verb, arguments, show_traceback).run()
        except KeyboardInterrupt:
            log.error("interrupted.")
            return 130
        except (ValueError, HydraException, OmegaConfBaseException) as error:
            if show_traceback:
                traceback.print_exc()
            log.error(sentence(error, verb, arguments))
            return USAGE_ERROR


def verbs() -> list[str]:
    """One for each primary config; `train` is meant where none is typed."""
    names = sorted(path.stem for path in CONF.glob("*.yaml"))
    return ["train", *(name for name in names if name != "train")]


def split_verb(arguments: list[str]) -> tuple[str, list[str]]:
    if not arguments or "=" in arguments[0] or arguments[0][0] in "-+~":
        return "train", arguments
    if arguments[0] not in verbs():
        hint = did_you_mean(arguments[0], verbs())
        raise ValueError(f"{arguments[0]}: no such command{hint} (ganrun --help lists them; settings are key=value).")
    return arguments[0], arguments[1:]


class CommandLine:
    """One verb with its overrides and Hydra's own flags."""

    def __init__(self, verb: str, arguments: list[str], show_traceback: bool) -> None:
        self.verb, self.show_traceback = verb, show_traceback
        self.multirun = bool({"-m", "--multirun"} & set(arguments))
        self.arguments = sweep_dir_arguments(arguments) if self.multirun else arguments
        self.overrides = parse([a for a in self.arguments if is_override(a)])
        self.swept = [o.key_or_group for o in self.overrides if o.is_sweep_override()]
        self.codes: list[int] = []
        self.problems: list[str] = []

    def run(self) -> int:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to `main`
        sys.path.append(os.getcwd())
        Plugins.instance().register(UserConf)
        report_clashes()
        if self.multirun:
            self.check_sweep()
        complete(self.arguments)
        sys.argv = ["ganrun", *self.arguments]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=self.verb)(self.job)()
        if self.multirun and self.codes:
            log.info("sweep: %d of %d jobs succeeded", self.codes.count(0), len(self.codes))
            for problem in self.problems:
                log.error("  %s", problem)
        return next((code for code in self.codes if code), 0)

    def job(self, cfg: DictConfig) -> None:
        """What Hydra calls for each job. An error ends the job, not the sweep; an interrupt ends both."""
        choices, name = HydraConfig.get().runtime.choices, ""
        code = ERROR
        try:
            config = plain(cfg)
            validate(self.verb, config)
            if self.multirun:
                name = self.job_name()
                log.info("job %d: %s", len(self.codes), name)
                config["run_dir"] = str(Path(HydraConfig.get().sweep.dir) / slug(name))
            command = importlib.import_module(f"ganrun.commands.{self.verb}")
            title = "_".join(str(choices[group]) for group in ("data", "loss") if choices.get(group))
            code = command.main(config, title)
            problem = f"ended with exit code {code}"
        except (ValueError, OmegaConfBaseException) as error:
            if self.show_traceback:
                traceback.print_exc()
            problem, code = sentence(error, self.verb, self.arguments), USAGE_ERROR
            log.error(problem)
        except Exception as error:
            traceback.print_exc()
            problem = f"{type(error).__name__}: {error}"
        self.codes.append(code)
        if code:
            self.problems.append(f"{name}: {problem}")
        if code in (130, 143):
            sys.exit(code)

    def job_name(self) -> str:
        """The swept settings of this job, `loss=wgan,seed=3`."""
        overrides = parse(list(HydraConfig.get().overrides.task))
        return ",".join(o.input_line for o in overrides if o.key_or_group in self.swept) or "job"

    def check_sweep(self) -> None:
        """Compose every choice of every sweep once, the others at their first, so that a slip is found at once."""
        first = {o.input_line: next(single_choices(o)) for o in self.overrides}
        for override in self.overrides:
            for choice in single_choices(override):
                line = {**first, override.input_line: choice}.values()
                validate(self.verb, plain(compose(self.verb, list(line), config_dirs(self.arguments))))
                if not override.is_sweep_override():
                    break


def is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def single_choices(override: Override) -> Iterator[str]:
    """The overrides that a sweep stands for: loss=a,b gives loss=a and loss=b."""
    if not override.is_sweep_override() or override.is_hydra_override():
        yield override.input_line or ""
        return
    key = f"{'+' if override.is_add() else ''}{override.get_key_element()}".replace("++", "+")
    for value in override.sweep_string_iterator():
        yield f"{key}={value}"


def sweep_dir_arguments(arguments: list[str]) -> list[str]:
    """In a sweep, run_dir=DIR names the directory of all its runs."""
    return [re.sub(r"^run_dir=", "hydra.sweep.dir=", a) for a in arguments]


def config_dirs(arguments: Sequence[str]) -> list[Path]:
    """Where options are looked for: ganrun's own conf/, --config-dir, and ./conf."""
    found = [CONF]
    for i, argument in enumerate(arguments):
        flag, equals, attached = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            found.append(Path(attached if equals else "".join(arguments[i + 1 : i + 2])).absolute())
    user = Path.cwd() / "conf"
    if user.is_dir() and user.resolve() != CONF.resolve():
        found.append(user)
    return found


class UserConf(SearchPathPlugin):
    """Adds ./conf to the search path, after ganrun's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for path in config_dirs([])[1:]:
            search_path.append("ganrun-user", f"file://{path}")


def report_clashes() -> None:
    for path in config_dirs([])[1:]:
        for file in path.rglob("*.yaml"):
            name = file.relative_to(path)
            if (CONF / name).exists():
                log.warning("%s: ganrun has an option of that name, which is used; rename yours.", Path("conf", name))


def complete(arguments: Sequence[str]) -> None:
    """Prepare Hydra's shell completion, which reads the line being typed from the environment."""
    if not {"-sc", "--shell-completion"} & set(arguments) or "COMP_LINE" not in os.environ:
        return
    words = os.environ["COMP_LINE"].split(" ")
    if len(words) == 2:
        print(" ".join(verb for verb in verbs() if verb.startswith(words[1])), end=" ")


def compose(verb: str, overrides: list[str], folders: Sequence[Path]) -> DictConfig:
    GlobalHydra.instance().clear()
    extra = ",".join(f"file://{path}" for path in folders[1:])
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(verb, [*overrides, f"hydra.searchpath=[{extra}]"])


def plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def validate(verb: str, config: dict[str, Any]) -> None:
    """Raise ValueError for a key that nothing reads, or a setting of the loop that is out of range."""
    known = root_keys(verb)
    for key, value in config.items():
        if key not in known:
            raise ValueError(unknown_key(verb, key, value, []))
    if verb == "train":
        if not isinstance(config["train"], dict):
            raise ValueError(f"train={config['train']}: is a group of settings, as in train.steps=1000.")
        TrainOptions.of(config["train"])


def root_keys(verb: str) -> set[str]:
    """The settings and the config groups of a primary config."""
    text = yaml.safe_load((CONF / f"{verb}.yaml").read_text())
    groups = [key for entry in text["defaults"] if isinstance(entry, dict) for key in entry if " " not in key]
    return {key for key in text if key not in ("defaults", "hydra")} | {key.rpartition("@")[2] for key in groups}


def sentence(error: Exception, verb: str, arguments: Sequence[str]) -> str:
    """The error in one line that says what to type."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = [o for o in error.options or [] if o]
        hint = did_you_mean(option, options)
        known = f" ({group} is one of {', '.join(options)})" if options else ""
        return f"{group}={option}: no such option{hint}{known}."
    if found := re.search(r"Could not override '([^']+)'", str(error)):
        key = found[1]
        typed = next((a for a in arguments if a.lstrip("+~").startswith(key)), key)
        return unknown_key(verb, key, typed.partition("=")[2], arguments)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be understood; settings are key=value ({str(error).splitlines()[0]})."
    if isinstance(error, OmegaConfBaseException):
        key = error.full_key or ""
        if "Missing mandatory value" in str(error):
            return f"{key}: has to be given, as in `ganrun {verb} {key}=...`."
        return f"{key}: {str(error).splitlines()[0]}."
    return " ".join(str(error).split("\n\n")[0].split("\n"))


def unknown_key(verb: str, key: str, value: Any, arguments: Sequence[str]) -> str:
    known = known_keys(verb, arguments)
    shown = f"{key}={value}" if not isinstance(value, dict) else f"{key}.{next(iter(value), '')}"
    return f"{shown}: no such setting{did_you_mean(shown.partition('=')[0], known)} (ganrun --cfg job lists them all)."


def known_keys(verb: str, arguments: Sequence[str]) -> list[str]:
    """Every key of the config that the choices on the command line make, as far as they can be made."""
    groups = groups_and_options(config_dirs(arguments))
    chosen = [a for a in arguments if a.partition("=")[0].lstrip("+").partition("@")[0] in groups and "," not in a]
    for overrides in (chosen, []):
        try:
            cfg = compose(verb, overrides, config_dirs(arguments))
        except HydraException:
            continue
        keys = [key for key in flat(OmegaConf.to_container(cfg)) if "_target_" not in key]
        return [*keys, *sorted(root_keys(verb))]
    return sorted(root_keys(verb))


def groups_and_options(folders: Sequence[Path]) -> dict[str, list[str]]:
    """{"loss": ["minimax", ...]}, of all folders together."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.glob("*/*.yaml"):
            found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}


def help_text(verb: str) -> str:
    if verb != "train":
        text = (CONF / f"{verb}.yaml").read_text()
        title = text.partition("\n")[0].lstrip("# ")
        body = yaml_body(text)
        return f"{title}\n\n{body}"
    lines = ["ganrun [VERB] [key=value ...]", ""]
    for name in verbs():
        title = (CONF / f"{name}.yaml").read_text().partition("\n")[0].lstrip("# ")
        lines.append(f"  {name:10}{title}")
    lines += ["", "Groups, each chosen as group=option:"]
    for group, options in groups_and_options(config_dirs([])).items():
        lines.append(f"  {group:10}{', '.join(options)}")
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


if __name__ == "__main__":
    sys.exit(main())
