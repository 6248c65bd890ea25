"""Two augmented views of every row (paper, Figure 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adaptssr_plugin.augment.operators.base import Operator, OperatorList, Sequences, ViewPair, check_sequences
from adaptssr_plugin.augment.operators.choice import apply_chosen, draw_operators
from adaptssr_plugin.errors import InputError, check_kind


class RandomPair(nn.Module):
    """Makes two views of a batch. For each row of each view one operator is drawn independently.

    By default a row may get the same operator twice, with other random numbers (AdaptSSR). With ``distinct`` it never
    does (CL4SRec): a row to which only one operator is offered gets it in the first view, and its second view is the
    unchanged row (``operators`` says -1).

    Args:
        operators: the operators to draw from, at least one; at least two with ``distinct``.
        distinct: never the same operator twice for a row.

    Raises:
        InputError: an empty list, an item that is not an operator, or one operator with ``distinct``.

    Example:
        >>> pair = RandomPair([ItemMask(0.6, mask_id=n_items), ItemCrop(0.4), ItemReorder(0.6)])
        >>> first, second, operators = pair(item_seq, item_seq_len, generator)
    """

    def __init__(self, operators: Sequence[Operator], distinct: bool = False) -> None:
        super().__init__()
        self.operators = OperatorList(operators)
        check_kind("distinct", distinct, bool, "True or False")
        if distinct and len(operators) < 2:
            raise InputError(f"operators: expected at least two with distinct=True, got {len(operators)}")
        self.distinct = distinct

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> ViewPair:
        """Draw two views; arguments and errors as :meth:`Operator.forward`.

        Returns:
            Both views with the shapes, dtypes and device of the input, and the index of the operator
            that made each: (B, 2) int64, -1 where none was offered.
        """
        check_sequences(item_seq, item_seq_len, generator)
        rows = item_seq.shape[0]
        choice = draw_operators(self.operators, item_seq_len, 2, generator, self.distinct)  # (2B,)
        views = apply_chosen(self.operators, choice, item_seq, item_seq_len, generator)
        return ViewPair(
            Sequences(views.item_seq[:rows], views.item_seq_len[:rows]),
            Sequences(views.item_seq[rows:], views.item_seq_len[rows:]),
            choice.view(2, rows).T,
        )

    def extra_repr(self) -> str:
        """Show the argument in ``repr``."""
        return f"distinct={self.distinct}"
