"""A pre-training step of AdaptSSR written in the usual way, and not slowed on purpose.

The model, views and loss are the package's, in common forms: views are made user by user on Python lists, everything is
padded to L, attention is written out as matmul, softmax, dropout and matmul, the four encodings are four calls of the
model, the loss keeps its 2B x 4B matrix under autograd, and Adam is torch's default. Imports nothing of the package.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.support.per_user import PerUser
from tests.helpers.oracle import straightforward_adaptssr


def view(items: list[int], operators: PerUser) -> list[int]:
    """Augment one user by an operator drawn at random; one behaviour cannot be masked."""
    name = operators.rng.choice(("mask", "crop", "reorder") if len(items) > 1 else ("crop", "reorder"))
    augmented: list[int] = getattr(operators, name)(items)
    return augmented


def padded_views(histories: Sequence[list[int]], length: int, operators: PerUser) -> tuple[Tensor, Tensor]:
    """Make one view of every user: ids ``(B, L)``, padded with 0, and lengths ``(B,)``."""
    views = [view(items, operators) for items in histories]
    return torch.tensor([items + [0] * (length - len(items)) for items in views]), torch.tensor([*map(len, views)])


class Layer(nn.Module):
    """A post-norm Transformer layer, its attention written out."""

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.attention_out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.feed_in, self.feed_out = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.feed_norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Transform ``(B, L, d)``; ``bias`` ``(B, 1, 1, L)`` is added to the scores: 0, or -inf at padding."""
        batch, length, dim = hidden.shape
        heads = (batch, length, self.n_heads, dim // self.n_heads)
        query, key, value = (part(hidden).view(heads).transpose(1, 2) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(dim // self.n_heads) + bias  # (B, heads, L, L)
        context = self.dropout(scores.softmax(-1)) @ value
        context = self.attention_out(context.transpose(1, 2).reshape(batch, length, dim))
        hidden = self.attention_norm(hidden + self.dropout(context))
        fed = self.feed_out(F.gelu(self.feed_in(hidden)))
        normed: Tensor = self.feed_norm(hidden + self.dropout(fed))
        return normed


class UserModel(nn.Module):
    """Embedding with [MASK] as the last row of its table, Transformer, attention pooling (Eq. 2-4)."""

    def __init__(self, n_items: int, dim: int, n_layers: int, n_heads: int, max_len: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, dim, padding_idx=0)
        self.positions = nn.Parameter(torch.zeros(max_len, dim))
        self.embed_norm = nn.LayerNorm(dim, eps=1e-12)
        self.layers = nn.ModuleList(Layer(dim, n_heads, dropout) for _ in range(n_layers))
        self.pooling = nn.Parameter(torch.zeros(dim))
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.normal_(self.pooling, std=0.02)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode sequences ``(B, L)`` and their lengths ``(B,)`` as user vectors ``(B, d)``."""
        padding = torch.arange(item_seq.shape[1], device=item_seq.device) >= item_seq_len[:, None]
        bias = torch.zeros(padding.shape, device=item_seq.device).masked_fill(padding, -torch.inf)  # (B, L)
        hidden = self.dropout(self.embed_norm(self.items(item_seq) + self.positions[: item_seq.shape[1]]))
        for layer in self.layers:
            hidden = layer(hidden, bias[:, None, None])
        weights = (hidden @ self.pooling + bias).softmax(-1)  # (B, L)
        pooled: Tensor = (weights[..., None] * hidden).sum(1)
        return pooled


def loss_of(model: UserModel, views: Sequence[tuple[Tensor, Tensor]], user_ids: Tensor) -> Tensor:
    """Encode both views twice, and compare."""
    u1, u1_pos, u2, u2_pos = (model(*each) for each in views for _ in range(2))
    return straightforward_adaptssr(u1, u1_pos, u2, u2_pos, user_ids)
