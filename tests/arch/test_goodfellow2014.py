"""The networks and training settings of Goodfellow et al. 2014, against the authors' configuration."""

import math
from pathlib import Path

import pytest
import torch
from conftest import Here
from helpers import run_of, write_mnist
from torch import nn

from ganrun.arch.goodfellow2014 import Discriminator, Generator
from ganrun.arch.maxout import BoundedLinear, Deconvolution, Maxout, MaxoutConv
from ganrun.data.dataset import DataSpec, Split, contrast_normalized
from ganrun.records.checkpoint import load_newest
from ganrun.training.game import Game

MNIST = DataSpec((1, 28, 28), (0.0, 1.0))
CIFAR = DataSpec((3, 32, 32), (-1.0, 1.0)).normalized(55)
SMALL = DataSpec((1, 4, 4), (0.0, 1.0))


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_sizes_are_those_of_the_paper() -> None:
    assert count(Generator(MNIST, 100)) == 101 * 1200 + 1201 * 1200 + 1201 * 784 == 2_503_984
    assert count(Discriminator(MNIST)) == 785 * 1200 + 241 * 1200 + 241 == 1_231_441


def test_maxout_is_the_maximum_of_its_pieces_without_an_extra_zero() -> None:
    layer = Maxout(1, units=2, pieces=2)
    layer.linear.weight.data = torch.tensor([[1.0], [2.0], [-1.0], [-3.0]])
    layer.linear.bias.data = torch.tensor([0.0, -1.0, 0.0, 0.0])
    assert layer(torch.tensor([[3.0], [0.5]])).tolist() == [[5.0, -3.0], [0.5, -0.5]]


def test_convolutional_maxout_has_the_output_sizes_of_the_authors_code() -> None:
    """Pooling in ceil mode: in floor mode 33 gives 15, and the later layers do not have 4,800 features."""
    x, sides = torch.zeros(2, 3, 32, 32), []
    for channels, kernel, padding, pool, stride in ((32, 8, 4, 4, 2), (32, 8, 3, 4, 2), (192, 5, 3, 2, 2)):
        layer = MaxoutConv(x.shape[1], channels, 2, kernel, padding, pool, stride)
        sides.append(layer.conv(x).shape[2])
        x = layer(x)
        sides.append(x.shape[2])
    assert sides == [33, 16, 15, 7, 9, 5]
    assert x[0].numel() == 4800


def test_convolutional_maxout_is_the_maximum_over_channels() -> None:
    layer = MaxoutConv(1, 1, pieces=2, kernel=1, padding=0, pool=1, pool_stride=1)
    layer.conv.weight.data = torch.tensor([2.0, -1.0]).view(2, 1, 1, 1)
    layer.conv.bias.data.zero_()
    assert layer(torch.tensor([[[[3.0, -3.0]]]])).flatten().tolist() == [6.0, 3.0]


def test_deconvolution_has_a_bias_for_each_pixel_and_outputs_32x32() -> None:
    layer = Deconvolution(10, 80, (3, 32, 32), kernel=5, stride=3)
    assert layer.bias.shape == (3, 32, 32)
    layer.bias.data[2, 31, 0] = 7.0
    made = layer(torch.zeros(1, 8000))
    assert made.shape == (1, 3, 32, 32)
    assert (made[0, 2, 31, 0], made.abs().sum()) == (7.0, 7.0)


def test_initial_weights_are_within_their_ranges() -> None:
    torch.manual_seed(0)
    G = Generator(SMALL, 10, [300, 400], ["relu", "sigmoid"], bias=[0, -2], irange=0.05, output_irange=0.5)
    D = Discriminator(SMALL, hidden=[100, 100], irange=0.005)
    linear = [m for m in D.modules() if isinstance(m, nn.Linear)]
    for layer, r in [(G.hidden[0], 0.05), (G.hidden[1], 0.05), (G.output, 0.5), *((m, 0.005) for m in linear)]:
        assert layer.weight.abs().max() <= r
        assert layer.weight.std().item() == pytest.approx(r / math.sqrt(3), rel=0.1)
    assert [layer.bias.unique().tolist() for layer in G.hidden] == [[0.0], [-2.0]]
    assert all(not layer.bias.any() for layer in linear)


def test_sparse_output_has_the_given_number_of_weights_per_unit() -> None:
    torch.manual_seed(0)
    G = Generator(MNIST, 10, [10, 300], ["relu", "sigmoid"], output_sparse=100)
    assert (G.output.weight != 0).sum(1).unique().tolist() == [100]
    chosen = G.output.weight[G.output.weight != 0]
    assert chosen.std().item() == pytest.approx(1, abs=0.02)
    assert (G.output.weight != 0).any(0).all()  # units do not all have the same 100 inputs


