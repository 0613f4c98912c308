"""Schedules, as of learning rates: functions of the step alone, so they have no state to save.

A schedule is a callable `(step, steps) -> factor`. The factor scales the setting's own value at `step` of `steps`.
"""

import math


class Constant:
    """The factor is 1."""

    def __call__(self, step: int, steps: int) -> float:
        return 1.0


class Step:
    """factor = gamma ** floor(step / every)

    >>> Step(every=100, gamma=0.5)(250, 1000)
    0.25
    """

    def __init__(self, every: int, gamma: float) -> None:
        if every < 1:
            raise ValueError(f"every={every}: must be at least 1.")
        _check_gamma(gamma)
        self.every, self.gamma = every, gamma

    def __call__(self, step: int, steps: int) -> float:
        return self.gamma ** (step // self.every)


class Exponential:
    """factor = max(gamma ** step, floor)

    >>> Exponential(gamma=0.5, floor=0.1)(2, 100), Exponential(gamma=0.5, floor=0.1)(9, 100)
    (0.25, 0.1)
    """

    def __init__(self, gamma: float, floor: float = 0.0) -> None:
        _check_gamma(gamma)
        _check_share("floor", floor)
        self.gamma, self.floor = gamma, floor

    def __call__(self, step: int, steps: int) -> float:
        return max(self.gamma**step, self.floor)


class Linear:
    """factor = 1 until step `start`, then linear to `final`, which it reaches after the last step.

    >>> Linear()(25, 100)
    0.75
    """

    def __init__(self, start: int = 0, final: float = 0.0) -> None:
        if start < 0:
            raise ValueError(f"start={start}: must be at least 0.")
        _check_share("final", final)
        self.start, self.final = start, final

    def __call__(self, step: int, steps: int) -> float:
        done = max(0, step - self.start) / max(1, steps - self.start)
        return 1 + done * (self.final - 1)


class Cosine:
    """factor = final + (initial - final) * (1 + cos(pi * step / steps)) / 2. Loshchilov and Hutter 2017.

    >>> round(Cosine()(50, 100), 6), Cosine(final=1, initial=0)(0, 100)
    (0.5, 0.0)
    """

    def __init__(self, final: float = 0.0, initial: float = 1.0) -> None:
        _check_share("final", final)
        _check_share("initial", initial)
        self.final, self.initial = final, initial

    def __call__(self, step: int, steps: int) -> float:
        return self.final + (self.initial - self.final) * (1 + math.cos(math.pi * step / steps)) / 2


class Epochs:
    """factor = 1 up to epoch `first`, then linear to `final` at epoch `last`, and `final` after that.

    It is constant within an epoch. Epochs are counted from 1. With momentum 0.5, final 1.4, first 1 and last 250 this
    is the momentum in the authors' code of Goodfellow et al. 2014, which rises from 0.5 to 0.7.

    >>> rising = Epochs(steps_per_epoch=500, first=1, last=250, final=1.4)
    >>> rising(499, 10**6), round(rising(249 * 500, 10**6), 6)
    (1.0, 1.4)
    """

    def __init__(self, steps_per_epoch: float, first: int, last: int, final: float) -> None:
        if not 1 <= first < last:
            raise ValueError(f"last={last}: must be greater than first={first}, which must be at least 1.")
        if not final >= 0:
            raise ValueError(f"final={final}: must be at least 0.")
        self.steps_per_epoch, self.first, self.last, self.final = steps_per_epoch, first, last, final

    def __call__(self, step: int, steps: int) -> float:
        done = (1 + step // self.steps_per_epoch - self.first) / (self.last - self.first)
        return 1 + min(max(done, 0.0), 1.0) * (self.final - 1)


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma={gamma}: must lie in (0, 1].")


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name}={share}: must lie in [0, 1].")
