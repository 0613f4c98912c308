"""What D computes, at which layers and for which classes."""

import pytest
import torch
from torch import Tensor, nn

from ganrun.anomaly.networks import DView, pooled
from ganrun.arch import dcgan, mlp
from ganrun.condition import AuxiliaryClassifier
from ganrun.data.dataset import DataSpec

IMAGES = DataSpec((1, 28, 28), (-1.0, 1.0))


class Conditional(nn.Module):
    """logit = weight * x + class, features = (x, class)"""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        return torch.stack([x[:, 0], y.float()], 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.weight * x[:, 0] + y


def test_logits_and_features_are_those_of_d() -> None:
    D, x = dcgan.Discriminator(IMAGES, width=4).eval(), torch.randn(5, 1, 28, 28)
    view = DView(D)
    with torch.no_grad():
        assert torch.allclose(view.logits(x), D(x))
        assert torch.allclose(view.features(x), D.features(x).flatten(1))


def test_without_its_label_an_example_gets_all_classes() -> None:
    view, x = DView(Conditional(), num_classes=3), torch.tensor([[1.0], [5.0]])
    assert view.logits(x).tolist() == [4.0, 12.0]  # the largest: class 2
    assert view.features(x).tolist() == [[1.0, 1.0], [5.0, 1.0]]  # the mean over the classes


def test_all_layers_are_the_inputs_of_layers_but_the_first() -> None:
    D, x = mlp.Discriminator(DataSpec((2,)), hidden=(3, 4)).eval(), torch.randn(5, 2)
    with torch.no_grad():
        first = D.layers[:2](x)
        expected = torch.cat([first, D.layers[2:](first)], 1)
    assert torch.allclose(DView(D, layers="all").features(x), expected)


def test_feature_maps_are_max_pooled_to_4x4() -> None:
    h = torch.arange(64.0).view(1, 1, 8, 8)
    assert pooled(h).tolist() == [[9, 11, 13, 15, 25, 27, 29, 31, 41, 43, 45, 47, 57, 59, 61, 63]]
    assert pooled(torch.zeros(2, 3, 2, 2)).shape == (2, 12)
    assert DView(dcgan.Discriminator(IMAGES, width=4), layers="all").features(torch.zeros(2, *IMAGES.shape)).shape == (
        2,
        (4 + 8) * 16,
    )


def test_d_is_not_changed() -> None:
    D = dcgan.Discriminator(IMAGES, width=4)
    D.layers[0].eval()
    before, modes = {k: v.clone() for k, v in D.state_dict().items()}, [m.training for m in D.modules()]
    DView(D, layers="all").features(torch.randn(4, 1, 28, 28))
    assert [m.training for m in D.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in D.state_dict().items())
    assert not any(m._forward_pre_hooks for m in D.modules())


def test_a_d_that_compares_examples_is_refused() -> None:
    x = torch.randn(8, 1, 28, 28)
    torch.manual_seed(0)
    D = dcgan.Discriminator(IMAGES, width=4, minibatch="stddev")
    nn.init.normal_(D.output[-1].weight)
    with pytest.raises(ValueError, match=r"compares the examples of a batch.*minibatch=none"):
        DView(D).check(x, features=True)


def test_a_d_without_features_is_refused_if_they_are_needed() -> None:
    D = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    D.forward = lambda x, y=None: nn.Sequential.forward(D, x)
    DView(D).check(torch.randn(8, 2), features=False)
    DView(D, layers="all").check(torch.randn(8, 2), features=False)
    with pytest.raises(ValueError, match="has no method `features`"):
        DView(D).check(torch.randn(8, 2), features=True)


def test_class_logits_are_those_of_a_d_that_classifies() -> None:
    spec = DataSpec((2,), classes=("a", "b"))
    D = AuxiliaryClassifier(mlp.Discriminator(spec, hidden=(4,)), spec).eval()
    x = torch.randn(5, 2)
    with torch.no_grad():
        assert torch.allclose(DView(D, 2).class_logits(x), D.outputs(x).classes)
    with pytest.raises(ValueError, match=r"methods=\[classes\]: this D does not classify; .*condition=acgan"):
        DView(D.net).class_logits(x)