def test_generator_starts_at_the_mean_of_the_data() -> None:
    x = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8)
    x[:, :, 0, 0] = 0  # a pixel that is always black, whose logit must be finite
    G = Generator(SMALL, 2, [3], ["relu"], irange=0.0, examples=Split(x))
    mean = x.float().mean(0) / 255
    assert torch.allclose(G(torch.randn(5, 2)), mean.expand(5, 1, 4, 4), atol=1e-6)
    assert G.output.bias.min().item() == pytest.approx(math.log(1e-7), rel=1e-3)


def test_output_is_within_the_range_of_the_data() -> None:
    G = Generator(DataSpec((1, 4, 4), (-1.0, 1.0)), 2, [3], ["relu"], irange=50.0)
    x = G(100 * torch.randn(100, 2))
    assert G.output_range == (-1.0, 1.0)
    assert (x.min(), x.max()) == (-1.0, 1.0)


def test_dropout_has_the_rates_and_scales_of_the_authors_code() -> None:
    D = Discriminator(MNIST)
    drops = [layer for layer in D.modules() if isinstance(layer, nn.Dropout)]
    assert [drop.p for drop in drops] == [0.2, 0.5, 0.5]  # on the inputs of the first, the second and the output layer
    kept = drops[0](torch.ones(100_000))
    assert kept.unique().tolist() == [0.0, 1.25]
    assert (kept > 0).float().mean().item() == pytest.approx(0.8, abs=0.01)
    x = torch.rand(3, 1, 28, 28)
    assert not torch.equal(D(x), D(x))
    D.eval()
    assert torch.equal(D(x), D(x))


