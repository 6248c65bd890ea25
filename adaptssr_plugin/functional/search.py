"""The search for the hardest negative, in torch or as a Triton kernel."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError, check_choice
from . import triton_search
from .similarity import exclude_own_, full_precision, rows_of, similarity_chunks

Implementation = Literal["auto", "torch", "triton"]

_MIN_CLASSES = 32  # fewer do not fill a vector register
_FEW_COLUMNS = 128  # up to here torch's own maximum costs no more than the operations below

Search = Callable[[Tensor, int, Tensor | None, int | None], tuple[Tensor, Tensor]]
"""Maps (vectors, stride, user_ids, chunk_size) to the largest similarities and the row numbers of the winners."""


def check_implementation(implementation: object) -> None:
    """Raise InputError unless ``implementation`` is "auto", "torch" or "triton", or if it is "triton" without Triton.

    Triton is looked up, not imported.
    """
    check_choice("implementation", implementation, get_args(Implementation))
    if implementation == "triton" and not triton_search.is_installed():
        raise InputError(triton_search.NOT_INSTALLED)


def choose_search(implementation: Implementation, device: torch.device, dtype: torch.dtype = torch.float32) -> Search:
    """Choose the search for the hardest negative.

    Args:
        implementation: "torch": chunks of the similarity matrix, on any device. "triton": one kernel that keeps no
            part of the matrix in memory. "auto": the kernel on CUDA devices of compute capability 9 (H100, H200) if
            Triton is installed, unless the encodings are float64 or torch.compile is active; "torch" everywhere else.
        device: where the encodings are. The kernel needs a CUDA device or Triton's interpreter.
        dtype: of the encodings.

    Raises:
        InputError: an unknown implementation; "triton" where Triton is not installed, or on a device that it does
            not support.
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

    On a CPU torch's ``max`` with an index is not vectorised. So columns are grouped into classes (the column modulo
    their number). First the maximum of every class is taken, which costs little beside the product, and then the
    place within the winning class.
    """
    rows, width = scores.shape
    if width <= _FEW_COLUMNS:
        found = scores.max(1)
        return found.values, found.indices
    # A power of two near the square root of the width, where both steps cost the same.
    classes = max(_MIN_CLASSES, 1 << (math.isqrt(width).bit_length() - 1))
    whole = width - width % classes
    members = scores[:, :whole].view(rows, whole // classes, classes)
    row = torch.arange(rows, device=scores.device)
    if whole == width:
        best, which = members.amax(1).max(1)
        return best, (members[row, :, which].argmax(1) * classes).add_(which)
    best, which = torch.cat((members.amax(1), scores[:, whole:]), 1).max(1)
    index = members[row, :, which.clamp_max(classes - 1)].argmax(1) * classes + which
    # The columns after the last whole set of classes were appended behind them.
    return best, torch.where(which < classes, index, which + (whole - classes))


def search(
    vectors: Tensor, stride: int, user_ids: Tensor | None, chunk_size: int | None, rows: slice | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the result of :func:`find_winners` in chunks of the similarity matrix."""
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
    """Find every anchor's largest similarity to another user, without autograd, by the chosen implementation.

    Arguments as :func:`.hardest_negative`.

    Returns:
        The similarities ``(n, m / stride)``, and the winners ``(n * m / stride,)``: row numbers in the
        ``(B * m, d)`` encodings.

    Raises:
        InputError: as :func:`choose_search`; "triton" with ``rows``, which the kernel does not support.
    """
    if rows is None:
        return choose_search(implementation, vectors.device, vectors.dtype)(vectors, stride, user_ids, chunk_size)
    check_implementation(implementation)
    if implementation == "triton":
        raise InputError("implementation: expected 'auto' or 'torch' with rows of a gathered batch, got 'triton'")
    return search(vectors, stride, user_ids, chunk_size, rows)
