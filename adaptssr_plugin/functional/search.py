"""The search for the hardest negative, by torch, or by Triton where that is faster."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError, check_choice
from . import triton_search
from .similarity import exclude_own_, full_precision, rows_of, similarity_chunks

Implementation = Literal["auto", "torch", "triton"]

_MIN_CLASSES = 32  # fewer do not fill a vector register's worth of work
_FEW_COLUMNS = 128  # up to here torch's own maximum costs no more than the several operations of ours

Search = Callable[[Tensor, int, Tensor | None, int | None], tuple[Tensor, Tensor]]
"""(vectors, stride, user_ids, chunk_size) to the largest similarities and the winners' row numbers."""


def check_implementation(implementation: object) -> None:
    """Raise InputError unless ``implementation`` is "auto", "torch" or "triton", and Triton installed for "triton".

    Triton is looked for, not imported.
    """
    check_choice("implementation", implementation, get_args(Implementation))
    if implementation == "triton" and not triton_search.is_installed():
        raise InputError(triton_search.NOT_INSTALLED)


def choose_search(implementation: Implementation, device: torch.device, dtype: torch.dtype = torch.float32) -> Search:
    """Choose the search for the hardest negative.

    Args:
        implementation: "torch": chunks of the similarity matrix, on any device; "triton": one kernel that holds
            none of it in memory; "auto": the kernel where it was measured to be faster (compute capability 9, no
            float64, Triton installed, not under torch.compile), "torch" everywhere else.
        device: where the encodings are. The kernel needs a CUDA device, or the interpreter.
        dtype: of the encodings.

    Raises:
        InputError: an implementation outside of the above; "triton" where Triton is not installed or the device is
            none of its own.
    """
    check_implementation(implementation)
    if implementation == "auto" and not torch.compiler.is_compiling() and triton_search.is_measured(device, dtype):
        return triton_search.search
    if implementation != "triton":
        return search
    if device.type != "cuda" and not (device.type == "cpu" and triton_search.is_interpreted()):
        raise InputError(f"implementation: 'triton' needs encodings on a CUDA device, got {device}")
    return triton_search.search


def _row_maximum(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return value and index of the largest entry of each row of ``(rows, width)``; one index on a tie; NaN wins.

    torch's own ``max`` with an index is not vectorised on a CPU. So the columns are taken as classes (column
    modulo their number): first the maximum of every class, which costs next to nothing beside the product,
    then the place inside the winning class alone.
    """
    rows, width = scores.shape
    if width <= _FEW_COLUMNS:
        found = scores.max(1)
        return found.values, found.indices
    # A power of two near the square root of the width: where both steps cost the same.
    classes = max(_MIN_CLASSES, 1 << (math.isqrt(width).bit_length() - 1))
    whole = width - width % classes
    members = scores[:, :whole].view(rows, whole // classes, classes)
    row = torch.arange(rows, device=scores.device)
    if whole == width:
        best, which = members.amax(1).max(1)
        return best, (members[row, :, which].argmax(1) * classes).add_(which)
    best, which = torch.cat((members.amax(1), scores[:, whole:]), 1).max(1)
    index = members[row, :, which.clamp_max(classes - 1)].argmax(1) * classes + which
    # The columns beyond the last whole set of classes stood behind them.
    return best, torch.where(which < classes, index, which + (whole - classes))


def search(
    vectors: Tensor, stride: int, user_ids: Tensor | None, chunk_size: int | None, rows: slice | None = None
) -> tuple[Tensor, Tensor]:
    """Find what :func:`find_winners` finds, in chunks of the similarity matrix."""
    values = vectors.new_empty(rows_of(vectors, rows)[:, ::stride].shape[:2])
    winners = torch.empty_like(values, dtype=torch.int64)
    with full_precision(vectors):
        for users, scores in similarity_chunks(vectors, stride, chunk_size, rows):
            exclude_own_(scores, users, user_ids, -torch.inf, rows)
            value, winner = _row_maximum(scores.flatten(0, 1).flatten(1))
            values[users], winners[users] = value.view_as(values[users]), winner.view_as(winners[users])
    return values, winners.flatten()


def find_winners(
    vectors: Tensor,
    stride: int,
    user_ids: Tensor | None,
    chunk_size: int | None,
    implementation: Implementation,
    rows: slice | None,
) -> tuple[Tensor, Tensor]:
    """Find every anchor's largest similarity to another user, without autograd, by the implementation asked for.

    Arguments as :func:`.hardest_negative`.

    Returns:
        The similarities ``(n, m / stride)``, and the winners ``(n * m / stride,)``: row numbers in the
        ``(B * m, d)`` encodings.

    Raises:
        InputError: as :func:`choose_search`; "triton" with ``rows``, which its kernel does not know.
    """
    if rows is None:
        return choose_search(implementation, vectors.device, vectors.dtype)(vectors, stride, user_ids, chunk_size)
    check_implementation(implementation)
    if implementation == "triton":
        raise InputError("implementation: expected 'auto' or 'torch' with rows of a gathered batch, got 'triton'")
    return search(vectors, stride, user_ids, chunk_size, rows)
