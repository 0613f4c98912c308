"""Each transformation of the augmentations, against a case computed by hand."""

import math

import pytest
import torch
from helpers import images
from torch import Tensor

from ganrun import augment
from ganrun.augment import ADA, DiffAugment, recolor, warp


def pixels(*rows: list[float]) -> Tensor:
    """One image with one channel."""
    return torch.tensor(rows)[None, None]


def draw(monkeypatch: pytest.MonkeyPatch, **numbers: float) -> None:
    """Replace all random draws of a kind by a number: uniform=, normal=, whole=."""
    for kind, number in numbers.items():
        monkeypatch.setattr(augment, f"_{kind}", lambda x, *_, n=number: torch.full((len(x),), n).to(x.dtype))


def test_color_shifts_then_scales_around_gray_and_around_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([[0.0, 0.4], [0.2, 0.4], [0.4, 0.4]]).view(1, 3, 1, 2)
    draws = iter([0.1, 0.5, 2.0])
    monkeypatch.setattr(augment, "_uniform", lambda x, *_: torch.full((len(x),), next(draws)))
    # + .1: (.1 .3 .5), (.5 .5 .5); halfway to gray: (.2 .3 .4), (.5 .5 .5); twice the distance from the mean .4.
    expected = torch.tensor([[0.0, 0.6], [0.2, 0.6], [0.4, 0.6]]).view(1, 3, 1, 2)
    torch.testing.assert_close(augment.color(x), expected)


def test_color_has_the_published_ranges() -> None:
    torch.manual_seed(0)
    flat = DiffAugment(["color"])(torch.zeros(2000, 1, 2, 2))[:, 0, 0, 0]  # only brightness has an effect
    assert -0.5 <= flat.min() < -0.49
    assert 0.49 < flat.max() <= 0.5
    x = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(2000, 1, 1, 2)
    contrast = DiffAugment(["color"])(x).diff(dim=3).flatten() / 2
    assert 0.5 <= contrast.min() < 0.51
    assert 1.49 < contrast.max() <= 1.5 + 1e-6
    gray = torch.tensor([0.5, 0.0, -0.5]).view(1, 3, 1, 1).expand(2000, 3, 1, 1)
    spread = DiffAugment(["color"])(gray)
    spread = spread[:, 0] - spread[:, 2]  # saturation in 0..2 times contrast in .5..1.5
    assert 0 <= spread.min() < 0.05
    assert 2.7 < spread.max() <= 3


def test_translation_moves_pixels_and_fills_with_zeros() -> None:
    torch.manual_seed(0)
    x = torch.arange(1.0, 257).view(1, 1, 16, 16)
    out = DiffAugment(["translation"])(x.expand(400, 1, 16, 16))
    found = set()
    for image in out[:, 0]:  # at most 2 of 16 pixels in each direction
        dy, dx = ((image == x[0, 0, 8, 8]).nonzero()[0] - 8).tolist()
        expected = torch.zeros(20, 20)
        expected[2 + dy : 18 + dy, 2 + dx : 18 + dx] = x[0, 0]
        assert torch.equal(image, expected[2:18, 2:18])
        found.add((dx, dy))
    assert found == {(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3)}


@pytest.mark.parametrize(("size", "side"), [(8, 4), (9, 5), (28, 14)])
def test_cutout_sets_a_square_of_half_the_size_to_zero(size: int, side: int) -> None:
    torch.manual_seed(0)
    hole = DiffAugment(["cutout"])(torch.ones(500, 3, size, size)) == 0
    assert (hole == hole[:, :1]).all()  # the same in all channels
    rows, columns = hole[:, 0].any(2).sum(1), hole[:, 0].any(1).sum(1)
    assert torch.equal(hole[:, 0].sum((1, 2)), rows * columns)  # one rectangle
    assert rows.max() == columns.max() == side
    assert rows.min() == columns.min() == (side + 1) // 2  # its center is in the image, so half of it or more is inside
    assert hole[:, 0].any(0).all()  # every pixel can be cut out


def test_flip(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, whole=1)
    assert torch.equal(ADA(p=1.0, transforms=[], flip=True)(pixels([1, 2, 3], [4, 5, 6])), pixels([3, 2, 1], [6, 5, 4]))


@pytest.mark.parametrize("size", [4, 5, 28])
def test_quarter_turns_are_exact(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(2, 3, size)
    turned = []
    for quarters in range(4):
        draw(monkeypatch, whole=quarters)
        turned.append(ADA(p=1.0, transforms=["rotate90"])(x))
        assert any(torch.equal(turned[-1], torch.rot90(x, k, (2, 3))) for k in (quarters, -quarters))
    assert torch.equal(turned[1], torch.rot90(turned[3], 2, (2, 3)))


def test_translate_shifts_by_whole_pixels_and_reflects(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, uniform=0.1)  # .1 of 8 pixels is .8, rounded to 1
    x = torch.arange(64.0).view(1, 1, 8, 8)
    out = ADA(p=1.0, transforms=["translate"])(x)
    index = torch.tensor([1, 2, 3, 4, 5, 6, 7, 6])  # the border pixel is not repeated
    assert torch.equal(out, x[:, :, index][..., index])


def test_shift_moves_by_fractions_of_a_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, normal=0.5)  # half of 1/8 of 4 pixels = a quarter of one
    out = ADA(p=1.0, transforms=["shift"])(pixels(*[[0.0, 1.0, 2.0, 3.0]] * 4))
    torch.testing.assert_close(out, pixels(*[[0.25, 1.25, 2.25, 2.75]] * 4))


