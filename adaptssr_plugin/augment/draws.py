"""The two random draws that the operators are made of, for all rows of a batch at once."""

import torch
from torch import Tensor

_RANDOM_BITS = 31  # what an int32 draw without bounds holds


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
    # Positions are sorted by (block, random number, position). The window is one block and every other position
    # a block of its own, so nothing crosses the window's borders, whatever the random numbers. With the position
    # in the lowest bits no two keys are equal, and the sorted keys themselves say where each one came from.
    position_bits = (width - 1).bit_length()
    random_bits = min(_RANDOM_BITS, 62 - 2 * position_bits)
    block = 1 << (random_bits + position_bits)
    place = torch.arange(width, device=start.device)  # (L,)
    first, last = start[:, None] * block, (start + length - 1)[:, None] * block  # (B, 1)
    # Before, in and after the window the block is place, start and start + place - last. The position is added
    # to both sides of the maximum rather than to its result, which spares a pass over the batch.
    keys = torch.maximum(place * (block + 1) - last, place)  # (B, L)
    keys += torch.minimum(place * block, first)
    noise = torch.empty(keys.shape, dtype=torch.int32, device=start.device).random_(generator=generator)
    if random_bits < _RANDOM_BITS:
        noise >>= _RANDOM_BITS - random_bits
    keys.add_(noise, alpha=1 << position_bits)
    return _sort_rows(keys).bitwise_and_((1 << position_bits) - 1)


def on_host(tensor: Tensor) -> bool:
    """Tell whether the values of ``tensor`` can be looked at from here: no waiting, no tracing."""
    return tensor.device.type == "cpu" and type(tensor) is Tensor and not torch.compiler.is_compiling()


def _sort_rows(keys: Tensor) -> Tensor:
    """Sort the rows of a (B, L) int64 tensor that nobody else holds."""
    if on_host(keys):
        # torch sorts on the CPU by merging keys and indices; numpy sorts the keys alone with vector
        # instructions, ten times as fast. The result is the same, since no two keys of a row are equal.
        keys.numpy().sort(axis=1)
        return keys
    return keys.sort(dim=1).values
