"""Attention pooling of hidden states into one user vector (Eq. 3-4)."""

import torch
from torch import Tensor, nn

from .embedding import INIT_STD


class AttentionPooling(nn.Module):
    """u = Σ_t α_t h_t with α = softmax_t(q · h_t) over the behaviours of the user (Eq. 3-4).

    Args:
        dim: d, the length of the learned query q.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(dim))
        nn.init.normal_(self.query, std=INIT_STD)

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """Pool ``(B, L, d)`` into ``(B, d)``; ``visible`` is bool ``(B, L)``, at least one True in a row. Unchecked."""
        scores = (hidden @ self.query.to(hidden.dtype)).masked_fill(~visible, -torch.inf)  # (B, L)
        weights = scores.softmax(-1).to(hidden.dtype)
        return (weights[:, None] @ hidden)[:, 0]
