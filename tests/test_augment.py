"""Properties of all augmentations: the identity if disabled, gradients, memory formats, and invalid settings."""

from pathlib import Path

import pytest
import torch
import yaml
from helpers import images, same
from torch import Tensor

from ganrun.augment import ADA, TRANSFORMS, DiffAugment
from ganrun.data.dataset import DataSpec

IMAGES = {1: DataSpec((1, 8, 8), (-1.0, 1.0)), 3: DataSpec((3, 8, 8), (-1.0, 1.0))}


EVERYTHING = {
    "diffaugment": lambda: DiffAugment(),
    "color": lambda: DiffAugment(policy=["color"]),
    "translation": lambda: DiffAugment(policy=["translation"]),
    "cutout": lambda: DiffAugment(policy=["cutout"]),
    "ada": lambda: ADA(p=0.7, flip=True, transforms=TRANSFORMS),
    "flip": lambda: ADA(p=1.0, flip=True, transforms=[]),
    **{name: (lambda name=name: ADA(p=1.0, transforms=[name])) for name in TRANSFORMS},
}
NEEDS_THREE_CHANNELS = ("hue", "saturation")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [lambda: ADA(flip=True), lambda: DiffAugment(policy=[])], ids=["p=0", "empty policy"])
def test_disabled_augmentation_is_the_identity_bit_for_bit(make, channels: int) -> None:
    torch.manual_seed(0)
    x = torch.cat([images(16, channels, 9), torch.full((1, channels, 9, 9), -0.0)])
    out = make()(x)
    assert torch.equal(out.view(torch.int32), x.view(torch.int32))  # -0.0 stays -0.0


def test_samples_without_a_transformation_are_unchanged_bit_for_bit() -> None:
    torch.manual_seed(0)
    x = images(200)
    changed = (ADA(p=0.05)(x) != x).flatten(1).any(1)
    assert 40 < changed.sum() < 160  # 1 - .95^10 = 40%, but some transformations change nothing


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_transformed_differently_and_reproducibly(name: str, channels: int) -> None:
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
    assert torch.autograd.gradgradcheck(lambda x: fixed(x).square(), x, fast_mode=True)  # as in a gradient penalty
    if name != "cutout":
        (gradient,) = torch.autograd.grad(fixed(x).sum(), x)
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["diffaugment", "ada"])
@pytest.mark.parametrize("channels", [1, 3])
def test_memory_format_is_kept_and_does_not_change_the_result(name: str, channels: int) -> None:
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
def test_autocast_does_not_reduce_precision(name: str) -> None:
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
def test_any_batch_size_and_shape(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    out = EVERYTHING[name]()(torch.rand(shape))
    assert out.shape == shape
    assert out.isfinite().all()


@pytest.mark.parametrize(("name", "make"), [("diffaugment", DiffAugment), ("ada", ADA)])
def test_only_images_in_the_default_range_are_accepted(name: str, make: type) -> None:
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
def test_invalid_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("name", "make"), [("diffaugment", DiffAugment), ("ada", ADA)])
def test_defaults_in_conf_equal_those_of_the_code(name: str, make: type) -> None:
    text = (Path(__file__).parents[1] / "conf" / "augment" / f"{name}.yaml").read_text()
    settings = yaml.safe_load(text)
    assert "arXiv" in text.splitlines()[0]
    assert settings.pop("_target_") == f"ganrun.augment.{make.__name__}"
    if name == "ada":
        assert same(make(**settings).state_dict(), make().state_dict())
    for key in ("policy", "transforms", "target", "speed_kimg", "every"):
        assert getattr(make(**settings), key, None) == getattr(make(), key, None)
