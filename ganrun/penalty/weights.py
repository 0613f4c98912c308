"""Penalties on D's weights."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from ganrun.penalty.base import WeightedPenalty
from ganrun.protocols import Penalty

NORM_LAYERS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINEAR_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


class WeightClip(Penalty):
    """Weight clipping: w <- clip(w, -bound, bound) after every critic update. Arjovsky et al. 2017, Algorithm 1.

    The scales and shifts of norm layers are not clipped: scales of 0.01 would switch the layers off.

    >>> D = nn.Linear(1, 1)
    >>> _ = nn.init.constant_(D.weight, 3.0)
    >>> WeightClip(bound=0.25).project(D)
    >>> D.weight.item()
    0.25
    """

    has_term = False

    def __init__(self, bound: float = 0.01) -> None:
        if bound <= 0:
            raise ValueError(f"bound={bound}: must be greater than 0, such as 0.01.")
        self.bound = bound

    @torch.no_grad()
    def project(self, D: nn.Module) -> None:
        for layer in D.modules():
            if not isinstance(layer, NORM_LAYERS):
                for weight in layer.parameters(recurse=False):
                    weight.clamp_(-self.bound, self.bound)


class Orthogonal(WeightedPenalty):
    """weight * sum over layers of ||W W^T * (1 - I)||_F^2. Brock et al. 2019 (BigGAN), arXiv:1809.11096.

    The rows of W, (out, in * kernel), are the output channels of a convolution or the units of a linear layer (columns
    in the paper). The penalty makes them orthogonal to each other, within a group if the layer has groups, and leaves
    their norms free. Biases, norm layers and embeddings are not penalized; a layer that is used twice counts once.
    With spectral norm, W is the weight before the division, as in the authors' code. That code adds
    2 (W W^T * (1 - I)) W to the gradient, half of the 4 (...) here: its weight 1e-4 is 5e-5 here. BigGAN applies it to
    G, this class to D.

    >>> D = nn.Linear(2, 2)
    >>> _ = D.weight.data.copy_(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))  # the rows' dot product is 3, and counts twice
    >>> x = torch.zeros(1, 2)
    >>> Orthogonal(weight=0.5).term(D, x, x, None).item()
    9.0
    """

    def __init__(self, weight: float = 1e-4, every: int = 1) -> None:
        super().__init__(weight, every)

    def value(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        total = real.new_zeros(())
        for layer in D.modules():
            if isinstance(layer, LINEAR_MAPS):
                rows = rows_of(layer)
                gram = rows @ rows.mT  # (groups, out / groups, out / groups)
                total = total + (gram - gram.diagonal(dim1=1, dim2=2).diag_embed()).square().sum()
        return self.weight * total


def rows_of(layer: nn.Module) -> Tensor:
    """A layer's trainable weight as (groups, out / groups, in / groups * kernel): a row for each output channel."""
    parametrized = parametrize.is_parametrized(layer, "weight")
    weight: Tensor = layer.parametrizations.weight.original if parametrized else layer.weight  # type: ignore
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    weight = weight.unflatten(0, (groups, -1))
    if isinstance(layer, TRANSPOSED):  # (groups, in / groups, out / groups, *kernel)
        weight = weight.transpose(1, 2)
    return weight.flatten(2)
