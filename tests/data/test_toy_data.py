"""Data with known density: the density is exact, and the samples follow it."""

import math
from collections.abc import Callable

import pytest
import torch
from helpers import run_of
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import ganrun.data.mixture
from ganrun.data.dataset import Dataset
from ganrun.data.mixture import Mixture
from ganrun.data.seeds import generator
from ganrun.data.toy import dirac, gaussian, grid, mixture1d, ring, spiral
from ganrun.metric.distribution import kolmogorov_smirnov

NUM = 100_000  # as in conf/data
MIXTURES: dict[str, Callable[..., Dataset]] = {
    "mixture1d": lambda num=NUM: mixture1d([-3, 3], [0.5, 1], [3, 7], num),
    "ring": lambda num=NUM: ring(8, 2, 0.02, num),
    "grid": lambda num=NUM: grid(5, 2, 0.05, num),
    "spiral": lambda num=NUM // 5: spiral(2, 2, 0.05, 256, num),
}


def critical(x: Tensor) -> float:
    """The Kolmogorov-Smirnov distance that is exceeded with probability 0.001."""
    return 1.95 / len(x) ** 0.5


def reference(mixture: Mixture) -> MixtureSameFamily:
    """The same distribution built from classes of torch."""
    std = mixture.mode_std[:, None].expand_as(mixture.modes)
    parts = Independent(Normal(mixture.modes, std), 1)
    return MixtureSameFamily(Categorical(mixture.weights), parts)


def marginal(mixture: Mixture, axis: int) -> Mixture:
    return Mixture(mixture.modes[:, axis : axis + 1], mixture.mode_std, mixture.weights)


@pytest.mark.parametrize("name", MIXTURES)
def test_log_density_equals_that_of_torchs_mixture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = MIXTURES[name](10).distribution
    x = 3 * torch.randn(4, 50, mixture.dim, generator=generator(0, "x"), dtype=torch.float64)
    expected = reference(mixture).log_prob(x)
    x = x.reshape(4, 50, *mixture.event_shape)
    assert mixture.log_prob(x).shape == (4, 50)
    assert torch.allclose(mixture.log_prob(x), expected, rtol=1e-12)
    monkeypatch.setattr(ganrun.data.mixture, "CHUNK", 1000)
    assert torch.equal(mixture.log_prob(x), mixture.log_prob(x))
    assert torch.allclose(mixture.log_prob(x), expected, rtol=1e-12)


@pytest.mark.parametrize("name", MIXTURES)
def test_density_integrates_to_one(name: str) -> None:
    """By a sum over points much denser than the standard deviation, which for Gaussians is exact up to rounding."""
    mixture = MIXTURES[name](10).distribution
    std, reach = mixture.mode_std.min().item(), 8 * mixture.mode_std.max().item()
    box = [torch.arange(m.min() - reach, m.max() + reach, std / 2, dtype=torch.float64) for m in mixture.modes.T]
    density = mixture.log_prob(torch.cartesian_prod(*box)).exp()
    assert density.sum().item() * (std / 2) ** mixture.dim == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", MIXTURES)
def test_mean_and_variance_are_exact(name: str) -> None:
    mixture = MIXTURES[name](10).distribution
    assert torch.allclose(mixture.mean.reshape(-1), reference(mixture).mean, atol=1e-12)
    assert torch.allclose(mixture.variance.reshape(-1), reference(mixture).variance, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXTURES)
def test_samples_follow_the_distribution_along_each_axis(name: str) -> None:
    data = MIXTURES[name]()
    for axis in range(data.distribution.dim):
        exact = marginal(data.distribution, axis)
        x = data.train.x[:, axis].double()
        assert kolmogorov_smirnov(x, exact) < critical(x)
        assert kolmogorov_smirnov(x + 0.1, exact) > critical(x)


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_each_mode_has_its_weight_and_shape(name: str) -> None:
    data = MIXTURES[name]()
    distance, nearest = data.distribution.distances(data.train.x).min(1)
    counts = nearest.bincount(minlength=len(data.distribution.modes))
    expected = NUM / len(counts)
    assert (counts - expected).abs().max() < 4 * expected**0.5
    squared = (distance / data.distribution.mode_std[0]) ** 2 / 2  # exponentially distributed with rate 1
    assert kolmogorov_smirnov(squared, torch.distributions.Exponential(1.0)) < critical(squared)


