"""Random streams keyed by what they are for, so that none depends on what was drawn before it.

A stream's key is, for example, ``(seed, "views", epoch, step, rank)``. A run that is resumed at epoch 7
therefore draws the very numbers that an uninterrupted run draws there, with no generator state to keep.
"""

import hashlib

import torch

from .errors import InputError


def stream_seed(*key: int | str) -> int:
    """Hash a key to a seed.

    Args:
        *key: integers and names, in a fixed order.

    Returns:
        A seed in [0, 2**63), the same on every machine and in every process.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stream_generator(device: torch.device | str, *key: int | str) -> torch.Generator:
    """Make a generator on ``device`` seeded by :func:`stream_seed` of ``key``; InputError for a device that is none."""
    try:
        generator = torch.Generator(device=device)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device: expected one that torch has generators for, got {device!r} ({reason})") from None
    generator.manual_seed(stream_seed(*key))
    return generator
