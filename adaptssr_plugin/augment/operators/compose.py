"""Several operators one after the other."""

import torch
from torch import Tensor

from adaptssr_plugin.augment.operators.base import Combination, Sequences, check_sequences
from adaptssr_plugin.augment.operators.choice import apply_operator, keep_where


class Compose(Combination):
    """Applies operators in turn, each to the result of the one before it.

    An operator leaves a row unchanged if the row, as changed so far, is too short for it.

    Args:
        operators: the operators in the order in which they are applied, at least one.

    Raises:
        InputError: an empty list or an item that is not an operator.
    """

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Augment a batch; see :meth:`Operator.forward`."""
        check_sequences(item_seq, item_seq_len, generator)
        result = Sequences(item_seq, item_seq_len)
        for index, operator in enumerate(self.operators):
            new = apply_operator(f"operators[{index}]", operator, *result, generator)
            long_enough = result.item_seq_len >= operator.min_length
            result = keep_where(long_enough, new, result) if operator.min_length > 1 else new
        return result
