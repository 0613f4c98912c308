"""Shortcuts for gradients and optimizer steps: the same bits as torch's public calls, and the same hooks."""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import same
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ganrun.training import eager
from ganrun.training.eager import FusedAdam, Grads, optimizer_step

KINDS = {
    "fused": lambda params: Adam(params, lr=0.01, betas=(0.0, 0.9), fused=True, weight_decay=0.1),
    "plain": lambda params: Adam(params, lr=0.01),
    "amsgrad": lambda params: Adam(params, lr=0.01, fused=True, amsgrad=True),
    "adamw": lambda params: AdamW(params, lr=0.01, fused=True),
    "sgd": lambda params: SGD(params, lr=0.01, momentum=0.9),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(()))]


def gradients(step: int) -> tuple[Tensor, ...]:
    source = torch.Generator().manual_seed(step)
    return tuple(torch.randn(p.shape, generator=source) for p in parameters())


def step_by_torch(optimizer: Optimizer, params: list[nn.Parameter], grads: Grads) -> None:
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.slow
@each_kind
def test_steps_equal_those_of_torch_bit_for_bit(kind: str) -> None:
    """The learning rate changes at each step, a gradient is missing at one, and a checkpoint is loaded in between."""
    ours, theirs = parameters(), parameters()
    mine, reference = KINDS[kind](ours), KINDS[kind](theirs)
    step_of = optimizer_step(mine, ours)
    assert isinstance(step_of, FusedAdam) == (kind == "fused")
    for step in range(8):
        grads: Grads = gradients(step)
        if step == 3:
            grads = (grads[0], None, grads[2])
        if step == 5:
            mine.load_state_dict(copy.deepcopy(reference.state_dict()))
        for optimizer in (mine, reference):
            optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
        step_of(grads)
        step_by_torch(reference, theirs, grads)
        assert same(ours, theirs), step
        assert all(param.grad is None for param in ours)
    for a, b in zip(mine.state.values(), reference.state.values(), strict=True):
        assert all(torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for key in b)


class Hooks:
    """A hook that halves the gradients before a step, and one that clips the weights after it, as in WGAN.

    calls: "pre" and "post" for this optimizer, in the order of the calls.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.calls = optimizer, list[str]()

    def pre(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if optimizer is self.optimizer:  # global hooks are called for all optimizers
            self.calls.append("pre")
            for param in self._params():
                param.grad = None if param.grad is None else param.grad / 2

    def post(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if optimizer is self.optimizer:
            self.calls.append("post")
            with torch.no_grad():
                for param in self._params():
                    param.clamp_(-0.5, 0.5)

    def _params(self) -> Iterator[Tensor]:
        return chain.from_iterable(group["params"] for group in self.optimizer.param_groups)

    @contextmanager
    def registered(self, everywhere: bool) -> Iterator[None]:
        """Register both during the body. everywhere: as global hooks of torch instead of hooks of the optimizer."""
        if everywhere:
            handles = [register_optimizer_step_pre_hook(self.pre), register_optimizer_step_post_hook(self.post)]
        else:
            handles = [
                self.optimizer.register_step_pre_hook(self.pre),
                self.optimizer.register_step_post_hook(self.post),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@each_kind
@pytest.mark.parametrize("everywhere", [False, True], ids=["its own", "global"])
@pytest.mark.parametrize("first", [0, 3], ids=["before the first step", "later"])
def test_optimizer_hooks_are_called_as_by_torch(kind: str, everywhere: bool, first: int) -> None:
    """Hooks are registered before step `first`, and removed three steps later. A gradient is missing at one step."""
    ours, theirs = parameters(), parameters()
    mine, reference = KINDS[kind](ours), KINDS[kind](theirs)
    my_hooks, reference_hooks = Hooks(mine), Hooks(reference)
    step_of = optimizer_step(mine, ours)

    def steps(numbers: range) -> None:
        for step in numbers:
            grads: Grads = gradients(step)
            if step == first + 1:
                grads = (grads[0], None, grads[2])
            step_of(grads)
            step_by_torch(reference, theirs, grads)
            assert same(ours, theirs), step
            assert all(param.grad is None for param in ours)

    steps(range(first))
    assert my_hooks.calls == []
    with my_hooks.registered(everywhere), reference_hooks.registered(everywhere):
        steps(range(first, first + 3))
    assert my_hooks.calls == reference_hooks.calls == ["pre", "post"] * 3
    assert max(param.abs().max() for param in ours) <= 0.5
    steps(range(first + 3, first + 6))
    assert my_hooks.calls == ["pre", "post"] * 3


def test_gradients_have_the_memory_layout_of_their_parameters() -> None:
    """Fused optimizers exchange the elements of others. The second derivatives of a convolution have another layout."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 1, 6)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    params = list(net.parameters())

    def penalty() -> Tensor:
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        return slope.square().sum()

    as_computed = torch.autograd.grad(penalty(), params, allow_unused=True)
    assert as_computed[0] is not None
    assert as_computed[0].stride() != params[0].stride()  # or this test could not fail
    found = eager.gradients(penalty(), params)
    for param, grad, expected in zip(params, found, as_computed, strict=True):
        assert (grad is None) == (expected is None)
        if grad is not None and expected is not None:
            assert grad.stride() == param.stride()
            assert torch.equal(grad, expected)


