"""The random draws of the operators, for all rows of a batch at once."""

import torch
from torch import Tensor

from adaptssr_plugin.devices import on_cpu

_RANDOM_BITS = 31  # of an int32 drawn without bounds
_LARGEST = (1 << _RANDOM_BITS) - 1
# Up to this many positions a key of 31 bits holds a position and at least 23 random bits. The probability that two of
# the n keys of a row share theirs, and keep their order, is at most n(n - 1) / 2^24: 0.0002 for 55 behaviours.
_NARROW = 256


def uniform_below(bound: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw an integer uniform on ``{0 .. bound - 1}`` for each of ``bound``, int64 from 0 (gives 0) to 2^31."""
    # Integers only: a product of floats could round up to the bound itself.
    draw = torch.randint(1 << _RANDOM_BITS, bound.shape, device=bound.device, generator=generator)
    return (draw * bound) >> _RANDOM_BITS


def shuffled_windows(start: Tensor, length: Tensor, width: int, generator: torch.Generator | None) -> Tensor:
    """Shuffle one window of positions per row and keep the other positions.

    Args:
        start: (B,) int64, the first position of the window.
        length: (B,) int64, its length; 0 and 1 shuffle nothing.
        width: L, the number of positions.
        generator: on the device of ``start``, or None.

    Returns:
        (B, L) int64, a permutation of ``0 .. L - 1`` in every row, uniform within the window.
    """
    # Positions are sorted by (random number, position); all before the window have the smallest number and all after it
    # the greatest. With the position in the lowest bits no two keys are equal, and the sorted keys contain the original
    # positions.
    bits = (width - 1).bit_length()
    positions = (1 << bits) - 1
    noise = torch.empty((len(start), width), dtype=torch.int32, device=start.device)
    if torch.compiler.is_compiling():  # which has no random_ in place
        noise = torch.ops.aten.random(noise, generator=generator)
    else:
        noise.random_(generator=generator)
    if width <= _NARROW:
        keys, last = noise & ~positions, _LARGEST & ~positions
    else:
        keys, last = noise.long() << bits, _LARGEST << bits
    place = torch.arange(width, dtype=keys.dtype, device=start.device)  # (L,)
    keys = torch.where(place < start[:, None], 0, keys)  # (B, L)
    keys = torch.where(place < (start + length)[:, None], keys, last) | place
    if on_cpu(keys):
        keys.numpy().sort(axis=1)  # torch's sort also sorts indices, a quarter of the time of a pair of views
    else:
        keys = keys.sort(dim=1).values
    return keys.bitwise_and_(positions).long()


def drawn_positions(length: Tensor, count: Tensor, width: int, generator: torch.Generator | None) -> Tensor:
    """Draw ``count`` of the first ``length`` positions of each row, uniformly without replacement: (B, L) bool."""
    order = shuffled_windows(torch.zeros_like(length), length, width, generator)
    first = torch.arange(width, device=length.device) < count[:, None]  # (B, L)
    return torch.zeros_like(first).scatter_(1, order, first)
