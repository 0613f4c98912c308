"""Conditioning of both networks on class labels."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from ganrun import protocols
from ganrun.data.dataset import DataSpec
from ganrun.network_protocols import HasHead, HasOutputRange, StaysUnconditional, TakesLabels, UsesClasses
from ganrun.protocols import DOutput

AS_INPUT = ("concat", "own")  # ways in which labels are an input of the network itself


class Condition(protocols.Condition):
    """Class labels y (B,) for both players: G(z, y) and D(x, y).

    generator: `concat`, the one-hot label concatenated to z (CGAN, Mirza and Osindero 2014, arXiv:1411.1784);
    `batch_norm`, with a gain and a bias for each class (`ConditionalBatchNorm`); or `own`: the network's own way.
    discriminator: `concat`, the one-hot label concatenated to x, for images as constant channels; `classifier`
    (`AuxiliaryClassifier`, which does not get the label as an input); `projection` (`Projection`); or `own`.
    weight: of the classification losses, which are added to the losses of both players. g_weight: G's, if it differs.
    Differs from the papers in that D's fake samples have the labels of its real batch, so that penalties can
    interpolate between the two. Raises ValueError for data without labels, and for networks without inputs for labels.
    """

    def __init__(
        self,
        generator: Literal["concat", "batch_norm", "own"],
        discriminator: Literal["concat", "classifier", "projection", "own"],
        weight: float = 1.0,
        g_weight: float | None = None,
    ) -> None:
        for name, value in (("weight", weight), ("g_weight", 0.0 if g_weight is None else g_weight)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: must be at least 0 (0 leaves the classes out of the losses).")
        self.generator, self.discriminator = generator, discriminator
        self.weight, self.g_weight = weight, weight if g_weight is None else g_weight

    def check(self, spec: DataSpec) -> None:
        if not spec.num_classes:
            raise ValueError(
                "condition: these data have no labels; use data with labels, such as data=digits, mnist, cifar10, "
                "fer2013, a folder with one sub-folder per class, or DataSpec(classes=...), or condition=none."
            )

    def label_dims(self, spec: DataSpec) -> tuple[int, int]:
        return (
            spec.num_classes if self.generator in AS_INPUT else 0,
            spec.num_classes if self.discriminator in AS_INPUT else 0,
        )

    def complete_generator(self, G: nn.Module, spec: DataSpec) -> nn.Module:
        if self.generator in AS_INPUT:
            return _check_label_inputs("generator", self.generator, G, spec.num_classes)
        return ConditionedByBatchNorm(G, spec.num_classes)

    def complete_discriminator(self, D: nn.Module, spec: DataSpec) -> nn.Module:
        if self.discriminator in AS_INPUT:
            return _check_label_inputs("discriminator", self.discriminator, D, spec.num_classes)
        head = Projection if self.discriminator == "projection" else AuxiliaryClassifier
        return head(D, spec)

    def d_term(self, real: DOutput, fake: DOutput, y: Tensor | None) -> Tensor | None:
        """With a classifier: weight * (cross-entropy on real + on fake). Odena, Olah and Shlens 2017, L_C."""
        if real.classes is None or fake.classes is None or y is None:
            return None
        return self.weight * (F.cross_entropy(real.classes, y) + F.cross_entropy(fake.classes, y))

    def g_term(self, fake: DOutput, y: Tensor | None) -> Tensor | None:
        """With a classifier: g_weight * cross-entropy on fake, so that samples are recognized as their class."""
        if fake.classes is None or y is None:
            return None
        return self.g_weight * F.cross_entropy(fake.classes, y)


class ConditionalBatchNorm(nn.Module):
    """Batch normalization with a gain and a bias for each class. Dumoulin et al. 2017, arXiv:1610.07629, section 2.2.

    h = gain[y] * (x - mean) / sqrt(var + eps) + bias[y], with one mean and var over all classes. x: (B, C, ...).
    It replaces the layer `norm`, whose gain and bias initialize every class. y is set before each forward pass: labels
    (B,), or weights of the classes, (B, K) of floats, for which gain and bias are means with these weights.

    >>> layer = ConditionalBatchNorm(nn.BatchNorm1d(1), num_classes=2)
    >>> with torch.no_grad():
    ...     _ = layer.gain.weight.copy_(torch.tensor([[1.0], [10.0]]))
    >>> layer.y = torch.tensor([0, 1])
    >>> [round(h, 3) for h in layer(torch.tensor([[4.0], [6.0]])).flatten().tolist()]
    [-1.0, 10.0]
    """

    def __init__(self, norm: _BatchNorm, num_classes: int) -> None:
        super().__init__()
        channels = norm.num_features
        self.norm = type(norm)(channels, eps=norm.eps, momentum=norm.momentum, affine=False)
        gain = torch.ones(channels) if norm.weight is None else norm.weight.detach()
        bias = torch.zeros(channels) if norm.bias is None else norm.bias.detach()
        self.gain = nn.Embedding.from_pretrained(gain.repeat(num_classes, 1), freeze=False)
        self.bias = nn.Embedding.from_pretrained(bias.repeat(num_classes, 1), freeze=False)
        self.y: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        shape = (*h.shape[:2], *[1] * (h.dim() - 2))
        gain, bias = (self.of(part).to(h.dtype).view(shape) for part in (self.gain, self.bias))
        return torch.addcmul(bias, h, gain)

    def of(self, part: nn.Embedding) -> Tensor:
        assert self.y is not None
        if self.y.is_floating_point():  # weights of the classes
            return self.y.to(part.weight.dtype) @ part.weight
        found: Tensor = part(self.y)
        return found


class ConditionedByBatchNorm(nn.Module):
    """A generator G(z, y) in which `ConditionalBatchNorm` replaces batch normalization.

    Layers that declare `unconditional = True` stay as they are.
    """

    mixes_classes = True

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.net = net
        self.output_range = net.output_range if isinstance(net, HasOutputRange) else None
        names = [name for name, layer in net.named_modules() if is_conditional(layer)]
        self.norms = [_replace_norm(net, name, num_classes) for name in names]
        if not self.norms:
            raise ValueError(
                "condition.generator=batch_norm: this arch's generator has no batch normalization; "
                "use condition.generator=concat, or an arch with batch normalization, such as arch=dcgan."
            )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            raise ValueError("condition.generator=batch_norm: G needs labels, and was given none.")
        for norm in self.norms:
            norm.y = y
        try:
            x: Tensor = self.net(z)
            return x
        finally:
            for norm in self.norms:
                norm.y = None


class _WithHead(nn.Module):
    """A discriminator with a second head on its features. Its state_dict has the original one under `net`."""

    def __init__(self, net: nn.Module, spec: DataSpec) -> None:
        super().__init__()
        if not isinstance(net, HasHead):
            raise ValueError(
                "condition.discriminator: this arch's discriminator has no method `features` and layer `output`, "
                "with D(x) = output(features(x)); use condition=concat."
            )
        self.net = net

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net.features(x)

    def outputs(self, x: Tensor, y: Tensor | None = None) -> DOutput:
        """All outputs of D, from one forward pass."""
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.outputs(x, y).logits


class Projection(_WithHead):
    """D(x, y) = output(features(x)) + <embed(y), h>. Miyato and Koyama 2018, arXiv:1802.05637, Eq. 3.

    h (B, F): the features, summed over space if they are maps. `embed` has spectral normalization if D has.
    Raises ValueError for a D without `features` and `output`.
    """

    def __init__(self, net: nn.Module, spec: DataSpec) -> None:
        super().__init__(net, spec)
        self.embed = nn.Embedding(spec.num_classes, _example_features(self.net, spec).shape[1])
        nn.init.xavier_uniform_(self.embed.weight)
        _normalize_as(net, self.embed)

    def outputs(self, x: Tensor, y: Tensor | None = None) -> DOutput:
        if y is None:
            raise ValueError("condition.discriminator=projection: D needs labels, and was given none.")
        features = self.net.features(x)
        h = features.flatten(2).sum(2) if features.dim() > 2 else features  # (B, F)
        logits = self.net.output(features).flatten() + (self.embed(y) * h).sum(1)  # (B,)
        return DOutput(logits, features=features)


class AuxiliaryClassifier(_WithHead):
    """AC-GAN: a D that also classifies. Odena, Olah and Shlens 2017, arXiv:1610.09585.

    A linear layer on the features outputs class logits (B, K); D(x) itself does not depend on y.
    Raises ValueError for a D without `features` and `output`.
    """

    def __init__(self, net: nn.Module, spec: DataSpec) -> None:
        super().__init__(net, spec)
        self.classifier = nn.Linear(_example_features(self.net, spec).flatten(1).shape[1], spec.num_classes)
        _normalize_as(net, self.classifier)

    def outputs(self, x: Tensor, y: Tensor | None = None) -> DOutput:
        features = self.net.features(x)
        return DOutput(self.net.output(features).flatten(), self.classifier(features.flatten(1)), features)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.net.output(self.net.features(x))
        return logits.flatten()


def _check_label_inputs(player: str, way: str, net: nn.Module, num_classes: int) -> nn.Module:
    """The network, if its constructor took the number of classes for `concat` or for `own`."""
    if way == "own" and not (isinstance(net, UsesClasses) and net.num_classes == num_classes):
        raise ValueError(
            f"condition.{player}=own: this arch's {player} has no way of its own to use labels (an argument and "
            "attribute num_classes); use arch=biggan or r3gan, or another condition."
        )
    if way == "concat" and not (isinstance(net, TakesLabels) and net.label_dim == num_classes):
        raise ValueError(
            f"condition.{player}=concat: this arch's {player} has no inputs for labels (an argument and attribute "
            "label_dim); use another arch, such as arch=mlp or dcgan, or another condition, such as condition=own for "
            "arch=biggan and r3gan."
        )
    return net


def is_conditional(layer: nn.Module) -> bool:
    """Whether the layer gets gains and biases for each class."""
    return isinstance(layer, _BatchNorm) and not (isinstance(layer, StaysUnconditional) and layer.unconditional)


def _replace_norm(net: nn.Module, name: str, num_classes: int) -> ConditionalBatchNorm:
    """Replace the batch normalization of that name in `net`."""
    parent, _, child = name.rpartition(".")
    norm = net.get_submodule(name)
    assert isinstance(norm, _BatchNorm)
    conditional = ConditionalBatchNorm(norm, num_classes)
    setattr(net.get_submodule(parent), child, conditional)
    return conditional


@torch.no_grad()
def _example_features(net: nn.Module, spec: DataSpec) -> Tensor:
    """The features of two samples, in eval mode, so that batch statistics are not updated."""
    assert isinstance(net, HasHead)
    net.eval()
    try:
        return net.features(torch.zeros(2, *spec.shape, device=next(net.parameters()).device))
    finally:
        net.train()


def _normalize_as(net: nn.Module, layer: nn.Module) -> None:
    if any(is_parametrized(x, "weight") for x in net.modules()):
        spectral_norm(layer)
