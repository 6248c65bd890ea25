"""Two views that differ by the encoder's dropout alone (CLUE, our reconstruction)."""

import torch
from torch import Tensor, nn

from adaptssr_plugin.augment.operators.base import Sequences, ViewPair, check_sequences


class DropoutPair(nn.Module):
    """Gives every row twice as it is: only the dropout of the encoder makes two views of it (CLUE).

    An encoder without active dropout would encode both views alike; that is for who encodes them to refuse.

    Example:
        >>> first, second, _ = DropoutPair()(item_seq, item_seq_len)
    """

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        """Give two copies of the input; arguments and errors as :meth:`RandomPair.forward`, ``operators`` is None.

        Nothing is drawn from ``generator``.
        """
        check_sequences(item_seq, item_seq_len, generator)
        first = Sequences(item_seq.clone(), item_seq_len.clone())
        return ViewPair(first, Sequences(item_seq.clone(), item_seq_len.clone()), None)
