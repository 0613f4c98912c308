"""The networks of SNGAN, WGAN-GP, BigGAN and R3GAN: their numbers of parameters, layers, and resampling.

The numbers are those of the authors' networks, of which SNGAN's were counted in mimicry (github.com/kwotsin/mimicry),
BigGAN's in ajbrock/BigGAN-PyTorch and R3GAN's in brownvc/R3GAN by building them, and WGAN-GP's by hand from
igul222/improved_wgan_training. With the same weights the networks of the former three had the same outputs as ours.
"""

import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from ganrun.arch import biggan, dcgan, r3gan, resnet, sngan, wgan_gp
from ganrun.arch.layers import UnconditionalBatchNorm2d
from ganrun.condition import Condition
from ganrun.data.dataset import DataSpec

ARCHS = {"dcgan": dcgan, "sngan": sngan, "wgan_gp": wgan_gp, "biggan": biggan, "r3gan": r3gan}
each_arch = pytest.mark.parametrize("arch", ARCHS.values(), ids=ARCHS)
CLASSES = tuple("0123456789")


def image(height: int, width: int | None = None, channels: int = 3) -> DataSpec:
    return DataSpec((channels, height, width or height), (-1.0, 1.0), std=0.5, classes=CLASSES)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


OWN = {"num_classes": 10}
WIDE = {"width": 1536, "group_width": 32, "num_classes": 1000}
EVEN = WIDE | {"widths": [1536] * 5}
# Side, z_dim, settings of G, settings of D, parameters of G and of D.
PUBLISHED: dict[str, tuple[Any, int, int, dict[str, Any], dict[str, Any], int, int]] = {
    "SNGAN, CIFAR-10": (sngan, 32, 128, {}, {}, 4_276_739, 1_053_824),  # in mimicry D's output has a bias
    "SNGAN, STL-10": (sngan, 48, 128, {}, {}, 4_878_083, 10_141_441),
    "SNGAN, 64 pixels": (sngan, 64, 128, {}, {}, 12_220_675, 10_141_441),
    "WGAN-GP, CIFAR-10": (wgan_gp, 32, 128, {}, {}, 1_204_483, 1_053_825),
    "WGAN-GP, 64 pixels": (wgan_gp, 64, 128, {}, {}, 8_540_483, 7_491_841),
    "BigGAN, CIFAR-10": (biggan, 32, 128, OWN, OWN, 4_304_387, 4_207_361),
    "BigGAN with all parts": (
        biggan, 32, 128, OWN | {"shared_dim": 128, "hierarchical": True, "attention": [16]}, OWN, 4_455_172, 4_207_361,
    ),
    "R3GAN, CIFAR-10": (r3gan, 32, 64, OWN, OWN, 20_781_952, 21_280_512),
    "R3GAN, FFHQ-64": (r3gan, 64, 64, {}, {}, 22_429_824, 22_381_440),
    "R3GAN, FFHQ-256": (r3gan, 256, 64, {}, {}, 23_057_952, 23_009_568),
    "R3GAN, ImageNet-32": (r3gan, 32, 64, WIDE, WIDE, 82_914_304, 86_548_992),
    "R3GAN, ImageNet-64": (r3gan, 64, 64, EVEN, EVEN, 103_570_432, 107_205_120),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_of_parameters_are_the_published_ones(name: str) -> None:
    arch, side, z_dim, of_g, of_d, params_g, params_d = PUBLISHED[name]
    if arch in (sngan, biggan):  # spectral normalization adds no parameters, but takes time
        of_g, of_d = of_g | {"spectral_norm": False}, of_d | {"spectral_norm": False}
    with torch.device("meta"):
        found = size(arch.Generator(image(side), z_dim, **of_g)), size(arch.Discriminator(image(side), **of_d))
    assert found == (params_g, params_d)


def test_parameters_of_wgan_gp_by_hand() -> None:
    """Weights of 3x3, of 1x1 and of linear layers, and biases, as in gan_cifar_resnet.py and gan_64x64.py."""

    def conv(n_in: int, n_out: int, side: int = 3) -> int:
        return n_in * n_out * side * side

    n = 128
    block = 2 * conv(n, n) + 2 * n  # two convolutions with biases
    shortcut = conv(n, n, 1) + n
    G = 128 * 16 * n + 16 * n + 3 * (block + shortcut + 4 * n) + 2 * n + conv(n, 3) + 3  # two batch norms in a block
    first = conv(3, n) + conv(n, n) + conv(3, n, 1) + 3 * n
    D = first + (block + shortcut) + 2 * block + n + 1
    assert PUBLISHED["WGAN-GP, CIFAR-10"][-2:] == (G, D)
    G, widths = 128 * 16 * 512 + 16 * 512, [512, 512, 256, 128, 64]
    for a, b in pairwise(widths):  # the first convolution has no biases
        G += 2 * a + conv(a, b) + 2 * b + conv(b, b) + b + conv(a, b, 1) + b
    G += 2 * 64 + conv(64, 3) + 3
    D, widths = conv(3, 64) + 64, [64, 128, 256, 512, 512]
    for a, b in pairwise(widths):  # two layer norms of `a` channels
        D += 2 * a + conv(a, a) + 2 * a + conv(a, b) + b + conv(a, b, 1) + b
    D += 16 * 512 + 1
    assert PUBLISHED["WGAN-GP, 64 pixels"][-2:] == (G, D)


def test_projection_makes_sngan_the_network_of_miyato_and_koyama() -> None:
    """mimicry's cGAN-PD has 4,304,387 and 1,055,105 parameters, one of which is the bias of D's last layer."""
    spec, condition = image(32), Condition("batch_norm", "projection")
    G = condition.complete_generator(sngan.Generator(spec, 128), spec)
    D = condition.complete_discriminator(sngan.Discriminator(spec), spec)
    assert (size(G), size(D)) == (4_304_387, 1_055_104)
    norms = [layer for layer in G.modules() if isinstance(layer, UnconditionalBatchNorm2d)]
    assert [layer.num_features for layer in norms] == [256]  # the last one has no gains for each class
    assert is_parametrized(D.embed, "weight")


def test_condition_own_of_biggan_has_the_layers_of_projection() -> None:
    """The same numbers of parameters; they differ in the initial weights only."""
    spec, condition = image(32), Condition("batch_norm", "projection")
    G = condition.complete_generator(biggan.Generator(spec, 128, width=8), spec)
    D = condition.complete_discriminator(biggan.Discriminator(spec, width=8), spec)
    own = biggan.Generator(spec, 128, width=8, num_classes=10), biggan.Discriminator(spec, width=8, num_classes=10)
    assert (size(G), size(D)) == (size(own[0]), size(own[1]))


SHAPES = [(8, 8), (28, 28), (32, 32), (48, 48), (64, 64), (64, 96), (96, 48), (32, 128), (128, 128)]


@pytest.mark.slow
@each_arch
@pytest.mark.parametrize("channels", [1, 3])
def test_every_arch_makes_images_of_every_shape(arch: Any, channels: int) -> None:
    for height, width in SHAPES:
        spec = image(height, width, channels)
        G, D = arch.Generator(spec, z_dim=5, width=2).eval(), arch.Discriminator(spec, width=2)
        fake = G(torch.randn(2, 5))
        assert fake.shape == (2, channels, height, width)
        assert fake.abs().max() <= 1
        assert D(fake).shape == (2,)
        features = D.features(fake)
        assert features.shape[0] == 2
        torch.testing.assert_close(D.eval().output(D.features(fake)).flatten(), D(fake))


@pytest.mark.slow
@each_arch
def test_every_arch_makes_images_of_256_pixels(arch: Any) -> None:
    spec = image(256, 192)
    G, D = arch.Generator(spec, z_dim=5, width=2), arch.Discriminator(spec, width=2)
    assert D(G(torch.randn(2, 5))).shape == (2,)


WRONG = [(7, 7), (36, 36), (512, 512), (32, 36), (8, 300), (4, 64)]


@each_arch
def test_other_shapes_are_refused_before_any_work(arch: Any) -> None:
    for height, width in WRONG:
        for net in (lambda spec: arch.Generator(spec, z_dim=5), arch.Discriminator):
            with pytest.raises(ValueError, match=f"{height}x{width}.*use arch=mlp"):
                net(image(height, width))
    for spec in (DataSpec((1,)), image(32, channels=2)):
        with pytest.raises(ValueError, match=r"makes images of 1 or 3 channels, .* use arch=mlp"):
            arch.Generator(spec, z_dim=5)


def test_resampling_convolutions_are_those_of_the_papers() -> None:
    """Doubling by repetition before a 3x3 convolution, and means of 2x2 values after one, at borders, too."""
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    up, down = resnet.UpConv2d(3, 5).double(), resnet.DownConv2d(3, 5).double()
    plain = F.conv2d(F.interpolate(x, scale_factor=2), up.weight, up.bias, padding=1)
    torch.testing.assert_close(up(x), plain)
    torch.testing.assert_close(down(x), F.avg_pool2d(F.conv2d(x, down.weight, down.bias, padding=1), 2))


def test_blocks_are_those_of_the_papers() -> None:
    x = torch.randn(4, 6, 8, 8, dtype=torch.float64)
    up = resnet.UpBlock(6, 5, nn.BatchNorm2d).double()
    h = F.interpolate(F.relu(up.norm1(x)), scale_factor=2)
    h = F.relu(up.norm2(F.conv2d(h, up.conv1.weight, up.conv1.bias, padding=1)))
    torch.testing.assert_close(up(x), up.conv2(h) + up.shortcut(F.interpolate(x, scale_factor=2)))
    down = resnet.DownBlock(6, 5, 7).double()
    h = F.conv2d(F.relu(down.conv1(F.relu(x))), down.conv2.weight, down.conv2.bias, padding=1)
    torch.testing.assert_close(down(x), F.avg_pool2d(h + down.shortcut(x), 2))
    first = resnet.DownBlock(6, 5, 5, first=True).double()  # of images: without the first ReLU
    h = F.conv2d(F.relu(first.conv1(x)), first.conv2.weight, first.conv2.bias, padding=1)
    torch.testing.assert_close(first(x), F.avg_pool2d(h + first.shortcut(x), 2))
    flat = resnet.DownBlock(6, 6, 6, down=False).double()
    torch.testing.assert_close(flat(x), x + flat.conv2(F.relu(flat.conv1(F.relu(x)))))


def test_the_input_of_a_block_stays_as_it_is() -> None:
    """Common bug: an in-place ReLU that also changes the shortcut."""
    x = torch.randn(4, 6, 8, 8)
    for block in (resnet.UpBlock(6, 6, nn.BatchNorm2d), resnet.DownBlock(6, 6, 6), resnet.DownBlock(6, 6, 6, False)):
        before = x.clone()
        block(x)
        assert torch.equal(x, before)


def test_resampling_of_r3gan_by_hand() -> None:
    """The filter [1, 3, 3, 1] on both axes, with zeros outside of the image: of constants it keeps the interior."""
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 1, 1] = 16.0
    up = r3gan.Upsample(2, 2)(x)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    expected = torch.zeros(8, 8)
    expected[1:5, 1:5] = torch.outer(taps, taps)
    torch.testing.assert_close(up[0, 0], expected)
    assert up[0, 1].abs().max() == 0
    ones = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(r3gan.Downsample(2, 2)(ones)[0, 0, 1:-1, 1:-1], torch.ones(2, 2))
    assert r3gan.Downsample(2, 2)(ones)[0, 0, 0, 1].item() == pytest.approx(7 / 8)  # one of 1, 3, 3, 1 is outside
    torch.testing.assert_close(r3gan.Upsample(2, 2)(ones)[0, 0, 1:-1, 1:-1], torch.ones(14, 14))