def test_scale_enlarges_around_the_center(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, normal=5.0)  # 2^(.2 * 5) = 2
    x = pixels(*[[-2.0, -1.0, 0.0, 1.0, 2.0]] * 5)
    out = ADA(p=1.0, transforms=["scale"])(x)
    torch.testing.assert_close(out, x / 2)


def test_stretch_widens_and_lowers(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, normal=5.0)
    ramp = torch.arange(-4.0, 5.0)
    across = ADA(p=1.0, transforms=["stretch"])(ramp.expand(1, 1, 9, 9))
    torch.testing.assert_close(across, (ramp / 2).expand(1, 1, 9, 9))
    down = ADA(p=1.0, transforms=["stretch"])(ramp[:, None].expand(1, 1, 9, 9))
    torch.testing.assert_close(down[0, 0, 2:7, 0], 2 * ramp[2:7])


def test_rotate_by_a_quarter_and_by_45_degrees() -> None:
    x = images(1, 1, 5)
    for angle in (math.pi / 2, math.pi / 4):
        turn = torch.eye(3)[None].clone()
        turn[0, :2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        out = warp(x, turn)
        torch.testing.assert_close(out[0, 0, 2, 2], x[0, 0, 2, 2])
        if angle == math.pi / 2:
            torch.testing.assert_close(out, torch.rot90(x, 1, (2, 3)))
        else:  # the pixel right of the center comes from (sqrt(.5), sqrt(.5)), between four pixels
            w = math.sqrt(0.5)
            corners = x[0, 0, 2:4, 2:4]
            expected = (1 - w) ** 2 * corners[0, 0] + w * (1 - w) * (corners[0, 1] + corners[1, 0])
            torch.testing.assert_close(out[0, 0, 2, 3], expected + w * w * corners[1, 1])


def test_rotation_keeps_the_center_and_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, uniform=0.6)
    i = torch.arange(-4.0, 5.0)
    cone = (i[:, None] ** 2 + i**2)[None, None]
    out = ADA(p=1.0, transforms=["rotate"])(cone)
    inside = cone <= 9
    assert (out - cone)[inside].abs().max() < 0.51  # bilinear: at most 1/4 on each axis
    assert (out != cone).any()


def test_brightness_is_a_shift_and_contrast_a_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(2)
    draw(monkeypatch, normal=2.0)
    torch.testing.assert_close(ADA(p=1.0, transforms=["brightness"])(x), x + 0.4)
    torch.testing.assert_close(ADA(p=1.0, transforms=["contrast"])(x), x * 2)  # 2^(.5 * 2)
    torch.testing.assert_close(ADA(p=1.0, transforms=["contrast", "brightness"])(x), (x + 0.4) * 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_luma_flip_mirrors_brightness_and_keeps_color(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, whole=1)
    x = images(2, channels)
    torch.testing.assert_close(ADA(p=1.0, transforms=["luma_flip"])(x), x - 2 * x.mean(1, keepdim=True))


def test_hue_rotates_red_to_green_to_blue(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, uniform=2 * math.pi / 3)
    x = images(2)
    torch.testing.assert_close(ADA(p=1.0, transforms=["hue"])(x), x.roll(1, 1))


def test_saturation_scales_color_around_gray(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, normal=-1.0)
    x = images(2)
    torch.testing.assert_close(ADA(p=1.0, transforms=["saturation"])(x), (x + x.mean(1, keepdim=True)) / 2)


def test_color_matrices_are_applied_to_pixels() -> None:
    x, matrix = images(2), torch.randn(2, 4, 4)
    expected = torch.einsum("bik,bkhw->bihw", matrix[:, :3, :3], x) + matrix[:, :3, 3, None, None]
    torch.testing.assert_close(recolor(x, matrix), expected)


def test_transformations_are_applied_in_the_published_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flip is first and translate last; scale is before shift."""
    x = torch.arange(64.0).view(1, 1, 8, 8)
    draw(monkeypatch, whole=1, uniform=0.1)
    out = ADA(p=1.0, transforms=["translate"], flip=True)(x)
    index = torch.tensor([1, 2, 3, 4, 5, 6, 7, 6])
    assert torch.equal(out, x.flip(3)[:, :, index][..., index])
    draw(monkeypatch, normal=5.0)  # scale by 2; shift by 5/8 of 8 pixels, 5
    ramp = torch.arange(-8.0, 9.0).expand(1, 1, 17, 17)
    x_of = ADA(p=1.0, transforms=["scale", "shift"])(ramp)[0, 0, 8, 8].item()
    assert x_of == pytest.approx(5 / 8 * 17 / 2, abs=1e-4)  # (q + t) / 2, not q / 2 + t
