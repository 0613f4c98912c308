"""Penalties on D's gradient, against closed forms, and the networks for which they are undefined."""

from collections.abc import Callable

import pytest
import torch
from helpers import GRADIENT_PENALTIES, SHAPES, Linear, Mixer, Net, Quadratic, batches, vector_of_length
from torch import nn

from ganrun.penalty.consistency import Consistency
from ganrun.penalty.gradient import R1, R2, Dragan, GradientPenalty, ZeroCentered
from ganrun.penalty.lecam import LeCam
from ganrun.penalty.weights import Orthogonal, WeightClip
from ganrun.protocols import Penalty


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [0.25, 1.0, 3.0])
@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (GradientPenalty(weight=10), lambda n: 10 * (n - 1) ** 2),
        (GradientPenalty(weight=7, target=2), lambda n: 7 * (n - 2) ** 2),
        (GradientPenalty(weight=10, one_sided=True), lambda n: 10 * max(0, n - 1) ** 2),
        (Dragan(weight=4), lambda n: 4 * (n - 1) ** 2),
        (ZeroCentered(weight=6), lambda n: 6 * n**2),
        (R1(gamma=10), lambda n: 5 * n**2),
        (R2(gamma=3), lambda n: 1.5 * n**2),
    ],
)
def test_closed_form_on_a_linear_d(
    penalty: Penalty, expected: Callable[[float], float], length: float, shape: tuple[int, ...]
) -> None:
    """The norm is over all dimensions but the batch. Common bug: dim=1, which for images is a norm per pixel."""
    term = penalty.term(Linear(vector_of_length(length, shape)), *batches(shape), None)
    assert term is not None
    assert term.shape == ()
    assert term.item() == pytest.approx(expected(length), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_mean_over_samples_is_outside_the_square(shape: tuple[int, ...]) -> None:
    """D(x) = |x|^2 / 2, so the norm differs between samples. Common bug: one norm over the whole batch."""
    real, fake = batches(shape)
    length = real.flatten(1).norm(dim=1)
    assert R1(gamma=2).term(Quadratic(), real, fake, None).item() == pytest.approx(length.square().mean().item())
    assert R2(gamma=2).term(Quadratic(), real, fake, None).item() == pytest.approx(
        fake.flatten(1).square().sum(1).mean().item()
    )
    for one_sided, excess in ((False, length - 1), (True, (length - 1).clamp(min=0))):
        penalty = GradientPenalty(weight=3, one_sided=one_sided)
        term = penalty.term(Quadratic(), real, real, None)  # interpolates between x and x are x
        assert term.item() == pytest.approx(3 * excess.square().mean().item())
    assert ZeroCentered(weight=3).term(Quadratic(), real, real, None).item() == pytest.approx(
        3 * length.square().mean().item()
    )


@pytest.mark.parametrize("penalty", [GradientPenalty(), ZeroCentered()])
@pytest.mark.parametrize("shape", SHAPES)
def test_interpolates_have_one_epsilon_per_sample(penalty: Penalty, shape: tuple[int, ...]) -> None:
    """Common bugs: one epsilon for the whole batch, or one per element, which is not on the line."""
    D = Linear(torch.ones(shape))
    penalty.term(D, torch.ones(400, *shape), torch.zeros(400, *shape), None)
    epsilon = D.inputs[0].flatten(1)  # (400, numel)
    assert (epsilon == epsilon[:, :1]).all()
    assert len(epsilon[:, 0].unique()) > 390
    assert epsilon.min() >= 0
    assert epsilon.max() <= 1
    assert epsilon[:, 0].mean().item() == pytest.approx(0.5, abs=0.06)
    assert epsilon[:, 0].std().item() == pytest.approx(12**-0.5, abs=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_dragan_takes_gradients_around_the_data_and_not_at_fake_samples(shape: tuple[int, ...]) -> None:
    """Common bug: DRAGAN on the line between real and fake, which is WGAN-GP."""
    real, _ = batches(shape, n=400)
    D = Linear(torch.ones(shape, dtype=torch.float64))
    Dragan(spread=0.5).term(D, real, torch.full_like(real, torch.nan), None)
    share = (D.inputs[0] - real) / (0.5 * real.std(correction=0))  # alpha * U
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.mean().item() == pytest.approx(0.25, abs=0.02)
    assert share.flatten(1).std(1).min() > 0  # independent noise in each element
    assert share.max() > 0.9


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", GRADIENT_PENALTIES)
def test_zero_gradient_gives_finite_values(make: type[Penalty], shape: tuple[int, ...]) -> None:
    """Common bug: the derivative of the square root at 0 is infinite, and NaN for all parameters after times 0."""
    real, fake = batches(shape, dtype=torch.float32)
    for D in (Net(shape), Linear(torch.zeros(shape))):
        with torch.no_grad():
            for p in D.parameters():
                p.zero_()
        term = make().term(D, real, fake, None)
        gradients = torch.autograd.grad(term, list(D.parameters()), allow_unused=True, create_graph=True)
        assert term.isfinite()
        assert all(g.isfinite().all() for g in gradients if g is not None)
        expected = 10 if make in (GradientPenalty, Dragan) else 0  # (0 - 1)^2, and 0^2
        assert term.item() == pytest.approx(expected, abs=1e-4)
    second = torch.autograd.grad(sum(g.sum() for g in gradients if g is not None), list(D.parameters()))
    assert all(g.isfinite().all() for g in second)


def norms() -> list[nn.Module]:
    return [nn.BatchNorm2d(4), nn.SyncBatchNorm(4), nn.BatchNorm2d(4, track_running_stats=False)]


@pytest.mark.parametrize("make", GRADIENT_PENALTIES)
def test_batch_norm_in_d_is_refused(make: type[Penalty]) -> None:
    """Common bug: WGAN-GP with a DCGAN discriminator, whose batch norm makes logits depend on other samples."""
    name = {GradientPenalty: "gradient_penalty", ZeroCentered: "zero_centered", Dragan: "dragan", R1: "r1", R2: "r2"}
    for layer in norms():
        with pytest.raises(
            ValueError, match=f"^penalty={name[make]}: D has batch normalization, which mixes .*norm=none"
        ):
            make().check(Net((2, 5, 4), layer))
    assert make.bounds_gradient
    for layer in (nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.Identity()):
        make().check(Net((2, 5, 4), layer))


def test_layers_that_mix_samples_are_refused_except_for_r1_and_r2() -> None:
    D = Net((2, 5, 4), Mixer())
    for penalty in (GradientPenalty(), ZeroCentered(), Dragan()):
        assert penalty.needs_independent_samples
        with pytest.raises(ValueError, match="D has a layer Mixer, which mixes the samples"):
            penalty.check(D)
    for other in (R1(), R2()):  # StyleGAN2 uses R1 with minibatch standard deviation
        assert not other.needs_independent_samples
        other.check(D)
    for anything in (WeightClip(), Consistency(), LeCam(), Orthogonal()):
        assert not anything.bounds_gradient
        assert not anything.needs_independent_samples
        anything.check(Net((2, 5, 4), Mixer(), nn.BatchNorm2d(4)))


def test_r1_is_meaningless_with_batch_norm() -> None:
    """With batch norm and a linear layer the sum of a batch's logits is constant, so the penalty would be 0."""
    D = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    real, fake = batches((3,))
    assert R1().term(lambda x, y: D(x), real, fake, None).item() == pytest.approx(0, abs=1e-12)
