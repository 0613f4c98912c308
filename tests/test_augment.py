"""Augmentations against cases worked out by hand, and ADA's control of its probability."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from ganrun import augment
from ganrun.augment import ADA, TRANSFORMS, DiffAugment, recolor, warp
from ganrun.data.dataset import DataSpec

IMAGES = {1: DataSpec((1, 8, 8), (-1.0, 1.0)), 3: DataSpec((3, 8, 8), (-1.0, 1.0))}
EVERYTHING = {
    "diffaugment": lambda: DiffAugment(),
    "color": lambda: DiffAugment(policy=["color"]),
    "translation": lambda: DiffAugment(policy=["translation"]),
    "cutout": lambda: DiffAugment(policy=["cutout"]),
    "ada": lambda: ADA(p=0.7, flip=True),
    "flip": lambda: ADA(p=1.0, flip=True, transforms=[]),
    **{name: (lambda name=name: ADA(p=1.0, transforms=[name])) for name in TRANSFORMS},
}
NEEDS_THREE_CHANNELS = ("hue", "saturation")


def images(batch: int, channels: int = 3, size: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, channels, size, size, dtype=dtype) * 2 - 1


def pixels(*rows: list[float]) -> Tensor:
    """One image of one channel."""
    return torch.tensor(rows)[None, None]


def draw(monkeypatch: pytest.MonkeyPatch, **numbers: float) -> None:
    """Let every draw of a kind give this number: uniform=, normal=, whole=."""
    for kind, number in numbers.items():
        monkeypatch.setattr(augment, f"_{kind}", lambda x, *_, n=number: torch.full((len(x),), n).to(x.dtype))


# What changes nothing.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [lambda: ADA(flip=True), lambda: DiffAugment(policy=[])], ids=["p=0", "empty policy"])
def test_off_is_the_identity_to_the_bit(make, channels: int) -> None:
    torch.manual_seed(0)
    x = torch.cat([images(16, channels, 9), torch.full((1, channels, 9, 9), -0.0)])
    out = make()(x)
    assert torch.equal(out.view(torch.int32), x.view(torch.int32))  # -0.0 stays -0.0


def test_a_sample_that_no_transformation_meets_is_left_alone_to_the_bit() -> None:
    torch.manual_seed(0)
    x = images(200)
    changed = (ADA(p=0.05)(x) != x).flatten(1).any(1)
    assert 40 < changed.sum() < 160  # 1 - .95^10 = 40%, of which some draws change nothing


# Each transformation by hand.


def test_color_shifts_then_scales_about_gray_and_about_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([[0.0, 0.4], [0.2, 0.4], [0.4, 0.4]]).view(1, 3, 1, 2)
    draws = iter([0.1, 0.5, 2.0])
    monkeypatch.setattr(augment, "_uniform", lambda x, *_: torch.full((len(x),), next(draws)))
    # + .1: (.1 .3 .5), (.5 .5 .5); halfway to gray: (.2 .3 .4), (.5 .5 .5); twice as far from the mean .4.
    expected = torch.tensor([[0.0, 0.6], [0.2, 0.6], [0.4, 0.6]]).view(1, 3, 1, 2)
    torch.testing.assert_close(augment.color(x), expected)


def test_color_keeps_to_the_published_strengths() -> None:
    torch.manual_seed(0)
    flat = DiffAugment(["color"])(torch.zeros(2000, 1, 2, 2))[:, 0, 0, 0]  # brightness alone
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
    seen = set()
    for image in out[:, 0]:  # at most 2 of 16 pixels each way
        dy, dx = ((image == x[0, 0, 8, 8]).nonzero()[0] - 8).tolist()
        expected = torch.zeros(20, 20)
        expected[2 + dy : 18 + dy, 2 + dx : 18 + dx] = x[0, 0]
        assert torch.equal(image, expected[2:18, 2:18])
        seen.add((dx, dy))
    assert seen == {(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3)}


@pytest.mark.parametrize(("size", "side"), [(8, 4), (9, 5), (28, 14)])
def test_cutout_makes_a_square_of_half_the_size_zero(size: int, side: int) -> None:
    torch.manual_seed(0)
    hole = DiffAugment(["cutout"])(torch.ones(500, 3, size, size)) == 0
    assert (hole == hole[:, :1]).all()  # all channels alike
    rows, columns = hole[:, 0].any(2).sum(1), hole[:, 0].any(1).sum(1)
    assert torch.equal(hole[:, 0].sum((1, 2)), rows * columns)  # one rectangle
    assert rows.max() == columns.max() == side
    assert rows.min() == columns.min() == (side + 1) // 2  # centred in the image, so at least half is inside
    assert hole[:, 0].any(0).all()  # no pixel is safe


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


def test_translate_moves_by_whole_pixels_and_reflects(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, uniform=0.1)  # .1 of 8 pixels is .8, rounded to 1
    x = torch.arange(64.0).view(1, 1, 8, 8)
    out = ADA(p=1.0, transforms=["translate"])(x)
    index = torch.tensor([1, 2, 3, 4, 5, 6, 7, 6])  # the border pixel is not repeated
    assert torch.equal(out, x[:, :, index][..., index])


def test_shift_moves_by_part_of_a_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, normal=0.5)  # half of 1/8 of 4 pixels = a quarter of one
    out = ADA(p=1.0, transforms=["shift"])(pixels(*[[0.0, 1.0, 2.0, 3.0]] * 4))
    torch.testing.assert_close(out, pixels(*[[0.25, 1.25, 2.25, 2.75]] * 4))


def test_scale_enlarges_about_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
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
        else:  # the pixel right of the centre comes from (sqrt(.5), sqrt(.5)), between four
            w = math.sqrt(0.5)
            corners = x[0, 0, 2:4, 2:4]
            expected = (1 - w) ** 2 * corners[0, 0] + w * (1 - w) * (corners[0, 1] + corners[1, 0])
            torch.testing.assert_close(out[0, 0, 2, 3], expected + w * w * corners[1, 1])


def test_rotation_keeps_the_centre_and_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, uniform=0.6)
    i = torch.arange(-4.0, 5.0)
    cone = (i[:, None] ** 2 + i**2)[None, None]
    out = ADA(p=1.0, transforms=["rotate"])(cone)
    inside = cone <= 9
    assert (out - cone)[inside].abs().max() < 0.51  # bilinear: at most 1/4 on each axis
    assert (out != cone).any()


def test_brightness_is_a_shift_and_contrast_a_gain(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_hue_turns_red_to_green_to_blue(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, uniform=2 * math.pi / 3)
    x = images(2)
    torch.testing.assert_close(ADA(p=1.0, transforms=["hue"])(x), x.roll(1, 1))


def test_saturation_scales_color_about_gray(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, normal=-1.0)
    x = images(2)
    torch.testing.assert_close(ADA(p=1.0, transforms=["saturation"])(x), (x + x.mean(1, keepdim=True)) / 2)


def test_color_matrices_are_applied_to_pixels() -> None:
    x, matrix = images(2), torch.randn(2, 4, 4)
    expected = torch.einsum("bik,bkhw->bihw", matrix[:, :3, :3], x) + matrix[:, :3, 3, None, None]
    torch.testing.assert_close(recolor(x, matrix), expected)


def test_transformations_are_done_in_the_published_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flip first and translate last; scaled before it is shifted."""
    x = torch.arange(64.0).view(1, 1, 8, 8)
    draw(monkeypatch, whole=1, uniform=0.1)
    out = ADA(p=1.0, transforms=["translate"], flip=True)(x)
    index = torch.tensor([1, 2, 3, 4, 5, 6, 7, 6])
    assert torch.equal(out, x.flip(3)[:, :, index][..., index])
    draw(monkeypatch, normal=5.0)  # scale by 2; shift by 5/8 of 8 pixels, 5
    ramp = torch.arange(-8.0, 9.0).expand(1, 1, 17, 17)
    x_of = ADA(p=1.0, transforms=["scale", "shift"])(ramp)[0, 0, 8, 8].item()
    assert x_of == pytest.approx(5 / 8 * 17 / 2, abs=1e-4)  # (q + t) / 2, not q / 2 + t


