"""The parts of a checkpoint: the states of networks, optimizers and other objects, loaded if they fit."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ganrun.checks import fits
from ganrun.records.shapes import require


def load_part(name: str, part: Any, state: Mapping[str, Any]) -> None:
    """Load one part of a checkpoint. Raises ValueError, with its step, if it does not fit."""
    try:
        if isinstance(part, Optimizer) and type(part).__module__.startswith("torch.optim."):
            check_optimizer(part, state[name])
        part.load_state_dict(state[name])
    except Exception as error:  # a component may raise any type for a state that it did not write
        lines = str(error).splitlines()  # torch's second line names the first mismatch
        reason = lines[:2][-1].strip().rstrip(".") if name in state and lines else "is missing"
        raise ValueError(
            f"the checkpoint of step {state['step']} does not fit the config of its run: {name}: {reason}."
        ) from error


def check_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Raise ValueError if the state lacks keys or has other shapes than that of a copy of `optimizer` after a step.

    torch itself compares only the number of parameters, so that a wrong state is an error in the next step. Only for
    torch's own optimizers: those of others may keep more than their state_dict, so that a copy is incomplete.
    """
    expected = state_after_a_step(optimizer)
    groups, others = expected["param_groups"], state["param_groups"]
    require(len(others) == len(groups), "param_groups has another length")
    for group, other in zip(groups, others, strict=True):
        for key, value in group.items():
            require(key in other and alike(value, other[key]), f"param_groups has another {key}")
        require(group["params"] == other["params"], "param_groups has other params")
    require(isinstance(state.get("state"), dict), "has no state")
    for number, values in state["state"].items():
        require(number in expected["state"] and isinstance(values, dict), f"state has another parameter {number}")
        for key, value in expected["state"][number].items():
            require(key in values and alike(value, values[key]), f"state of parameter {number} has another {key}")


def state_after_a_step(optimizer: Optimizer) -> dict[str, Any]:
    probe = copy.deepcopy(optimizer)
    for group in probe.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    probe.step()
    return probe.state_dict()


def alike(a: Any, b: Any) -> bool:
    """Whether two values have the same kind, and tensors also the same shape. None has the kind of any flag."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and a.is_floating_point() == b.is_floating_point()
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(alike, a, b))
    if a is None or isinstance(a, bool):
        return b is None or isinstance(b, bool)
    return fits(b, float) if fits(a, float) else True
