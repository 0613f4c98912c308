"""The latent search, with generators whose best reconstruction is known."""

import pytest
import torch
from torch import Tensor, nn

from ganrun.anomaly.networks import DView
from ganrun.anomaly.reconstruction import Reconstruction, Search
from ganrun.arch import mlp
from ganrun.arch.table import GumbelNoise
from ganrun.data.dataset import DataSpec
from ganrun.latent import Normal


class Noisy(nn.Module):
    """z (B, 2) -> (z_1, z_2, z_1 plus Gumbel noise)"""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.noise = GumbelNoise()

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.cat([self.scale * z, self.noise(z[:, :1])], 1)


class Plane(nn.Module):
    """z (B, 2) -> (z_1, z_2, class)"""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        last = torch.zeros(len(z)) if y is None else y.float()
        return torch.cat([self.scale * z, last[:, None]], 1)


def fitted(num_classes: int = 0, G: nn.Module | None = None, **settings: float) -> Reconstruction:
    torch.manual_seed(0)
    found = Reconstruction(Search(**{"steps": 300, "lr": 0.02, "feature_weight": 0.0, **settings}))
    D = mlp.Discriminator(DataSpec((3,)), hidden=(8,))
    train = torch.cat([torch.randn(300, 2), torch.zeros(300, 1)], 1)
    found.fit(G or Plane(), Normal(2), DView(D), train, num_classes, seed=0)
    return found


def test_the_residual_is_the_distance_to_what_g_makes() -> None:
    found = fitted()
    x = torch.tensor([[0.5, -1.0, 0.0], [0.5, -1.0, 3.0], [2.0, 2.0, -6.0]])
    residual = found.score(x) * found.units[0]
    assert residual.tolist() == pytest.approx([0.0, 1.0, 2.0], abs=0.02)  # the mean over three coordinates


def test_the_search_improves_on_its_starting_points() -> None:
    x = torch.cat([torch.randn(20, 2), torch.zeros(20, 1)], 1)
    scores = [fitted(steps=steps, restarts=1, pool=20).score(x) for steps in (0, 10, 300)]
    assert (scores[0] > scores[1]).all()
    assert (scores[1] > scores[2]).all()


def test_more_starting_points_are_never_worse() -> None:
    x = torch.cat([torch.randn(20, 2), torch.zeros(20, 1)], 1)
    few, many = (fitted(steps=5, restarts=restarts, pool=20).score(x) for restarts in (1, 4))
    assert (many <= few + 1e-6).all()
    assert (many < few - 1e-3).any()


def test_z_stays_within_the_latents_of_the_pool() -> None:
    found = fitted()
    far = torch.tensor([[50.0, 0.0, 0.0]])
    residual = (found.score(far) * found.units[0]).item()
    assert residual == pytest.approx((50 - found.high[0].item()) / 3, abs=0.02)
    assert 2 < found.high[0] < 5


def test_a_conditional_g_uses_every_class() -> None:
    found = fitted(num_classes=3, restarts=3)
    x = torch.tensor([[0.3, 0.3, float(k)] for k in (0, 1, 2, 5)])
    assert (found.score(x) * found.units[0]).tolist() == pytest.approx([0, 0, 0, 1], abs=0.02)


def test_the_feature_loss_counts_as_its_weight_says() -> None:
    x = torch.tensor([[0.5, -1.0, 2.0], [0.1, 0.2, -1.0]])
    parts = [fitted(steps=0, restarts=1, feature_weight=weight).score(x) for weight in (0.0, 0.25, 1.0)]
    assert parts[1] == pytest.approx(0.75 * parts[0] + 0.25 * parts[2], rel=1e-5)


def test_losses_of_training_examples_are_about_one_at_their_starting_points() -> None:
    found = fitted(steps=0, restarts=1, feature_weight=0.5)
    train = torch.cat([torch.randn(200, 2), torch.zeros(200, 1)], 1)
    assert found.score(train).mean().item() == pytest.approx(1, rel=0.25)


def test_torchs_random_state_gradients_and_weights_are_not_changed() -> None:
    G = Plane()
    search = Reconstruction(Search(steps=3, pool=10))
    state = torch.get_rng_state()
    search.fit(G, Normal(2), DView(mlp.Discriminator(DataSpec((3,)), hidden=(8,))), torch.zeros(4, 3), 0, seed=0)
    torch.set_rng_state(state)
    with torch.no_grad():
        search.score(torch.zeros(2, 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert G.scale.grad is None
    assert G.training


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": -1}, "steps=-1: must be at least 0"),
        ({"restarts": 0}, "restarts=0: must be at least 1"),
        ({"pool": 0}, "pool=0"),
        ({"feature_weight": 1.5}, r"feature_weight=1.5: must lie in \[0, 1\]"),
        ({"lr": 0.0}, "lr=0.0: must be greater than 0"),
    ],
)
def test_settings_out_of_range(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**setting)


def test_the_score_of_an_example_does_not_depend_on_the_others() -> None:
    """Also for a G that draws random numbers, which a starting point keeps."""
    found = fitted(G=Noisy(), steps=20, pool=50)
    x = torch.randn(9, 3)
    together = found.score(x)
    assert torch.allclose(found.score(x.flip(0)).flip(0), together, atol=1e-6)
    assert torch.allclose(torch.cat([found.score(one[None]) for one in x]), together, atol=1e-6)
    assert torch.equal(found.score(x), together)
    assert not next(layer for layer in found.G.modules() if isinstance(layer, GumbelNoise))._forward_hooks
