"""The largest similarity of every anchor to another user's encoding (``max W`` in Eq. 6, the only negative in Eq. 8).

Only the winner of a row carries gradient. So the search keeps one index per row, visits the similarity
matrix in chunks without autograd, and its backward scatters the gradient to the winners: memory
O(B * d + chunk * B), never B * B.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import InputError
from .implementation import Implementation, check_implementation, choose_search
from .similarity import exclude_own_, full_precision, rows_of, similarity_chunks

_MIN_CLASSES = 32  # fewer do not fill a vector register's worth of work
_FEW_COLUMNS = 128  # up to here torch's own maximum costs no more than the several operations of ours


def _n_classes(width: int) -> int:
    """Find a power of two near the square root of ``width``: where both steps of the search cost the same."""
    return max(_MIN_CLASSES, 1 << (math.isqrt(width).bit_length() - 1))


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
    classes = _n_classes(width)
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
    """Find every anchor's largest similarity to another user, without autograd.

    Arguments as :func:`hardest_negative`.

    Returns:
        The similarities ``(n, m / stride)``, and the winners ``(n * m / stride,)``: row numbers in the
        ``(B * m, d)`` encodings.
    """
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
    """Run :func:`search` or another implementation of it.

    Raises:
        InputError: as :func:`choose_search`; "triton" with ``rows``, which its kernel does not know.
    """
    if rows is None:
        return choose_search(implementation, vectors.device, vectors.dtype)(vectors, stride, user_ids, chunk_size)
    check_implementation(implementation)
    if implementation == "triton":
        raise InputError("implementation: expected 'auto' or 'torch' with rows of a gathered batch, got 'triton'")
    return search(vectors, stride, user_ids, chunk_size, rows)


def scatter_to_winners_(
    grad_vectors: Tensor, grad: Tensor, vectors: Tensor, stride: int, winners: Tensor, rows: slice | None = None
) -> Tensor:
    """Add the gradient of :func:`search` to that of the encodings, in place.

    Args:
        grad_vectors: ``(B, m, d)``, contiguous.
        grad: gradient of the similarities ``(n, m / stride)``.
        vectors: as given to :func:`search`.
        stride: as given to :func:`search`.
        winners: as returned by :func:`search`.
        rows: as given to :func:`search`.

    Returns:
        ``grad_vectors``.
    """
    anchors = rows_of(vectors, rows)[:, ::stride]
    grad = grad[..., None]
    grad_vectors.flatten(0, 1).index_add_(0, winners, (grad * anchors).flatten(0, 1))
    won = vectors.flatten(0, 1).index_select(0, winners).view_as(anchors)
    rows_of(grad_vectors, rows)[:, ::stride].addcmul_(grad, won)
    return grad_vectors


class _HardestNegative(torch.autograd.Function):
    """Streamed search; see the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        stride: int,
        user_ids: Tensor | None,
        chunk_size: int | None,
        implementation: Implementation,
        rows: slice | None,
    ) -> Tensor:
        found, winners = find_winners(vectors, stride, user_ids, chunk_size, implementation, rows)
        ctx.save_for_backward(vectors, winners)
        ctx.stride, ctx.rows = stride, rows
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        vectors, winners = ctx.saved_tensors
        grad_vectors = torch.zeros(vectors.shape, dtype=vectors.dtype, device=vectors.device)
        grad_vectors = scatter_to_winners_(grad_vectors, grad, vectors, ctx.stride, winners, ctx.rows)
        return grad_vectors, None, None, None, None, None


def hardest_negative(
    vectors: Tensor,
    stride: int,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
    implementation: Implementation = "auto",
    rows: slice | None = None,
) -> Tensor:
    """Find the largest similarity of every anchor to an encoding of another user.

    Args:
        vectors: ``(B, m, d)``, of any length; every ``stride``-th of a user is an anchor, the first included.
        stride: a divisor of m.
        user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column never count as negatives of
            each other.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.
        implementation: of the search, as :func:`choose_search`.
        rows: users whose encodings are anchors (in a gathered batch, those of this process), n of them; None: all B.

    Returns:
        ``(n, m / stride)``; -inf where a row has no other user. Differentiable once, through the winners.
    """
    arguments = (vectors, stride, user_ids, chunk_size, implementation, rows)
    found: Tensor = _HardestNegative.apply(*arguments)  # type: ignore[no-untyped-call]
    return found
