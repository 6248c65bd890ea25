"""One operator per row, drawn at random (spec 1.4)."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from adaptssr_plugin.augment.base import Operator, OperatorList, Sequences, check_sequences
from adaptssr_plugin.augment.draws import Array, below, on_host, uniform_below
from adaptssr_plugin.errors import InputError

# How many positions of how many rows a part of a group has on the CPU: what an operator makes of it fits into the
# cache, and its calls are not what takes the time. Widths go in steps because operators keep tables by width.
_PART = 1 << 16
_STEP = 8


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
        choice = draw_operators(self.operators, item_seq_len, item_seq.shape[1], 1, generator)
        return apply_chosen(self.operators, choice, item_seq, item_seq_len, generator)


def draw_operators(
    operators: OperatorList,
    item_seq_len: Tensor,
    width: int,
    views: int,
    generator: torch.Generator | None,
    distinct: bool = False,
) -> Tensor:
    """Draw one of the operators that are offered to a row, for every row of every view.

    Args:
        operators: K of them.
        item_seq_len: (B,) int64.
        width: L, the greatest length there may be.
        views: how many draws each row gets; two with ``distinct``.
        generator: on the device of ``item_seq_len``, or None.
        distinct: the second draw of a row is not the operator of the first.

    Returns:
        (views · B,) int64, view after view, -1 where none is offered (any more).
    """
    if on_host(item_seq_len):
        return _draw_on_host(operators, item_seq_len.numpy(), width, views, generator, distinct)
    is_offered = torch.stack([item_seq_len >= operator.min_length for operator in operators], dim=1)  # (B, K)
    if not distinct:
        return _draw_columns(is_offered.repeat(views, 1), generator)
    first = _draw_columns(is_offered, generator)
    taken = torch.arange(len(operators), device=first.device) == first[:, None]  # (B, K)
    return torch.cat([first, _draw_columns(is_offered & ~taken, generator)])


def _draw_columns(is_offered: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw for each row of (B, K) bool one of its true columns: (B,) int64, -1 where there is none."""
    rank = is_offered.cumsum(dim=1)  # (B, K), how many are offered up to here
    count = rank[:, -1]
    draw = uniform_below(count, generator)
    column = (rank <= draw[:, None]).sum(dim=1)
    return torch.where(count > 0, column, -1)


def _draw_on_host(
    operators: OperatorList, length: Array, width: int, views: int, generator: torch.Generator | None, distinct: bool
) -> Tensor:
    """Draw the same from tables, with fewer and cheaper calls."""
    counts, columns = _offers(tuple(operator.min_length for operator in operators), width)
    count, row = counts.take(length), length * columns.shape[1]
    if not distinct:
        rank = below(count, generator, (views, len(length)))
        return torch.from_numpy(columns.take(rank + row)).view(-1)
    first, second = below(count, generator), below((count - 1).clip(0), generator)
    second += second >= first  # the rank that is taken is stepped over
    return torch.cat([torch.from_numpy(columns.take(rank + row)) for rank in (first, second)])


@lru_cache(maxsize=64)
def _offers(min_lengths: tuple[int, ...], width: int) -> tuple[Array, Array]:
    """Tell how many of K operators are offered to every length from 0 to L, and which.

    Returns:
        (L + 1,) int64, and (L + 1, K + 1) int64: the operators in order, then -1.
    """
    none = len(min_lengths)
    is_offered = np.arange(width + 1)[:, None] >= np.array((*min_lengths, width + 1))  # (L + 1, K + 1)
    in_order = np.sort(np.where(is_offered, np.arange(none + 1), none), axis=1)
    return is_offered.sum(1), np.where(in_order < none, in_order, -1)


def apply_chosen(
    operators: OperatorList,
    choice: Tensor,
    item_seq: Tensor,
    item_seq_len: Tensor,
    generator: torch.Generator | None,
) -> Sequences:
    """Apply to each row of every view the operator that was drawn for it.

    Args:
        operators: K of them.
        choice: (views · B,) int64, view after view; -1 leaves the row as it is.
        item_seq: (B, L) int64.
        item_seq_len: (B,) int64.
        generator: on the device of ``item_seq``, or None.

    Returns:
        (views · B, L) and (views · B,) int64.
    """
    if on_host(choice):
        return _apply_to_groups(operators, choice, item_seq, item_seq_len, generator)
    # Elsewhere the sizes of the groups are not known here without waiting for the device, so every operator
    # runs on all rows and the rows that drew it are kept.
    views = len(choice) // max(len(item_seq), 1)
    # All views at once: half as many calls.
    result = every = Sequences(item_seq.repeat(views, 1), item_seq_len.repeat(views))
    for index, operator in enumerate(operators):
        new = apply_operator(f"operators[{index}]", operator, *every, generator)
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
    drawn, n_rows = choice.numpy(), len(item_seq)
    result = Sequences(item_seq.new_zeros(len(drawn), item_seq.shape[1]), torch.empty_like(choice))
    # Rows are copied by arrays, which take a part of each row without reading the rest.
    seq, length, new_seq, new_length = (t.numpy() for t in (item_seq, item_seq_len, *result))
    untouched = (drawn < 0).nonzero()[0]
    if len(untouched):
        new_seq[untouched], new_length[untouched] = seq[untouched % n_rows], length[untouched % n_rows]
    for index, operator in enumerate(operators):
        group = (drawn == index).nonzero()[0]
        for rows, width in _parts(group, length, seq.shape[1], n_rows, operator.keeps_padding):
            source = rows % n_rows
            part = torch.from_numpy(seq[source, :width]), torch.from_numpy(length[source])
            new = apply_operator(f"operators[{index}]", operator, *part, generator)
            new_seq[rows, :width], new_length[rows] = new.item_seq.numpy(), new.item_seq_len.numpy()
    return result


def _parts(group: Array, length: Array, width: int, n_rows: int, by_length: bool) -> Iterator[tuple[Array, int]]:
    """Divide the rows of a group, if it is large, into parts of similar length: the rows and the width of each."""
    if len(group) == 0:
        return
    n_parts = len(group) * width // _PART if by_length else 0
    if n_parts < 2:
        yield group, width
        return
    lengths = length[group % n_rows]
    order = lengths.argsort()
    group, lengths = group[order], lengths[order]
    size = -(-len(group) // n_parts)
    for first in range(0, len(group), size):
        rows = group[first : first + size]
        longest = int(lengths[first + len(rows) - 1])
        yield rows, min(width, -(-longest // _STEP) * _STEP)


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
