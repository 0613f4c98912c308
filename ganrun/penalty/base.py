"""The base class of most penalties, and the learning rates for lazy regularization."""

import torch
from torch import Tensor, nn

from ganrun.protocols import Penalty


class WeightedPenalty(Penalty):
    """The base of penalties with a weight and a term of D and its inputs, computed in float32.

    A derived class defines `value`. If the term depends only on D's logits, derive from `ganrun.protocols.Penalty`
    instead, and define `logits_term`, which needs no further forward pass.
    weight: 0 switches the term off, and nothing is computed. every: see `ganrun.protocols.Penalty`.
    Raises ValueError for a negative weight, and for `every` below 1.
    """

    def __init__(self, weight: float, every: int = 1) -> None:
        self.weight, self.every = not_negative("weight", weight), at_least_one(every)
        self.has_term = self.weight > 0

    def term(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor | None:
        """The term in float32 or float64, also under autocast. real, fake: (B, *shape)."""
        if not self.has_term:
            return None
        with torch.autocast(real.device.type, enabled=False):
            return self.value(D, at_least_float32(real), at_least_float32(fake), y)

    def value(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        """The term, a scalar, including its weight. real, fake: (B, *shape). y: labels (B,) or None."""
        raise NotImplementedError(f"{type(self).__name__} has no method value(D, real, fake, y)")


def lazy_rates(lr: float, betas: tuple[float, float] | None, every: int) -> tuple[float, tuple[float, float] | None]:
    """Learning rate and betas for a lazy penalty. Karras et al. 2020 (StyleGAN2), arXiv:1912.04958.

    c = every / (every + 1); lr <- c * lr; beta <- beta^c. With every = 1 nothing changes: the formula's c = 1/2
    is for StyleGAN2, which takes a second optimizer step for the penalty alone.
    betas: None for an optimizer without betas.

    >>> lazy_rates(0.002, (0.0, 0.25), every=1)
    (0.002, (0.0, 0.25))
    >>> lr, betas = lazy_rates(0.003, (0.0, 0.125), every=2)
    >>> round(lr, 6), [round(beta, 6) for beta in betas]
    (0.002, [0.0, 0.25])
    """
    c = 1.0 if at_least_one(every) == 1 else every / (every + 1)
    return lr * c, None if betas is None else (betas[0] ** c, betas[1] ** c)


def at_least_float32(x: Tensor) -> Tensor:
    """bf16 and fp16 become float32; float64 stays."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def not_negative(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name}={value}: must be at least 0 (0 switches it off).")
    return value


def at_least_one(every: int) -> int:
    if every < 1:
        raise ValueError(f"every={every}: must be at least 1 (1: at every update of D; 16 as in StyleGAN2).")
    return every
