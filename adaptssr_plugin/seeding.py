"""Random streams that are keyed by their purpose, so that no stream depends on what another has drawn.

A key is, for example, ``(seed, "views", epoch, step, rank)``. A run resumed at epoch 7 therefore draws the same
numbers there as an uninterrupted run. No generator state has to be saved.
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
    """Make a generator on ``device``, seeded by :func:`stream_seed` of ``key``; InputError for an unknown device."""
    try:
        generator = torch.Generator(device=device)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device: expected one that torch has generators for, got {device!r} ({reason})") from None
    generator.manual_seed(stream_seed(*key))
    return generator