def test_cdf_is_the_integral_of_the_density() -> None:
    mixture = MIXTURES["mixture1d"](10).distribution
    x = torch.linspace(-8, 10, 20001, dtype=torch.float64)
    integral = torch.cumulative_trapezoid(mixture.log_prob(x).exp(), x)
    assert torch.allclose(mixture.cdf(x[1:]), integral, atol=1e-6)
    assert mixture.cdf(torch.tensor([-50.0, 50.0])).tolist() == [0, 1]
    with pytest.raises(NotImplementedError, match="2 dimensions"):
        MIXTURES["ring"](10).distribution.cdf(torch.zeros(3, 2))


def test_sampling_accepts_torchs_shapes_and_uses_its_global_random_state() -> None:
    for name, shape in (("mixture1d", (5, 3)), ("ring", (5, 3, 2))):
        mixture = MIXTURES[name](10).distribution
        torch.manual_seed(3)
        x = mixture.sample((5, 3))
        assert x.shape == shape
        assert mixture.sample().shape == shape[2:]
        assert not torch.equal(mixture.sample((5, 3)), x)
        torch.manual_seed(3)
        assert torch.equal(mixture.sample((5, 3)), x)


@pytest.mark.parametrize("name", [*MIXTURES, "dirac"])
def test_splits_have_the_requested_sizes_and_are_deterministic(name: str) -> None:
    make = MIXTURES.get(name, lambda num: dirac(0, num))
    data, again = make(2000), make(2000)
    assert [len(s) for s in (data.train, data.valid, data.test)] == [2000, 200, 200]
    assert data.train.x.shape[1:] == data.spec.shape
    assert data.train.x.dtype == torch.float32
    assert torch.equal(data.test.x, again.test.x)
    if name != "dirac":
        assert len({split.x[0].numpy().tobytes() for split in (data.train, data.valid, data.test)}) == 3


def test_gaussian_samples_are_the_same_as_in_earlier_versions() -> None:
    source = generator(0, "gaussian")
    expected = [69 + 3 * torch.randn(n, 1, generator=source) for n in (1000, 100, 100)]
    data = gaussian(69, 3, 1000)
    for split, x in zip((data.train, data.valid, data.test), expected, strict=True):
        assert torch.equal(split.x, x)


@pytest.mark.parametrize("name", MIXTURES)
def test_mean_and_std_are_those_of_the_distribution(name: str) -> None:
    data = MIXTURES[name]()
    x = data.distribution.draw(400_000, generator(0, "facts"))
    assert data.spec.mean == pytest.approx(x.mean().item(), abs=0.02)
    assert data.spec.std == pytest.approx(x.std().item(), rel=0.01)


def test_ring_and_grid_have_the_published_constants() -> None:
    modes = MIXTURES["ring"](10).distribution.modes
    assert torch.allclose(modes.norm(dim=1), torch.tensor(2.0).double())
    gaps = (modes - modes.roll(1, 0)).norm(dim=1)  # a chord of an eighth of the circle
    assert torch.allclose(gaps, torch.tensor(4 * math.sin(math.pi / 8)).double())
    assert torch.allclose(modes[0], torch.tensor([2.0, 0.0]).double())
    modes = MIXTURES["grid"](10).distribution.modes
    assert sorted(map(tuple, modes.tolist())) == [(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)]
    assert MIXTURES["ring"](10).spec.std == pytest.approx(math.sqrt(2**2 / 2 + 0.02**2))
    assert MIXTURES["grid"](10).spec.std == pytest.approx(math.sqrt(8 + 0.05**2))


