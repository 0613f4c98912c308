"""Randomness as a function of position: no random state is saved, and none is carried from one step to the next."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ganrun.data.seeds import seed_for


def reseed(device: torch.device, seed: int, purpose: str, position: int = 0) -> None:
    """Set torch's global random state, of the CPU and of `device`, for one purpose at one position.

    This does not call torch.manual_seed, which visits every kind of device: 130 us against 1 us, at every step.
    """
    number = seed_for(seed, purpose, position)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def seeded(device: torch.device, seed: int, purpose: str, position: int = 0) -> Iterator[None]:
    """`reseed` for the body, and restore torch's global random state afterwards: for what is drawn beside training."""
    on_cpu = torch.get_rng_state()
    on_cuda = torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    on_mps = torch.mps.get_rng_state() if device.type == "mps" else None
    reseed(device, seed, purpose, position)
    try:
        yield
    finally:
        torch.set_rng_state(on_cpu)
        torch.cuda.set_rng_state_all(on_cuda)
        if on_mps is not None:
            torch.mps.set_rng_state(on_mps)
