"""Gradients and optimizer steps of small networks, without torch's overhead for its compiler and profiler.

Each shortcut is one function that uses a private part of torch, gives the same bits as the public call, and falls back
to it if torch has changed. `benchmarks/eager.py` measures what each one saves.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim import optimizer as torch_optimizer

Grads = tuple[Tensor | None, ...]
PLAIN = ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay")  # options of Adam, off


def skip_compiler_import() -> None:
    """Mark optimizer methods as disabled for torch's compiler: their first call would import it to do so."""
    for method in (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict):
        plain = inspect.unwrap(method)
        if plain is not method:
            plain.__dict__["__dynamo_disable"] = plain


def find_engine() -> Callable[..., Grads] | None:
    """The backward pass of torch's engine, or None if its signature or its result is not as expected."""
    x = torch.ones(2, requires_grad=True)
    try:
        run: Callable[..., Grads] = torch.autograd.Variable._execution_engine.run_backward
        loss, unused = (3 * x).sum(), torch.ones(1, requires_grad=True)
        grad, none = run((loss,), (torch.ones(()),), False, False, (x, unused), True, accumulate_grad=False)
    except (AttributeError, TypeError, RuntimeError):
        return None
    return run if none is None and grad is not None and grad.tolist() == [3, 3] else None


ENGINE = find_engine()


def gradients(loss: Tensor, params: Sequence[Tensor], keep_graph: bool = False) -> Grads:
    """The gradients of a scalar loss; None for parameters that it does not depend on. keep_graph: for another call.

    Each has the memory layout of its parameter, as `loss.backward()` guarantees: fused optimizers rely on it, and would
    exchange the elements of others. Second derivatives of convolutions in channels_last have another one.
    """
    if ENGINE is None or loss.ndim:
        found: Grads = torch.autograd.grad(loss, params, retain_graph=keep_graph, allow_unused=True)
    else:
        one = torch.ones_like(loss)
        found = ENGINE((loss,), (one,), keep_graph, False, tuple(params), True, accumulate_grad=False)
    return tuple(map(laid_out, found, params))


def laid_out(grad: Tensor | None, param: Tensor) -> Tensor | None:
    """The gradient with the memory layout of the parameter."""
    if grad is None or grad.stride() == param.stride():
        return grad
    return torch.empty_like(param).copy_(grad)


def optimizer_step(optimizer: Optimizer, params: Sequence[Tensor]) -> Callable[[Grads], None]:
    """A function that makes one optimizer step with given gradients of `params`, and resets their `.grad` to None."""
    unwrapped = unwrapped_step(optimizer)

    @torch.no_grad()
    def step(grads: Grads) -> None:
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        (optimizer.step if has_step_hooks(optimizer) else unwrapped)()
        for param in params:
            param.grad = None

    return FusedAdam(optimizer, params, step) if is_plain_fused_adam(optimizer, params) else step


def unwrapped_step(optimizer: Optimizer) -> Callable[[], Any]:
    """`optimizer.step` without its wrappers, which import the compiler, if it is torch's own; call it under no_grad."""
    kind = type(optimizer)
    if kind.__module__.startswith("torch.optim.") and "step" not in optimizer.__dict__:
        step: Callable[[], Any] = inspect.unwrap(kind.step).__get__(optimizer)
        return step
    return optimizer.step


def is_plain_fused_adam(optimizer: Optimizer, params: Sequence[Tensor]) -> bool:
    """Whether a step is a single call of torch's fused kernel."""
    if type(optimizer) is not Adam or len(optimizer.param_groups) != 1 or "_fused_adam_" not in dir(torch):
        return False
    (group,) = optimizer.param_groups
    same = len(group["params"]) == len(params) and all(a is b for a, b in zip(group["params"], params, strict=True))
    alike = len({(p.device, p.dtype) for p in params}) == 1
    usual = group["fused"] and not any(group.get(option) for option in PLAIN) and "step" not in optimizer.__dict__
    return bool(same and alike and usual and isinstance(group["lr"], float))


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether hooks before or after a step are registered, for this optimizer or globally; True if unknown."""
    try:
        own: Any = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
        of_all: Any = torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks
    except AttributeError:
        return True
    return any(own) or any(of_all)


class FusedAdam:
    """Calls the kernel of a fused Adam with lists that are built once.

    ordinary_step: a step of the optimizer itself, used at first, so that the optimizer's state exists, whenever a
    parameter has no gradient, and if hooks are registered.
    """

    def __init__(self, optimizer: Optimizer, params: Sequence[Tensor], ordinary_step: Callable[[Grads], None]) -> None:
        self.optimizer, self.params, self.ordinary_step = optimizer, list(params), ordinary_step
        self.state: list[list[Tensor]] = []
        self.count = torch.empty(0)
        optimizer.register_load_state_dict_post_hook(lambda _: self.state.clear())  # it replaces the tensors

    @torch.no_grad()
    def __call__(self, grads: Grads) -> None:
        present = [grad for grad in grads if grad is not None]
        if not self.state or len(present) < len(grads) or has_step_hooks(self.optimizer):
            self.ordinary_step(grads)
            self.state = self._find_state()
            return
        (group,) = self.optimizer.param_groups
        beta1, beta2 = group["betas"]
        means, squares, steps = self.state
        self.count.add_(1)  # `steps` are views of it
        torch._fused_adam_(
            self.params, present, means, squares, [], steps, lr=group["lr"], beta1=beta1, beta2=beta2,
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip

    def _find_state(self) -> list[list[Tensor]]:
        """The optimizer's state, or an empty list if a parameter has none yet because it never had a gradient.

        Its step counts, one for each parameter, become views of one tensor, `self.count`.
        """
        states = [self.optimizer.state.get(p, {}) for p in self.params]
        if not all(states):
            return []
        self.count = torch.stack([state["step"] for state in states])
        for state, step in zip(states, self.count, strict=True):
            state["step"] = step
        return [[state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step")]
