"""What every loss checks before it computes: one line names the argument, what was expected and what came."""

from typing import Literal

import torch
from torch import Tensor

from ..distributed import GatheredRows, announce_refusal, gather_rows, sum_over_processes, world_size
from ..errors import InputError

Reduction = Literal["mean", "sum", "none"]


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise InputError unless ``value`` is one of ``choices``."""
    if not isinstance(value, str | int) or isinstance(value, bool) or value not in choices:
        listed = " or ".join(repr(choice) for choice in choices)
        raise InputError(f"{name}: expected {listed}, got {value!r}")


def check_positive(name: str, value: object) -> float:
    """Return ``value`` as a float; raise InputError unless it is a positive finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InputError(f"{name}: expected a positive number, got {value!r}")
    return float(value)


def check_chunk_size(value: object) -> None:
    """Raise InputError unless ``value`` is None or a positive integer."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"chunk_size: expected a positive integer or None, got {value!r}")


def check_gather(value: object, implementation: object) -> None:
    """Raise InputError unless ``value`` is True or False, and the search is torch's with True."""
    if not isinstance(value, bool):
        raise InputError(f"gather: expected True or False, got {value!r}")
    if value and implementation == "triton":
        raise InputError("implementation: expected 'auto' or 'torch' with gather=True, got 'triton'")


def check_encodings(user_ids: Tensor | None = None, minimum: int = 2, **encodings: Tensor) -> None:
    """Raise InputError unless all encodings are floating (B, d) of one shape, dtype and device.

    Args:
        user_ids: None or integers ``(B,)`` or ``(B, k)``, k ≥ 1, on the same device.
        minimum: the smallest B.
        **encodings: the tensors by the names they have in the call; the first is the measure for the rest.
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


def gathered_rows(user_ids: Tensor | None, **encodings: Tensor) -> GatheredRows:
    """Check this process's encodings as :func:`check_encodings`, and stack and gather those of all processes.

    Raises:
        InputError: here as :func:`check_encodings`, on the other processes for the refusal; fewer than two rows on
            all processes together, or processes that do not fit one another, on every process.
    """
    try:
        check_encodings(user_ids, minimum=0, **encodings)
    except InputError:
        announce_refusal()
        raise
    return gather_rows(torch.stack(list(encodings.values()), 1), user_ids, minimum=2)


def reduce_rows(loss: Tensor, valid: Tensor | None, reduction: Reduction) -> Tensor:
    """Reduce losses that are 0 where not ``valid``; the mean is over the valid rows (all, if None).

    Args:
        loss: ``(B, anchors)``, of which a row's loss is the mean, or ``(B,)``.
        valid: bool ``(B,)``.
        reduction: as of the losses.
    """
    per_anchor = loss.dim() == 2
    if reduction == "none":
        return loss.mean(1) if per_anchor else loss
    if reduction == "mean" and valid is None:
        return loss.mean()
    total = loss.sum() / loss.shape[1] if per_anchor else loss.sum()
    return total if reduction == "sum" or valid is None else total / valid.sum().clamp_min(1)


def reduce_gathered_rows(loss: Tensor, valid: Tensor | None, reduction: Reduction, n_rows: int = 0) -> Tensor:
    """Reduce this process's rows of a gathered batch so that the gradients of all make that of the whole batch.

    "mean" is this process's sum, times the number of processes, over the valid rows of all: the average of it over
    the processes is the mean of the whole batch. "sum" and "none" are this process's own.

    Args:
        loss: as of :func:`reduce_rows`.
        valid: bool, this process's rows that have a negative, of which one all-reduce makes the number of all.
        reduction: as of the losses.
        n_rows: rows of all processes together, all valid, where ``valid`` is None.
    """
    if reduction != "mean" or world_size() == 1:
        return reduce_rows(loss, valid, reduction)
    count = n_rows if valid is None else sum_over_processes(valid.sum()).clamp_min(1)
    return reduce_rows(loss, valid, "sum") * world_size() / count
