"""Item embedding whose [MASK] vector is no row of the item table."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INIT_STD = 0.02  # of every Linear and Embedding, spec §2.0


class ItemEmbedding(nn.Module):
    """Look up items; the id ``n_items`` stands for [MASK] and gives a learned vector of its own.

    Keeping [MASK] out of the table leaves ``n_items`` columns to score, and tables interchangeable with
    RecBole's.

    Args:
        n_items: rows of the table, the padding id 0 included.
        dim: d.
    """

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.weight = nn.Parameter(torch.empty(n_items, dim))
        self.mask = nn.Parameter(torch.empty(dim))
        nn.init.normal_(self.weight, std=INIT_STD)
        nn.init.normal_(self.mask, std=INIT_STD)

    def forward(self, item_seq: Tensor) -> Tensor:
        """Look up ``(..., L)`` ids in 0..n_items as ``(..., L, d)``; padding passes no gradient to the table."""
        is_mask = item_seq == self.n_items
        vectors = F.embedding(item_seq.masked_fill(is_mask, 0), self.weight, padding_idx=0)
        return torch.where(is_mask[..., None], self.mask.to(vectors.dtype), vectors)