def test_initial_weights_of_r3gan() -> None:
    """Blocks start as the identity; others N(0, gain^2 / inputs), gain^2 = 2 / 1.04 / sqrt(number of blocks)."""
    torch.manual_seed(0)
    G = r3gan.Generator(image(32), z_dim=64, width=64, group_width=16)
    blocks = [layer for layer in G.modules() if isinstance(layer, r3gan.Block)]
    assert len(blocks) == 8
    assert all(block.conv3.weight.abs().max() == 0 for block in blocks)
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(blocks[0](x), x)
    gain = (2 / 1.04) ** 0.5 * 8**-0.25
    assert blocks[0].conv1.weight.std().item() == pytest.approx(gain / 64**0.5, rel=0.03)
    assert blocks[0].conv2.weight.shape == (128, 16, 3, 3)
    assert blocks[0].conv2.weight.std().item() == pytest.approx(gain / 144**0.5, rel=0.03)
    assert blocks[0].conv1.bias.abs().max() == 0
    assert G.basis.std().item() == pytest.approx(1, rel=0.1)
    assert G.input(torch.randn(500, 64)).std().item() == pytest.approx(1, rel=0.1)
    D = r3gan.Discriminator(image(32), width=64, num_classes=10)
    assert D.basis.std().item() == pytest.approx(1 / 4, rel=0.1)
    assert D.embed.weight.std().item() == pytest.approx(1 / 640**0.5, rel=0.1)


