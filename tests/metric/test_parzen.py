"""The Parzen-window estimate, against closed forms, a reference in float64, and known scores on MNIST."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PeakBytes, run_of, without_test
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import conv2d

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.digits import digits
from ganrun.data.published import mnist
from ganrun.data.seeds import generator
from ganrun.data.toy import gaussian, ring
from ganrun.metric import parzen, vectors
from ganrun.metric.parzen import Parzen, anchor_index, log_likelihoods
from ganrun.metric.vectors import unit
from ganrun.training.evaluation import Evaluation

IMAGES = digits()
SMALL = {"num": 200, "num_valid": 50}


def noise(*shape: int, name: str = "noise") -> Tensor:
    return torch.randn(*shape, generator=generator(0, name))


def reference(x: Tensor, centers: Tensor, sigmas: list[float]) -> Tensor:
    """A direct computation in float64: (S, n)."""
    of_each = [Normal(centers.double(), sigma).log_prob(x.double()[:, None]).sum(2) for sigma in sigmas]
    return torch.stack([terms.logsumexp(1) for terms in of_each]) - np.log(len(centers))


# The estimate


def test_one_sample_is_a_gaussian() -> None:
    x, center = noise(20, 5), noise(1, 5, name="center")
    expected = Normal(center.double(), 0.7).log_prob(x.double()).sum(1)
    torch.testing.assert_close(log_likelihoods(x, center, [0.7])[0], expected, rtol=1e-6, atol=1e-6)


def test_two_samples_by_hand() -> None:
    """At 0, between samples at -1 and 1, both terms are N(1); at 1 they are N(0) and N(2)."""
    x, centers = torch.tensor([[0.0], [1.0]]), torch.tensor([[-1.0], [1.0]])
    at_0 = -0.5 - np.log(np.sqrt(2 * np.pi))
    at_1 = np.log((1 + np.exp(-2)) / 2) - np.log(np.sqrt(2 * np.pi))
    assert log_likelihoods(x, centers, [1.0])[0].tolist() == pytest.approx([at_0, at_1], abs=1e-6)


def test_equals_a_direct_computation_in_float64() -> None:
    x, centers, sigmas = noise(40, 30), noise(300, 30, name="centers"), [0.1, 0.2, 0.5, 1.0, 3.0]
    torch.testing.assert_close(log_likelihoods(x, centers, sigmas), reference(x, centers, sigmas), rtol=1e-6, atol=1e-3)


def test_is_precise_far_from_zero_and_finite_far_from_the_samples() -> None:
    x, centers = noise(40, 30) + 200, noise(300, 30, name="centers") + 200
    torch.testing.assert_close(log_likelihoods(x, centers, [0.5]), reference(x, centers, [0.5]), rtol=1e-5, atol=1e-2)
    far = log_likelihoods(centers[:5] + 1000, centers, [0.1])
    torch.testing.assert_close(far, reference(centers[:5] + 1000, centers, [0.1]), rtol=1e-5, atol=0)


def test_likelihood_of_copies_is_unbounded() -> None:
    """Each example is its own nearest sample, so for n samples LL > -log n - d log(sigma sqrt(2 pi))."""
    x = noise(100, 20)
    bound = -np.log(100) - 20 * np.log(1e-3 * np.sqrt(2 * np.pi))
    found = log_likelihoods(x, x, [1e-3])[0]
    assert found.tolist() == pytest.approx([bound] * 100, abs=10)  # float32: errors of 1e-5 over 2e-6
    assert log_likelihoods(x, x, [0.1])[0].min() > -np.log(100) - 20 * np.log(0.1 * np.sqrt(2 * np.pi)) - 0.01


@pytest.mark.parametrize(
    ("distances", "block", "rows"), [(1, (1, 1), 1), (500, (3, 7), 10), (10**9, (10**6, 10**6), 9)]
)
def test_chunk_sizes_do_not_affect_the_result(
    monkeypatch: pytest.MonkeyPatch, distances: int, block: tuple[int, int], rows: int
) -> None:
    metric, samples, data = Parzen(num=20, num_valid=None), noise(20, 2), ring(8, 2, 0.5, 100)
    before = metric(samples, data)
    monkeypatch.setattr(parzen, "DISTANCES", distances)
    monkeypatch.setattr(parzen, "BLOCK", block)
    monkeypatch.setattr(vectors, "ROWS", rows)
    assert metric(samples, replace(data)) == pytest.approx(before, rel=1e-6)  # a copy, so its anchor is recomputed


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_examples() -> None:
    """The distances of all pairs would need 400 MB."""
    x, centers = noise(10_000, 10), noise(10_000, 10, name="centers")
    with PeakBytes() as memory:
        log_likelihoods(x, centers, [0.2])
    assert memory.peak < 3 * 4 * parzen.DISTANCES


# The protocol


def test_values_follow_the_protocol() -> None:
    """Images in [-1, 1] and stored bytes are compared in [0, 1]."""
    data, x = IMAGES, IMAGES.train.x[100:300]
    found = Parzen(**SMALL)(data.spec.decode(x), data)
    centers, sigmas = x.flatten(1) / 255, np.logspace(-1, 0, 10).tolist()
    by_sigma = reference(data.valid.x[:50].flatten(1) / 255, centers, sigmas).mean(1)
    best = int(by_sigma.argmax())
    test = reference(data.test.x.flatten(1) / 255, centers, sigmas[best : best + 1])[0]
    assert found["parzen_200_sigma"] == pytest.approx(sigmas[best])
    assert found["parzen_200_valid"] == pytest.approx(by_sigma.max().item(), abs=1e-3)
    assert found["parzen_200"] == pytest.approx(test.mean().item(), abs=1e-3)
    assert found["parzen_200_se"] == pytest.approx(test.numpy().std() / len(test) ** 0.5, abs=1e-4)
    assert (found["parzen_200_num_valid"], found["parzen_200_num_test"]) == (50, len(data.test))


def test_values_do_not_depend_on_the_range_and_unbounded_data_keep_their_units() -> None:
    x = torch.rand(5, 1, 2, 2, generator=generator(0, "range"))
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        spec = DataSpec((1, 2, 2), (low, high))
        torch.testing.assert_close(unit(x * (high - low) + low, spec), x.flatten(1), rtol=0, atol=1e-6)
    assert torch.equal(unit(70 * x, DataSpec((1, 2, 2))), 70 * x.flatten(1))


def from_test(metric: Parzen) -> set[str]:
    return {name for name, key in metric.keys(IMAGES.spec, True).items() if key.from_test}


def other_test(data: Dataset) -> Dataset:
    return replace(data, test=Split(255 - data.test.x[:-10]))


def test_keys_declared_from_test_data_are_those_that_depend_on_them() -> None:
    metric, samples = Parzen(**SMALL), IMAGES.spec.decode(IMAGES.train.x[:200])
    found, other = metric(samples, IMAGES), metric(samples, other_test(IMAGES))
    changed = {key for key in found if found[key] != other[key]}
    assert changed == from_test(metric)
    assert "parzen_200_sigma" not in changed
    assert {"parzen_200", "parzen_200_anchor"} < changed


def test_split_valid_does_not_use_test_data() -> None:
    metric = Parzen(split="valid", **SMALL)
    without = without_test(IMAGES)
    metric.check(without)
    samples = IMAGES.spec.decode(IMAGES.train.x[:200])
    found = metric(samples, without)
    assert "parzen_200_valid" in found
    assert not from_test(metric)
    assert found.items() <= Parzen(**SMALL)(samples, IMAGES).items()


def test_anchor_is_the_score_of_training_examples() -> None:
    index = anchor_index(len(IMAGES.train), 200)
    assert len(index.unique()) == 200
    found = Parzen(**SMALL)(IMAGES.spec.decode(IMAGES.train.x[index]), IMAGES)
    for part in ("", "_se", "_sigma", "_valid"):
        assert found[f"parzen_200_anchor{part}"] == found[f"parzen_200{part}"]
    worse = Parzen(**SMALL)(-torch.ones(200, *IMAGES.spec.shape), IMAGES)
    assert worse["parzen_200"] < worse["parzen_200_anchor"] == found["parzen_200_anchor"]


def test_anchor_of_few_training_examples_reports_their_number() -> None:
    few = replace(IMAGES, train=IMAGES.train[:70])
    assert Parzen(**SMALL)(noise(200, *IMAGES.spec.shape), few)["parzen_200_anchor_num"] == 70
    assert not any("anchor" in key for key in Parzen(anchor=False, **SMALL)(noise(200, *IMAGES.spec.shape), few))


def test_anchor_is_recomputed_for_other_data() -> None:
    metric, few = Parzen(**SMALL), replace(IMAGES, train=IMAGES.train[:70])
    samples = noise(200, *IMAGES.spec.shape)
    first, second = metric(samples, IMAGES), metric(samples, few)
    assert first["parzen_200_anchor"] != second["parzen_200_anchor"]
    assert metric(samples, IMAGES) == first


def test_only_the_first_num_samples_are_used_and_fewer_change_the_keys() -> None:
    x = noise(300, *IMAGES.spec.shape)
    metric = Parzen(anchor=False, **SMALL)
    assert metric(x, IMAGES) == metric(x[:200], IMAGES)
    assert "parzen_30" in metric(x[:30], IMAGES)


def test_sigma_at_the_end_of_its_range_causes_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    data = gaussian(0, 1, 2000)
    Parzen(num=1000)(noise(1000, 1), data)
    assert not caplog.messages
    Parzen(num=1000, sigma_min=0.001, sigma_max=0.01)(noise(1000, 1), data)
    assert "sigma=0.01 is at the end of its range" in caplog.text


# In a run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("metric.parzen.num=0", r"metric\.parzen\.num=0: must be at least 1"),
        ("metric.parzen.num_valid=0", r"metric\.parzen\.num_valid=0: must be at least 1"),
        ("metric.parzen.sigma_min=0", r"metric\.parzen\.sigma_min=0: must be greater than 0"),
        ("metric.parzen.sigma_max=0.01", r"metric\.parzen\.sigma_max=0\.01: must be at least sigma_min=0\.1"),
        ("metric.parzen.num_sigmas=0", r"metric\.parzen\.num_sigmas=0: must be at least 1"),
        ("metric.parzen.split=train", r"metric\.parzen\.split=train: must be one of test, valid"),
    ],
)
def test_invalid_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_of("data=digits", "metric=parzen", setting)


@pytest.mark.parametrize("name", ["valid", "test"])
def test_data_without_a_required_split_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"metric=parzen: needs {name} data"):
        Parzen().check(replace(IMAGES, **{name: getattr(IMAGES, name)[:0]}))


def test_run_ends_with_score_sigma_numbers_and_caveat(here: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = here(
        "data=digits", "arch=mlp", "metric=parzen", "metric.parzen.num=50", "train.steps=2", "train.diagnose=false"
    )
    assert code == 0
    lines = (out + err).splitlines()
    score = next(line for line in lines if line.startswith("  parzen_50 "))
    assert all(name in score for name in ("se: ", "sigma: ", "valid: ", "num_valid: ", "num_test: "))
    anchor = next(line for line in lines if line.startswith("  parzen_50_anchor "))
    assert all(name in anchor for name in ("se: ", "sigma: ", "num: 50"))
    assert any("says little about quality" in line and "Theis" in line for line in lines)


def test_conditional_runs_are_scored() -> None:
    run = run_of("data=digits", "condition=concat", "metric=parzen", "metric.parzen.num=40")
    assert {"parzen_40", "parzen_40_anchor"} < Evaluation(run).metrics().keys()


# On MNIST, with 1,000 validation and 10,000 test examples

# For the sample of `anchor_index`; other samples of 10,000 give 240.7 to 244.2, and the first 10,000 give 241.2.
ORDER = torch.from_numpy(np.random.RandomState(0).permutation(50000))


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Dataset:
    return mnist(str(shared_data), download=False)


def images(data: Dataset) -> Tensor:
    return data.train.x[ORDER[:10000]] / 255


def blurred(data: Dataset) -> Tensor:
    kernel = torch.tensor([1.0, 2.0, 1.0])
    return conv2d(images(data), (kernel[:, None] * kernel)[None, None] / 16, padding=1)


def class_means(data: Dataset) -> Tensor:
    return torch.stack([data.train.x[data.train.y == k].float().mean(0) for k in range(10)]) / 255


def ones(data: Dataset) -> Tensor:
    return data.train.x[data.train.y == 1][:5000] / 255


def gaussian_pixels(data: Dataset) -> Tensor:
    """Independent Gaussian pixels with each pixel's mean and standard deviation, clipped to [0, 1]."""
    draws = np.random.RandomState(0)
    draws.permutation(50000)
    noise = torch.from_numpy(draws.randn(10000, 784)).float()
    x = (data.train.x / 255).flatten(1)
    return (x.mean(0) + x.std(0, correction=0) * noise).clamp(0, 1)


