"""The mask operator (paper section 3.2, as in the authors' code)."""

import torch
from torch import Tensor

from adaptssr_plugin.augment.operators.base import Operator, Sequences, check_lengths, check_sequences
from adaptssr_plugin.augment.operators.counts import check_ratio, hidden
from adaptssr_plugin.augment.operators.draws import drawn_positions, shuffled_windows
from adaptssr_plugin.errors import check_count


class ItemMask(Operator):
    """Replaces a share of the items by [MASK], at positions drawn uniformly without replacement.

    Of n items ``m = ceil(ratio · n)`` are masked, one fewer if that would be all of them: at least one item is masked
    and at least one stays visible. A row of one item stays unchanged.

    Args:
        ratio: the share of items that is masked, in (0, 1].
        mask_id: the id written at masked positions, ``n_items``. The encoder maps it to the learned [MASK] vector, so
            the position is kept and attended to.

    Raises:
        InputError: a ratio or an id out of range.
    """

    min_length = 2

    def __init__(self, ratio: float = 0.6, *, mask_id: int) -> None:
        super().__init__()
        self.ratio = check_ratio(ratio)
        check_count("mask_id", mask_id)
        self.mask_id = mask_id

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Mask a batch; see :meth:`Operator.forward`."""
        check_sequences(item_seq, item_seq_len, generator)
        masked = drawn_positions(item_seq_len, self.counts(item_seq_len), item_seq.shape[1], generator)  # (B, L)
        return Sequences(torch.where(masked, self.mask_id, item_seq), item_seq_len)

    def positions(
        self, item_seq_len: Tensor, width: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw the masked positions, for an objective that predicts them.

        Args:
            item_seq_len: (B,) int64, each at least 1.
            width: L, the number of positions of a row, padding included.
            generator: on the device of ``item_seq_len``, or None.

        Returns:
            ``order`` (B, L) int64: in every row the positions of its items in random order, then those of its padding.
            ``m`` (B,) int64: the first m entries of a row of ``order`` are masked; 0 if the row has one item.

        Raises:
            InputError: lengths that are not (B,) int64, or a generator on another device.
        """
        check_lengths(item_seq_len, generator)
        order = shuffled_windows(torch.zeros_like(item_seq_len), item_seq_len, width, generator)
        return order, self.counts(item_seq_len)

    def counts(self, item_seq_len: Tensor) -> Tensor:
        """Return how many items of rows of length ``(B,)`` are masked: int64 ``(B,)``, 0 for a row of one item."""
        # ceil, or floor where ceil is n, but never n itself (METHODS.md, row 16): the same as ceil and at most n - 1.
        return hidden(self.ratio, item_seq_len)

    def extra_repr(self) -> str:
        """Show the arguments in ``repr``."""
        return f"ratio={self.ratio}, mask_id={self.mask_id}"
