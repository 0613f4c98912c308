"""Densities, divergences and the value of the game, against closed forms."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from ganrun.data.mixture import Mixture
from ganrun.data.seeds import generator
from ganrun.data.toy import ring
from ganrun.metric.densities import (
    LOG4,
    Cells,
    jensen_shannon,
    jensen_shannon_distance,
    optimal_discriminator,
    optimal_value,
    skewness,
    tail_mass,
    value,
    wasserstein,
    wasserstein_between,
)


def normal(mean: float, std: float = 1.0) -> Normal:
    return Normal(*torch.tensor([mean, std], dtype=torch.float64))


STANDARD = normal(0)
LINE = Cells((-12.0,), (12.0,), 4000)


def evenly(distribution: Normal, n: int) -> Tensor:
    """n samples with the best fit: the quantiles (i + 1/2) / n."""
    return distribution.icdf((torch.arange(n, dtype=torch.float64) + 0.5) / n)


# Cells


def test_cells_contain_the_mass_of_the_normal_distribution() -> None:
    cells = Cells((-1.0,), (2.0,), 3)
    assert cells.centers().tolist() == [-0.5, 0.5, 1.5]
    assert cells.mass(STANDARD).tolist() == pytest.approx([0.341345, 0.341345, 0.135905], abs=1e-6)
    assert LINE.mass(normal(1, 0.3)).sum().item() == pytest.approx(1, abs=1e-12)


def test_cells_in_two_dimensions_are_in_row_order() -> None:
    cells = Cells((0.0, 10.0), (2.0, 40.0), 2)
    assert cells.centers().tolist() == [[0.5, 17.5], [0.5, 32.5], [1.5, 17.5], [1.5, 32.5]]
    assert cells.volume == 15
    x = torch.tensor([[1.9, 11.0], [1.9, 39.0], [1.9, 39.0], [0.0, 10.0], [2.0, 20.0], [1.0, 9.0]])
    assert cells.share(x).tolist() == pytest.approx([1 / 6, 0, 1 / 6, 2 / 6])
    assert cells.share(cells.centers()).tolist() == [0.25] * 4


def test_nan_samples_are_outside_the_cells() -> None:
    x = torch.tensor([0.5, math.nan, math.inf, -math.inf])
    assert Cells((0.0,), (1.0,), 2).share(x).tolist() == [0, 0.25]


def test_mass_in_two_dimensions_is_a_product_and_agrees_with_quadrature() -> None:
    mixture = Mixture(torch.tensor([[0.5, -1.0]]), torch.tensor([0.7]))
    cells = Cells((-3.0, -4.0), (4.0, 3.0), 10)
    sides = [Cells((low,), (high,), 10).mass(normal(m, 0.7)) for low, high, m in ((-3.0, 4.0, 0.5), (-4.0, 3.0, -1.0))]
    product = torch.outer(*sides).flatten()
    assert torch.allclose(cells.mass(mixture), product, atol=1e-15)
    same = MultivariateNormal(torch.tensor([0.5, -1.0]).double(), 0.49 * torch.eye(2).double())
    assert torch.allclose(cells.mass(same), product, rtol=0, atol=1e-3 * product.max().item())
    assert cells.mass(same).sum().item() == pytest.approx(product.sum().item(), rel=1e-4)


def test_box_is_around_the_mean_or_all_modes() -> None:
    assert Cells.around(normal(69, 3), 10) == Cells((54.0,), (84.0,), 10)
    mixture = Mixture(torch.tensor([[-3.0], [3.0]]), torch.tensor([0.5, 1.0]), torch.tensor([0.001, 0.999]))
    assert Cells.around(mixture, 10) == Cells((-5.5,), (8.0,), 10)
    data = ring(8, 2, 0.02, 10)
    assert Cells.around(data.distribution, 128).mass(data.distribution).sum().item() == pytest.approx(1, abs=1e-6)
    assert Cells.around(data.distribution, 9).low == pytest.approx((-2.1, -2.1))


def test_histogram_is_unbiased_for_a_linear_density_and_biased_by_the_curvature_otherwise() -> None:
    cells = Cells((-3.0,), (3.0,), 6)
    density = cells.mass(STANDARD) / cells.volume
    x = cells.centers()
    p = STANDARD.log_prob(x).exp()
    assert torch.allclose(density - p, (x**2 - 1) * p / 24, atol=1.5e-3)  # side^2 p'' / 24
    share = cells.share(torch.randn(100_000, generator=generator(0, "x"), dtype=torch.float64))
    assert (share - cells.mass(STANDARD)).abs().max() < 4 * math.sqrt(0.25 / 100_000)


# The optimal discriminator and the value


def test_log_odds_of_the_optimal_discriminator_are_the_log_ratio() -> None:
    """N(0, 1) against N(1, 1): logit D*(x) = log p - log q = 1/2 - x."""
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    p, q = STANDARD.log_prob(x).exp(), normal(1).log_prob(x).exp()
    assert torch.allclose(torch.logit(optimal_discriminator(p, q)), 0.5 - x, atol=1e-12)
    nothing = torch.zeros(1)
    assert [
        optimal_discriminator(a, b).item() for a, b in ((p[:1], nothing), (nothing, q[:1]), (nothing, nothing))
    ] == [1, 0, 0.5]


def test_value_at_one_half_is_minus_log_four() -> None:
    zeros = torch.zeros(7)
    assert value(zeros, zeros) == -LOG4 == pytest.approx(-1.386294, abs=1e-6)
    mass = torch.full((7,), 1 / 7, dtype=torch.float64)
    assert value(zeros, zeros, mass, mass) == pytest.approx(-LOG4, abs=1e-12)


def test_value_by_hand() -> None:
    """D = 3/4 at the real sample, 3/4 and 1/4 at two fakes: log 3/4 + (log 1/4 + log 3/4) / 2."""
    logit = math.log(3)
    by_hand = math.log(3 / 4) + (math.log(1 / 4) + math.log(3 / 4)) / 2
    assert value(torch.tensor([logit]), torch.tensor([logit, -logit])) == pytest.approx(by_hand, abs=1e-6)
    mass = torch.tensor([0.9, 0.1])
    weighted = math.log(3 / 4) + 0.9 * math.log(1 / 4) + 0.1 * math.log(3 / 4)
    assert value(torch.tensor([logit]), torch.tensor([logit, -logit]), None, mass) == pytest.approx(weighted, abs=1e-6)


def test_value_is_finite_if_a_sigmoid_saturates() -> None:
    big = torch.tensor([1e4])
    assert value(big, -big) == 0
    assert value(-big, big) == -2e4
    nowhere = torch.tensor([1.0, 0.0])  # D can be certain where there are no data
    assert value(torch.tensor([0.0, -math.inf]), torch.tensor([0.0, math.inf]), nowhere, nowhere) == -LOG4


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_optimal_discriminator_has_the_largest_value_which_is_the_divergence(shift: float) -> None:
    p, q = LINE.mass(STANDARD), LINE.mass(normal(shift))
    logits = shift * (shift / 2 - LINE.centers())
    best = value(logits, logits, p, q)
    assert best == pytest.approx(optimal_value(p, q), abs=1e-6)
    for change in (0.1, -0.1):
        assert value(logits + change, logits + change, p, q) < best - 1e-4
        assert value((1 + change) * logits, (1 + change) * logits, p, q) < best - 1e-4 or shift == 0


def test_value_over_samples_and_over_cells_agree() -> None:
    p, q = LINE.mass(STANDARD), LINE.mass(normal(1))
    logits = 0.5 - LINE.centers()
    at_samples = value(0.5 - evenly(STANDARD, 100_000), 0.5 - evenly(normal(1), 100_000))
    assert at_samples == pytest.approx(value(logits, logits, p, q), abs=1e-4)


# Jensen-Shannon


def test_divergence_by_hand() -> None:
    """(1, 0) against (1/2, 1/2), so m = (3/4, 1/4): log(4/3) / 2 + (log(2/3) + log 2) / 4."""
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    by_hand = math.log(4 / 3) / 2 + (math.log(2 / 3) + math.log(2)) / 4
    assert jensen_shannon(p, q) == pytest.approx(by_hand, abs=1e-12)
    assert jensen_shannon(q, p) == pytest.approx(by_hand, abs=1e-12)
    assert jensen_shannon_distance(p, q) == pytest.approx(math.sqrt(by_hand), abs=1e-12)


def test_divergence_is_between_zero_and_log_two() -> None:
    p = LINE.mass(STANDARD)
    assert jensen_shannon(p, p) == 0
    assert jensen_shannon(p, LINE.mass(normal(9, 0.1))) == pytest.approx(math.log(2), abs=1e-9)
    assert optimal_value(p, p) == -LOG4
    assert optimal_value(p, LINE.mass(normal(9, 0.1))) == pytest.approx(0, abs=1e-9)


def test_divergence_of_half_overlapping_distributions_is_half_of_log_two() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    assert jensen_shannon(p, q) == pytest.approx(math.log(2) / 2, abs=1e-12)


def test_samples_outside_are_in_an_extra_cell() -> None:
    p, q = torch.tensor([0.5, 0.0]), torch.tensor([0.0, 0.5])
    assert jensen_shannon(p, q) == pytest.approx(math.log(2) / 2, abs=1e-12)
    by_hand = (math.log(2) / 2 + math.log(2 / 3) / 2 + math.log(4 / 3)) / 2  # (1/2, 1/2) against (0, 1)
    assert jensen_shannon(p, torch.zeros(2)) == pytest.approx(by_hand, abs=1e-12)
    assert jensen_shannon(p, p) == 0


def test_divergence_is_finite_for_tiny_probabilities() -> None:
    p, q = torch.tensor([[5e-324, 1.0], [0.0, 1.0]], dtype=torch.float64)
    assert jensen_shannon(p, q) == 0


@pytest.mark.parametrize("shift", [0.1, 0.2])
def test_divergence_for_small_shifts_is_an_eighth_of_the_squared_shift(shift: float) -> None:
    """JSD = I shift^2 / 8 for small shifts, with Fisher information I = 1."""
    divergence = jensen_shannon(LINE.mass(STANDARD), LINE.mass(normal(shift)))
    assert divergence == pytest.approx(shift**2 / 8, rel=0.02)


def test_divergence_of_gaussians_equals_the_integral_over_their_densities() -> None:
    x = torch.linspace(-10, 13, 100_001, dtype=torch.float64)
    p, q = STANDARD.log_prob(x).exp(), normal(1, 1.5).log_prob(x).exp()
    m = (p + q) / 2
    expected = torch.trapezoid(p * (p / m).log() / 2 + q * (q / m).log() / 2, x).item()
    assert jensen_shannon(LINE.mass(STANDARD), LINE.mass(normal(1, 1.5))) == pytest.approx(expected, rel=1e-4)
    coarse = Cells((-12.0,), (12.0,), 12)
    assert 0.5 * expected < jensen_shannon(coarse.mass(STANDARD), coarse.mass(normal(1, 1.5))) < expected


def test_divergence_in_two_dimensions_equals_that_along_the_line_between_two_gaussians() -> None:
    p, q = (Mixture(torch.tensor([m]), torch.tensor([1.0])) for m in ([0.0, 0.0], [0.6, 0.8]))
    cells = Cells((-7.0, -7.0), (8.0, 8.0), 200)
    expected = jensen_shannon(LINE.mass(STANDARD), LINE.mass(normal(1)))
    assert jensen_shannon(cells.mass(p), cells.mass(q)) == pytest.approx(expected, rel=1e-3)


def test_divergence_of_true_samples_has_the_documented_bias() -> None:
    cells, n = Cells((0.0,), (1.0,), 20), 2000
    x = torch.rand(500, n, generator=generator(0, "uniform"))
    p = torch.full((20,), 1 / 20)
    mean = sum(jensen_shannon(p, cells.share(row)) for row in x) / len(x)
    assert mean == pytest.approx((20 - 1) / (8 * n), rel=0.1)


# Wasserstein


@pytest.mark.parametrize("shift", [0.0, 0.3, -3.0])
def test_distance_between_gaussians_of_equal_std_is_the_difference_of_their_means(shift: float) -> None:
    assert wasserstein_between(normal(69, 3), normal(69 + shift, 3)) == pytest.approx(abs(shift), abs=1e-6)
    assert wasserstein(evenly(normal(69 + shift, 3), 20_000), normal(69, 3)) == pytest.approx(abs(shift), abs=1e-3)


def test_distance_between_gaussians_of_equal_mean() -> None:
    """|s - t| E|z| = |s - t| sqrt(2 / pi)."""
    expected = 2 * math.sqrt(2 / math.pi)
    assert wasserstein_between(normal(1, 1), normal(1, 3)) == pytest.approx(expected, abs=1e-5)
    assert wasserstein(evenly(normal(1, 3), 100_000), normal(1, 1)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("at", [0.0, 1.0, -2.5, 40.0])
def test_distance_of_a_point_mass_is_the_mean_distance_from_the_point(at: float) -> None:
    """E|x - c| = c (2 Phi(c) - 1) + 2 phi(c) for x ~ N(0, 1)."""
    phi = math.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
    expected = at * math.erf(at / math.sqrt(2)) + 2 * phi
    assert wasserstein(torch.full((1000,), at), STANDARD) == pytest.approx(expected, abs=1e-6)


def test_distance_of_few_samples_by_quantiles() -> None:
    """The integral of |x_(i) - Q(u)| over u, from 2,000,000 values of u."""
    x = torch.tensor([0.3, -1.2, 2.0, 0.1, 0.1]).double()
    quantiles = evenly(STANDARD, 2_000_000)
    expected = (x.sort().values.repeat_interleave(400_000) - quantiles).abs().mean().item()
    assert wasserstein(x, STANDARD) == pytest.approx(expected, abs=1e-5)


def test_distance_to_a_mixture_is_the_transported_mass_times_the_distance() -> None:
    """All samples at one of two narrow modes, 6 apart: half of the mass moves by 6, the rest within its mode."""
    mixture = Mixture(torch.tensor([[-3.0], [3.0]]), torch.tensor([0.01, 0.01]))
    x = evenly(normal(-3, 0.01), 10_000)
    assert wasserstein(x, mixture) == pytest.approx(3, abs=0.01)


# Moments


def test_skewness_and_tails() -> None:
    assert skewness(normal(69, 3)) == 0
    mixture = Mixture(torch.tensor([[0.0], [10.0]]), torch.tensor([1.0, 2.0]), torch.tensor([0.8, 0.2]))
    third = 0.8 * ((0 - 2.0) ** 3 + 3 * (0 - 2.0) * 1) + 0.2 * ((10 - 2.0) ** 3 + 3 * (10 - 2.0) * 4)
    assert skewness(mixture) == pytest.approx(third / mixture.variance.item() ** 1.5, rel=1e-5)
    assert tail_mass(normal(69, 3), 2) == pytest.approx(0.0455003, abs=1e-7)
    assert tail_mass(normal(69, 3), 3) == pytest.approx(0.0026998, abs=1e-7)
    far = Mixture(torch.tensor([[0.0], [10.0]]), torch.tensor([0.1, 0.1]), torch.tensor([0.98, 0.02]))
    assert tail_mass(far, 3) == pytest.approx(0.02, abs=1e-9)  # a rare mode is a tail on one side
