"""Independent seeds for each purpose and position."""

import hashlib

import torch


def seed_for(seed: int, purpose: str, position: int = 0) -> int:
    """A 63-bit seed for one purpose at one position.

    >>> seed_for(0, "step", 1) == seed_for(0, "step", 1) != seed_for(0, "step", 2)
    True
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, position: int = 0) -> torch.Generator:
    """A random generator on the CPU for one purpose at one position."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, position))
