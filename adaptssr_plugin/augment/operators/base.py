"""What every operator takes and gives back, and the one place where its arguments are checked."""

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
        operators: (B, 2) int64, which operator of the list made each view, -1 where none was offered;
            None where views do not come from a list of operators.
    """

    first: Sequences
    second: Sequences
    operators: Tensor | None


class Operator(nn.Module):
    """Turns every row of a batch into an augmented row, all rows at once.

    A subclass implements :meth:`forward` and sets ``min_length`` where short rows are not to be offered.
    Where operators are combined, one may be handed rows that it is not offered or that did not draw it; what
    it returns for those is thrown away, so it only has to get through them.

    Attributes:
        min_length: the length from which on a row is offered to this operator.
    """

    min_length: int = 1

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> Sequences:
        """Augment a batch.

        Args:
            item_seq: (B, L) int64, right-padded with 0; never written to.
            item_seq_len: (B,) int64, each at least 1, on the device of ``item_seq``.
            generator: where the random numbers come from, on the device of ``item_seq``; None takes torch's own.

        Returns:
            Sequences of the same shapes, dtypes and device.

        Raises:
            InputError: a shape, dtype or device other than these. Values are not looked at: on a GPU that
                would make the CPU wait for them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it does to a batch")


class OperatorList(nn.ModuleList):
    """The operators that a combination draws from or goes through.

    Args:
        operators: at least one.

    Raises:
        InputError: an empty list or something in it that is no operator.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        if not isinstance(operators, (list, tuple, nn.ModuleList)):
            raise InputError(f"operators: expected a list of operators, got {type(operators).__name__}")
        if len(operators) == 0:
            raise InputError("operators: expected at least one operator, got an empty list")
        for place, operator in enumerate(operators):
            check_operator(f"operators[{place}]", operator)
        super().__init__(operators)

    def __iter__(self) -> Iterator[Operator]:
        return cast("Iterator[Operator]", super().__iter__())

    @property
    def min_length(self) -> int:
        """The length from which on at least one of the operators is offered."""
        return min(operator.min_length for operator in self)


class Combination(Operator):
    """An operator made of others; a row is offered to it that is offered to one of them."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__()
        self.operators = OperatorList(operators)
        self.min_length = self.operators.min_length


def check_operator(name: str, value: object) -> None:
    """Raise InputError unless the argument called ``name`` is an operator."""
    if not isinstance(value, Operator):
        # A class without its brackets is the likely slip, so it is named as what it is.
        came = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise InputError(f"{name}: expected an Operator, got {came}")


def check_sequences(item_seq: Tensor, item_seq_len: Tensor, generator: torch.Generator | None = None) -> None:
    """Raise InputError unless shapes, dtypes and devices are those that :meth:`Operator.forward` asks for."""
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
    """Raise InputError unless ``item_seq_len`` is (B,) int64 and ``generator`` lives on its kind of device."""
    if checked_int64("item_seq_len", item_seq_len).dim() != 1:
        raise InputError(f"item_seq_len: expected shape (B,), got {tuple(item_seq_len.shape)}")
    if generator is not None:
        check_kind("generator", generator, torch.Generator, "a torch.Generator or None")
        if generator.device.type != item_seq_len.device.type:
            expected, came = item_seq_len.device.type, generator.device.type
            raise InputError(f"generator: expected one on {expected} as item_seq_len, got one on {came}")


def checked_int64(name: str, value: object) -> Tensor:
    """Give the argument called ``name`` back; raise InputError unless it is a dense tensor of int64."""
    if not isinstance(value, Tensor):
        raise InputError(f"{name}: expected a tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise InputError(f"{name}: expected a dense tensor, got {str(value.layout).removeprefix('torch.')}")
    if value.dtype != torch.int64:
        raise InputError(f"{name}: expected int64, got {dtype_name(value)}")
    return value


def dtype_name(tensor: Tensor) -> str:
    """Name the dtype of a tensor, without the name of torch."""
    return str(tensor.dtype).removeprefix("torch.")
