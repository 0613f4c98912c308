"""Layers that compare the samples of a batch, and spectral normalization, against values computed by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from ganrun.arch.layers import MinibatchDiscrimination, MinibatchStdDev, apply_spectral_norm
from ganrun.training.game import treats_samples_independently

BOTH = [MinibatchDiscrimination(3), MinibatchStdDev()]


def discrimination(weights: list) -> MinibatchDiscrimination:
    weight = torch.tensor(weights, dtype=torch.float64)
    layer = MinibatchDiscrimination(*weight.shape).double()
    layer.T.data.copy_(weight)
    return layer


def test_discrimination_sums_over_the_other_samples_only() -> None:
    """Common bug: the sum includes the sample itself, which adds 1 to each output."""
    layer = discrimination([[[1.0, 0.0], [0.5, 0.0]], [[0.0, 2.0], [0.0, 0.0]]])  # (2 features, 2 outputs, kernel 2)
    f = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    # Output 0: M = (f0, 2 f1), distances 1, 2, 3. Output 1: M = (f0 / 2, 0), distances 1/2, 0, 1/2.
    e = math.exp
    o = [[e(-1) + e(-2), e(-0.5) + 1], [e(-1) + e(-3), e(-0.5) + e(-0.5)], [e(-2) + e(-3), 1 + e(-0.5)]]
    torch.testing.assert_close(layer(f), torch.cat([f, torch.tensor(o, dtype=torch.float64)], 1))


def test_discrimination_of_one_sample_and_of_distant_ones_is_zero() -> None:
    layer = discrimination([[[1.0]]])
    assert layer(torch.ones(1, 1, dtype=torch.float64)).tolist() == [[1.0, 0.0]]
    far = torch.tensor([[0.0], [30.0]], dtype=torch.float64)
    assert layer(far)[:, 1].tolist() == pytest.approx([math.exp(-30)] * 2, rel=1e-9)  # not lost to rounding


def test_discrimination_starts_where_exp_has_a_gradient() -> None:
    torch.manual_seed(0)
    out = MinibatchDiscrimination(512)(torch.randn(64, 512))
    assert out.shape == (64, 512 + 16)
    assert 63 * math.exp(-3) < out[:, 512:].mean().item() < 63 * math.exp(-0.5)


def test_discrimination_gradients() -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(3, 2, 2).double()
    f = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, _: layer(f), (f, layer.T))
    assert torch.autograd.gradgradcheck(layer, (f,))  # for gradient penalties


def test_std_dev_of_the_whole_batch_by_hand() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 7.0]])
    # Column 0: variance (4 + 0 + 4) / 3; column 1: mean 3, variance (4 + 4 + 16) / 3.
    s = (math.sqrt(8 / 3) + math.sqrt(8)) / 2
    out = MinibatchStdDev(group=None)(x)
    torch.testing.assert_close(out, torch.cat([x, torch.full((3, 1), s)], 1))


def test_std_dev_groups_are_strided_as_published() -> None:
    """As in Karras et al., who reshape to (group, B / group, ...): sample i is in group i mod (B / group)."""
    x = torch.tensor([0.0, 10.0, 2.0, 16.0, 0.0, 10.0, 2.0, 16.0])[:, None]
    out = MinibatchStdDev(group=4)(x)[:, 1]
    torch.testing.assert_close(out, torch.tensor([1.0, 3.0] * 4))


def test_std_dev_if_the_group_size_does_not_divide_the_batch() -> None:
    x = torch.tensor([0.0, 1.0, 3.0, 1.0, 0.0, 5.0, 3.0])[:, None]  # 7 // 3 = 2 groups: samples 0 2 4 6 and 1 3 5
    out = MinibatchStdDev(group=3)(x)[:, 1]
    a, b = 1.5, math.sqrt(((4 / 3) ** 2 * 2 + (8 / 3) ** 2) / 3)
    torch.testing.assert_close(out, torch.tensor([a, b, a, b, a, b, a]))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8])
def test_std_dev_works_for_any_batch_size_and_adds_one_channel_to_images(size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(size, 3, 4, 5)
    out = MinibatchStdDev()(x)
    assert out.shape == (size, 4, 4, 5)
    assert torch.equal(out[:, :3], x)
    assert (out[:, 3] == out[:, 3, :1, :1]).all()
    if size == 1:
        assert out[0, 3, 0, 0].item() == pytest.approx(1e-4)
    elif size < 8:  # one group: the whole batch
        expected = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[:, 3], expected.expand(size, 4, 5))


def test_std_dev_gradients_are_correct_and_finite_for_equal_samples() -> None:
    torch.manual_seed(0)
    layer = MinibatchStdDev(group=2)
    x = torch.randn(5, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)
    same = torch.ones(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(same).sum(), same)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("layer", BOTH, ids=lambda layer: type(layer).__name__)
def test_minibatch_layers_declare_that_they_mix_samples(layer: nn.Module) -> None:
    assert treats_samples_independently(nn.Sequential(nn.Linear(3, 3)))
    assert not treats_samples_independently(nn.Sequential(nn.Linear(3, 3), layer))


@pytest.mark.parametrize("setting", ["in_features", "out_features", "kernel_dim"])
def test_invalid_sizes_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=0: must be at least 1"):
        MinibatchDiscrimination(**{"in_features": 3, setting: 0})
    with pytest.raises(ValueError, match="group=0: must be at least 1"):
        MinibatchStdDev(group=0)


def as_matrix(layer: nn.Module) -> Tensor:
    """The normalized weight as (outputs, all other dimensions). A transposed convolution stores its inputs first."""
    weight: Tensor = layer.weight.detach()  # type: ignore[assignment]
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        weight = weight.transpose(0, 1)
    return weight.flatten(1)


LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (2, 6)),
    "conv": (lambda: nn.Conv2d(3, 5, 3), (2, 3, 5, 5)),
    "conv_transpose": (lambda: nn.ConvTranspose2d(3, 7, 2), (2, 3, 4, 4)),
    "conv_transpose_1d": (lambda: nn.ConvTranspose1d(2, 9, 3), (2, 2, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_largest_singular_value_is_one(name: str) -> None:
    """Common bug: for a transposed convolution, a matrix with rows of inputs instead of outputs."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make()
    layer.weight.data.mul_(5)
    net = nn.Sequential(layer)
    assert apply_spectral_norm(net) is net
    for _ in range(200):
        layer(torch.randn(shape))
    net.eval()
    assert torch.linalg.matrix_norm(as_matrix(layer), ord=2).item() == pytest.approx(1, abs=1e-3)


