"""Every penalty: gradients, precision, side effects, and invalid settings. New options of conf/penalty are included."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from helpers import GRADIENT_PENALTIES, SHAPES, Net, batches
from hydra.utils import get_object
from torch import Tensor
from torch.func import functional_call

from ganrun.config import CONF
from ganrun.penalty.base import lazy_rates
from ganrun.penalty.consistency import Consistency
from ganrun.penalty.gradient import R1, R2, GradientPenalty
from ganrun.penalty.lecam import LeCam
from ganrun.penalty.weights import Orthogonal, WeightClip
from ganrun.protocols import Penalty


def settings_of(name: str) -> dict[str, Any]:
    (settings,) = yaml.safe_load((CONF / "penalty" / f"{name}.yaml").read_text()).values()
    return dict(settings)


def option(name: str, **changes: Any) -> Penalty:
    """The penalty of conf/penalty/NAME.yaml."""
    settings = settings_of(name) | changes
    penalty: Penalty = get_object(settings.pop("_target_"))(**settings)
    return penalty


def term_of(penalty: Penalty, D: Callable[..., Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """The penalty's term as in a game, where logits are in float32."""
    term = penalty.term(D, real, fake, None)
    if term is None:
        with torch.autocast("cpu", enabled=False):
            logits = D(real.float()), D(fake.float())
        term = penalty.logits_term(*logits)
    assert term is not None
    return term


NAMES = [path.stem for path in sorted((CONF / "penalty").glob("*.yaml")) if path.stem != "none"]
ALL = [name for name in NAMES if option(name).has_term]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [*GRADIENT_PENALTIES, Consistency])
def test_gradients_agree_with_finite_differences(make: type[Penalty], shape: tuple[int, ...]) -> None:
    """With respect to D's parameters. Common bug: no create_graph, so the penalty is logged but has no effect."""
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
@pytest.mark.parametrize("name", ALL)
def test_term_is_not_affected_by_autocast(name: str, shape: tuple[int, ...]) -> None:
    """Common bug: a gradient norm in half precision, which has errors of percents and overflows."""
    real, fake = batches(shape, dtype=torch.float32)
    D = Net(shape)
    real, fake = real.bfloat16(), fake.bfloat16()
    torch.manual_seed(1)
    plain = term_of(option(name), D, real.float(), fake.float())
    with torch.autocast("cpu", torch.bfloat16):
        D(real)  # fills autocast's cache of bf16 weights
        torch.manual_seed(1)
        cast = term_of(option(name), D, real.float(), fake.float())
        from_bf16 = term_of(option(name), D, real, fake)
    assert cast.dtype == from_bf16.dtype == torch.float32
    assert torch.equal(cast, plain)
    in_double = option(name).term(D.double(), real.double(), fake.double(), None)
    assert in_double is None or in_double.dtype == torch.float64


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ALL)
def test_batch_of_one(name: str, shape: tuple[int, ...]) -> None:
    """Common bug: a standard deviation with n - 1 in the denominator, which is NaN for one sample."""
    D = Net(shape)
    term = term_of(option(name), D, *batches(shape, n=1, dtype=torch.float32))
    gradients = torch.autograd.grad(term, list(D.parameters()), allow_unused=True)
    assert term.isfinite()
    assert all(g.isfinite().all() for g in gradients if g is not None)


@pytest.mark.parametrize("name", ALL)
def test_terms_do_not_change_data_or_gradients(name: str) -> None:
    """Common bug: requires_grad_() on the batch itself, whose graph then grows through later steps."""
    real, fake = batches((3,), dtype=torch.float32)
    copies, D = (real.clone(), fake.clone()), Net((3,))
    term_of(option(name), D, real, fake).backward()
    assert torch.equal(real, copies[0])
    assert torch.equal(fake, copies[1])
    assert not real.requires_grad
    assert not fake.requires_grad
    assert real.grad is None


@pytest.mark.parametrize("make", [*GRADIENT_PENALTIES, Consistency])
def test_d_gets_labels(make: type[Penalty]) -> None:
    """Common bug: the penalty of a conditional D is computed without labels."""
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
    """Values of StyleGAN2: lr .002, betas (0, .99), every 16. Common bug: the learning rates are not rescaled."""
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
def test_invalid_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ALL)
def test_weight_zero_computes_nothing(name: str) -> None:
    def D(x: Tensor, y: Tensor | None) -> Tensor:
        raise AssertionError("D was called")

    x = torch.zeros(1, 2)
    penalty = option(name, **{key: 0 for key in settings_of(name) if key in ("weight", "fake_weight", "gamma")})
    assert penalty.term(D, x, x, None) is None
    assert not penalty.has_term
