"""Consistency regularization and its transforms."""

import pytest
import torch
from helpers import SHAPES, Linear, Net, batches

from ganrun.penalty.consistency import Consistency, translate


@pytest.mark.parametrize("fake_weight", [0.0, 5.0])
def test_consistency_is_zero_without_a_transform(fake_weight: float) -> None:
    for shape in SHAPES:
        real, fake = batches(shape)
        constant = Net(shape).double()
        with torch.no_grad():
            constant.layers[0].weight.zero_()
        term = Consistency(fake_weight=fake_weight, flip=True).term(constant, real, fake, None)
        assert term.item() == pytest.approx(0, abs=1e-20)
        still = Consistency(fake_weight=fake_weight, translation=0, noise=0)
        assert still.term(Net(shape).double(), real, fake, None).item() == pytest.approx(0, abs=1e-20)
        moving = Consistency(fake_weight=fake_weight, translation=2, noise=0.1)
        assert moving.term(Net(shape).double(), real, fake, None).item() > 1e-4


def test_consistency_by_hand() -> None:
    """D(x) = w . x and T(x) = x mirrored: the batch mean of (w . (x - Tx))^2, weighted for real and fake."""
    real, fake = batches((1, 1, 2))
    D = Linear(torch.tensor([[[1.0, 3.0]]], dtype=torch.float64))
    penalty = Consistency(weight=2, fake_weight=5, translation=0, flip=True)
    torch.manual_seed(3)
    term = penalty.term(D, real, fake, None)
    expected = 0.0
    for k, (weight, x) in enumerate(((2, real), (5, fake))):
        difference = (D.inputs[2 * k] - D.inputs[2 * k + 1])[:, 0, 0]  # (B, 2)
        expected += weight * (difference @ torch.tensor([1.0, 3.0], dtype=torch.float64)).square().mean().item()
        assert torch.equal(D.inputs[2 * k], x)
    assert term.item() == pytest.approx(expected)
    assert term.item() > 0


def test_each_image_is_shifted_by_its_own_whole_pixels() -> None:
    """Common bugs: one shift for the whole batch; a wrapped border; digits mirrored by default."""
    x = torch.arange(1.0, 401.0).repeat(300, 1).view(300, 1, 20, 20)
    torch.manual_seed(0)
    moved = Consistency(translation=4).transform(x)
    found = set()
    for image in moved:
        row, column = divmod(int(image[0, 10, 10]) - 1, 20)
        dy, dx = 10 - row, 10 - column
        found.add((dy, dx))
        expected = torch.zeros(1, 20, 20)
        ys, xs = slice(max(dy, 0), 20 + min(dy, 0)), slice(max(dx, 0), 20 + min(dx, 0))
        expected[:, ys, xs] = x[0, :, max(-dy, 0) : 20 + min(-dy, 0), max(-dx, 0) : 20 + min(-dx, 0)]
        assert torch.equal(image, expected)
    assert len(found) > 70  # of 81
    assert {dy for dy, _ in found} == {dx for _, dx in found} == set(range(-4, 5))
    filled = translate(x[:1], torch.tensor([[4, 0]]), most=4, fill=-1)
    assert (filled[0, 0, :4] == -1).all()


def test_mirroring_is_optional_and_random_for_each_image() -> None:
    """Common bug: horizontal flips of digits."""
    x = torch.arange(6.0).view(1, 1, 2, 3).repeat(200, 1, 1, 1)
    assert torch.equal(Consistency(translation=0).transform(x), x)
    mirrored = (Consistency(translation=0, flip=True).transform(x) == x.flip(3)).flatten(1).all(1)
    assert 70 < mirrored.sum() < 130


def test_noise_on_vectors_is_proportional_to_the_std_of_each_component() -> None:
    x = torch.randn(4000, 2) * torch.tensor([1.0, 100.0]) + 5
    noise = Consistency(noise=0.1).transform(x) - x
    assert noise.std(0).tolist() == pytest.approx([0.1, 10.0], rel=0.1)
