"""Randomness as a function of position: no random state is saved, or carried over from one step to the next."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ganrun.data.seeds import seed_for


def reseed(device: torch.device, seed: int, purpose: str, position: int = 0) -> None:
    """Set torch's global random state, of the CPU and of `device`, for one purpose at one position.

    torch.manual_seed, which seeds every kind of device, would take 130 us instead of 1 us at every step.
    """
    number = seed_for(seed, purpose, position)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def seeded(device: torch.device, seed: int, purpose: str, position: int = 0) -> Iterator[None]:
    """`reseed` for the body, then restore torch's global random state: for draws that must not affect training."""
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
