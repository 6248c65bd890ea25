"""The checks of the encoders' arguments."""

from torch import Tensor

from ..augment.operators.base import check_sequences
from ..errors import InputError


def check_dropout(value: object) -> None:
    """Raise InputError unless the argument ``dropout`` is a probability in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"dropout: expected a number in [0, 1), got {value!r}")


def check_heads(dim: int, n_heads: int) -> None:
    """Raise InputError unless ``n_heads`` divides ``dim``."""
    if dim % n_heads:
        raise InputError(f"n_heads: expected a divisor of dim = {dim}, got {n_heads}")


def check_batch(item_seq: Tensor, item_seq_len: Tensor, max_len: int) -> None:
    """Raise InputError unless the arguments are sequences of at most ``max_len`` positions."""
    check_sequences(item_seq, item_seq_len)
    if item_seq.shape[1] > max_len:
        came = item_seq.shape[1]
        raise InputError(f"item_seq: expected at most max_len = {max_len} positions, padding included, got {came}")
