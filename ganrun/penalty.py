"""What keeps D in bounds.

A penalty is any object with `term(D, real, fake, y)`, a scalar to add to D's loss or None, and `project(D)`,
which is called after each update of D.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

NORM_LAYERS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class WeightClip:
    """Weight clipping: w <- clip(w, -bound, bound) after every critic update. Arjovsky et al. 2017, Algorithm 1.

    The scales and shifts of norm layers are left alone: clipped to 0.01 they would switch their layers off.

    >>> D = nn.Linear(1, 1)
    >>> _ = nn.init.constant_(D.weight, 3.0)
    >>> WeightClip(bound=0.25).project(D)
    >>> D.weight.item()
    0.25
    """

    def __init__(self, bound: float = 0.01) -> None:
        if bound <= 0:
            raise ValueError(f"bound={bound}: must be greater than 0, as in 0.01.")
        self.bound = bound

    def term(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> None:
        return None

    @torch.no_grad()
    def project(self, D: nn.Module) -> None:
        for layer in D.modules():
            if not isinstance(layer, NORM_LAYERS):
                for weight in layer.parameters(recurse=False):
                    weight.clamp_(-self.bound, self.bound)
