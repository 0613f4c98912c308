"""Losses, against closed forms."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import config_of, run_of
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
from ganrun.training.game import Game
from ganrun.training.updates import scalars

A, B = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([-0.5, 0.1, 4.0])  # real and fake logits

LOSSES: dict[str, Any] = {
    "minimax": Minimax(),
    "nonsaturating": NonSaturating(),
    "half_weighted": HalfWeighted(),
    "smoothed minimax": Minimax(real_label=0.9),
    "smoothed nonsaturating": NonSaturating(real_label=0.9),
    "smoothed half_weighted": HalfWeighted(real_label=0.9),
    "least squares": LeastSquares(),
    "chi-square": LeastSquares(a=-1, b=1, c=0),
    "wasserstein": Wasserstein(),
    "hinge": Hinge(),
    "rpgan": Relativistic(),
    "ragan": RelativisticAverage(),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
SMOOTHED = [Minimax, NonSaturating, HalfWeighted, FeatureMatching]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def gradient(loss: Callable[..., Tensor], *logits: float) -> list[float]:
    """The gradient of the loss with respect to each of its arguments, for one sample."""
    at = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in logits]
    return [grad.item() for grad in torch.autograd.grad(loss(*at), at)]


@pytest.mark.parametrize("loss", [Minimax(), NonSaturating(), FeatureMatching()])
def test_d_loss_is_the_negative_value_of_the_game(loss: Any) -> None:
    value = mean([math.log(sigmoid(a)) for a in A.tolist()]) + mean([math.log(1 - sigmoid(b)) for b in B.tolist()])
    assert loss.d_loss(A, B).item() == pytest.approx(-value, abs=1e-6)
    assert HalfWeighted().d_loss(A, B).item() == pytest.approx(-value / 2, abs=1e-6)


def test_g_losses() -> None:
    logs = [math.log(1 - sigmoid(b)) for b in B.tolist()]
    assert Minimax().g_loss(B).item() == pytest.approx(mean(logs), abs=1e-6)
    logs = [-math.log(sigmoid(b)) for b in B.tolist()]
    assert NonSaturating().g_loss(B).item() == pytest.approx(mean(logs), abs=1e-6)
    assert HalfWeighted().g_loss(B).item() == pytest.approx(mean(logs), abs=1e-6)  # only D's loss is halved
    assert Wasserstein().g_loss(B).item() == pytest.approx(-1.2, abs=1e-6)
    assert Wasserstein().d_loss(A, B).item() == pytest.approx(1.2 - 1.1 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "d", "g"),
    [
        ("minimax", math.log(4), -math.log(2)),
        ("nonsaturating", math.log(4), math.log(2)),
        ("half_weighted", math.log(2), math.log(2)),
        ("smoothed nonsaturating", math.log(4), math.log(2)),
        ("least squares", 0.5, 0.5),
        ("chi-square", 1.0, 0.0),
        ("wasserstein", 0.0, 0.0),
        ("hinge", 2.0, 0.0),
        ("rpgan", math.log(2), math.log(2)),
        ("ragan", math.log(4), math.log(4)),
    ],
)
def test_losses_with_d_at_chance_level(name: str, d: float, g: float) -> None:
    """Common bug: a one-sided test (loss - log 4 < 0.01), which also accepts a loss that is too small."""
    undecided = torch.zeros(4)
    assert LOSSES[name].d_loss(undecided, undecided).item() == pytest.approx(d, abs=1e-6)
    assert LOSSES[name].g_loss(undecided, undecided).item() == pytest.approx(g, abs=1e-6)


def test_least_squares_by_hand() -> None:
    """Common bugs: exchanged targets, or a missing 1/2, which only different a, b and c can reveal."""
    loss = LeastSquares(a=-1, b=2, c=0.5)
    # real: (0.3 - 2)^2 + (-1.2 - 2)^2 + (2 - 2)^2 = 2.89 + 10.24; fake: (-0.5 + 1)^2 + (0.1 + 1)^2 + 5^2
    assert loss.d_loss(A, B).item() == pytest.approx((13.13 + 26.46) / 6, abs=1e-6)
    # (-0.5 - 0.5)^2 + (0.1 - 0.5)^2 + (4 - 0.5)^2
    assert loss.g_loss(B).item() == pytest.approx(13.41 / 6, abs=1e-6)
    assert LeastSquares().d_loss(torch.ones(3), torch.zeros(3)).item() == 0
    assert LeastSquares().g_loss(torch.ones(3)).item() == 0


def test_hinge_by_hand() -> None:
    # real: 0.7 + 2.2 + 0; fake: 0.5 + 1.1 + 5
    assert Hinge().d_loss(A, B).item() == pytest.approx((2.9 + 6.6) / 3, abs=1e-6)
    assert Hinge().g_loss(B).item() == pytest.approx(-1.2, abs=1e-6)


def test_hinge_has_a_margin_for_d_but_not_for_g() -> None:
    """Common bug: relu(1 - D(G(z))) for G, which has no gradient if D's output is above 1."""
    assert gradient(Hinge().d_loss, 1.5, -1.5) == [0, 0]
    assert gradient(Hinge().d_loss, 0.5, -0.5) == [-1, 1]
    assert gradient(Hinge().g_loss, 50.0) == gradient(Hinge().g_loss, -50.0) == [-1]


