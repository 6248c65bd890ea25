"""How long histories are: drawn like those of the paper's TTL corpus, of which the mean alone is published."""

import torch
from torch import Tensor

TTL_MEAN_LENGTH = 54.84


def ttl_lengths(n: int, max_len: int, generator: torch.Generator) -> Tensor:
    """Draw the lengths of ``n`` histories, of which the newest ``max_len`` behaviours are kept.

    Lengths are geometric with the mean 54.84 of TTL and then clipped to ``max_len``: of all laws of whole numbers
    from 1 on with this mean it is the one of most entropy, so that nothing is assumed but the mean. Clipped, the mean
    is 33.0 at 50, 46.1 at 100 and 54.3 at 256.

    Args:
        n: how many.
        max_len: the longest, at least 1.
        generator: where the random numbers come from; the lengths lie on its device.

    Returns:
        (n,) int64, from 1 to ``max_len``.
    """
    lengths = torch.empty(n, dtype=torch.int64, device=generator.device)
    return lengths.geometric_(1 / TTL_MEAN_LENGTH, generator=generator).clamp_(max=max_len)