def test_published_constants_are_the_defaults() -> None:
    for option, expected in (("ring", MIXTURES["ring"]), ("grid", MIXTURES["grid"])):
        distribution = run_of(f"data={option}", "data.num=10").dataset.distribution
        assert torch.equal(distribution.modes, expected(10).distribution.modes)
        assert torch.equal(distribution.mode_std, expected(10).distribution.mode_std)


def test_spiral_is_archimedean_with_even_density() -> None:
    mixture = MIXTURES["spiral"](10).distribution
    radius = mixture.modes.norm(dim=1)
    angle = torch.atan2(mixture.modes[:, 1], mixture.modes[:, 0])
    turned = radius * (2 * math.pi * 2 / 2) - angle  # a whole number of turns if radius and angle are proportional
    assert torch.allclose(turned / (2 * math.pi), (turned / (2 * math.pi)).round(), atol=1e-9)
    assert 1.9 < radius.max() <= 2
    inner = mixture.modes[10:-10]
    ratio = mixture.log_prob((inner[1:] + inner[:-1]) / 2) - mixture.log_prob(inner[1:])
    assert ratio.abs().max() < 0.05  # the density between two modes equals that at a mode


def test_dirac_is_a_point_mass_without_a_density() -> None:
    for at in (0, 2.5):
        data = dirac(at, 20)
        assert data.train.x.unique().tolist() == [at]
        assert (data.spec.mean, data.spec.std, data.distribution) == (at, 1, None)
    run = run_of("data=dirac", "train.batch_size=4")
    assert run.batches[0][0].tolist() == [[0.0]] * 4
    with pytest.raises(ValueError, match="known density"):
        run_of("data=dirac", "metric=distribution")


def _mixture1d(**changes: object) -> Dataset:
    return mixture1d(**{"means": [-1, 1], "stds": [1, 1], "weights": None, "num": 10, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _mixture1d(means=[], stds=[]), "data.means=.*at least one"),
        (lambda: _mixture1d(stds=[1]), "data.stds=.*must be 2 numbers"),
        (lambda: _mixture1d(weights=[1, 1, 1]), "data.weights=.*must be 2 numbers"),
        (lambda: _mixture1d(stds=[1, 0]), "data.stds=.*greater than 0"),
        (lambda: _mixture1d(stds=[1, math.nan]), "data.stds=.*greater than 0"),
        (lambda: _mixture1d(weights=[1, -1]), "data.weights=.*greater than 0"),
        (lambda: _mixture1d(num=0), "data.num=0: must be at least 1"),
        (lambda: ring(0, 2, 0.02, 10), "data.num_modes=0"),
        (lambda: ring(8, 0, 0.02, 10), "data.radius=0"),
        (lambda: ring(8, 2, 0, 10), "data.std=0"),
        (lambda: grid(0, 2, 0.05, 10), "data.side=0"),
        (lambda: grid(5, -2, 0.05, 10), "data.spacing=-2"),
        (lambda: grid(5, 2, -1, 10), "data.std=-1"),
        (lambda: spiral(0, 2, 0.05, 256, 10), "data.turns=0"),
        (lambda: spiral(2, 2, 0.05, 0, 10), "data.num_modes=0"),
        (lambda: spiral(2, -1, 0.05, 8, 10), "data.radius=-1"),
        (lambda: dirac(0, 0), "data.num=0"),
        (lambda: gaussian(0, 0, 10), "data.std=0: must be greater than 0"),
        (lambda: gaussian(0, 1, 0), "data.num=0: must be at least 1"),
    ],
)
def test_invalid_settings_are_explained(make: Callable[[], Dataset], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_weights_are_relative() -> None:
    def weights(given: list[float] | None) -> Tensor:
        return _mixture1d(weights=given).distribution.weights

    assert torch.allclose(weights([3, 7]), torch.tensor([0.3, 0.7]).double())
    assert torch.equal(weights([0.3, 0.7]), weights([0.3, 0.7]))
    assert weights(None).tolist() == [0.5, 0.5]
