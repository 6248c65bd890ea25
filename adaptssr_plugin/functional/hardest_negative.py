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

from .implementation import Implementation, choose_search
from .similarity import exclude_own_, full_precision, similarity_chunks

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


def search(vectors: Tensor, stride: int, user_ids: Tensor | None, chunk_size: int | None) -> tuple[Tensor, Tensor]:
    """Find every anchor's largest similarity to another user, without autograd.

    Arguments as :func:`hardest_negative`.

    Returns:
        The similarities ``(B, m / stride)``, and the winners ``(B * m / stride,)``: row numbers in the
        ``(B * m, d)`` encodings.
    """
    values = vectors.new_empty(vectors[:, ::stride].shape[:2])
    winners = torch.empty_like(values, dtype=torch.int64)
    with full_precision(vectors):
        for users, scores in similarity_chunks(vectors, stride, chunk_size):
            exclude_own_(scores, users, user_ids, -torch.inf)
            value, winner = _row_maximum(scores.flatten(0, 1).flatten(1))
            values[users], winners[users] = value.view_as(values[users]), winner.view_as(winners[users])
    return values, winners.flatten()


def scatter_to_winners_(grad_vectors: Tensor, grad: Tensor, vectors: Tensor, stride: int, winners: Tensor) -> Tensor:
    """Add the gradient of :func:`search` to that of the encodings, in place.

    Args:
        grad_vectors: ``(B, m, d)``, contiguous.
        grad: gradient of the similarities ``(B, m / stride)``.
        vectors: as given to :func:`search`.
        stride: as given to :func:`search`.
        winners: as returned by :func:`search`.

    Returns:
        ``grad_vectors``.
    """
    anchors = vectors[:, ::stride]
    grad = grad[..., None]
    grad_vectors.flatten(0, 1).index_add_(0, winners, (grad * anchors).flatten(0, 1))
    grad_vectors[:, ::stride].addcmul_(grad, vectors.flatten(0, 1).index_select(0, winners).view_as(anchors))
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
    ) -> Tensor:
        chosen = choose_search(implementation, vectors.device)
        found, winners = chosen(vectors, stride, user_ids, chunk_size)
        ctx.save_for_backward(vectors, winners)
        ctx.stride = stride
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        vectors, winners = ctx.saved_tensors
        grad_vectors = torch.zeros(vectors.shape, dtype=vectors.dtype, device=vectors.device)
        return scatter_to_winners_(grad_vectors, grad, vectors, ctx.stride, winners), None, None, None, None


def hardest_negative(
    vectors: Tensor,
    stride: int,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Find the largest similarity of every anchor to an encoding of another user.

    Args:
        vectors: ``(B, m, d)``, of any length; every ``stride``-th of a user is an anchor, the first included.
        stride: a divisor of m.
        user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column never count as negatives of
            each other.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.
        implementation: of the search, as :func:`choose_search`.

    Returns:
        ``(B, m / stride)``; -inf where a row has no other user. Differentiable once, through the winners.
    """
    found: Tensor = _HardestNegative.apply(vectors, stride, user_ids, chunk_size, implementation)  # type: ignore[no-untyped-call]
    return found
