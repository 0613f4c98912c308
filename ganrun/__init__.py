"""ganrun: a command-line experiment runner for generative adversarial networks.

The Python API has the functions that the command line uses, imported on first use:

    config = ganrun.compose("data=digits", "train.steps=500")   # as `ganrun data=digits train.steps=500`
    run = ganrun.train(config)                                  # trains, and returns the run
    run = ganrun.load("outputs/digits", checkpoint="best")      # any run, from its directory
    x = run.sample(64)                                          # samples (64, *shape)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganrun.cli.api import compose
    from ganrun.training.build import build
    from ganrun.training.load import LoadedRun, load
    from ganrun.training.network_file import load_network
    from ganrun.training.train import train_and_load as train
    from ganrun.trusted import trust

__version__ = "0.1.0"
__all__ = ["LoadedRun", "__version__", "build", "compose", "load", "load_network", "train", "trust"]

_EXPORTS = {
    "compose": ("ganrun.cli.api", "compose"),
    "build": ("ganrun.training.build", "build"),
    "train": ("ganrun.training.train", "train_and_load"),
    "load": ("ganrun.training.load", "load"),
    "load_network": ("ganrun.training.network_file", "load_network"),
    "trust": ("ganrun.trusted", "trust"),
    "LoadedRun": ("ganrun.training.load", "LoadedRun"),
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