# What holds for all.


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_differ_and_a_seed_decides(name: str, channels: int) -> None:
    apply = EVERYTHING[name]()
    torch.manual_seed(0)
    x = images(1, channels).expand(32, channels, 8, 8)
    torch.manual_seed(1)
    first = apply(x)
    torch.manual_seed(1)
    assert torch.equal(first, apply(x))
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    if name in NEEDS_THREE_CHANNELS and channels == 1:
        assert torch.equal(first, x)
    else:
        assert len(first.flatten(1).unique(dim=0)) > 1
        assert not torch.equal(first, apply(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_both_orders(name: str, channels: int) -> None:
    apply = EVERYTHING[name]()
    torch.manual_seed(0)
    x = images(3, channels, 4, torch.float64).requires_grad_()

    def fixed(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return apply(x)

    assert torch.autograd.gradcheck(fixed, x)
    assert torch.autograd.gradgradcheck(lambda x: fixed(x).square(), x)  # a gradient penalty passes it twice
    if name != "cutout":
        (gradient,) = torch.autograd.grad(fixed(x).sum(), x)
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["diffaugment", "ada"])
@pytest.mark.parametrize("channels", [1, 3])
def test_memory_format_is_kept_and_does_not_matter(name: str, channels: int) -> None:
    apply = EVERYTHING[name]()
    x = images(4, channels)
    torch.manual_seed(0)
    plain = apply(x)
    torch.manual_seed(0)
    last = apply(x.contiguous(memory_format=torch.channels_last))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain, last)


@pytest.mark.parametrize("name", ["diffaugment", "ada"])
def test_autocast_does_not_blur_it(name: str) -> None:
    apply, x = EVERYTHING[name](), images(4)
    torch.manual_seed(0)
    plain = apply(x)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(apply(x), plain)
    torch.manual_seed(0)
    half = apply(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (5, 1, 6, 11), (2, 3, 9, 4), (2, 1, 1, 1)])