def test_relativistic_by_hand() -> None:
    pairs = list(zip(A.tolist(), B.tolist(), strict=True))
    d = mean([-math.log(sigmoid(a - b)) for a, b in pairs])
    g = mean([-math.log(sigmoid(b - a)) for a, b in pairs])
    assert Relativistic().d_loss(A, B).item() == pytest.approx(d, abs=1e-6)
    assert Relativistic().g_loss(B, A).item() == pytest.approx(g, abs=1e-6)


def test_relativistic_average_by_hand() -> None:
    """G's loss has both terms, with real and fake exchanged: real logits should be below the mean of the fake ones."""
    real, fake = mean(A.tolist()), mean(B.tolist())
    d = mean([-math.log(sigmoid(a - fake)) for a in A.tolist()])
    d += mean([-math.log(1 - sigmoid(b - real)) for b in B.tolist()])
    g = mean([-math.log(sigmoid(b - real)) for b in B.tolist()])
    g += mean([-math.log(1 - sigmoid(a - fake)) for a in A.tolist()])
    assert RelativisticAverage().d_loss(A, B).item() == pytest.approx(d, abs=1e-6)
    assert RelativisticAverage().g_loss(B, A).item() == pytest.approx(g, abs=1e-6)


@pytest.mark.parametrize("loss", [Relativistic(), RelativisticAverage()])
def test_relativistic_losses_depend_only_on_differences(loss: Relativistic) -> None:
    a, b = A.double(), B.double()
    assert loss.d_loss(a + 7, b + 7).item() == pytest.approx(loss.d_loss(a, b).item(), abs=1e-12)
    assert loss.g_loss(b + 7, a + 7).item() == pytest.approx(loss.g_loss(b, a).item(), abs=1e-12)
    assert loss.d_loss(a + 7, b).item() < loss.d_loss(a, b).item() - 0.1
    assert loss.g_loss(b + 7, a).item() < loss.g_loss(b, a).item() - 0.1


def test_pairing_matters_for_relativistic_but_not_for_relativistic_average() -> None:
    """Common bug: the two losses are confused. Only the loss of pairs depends on the order of a batch."""
    other = B.roll(1)
    assert RelativisticAverage().d_loss(A, other).item() == pytest.approx(RelativisticAverage().d_loss(A, B).item())
    assert abs(Relativistic().d_loss(A, other) - Relativistic().d_loss(A, B)).item() > 0.1
    assert abs(RelativisticAverage().d_loss(A, B) - 2 * Relativistic().d_loss(A, B)).item() > 0.1


def test_means_of_relativistic_average_are_not_detached() -> None:
    """Common bug: detached means, which halve D's gradient. For a single pair, both terms are softplus(f - r)."""
    real, fake = gradient(RelativisticAverage().d_loss, 0.0, 0.0)
    assert (real, fake) == pytest.approx((-1, 1))


def test_declared_properties_of_losses() -> None:
    """sigmoid(logit) is a probability only for logistic losses; for relativistic ones a single logit has no meaning."""
    losses = [Minimax, NonSaturating, HalfWeighted, FeatureMatching, LeastSquares, Wasserstein, Hinge]
    losses += [Relativistic, RelativisticAverage]
    declared = {
        "logistic": [Minimax, NonSaturating, HalfWeighted, FeatureMatching],
        "g_needs_real": [FeatureMatching, Relativistic, RelativisticAverage],
        "g_needs_features": [FeatureMatching],
        "saturates": [Minimax],
        "needs_lipschitz_d": [Wasserstein],
    }
    for name, expected in declared.items():
        assert [loss for loss in losses if getattr(loss, name)] == expected, name


