"""Optimizer steps without what torch adds for its compiler and its profiler, neither of which ganrun uses.

Measured on two cores: 1.1 s at each start (loading torch._dynamo), and 30 of the 60 us of a small Adam step.
Both shortcuts go only through `__wrapped__`, and fall back to the ordinary path where torch has changed.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


def spare_compiler() -> None:
    """Mark optimizer methods as done with, which on their first call would load the compiler to be kept from it."""
    for method in (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dict__["__dynamo_disable"] = plain


def bare_step(optimizer: Optimizer) -> Callable[[], Any]:
    """`optimizer.step`, to be called under no_grad. Only torch's own is unwrapped: others may rely on a wrapper."""
    kind = type(optimizer)
    if kind.__module__.startswith("torch.optim."):
        return inspect.unwrap(kind.step).__get__(optimizer)
    return optimizer.step
