"""The reorder operator (paper section 3.2, as in the authors' code)."""

import torch
from torch import Tensor

from adaptssr_plugin.augment.operators.base import Operator, Sequences, check_sequences
from adaptssr_plugin.augment.operators.counts import check_ratio
from adaptssr_plugin.augment.operators.crop import draw_window
from adaptssr_plugin.augment.operators.draws import shuffled_windows


class ItemReorder(Operator):
    """Shuffles one window of consecutive items at a uniformly drawn place; the other items stay.

    The window holds ``ceil(ratio · n)`` of n items. Its permutation is uniform and may be the identity.

    Args:
        ratio: the share of items in the window, in (0, 1].

    Raises:
        InputError: a ratio out of range.
    """

    def __init__(self, ratio: float = 0.6) -> None:
        super().__init__()
        self.ratio = check_ratio(ratio)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Reorder a batch; see :meth:`Operator.forward`."""
        check_sequences(item_seq, item_seq_len, generator)
        window = draw_window(self.ratio, item_seq_len, generator)
        source = shuffled_windows(*window, item_seq.shape[1], generator)  # (B, L)
        return Sequences(item_seq.gather(1, source), item_seq_len)

    def extra_repr(self) -> str:
        """Show the argument in ``repr``."""
        return f"ratio={self.ratio}"
