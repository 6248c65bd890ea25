"""A few round sizes in place of many: a CUDA graph is captured for each."""


def fixed_size(size: int, most: int, sizes: int) -> int:
    """Round up to the next of a few equally spaced sizes.

    Args:
        size: 1 to ``most``.
        most: the largest size, which is one of them.
        sizes: how many there are, at least 1.
    """
    step = -(-most // sizes)
    return min(most, -(-size // step) * step)
