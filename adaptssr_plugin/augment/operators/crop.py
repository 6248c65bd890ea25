"""The crop operator (paper section 3.2, as in the authors' code)."""

import torch
from torch import Tensor

from adaptssr_plugin.augment.operators.base import Operator, Sequences, check_sequences
from adaptssr_plugin.augment.operators.counts import check_ratio, up
from adaptssr_plugin.augment.operators.draws import uniform_below


class ItemCrop(Operator):
    """Keeps one window of consecutive items at a uniformly drawn place; it may include the newest item.

    Of n items ``ceil(ratio · n)`` are kept, at least one. The ratio is the share that is **kept**, so a small ratio is
    a strong crop. A row of one item stays unchanged.

    Args:
        ratio: the share of items that is kept, in (0, 1].

    Raises:
        InputError: a ratio out of range.
    """

    def __init__(self, ratio: float = 0.4) -> None:
        super().__init__()
        self.ratio = check_ratio(ratio)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Crop a batch; see :meth:`Operator.forward`."""
        check_sequences(item_seq, item_seq_len, generator)
        start, length = draw_window(self.ratio, item_seq_len, generator)
        return cut_window(item_seq, start, length)

    def extra_repr(self) -> str:
        """Show the argument in ``repr``."""
        return f"ratio={self.ratio}"


def draw_window(ratio: float, item_seq_len: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Draw a window of ``ceil(ratio · n)`` items, at least one, anywhere in each row: start and length, (B,) each."""
    length = up(ratio, item_seq_len).clamp_(min=1)
    return uniform_below(item_seq_len - length + 1, generator), length


def cut_window(item_seq: Tensor, start: Tensor, length: Tensor) -> Sequences:
    """Cut ``length`` items from ``start`` on, both (B,) int64, out of each row of (B, L); the width L stays."""
    place = torch.arange(item_seq.shape[1], device=item_seq.device)  # (L,)
    source = (place + start[:, None]).clamp_(max=item_seq.shape[1] - 1)  # (B, L)
    return Sequences(item_seq.gather(1, source).mul_(place < length[:, None]), length)