def score(x: Tensor, data: Dataset) -> tuple[float, float, float]:
    """The score of x in [0, 1], its sigma and its standard error."""
    low, high = data.spec.value_range
    found = Parzen(anchor=False)(x.reshape(-1, *data.spec.shape) * (high - low) + low, data)
    by_part = {parzen.part_of(key): value for key, value in found.items()}
    return by_part[""], by_part["sigma"], by_part["se"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (lambda data: images(data)[:1000], 120.4),
        (blurred, 320.4),
        (class_means, 45.4),
        (lambda data: (data.train.x / 255).mean(0), -59.1),
        (ones, -98.2),
        (gaussian_pixels, -154.1),
    ],
    ids=["1000_images", "blurred", "class_means", "mean_image", "ones", "gaussian_pixels"],
)
def test_known_scores_on_mnist(samples: Callable[[Dataset], Tensor], expected: float, real: Dataset) -> None:
    assert score(samples(real), real)[0] == pytest.approx(expected, abs=0.0501)


@pytest.mark.slow
def test_ten_thousand_mnist_images_have_the_score_of_the_anchor(real: Dataset) -> None:
    found, sigma, error = score(images(real), real)
    assert (round(found, 1), round(sigma, 4), round(error, 1)) == (243.6, 0.1668, 2.1)
    anchor = Parzen()(torch.zeros(1, *real.spec.shape), real)
    assert anchor["parzen_1_anchor"] == pytest.approx(found, abs=0.01)
    assert anchor["parzen_1_anchor_num"] == 10000
