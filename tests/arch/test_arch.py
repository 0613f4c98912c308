"""Architectures: shapes, output ranges, published sizes, and invalid settings."""

from collections.abc import Callable

import pytest
import torch
from helpers import run_of
from torch import Tensor, nn

from ganrun.arch import dcgan, mlp
from ganrun.data.dataset import DataSpec
from ganrun.latent import Normal
from ganrun.training.sampling import draw, evaluating, generate
from ganrun.training.validate import check_shapes

SIDES = [8, 10, 12, 16, 24, 28, 32, 48, 64, 96, 128]


def image(side: int, channels: int = 3) -> DataSpec:
    return DataSpec((channels, side, side), (-1.0, 1.0), std=0.5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", SIDES)
def test_dcgan_supports_every_image_size(side: int, channels: int) -> None:
    spec = image(side, channels)
    G, D = dcgan.Generator(spec, z_dim=5, width=2), dcgan.Discriminator(spec, width=2)
    fake = G(torch.randn(2, 5))
    assert fake.shape == (2, channels, side, side)
    assert fake.abs().max() <= 1
    assert D(fake).shape == (2,)
    assert D.features(fake).shape[0] == 2


def test_dcgan_has_the_layers_of_the_paper() -> None:
    spec = image(64)
    G, D = dcgan.Generator(spec, z_dim=100, width=64), dcgan.Discriminator(spec, width=64)
    convolutions = [m for m in G.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in convolutions] == [512, 256, 128, 64, 3]
    assert [m.out_channels for m in D.modules() if isinstance(m, nn.Conv2d)] == [64, 128, 256, 512, 1]
    norms = [m for m in D.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.num_features for m in norms] == [128, 256, 512]  # the first layer has no batch norm
    assert {m.eps for m in norms} == {1e-5}  # BatchNorm2d(n, 0.8) would set eps, not the momentum
    assert convolutions[1].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert norms[2].weight.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("spec", [DataSpec((1,)), image(7), image(36), image(512), DataSpec((2, 8, 8), (-1, 1)),
                                  DataSpec((3, 8, 17), (-1, 1))])  # fmt: skip
def test_dcgan_refuses_unsupported_shapes(spec: DataSpec) -> None:
    with pytest.raises(ValueError, match="use arch=mlp"):
        dcgan.Generator(spec, z_dim=5)


def test_mlp_starts_near_the_data_in_any_unit() -> None:
    spec = DataSpec((1,), mean=69.0, std=3.0)
    G, D = mlp.Generator(spec, z_dim=1, hidden=[8]), mlp.Discriminator(spec, hidden=[8])
    x = G(torch.randn(500, 1))
    assert x.shape == (500, 1)
    assert 60 < x.mean() < 78
    assert D(x).shape == (500,)
    assert D.features(x).shape == (500, 8)


def test_mlp_output_for_images_is_within_their_range() -> None:
    spec = DataSpec((1, 4, 4), (0.0, 1.0), mean=0.3, std=0.2)
    G = mlp.Generator(spec, z_dim=3, hidden=[8])
    x = G(1000 * torch.randn(200, 3))
    assert x.shape == (200, 1, 4, 4)
    assert 0 <= x.min() < 0.05
    assert 0.95 < x.max() <= 1


def test_networks_of_patel_2017() -> None:
    run = run_of("arch=heights")
    kinds = [type(layer).__name__ for layer in run.G.layers]
    assert kinds == ["Linear", "BatchNorm1d", "Tanh", "AlwaysDropout"] * 5 + ["Linear"]
    widths = [layer.out_features for layer in run.D.modules() if isinstance(layer, nn.Linear)]
    assert widths == [1, 2, 2, 2] or widths == [2, 2, 2, 1]
    assert not any(isinstance(layer, nn.BatchNorm1d | nn.Dropout) for layer in run.D.modules())


def test_sample_is_independent_of_its_batch_and_sampling_restores_modes() -> None:
    run = run_of("data=digits")
    z = run.latent(300)
    alone = generate(run.G, z[:1])
    torch.testing.assert_close(generate(run.G, z)[:1], alone, rtol=0, atol=1e-6)
    run.G.layers[1].eval()
    with evaluating(run.G):
        assert not run.G.training
    assert run.G.training
    assert not run.G.layers[1].training


class Net(nn.Module):
    """A network whose output is a given function of its input."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.function = forward

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.function(x)


def good_g(z: Tensor) -> Tensor:
    return z.tanh().view(-1, 1, 8, 8)


def good_d(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3))


MISFITS = [
    ("arch.generator: makes samples of shape", lambda z: z[:, :3], good_d),
    ("arch.generator: makes values from", lambda z: 5 + z.view(-1, 1, 8, 8), good_d),
    ("arch.generator: cannot take input", lambda z: z @ torch.ones(3, 64), good_d),
    ("arch.discriminator: returns shape", good_g, lambda x: x.mean((2, 3))),
    ("arch.discriminator: cannot take input", good_g, lambda x: x @ torch.ones(3)),
    ("arch.generator: returns a tuple; it must return samples as one tensor", lambda z: (good_g(z),), good_d),
    ("arch.discriminator: returns a list; it must return logits as one tensor", good_g, lambda x: [good_d(x)]),
]


@pytest.mark.parametrize(("message", "generator", "discriminator"), MISFITS)
def test_networks_with_wrong_signatures_or_shapes_are_refused(
    message: str, generator: Callable, discriminator: Callable
) -> None:
    spec, cpu = DataSpec((1, 8, 8), (-1.0, 1.0)), torch.device("cpu")
    check_shapes(Net(good_g), Net(good_d), Normal(64), spec, cpu, None)
    with pytest.raises(ValueError, match=message):
        check_shapes(Net(generator), Net(discriminator), Normal(64), spec, cpu, None)


def test_wrong_output_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Common bug: a G with a sigmoid output for data in [-1, 1]. It trains, but cannot generate black."""
    monkeypatch.setattr(dcgan.Generator, "output_range", (0.0, 1.0))
    with pytest.raises(ValueError, match="makes values in"):
        run_of("data=digits")


def test_init_he_keeps_the_size_of_activations_and_torchs_default_does_not() -> None:
    """With weights N(0, 2 / inputs) a linear layer doubles the mean square of its inputs, and ReLU halves it again."""
    torch.manual_seed(0)
    sizes = {}
    for init in ("torch", "he"):
        G = mlp.Generator(DataSpec((64,)), 64, hidden=[512] * 4, activation="relu", init=init)
        sizes[init] = G(torch.randn(1000, 64)).square().mean().item()
    assert 1.5 < sizes["he"] < 2.6  # 2
    assert sizes["torch"] < 0.02


def test_init_glorot_is_uniform_within_its_bound_and_keeps_the_size_of_activations_with_tanh() -> None:
    """U(-r, r) with r^2 = 6 / (inputs + outputs), by Equation 16 of Glorot and Bengio 2010; biases are 0."""
    torch.manual_seed(0)
    G = mlp.Generator(DataSpec((1,)), 100, hidden=[500], activation="tanh", init="glorot")
    weight, bound = G.layers[0].weight, (6 / 600) ** 0.5
    assert 0.999 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
    assert G.layers[0].bias.abs().max() == 0
    D = mlp.Discriminator(DataSpec((1,)), hidden=[500], activation="tanh", init="glorot")
    assert D.layers[0].weight.abs().max() > 0.99 * (6 / 501) ** 0.5


def test_dropout_is_active_at_test_time_only_on_request() -> None:
    """By default z determines the sample. With test-time dropout, z and the seed do."""
    nets = ["arch=heights", "latent=normal", "metric=none"]
    z = torch.ones(1000, 1)
    silent, noisy = (run_of(*nets, f"arch.generator.test_time_dropout={on}") for on in ("false", "true"))
    assert generate(silent.G, z).unique().numel() == 1
    assert generate(noisy.G, z).unique().numel() > 20
    first, second = (draw(noisy.G, noisy.latent, 50, noisy.device, seed=3) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, draw(noisy.G, noisy.latent, 50, noisy.device, seed=4))


def test_test_time_dropout_has_its_rate() -> None:
    torch.manual_seed(0)
    layer = mlp.AlwaysDropout(0.25).eval()
    kept = layer(torch.ones(40_000))
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert kept.max().item() == pytest.approx(1 / 0.75)
