"""The exponential moving average of a network's weights."""

import torch
from torch import nn

SINGULAR_VECTORS = ("._u", "._v")  # torch's names of the buffers of a spectral norm


class EMA:
    """G_ema <- decay * G_ema + (1 - decay) * G, float buffers included.

    With `rampup`, the decay is smaller at first, so that its half-life is at most this share of the steps so far: see
    the authors' code of Karras et al. 2020 (StyleGAN2-ADA). Integer buffers are copied, and so are the singular vectors
    of spectral norms, because the mean of two unit vectors is not a unit vector.
    """

    def __init__(self, G_ema: nn.Module, G: nn.Module, decay: float, rampup: float = 0.0) -> None:
        self.decay, self.rampup = decay, rampup
        source = G.state_dict()
        pairs = {to.data_ptr(): (name, to, source[name]) for name, to in G_ema.state_dict().items()}  # tied once
        self.targets, self.sources, self.copied = [], [], []
        for name, to, now in pairs.values():
            if to.is_floating_point() and not name.endswith(SINGULAR_VECTORS):
                self.targets.append(to)
                self.sources.append(now)
            else:
                self.copied.append((to, now))

    def decay_at(self, step: int) -> float:
        """The decay after step number `step`, counted from 0."""
        return min(self.decay, 0.5 ** (1 / (self.rampup * (step + 1)))) if self.rampup else self.decay

    @torch.no_grad()
    def update(self, step: int = 0) -> None:
        torch._foreach_lerp_(self.targets, self.sources, 1 - self.decay_at(step))
        for to, now in self.copied:
            to.copy_(now)