def test_max_norm_shortens_only_long_weights() -> None:
    layer = BoundedLinear(2, 2, max_norm=1.0)
    layer.weight.data = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    layer.constrain()
    assert torch.allclose(layer.weight, torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    free = BoundedLinear(2, 2)
    before = free.weight.clone()
    free.constrain()
    assert torch.equal(free.weight, before)


TINY = [
    "data=digits",
    "data.value_range=[0,1]",
    "arch=goodfellow2014_mnist",
    "arch.generator.hidden=[20,20]",
    "arch.discriminator.hidden=[8,8]",
    "loss=half_weighted",
    "train.update=simultaneous",
    "train.batch_size=20",
    "train.threads=1",
    "optimizer=goodfellow2014_mnist",
]


@pytest.mark.parametrize("update", ["simultaneous", "alternating"])
def test_max_norm_holds_after_every_update_of_both_networks(update: str) -> None:
    """Common bugs: norms that are bounded only at the start, or only in D."""
    bounds = ["+arch.generator.max_norm=0.2", "+arch.discriminator.max_norm=0.01"]
    run = run_of(*TINY, *bounds, f"train.update={update}", "optimizer.lr=1")
    game = Game(run)
    for step in range(3):
        game.step(step)
        for net, bound in ((run.G, 0.2), (run.D, 0.01)):
            norms = torch.cat([m.weight.norm(dim=1) for m in net.modules() if isinstance(m, nn.Linear)])
            assert norms.max() <= bound * (1 + 1e-6)
            assert norms.max() >= bound * (1 - 1e-6)  # at this learning rate the bound is reached


def test_both_players_share_fakes_and_masks() -> None:
    """The authors' code computes both gradients from one pass of D; other dropout masks would give other logits."""
    run = run_of(*TINY)
    d, g = Game(run).step(0)
    shared = nn.functional.softplus(-d.fake_logits).mean()
    assert g.loss.item() == shared.item()


def test_momentum_and_rate_follow_the_authors_schedules() -> None:
    run = run_of(
        *TINY, "data.num_valid=397", "data.num_test=400",  # 1,000 training images: 50 steps of 20 per epoch
        "schedule=exponential_goodfellow2014", "schedule@momentum=momentum_goodfellow2014",
    )  # fmt: skip
    assert len(run.dataset.train) == 1000
    game = Game(run)
    for step, epoch in ((0, 1), (49, 1), (50, 2), (50 * 125 - 1, 125), (50 * 249, 250), (50 * 999, 1000)):
        game.step(step)
        for optimizer in (run.g_optimizer, run.d_optimizer):
            (group,) = optimizer.param_groups
            assert group["momentum"] == pytest.approx(0.5 + 0.2 * min((epoch - 1) / 249, 1))
            assert group["lr"] == pytest.approx(max(0.1 / 1.000004**step, 1e-6), rel=1e-9)


def test_one_update_equals_classical_momentum() -> None:
    """v <- mu v - lr g; w <- w + v, with both players' gradients at the same parameters."""
    run = run_of(*TINY, "arch.discriminator.input_dropout=0", "arch.discriminator.dropout=0")
    game = Game(run)
    before = [p.detach().clone() for p in run.D.parameters()]
    first, _ = game.step(0)
    between = [p.detach().clone() for p in run.D.parameters()]
    second, _ = game.step(1)
    for p0, p1, p2, g0, g1 in zip(before, between, run.D.parameters(), first.grads, second.grads, strict=True):
        assert torch.allclose(p1, p0 - 0.1 * g0, atol=1e-6)
        assert torch.allclose(p2, p1 - 0.1 * (0.5 * g0 + g1), atol=1e-6)


def test_contrast_normalized_images_have_the_given_norm_and_mean_zero() -> None:
    x = contrast_normalized(torch.randint(0, 256, (6, 3, 32, 32)).float(), 55)
    assert torch.allclose(x.flatten(1).norm(dim=1), torch.full((6,), 55.0))
    assert torch.allclose(x.mean(dim=(1, 2, 3)), torch.zeros(6), atol=1e-5)
    assert torch.equal(contrast_normalized(torch.full((1, 3, 4, 4), 7.0), 55), torch.zeros(1, 3, 4, 4))


def test_spec_of_normalized_images_matches_the_data() -> None:
    run = run_of("data=digits", "data.gcn=10", "arch=goodfellow2014_cifar_fc", "arch.generator.hidden=[20,20]")
    x, _ = run.batches[0]
    spec = run.dataset.spec
    assert (spec.value_range, spec.mean, spec.std) == (None, 0.0, 10 / 8)
    assert torch.allclose(x.flatten(1).norm(dim=1), torch.full((len(x),), 10.0), rtol=1e-5)
    assert spec.encode(torch.tensor([-99.0, 0.0, 99.0])).tolist() == [0, 128, 255]


def test_pixels_are_scaled_to_the_requested_range() -> None:
    usual, unit = run_of("data=digits").dataset.spec, run_of("data=digits", "data.value_range=[0,1]", "arch=mlp")
    spec, (x, _) = unit.dataset.spec, unit.batches[0]
    assert (x.min(), x.max()) == (0, 1)
    train = spec.decode(unit.dataset.train.x)
    assert (spec.mean, spec.std) == (pytest.approx(train.mean().item()), pytest.approx(train.std().item(), rel=1e-3))
    assert spec.std == pytest.approx(usual.std / 2)
    pixels = unit.dataset.train.x[:5]
    assert torch.equal(spec.encode(spec.decode(pixels)), pixels)


def test_value_range_without_effect_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    run_of("data.value_range=[0,1]")
    assert "data.value_range has no effect" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.value_range=[1,0]"], "data.value_range=[1,0]: must be two numbers in ascending order"),
        (["data.value_range=3"], "data.value_range=3: must be two numbers"),
        (["data.gcn=-1"], "data.gcn=-1: must be greater than 0, and needs images"),
        (["data.gcn=55"], "arch.generator.output=sigmoid: is bounded, but the data are not"),
        (["arch.generator.activation=[relu]"], "arch.generator.activation=['relu']: must have 2 entries"),
        (["arch.generator.hidden=[]"], "arch.generator.hidden=[]: must be at least one size"),
        (["+arch.generator.output_sparse=50"], "arch.generator.output_sparse=50: must lie between 1 and 20"),
        (["+arch.generator.max_norm=[1,1]"], "arch.generator.max_norm=[1, 1]: must be one number, or 3"),
        (["+arch.generator.max_norm=0"], "arch.generator.max_norm=0: must be greater than 0"),
        (
            ["+arch.generator.deconvolution=[5,3,2]"],
            "arch.generator.deconvolution=[5, 3, 2]: 20 units are not 5 square",
        ),
        (
            ["+arch.discriminator.convolutions=[[4,99,0,2,2]]"],
            "arch.discriminator.convolutions=[[4, 99, 0, 2, 2]]: do not fit",
        ),
        (["arch.generator.irange=-1"], "arch.generator.irange=-1: must be at least 0"),
        (["arch.discriminator.irange=-1"], "arch.discriminator.irange=-1: must be at least 0"),
        (["arch.discriminator.dropout=1"], "arch.discriminator.dropout=1: must lie in [0, 1)"),
        (["arch.generator.spectral_norm=true", "+arch.generator.max_norm=1"], "spectral_norm=true: bounds the weights"),
        (
            ["schedule@momentum=momentum_goodfellow2014", "optimizer=adam"],
            "momentum: this optimizer (Adam) has no",
        ),
        (["data=heights", "data.gcn=1", "arch=mlp"], "data.gcn=1: must be greater than 0, and needs images"),
    ],
)
def test_invalid_settings_are_refused_with_one_sentence(overrides: list[str], message: str) -> None:
    chosen = {override.partition("=")[0]: override for override in [*TINY, *overrides]}
    with pytest.raises(ValueError, match=r"[.]") as error:
        run_of(*chosen.values())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_grown_generator_is_the_old_one_behind_new_layers() -> None:
    first = Generator(SMALL, 5, [7, 6], ["relu", "sigmoid"])
    grown = Generator(SMALL, 5, [9, 5, 7, 6], ["relu", "sigmoid", "relu", "sigmoid"])
    before = grown.hidden[0].weight.clone()
    grown.load_state_dict(grown.adapted(first.state_dict()))
    z = torch.randn(3, 5)
    inner = torch.sigmoid(grown.hidden[1](torch.relu(grown.hidden[0](z))))
    assert torch.allclose(grown(z), first(inner), atol=1e-6)
    assert torch.equal(grown.hidden[0].weight, before)


