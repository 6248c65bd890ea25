"""Eq. 8-9 of the paper: InfoNCE over the batch, and its form with the hardest negative alone.

For the 2B encodings of two views, anchor i and its partner p(i) in the other view:

* Eq. 9: ``-log [exp(s(i, p)/τ) / Σ_{k ≠ i} exp(s(i, k)/τ)] = -log σ(s(i, p)/τ - log Σ_w exp(s(i, w)/τ))``;
* Eq. 8: the sum over w is replaced by its largest term, ``-log σ((s(i, p) - max_w s(i, w))/τ)``. Ours, not the
  paper's: ``t log mean_w exp(s(i, w)/t)`` in place of the maximum.

w runs over the 2(B - 1) encodings of other users. s is the dot product of the given vectors ``(B, 2, d)``. The paper
has the cosine, the dot product of unit vectors; the code of CL4SRec and DuoRec has the dot product of any vectors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .hardest_negative import hardest_negative
from .search import Implementation
from .similarity import rows_of
from .soft_negative import soft_negative

_STRIDE = 1  # both views are anchors


def _against_partner(negative: Tensor, vectors: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return -log σ(s(i, p)/τ - negative) as ``(B, 2)``, 0 where ``negative`` is -inf, and which rows are valid."""
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
    total = soft_negative(vectors, _STRIDE, temperature, user_ids, chunk_size, rows, mean=False)
    return _against_partner(total / temperature, rows_of(vectors, rows), temperature)


def hardest_info_nce(
    vectors: Tensor,
    temperature: float = 1.0,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
    implementation: Implementation = "auto",
    rows: slice | None = None,
    softness: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Eq. 8 for both anchors of every row.

    Arguments and result as :func:`info_nce`; ``implementation`` and ``softness`` as :func:`hardest_pair_ranking`.
    """
    if softness:
        negative = soft_negative(vectors, _STRIDE, softness, user_ids, chunk_size, rows)
    else:
        negative = hardest_negative(vectors, _STRIDE, user_ids, chunk_size, implementation, rows)
    return _against_partner(negative / temperature, rows_of(vectors, rows), temperature)
