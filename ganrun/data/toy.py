"""Data whose density is known exactly."""

import torch
from torch.distributions import Normal

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.randomness import generator


def gaussian(mean: float, std: float, num: int, unit: str = "") -> Dataset:
    """`num` training samples of N(mean, std), and num / 10 each for validation and test, always the same ones.

    Samples have shape (1,) and the unit that `unit` names. Raises ValueError unless std > 0 and num >= 1.
    """
    if std <= 0:
        raise ValueError(f"data.std={std}: must be greater than 0.")
    if num < 1:
        raise ValueError(f"data.num={num}: must be at least 1.")
    held_out = max(1, num // 10)
    draw = generator(0, "gaussian")
    train, valid, test = [Split(mean + std * torch.randn(n, 1, generator=draw)) for n in (num, held_out, held_out)]
    spec = DataSpec((1,), mean=float(mean), std=float(std), unit=unit)
    return Dataset(spec, train, valid, test, distribution=Normal(float(mean), float(std)))
