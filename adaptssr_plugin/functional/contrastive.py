"""Eq. 8-9 of the paper: InfoNCE over the batch, and the same with the hardest negative alone.

For the 2B encodings of two views, anchor i and its partner p(i) in the other view:

* Eq. 9: ``-log [exp(s(i, p)/τ) / Σ_{k ≠ i} exp(s(i, k)/τ)] = -log σ(s(i, p)/τ - log Σ_w exp(s(i, w)/τ))``;
* Eq. 8: the sum over w replaced by its largest term, ``-log σ((s(i, p) - max_w s(i, w))/τ)``,

where w runs over the 2(B - 1) encodings of other users. Unit vectors are stacked as ``(B, 2, d)``.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .hardest_negative import hardest_negative
from .similarity import exclude_own_, full_precision, similarity_chunks

_STRIDE = 1  # both views are anchors


class _LogSumExpOverNegatives(torch.autograd.Function):
    """log Σ_w exp(s(i, w)/τ); w is streamed, the backward recomputes each chunk's softmax."""

    @staticmethod
    def forward(ctx: Any, units: Tensor, temperature: float, user_ids: Tensor | None, chunk_size: int | None) -> Tensor:
        total = units.new_empty(units.shape[:2])  # (B, 2)
        with full_precision(units):
            for users, scores in similarity_chunks(units, _STRIDE, chunk_size):
                scores /= temperature
                total[users] = exclude_own_(scores, users, user_ids, -torch.inf).logsumexp((2, 3))
        ctx.save_for_backward(units, total, user_ids)
        ctx.temperature, ctx.chunk_size = temperature, chunk_size
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        units, total, user_ids = ctx.saved_tensors
        grad_units = torch.zeros_like(units)
        flat, grad_flat = units.flatten(0, 1), grad_units.view(-1, units.shape[-1])
        # A row without negatives has total = -inf; any finite number in its place makes its weights 0.
        total = torch.where(total == -torch.inf, 0, total)
        grad = grad / ctx.temperature
        with full_precision(units):
            for users, scores in similarity_chunks(units, _STRIDE, ctx.chunk_size):
                scores /= ctx.temperature
                exclude_own_(scores, users, user_ids, -torch.inf)
                scores.sub_(total[users, :, None, None]).exp_().mul_(grad[users, :, None, None])
                rows = scores.flatten(0, 1).flatten(1)  # (anchors, 2B)
                grad_units[users] += (rows @ flat).view_as(units[users])
                grad_flat.addmm_(rows.t(), units[users].flatten(0, 1))
        return grad_units, None, None, None


def _against_partner(negative: Tensor, units: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return -log σ(s(i, p)/τ - negative) as ``(B, 2)``, 0 where ``negative`` is -inf, and which rows count."""
    partner = (units[:, 0] * units[:, 1]).sum(-1, keepdim=True) / temperature  # (B, 1): one for both anchors
    valid = negative != -torch.inf
    loss = -F.logsigmoid(partner - torch.where(valid, negative, 0))
    return torch.where(valid, loss, 0), valid[:, 0]


def info_nce(
    units: Tensor,
    temperature: float = 1.0,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Eq. 9 for both anchors of every row.

    Args:
        units: unit vectors ``(B, 2, d)``, the two views.
        temperature: τ > 0; the paper has none (1).
        user_ids: integers ``(B,)``; rows of the same user are never negatives of each other.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.

    Returns:
        The loss ``(B, 2)`` and which rows have a negative, bool ``(B,)``.
    """
    total: Tensor = _LogSumExpOverNegatives.apply(units, temperature, user_ids, chunk_size)  # type: ignore[no-untyped-call]
    return _against_partner(total, units, temperature)


def hardest_info_nce(
    units: Tensor,
    temperature: float = 1.0,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Eq. 8 for both anchors of every row; arguments and result as :func:`info_nce`."""
    hardest = hardest_negative(units, _STRIDE, user_ids, chunk_size)
    return _against_partner(hardest / temperature, units, temperature)