@pytest.mark.parametrize("point", ["pre", "post"])
@pytest.mark.parametrize("everywhere", [False, True], ids=["its own", "global"])
def test_single_hook_is_called(point: str, everywhere: bool) -> None:
    params = parameters()
    optimizer = KINDS["fused"](params)
    step_of, hooks = optimizer_step(optimizer, params), Hooks(optimizer)
    registers: dict[tuple[str, bool], Callable[..., Any]] = {
        ("pre", False): optimizer.register_step_pre_hook,
        ("post", False): optimizer.register_step_post_hook,
        ("pre", True): register_optimizer_step_pre_hook,
        ("post", True): register_optimizer_step_post_hook,
    }
    for step in range(2):
        step_of(gradients(step))
    handle = registers[point, everywhere](getattr(hooks, point))
    try:
        step_of(gradients(2))
    finally:
        handle.remove()
    step_of(gradients(3))
    assert hooks.calls == [point]


def test_parameter_without_gradients_is_unchanged() -> None:
    params = parameters()
    before = params[1].clone()
    step_of = optimizer_step(KINDS["fused"](params), params)
    for step in range(3):
        first, _, last = gradients(step)
        step_of((first, None, last))
    assert torch.equal(params[1], before)
    assert not torch.equal(params[0], parameters()[0])


def test_optimizer_with_two_groups_keeps_its_learning_rates() -> None:
    params = parameters()
    groups = [{"params": params[:1], "lr": 0.0}, {"params": params[1:], "lr": 0.1}]
    optimizer_step(Adam(groups, fused=True), params)(gradients(0))
    assert torch.equal(params[0], parameters()[0])
    assert not torch.equal(params[1], parameters()[1])


def loss_and_inputs() -> tuple[Tensor, list[Tensor]]:
    """The loss does not depend on the last input."""
    torch.manual_seed(1)
    net, x, unused = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1)), torch.randn(5, 3), torch.randn(2)
    inputs = [*net.parameters(), x.requires_grad_(), unused.requires_grad_()]
    return net(x).mean(), inputs


@pytest.mark.parametrize("known", [True, False])
def test_gradients_equal_those_of_torch_bit_for_bit(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the engine, and without it, as if torch had changed."""
    assert eager.ENGINE is not None
    if not known:
        monkeypatch.setattr(eager, "ENGINE", None)
    loss, inputs = loss_and_inputs()
    first = eager.gradients(loss, inputs, keep_graph=True)
    again = eager.gradients(loss, inputs)  # the last call, which frees the graph
    expected = torch.autograd.grad(*loss_and_inputs(), allow_unused=True)
    assert first[-1] is again[-1] is expected[-1] is None
    assert all(x is None for x in [p.grad for p in inputs])
    for a, b, c in zip(first[:-1], again[:-1], expected[:-1], strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    with pytest.raises(RuntimeError, match="second time"):
        eager.gradients(loss, inputs)


def test_engine_with_another_signature_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*arguments: object) -> None:  # has no parameter accumulate_grad
        raise AssertionError(arguments)

    class Variable:
        _execution_engine = type("Engine", (), {"run_backward": staticmethod(changed)})

    assert eager.find_engine() is not None
    monkeypatch.setattr(torch.autograd, "Variable", Variable)
    assert eager.find_engine() is None


@pytest.mark.slow
def test_run_does_not_import_torchs_compiler(tmp_path: Path) -> None:
    """The import would add a second or more to the start-up time."""
    code = """
import sys
from ganrun.cli.main import main
for optimizer in ("adam", "sgd", "rmsprop"):
    settings = ["experiment=heights", f"optimizer={optimizer}", "train.steps=4", "train.checkpoint_every=2",
                "train.sample_every=0"]
    assert main([*settings, f"run_dir={optimizer}"]) == 0
    assert "torch._dynamo" not in sys.modules, optimizer
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
