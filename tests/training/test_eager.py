"""Shortcuts of gradients and optimizer steps: the same bits as torch's own."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ganrun.training import eager
from ganrun.training.eager import FusedAdam, mover

KINDS = {
    "fused": lambda params: Adam(params, lr=0.01, betas=(0.0, 0.9), fused=True, weight_decay=0.1),
    "plain": lambda params: Adam(params, lr=0.01),
    "amsgrad": lambda params: Adam(params, lr=0.01, fused=True, amsgrad=True),
    "adamw": lambda params: AdamW(params, lr=0.01, fused=True),
    "sgd": lambda params: SGD(params, lr=0.01, momentum=0.9),
}


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(()))]


def gradients(step: int) -> tuple[Tensor, ...]:
    source = torch.Generator().manual_seed(step)
    return tuple(torch.randn(p.shape, generator=source) for p in parameters())


def by_torch(optimizer: Optimizer, params: list[nn.Parameter], grads: tuple[Tensor | None, ...]) -> None:
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer.step()
    optimizer.zero_grad()


def same(ours: list[nn.Parameter], theirs: list[nn.Parameter]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_moves_are_those_of_torch_bit_for_bit(kind: str) -> None:
    """The rate changes at each step, a gradient is missing at one, and a checkpoint is loaded in between."""
    ours, theirs = parameters(), parameters()
    mine, reference = KINDS[kind](ours), KINDS[kind](theirs)
    move = mover(mine, ours)
    assert isinstance(move, FusedAdam) == (kind == "fused")
    for step in range(8):
        grads: tuple[Tensor | None, ...] = gradients(step)
        if step == 3:
            grads = (grads[0], None, grads[2])
        if step == 5:
            mine.load_state_dict(copy.deepcopy(reference.state_dict()))
        for optimizer in (mine, reference):
            optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
        move(grads)
        by_torch(reference, theirs, grads)
        assert same(ours, theirs), step
        assert all(param.grad is None for param in ours)
    for a, b in zip(mine.state.values(), reference.state.values(), strict=True):
        assert all(torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for key in b)


def test_a_parameter_without_any_gradient_stays_as_it_is() -> None:
    params = parameters()
    before = params[1].clone()
    move = mover(KINDS["fused"](params), params)
    for step in range(3):
        first, _, last = gradients(step)
        move((first, None, last))
    assert torch.equal(params[1], before)
    assert not torch.equal(params[0], parameters()[0])


def test_an_optimizer_of_two_groups_keeps_its_rates() -> None:
    params = parameters()
    groups = [{"params": params[:1], "lr": 0.0}, {"params": params[1:], "lr": 0.1}]
    move = mover(Adam(groups, fused=True), params)
    move(gradients(0))
    assert torch.equal(params[0], parameters()[0])
    assert not torch.equal(params[1], parameters()[1])


def loss_and_inputs() -> tuple[Tensor, list[Tensor]]:
    """The last input does not enter the loss."""
    torch.manual_seed(1)
    net, x, unused = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1)), torch.randn(5, 3), torch.randn(2)
    inputs = [*net.parameters(), x.requires_grad_(), unused.requires_grad_()]
    return net(x).mean(), inputs


@pytest.mark.parametrize("known", [True, False])
def test_gradients_are_those_of_torch_bit_for_bit(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both by the engine, and where torch has changed so that it is not called."""
    assert eager.ENGINE is not None
    if not known:
        monkeypatch.setattr(eager, "ENGINE", None)
    loss, inputs = loss_and_inputs()
    first = eager.gradients(loss, inputs, keep_graph=True)
    again = eager.gradients(loss, inputs)  # the last time: the graph is gone then
    expected = torch.autograd.grad(*loss_and_inputs(), allow_unused=True)
    assert first[-1] is again[-1] is expected[-1] is None
    assert all(x is None for x in [p.grad for p in inputs])
    for a, b, c in zip(first[:-1], again[:-1], expected[:-1], strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    with pytest.raises(RuntimeError, match="second time"):
        eager.gradients(loss, inputs)


def test_an_engine_that_is_called_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*arguments: object) -> None:  # it takes no accumulate_grad
        raise AssertionError(arguments)

    class Variable:
        _execution_engine = type("Engine", (), {"run_backward": staticmethod(changed)})

    assert eager.engine() is not None
    monkeypatch.setattr(torch.autograd, "Variable", Variable)
    assert eager.engine() is None
