"""MS-SSIM: closed forms, an explicit window, and pairs within classes."""

import math

import pytest
import torch
from planted import Planted
from torch import Tensor

from ganrun.data.dataset import Dataset, Split, image_spec
from ganrun.data.digits import digits
from ganrun.data.seeds import generator
from ganrun.metric.ssim import C1, C2, WEIGHTS, MsSsim, ms_ssim, num_scales, random_pairs


def noise(*shape: int, name: str = "x") -> Tensor:
    return torch.rand(*shape, generator=generator(0, name), dtype=torch.float64)


def test_equal_images_have_similarity_one_and_order_does_not_matter() -> None:
    x, y = noise(4, 3, 32, 32), noise(4, 3, 32, 32, name="y")
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(4).double())
    torch.testing.assert_close(ms_ssim(x, y), ms_ssim(y, x))
    assert (ms_ssim(x, y) < 0.3).all()


def test_constant_images_differ_in_luminance_at_the_coarsest_scale_only() -> None:
    a, b = 0.2, 0.6
    luminance = (2 * a * b + C1) / (a**2 + b**2 + C1)
    for side, scales in ((16, 1), (28, 2), (64, 3), (176, 5)):
        weights = WEIGHTS[:scales]
        found = ms_ssim(torch.full((1, 1, side, side), a).double(), torch.full((1, 1, side, side), b).double())
        assert num_scales(side) == scales
        assert found.item() == pytest.approx(luminance ** (weights[-1] / sum(weights)))


def test_one_window_equals_the_sums_over_its_pixels() -> None:
    """An image of 11 x 11 pixels has a single window, whose weights are a product of two Gaussians."""
    x, y = noise(1, 1, 11, 11), noise(1, 1, 11, 11, name="y")
    weight = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)]
    w = torch.tensor(weight).double() / torch.tensor(weight).double().sum()

    def mean(values: Tensor) -> float:
        return (w * values[0, 0]).sum().item()

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    expected = (2 * mx * my + C1) / (mx**2 + my**2 + C1) * (2 * cov + C2) / (vx + vy + C2)
    assert ms_ssim(x, y).item() == pytest.approx(max(expected, 0))


def test_pairs_are_different_examples_of_the_same_class() -> None:
    y = torch.tensor([0, 1, 1, 2, 2, 2, 3])
    first, second = random_pairs(y, 300)
    assert (first != second).all()
    assert torch.equal(y[first], y[second])
    assert set(y[first].tolist()) == {1, 2}
    assert {*second.tolist()} == {1, 2, 3, 4, 5}
    assert torch.equal(first, random_pairs(y, 300)[0])


def of_classes() -> tuple[Dataset, Tensor]:
    """Two classes of 12x12 images: every image of class 0 is the same, those of class 1 are noise."""
    x = (255 * noise(80, 1, 12, 12)).to(torch.uint8).clone()
    y = torch.arange(80) % 2
    x[y == 0] = x[0].clone()
    x[:, 0, 0, 0] = y.to(torch.uint8)
    spec = image_spec(x, "ab")
    return Dataset(spec, Split(x, y), Split(x[:0], y[:0]), Split(x[:0], y[:0])), spec.decode(x)


def test_similarity_is_that_within_classes() -> None:
    data, samples = of_classes()
    measure = MsSsim(Planted(), 40)
    found = measure(samples[data.train.y == 0].repeat(2, 1, 1, 1), data)  # type: ignore[index]
    assert found["ms_ssim_40"] == pytest.approx(1)
    varied = measure(samples[data.train.y == 1].repeat(2, 1, 1, 1)[:40], data)["ms_ssim_40"]  # type: ignore[index]
    assert varied < 0.2
    assert varied < found["ms_ssim_40_true"] < 1
    assert measure.protocol() == {"40": {"pairs": 40, "scales": 1, "window": 11}}


def test_requested_classes_count_in_a_conditional_run() -> None:
    data, samples = of_classes()
    y = torch.arange(80) % 2
    measure = MsSsim(Planted(), 40)
    assert measure(samples, data, y=y)["ms_ssim_40"] == measure(samples, data, y=None)["ms_ssim_40"]
    mixed = measure(samples, data, y=torch.arange(80) // 40)["ms_ssim_40"]
    assert mixed < measure(samples, data, y=y)["ms_ssim_40"]


def test_small_images_and_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="needs images of at least 11 x 11 pixels"):
        MsSsim(Planted()).check(digits())
    with pytest.raises(ValueError, match="num=1: must be at least 2"):
        MsSsim(Planted(), 1)