@each_loss
@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_losses_and_gradients_are_finite_for_any_logit(loss: Any, logit: float) -> None:
    """Common bug: log(sigmoid(x)), which is -inf below -104. Losses must be computed from the logits."""
    for sign in (1, -1):
        x = torch.full((3,), logit, requires_grad=True)
        other = torch.full((3,), sign * logit, requires_grad=True)
        for value in (loss.d_loss(x, other), loss.g_loss(x, other)):
            assert value.isfinite()
            for grad in torch.autograd.grad(value, (x, other), allow_unused=True):
                assert grad is None or grad.isfinite().all()


@pytest.mark.parametrize("nonsaturating", [NonSaturating(), HalfWeighted()])
def test_minimax_gradient_vanishes_and_nonsaturating_does_not(nonsaturating: NonSaturating) -> None:
    """As D(G(z)) -> 0, to 0 and to -1. Common bug: the two losses are confused, or named -log D."""
    for logit in (-30.0, -300.0):  # D is certain that the sample is fake
        assert gradient(Minimax().g_loss, logit) == pytest.approx([0], abs=1e-9)
        assert gradient(nonsaturating.g_loss, logit) == pytest.approx([-1], abs=1e-9)
    assert gradient(Minimax().g_loss, 0.0) == gradient(nonsaturating.g_loss, 0.0) == [-0.5]


@each_loss
def test_gradients_agree_with_finite_differences(loss: Any) -> None:
    torch.manual_seed(0)
    real = torch.randn(5, dtype=torch.float64, requires_grad=True)
    fake = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss.d_loss, (real, fake))
    assert torch.autograd.gradcheck(loss.g_loss, (fake, real))


@pytest.mark.parametrize("kind", SMOOTHED)
def test_label_smoothing_changes_only_the_target_on_real_samples(kind: type) -> None:
    """Common bug: smoothed targets of fakes, which give wrong samples no incentive to change (Salimans et al. 2016).

    The optimal logit on real samples is logit(real_label).
    """
    scale = 0.5 if kind is HalfWeighted else 1.0
    smooth, plain = kind(real_label=0.8), kind()
    logs = [-0.8 * math.log(sigmoid(a)) - 0.2 * math.log(1 - sigmoid(a)) for a in A.tolist()]
    logs_fake = [-math.log(1 - sigmoid(b)) for b in B.tolist()]
    assert smooth.d_loss(A, B).item() == pytest.approx(scale * (mean(logs) + mean(logs_fake)), abs=1e-6)
    best = math.log(0.8 / 0.2)  # a probability of 80%
    on_real, on_fake = gradient(smooth.d_loss, best, 0.3)
    assert on_real == pytest.approx(0, abs=1e-12)
    assert on_fake == gradient(plain.d_loss, best, 0.3)[1]
    assert gradient(smooth.d_loss, best + 0.1, 0.3)[0] > 0 > gradient(smooth.d_loss, best - 0.1, 0.3)[0]
    assert gradient(smooth.d_loss, best, -30.0)[1] == pytest.approx(0, abs=1e-9)  # the optimum on fakes is -infinity
    if kind is not FeatureMatching:
        assert torch.equal(smooth.g_loss(B), plain.g_loss(B))


@pytest.mark.parametrize("kind", SMOOTHED)
def test_real_label_one_is_the_plain_loss_bit_for_bit(kind: type) -> None:
    torch.manual_seed(0)
    real, fake = 5 * torch.randn(1000), 5 * torch.randn(1000)
    plain = nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()
    assert torch.equal(kind(real_label=1.0).d_loss(real, fake), plain / 2 if kind is HalfWeighted else plain)
    infinity = torch.tensor([math.inf])
    assert kind(real_label=1.0).d_loss(infinity, -infinity).item() == 0  # NaN if 0 * inf were computed