def test_initial_weights_of_the_residual_networks() -> None:
    """Glorot's uniform weights, times sqrt(2) in 3x3 convolutions of blocks; N(0, .02) in BigGAN; biases 0."""
    torch.manual_seed(0)

    def bound(layer: nn.Module, gain: float) -> bool:
        weight: Tensor = layer.weight
        limit = gain * (6 / (weight[0].numel() + weight[:, 0].numel())) ** 0.5
        return 0.97 * limit < weight.abs().max().item() <= limit * 1.0001

    for G in (sngan.Generator(image(32), 16, width=8), wgan_gp.Generator(image(64), 16, width=8)):
        block = G.blocks[0]
        assert bound(block.conv1, 2**0.5)
        assert bound(block.conv2, 2**0.5)
        assert bound(block.shortcut, 1)
        assert bound(G.input, 1)
        assert bound(G.output, 1 if isinstance(G, sngan.Generator) else 2**0.5)
        assert block.conv2.bias.abs().max() == 0
    D = wgan_gp.Discriminator(image(64), width=8)
    assert bound(D.blocks[0], 1)
    assert bound(D.blocks[1].conv1, 2**0.5)
    big = biggan.Generator(image(32), 128, width=16, num_classes=10, spectral_norm=False)
    for layer in (big.input, big.blocks[0].conv1, big.blocks[0].norm1.gain, big.output):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_spectral_norm_is_where_the_papers_have_it() -> None:
    kinds = (nn.Linear, nn.Conv2d)

    def normalized(net: nn.Module) -> set[bool]:
        return {is_parametrized(layer, "weight") for layer in net.modules() if isinstance(layer, kinds)}

    spec = image(32)
    assert normalized(sngan.Generator(spec, 8, width=2)) == {False}
    assert normalized(sngan.Discriminator(spec, width=2)) == {True}
    assert normalized(wgan_gp.Discriminator(spec, width=2)) == {False}
    assert normalized(r3gan.Discriminator(spec, width=2)) == {False}
    G = biggan.Generator(spec, 8, width=2, num_classes=10, shared_dim=4, hierarchical=True, attention=[16])
    assert normalized(G) == {True}
    assert not is_parametrized(G.shared, "weight")  # not of embeddings in G,
    assert is_parametrized(biggan.Discriminator(spec, width=2, num_classes=10).embed, "weight")  # but in D
    D = sngan.Discriminator(spec, width=8).eval()
    for block in D.blocks:
        matrix = block.conv1.weight.flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=0.1)


