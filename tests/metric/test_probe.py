"""metric=linear_probe: features from which the classes can, and cannot, be read."""

import numpy as np
import pytest
import torch
from planted import networks_for
from torch import Tensor, nn

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.digits import digits
from ganrun.metric.probe import LinearProbe, accuracy


class Reads(nn.Module):
    """A D whose feature is the product of the two values of x."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.scale * (x[:, :1] * x[:, 1:])

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.scale[0] * x[:, 0]


def xor(num: int = 400) -> Dataset:
    """The class is the sign of the product of two values, which no linear function of these finds."""
    random = torch.Generator().manual_seed(0)

    def split() -> Split:
        x = torch.randn(num, 2, generator=random)
        return Split(x, (x[:, 0] * x[:, 1] > 0).long())

    return Dataset(DataSpec((2,), classes=("-", "+")), split(), split(), split())


def test_features_that_hold_the_class_are_read_and_pixels_are_not() -> None:
    data = xor()
    probe = LinearProbe([100], seeds=2, layers="last")
    probe.check(data)
    found = probe(torch.zeros(1, 2), data, networks=networks_for(data.spec, Reads()))
    assert found["probe_d_valid_100"] > 0.9
    assert found["probe_pixels_valid_100"] == pytest.approx(0.5, abs=0.1)
    assert found["probe_random_valid_100"] != found["probe_d_valid_100"]
    assert 0 <= found["probe_d_valid_100_std"] < 0.05


@pytest.mark.slow
def test_more_labels_help_on_digits() -> None:
    data = digits()
    probe = LinearProbe([20, 300], seeds=2)
    found = probe(torch.zeros(1, *data.spec.shape), data, networks=networks_for(data.spec))
    assert found["probe_pixels_valid_300"] > found["probe_pixels_valid_20"] + 0.1
    assert found["probe_pixels_valid_300"] > 0.85


def test_the_best_strength_is_chosen() -> None:
    """Too strong a penalty leaves the intercept alone, which predicts the larger class."""
    random = np.random.default_rng(0)
    y = (random.random(600) < 0.2).astype(int)
    x = 6 * y[:, None] + random.normal(size=(600, 2))
    train, test = (x[:100], y[:100]), (x[100:], y[100:])
    assert accuracy(train, test, (1e-9,)) == (y[100:] == 0).mean()
    assert accuracy(train, test, (1e-9, 1.0)) == accuracy(train, test, (1.0,)) > 0.99


def test_settings_and_data_that_cannot_be_used() -> None:
    with pytest.raises(ValueError, match="num_labelled=5: must be at least 10"):
        LinearProbe([5])
    with pytest.raises(ValueError, match=r"C=\[0\]: must be one number or several, greater than 0"):
        LinearProbe(C=[0])
    with pytest.raises(ValueError, match=r"num_labelled=\[1000\]: there are 400 training examples"):
        LinearProbe([1000]).check(xor())
    with pytest.raises(ValueError, match="needs training and test examples with labels"):
        LinearProbe([10], split="test").check(digits(num_test=0))


def test_labelled_examples_of_one_class_predict_this_class() -> None:
    x, y = np.zeros((12, 2)), np.array([0] * 11 + [1])
    assert accuracy((x[:10], y[:10]), (x, y), [0.01, 1.0]) == pytest.approx(11 / 12)
    assert accuracy((x[:10], y[:10]), (x, y), [1.0]) == pytest.approx(11 / 12)