@pytest.mark.parametrize("kind", SMOOTHED)
@pytest.mark.parametrize("real_label", [0.0, -0.1, 1.1, float("nan")])
def test_real_label_out_of_range_is_refused(kind: type, real_label: float) -> None:
    with pytest.raises(ValueError, match=rf"^real_label={real_label}: must lie in \(0, 1\]\.$"):
        kind(real_label=real_label)


def test_feature_matching_by_hand() -> None:
    """Common bug: the mean distance of samples instead of the distance of batch means."""
    fake = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[2.0, 1.0], [0.0, 1.0]]])  # means 1 1 1 2
    real = torch.tensor([[[3.0, 1.0], [1.0, 0.0]], [[1.0, 3.0], [1.0, 0.0]], [[5.0, 2.0], [1.0, 0.0]]])  # 3 2 1 0
    loss: Any = FeatureMatching()
    assert loss.g_feature_loss(fake, real).item() == pytest.approx(2**2 + 1**2 + 0 + 2**2, abs=1e-6)
    assert loss.g_feature_loss(fake, fake.flip(0)).item() == 0
    with pytest.raises(NotImplementedError):
        loss.g_loss(fake)


def test_feature_matching_detaches_the_real_features() -> None:
    """Common bug: real features that are not detached, so that they also get gradients."""
    fake, real = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    FeatureMatching().g_feature_loss(fake, real).backward()
    assert fake.grad is not None
    assert real.grad is None
    gap = fake.mean(0) - real.mean(0)
    assert torch.allclose(fake.grad, (2 * gap / 4).expand(4, 3))


def test_feature_matching_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    fake = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    real = torch.randn(4, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: FeatureMatching().g_feature_loss(x, real), (fake,))
    for huge in (-1e4, 1e4):
        x = torch.full((3, 2), huge, requires_grad=True)
        value = FeatureMatching().g_feature_loss(x, -x)
        assert value.isfinite()
        assert torch.autograd.grad(value, x)[0].isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate", "betas", "schedule", "n_critic", "penalties"),
    [
        ("lsgan", 2e-4, [0.5, 0.999], "Constant", 1, []),
        ("wgan_gp", 1e-4, [0.0, 0.9], "Constant", 5, ["gradient_penalty"]),
        ("hinge", 2e-4, [0.0, 0.9], "Linear", 5, []),
        ("rpgan", 2e-4, [0.0, 0.99], "Constant", 1, ["r1", "r2"]),
        ("ragan", 2e-4, [0.5, 0.999], "Constant", 1, []),
        ("feature_matching", 2e-4, [0.5, 0.999], "Constant", 1, []),
    ],
)
@pytest.mark.parametrize("data", ["heights", "digits"])
def test_loss_chooses_the_settings_of_its_paper(
    name: str, data: str, rate: float, betas: list[float], schedule: str, n_critic: int, penalties: list[str]
) -> None:
    """For any data set. Common bug: changing single fields, which leaves Adam's betas in RMSprop."""
    config = config_of(f"loss={name}", f"data={data}")
    optimizer = config["optimizer"]
    assert (optimizer["_target_"], optimizer["lr"], optimizer["betas"]) == ("torch.optim.Adam", rate, betas)
    assert config["schedule"]["_target_"] == f"ganrun.schedule.{schedule}"
    assert config["train"]["n_critic"] == n_critic
    assert list(config["penalty"]) == penalties


@pytest.mark.parametrize("name", ["half_weighted", "lsgan", "hinge", "rpgan", "ragan"])
@pytest.mark.slow
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize(
    "net",
    [["arch.generator.width=4", "arch.discriminator.width=4"], ["arch=mlp", "+arch.discriminator.batch_norm=true"]],
    ids=["dcgan", "batch norm in D"],
)
def test_losses_train_on_images(net: list[str], name: str, update: str) -> None:
    """With real logits for G if it needs them, with both kinds of updates, and with batch norm in D."""
    run = run_of(
        f"loss={name}", "data=digits", "penalty=none", *net,
        "train.batch_size=4", "train.n_critic=1", f"train.update={update}",
    )  # fmt: skip
    before = [p.detach().clone() for p in [*run.G.parameters(), *run.D.parameters()]]
    values = scalars(*Game(run).step(0))
    assert all(math.isfinite(value) for value in values.values())
    assert values["grad_norm/g"] > 0
    after = [*run.G.parameters(), *run.D.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
