"""One operator per row, drawn at random, as in the authors' code."""

import torch
from torch import Tensor

from adaptssr_plugin.augment.operators.base import Combination, Operator, OperatorList, Sequences, check_sequences
from adaptssr_plugin.augment.operators.draws import uniform_below
from adaptssr_plugin.devices import on_cpu
from adaptssr_plugin.errors import InputError


class RandomChoice(Combination):
    """Applies to every row one of the operators that are offered to it, each with the same probability.

    A row to which none is offered (all of them need longer rows) stays unchanged.

    Args:
        operators: the operators to choose from, at least one.

    Raises:
        InputError: an empty list or an item that is not an operator.
    """

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Augment a batch; see :meth:`Operator.forward`."""
        check_sequences(item_seq, item_seq_len, generator)
        choice = draw_operators(self.operators, item_seq_len, 1, generator)
        return apply_chosen(self.operators, choice, item_seq, item_seq_len, generator)


def draw_operators(
    operators: OperatorList,
    item_seq_len: Tensor,
    views: int,
    generator: torch.Generator | None,
    distinct: bool = False,
) -> Tensor:
    """Draw, for every row of every view, one of the operators that are offered to it.

    With ``distinct`` there are two views, and the second draw of a row is not the operator of the first.

    Returns:
        (views · B,) int64, view after view, -1 if none is offered (any more).
    """
    is_offered = torch.stack([item_seq_len >= operator.min_length for operator in operators], dim=1)  # (B, K)
    if not distinct:
        return _draw_columns(is_offered.repeat(views, 1), generator)
    first = _draw_columns(is_offered, generator)
    taken = torch.arange(len(operators), device=first.device) == first[:, None]  # (B, K)
    return torch.cat([first, _draw_columns(is_offered & ~taken, generator)])


def _draw_columns(is_offered: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one of the true columns of each row of (B, K) bool: (B,) int64, -1 if the row has none."""
    rank = is_offered.cumsum(dim=1)  # (B, K), the number offered up to here
    count = rank[:, -1]
    draw = uniform_below(count, generator)
    column = (rank <= draw[:, None]).sum(dim=1)
    return torch.where(count > 0, column, -1)


def apply_chosen(
    operators: OperatorList,
    choice: Tensor,
    item_seq: Tensor,
    item_seq_len: Tensor,
    generator: torch.Generator | None,
) -> Sequences:
    """Apply to each row (B, L) of every view the operator that :func:`draw_operators` drew for it.

    Returns:
        (views · B, L) and (views · B,) int64; rows for which none was drawn are unchanged.
    """
    views = len(choice) // max(len(item_seq), 1)
    result = Sequences(item_seq.repeat(views, 1), item_seq_len.repeat(views))
    for index, operator in enumerate(operators):
        name, drew = f"operators[{index}]", choice == index
        if not on_cpu(drew):
            # Finding the rows that drew it would wait for the device, so it runs on all rows.
            result = keep_where(drew, apply_operator(name, operator, *result, generator), result)
        elif len(rows := torch.from_numpy(drew.numpy().nonzero()[0])):
            part = Sequences(*(values.index_select(0, rows) for values in result))
            for values, new in zip(result, apply_operator(name, operator, *part, generator), strict=True):
                values.index_copy_(0, rows, new)
    return result


def apply_operator(
    name: str, operator: Operator, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None
) -> Sequences:
    """Apply one operator of a list; raise InputError unless it keeps the shape, since the views are stacked."""
    new: Sequences = operator(item_seq, item_seq_len, generator)
    if new.item_seq.shape != item_seq.shape:
        expected, came = tuple(item_seq.shape), tuple(new.item_seq.shape)
        raise InputError(f"{name}: expected sequences of shape {expected} back, as they came in, got {came}")
    return new


def keep_where(chosen: Tensor, new: Sequences, old: Sequences) -> Sequences:
    """Take the rows of ``new`` where ``chosen`` (B,) bool holds, and those of ``old`` elsewhere."""
    return Sequences(
        torch.where(chosen[:, None], new.item_seq, old.item_seq),
        torch.where(chosen, new.item_seq_len, old.item_seq_len),
    )
