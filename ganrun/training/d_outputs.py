"""All outputs of D for a batch, in one forward pass if possible."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ganrun.data.dataset import DataSpec
from ganrun.network_protocols import HasFeatures, HasHead, HasOutputs
from ganrun.protocols import DOutput
from ganrun.training.game import keep_statistics, layers_with_statistics
from ganrun.training.sampling import evaluating

DOutputs = Callable[[Tensor, Tensor | None], DOutput]


def make_d_outputs(D: nn.Module, spec: DataSpec, y: Tensor | None, features: bool) -> DOutputs:
    """A function (x, y) -> DOutput in float32, with or without autocast.

    y: labels (2,) of two samples in a conditional run, else None. features: whether they are needed.
    """
    if isinstance(D, HasOutputs):
        return _with_outputs(D, features)
    if not features:
        return lambda x, y: DOutput(D(x, y).float())
    if isinstance(D, HasHead) and _features_enter_output(D, spec, y):
        return _in_one_pass(D)
    return _in_two_passes(D)


def _with_outputs(D: HasOutputs, features: bool) -> DOutputs:
    def d_outputs(x: Tensor, y: Tensor | None) -> DOutput:
        out = D.outputs(x, y)
        classes = None if out.classes is None else out.classes.float()
        kept = out.features.float() if features and out.features is not None else None
        return DOutput(out.logits.float(), classes, kept)

    return d_outputs


class _InputOf:
    """Keeps the last input of a layer until `take` returns it."""

    def __init__(self, layer: nn.Module) -> None:
        self.value: Tensor | None = None
        self.handle = layer.register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.value = inputs[0]

    def take(self) -> Tensor | None:
        value, self.value = self.value, None
        return value


def _in_one_pass(D: nn.Module) -> DOutputs:
    """Take as features the input of D's layer `output` when D is called, so that the logits are always D's own."""
    assert isinstance(D, HasHead)
    entering = _InputOf(D.output)

    def d_outputs(x: Tensor, y: Tensor | None) -> DOutput:
        logits: Tensor = D(x, y)
        features = entering.take()
        assert features is not None, "_features_enter_output has checked"
        return DOutput(logits.float(), features=features.float())

    return d_outputs


def _in_two_passes(D: nn.Module) -> DOutputs:
    assert isinstance(D, HasFeatures)
    features, layers = D.features, layers_with_statistics(D)

    def d_outputs(x: Tensor, y: Tensor | None) -> DOutput:
        logits: Tensor = D(x, y)
        with keep_statistics(layers):  # they have already been updated with this batch
            return DOutput(logits.float(), features=features(x, y).float())

    return d_outputs


def _features_enter_output(D: nn.Module, spec: DataSpec, y: Tensor | None) -> bool:
    """Whether D(x, y) passes features(x, y) to its layer `output`; a D that has both need not do so."""
    assert isinstance(D, HasHead)
    spread = torch.linspace(-1, 1, 2 * spec.numel, device=next(D.parameters()).device)
    x = spec.mean + spec.std * spread.view(2, *spec.shape)
    entering = _InputOf(D.output)
    with evaluating(D):
        D(x, y)
        features = entering.take()
        entering.handle.remove()
        return features is not None and torch.equal(features, D.features(x, y))
