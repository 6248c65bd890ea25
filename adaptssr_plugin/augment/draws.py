"""The random draws that the operators are made of, for all rows of a batch at once.

On the host they work on ``Tensor.numpy()``: at 128 rows a draw is mostly the cost of calls, and those of an array cost
a third of those of a tensor. What only depends on a length is looked up in tables there, which copies whole rows at
once. Elsewhere, and under a compiler, the same numbers come from tensor operations.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

Array = Any  # what Tensor.numpy() gives

_RANDOM_BITS = 31  # what an int32 draw without bounds holds
_LARGEST = (1 << _RANDOM_BITS) - 1
# Up to this many positions a key of 31 bits holds a position and 23 random bits or more. That two of the n keys of a
# row share theirs, and keep their order, has a chance of n(n - 1) / 2^24 at most, 0.0002 for 55 behaviours.
_NARROW = 256


def uniform_below(bound: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one integer per row, uniform on ``{0 .. bound - 1}``.

    Args:
        bound: (B,) int64, from 0 (gives 0) to 2^31.
        generator: on the device of ``bound``, or None.

    Returns:
        (B,) int64.
    """
    # Integers throughout: a product of floats could round up to the bound itself.
    draw = torch.randint(1 << _RANDOM_BITS, bound.shape, device=bound.device, generator=generator)
    return (draw * bound) >> _RANDOM_BITS


def below(bound: Array, generator: torch.Generator | None, shape: tuple[int, ...] | None = None) -> Array:
    """Draw what :func:`uniform_below` draws, for and as an array on the host; ``shape`` is one it broadcasts to."""
    draw = torch.randint(1 << _RANDOM_BITS, bound.shape if shape is None else shape, generator=generator)
    return (draw.numpy() * bound) >> _RANDOM_BITS


def shuffled_windows(start: Tensor, length: Tensor, width: int, generator: torch.Generator | None) -> Tensor:
    """Shuffle one window of positions per row and leave the positions around it where they are.

    Args:
        start: (B,) int64, the first position of the window.
        length: (B,) int64, its length; 0 and 1 shuffle nothing.
        width: L, the number of positions.
        generator: on the device of ``start``, or None.

    Returns:
        (B, L) int64, a permutation of ``0 .. L - 1`` in every row, uniform within the window.
    """
    if on_host(start) and width <= _NARROW:
        return shuffled_on_host(start.numpy(), length.numpy(), width, generator)
    # Positions are sorted by (random number, position), where all before the window have the least number and all
    # after it the greatest. With the position in the lowest bits no two keys are equal, and the sorted keys
    # themselves say where each one came from.
    positions = _positions(width)
    noise = _noise(len(start), width, start.device, generator)
    if width <= _NARROW:
        keys, last = noise & ~positions, _LARGEST & ~positions
    else:
        keys, last = noise.long() << positions.bit_length(), _LARGEST << positions.bit_length()
    place = torch.arange(width, dtype=keys.dtype, device=start.device)  # (L,)
    keys = torch.where(place < start[:, None], 0, keys)  # (B, L)
    keys = torch.where(place < (start + length)[:, None], keys, last) | place
    return _sort_rows(keys).bitwise_and_(positions).long()


def shuffled_on_host(start: Array, length: Array, width: int, generator: torch.Generator | None) -> Tensor:
    """Shuffle as :func:`shuffled_windows`, from arrays on the host, for ``width`` up to ``_NARROW``."""
    keys = window_keys(start, start + length, width, generator)
    keys.sort(axis=1)
    keys &= _positions(width)
    return torch.from_numpy(keys.astype("int64"))


def window_keys(start: Array | None, end: Array, width: int, generator: torch.Generator | None) -> Array:
    """Draw keys whose order shuffles positions from ``start`` (B,), None for 0, to ``end`` (B,), on the host.

    Returns:
        (B, L) int32, at least 0 and all different within a row, L at most ``_NARROW``; their lowest bits are the
        positions, and the keys of positions outside the window stand in their places when sorted.
    """
    keys = _noise(len(end), width, torch.device("cpu"), generator).numpy()
    before, after = _key_tables(width)
    keys &= ~_positions(width) if start is None else before.take(start, axis=0)
    keys |= after.take(end, axis=0)
    return keys


def first_of_row(keys: Array, count: Array) -> Array:
    """Mark the ``count`` (B,) < L smallest keys of each row of :func:`window_keys`: (B, L) int32, -1 there, else 0."""
    in_order = keys.copy()
    in_order.sort(axis=1)
    rows, width = keys.shape
    limit = in_order.ravel().take(torch.arange(0, rows * width, width).numpy() + count)  # (B,)
    marks = keys - limit[:, None]
    marks >>= _RANDOM_BITS  # the sign, repeated
    return marks


def on_host(tensor: Tensor) -> bool:
    """Tell whether the values of ``tensor`` can be looked at from here: no waiting, no tracing."""
    return tensor.device.type == "cpu" and type(tensor) is Tensor and not torch.compiler.is_compiling()


def by_tables(item_seq: Tensor) -> bool:
    """Tell whether rows (B, L) lie on the host and are narrow enough for tables of L² numbers."""
    return on_host(item_seq) and item_seq.shape[1] <= _NARROW


@lru_cache(maxsize=64)
def leading(width: int, columns: int) -> Array:
    """Tell for every length which of the first ``columns`` places it covers: (L + 1, columns) int64, -1 or 0."""
    covered = torch.arange(columns) < torch.arange(width + 1)[:, None]
    return -covered.long().numpy()


def _noise(rows: int, width: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    return torch.empty((rows, width), dtype=torch.int32, device=device).random_(generator=generator)


def _positions(width: int) -> int:
    """All bits that the positions of a row take."""
    return (1 << (width - 1).bit_length()) - 1


@lru_cache(maxsize=64)
def _key_tables(width: int) -> tuple[Array, Array]:
    """For every place from 0 to L, what clears the keys before it and what fills those from it on: (L + 1, L) int32."""
    place = torch.arange(width, dtype=torch.int32)
    is_before = place < torch.arange(width + 1)[:, None]
    random = _LARGEST & ~_positions(width)
    before = torch.where(is_before, 0, random)
    after = torch.where(is_before, place, place | random)
    return before.int().numpy(), after.int().numpy()


def _sort_rows(keys: Tensor) -> Tensor:
    """Sort the rows of a (B, L) tensor that nobody else holds."""
    if on_host(keys):
        # torch sorts on the CPU by merging keys and indices; numpy sorts the keys alone with vector
        # instructions, ten times as fast. The result is the same, since no two keys of a row are equal.
        keys.numpy().sort(axis=1)
        return keys
    return keys.sort(dim=1).values
