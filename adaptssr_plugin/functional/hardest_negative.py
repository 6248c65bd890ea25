"""The largest similarity of every anchor to another user's encoding (``max W`` in Eq. 6, the only negative in Eq. 8).

Only the winner of a row has a gradient. So the search visits the similarity matrix in chunks without autograd and
keeps one index per row, and its backward scatters the gradient to the winners. Memory is O(B * d + chunk * B), never
B * B.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .search import Implementation, find_winners
from .similarity import rows_of


def scatter_to_winners_(
    grad_vectors: Tensor, grad: Tensor, vectors: Tensor, stride: int, winners: Tensor, rows: slice | None = None
) -> Tensor:
    """Add the gradient of :func:`find_winners` to that of the encodings, in place; returns ``grad_vectors``.

    ``grad_vectors`` is ``(B, m, d)`` and contiguous; ``grad`` is the gradient of the similarities ``(n, m / stride)``.
    The other arguments are those given to :func:`find_winners`, and the winners that it returned.
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
    def forward(ctx: Any, vectors: Tensor, *arguments: Any) -> Tensor:
        found, winners = find_winners(vectors, *arguments)
        ctx.save_for_backward(vectors, winners)
        ctx.stride, *_, ctx.rows = arguments
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