def test_attention_starts_as_the_identity_and_mixes_all_positions() -> None:
    torch.manual_seed(0)
    layer, x = biggan.Attention(16), torch.randn(2, 16, 7, 4)
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.gamma.fill_(1.0)
    changed = x.clone()
    changed[:, :, 0, 0] += 1
    assert (layer(changed) - layer(x))[:, :, 6, 3].abs().max() > 0


def test_hierarchical_z_reaches_every_block() -> None:
    """Each part of z changes the image, and the shared embedding of the class does."""
    torch.manual_seed(0)
    G = biggan.Generator(image(32), 16, width=4, num_classes=10, shared_dim=4, hierarchical=True).eval()
    z, y = torch.randn(1, 16), torch.tensor([3])
    for part in range(4):
        other = z.clone()
        other[:, 4 * part] += 1
        assert not torch.equal(G(other, y), G(z, y))
    assert not torch.equal(G(z, torch.tensor([4])), G(z, y))


def test_r3gan_clips_samples_only_in_eval_mode() -> None:
    torch.manual_seed(0)
    G, z = r3gan.Generator(image(32), z_dim=4, width=8), torch.randn(50, 4)
    assert G(z).abs().max() > 1
    torch.testing.assert_close(G.eval()(z), G.train()(z).clamp(-1, 1))


@pytest.mark.parametrize("arch", [biggan, r3gan])
def test_missing_labels_are_reported(arch: Any) -> None:
    spec = image(32)
    for net, x in ((arch.Generator(spec, 4, width=2, num_classes=10), torch.randn(2, 4)),
                   (arch.Discriminator(spec, width=2, num_classes=10), torch.zeros(2, 3, 32, 32))):  # fmt: skip
        with pytest.raises(ValueError, match="was given none"):
            net(x)


REFUSED = [
    (sngan.Generator, {"width": 0}, "width=0: must be at least 1"),
    (sngan.Generator, {"multiples": [4, 4]}, "must have 4 numbers for SNGAN of 32x32 pixels"),
    (sngan.Generator, {"multiples": [4, 4, 4, 0]}, "must be whole numbers of at least 1"),
    (biggan.Generator, {"attention": [20]}, "no feature maps of side 20; their shorter sides are 8, 16, 32"),
    (biggan.Generator, {"hierarchical": True, "z_dim": 10}, "splits z into 4 parts"),
    (biggan.Generator, {"hierarchical": True, "z_dim": 8, "num_classes": 3}, "as in shared_dim=128"),
    (biggan.Generator, {"shared_dim": -1}, "shared_dim=-1: must be at least 0"),
    (r3gan.Generator, {"depth": 0}, "depth=0: must be at least 1"),
    (r3gan.Generator, {"width": 20}, "does not divide the 40 inner channels .* multiples of 8"),
    (r3gan.Generator, {"group_width": 0}, "group_width=0: must be at least 1"),
    (r3gan.Generator, {"widths": [8, 8]}, "must be 4 whole numbers of at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("net", "settings", "message"), REFUSED)
def test_settings_that_cannot_work_are_refused(net: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        net(image(32), **({"z_dim": 4} | settings))
    assert not re.search("\n", str(caught.value))
