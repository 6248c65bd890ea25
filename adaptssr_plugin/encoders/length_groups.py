"""Computing on rows of unequal length without computing on their padding.

Rows are sorted by length and cut into groups; each group is padded to its own longest row only. At the
paper's lengths (mean 55 of 100) this halves the work of a Transformer.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# A group below this many rows costs more in small operations than it saves in padding.
_MIN_ROWS = 32
_MAX_GROUPS = 16


class LengthGroup(NamedTuple):
    """Rows of a batch that are computed together."""

    rows: Tensor
    """int64 ``(g,)``: which rows of the batch."""
    width: int
    """Length of the longest of them."""


def length_groups(item_seq_len: Tensor, max_groups: int | None = None) -> Iterator[LengthGroup]:
    """Cut a batch into groups of similar length.

    The widths are read back from the device: one read-back, however many groups.

    Args:
        item_seq_len: int64 ``(B,)``.
        max_groups: None chooses by B; 1 keeps the batch whole.

    Yields:
        The groups, shortest first; between them they hold every row once.
    """
    n_rows = len(item_seq_len)
    n_groups = max(1, min(_MAX_GROUPS if max_groups is None else max_groups, n_rows // _MIN_ROWS))
    size = -(-n_rows // n_groups)
    ordered, rows = item_seq_len.sort()
    widths: list[int] = torch.cat((ordered[size - 1 : -1 : size], ordered[-1:])).tolist()
    start = 0
    for group, width in enumerate(widths):
        if group + 1 < len(widths) and widths[group + 1] == width:
            continue  # joins the next group, which is no wider
        end = min((group + 1) * size, n_rows)
        yield LengthGroup(rows[start:end], width)
        start = end


def restore_order(parts: list[Tensor], groups: list[LengthGroup]) -> Tensor:
    """Put the groups' results, each ``(g, ...)``, back into the order of the batch."""
    order = torch.cat([group.rows for group in groups])
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return torch.cat(parts)[back]