def test_largest_singular_value_of_the_wrong_matrix_is_not_one() -> None:
    """The test above detects this: the two ways to reshape this weight to a matrix give different norms."""
    torch.manual_seed(0)
    weight = nn.ConvTranspose2d(3, 7, 2).weight.detach()
    right, wrong = (torch.linalg.matrix_norm(w.flatten(1), ord=2).item() for w in (weight.transpose(0, 1), weight))
    assert abs(right / wrong - 1) > 0.02


def vectors(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items() if key.endswith(("._u", "._v"))}


def test_power_iteration_runs_in_train_mode_only() -> None:
    """Common bug: a power iteration in every forward pass, so that evaluation changes the network."""
    torch.manual_seed(0)
    net = apply_spectral_norm(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 1)))
    net[0].parametrizations.weight.original.data.normal_()  # so that an iteration changes the vectors
    before = vectors(net)
    net.eval()(torch.randn(2, 20))
    assert all(torch.equal(before[key], value) for key, value in vectors(net).items())
    net.train()(torch.randn(2, 20))
    assert not torch.equal(before["0.parametrizations.weight.0._u"], vectors(net)["0.parametrizations.weight.0._u"])


def test_spectral_norm_is_saved_in_the_state_dict_and_resumes_from_it() -> None:
    """Common bug: singular vectors as plain attributes, which are random again after a resume."""
    torch.manual_seed(0)
    net, other = (apply_spectral_norm(nn.Sequential(nn.Linear(20, 30), nn.Conv1d(30, 2, 1))) for _ in range(2))
    assert len(vectors(net)) == 4  # u and v of two layers
    x = torch.randn(2, 20)
    net[0](x)
    other.load_state_dict(net.state_dict())
    for _ in range(3):
        assert torch.equal(net[0](x), other[0](x))
    assert all(torch.equal(value, vectors(other)[key]) for key, value in vectors(net).items())


def test_spectral_norm_is_applied_once_and_not_to_norm_layers() -> None:
    net = apply_spectral_norm(apply_spectral_norm(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))))
    assert len(net[0].parametrizations.weight) == 1
    assert type(net[1]) is nn.BatchNorm1d
    assert sorted(dict(net.named_parameters())) == [
        "0.bias", "0.parametrizations.weight.original", "1.bias", "1.weight",
    ]  # fmt: skip
