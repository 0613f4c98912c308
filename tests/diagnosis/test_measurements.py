"""The measurements of a diagnosis, for known cases."""

import math
from typing import Any

import pytest
import torch
from helpers import config_of, run_of
from torch import Tensor

from ganrun.diagnosis.history import summarize
from ganrun.diagnosis.measure import relative_slope
from ganrun.diagnosis.samples import compare, copying
from ganrun.training.build import make_loss
from ganrun.training.evaluation import Evaluation
from ganrun.training.updates import DUpdate, scalars

N = 400


def gaussian(seed: int, n: int = N, d: int = 2) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def two_modes(seed: int, share: float = 0.5, d: int = 2) -> Tensor:
    x = 0.1 * gaussian(seed, d=d)
    x[: round(share * N), 0] += 10
    return x


# Samples


@pytest.mark.parametrize("d", [1, 2, 64])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_real_examples_look_real_in_any_unit_and_dimension(d: int, scale: float) -> None:
    m = compare(scale * (5 + gaussian(0, d=d)), scale * (5 + gaussian(1, d=d)), scale * (5 + gaussian(2, d=d)), 1.0)
    assert m["energy"] < 0.01
    assert m["diversity"] == pytest.approx(1, abs=0.1)
    assert m["two_sample"] == pytest.approx(0.5, abs=0.06)
    assert m["coverage"] == pytest.approx(1 - 2**-5, abs=0.04)
    assert m["away"] == pytest.approx(1, abs=0.05)
    assert m["lost"] == pytest.approx(0, abs=0.03)
    assert m["astray"] == pytest.approx(m["astray_real"], abs=0.08)
    assert m["duplicates"] == pytest.approx(m["duplicates_real"], abs=0.06)


def test_missing_mode_is_measured_as_its_share_of_the_data() -> None:
    m = compare(two_modes(0, 0.0), two_modes(1), two_modes(2), 1.0)
    assert m["lost"] == pytest.approx(0.5, abs=0.01)
    assert m["astray"] == 0
    assert m["diversity"] < 0.1
    assert compare(two_modes(0, 0.5), two_modes(1), two_modes(2), 1.0)["lost"] == 0


def test_a_single_point_is_all_duplicates_and_few_points_are_counted() -> None:
    real, other = gaussian(1), gaussian(2)
    assert compare(torch.zeros(N, 2), real, other, 1.0)["duplicates"] == 1
    few = gaussian(0, 20)[torch.randint(0, 20, (N,), generator=torch.Generator().manual_seed(3))]
    assert compare(few, real, other, 1.0)["support"] == pytest.approx(20, rel=0.2)


def test_noise_is_astray_and_differs_from_the_data_but_misses_nothing() -> None:
    real, other = gaussian(1, d=64), gaussian(2, d=64)
    m = compare(gaussian(0, d=64) + 1.5 * gaussian(3, d=64), real, other, 1.0)
    assert m["astray"] > 0.9
    assert m["two_sample"] > 0.9
    assert m["lost"] < 0.05


def test_point_mass_is_measured_by_its_spread() -> None:
    real = torch.zeros(N, 1)
    assert compare(real, real, real, 1.0)["energy"] == 0
    m = compare(real + 0.3, real, real, 1.0)
    assert (m["energy"], m["away"]) == pytest.approx((0.3, 0.3))


def test_copies_differ_from_new_examples() -> None:
    train, others = gaussian(0, d=8), gaussian(1, d=8)
    copies = train[torch.randint(0, N, (N,), generator=torch.Generator().manual_seed(3))] + 1e-4
    for held_out in (others, None):
        m = copying(copies, train, held_out)
        assert (m["copies"], m["copies_real"]) == (1, 0)
        assert m["copy_ratio"] < 0.01
        assert m["originals"] == pytest.approx(1, abs=0.1)
        m = copying(gaussian(2, d=8), train, held_out)
        assert m["copies"] == 0
        assert m["copy_ratio"] == pytest.approx(1, abs=0.1)
    assert copying(train[:1].expand(N, -1), train, others)["originals"] < 0.01


# The logged curves


