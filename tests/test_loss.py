"""Losses and penalties against closed forms, two-sided."""

import math

import pytest
import torch
from torch import Tensor, nn

from ganrun.loss import (
    FeatureMatching,
    HalfWeighted,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    RelativisticAverage,
    Wasserstein,
)
from ganrun.penalty import WeightClip

A, B = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([-0.5, 0.1, 4.0])

EVERY = [Minimax(), Minimax(0.9), NonSaturating(), HalfWeighted(), HalfWeighted(0.8), LeastSquares(), Hinge(),
         LeastSquares(-1, 1, 0), Wasserstein(), Relativistic(), RelativisticAverage(), FeatureMatching()]  # fmt: skip


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("loss", [Minimax(), NonSaturating()])
def test_d_descends_the_negative_value_of_the_game(loss: Minimax) -> None:
    value = mean([math.log(sigmoid(a)) for a in A.tolist()]) + mean([math.log(1 - sigmoid(b)) for b in B.tolist()])
    assert loss.d_loss(A, B).item() == pytest.approx(-value, abs=1e-6)


def test_g_losses() -> None:
    logs = [math.log(1 - sigmoid(b)) for b in B.tolist()]
    assert Minimax().g_loss(B).item() == pytest.approx(mean(logs), abs=1e-6)
    logs = [-math.log(sigmoid(b)) for b in B.tolist()]
    assert NonSaturating().g_loss(B).item() == pytest.approx(mean(logs), abs=1e-6)
    assert Wasserstein().g_loss(B).item() == pytest.approx(-1.2, abs=1e-6)
    assert Wasserstein().d_loss(A, B).item() == pytest.approx(1.2 - 1.1 / 3, abs=1e-6)


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_losses_and_gradients_are_finite_for_any_logit(loss, logit: float) -> None:
    """log(sigmoid(x)) is -inf from -104 on: losses have to be computed from the logits."""
    x = torch.full((3,), logit, requires_grad=True)
    for value in (loss.d_loss(x, -x), loss.g_loss(x, -x)):
        (gradient,) = torch.autograd.grad(value, x)
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_the_saturating_gradient_vanishes_and_the_other_does_not() -> None:
    x = torch.tensor([-30.0], requires_grad=True)  # D is sure that the sample is fake
    (saturating,) = torch.autograd.grad(Minimax().g_loss(x), x)
    (nonsaturating,) = torch.autograd.grad(NonSaturating().g_loss(x), x)
    assert saturating.item() == pytest.approx(0, abs=1e-9)
    assert nonsaturating.item() == pytest.approx(-1, abs=1e-9)


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: type(loss).__name__)
def test_gradients_agree_with_finite_differences(loss) -> None:
    real = torch.randn(5, dtype=torch.float64, requires_grad=True)
    fake = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss.d_loss, (real, fake))
    assert torch.autograd.gradcheck(loss.g_loss, (fake, real))


UNDECIDED = [
    (Minimax(), math.log(4), -math.log(2)),
    (NonSaturating(), math.log(4), math.log(2)),
    (HalfWeighted(), math.log(2), math.log(2)),
    (LeastSquares(), 0.5, 0.5),
    (Hinge(), 2.0, 0.0),
    (Wasserstein(), 0.0, 0.0),
    (Relativistic(), math.log(2), math.log(2)),
    (RelativisticAverage(), math.log(4), math.log(4)),
]


@pytest.mark.parametrize(("loss", "d", "g"), UNDECIDED)
def test_an_undecided_d(loss, d: float, g: float) -> None:
    zeros = torch.zeros(5)
    assert loss.d_loss(zeros, zeros).item() == pytest.approx(d, abs=1e-6)
    assert loss.g_loss(zeros, zeros).item() == pytest.approx(g, abs=1e-6)


def test_least_squares_by_hand() -> None:
    """Targets exchanged, or the halves forgotten."""
    loss = LeastSquares(a=-1.0, b=1.0, c=0.5)
    d = (mean([(x - 1) ** 2 for x in A.tolist()]) + mean([(x + 1) ** 2 for x in B.tolist()])) / 2
    assert loss.d_loss(A, B).item() == pytest.approx(d, abs=1e-5)
    assert loss.g_loss(B).item() == pytest.approx(mean([(x - 0.5) ** 2 for x in B.tolist()]) / 2, abs=1e-5)
    with pytest.raises(ValueError, match="must differ"):
        LeastSquares(a=1.0, b=1.0)


def test_hinge_by_hand() -> None:
    """relu(-1 + x) in place of relu(1 - x): a sign that public code has had wrong."""
    d = mean([max(0, 1 - x) for x in A.tolist()]) + mean([max(0, 1 + x) for x in B.tolist()])
    assert Hinge().d_loss(A, B).item() == pytest.approx(d, abs=1e-6)
    assert Hinge().d_loss(torch.tensor([1.5]), torch.tensor([-1.5])).item() == 0
    assert Hinge().g_loss(B).item() == pytest.approx(-1.2, abs=1e-6)


