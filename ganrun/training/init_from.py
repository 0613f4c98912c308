"""Initialization from the weights of another run, to fine-tune on other data or to grow its networks."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from ganrun.checks import as_typed, check_arguments
from ganrun.config import Config
from ganrun.network_protocols import AdaptsWeights
from ganrun.records.run_dir import RunDir
from ganrun.training.run import Run, data_changes

log = logging.getLogger("ganrun")

MAX_LISTED = 3  # misfits in one message


@dataclass(frozen=True)
class InitOptions:
    """The settings `init` of conf/train.yaml: what is loaded from the run `init_from`."""

    nets: Literal["both", "generator", "discriminator"] = "both"
    checkpoint: int | Literal["last", "best"] = "last"
    same_data: bool = False


def init_from(run: Run, config: Config) -> None:
    """Load the weights of the run config["init_from"], if any, into the new networks of `run`.

    G_ema gets the same weights as G. Raises ValueError for a missing run or checkpoint, and for weights whose names or
    shapes differ, which the message lists.
    """
    check_arguments("init", InitOptions, config["init"])
    source, options = config["init_from"], InitOptions(**config["init"])
    if source is None:
        check_unused(options)
        return
    state = read(source, options)
    if changes := data_changes(run, state):
        if options.same_data:
            raise ValueError(
                f"init_from={source}: was trained on other data, possibly on this run's test data: "
                f"{', '.join(changes)}. Use the same data, and the same data.fold, for both runs."
            )
        log.warning("init_from=%s: was trained on other data: %s.", source, ", ".join(changes))
    if options.nets != "discriminator":
        load_weights(source, "generator", run.G, state["G"])
    if options.nets != "generator":
        load_weights(source, "discriminator", run.D, state["D"])
    if run.G_ema is not None:
        run.G_ema.load_state_dict(run.G.state_dict())


def check_unused(options: InitOptions) -> None:
    for name, default in vars(InitOptions()).items():
        if (value := vars(options)[name]) != default:
            raise ValueError(f"init.{name}={as_typed(value)}: has no effect without init_from; add init_from=RUN_DIR.")


def read(source: str, options: InitOptions) -> dict[str, Any]:
    if not (run_dir := RunDir(Path(source))).is_run:
        raise ValueError(f"init_from={source}: no run there (it has no config.yaml).")
    try:
        return run_dir.load(options.checkpoint)
    except ValueError as error:
        raise ValueError(f"init_from={source}: {str(error).removeprefix(f'run_dir={run_dir.path}: ')}") from error


def load_weights(source: str, player: str, net: nn.Module, state: dict[str, Tensor]) -> None:
    """Load `state` into `net`, which may adapt weights of other shapes (`ganrun.protocols.AdaptsWeights`)."""
    misfits = find_misfits(net.state_dict(), state)
    if misfits and isinstance(net, AdaptsWeights):
        try:
            state = net.adapted(state)
        except ValueError as error:
            raise ValueError(f"init_from={source}: {error}") from error
        misfits = find_misfits(net.state_dict(), state)
    if misfits:
        more = f" and {len(misfits) - MAX_LISTED} more" if len(misfits) > MAX_LISTED else ""
        raise ValueError(
            f"init_from={source}: its {player} does not fit this one: {', '.join(misfits[:MAX_LISTED])}{more}. "
            "Choose the same arch and settings, or load only one network, as in init.nets=generator."
        )
    net.load_state_dict(state)


def find_misfits(own: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """The differences in names and shapes between two state_dicts, in words."""
    found = []
    for name in own.keys() | other.keys():
        if name not in other or name not in own:
            found.append(f"{name} is only {'here' if name in own else 'there'}")
        elif own[name].shape != other[name].shape:
            found.append(f"{name} is {tuple(other[name].shape)} there, {tuple(own[name].shape)} here")
    return sorted(found)