def row(step: int, **changes: float) -> dict[str, Any]:
    usual = {"loss/d": 1.4, "loss/g": 0.7, "logits/real": 0.1, "logits/fake": -0.1}
    return {"step": step, "nimg": 64 * step, **usual, "accuracy/pairs": 0.55, "grad_norm/g": 1.0} | changes


def test_curves_are_measured_over_the_last_quarter_of_a_run() -> None:
    rows = [row(-1, **{"accuracy/pairs": 9.0}), *(row(k) for k in range(1, 301))]
    rows += [row(k, **{"accuracy/pairs": k % 2, "grad_norm/g": 0.01, "logits/real": 1e6}) for k in range(301, 401)]
    m = summarize([*rows, {"step": 400, "metric/fid_10k": 3.0}])
    assert (m["pairs"], m["pairs_swing"], m["pairs_wrong"]) == (0.5, 0.5, 0.5)
    assert (m["g_gradient"], m["largest"], m["recorded"]) == (0.01, 1e6, 400)
    assert (m["steps"], m["shown"]) == (400, 25600)
    assert summarize(row(k, **{"logits/real": 8.0 - k / 10}) for k in range(1, 21))["lead"] == pytest.approx(6.45 / 8)
    assert summarize([]) == {"recorded": 0.0}


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_values_that_are_not_finite_are_left_out(value: float) -> None:
    rows = [row(k) for k in range(1, 401)]
    assert summarize([*rows, row(401, **{"accuracy/pairs": value, "grad_norm/g": value})])["pairs_swing"] == 0
    bad = {"accuracy/pairs": value, "grad_norm/g": value, "logits/fake": value}
    lost = [row(k, **bad) for k in range(201, 401)]
    assert summarize([*rows[:200], *lost]).keys() == {"recorded", "steps", "shown", "largest"}


def test_accuracy_is_logged_by_pairs_and_for_logistic_losses_by_sign() -> None:
    real, fake = torch.tensor([3.0, -1.0]), torch.tensor([-2.0, 3.0])
    found = scalars(DUpdate(torch.tensor(0.0), real, fake, {}, (torch.ones(1),), logistic=True))
    assert found["accuracy/pairs"] == (1 + 0.5 + 1 + 0) / 4  # 3 > -2, 3 = 3, -1 > -2, -1 < 3
    assert (found["accuracy/real"], found["accuracy/fake"]) == (0.5, 0.5)
    assert "accuracy/real" not in scalars(DUpdate(torch.tensor(0.0), real, fake, {}, (torch.ones(1),), logistic=False))


# The slope of G's loss

SLOPES = [("minimax", 4.1e-9), ("nonsaturating", 2.0), ("wgan", 1.0), ("rpgan", 1.0)]


@pytest.mark.parametrize(("loss", "expected"), SLOPES)
def test_slope_of_a_saturating_loss(loss: str, expected: float) -> None:
    """For a D that confidently rejects fakes (logit -20): 2e-9 * 2 for minimax, and twice as steep for the other."""
    logits = torch.full((50,), -20.0)
    assert relative_slope(make_loss(config_of(f"loss={loss}")), logits, logits) == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_feature_loss_has_no_slope_in_the_logits() -> None:
    loss = make_loss(config_of("loss=feature_matching"))
    assert relative_slope(loss, torch.zeros(50), torch.zeros(50)) is None
    diagnosis = Evaluation(run_of("loss=feature_matching")).diagnosis([], config_of("loss=feature_matching"), ())
    assert "slope" not in diagnosis.measurements


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "expected"), SLOPES)
def test_slope_of_a_run_is_computed_at_the_logits_of_its_samples(loss: str, expected: float) -> None:
    line = [f"loss={loss}", "penalty=none", "train.n_critic=1", "metric=none"]
    run = run_of(*line)
    with torch.no_grad():
        for p in run.D.parameters():
            p.zero_()
        run.D.output.bias.fill_(-20)
    measured = Evaluation(run).diagnosis([], config_of(*line), ()).measurements
    assert measured["slope"] == pytest.approx(expected, rel=0.01)
