"""Latents: truncation, and the ways between two of them."""

import math

import pytest
import torch

from ganrun.latent import Normal, Uniform, slerp
from ganrun.protocols import Latent, complete

HALF = torch.tensor([[0.5]])


def vectors(*values: list[float]) -> list[torch.Tensor]:
    return [torch.tensor([value]) for value in values]


def test_slerp_of_orthogonal_vectors_has_the_known_midpoint_and_norm() -> None:
    a, b = vectors([1.0, 0.0], [0.0, 1.0])
    root = math.sqrt(0.5)
    torch.testing.assert_close(slerp(a, b, HALF), torch.tensor([[root, root]]))
    for share in (0.1, 0.25, 0.9):
        angle = share * math.pi / 2
        found = slerp(a, b, torch.tensor([[share]]))
        torch.testing.assert_close(found, torch.tensor([[math.cos(angle), math.sin(angle)]]))


def test_slerp_begins_and_ends_at_its_ends() -> None:
    a, b = torch.randn(2, 50, 7)
    assert torch.equal(slerp(a, b, torch.zeros(50, 1)), a)
    assert torch.allclose(slerp(a, b, torch.ones(50, 1)), b, rtol=1e-6, atol=0)


def test_slerp_keeps_the_norm_of_normal_latents_and_a_line_does_not() -> None:
    """Two independent ones of 128 dimensions are nearly orthogonal: halfway, a line has 1 / sqrt(2) of the norm."""
    a, b = torch.randn(2, 2000, 128)
    half = HALF.expand(2000, 1)
    norm = math.sqrt(128)
    assert slerp(a, b, half).norm(dim=1).mean().item() == pytest.approx(norm, rel=0.01)
    assert Uniform(128).between(a, b, half).norm(dim=1).mean().item() == pytest.approx(norm / math.sqrt(2), rel=0.01)


@pytest.mark.parametrize(
    ("a", "b", "middle"),
    [
        ([1.0, 2.0], [3.0, 6.0], [2.0, 4.0]),  # parallel
        ([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]),  # the same
        ([1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]),  # opposite
        ([0.0, 0.0], [2.0, 4.0], [1.0, 2.0]),  # no direction
        ([3.0], [-1.0], [1.0]),  # one dimension has no sphere
    ],
)
def test_slerp_is_linear_where_there_is_no_one_way_on_a_sphere(
    a: list[float], b: list[float], middle: list[float]
) -> None:
    torch.testing.assert_close(slerp(*vectors(a, b), HALF), torch.tensor([middle]))


def test_slerp_of_nearly_parallel_vectors_is_accurate() -> None:
    """Common bug: a division by the sine of a tiny angle in float32."""
    a = torch.randn(1, 64)
    b = a + 1e-4 * torch.randn(1, 64)
    torch.testing.assert_close(slerp(a, b, HALF), (a + b) / 2)


def test_uniform_latents_stay_in_their_box() -> None:
    latent = Uniform(16, -1, 1)
    a, b = latent(500), latent(500)
    assert latent.between(a, b, torch.rand(500, 1)).abs().max() <= 1
    corner = torch.ones(1, 16)
    other = corner * torch.tensor([1.0, -1.0]).repeat(8)
    assert slerp(corner, other, HALF).abs().max() > 1.4  # why uniform latents are not interpolated on a sphere


@pytest.mark.parametrize("threshold", [0.04, 0.5, 0.7, 2.0])
def test_truncated_latents_have_the_truncated_normal_distribution(threshold: float) -> None:
    """Against its variance, 1 - 2 t phi(t) / (2 Phi(t) - 1), and values that are drawn until they lie inside."""
    z = torch.randn(4000, 50)
    found = Normal(50).truncated(z, threshold)
    assert found.abs().max().item() <= threshold * (1 + 1e-6)
    assert found.abs().max().item() > 0.99 * threshold
    phi = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * threshold * phi / math.erf(threshold / math.sqrt(2))
    assert found.var().item() == pytest.approx(variance, rel=0.01)
    drawn = torch.randn(1_000_000)
    drawn = drawn[drawn.abs() < threshold]
    shares = torch.tensor([0.1, 0.3, 0.5, 0.9])
    torch.testing.assert_close(found.quantile(shares), drawn.quantile(shares), rtol=0, atol=0.02 * threshold)


def test_truncation_keeps_the_order_of_values_and_far_ones_finite() -> None:
    z = torch.tensor([[-40.0, -3.0, 0.0, 1e-3, 2.0, 40.0]])
    found = Normal(6).truncated(z, 0.7)
    assert found.isfinite().all()
    assert torch.equal(found.argsort(), z.argsort())
    torch.testing.assert_close(Normal(6).truncated(z[:, 1:5], 9.0), z[:, 1:5], rtol=1e-6, atol=1e-7)


def test_latents_of_the_users_own_are_interpolated_on_lines_and_not_truncated() -> None:
    class Own:
        dim = 2

        def __call__(self, n: int, device: str = "cpu") -> torch.Tensor:
            return torch.zeros(n, 2)

    latent = complete(Own(), Latent)
    assert not latent.truncates
    assert latent.way == "linear"
    assert torch.equal(latent.between(torch.zeros(1, 2), torch.ones(1, 2), HALF), torch.full((1, 2), 0.5))
    with pytest.raises(ValueError, match=r"truncation: is defined for normal latents \(latent=normal\)"):
        latent.truncated(torch.zeros(1, 2), 0.5)
