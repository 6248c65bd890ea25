"""The checks that every loss makes before it computes."""

from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from ..errors import InputError

Negatives: TypeAlias = Literal["hardest", "all"] | float


def check_positive(name: str, value: object) -> float:
    """Return ``value`` as a float; raise InputError unless it is a positive finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InputError(f"{name}: expected a positive number, got {value!r}")
    return float(value)


def check_negatives(value: object) -> Negatives:
    """Return "hardest", "all" or a positive number; raise InputError on anything else."""
    if isinstance(value, str) and value in ("hardest", "all"):
        return cast(Negatives, value)
    try:
        return check_positive("negatives", value)
    except InputError:
        raise InputError(f"negatives: expected 'hardest' or 'all' or a positive number, got {value!r}") from None


def check_encodings(user_ids: Tensor | None = None, minimum: int = 2, **encodings: Tensor) -> None:
    """Raise InputError unless all encodings are floating (B, d) of one shape, dtype and device.

    Args:
        user_ids: None or integers ``(B,)`` or ``(B, k)``, k ≥ 1, on the same device.
        minimum: the smallest B.
        **encodings: the tensors by their names in the call; the first is the reference for the others.
    """
    first_name, first = next(iter(encodings.items()))
    for name, tensor in encodings.items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name}: expected a tensor of shape (B, d), got {type(tensor).__name__}")
        if tensor.dim() != 2:
            raise InputError(f"{name}: expected a tensor of shape (B, d), got shape {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise InputError(f"{name}: expected a floating dtype, got {tensor.dtype}")
        if tensor.layout != torch.strided:
            raise InputError(f"{name}: expected a dense tensor, got {tensor.layout}")
        if tensor.shape != first.shape:
            raise InputError(f"{name}: expected shape {tuple(first.shape)} as {first_name}, got {tuple(tensor.shape)}")
        for what in ("dtype", "device"):
            if getattr(tensor, what) != getattr(first, what):
                raise InputError(
                    f"{name}: expected {what} {getattr(first, what)} as {first_name}, got {getattr(tensor, what)}"
                )
    if first.shape[0] < minimum:
        raise InputError(f"batch: expected at least {minimum} rows to compare, got {first.shape[0]}")
    if user_ids is not None:
        _check_user_ids(user_ids, first_name, first)


def _check_user_ids(user_ids: Tensor, first_name: str, first: Tensor) -> None:
    n_rows = first.shape[0]
    expected = f"user_ids: expected an integer tensor of shape (B,) or (B, k) with B = {n_rows}"
    if not isinstance(user_ids, Tensor):
        raise InputError(f"{expected}, got {type(user_ids).__name__}")
    fits = user_ids.dim() in (1, 2) and user_ids.shape[0] == n_rows and user_ids.shape[1:] != (0,)
    if not fits or user_ids.is_floating_point() or user_ids.is_complex() or user_ids.dtype == torch.bool:
        raise InputError(f"{expected}, got {user_ids.dtype} of shape {tuple(user_ids.shape)}")
    if user_ids.device != first.device:
        raise InputError(f"user_ids: expected device {first.device} as {first_name}, got {user_ids.device}")
