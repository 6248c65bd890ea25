"""One operator per row, drawn at random (spec 1.4)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptssr_plugin.augment.base import Operator, OperatorList, Sequences, check_sequences
from adaptssr_plugin.augment.draws import on_host, uniform_below
from adaptssr_plugin.errors import InputError


class RandomChoice(Operator):
    """Applies to every row one of the operators that are offered to it, each with the same probability.

    A row to which none is offered (all of them ask for longer rows) stays as it is.

    Args:
        operators: the operators to choose from, at least one.

    Raises:
        InputError: an empty list or something in it that is no operator.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__()
        self.operators = OperatorList(operators)
        self.min_length = self.operators.min_length

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Augment a batch; see :meth:`Operator.forward`."""
        check_sequences(item_seq, item_seq_len, generator)
        choice = draw_operator(offered(self.operators, item_seq_len), generator)
        return apply_chosen(self.operators, choice, item_seq, item_seq_len, generator)


def offered(operators: OperatorList, item_seq_len: Tensor) -> Tensor:
    """Tell which of K operators each row is long enough for: (B, K) bool."""
    return torch.stack([item_seq_len >= operator.min_length for operator in operators], dim=1)


def draw_operator(is_offered: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw for each row of (B, K) bool one of its true columns: (B,) int64, -1 where there is none."""
    rank = is_offered.cumsum(dim=1)  # (B, K), how many are offered up to here
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
    """Apply to each row the operator that ``choice`` (B,) int64 names; -1 leaves the row as it is."""
    if on_host(choice):
        return _apply_to_groups(operators, choice, item_seq, item_seq_len, generator)
    # Elsewhere the sizes of the groups are not known here without waiting for the device, so every operator
    # runs on all rows and the rows that drew it are kept.
    result = Sequences(item_seq, item_seq_len)
    for index, operator in enumerate(operators):
        new = apply_operator(f"operators[{index}]", operator, item_seq, item_seq_len, generator)
        result = keep_where(choice == index, new, result)
    return result


def _apply_to_groups(
    operators: OperatorList,
    choice: Tensor,
    item_seq: Tensor,
    item_seq_len: Tensor,
    generator: torch.Generator | None,
) -> Sequences:
    """Apply each operator to the rows that drew it and to no others: on the CPU, 1/K of the work."""
    result = Sequences(item_seq.clone(), item_seq_len.clone())
    for index, operator in enumerate(operators):
        rows = torch.from_numpy((choice.numpy() == index).nonzero()[0])
        if len(rows) == 0:
            continue
        group, group_len = item_seq.index_select(0, rows), item_seq_len.index_select(0, rows)
        new = apply_operator(f"operators[{index}]", operator, group, group_len, generator)
        result.item_seq.index_copy_(0, rows, new.item_seq)
        result.item_seq_len.index_copy_(0, rows, new.item_seq_len)
    return result


def apply_operator(
    name: str, operator: Operator, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None
) -> Sequences:
    """Apply one operator of a list; raise InputError if it does not keep the shape, so that views still stack."""
    new: Sequences = operator(item_seq, item_seq_len, generator)
    if new.item_seq.shape != item_seq.shape:
        expected, came = tuple(item_seq.shape), tuple(new.item_seq.shape)
        raise InputError(f"{name}: expected sequences of shape {expected} back, as they came in, got {came}")
    return new


def keep_where(chosen: Tensor, new: Sequences, old: Sequences) -> Sequences:
    """Take the rows of ``new`` where ``chosen`` (B,) bool holds and those of ``old`` elsewhere."""
    return Sequences(
        torch.where(chosen[:, None], new.item_seq, old.item_seq),
        torch.where(chosen, new.item_seq_len, old.item_seq_len),
    )
