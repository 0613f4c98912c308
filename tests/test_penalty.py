"""Penalties against closed forms, two-sided, on vectors and images. Docstrings name the mistakes guarded against."""

import math
from pathlib import Path

import pytest
import torch
from conftest import run_of
from test_conf import write_folder
from torch import Tensor, nn

from ganrun.penalty import (
    R1,
    R2,
    Consistency,
    Dragan,
    GradientPenalty,
    LeCam,
    Orthogonal,
    Penalty,
    ZeroCentered,
    interpolate,
    translate,
)
from ganrun.steps import Game, scalars

SHAPES = [(3,), (2, 4, 4)]


class Linear(nn.Module):
    """D(x) = w . x, whose gradient is w everywhere."""

    def __init__(self, shape: tuple[int, ...], norm: float) -> None:
        super().__init__()
        w = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        self.w = nn.Parameter(w * norm / w.norm())

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (self.w * x).flatten(1).sum(1)


def batches(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return torch.randn(5, *shape), 3 + torch.randn(5, *shape)


CLOSED_FORMS = [
    (GradientPenalty(10.0), lambda n: 10 * (n - 1) ** 2),
    (GradientPenalty(10.0, target=0.5), lambda n: 10 * (n - 0.5) ** 2),
    (GradientPenalty(10.0, one_sided=True), lambda n: 10 * max(0, n - 1) ** 2),
    (ZeroCentered(3.0), lambda n: 3 * n**2),
    (R1(gamma=10.0), lambda n: 5 * n**2),
    (R2(gamma=4.0), lambda n: 2 * n**2),
    (Dragan(10.0), lambda n: 10 * (n - 1) ** 2),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(("penalty", "expected"), CLOSED_FORMS, ids=lambda p: type(p).__name__)
def test_linear_d(penalty: Penalty, expected, norm: float, shape: tuple[int, ...]) -> None:
    """The norm over one dimension of an image, gamma for gamma / 2, a mean of norms for a mean of squares."""
    value = penalty.term(Linear(shape, norm), *batches(shape), None)
    assert value.item() == pytest.approx(expected(norm), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("penalty", "expected"), CLOSED_FORMS, ids=lambda p: type(p).__name__)
def test_gradient_in_ds_weights(penalty: Penalty, expected) -> None:
    """A penalty without create_graph has a value, but no gradient: D is never told."""
    norm, h = 2.5, 1e-5
    D = Linear((3,), norm)
    (gradient,) = torch.autograd.grad(penalty.term(D, *batches((3,)), None), D.w)
    slope = (expected(norm + h) - expected(norm - h)) / (2 * h)
    torch.testing.assert_close(gradient, slope * D.w.detach() / norm, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("penalty", [p for p, _ in CLOSED_FORMS], ids=lambda p: type(p).__name__)
def test_a_flat_d_gives_finite_gradients(penalty: Penalty) -> None:
    """sqrt has an infinite slope at 0: NaN in every weight of a D that has just died."""
    D = Linear((3,), 1.0)
    nn.init.zeros_(D.w)
    value = penalty.term(D, *batches((3,)), None)
    (gradient,) = torch.autograd.grad(value, D.w)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_sample_has_its_own_place_on_the_line(shape: tuple[int, ...]) -> None:
    """One epsilon for the whole batch, or one for each pixel."""
    x = interpolate(torch.zeros(500, *shape), torch.ones(500, *shape)).flatten(1)
    assert (x == x[:, :1]).all()
    assert x[:, 0].unique().numel() > 490
    assert abs(x[:, 0].mean().item() - 0.5) < 0.06


def test_where_the_gradient_is_taken() -> None:
    """R1 on fakes, R2 on real samples, DRAGAN on the way to the fakes."""
    real, fake = torch.zeros(64, 2), torch.full((64, 2), 10.0)
    assert torch.equal(R1().where(real, fake), real)
    assert torch.equal(R2().where(real, fake), fake)
    between = GradientPenalty().where(real, fake)
    assert between.min() >= 0
    assert 5 < between.max() <= 10
    spread = torch.randn(2000, 2)
    moved = (Dragan().where(spread, fake) - spread) / spread.std(correction=0)
    assert moved.min() >= 0
    assert 0.4 < moved.max() <= 0.5


def test_autocast_does_not_reach_a_penalty() -> None:
    """In bf16 a gradient norm has two digits, and its second derivative none."""
    D = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1), nn.Flatten(0))
    call = type("D", (nn.Module,), {"forward": lambda self, x, y=None: D(x)})()
    real, fake = batches((3,))
    exact = R1().term(call, real, fake, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(R1().term(call, real, fake, None), exact)


@pytest.mark.parametrize("name", ["gradient_penalty", "zero_centered", "r1", "r2", "dragan"])
def test_batch_norm_in_d_is_refused_and_the_remedy_works(name: str, tmp_path: Path) -> None:
    """WGAN-GP with batch norm in the critic: the gradient at a sample then is one of the whole batch."""
    small = ["data=folder", f"data.root={tmp_path}", "data.size=16", "arch.discriminator.width=4", "train.batch_size=4"]
    write_folder(tmp_path)
    with pytest.raises(ValueError, match=rf"penalty={name}: D holds BatchNorm2d.*arch.discriminator.norm=none"):
        run_of(*small, f"penalty={name}")
    for norm in ("none", "layer"):
        run = run_of(*small, f"penalty={name}", f"arch.discriminator.norm={norm}")
        assert math.isfinite(scalars(*Game(run).step(0))[f"penalty/{name}"])


def test_lazy_penalties_come_every_k_updates_times_k_with_rescaled_rates() -> None:
    """The weight not multiplied, Adam's rates not rescaled, or the count begun anew at every epoch or resume."""
    run = run_of("penalty=r1", "penalty.r1.every=4", "optimizer=adam", "train.n_critic=3", "train.ema=0")
    c = 4 / 5
    assert run.d_optimizer.defaults["lr"] == pytest.approx(2e-4 * c)
    assert run.d_optimizer.defaults["betas"] == pytest.approx((0.5**c, 0.999**c))
    assert run.g_optimizer.defaults["betas"] == (0.5, 0.999)
    game = Game(run)
    taken = [batch for batch in range(9) if "r1" in game.d_update(batch).penalties]
    assert taken == [0, 4, 8]
    real, fake = torch.randn(4, 1) + 69, torch.randn(4, 1) + 69
    logits = run.D(real), run.D(fake)
    loss, terms, total = game._d_loss(4, real, fake, None, *logits)
    assert total.item() == pytest.approx(loss.item() + 4 * terms["r1"].item(), rel=1e-5)
    with pytest.raises(ValueError, match="every=0: must be at least 1"):
        R1(every=0)


def test_several_penalties_add_up() -> None:
    run = run_of("penalty=[r1,lecam,orthogonal]")
    assert list(run.penalties) == ["r1", "lecam", "orthogonal"]
    d, _ = Game(run).step(0)
    assert set(d.penalties) == {"r1", "lecam", "orthogonal"}


def test_lecam_by_hand_and_through_a_checkpoint() -> None:
    """Each logit is drawn to the mean of the OTHER kind; anchors that a resume forgets."""
    penalty = LeCam(weight=2.0, decay=0.75)
    penalty.logits_term(torch.tensor([1.0, 3.0]), torch.tensor([-1.0]))
    assert penalty.anchors.tolist() == [2.0, -1.0]
    copy = LeCam(weight=2.0, decay=0.75)
    copy.load_state_dict(penalty.state_dict())
    for one in (penalty, copy):
        value = one.logits_term(torch.tensor([6.0]), torch.tensor([3.0]))
        assert one.anchors.tolist() == [3.0, 0.0]  # 0.75 * 2 + 0.25 * 6, 0.75 * -1 + 0.25 * 3
        assert value.item() == pytest.approx(2 * ((6 - 0) ** 2 + (3 - 3) ** 2))
    run = run_of("penalty=lecam")
    Game(run).step(0)
    assert run.state_dict()["penalty/lecam"]["anchors"].isfinite().all()


def test_consistency() -> None:
    real, fake = torch.randn(6, 1, 8, 8), torch.randn(6, 1, 8, 8)
    brightness, corner = (lambda x, y: x.mean((1, 2, 3)) * 0 + 1), (lambda x, y: x[:, 0, 0, 0])
    assert Consistency().term(brightness, real, fake, None).item() == 0
    assert Consistency(shift=0).term(corner, real, fake, None).item() == 0
    assert Consistency(shift=2).term(corner, real, fake, None).item() > 0
    constant = torch.ones(6, 1, 8, 8)
    assert (
        Consistency(shift=0, weight=1.0, fake_weight=1.0, flip=True).term(corner, constant, constant, None).item() == 0
    )
    mirrored = Consistency(shift=0, flip=True).transform(real)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(mirrored, real, strict=True))
    vector = torch.randn(4000, 2)
    moved = Consistency(noise=0.1).transform(vector) - vector
    assert moved.std().item() == pytest.approx(0.1, rel=0.05)


def test_translation_moves_each_sample_by_itself() -> None:
    x = torch.arange(18.0).view(2, 1, 3, 3)
    moved = translate(x, torch.tensor([[0, 1], [-1, 0]]))
    assert moved[0, 0].tolist() == [[0, 0, 1], [0, 3, 4], [0, 6, 7]]
    assert moved[1, 0].tolist() == [[12, 13, 14], [15, 16, 17], [0, 0, 0]]


def test_orthogonal_by_hand() -> None:
    D = nn.Linear(2, 2)
    with torch.no_grad():
        D.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
    assert Orthogonal(1.0).term(D, torch.zeros(1, 2), torch.zeros(1, 2), None).item() == 0  # the diagonal is free
    with torch.no_grad():
        D.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert Orthogonal(0.5).term(D, torch.zeros(1, 2), torch.zeros(1, 2), None).item() == pytest.approx(0.5 * 2 * 11**2)


def dirac(steps: int, rate: float, gamma: float, simultaneous: bool) -> list[float]:
    """|(theta, psi)| by step, of the Dirac-GAN: D(x) = psi x, G = theta, data at 0, logistic. Mescheder et al. 2018."""
    theta = torch.tensor([[0.1]], dtype=torch.float64)
    D = Linear((1,), 1.0).double()
    nn.init.constant_(D.w, 0.0)
    found = []
    for _ in range(steps):
        x = theta.clone().requires_grad_()
        zero = torch.zeros(1, 1, dtype=torch.float64)
        loss = nn.functional.softplus(D(theta)).mean() + nn.functional.softplus(-D(zero)).mean()
        if gamma:
            loss = loss + R1(gamma).term(D, zero, theta, None)
        (d_gradient,) = torch.autograd.grad(loss, D.w)
        if not simultaneous:
            D.w.data -= rate * d_gradient
        (g_gradient,) = torch.autograd.grad(nn.functional.softplus(-D(x)).mean(), x)
        if simultaneous:
            D.w.data -= rate * d_gradient
        theta = theta - rate * g_gradient
        found.append(math.hypot(theta.item(), D.w.item()))
    return found


def test_the_dirac_gan_circles_without_and_converges_with_r1_at_the_rate_of_theory() -> None:
    """Linearized at 0: theta' = theta + h psi / 2, psi' = psi - h (theta / 2 + gamma psi).

    Eigenvalues 1 - h gamma / 2 +- h sqrt(gamma^2 - 1) / 2; at gamma = 0.5 their modulus squared is
    (1 - h gamma / 2)^2 + h^2 (1 - gamma^2) / 4. Without R1 it is 1 + h^2 / 4: simultaneous steps spiral out.
    """
    h = 0.1
    plain = dirac(500, h, 0.0, simultaneous=True)
    assert plain[-1] > plain[0]
    orbit = dirac(2000, h, 0.0, simultaneous=False)
    assert min(orbit) > 0.08
    assert max(orbit) < 0.12
    gamma = 0.5
    regularized = dirac(600, h, gamma, simultaneous=True)
    measured = math.log(regularized[-1] / regularized[99]) / 500
    theory = math.log((1 - h * gamma / 2) ** 2 + h**2 * (1 - gamma**2) / 4) / 2
    assert measured == pytest.approx(theory, rel=0.05)
