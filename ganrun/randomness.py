"""Randomness as a function of position: no random state is ever saved, and none is carried from step to step."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_for(seed: int, purpose: str, position: int = 0) -> int:
    """A 63-bit seed for one purpose at one position, independent of every other.

    >>> seed_for(0, "step", 1) == seed_for(0, "step", 1) != seed_for(0, "step", 2)
    True
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def reseed(device: torch.device, seed: int, purpose: str, position: int = 0) -> None:
    """Set torch's global random state, of the CPU and of `device`, for one purpose at one position.

    Not by torch.manual_seed, which visits every kind of device there is: 130 us against 1 us, at every step.
    """
    number = seed_for(seed, purpose, position)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def seeded(device: torch.device, seed: int, purpose: str, position: int = 0) -> Iterator[None]:
    """`reseed`, and afterwards torch's global random state as it was: for what is drawn beside the training."""
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


def generator(seed: int, purpose: str, position: int = 0) -> torch.Generator:
    """A generator on the CPU, of its own, for one purpose at one position."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, position))
