"""Everything that D gives for a batch, from one pass where D allows it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ganrun.data.dataset import DataSpec
from ganrun.protocols import DOutput, HasFeatures, HasHead, HasOutputs

DOutputs = Callable[[Tensor, Tensor | None], DOutput]


def make_d_outputs(D: nn.Module, spec: DataSpec, y: Tensor | None, features: bool) -> DOutputs:
    """A function (x, y) -> DOutput in float32, whatever autocast says.

    y: labels (2,) of two samples, in a conditional run. features: whether they are needed.
    """
    if isinstance(D, HasOutputs):
        return _with_outputs(D, features)
    if not features:
        return lambda x, y: DOutput(D(x, y).float())
    if isinstance(D, HasHead) and _is_output_of_features(D, spec, y):
        return _with_head(D)
    return _in_two_passes(D)


def _with_outputs(D: HasOutputs, features: bool) -> DOutputs:
    def d_outputs(x: Tensor, y: Tensor | None) -> DOutput:
        out = D.outputs(x, y)
        classes = None if out.classes is None else out.classes.float()
        kept = out.features.float() if features and out.features is not None else None
        return DOutput(out.logits.float(), classes, kept)

    return d_outputs


def _with_head(D: HasHead) -> DOutputs:
    def d_outputs(x: Tensor, y: Tensor | None) -> DOutput:
        features = D.features(x, y)
        logits: Tensor = D.output(features)
        return DOutput(logits.flatten().float(), features=features.float())

    return d_outputs


def _in_two_passes(D: nn.Module) -> DOutputs:
    assert isinstance(D, HasFeatures)
    features = D.features

    def d_outputs(x: Tensor, y: Tensor | None) -> DOutput:
        return DOutput(D(x, y).float(), features=features(x, y).float())

    return d_outputs


@torch.no_grad()
def _is_output_of_features(D: nn.Module, spec: DataSpec, y: Tensor | None) -> bool:
    """Whether D(x, y) is output(features(x, y)), which a D with both methods need not be. In eval mode."""
    assert isinstance(D, HasHead)
    x = torch.full((2, *spec.shape), spec.mean, device=next(D.parameters()).device)
    D.eval()
    try:
        logits: Tensor = D.output(D.features(x, y))
        return logits.numel() == len(x) and torch.equal(logits.flatten(), D(x, y))
    except (RuntimeError, TypeError):
        return False
    finally:
        D.train()