@pytest.mark.parametrize("name", ["diffaugment", "ada"])
def test_any_batch_and_shape(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    out = EVERYTHING[name]()(torch.rand(shape))
    assert out.shape == shape
    assert out.isfinite().all()


# ADA's control.


def test_p_rises_and_falls_at_the_published_rate() -> None:
    ada = ADA(target=0.6, speed_kimg=500, every=4)
    for _ in range(8):
        ada.observe(torch.full((64,), 3.0))  # D is sure
    assert ada.p.item() == pytest.approx(2 * 64 * 4 / 500_000, rel=1e-5)
    for _ in range(4):
        ada.observe(torch.cat([torch.ones(40), -torch.ones(24)]))  # r = 16 / 64
    assert ada.p.item() == pytest.approx(64 * 4 / 500_000, rel=1e-5)


def test_p_moves_only_every_few_updates_and_by_their_common_mean() -> None:
    ada = ADA(target=0.5, speed_kimg=1, every=4, p=0.5)
    for logits, p in [(-1.0, 0.5), (1.0, 0.5), (1.0, 0.5), (1.0, 0.5)]:  # r = .5: on target, so p stays
        ada.observe(torch.full((10,), logits))
        assert ada.p.item() == p
    for p in (0.5, 0.5, 0.5, 0.54):
        ada.observe(torch.ones(10))
        assert ada.p.item() == pytest.approx(p)


def test_p_is_clipped() -> None:
    ada = ADA(speed_kimg=0.1, every=1)
    for _ in range(3):
        ada.observe(-torch.ones(64))
    assert ada.p.item() == 0
    for _ in range(3):
        ada.observe(torch.ones(64))
    assert ada.p.item() == 1
    assert ADA(p=1.0)(images(2)).isfinite().all()


def test_p_is_the_share_of_samples_transformed() -> None:
    torch.manual_seed(0)
    x = images(4000, 1, 2)
    for name, p in (("brightness", 0.3), ("rotate", 0.3)):  # of two rotations, either
        changed = (ADA(p=p, transforms=[name])(x) != x).flatten(1).any(1)
        assert changed.float().mean().item() == pytest.approx(p, abs=0.03)


def test_a_saved_ada_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    logits, whole, saved = [torch.randn(16) + 2 for _ in range(23)], ADA(speed_kimg=1), ADA(speed_kimg=1)
    for part in logits:
        whole.observe(part)
    for part in logits[:10]:  # stops between two changes of p
        saved.observe(part)
    torch.save(saved.state_dict(), tmp_path / "ada.pt")
    resumed = ADA(speed_kimg=1)
    resumed.load_state_dict(torch.load(tmp_path / "ada.pt", weights_only=True))
    for part in logits[10:]:
        resumed.observe(part)
    assert whole.p > 0
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), resumed.buffers(), strict=True))
    x = images(8)
    torch.manual_seed(0)
    first = whole(x)
    torch.manual_seed(0)
    assert torch.equal(first, resumed(x))


