"""What holds for every penalty: its gradients, its precision, what it leaves alone, and the settings it refuses."""

import math
from collections.abc import Callable

import pytest
import torch
from helpers import GRADIENT_PENALTIES, SHAPES, Net, batches
from torch import Tensor
from torch.func import functional_call

from ganrun.penalty.base import lazy_rates
from ganrun.penalty.consistency import Consistency
from ganrun.penalty.gradient import R1, R2, GradientPenalty
from ganrun.penalty.lecam import LeCam
from ganrun.penalty.weights import Orthogonal, WeightClip
from ganrun.protocols import Penalty

ALL = [*GRADIENT_PENALTIES, Consistency, Orthogonal]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [*GRADIENT_PENALTIES, Consistency])
def test_gradients_agree_with_finite_differences(make: type[Penalty], shape: tuple[int, ...]) -> None:
    """With respect to D's parameters. Public mistake: no create_graph, so the penalty is logged but trains nothing."""
    real, fake = batches(shape)
    net = Net(shape).double()
    names = [name for name, _ in net.named_parameters()]
    penalty = make(fake_weight=3.0, flip=True) if make is Consistency else make()

    def term(*values: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same interpolates each time
        D = lambda x, y: functional_call(net, dict(zip(names, values, strict=True)), (x, y))  # noqa: E731
        return penalty.term(D, real, fake, None)

    assert torch.autograd.gradcheck(term, tuple(p.detach().requires_grad_() for p in net.parameters()))
    gradients = torch.autograd.grad(term(*net.parameters()), list(net.parameters()), allow_unused=True)
    assert gradients[0].abs().max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", ALL)
def test_autocast_does_not_reach_the_term(make: type[Penalty], shape: tuple[int, ...]) -> None:
    """Public mistake: a gradient norm in half precision, which is off by percents and overflows."""
    real, fake = batches(shape, dtype=torch.float32)
    D, penalty = Net(shape), make()
    real, fake = real.bfloat16(), fake.bfloat16()
    torch.manual_seed(1)
    plain = penalty.term(D, real.float(), fake.float(), None)
    with torch.autocast("cpu", torch.bfloat16):
        D(real)  # fills autocast's cache of bf16 weights
        torch.manual_seed(1)
        cast = penalty.term(D, real.float(), fake.float(), None)
        from_bf16 = penalty.term(D, real, fake, None)
    assert cast.dtype == from_bf16.dtype == torch.float32
    assert torch.equal(cast, plain)
    assert penalty.term(D.double(), real.double(), fake.double(), None).dtype == torch.float64


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", ALL)
def test_batch_of_one(make: type[Penalty], shape: tuple[int, ...]) -> None:
    """Public mistake: the deviation of one sample with n - 1 below the line is NaN."""
    D = Net(shape)
    term = make().term(D, *batches(shape, n=1, dtype=torch.float32), None)
    gradients = torch.autograd.grad(term, list(D.parameters()), allow_unused=True)
    assert term.isfinite()
    assert all(g.isfinite().all() for g in gradients if g is not None)


@pytest.mark.parametrize("make", ALL)
def test_terms_leave_data_and_gradients_alone(make: type[Penalty]) -> None:
    """Public mistake: requires_grad_() on the batch itself, which then grows a graph through later steps."""
    real, fake = batches((3,), dtype=torch.float32)
    copies, D = (real.clone(), fake.clone()), Net((3,))
    make().term(D, real, fake, None).backward()
    assert torch.equal(real, copies[0])
    assert torch.equal(fake, copies[1])
    assert not real.requires_grad
    assert not fake.requires_grad
    assert real.grad is None


@pytest.mark.parametrize("make", [*GRADIENT_PENALTIES, Consistency])
def test_labels_reach_d(make: type[Penalty]) -> None:
    """Public mistake: a conditional D is penalized without its labels."""
    real, fake = batches((3,))
    labels = torch.arange(5)
    given = []

    def D(x: Tensor, y: Tensor | None) -> Tensor:
        given.append(y)
        return x.sum(1) * y

    make().term(D, real, fake, labels)
    assert given
    assert all(y is labels for y in given)


def test_lazy_rates() -> None:
    """StyleGAN2's own numbers: lr .002, betas (0, .99), every 16. Public mistake: the rates are left as they are."""
    lr, betas = lazy_rates(0.002, (0.0, 0.99), 16)
    assert lr == pytest.approx(0.002 * 16 / 17)
    assert betas == pytest.approx((0.0, 0.99 ** (16 / 17)))
    assert lazy_rates(0.1, None, 4) == (pytest.approx(0.08), None)
    assert lazy_rates(0.1, (0.5, 0.9), 1) == (0.1, (0.5, 0.9))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lazy_rates(0.1, None, 0), "every=0: must be at least 1"),
        (lambda: R1(every=0), "every=0: must be at least 1"),
        (lambda: GradientPenalty(every=-2), "every=-2: must be at least 1"),
        (lambda: Orthogonal(weight=-1), "weight=-1: must be at least 0"),
        (lambda: R2(gamma=-1), "gamma=-1: must be at least 0"),
        (lambda: GradientPenalty(weight=math.nan), "weight=nan: must be at least 0"),
        (lambda: Consistency(translation=-1), "translation=-1: must be at least 0"),
        (lambda: LeCam(decay=1), "decay=1: must lie in"),
        (lambda: WeightClip(bound=0), "bound=0: must be greater than 0"),
    ],
)
def test_settings_that_cannot_work(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", ALL)
def test_weight_zero_computes_nothing(make: type[Penalty]) -> None:
    def D(x: Tensor, y: Tensor | None) -> Tensor:
        raise AssertionError("D was called")

    x = torch.zeros(1, 2)
    penalty = make(gamma=0) if make in (R1, R2) else make(weight=0)
    assert penalty.term(D, x, x, None) is None
    assert not penalty.has_term
    assert make().has_term
