"""Item embedding whose [MASK] vector is outside the item table."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..devices import on_cpu
from ..errors import InputError

_EXACT = (torch.float32, torch.float64)
INIT_STD = 0.02  # for every Linear and Embedding, as in the authors' code (METHODS.md, row 52)


def init_linear(module: nn.Module) -> None:
    """Draw the weights of all linear layers within a module, and set their biases to 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=INIT_STD)
            nn.init.zeros_(part.bias)


class ItemEmbedding(nn.Module):
    """Look up items; the id ``n_items`` stands for [MASK] and has a separate learned vector.

    With [MASK] outside the table, scores have ``n_items`` columns, and tables are interchangeable with RecBole's.

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
        """Look up ``(..., L)`` ids in 0..n_items as ``(..., L, d)``; padding gives the table no gradient."""
        is_mask = item_seq == self.n_items
        ids = item_seq.masked_fill(is_mask, 0)
        if on_cpu(self.weight) and self.weight.dtype in _EXACT:
            vectors: Tensor = _LookUp.apply(ids, self.weight)  # type: ignore[no-untyped-call]
        else:
            vectors = F.embedding(ids, self.weight, padding_idx=0)
        return torch.where(is_mask[..., None], self.mask.to(vectors.dtype), vectors)


def item_table(encoder: object, option: str) -> nn.Parameter:
    """Return the item table of an encoder, ``(n_items, d)``.

    Args:
        encoder: of any kind.
        option: what needs the table.

    Raises:
        InputError: ``item_weight`` is missing or not a parameter.
    """
    table = getattr(encoder, "item_weight", None)
    if not isinstance(table, nn.Parameter):
        came = type(encoder).__name__
        raise InputError(f"{option}: expected an encoder whose item_weight is a parameter, got {came}")
    return table


class _LookUp(torch.autograd.Function):
    """``F.embedding`` with ``padding_idx=0`` and a faster gradient: torch adds it up row by row in twice the time."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape = weight.shape
        return weight.index_select(0, ids.flatten()).view(*ids.shape, weight.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (ids,) = ctx.saved_tensors
        table = grad.new_zeros(ctx.shape).index_add_(0, ids.flatten(), grad.reshape(-1, grad.shape[-1]))
        table[0] = 0
        return None, table