def test_observing_builds_no_graph_and_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(*_: object) -> None:
        raise AssertionError("a value was read from the device")

    ada, logits = ADA(every=1), torch.ones(4, requires_grad=True)
    for method in ("item", "__bool__", "__float__", "__int__", "tolist"):
        monkeypatch.setattr(Tensor, method, waits)
    ada.observe(logits)
    ada(images(2))
    assert not ada.p.requires_grad
    DiffAugment().observe(logits)


# What is refused.


@pytest.mark.parametrize(("name", "make"), [("diffaugment", DiffAugment), ("ada", ADA)])
def test_only_images_in_the_usual_range_are_taken(name: str, make: type) -> None:
    for spec in IMAGES.values():
        make().check(spec)
    for shape in ((2,), (4, 8, 8)):
        with pytest.raises(ValueError, match=rf"^augment={name}: transforms images.*\({shape[0]},.*augment=none\.$"):
            make().check(DataSpec(shape, (-1.0, 1.0)))
    with pytest.raises(ValueError, match=rf"^augment={name}: .* \[-1, 1\], not in \(0\.0, 1\.0\)"):
        make().check(DataSpec((1, 8, 8), (0.0, 1.0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffAugment(["colour"]), r"augment\.policy=\[colour\]: must be .* color, translation, cutout\."),
        (lambda: DiffAugment("color"), r"augment\.policy=color: must be a list"),
        (lambda: ADA(transforms=["flip"]), r"augment\.transforms=\[flip\]: must be a list of any of translate"),
        (lambda: ADA(target=1.0), r"augment\.target=1\.0: must lie between"),
        (lambda: ADA(speed_kimg=0), r"augment\.speed_kimg=0: must be greater than 0"),
        (lambda: ADA(every=0), r"augment\.every=0: must be at least 1"),
        (lambda: ADA(p=1.5), r"augment\.p=1\.5: must lie in \[0, 1\]"),
    ],
)
def test_settings_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_digits_are_not_flipped_unless_asked() -> None:
    """Trap 12: no horizontal flip on digits. Of these transformations only a flip turns a slope around."""
    torch.manual_seed(0)
    upright = ["translate", "scale", "stretch", "brightness", "contrast"]

    def slopes(ada: ADA) -> Tensor:
        out = ada(torch.linspace(-1, 1, 17).expand(300, 1, 17, 17))
        return (out[:, 0, 8, 9] - out[:, 0, 8, 8]).sign()

    assert (slopes(ADA(p=1.0, transforms=upright)) == 1).all()
    assert abs(slopes(ADA(p=1.0, transforms=upright, flip=True)).mean()) < 0.2


@pytest.mark.parametrize(("name", "make"), [("diffaugment", DiffAugment), ("ada", ADA)])
def test_conf_gives_the_defaults_of_the_code(name: str, make: type) -> None:
    text = (Path(__file__).parents[1] / "conf" / "augment" / f"{name}.yaml").read_text()
    settings = yaml.safe_load(text)
    assert "arXiv" in text.splitlines()[0]
    assert settings.pop("_target_") == f"ganrun.augment.{make.__name__}"
    assert vars(make(**settings))["_buffers"] == vars(make())["_buffers"]
    for key in ("policy", "transforms", "target", "speed_kimg", "every"):
        assert getattr(make(**settings), key, None) == getattr(make(), key, None)