def test_growing_is_refused_unless_the_old_layers_are_the_last_ones() -> None:
    grown = Generator(SMALL, 5, [9, 5, 7, 6], ["relu", "sigmoid", "relu", "sigmoid"])
    other = Generator(SMALL, 5, [7, 8], ["relu", "sigmoid"])
    with pytest.raises(ValueError, match=r"has 2 hidden layers, which are not the last of this one's 4 \(hidden"):
        grown.adapted(other.state_dict())
    with pytest.raises(ValueError, match="has 4 hidden layers, which are not the last of this one's 2"):
        other.adapted(grown.state_dict())


STAGE = [*TINY, "train.ema=0.9", "train.log_every=1", "train.sample_every=0", "train.diagnose=false"]
GROWN = [
    *STAGE, "train.steps=2", "init_from=first", "init.nets=generator", "init.same_data=true",
    "arch.generator.hidden=[9,100,20,20]", "arch.generator.activation=[relu,sigmoid,relu,relu]",
]  # fmt: skip


@pytest.mark.slow
def test_second_stage_grows_the_first_and_resumes_without_it(here: Here, tmp_path: Path) -> None:
    assert here(*STAGE, "train.steps=3", "run_dir=first")[0] == 0
    assert here(*GROWN, "run_dir=second")[0] == 0
    first, second = (load_newest(tmp_path / name / "checkpoints") for name in ("first", "second"))
    for net in ("G", "G_ema"):  # changed by only two steps
        for old, new in (("hidden.0", "hidden.2"), ("hidden.1", "hidden.3"), ("output", "output")):
            assert torch.allclose(second[net][f"{new}.weight"], first["G"][f"{old}.weight"], atol=0.01)
    assert not torch.allclose(second["D"]["output.weight"], first["D"]["output.weight"], atol=0.001)  # a new D
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    (tmp_path / "second/result.json").unlink()
    assert here("resume", "run_dir=second")[0] == 0
    code, _, err = here(*GROWN, "run_dir=third")
    assert (code, err) == (2, "init_from=first: no run there (it has no config.yaml).\n")
    assert not (tmp_path / "third").exists()


@pytest.mark.slow
def test_second_stage_with_other_data_or_another_shape_is_refused(here: Here, tmp_path: Path) -> None:
    assert here(*STAGE, "train.steps=1", "run_dir=first")[0] == 0
    code, _, err = here(*GROWN, "data.num_test=100", "run_dir=second")
    assert code == 2
    assert err.startswith("init_from=first: was trained on other data, possibly on this run's test data: ")
    assert err.endswith("Use the same data, and the same data.fold, for both runs.\n")
    code, _, err = here(*GROWN, "arch.generator.hidden=[9,100,20,30]", "run_dir=second")
    assert code == 2
    assert err.startswith("init_from=first: its generator has 2 hidden layers, which are not the last of this one's 4")
    same_data = ["data=digits", "data.value_range=[0,1]", "init.same_data=true"]
    code, _, err = here(*same_data, "arch=mlp", "init_from=first", "run_dir=second")  # arch=mlp cannot grow
    assert code == 2
    assert err.startswith("init_from=first: its generator does not fit this one: ")
    assert not (tmp_path / "second").exists()


def test_mnist_experiment_has_the_sizes_and_settings_of_the_paper(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=150)
    run = run_of("experiment=goodfellow2014/mnist", f"data.root={tmp_path}", "data.verify=false", "data.num_valid=10")
    assert (count(run.G), count(run.D)) == (2_503_984, 1_231_441)
    assert (run.dataset.spec.value_range, run.options.update, run.options.batch_size) == ((0, 1), "simultaneous", 100)
    z = run.latent(20_000)
    assert z.var().item() == pytest.approx(1, abs=0.01)
    assert z.abs().max() <= math.sqrt(3)
