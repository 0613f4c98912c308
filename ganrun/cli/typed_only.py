"""Settings that must be typed: a config file may come from someone else."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ganrun.checks import fits
from ganrun.cli.compose import (
    compose,
)
from ganrun.cli.overrides import (
    parse,
)
from ganrun.config import Config


def typed_trust(config: Config) -> list[str]:
    """Remove `trust` from the config, and return its modules. Raises ValueError if a config file has set it."""
    modules = config.pop("trust", [])
    if not modules:
        return []
    modules = [modules] if isinstance(modules, str) else modules
    if not fits(modules, list[str]):
        raise ValueError(f"trust={modules}: must be a list of modules, as in trust=[my_package.losses].")
    if "trust" not in {override.key_or_group for override in parse(list(HydraConfig.get().overrides.task))}:
        raise ValueError(f"trust={modules}: must be typed on the command line; a config file cannot trust modules.")
    return list(modules)


def check_tracker_is_typed(verb: str, config: Config) -> None:
    """Raise ValueError if a config file, which may come from someone else, chose a tracker or changed its settings."""
    if not (chosen := config.get("tracker")):
        return
    task = parse(list(HydraConfig.get().overrides.task))
    typed = [str(o.input_line) for o in task if o.key_or_group.partition(".")[0] == "tracker"]
    if OmegaConf.to_container(compose(verb, typed, own=True).tracker, resolve=True) != chosen:
        names = ",".join(map(str, chosen))
        raise ValueError(
            f"tracker=[{names}]: must be typed on the command line, with all its settings; a config file cannot choose "
            "where values are sent."
        )