def test_relativistic_losses_by_hand() -> None:
    pairs = [-math.log(sigmoid(a - b)) for a, b in zip(A.tolist(), B.tolist(), strict=True)]
    assert Relativistic().d_loss(A, B).item() == pytest.approx(mean(pairs), abs=1e-6)
    back = [-math.log(sigmoid(b - a)) for a, b in zip(A.tolist(), B.tolist(), strict=True)]
    assert Relativistic().g_loss(B, A).item() == pytest.approx(mean(back), abs=1e-6)
    ma, mb = mean(A.tolist()), mean(B.tolist())
    d = mean([-math.log(sigmoid(a - mb)) for a in A.tolist()]) + mean([-math.log(sigmoid(ma - b)) for b in B.tolist()])
    g = mean([-math.log(sigmoid(b - ma)) for b in B.tolist()]) + mean([-math.log(sigmoid(mb - a)) for a in A.tolist()])
    assert RelativisticAverage().d_loss(A, B).item() == pytest.approx(d, abs=1e-6)
    assert RelativisticAverage().g_loss(B, A).item() == pytest.approx(g, abs=1e-6)


@pytest.mark.parametrize("loss", [Relativistic(), RelativisticAverage()])
def test_relativistic_losses_know_only_differences(loss) -> None:
    assert loss.g_needs_real
    torch.testing.assert_close(loss.d_loss(A + 7, B + 7), loss.d_loss(A, B))
    torch.testing.assert_close(loss.g_loss(B + 7, A + 7), loss.g_loss(B, A))


@pytest.mark.parametrize("kind", [Minimax, NonSaturating, HalfWeighted])
def test_labels_are_smoothed_on_one_side(kind) -> None:
    """Smoothing the fakes as well, to 0.1: D's optimum is then no longer monotonous in p_data / p_g."""
    scale = 0.5 if kind is HalfWeighted else 1.0
    x = torch.tensor([0.7], dtype=torch.float64)
    nothing = torch.full((1,), -1e4, dtype=torch.float64)
    t = 0.9
    expected = -t * math.log(sigmoid(0.7)) - (1 - t) * math.log(1 - sigmoid(0.7))
    assert kind(t).d_loss(x, nothing).item() == pytest.approx(scale * expected, abs=1e-9)
    optimum = torch.tensor([math.log(t / (1 - t))], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(kind(t).d_loss(optimum, nothing), optimum)
    assert gradient.item() == pytest.approx(0, abs=1e-9)
    fake = torch.tensor([0.7], requires_grad=True)
    (smooth,) = torch.autograd.grad(kind(t).d_loss(A, fake), fake)
    (plain,) = torch.autograd.grad(kind().d_loss(A, fake), fake)
    assert torch.equal(smooth, plain)
    with pytest.raises(ValueError, match="must lie in"):
        kind(0.0)


def test_feature_matching_by_hand_and_with_a_fixed_target() -> None:
    """Real features that are not detached: D's body is then trained to make them match."""
    fake = torch.tensor([[1.0, 0.0], [3.0, 0.0]], requires_grad=True)
    real = torch.tensor([[1.0, 1.0]], requires_grad=True)
    loss = FeatureMatching().g_feature_loss(fake, real)
    assert loss.item() == pytest.approx(1 + 1)
    loss.backward()
    assert fake.grad is not None
    assert real.grad is None
    maps = torch.randn(4, 2, 3, 3)
    assert FeatureMatching().g_feature_loss(maps, maps + 1).item() == pytest.approx(18, rel=1e-5)


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_feature_matching_trains_g_alone_in_its_step(update: str) -> None:
    from conftest import run_of

    from ganrun.steps import Game

    run = run_of("loss=feature_matching", f"train.update={update}", "train.batch_size=64")
    game = Game(run)
    before = [p.clone() for p in run.D.parameters()]
    first = game.step(0)[1].loss.item()
    if update == "alternating":
        game.g_update(1)
    assert not all(torch.equal(a, b) for a, b in zip(before, run.D.parameters(), strict=True))
    assert first >= 0


def test_clipping_bounds_weights_but_no_norm_layer() -> None:
    """Clipping batch norm's scales to 0.01 switches those layers off: CIFAR-10's FID goes from 43 to 107."""
    D = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    with torch.no_grad():
        for weight in D.parameters():
            weight.copy_(torch.linspace(-1, 1, weight.numel()).view_as(weight))
    before = [p.clone() for layer in D[1:4] for p in layer.parameters()]
    WeightClip(bound=0.01).project(D)
    for layer in (D[0], D[4]):
        for weight in layer.parameters():
            assert weight.abs().max() <= 0.01
    assert D[0].weight.max().item() == pytest.approx(0.01)
    assert all(torch.equal(a, b) for a, b in zip(before, [p for x in D[1:4] for p in x.parameters()], strict=True))


def test_clipping_follows_every_critic_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import run_of

    from ganrun.steps import Game

    run = run_of("loss=wgan", "train.n_critic=3", "optimizer.lr=0.1")
    largest: list[Tensor] = []
    forward = type(run.D).forward
    monkeypatch.setattr(
        type(run.D), "forward",
        lambda self, x, y=None: largest.append(max(p.abs().max() for p in self.parameters())) or forward(self, x),
    )  # fmt: skip
    game = Game(run)
    game.step(0)
    game.step(1)
    assert all(value <= 0.01 for value in largest[1:])
    assert len(largest) == 2 * (3 + 1)
