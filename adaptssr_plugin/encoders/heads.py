"""Output layers of the pre-training objectives."""

import torch
from torch import Tensor, nn


class MaskedItemHead(nn.Module):
    """Scores of all items at a masked position: h · Eᵀ + b, with the item table tied (spec §2.2).

    Args:
        n_items: columns, the padding id included as in the authors' code.
    """

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_items))

    def forward(self, hidden: Tensor, item_weight: Tensor) -> Tensor:
        """Score hidden states ``(M, d)`` against ``item_weight`` ``(n_items, d)``: ``(M, n_items)``."""
        return torch.addmm(self.bias, hidden, item_weight.t())
