"""The interface of operators, and the checks of their arguments."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from adaptssr_plugin.errors import InputError, check_kind


class Sequences(NamedTuple):
    """A batch of behaviour sequences, oldest behaviour first.

    Attributes:
        item_seq: (B, L) int64, items ``1 .. n_items - 1``, right-padded with 0; a masked position holds ``n_items``.
        item_seq_len: (B,) int64, at least 1.
    """

    item_seq: Tensor
    item_seq_len: Tensor


class ViewPair(NamedTuple):
    """Two augmented views of every row of a batch.

    Attributes:
        first: the view Ŝ.
        second: the view S̃.
        operators: (B, 2) int64, the index of the operator that made each view, -1 if none was offered; None if the
            views do not come from a list of operators.
    """

    first: Sequences
    second: Sequences
    operators: Tensor | None


class Operator(nn.Module):
    """Turns every row of a batch into an augmented row, all rows at once.

    A subclass implements :meth:`forward`, and sets ``min_length`` if short rows are not offered to it. A combination
    may pass an operator rows that it is not offered or that drew another one; what it returns for those is discarded,
    so it only must not fail on them.

    Attributes:
        min_length: the shortest row that is offered to this operator.
    """

    min_length: int = 1

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Augment a batch.

        Args:
            item_seq: (B, L) int64, right-padded with 0; never written to.
            item_seq_len: (B,) int64, each at least 1, on the device of ``item_seq``.
            generator: source of the random numbers, on the device of ``item_seq``; None: torch's default generator.

        Returns:
            Sequences of the same shapes, dtypes and device.

        Raises:
            InputError: a shape, dtype or device other than these. Values are not checked: on a GPU the CPU would have
                to wait for them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it does to a batch")


class OperatorList(nn.ModuleList):
    """The operators from which a combination draws, or which it applies in turn.

    Args:
        operators: at least one.

    Raises:
        InputError: an empty list or an item that is not an operator.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        check_kind("operators", operators, (list, tuple, nn.ModuleList), "a list of operators")
        if len(operators) == 0:
            raise InputError("operators: expected at least one operator, got an empty list")
        for place, operator in enumerate(operators):
            check_operator(f"operators[{place}]", operator)
        super().__init__(operators)

    def __iter__(self) -> Iterator[Operator]:
        return cast("Iterator[Operator]", super().__iter__())


class Combination(Operator):
    """An operator made of others; a row is offered to it that is offered to one of them."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__()
        self.operators = OperatorList(operators)
        self.min_length = min(operator.min_length for operator in self.operators)


def check_operator(name: str, value: object) -> None:
    """Raise InputError unless the argument called ``name`` is an operator."""
    if not isinstance(value, Operator):
        # A class in place of an instance is a likely mistake, so the message names the class.
        came = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise InputError(f"{name}: expected an Operator, got {came}")


def check_sequences(item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> None:
    """Raise InputError unless shapes, dtypes and devices are valid for :meth:`Operator.forward`."""
    if checked_int64("item_seq", item_seq).dim() != 2 or item_seq.shape[1] == 0:
        raise InputError(f"item_seq: expected shape (B, L) with L >= 1, got {tuple(item_seq.shape)}")
    check_lengths(item_seq_len, generator)
    if item_seq_len.shape[0] != item_seq.shape[0]:
        raise InputError(
            f"item_seq_len: expected shape ({item_seq.shape[0]},), one per row of item_seq, "
            f"got {tuple(item_seq_len.shape)}"
        )
    if item_seq_len.device != item_seq.device:
        raise InputError(f"item_seq_len: expected device {item_seq.device} as item_seq, got {item_seq_len.device}")


def check_lengths(item_seq_len: Tensor, generator: torch.Generator | None = None) -> None:
    """Raise InputError unless ``item_seq_len`` is (B,) int64 and ``generator`` is on its type of device."""
    if checked_int64("item_seq_len", item_seq_len).dim() != 1:
        raise InputError(f"item_seq_len: expected shape (B,), got {tuple(item_seq_len.shape)}")
    if generator is not None:
        check_kind("generator", generator, torch.Generator, "a torch.Generator or None")
        if generator.device.type != item_seq_len.device.type:
            expected, came = item_seq_len.device.type, generator.device.type
            raise InputError(f"generator: expected one on {expected} as item_seq_len, got one on {came}")


def checked_int64(name: str, value: object) -> Tensor:
    """Return the argument called ``name``; raise InputError unless it is a dense int64 tensor."""
    if not isinstance(value, Tensor):
        raise InputError(f"{name}: expected a tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise InputError(f"{name}: expected a dense tensor, got {str(value.layout).removeprefix('torch.')}")
    if value.dtype != torch.int64:
        raise InputError(f"{name}: expected int64, got {dtype_name(value)}")
    return value


def dtype_name(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype, without the prefix "torch."."""
    return str(tensor.dtype).removeprefix("torch.")
