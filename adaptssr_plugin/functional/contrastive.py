"""Eq. 8-9 of the paper: InfoNCE over the batch, and the same with the hardest negative alone.

For the 2B encodings of two views, anchor i and its partner p(i) in the other view:

* Eq. 9: ``-log [exp(s(i, p)/τ) / Σ_{k ≠ i} exp(s(i, k)/τ)] = -log σ(s(i, p)/τ - log Σ_w exp(s(i, w)/τ))``;
* Eq. 8: the sum over w replaced by its largest term, ``-log σ((s(i, p) - max_w s(i, w))/τ)``,

where w runs over the 2(B - 1) encodings of other users. s is the dot product of the vectors that are passed in,
stacked as ``(B, 2, d)``: the cosine of unit vectors in the paper, of any vectors in the originals of CL4SRec and
DuoRec.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .hardest_negative import hardest_negative
from .search import Implementation
from .similarity import exclude_own_, full_precision, rows_of, similarity_chunks

_STRIDE = 1  # both views are anchors


class _LogSumExpOverNegatives(torch.autograd.Function):
    """log Σ_w exp(s(i, w)/τ); w is streamed, the backward recomputes each chunk's softmax."""

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        temperature: float,
        user_ids: Tensor | None,
        chunk_size: int | None,
        rows: slice | None,
    ) -> Tensor:
        total = vectors.new_empty(rows_of(vectors, rows).shape[:2])  # (n, 2)
        with full_precision(vectors):
            for users, scores in similarity_chunks(vectors, _STRIDE, chunk_size, rows):
                scores /= temperature
                total[users] = exclude_own_(scores, users, user_ids, -torch.inf, rows).logsumexp((2, 3))
        ctx.save_for_backward(vectors, total, user_ids)
        ctx.temperature, ctx.chunk_size, ctx.rows = temperature, chunk_size, rows
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        vectors, total, user_ids = ctx.saved_tensors
        grad_vectors = torch.zeros_like(vectors)
        flat, grad_flat = vectors.flatten(0, 1), grad_vectors.view(-1, vectors.shape[-1])
        anchors, grad_anchors = rows_of(vectors, ctx.rows), rows_of(grad_vectors, ctx.rows)
        # A row without negatives has total = -inf; any finite number in its place makes its weights 0.
        total = torch.where(total == -torch.inf, 0, total)
        grad = grad / ctx.temperature
        with full_precision(vectors):
            for users, scores in similarity_chunks(vectors, _STRIDE, ctx.chunk_size, ctx.rows):
                scores /= ctx.temperature
                exclude_own_(scores, users, user_ids, -torch.inf, ctx.rows)
                scores.sub_(total[users, :, None, None]).exp_().mul_(grad[users, :, None, None])
                weights = scores.flatten(0, 1).flatten(1)  # (anchors, 2B)
                grad_anchors[users] += (weights @ flat).view_as(anchors[users])
                grad_flat.addmm_(weights.t(), anchors[users].flatten(0, 1))
        return grad_vectors, None, None, None, None


def _against_partner(negative: Tensor, vectors: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return -log σ(s(i, p)/τ - negative) as ``(B, 2)``, 0 where ``negative`` is -inf, and which rows count."""
    partner = (vectors[:, 0] * vectors[:, 1]).sum(-1, keepdim=True) / temperature  # (B, 1): one for both anchors
    valid = negative != -torch.inf
    loss = -F.logsigmoid(partner - torch.where(valid, negative, 0))
    return torch.where(valid, loss, 0), valid[:, 0]


def info_nce(
    vectors: Tensor,
    temperature: float = 1.0,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
    rows: slice | None = None,
) -> tuple[Tensor, Tensor]:
    """Eq. 9 for both anchors of every row.

    Args:
        vectors: ``(B, 2, d)``, the two views, of any length; unit vectors make s the cosine.
        temperature: τ > 0; the paper has none (1).
        user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column (say the user and the
            target item) are never negatives of each other. None: all rows are negatives of each other.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.
        rows: users whose encodings are anchors (in a gathered batch, those of this process), n of them; None: all B.

    Returns:
        The loss ``(n, 2)`` and which rows have a negative, bool ``(n,)``.
    """
    arguments = (vectors, temperature, user_ids, chunk_size, rows)
    total: Tensor = _LogSumExpOverNegatives.apply(*arguments)  # type: ignore[no-untyped-call]
    return _against_partner(total, rows_of(vectors, rows), temperature)


def hardest_info_nce(
    vectors: Tensor,
    temperature: float = 1.0,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
    implementation: Implementation = "auto",
    rows: slice | None = None,
) -> tuple[Tensor, Tensor]:
    """Eq. 8 for both anchors of every row.

    Arguments and result as :func:`info_nce`; ``implementation`` of the search as :func:`choose_search`.
    """
    hardest = hardest_negative(vectors, _STRIDE, user_ids, chunk_size, implementation, rows)
    return _against_partner(hardest / temperature, rows_of(vectors, rows), temperature)
