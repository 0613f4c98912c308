"""The files of format=safetensors: weights, and in the metadata what is needed to rebuild their network."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from ganrun import __version__
from ganrun.checks import fits
from ganrun.export.libraries import missing
from ganrun.export.source import Source
from ganrun.records.shapes import require

KINDS: dict[str, Any] = {"player": str, "z_dim": int, "spec": dict, "config": dict}
SECTIONS = ("arch", "condition", "latent")  # of the config, that determine a network


def serialized(source: Source) -> bytes:
    """The content of a file. The names of the weights are those of the network's state_dict."""
    from safetensors.torch import save

    state = source.net.state_dict()
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    return save(tensors, {"ganrun": json.dumps(description(source))})  # several keys have no fixed order


def description(source: Source) -> dict[str, Any]:
    """What determines the network."""
    kept = {key: source.config[key] for key in SECTIONS if source.config.get(key)}
    train = {"channels_last": source.config["train"]["channels_last"]}
    return {
        "ganrun": __version__,
        "player": source.player,
        "weights": source.weights,
        "step": source.step,
        "z_dim": source.latent.dim,
        "spec": asdict(source.spec),
        "config": {**kept, "train": train},
    }


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of the network, and its state_dict. Raises ValueError if the file cannot be read."""
    if library := missing(["safetensors"]):
        raise ValueError(f"{path}: needs {library}, which is not installed; `pip install 'ganrun[export]'`.")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        require("ganrun" in metadata, "it is not of `ganrun export`")
        return checked(json.loads(metadata["ganrun"])), weights
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file.") from None
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({str(error).rstrip('.')}).") from error


def checked(about: Any) -> dict[str, Any]:
    """A description that was read, if it has the right shape."""
    require(isinstance(about, dict), "its metadata are damaged")
    for key, kind in KINDS.items():
        require(isinstance(about.get(key), kind), f"its metadata have no {key}")
    require(about["player"] in ("generator", "discriminator"), "its metadata name neither player")
    config = about["config"]
    for section in ("arch", "train"):
        require(isinstance(config.get(section), dict), f"its config has no {section}")
    require(isinstance(config["arch"].get(about["player"]), dict), f"its config has no {about['player']}")
    require(fits(config["train"].get("channels_last"), bool | None), "train.channels_last is neither true nor false")
    return dict(about)
