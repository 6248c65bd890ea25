"""Two views that differ only by the encoder's dropout (CLUE, our reconstruction)."""

import torch
from torch import Tensor, nn

from adaptssr_plugin.augment.operators.base import Sequences, ViewPair, check_sequences


class DropoutPair(nn.Module):
    """Returns every row twice, unchanged: only the dropout of the encoder makes two views of it (CLUE).

    An encoder without active dropout would give equal encodings; the caller that encodes the views has to refuse it.

    Example:
        >>> first, second, _ = DropoutPair()(item_seq, item_seq_len)
    """

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        """Return both views.

        Args:
            item_seq: (B, L) int64, right-padded with 0; never written to.
            item_seq_len: (B,) int64, each at least 1, on the device of ``item_seq``.
            generator: not used.

        Returns:
            Two copies of the input, so that writing to one does not change the other; ``operators`` is None.

        Raises:
            InputError: a shape, dtype or device other than these.
        """
        check_sequences(item_seq, item_seq_len, generator)
        first = Sequences(item_seq.clone(), item_seq_len.clone())
        return ViewPair(first, Sequences(item_seq.clone(), item_seq_len.clone()), None)
