"""Lengths of histories, drawn like those of the paper's TTL corpus, of which only the mean is published."""

import torch
from torch import Tensor

TTL_MEAN_LENGTH = 54.84


def ttl_lengths(n: int, max_len: int, generator: torch.Generator) -> Tensor:
    """Draw the lengths of ``n`` histories, of which the newest ``max_len`` behaviours are kept.

    Lengths are geometric with TTL's mean, 54.84, and then clipped to ``max_len``. Of all distributions of positive
    integers with this mean it has the most entropy, so that only the mean is assumed. Clipped, the mean is 33.0 at 50,
    46.1 at 100 and 54.3 at 256. They are int64 on the generator's device.
    """
    lengths = torch.empty(n, dtype=torch.int64, device=generator.device)
    return lengths.geometric_(1 / TTL_MEAN_LENGTH, generator=generator).clamp_(max=max_len)
