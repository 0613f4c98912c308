"""Gradients and optimizer steps without what torch adds for its compiler and its profiler, which ganrun does not use.

Measured on two cores: 1.1 s at each start (loading torch._dynamo), 45 of the 60 us of a small Adam step, and 28 of the
38 us that the smallest gradient takes. These shortcuts go only through `__wrapped__`, and to the kernel and the engine
that torch's own calls go to, with the same numbers, and fall back to the ordinary path where torch has changed.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

Grads = tuple[Tensor | None, ...]
PLAIN = ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay")  # switches of Adam, all off


def spare_compiler() -> None:
    """Mark optimizer methods as done with, which on their first call would load the compiler to be kept from it."""
    for method in (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dict__["__dynamo_disable"] = plain


def engine() -> Callable[..., Grads] | None:
    """The backward pass of torch's engine, or None where it is not called as it was, or finds something else."""
    x = torch.ones(2, requires_grad=True)
    try:
        run: Callable[..., Grads] = torch.autograd.Variable._execution_engine.run_backward
        loss, unused = (3 * x).sum(), torch.ones(1, requires_grad=True)
        grad, none = run((loss,), (torch.ones(()),), False, False, (x, unused), True, accumulate_grad=False)
    except (AttributeError, TypeError, RuntimeError):
        return None
    return run if none is None and grad is not None and grad.tolist() == [3, 3] else None


ENGINE = engine()


def gradients(loss: Tensor, params: Sequence[Tensor], keep_graph: bool = False) -> Grads:
    """d loss / d params of a scalar; None where the loss does not depend on one. `keep_graph`: for another call."""
    if ENGINE is None:
        return torch.autograd.grad(loss, params, retain_graph=keep_graph, allow_unused=True)
    one = torch.ones_like(loss)
    found: Grads = ENGINE((loss,), (one,), keep_graph, False, tuple(params), True, accumulate_grad=False)
    return found


def mover(optimizer: Optimizer, params: Sequence[Tensor]) -> Callable[[Grads], None]:
    """One step of the optimizer with gradients of `params`, which are not left behind."""
    step = bare_step(optimizer)

    @torch.no_grad()
    def move(grads: Grads) -> None:
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        step()
        for param in params:
            param.grad = None

    return FusedAdam(optimizer, params, move) if is_plain_fused_adam(optimizer, params) else move


def bare_step(optimizer: Optimizer) -> Callable[[], Any]:
    """`optimizer.step`, to be called under no_grad. Only torch's own is unwrapped: others may rely on a wrapper."""
    kind = type(optimizer)
    if kind.__module__.startswith("torch.optim."):
        return inspect.unwrap(kind.step).__get__(optimizer)
    return optimizer.step


def is_plain_fused_adam(optimizer: Optimizer, params: Sequence[Tensor]) -> bool:
    """Whether a step is one call of torch's kernel, and nothing else."""
    if type(optimizer) is not Adam or len(optimizer.param_groups) != 1 or not hasattr(torch, "_fused_adam_"):
        return False
    (group,) = optimizer.param_groups
    same = len(group["params"]) == len(params) and all(a is b for a, b in zip(group["params"], params, strict=True))
    alike = len({(p.device, p.dtype) for p in params}) == 1
    usual = group["fused"] and not any(group.get(switch) for switch in PLAIN)
    return bool(same and alike and usual and isinstance(group["lr"], float))


class FusedAdam:
    """Calls the kernel of a fused Adam with lists that are made once; gradients are handed over, and stored nowhere.

    ordinary: a step of the optimizer itself, which is taken first, so that its state is there, and whenever a
    parameter has no gradient.
    """

    def __init__(self, optimizer: Optimizer, params: Sequence[Tensor], ordinary: Callable[[Grads], None]) -> None:
        self.optimizer, self.params, self.ordinary = optimizer, list(params), ordinary
        self.state: list[list[Tensor]] = []
        self.count = torch.empty(0)
        optimizer.register_load_state_dict_post_hook(lambda _: self.state.clear())  # it brings tensors of its own

    @torch.no_grad()
    def __call__(self, grads: Grads) -> None:
        given = [grad for grad in grads if grad is not None]
        if not self.state or len(given) < len(grads):
            self.ordinary(grads)
            self.state = self._found()
            return
        (group,) = self.optimizer.param_groups
        beta1, beta2 = group["betas"]
        means, squares, steps = self.state
        self.count.add_(1)  # and with it all of `steps`
        torch._fused_adam_(
            self.params, given, means, squares, [], steps, lr=group["lr"], beta1=beta1, beta2=beta2,
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip

    def _found(self) -> list[list[Tensor]]:
        """The optimizer's state, or nothing where a parameter has none yet, since it never had a gradient.

        Its steps, a number for each parameter, become views of one tensor, `self.count`.
        """
        states = [self.optimizer.state.get(p, {}) for p in self.params]
        if not all(states):
            return []
        self.count = torch.stack([state["step"] for state in states])
        for state, step in zip(states, self.count, strict=True):
            state["step"] = step
        return [[state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step")]
