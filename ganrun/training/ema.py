"""The exponential moving average of a network's weights."""

from collections.abc import Callable

import torch
from torch import nn

SINGULAR_VECTORS = ("._u", "._v")  # torch's names of the buffers of a spectral norm
NOTHING = 1e-20  # a share that changes no float64 when it is subtracted from 1


def decay_after(step: int, decay: float, rampup: float, schedule: Callable[[int], float] | None = None) -> float:
    """The decay after step number `step`, counted from 0. schedule: step -> factor of the half-life.

    >>> round(decay_after(0, 0.25, 0, lambda step: 0.5), 6)
    0.0625
    """
    if schedule is not None:
        factor = schedule(step)
        decay = decay ** (1 / factor) if factor > 0 else 0.0
    return min(decay, 0.5 ** (1 / (rampup * (step + 1)))) if rampup else decay


def share_of_start(steps: int, decay: float, rampup: float, schedule: Callable[[int], float] | None = None) -> float:
    """The weight of the initial weights in a plain average after `steps`: the product of all decays.

    >>> round(share_of_start(500, 0.999, 0), 2)
    0.61
    """
    share = 1.0
    for step in range(steps):
        share *= decay_after(step, decay, rampup, schedule)
        if share < NOTHING:
            break
    return share


class EMA:
    """G_ema <- decay * G_ema + (1 - decay) * G, float buffers included.

    With `debias`, the initial weights do not count: their share of the average, the product of all decays so far, is
    divided out, as Adam does for its moments (Kingma and Ba 2015, section 3), which needs no further state. So after
    the first step G_ema is G. Without, G_ema after 500 steps with decay .999 still has 61% of the initial weights.
    schedule: step -> factor of the half-life.
    With `rampup`, the decay is smaller at first, so that its half-life is at most this share of the steps so far: see
    the authors' code of Karras et al. 2020 (StyleGAN2-ADA). Integer buffers are copied, and so are the singular vectors
    of spectral norms, because the mean of two unit vectors is not a unit vector.
    """

    def __init__(
        self,
        G_ema: nn.Module,
        G: nn.Module,
        decay: float,
        rampup: float = 0.0,
        debias: bool = False,
        schedule: Callable[[int], float] | None = None,
    ) -> None:
        self.debias, self.schedule = debias, schedule
        self.next_step, self.start = 0, 1.0  # start: see share_of_start
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

    def weight_of_g(self, step: int) -> float:
        """The weight of G in the average after step number `step`, counted from 0: 1 after the first, with `debias`."""
        decay = decay_after(step, self.decay, self.rampup, self.schedule)
        if not self.debias:
            return 1 - decay
        if step != self.next_step:  # of a resumed run
            self.start = share_of_start(step, self.decay, self.rampup, self.schedule)
        self.next_step, self.start = step + 1, self.start * decay
        return (1 - decay) / (1 - self.start)

    @torch.no_grad()
    def update(self, step: int = 0) -> None:
        torch._foreach_lerp_(self.targets, self.sources, self.weight_of_g(step))
        for to, now in self.copied:
            to.copy_(now)
