"""The soft negative of every anchor, τ log mean_w exp(w/τ): the mean of all w for τ → ∞, their maximum for τ → 0.

The similarities w to the encodings of other users are streamed; the backward recomputes each chunk's softmax. Memory is
O(B * d + chunk * B), never B * B. Every negative has a gradient, by its share of the softmax;
:func:`.hardest_negative` gives all of it to one.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .similarity import exclude_own_, full_precision, rows_of, similarity_chunks, valid_negatives


def find_soft_negatives(
    vectors: Tensor,
    stride: int,
    temperature: float,
    user_ids: Tensor | None,
    chunk_size: int | None,
    rows: slice | None,
) -> tuple[Tensor, Tensor]:
    """Compute τ log Σ_w exp(w/τ) and max w of every anchor, without autograd.

    Arguments as :func:`soft_negative`.

    Returns:
        Two tensors ``(n, m / stride)``; -inf where a row has no negative.
    """
    soft = vectors.new_empty(rows_of(vectors, rows)[:, ::stride].shape[:2])
    hardest = torch.empty_like(soft)
    with full_precision(vectors):
        for users, scores in similarity_chunks(vectors, stride, chunk_size, rows):
            largest = exclude_own_(scores, users, user_ids, -torch.inf, rows).amax((2, 3))
            shift = torch.where(largest.abs() == torch.inf, 0, largest)
            total = scores.sub_(shift[:, :, None, None]).div_(temperature).exp_().sum((2, 3))
            hardest[users], soft[users] = largest, total.log_().mul_(temperature).add_(shift)
    return soft, hardest


def spread_over_negatives_(
    grad_vectors: Tensor,
    grad: Tensor,
    vectors: Tensor,
    stride: int,
    temperature: float,
    soft: Tensor,
    user_ids: Tensor | None,
    chunk_size: int | None,
    rows: slice | None,
) -> Tensor:
    """Add the gradient of :func:`find_soft_negatives` to that of the encodings, in place; returns ``grad_vectors``.

    ``grad_vectors`` is ``(B, m, d)`` and contiguous; ``grad`` is the gradient of ``soft``, the first result of that
    function. The other arguments are those given to it.
    """
    flat, grad_flat = vectors.flatten(0, 1), grad_vectors.view(-1, vectors.shape[-1])
    anchors, grad_anchors = (rows_of(x, rows)[:, ::stride] for x in (vectors, grad_vectors))
    # For a row without negatives any finite number in place of -inf gives weights of 0.
    soft = torch.where(soft == -torch.inf, 0, soft)
    with full_precision(vectors):
        for users, scores in similarity_chunks(vectors, stride, chunk_size, rows):
            exclude_own_(scores, users, user_ids, -torch.inf, rows)
            scores.sub_(soft[users, :, None, None]).div_(temperature).exp_().mul_(grad[users, :, None, None])
            weights = scores.flatten(0, 1).flatten(1)  # (anchors, B * m)
            grad_anchors[users] += (weights @ flat).view_as(anchors[users])
            grad_flat.addmm_(weights.t(), anchors[users].flatten(0, 1))
    return grad_vectors


def log_of_count(vectors: Tensor, user_ids: Tensor | None, rows: slice | None) -> Tensor | float:
    """Compute log |W|, the difference between log-sum and log-mean: one number, or ``(n, 1)`` with ``user_ids``."""
    batch_size, per_user, _ = vectors.shape
    if user_ids is None:
        return torch.full((), per_user * (batch_size - 1), dtype=vectors.dtype, device=vectors.device).log()
    return (per_user * valid_negatives(user_ids, rows).clamp_min(1)).to(vectors.dtype).log_()[:, None]


class _LogSumExp(torch.autograd.Function):
    """Streamed; see the module's docstring."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, *arguments: Any) -> Tensor:
        soft, _ = find_soft_negatives(vectors, *arguments)
        ctx.stride, ctx.temperature, user_ids, ctx.chunk_size, ctx.rows = arguments
        ctx.save_for_backward(vectors, soft, user_ids)
        return soft

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        vectors, soft, ids = ctx.saved_tensors
        arguments = (grad, vectors, ctx.stride, ctx.temperature, soft, ids, ctx.chunk_size, ctx.rows)
        return spread_over_negatives_(torch.zeros_like(vectors), *arguments), None, None, None, None, None


def soft_negative(
    vectors: Tensor,
    stride: int,
    temperature: float,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
    rows: slice | None = None,
    mean: bool = True,
) -> Tensor:
    """Compute τ log mean_w exp(w/τ) of every anchor over the encodings of other users.

    Args:
        vectors: ``(B, m, d)``, of any length; every ``stride``-th of a user is an anchor, the first included.
        stride: a divisor of m.
        temperature: τ > 0.
        user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column never count as negatives of
            each other.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.
        rows: users whose encodings are anchors (in a gathered batch, those of this process), n of them; None: all B.
        mean: False takes the sum in its place, τ log Σ_w exp(w/τ), as InfoNCE does (Eq. 9).

    Returns:
        ``(n, m / stride)``, between the mean and the largest of the similarities; -inf where a row has no other user.
        Differentiable once.
    """
    total: Tensor = _LogSumExp.apply(vectors, stride, temperature, user_ids, chunk_size, rows)  # type: ignore[no-untyped-call]
    return total - temperature * log_of_count(vectors, user_ids, rows) if mean else total
