"""The paper's user model: Eq. 2-4."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import shapes_are_fixed
from ..errors import check_count, check_counts, check_kind
from .arguments import check_batch, check_dropout, check_heads
from .attention import attend
from .dropout import Dropout
from .embedding import INIT_STD, ItemEmbedding, init_linear
from .interests import InterestPooling
from .length_groups import Block, length_blocks, restore_order
from .pooling import AttentionPooling

_NORM_EPS = 1e-12


class TransformerLayer(nn.Module):
    """One post-norm Transformer layer: self-attention and feed-forward, each with dropout, residual and norm.

    Args:
        dim: d.
        n_heads: heads; must divide d.
        ff_dim: width of the feed-forward part.
        dropout: probability, on attention weights and on the output of both parts.
    """

    def __init__(self, dim: int, n_heads: int, ff_dim: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.feed_in = nn.Linear(dim, ff_dim)
        self.feed_out = nn.Linear(ff_dim, dim)
        self.feed_norm = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, visible: Tensor | Sequence[Block]) -> Tensor:
        """Transform hidden states.

        Args:
            hidden: ``(B, L, d)``; or ``(C, P, d)``, C copies of the P positions of the blocks.
            visible: bool ``(B, L)``, which positions may be attended to; or the blocks.
        """
        projected = self.query_key_value(hidden)
        context = attend(projected, visible, self.n_heads, self.dropout)
        hidden = self.attention_norm(hidden + self.dropout(self.attention_out(context)))
        fed = self.feed_out(F.gelu(self.feed_in(hidden)))
        normed: Tensor = self.feed_norm(hidden + self.dropout(fed))
        return normed


class UserEncoder(nn.Module):
    """Encode behaviour sequences into user vectors: embedding, Transformer, attention pooling (Eq. 2-4).

    Token t enters as e_t + p_t. The authors' code applies layer norm and dropout to that sum, which Eq. 2 does not show
    (METHODS.md, row 21): both are on by default; switch them off for Eq. 2 to the letter. Encodings do not depend on
    the padding of a batch or on its other rows.

    Args:
        n_items: items, the padding id 0 included; the id ``n_items`` itself marks a masked position.
        dim: d.
        n_layers: Transformer layers.
        n_heads: attention heads; must divide ``dim``.
        max_len: positions, the longest sequence.
        dropout: probability in [0, 1).
        ff_dim: width of the feed-forward part; None: 4 · dim.
        embed_norm: layer norm on e_t + p_t.
        embed_dropout: dropout on e_t + p_t (after the norm).
        length_groups: into how many groups of similar length a batch is cut, to avoid computing on padding; None
            chooses by the number of rows, 1 keeps batches whole. More than one needs one read-back of the lengths
            from the device.
        interests: M. 1: the attention pooling of Eq. 3-4; more: :class:`InterestPooling` and encodings of M · d.

    Raises:
        InputError: a size or probability out of range.
    """

    def __init__(
        self,
        n_items: int,
        dim: int = 64,
        n_layers: int = 2,
        n_heads: int = 2,
        max_len: int = 100,
        dropout: float = 0.1,
        ff_dim: int | None = None,
        embed_norm: bool = True,
        embed_dropout: bool = True,
        length_groups: int | None = None,
        interests: int = 1,
    ) -> None:
        super().__init__()
        check_counts(n_items=n_items, dim=dim, n_layers=n_layers, n_heads=n_heads, max_len=max_len, interests=interests)
        for name, optional in (("ff_dim", ff_dim), ("length_groups", length_groups)):
            check_count(name, optional, optional=True)
        for name, flag in (("embed_norm", embed_norm), ("embed_dropout", embed_dropout)):
            check_kind(name, flag, bool, "True or False")
        check_heads(dim, n_heads)
        check_dropout(dropout)
        self.n_items = n_items
        self.dim = dim
        self.out_dim = dim * interests
        self.max_len = max_len
        self.length_groups = length_groups
        self.items = ItemEmbedding(n_items, dim)
        self.positions = nn.Parameter(torch.empty(max_len, dim))
        nn.init.normal_(self.positions, std=INIT_STD)
        self.embed_norm = nn.LayerNorm(dim, eps=_NORM_EPS) if embed_norm else nn.Identity()
        self.embed_dropout = Dropout(dropout if embed_dropout else 0.0)
        self.layers = nn.ModuleList(TransformerLayer(dim, n_heads, ff_dim or 4 * dim, dropout) for _ in range(n_layers))
        self.pooling = AttentionPooling(dim) if interests == 1 else InterestPooling(dim, interests)
        init_linear(self)

    @property
    def item_weight(self) -> Tensor:
        """The item table ``(n_items, d)``, without [MASK]."""
        return self.items.weight

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode sequences.

        Args:
            item_seq: int64 ``(B, L)``, ids 1..n_items, right-padded with 0; L at most ``max_len``.
            item_seq_len: int64 ``(B,)``, 1..L, on the same device.

        Returns:
            User vectors ``(B, out_dim)``, not normalised: ``out_dim`` is d, and M · d with M > 1 interests.

        Raises:
            InputError: tensors of another shape, dtype or device; more than ``max_len`` positions.
        """
        check_batch(item_seq, item_seq_len, self.max_len)
        return self._encode(item_seq, item_seq_len, copies=1)[0]

    def encode_twice(self, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, Tensor]:
        """Encode sequences under two dropout masks: :meth:`forward` of the batch, twice.

        The part before the first dropout is computed once. Arguments and errors as :meth:`forward`.
        """
        check_batch(item_seq, item_seq_len, self.max_len)
        first, second = self._encode(item_seq, item_seq_len, copies=2)
        return first, second

    def hidden_states(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode every position: ``(B, L, d)``, 0 at padding; arguments and errors as :meth:`forward`."""
        check_batch(item_seq, item_seq_len, self.max_len)
        if self._whole(item_seq):
            hidden, visible = self._hidden(item_seq, item_seq_len)
            return hidden.masked_fill(~visible[..., None], 0)
        hidden, _, places = self._hidden_in_blocks(item_seq, item_seq_len, copies=1)
        rows, columns = places // item_seq.shape[1], places % item_seq.shape[1]
        hidden = hidden[0].masked_fill((columns >= item_seq_len[rows])[:, None], 0)
        return hidden.new_zeros(item_seq.numel(), self.dim).index_copy(0, places, hidden).view(*item_seq.shape, -1)

    def _whole(self, item_seq: Tensor) -> bool:
        """Whether the batch is computed whole: if asked for, or when tracing, or if values cannot be read."""
        unread = shapes_are_fixed() or item_seq.is_meta or torch.compiler.is_compiling()
        return self.length_groups == 1 or unread or len(item_seq) == 0

    def _encode(self, item_seq: Tensor, item_seq_len: Tensor, copies: int) -> Tensor:
        """Encode every row ``copies`` times: ``(C, B, out_dim)``."""
        if self._whole(item_seq):
            hidden, visible = self._hidden(item_seq.repeat(copies, 1), item_seq_len.repeat(copies))
            pooled: Tensor = self.pooling(hidden, visible)
            return pooled.view(copies, item_seq.shape[0], self.out_dim)
        packed, blocks, _ = self._hidden_in_blocks(item_seq, item_seq_len, copies)
        parts = []
        for block, part in zip(blocks, torch.split(packed, [block.size for block in blocks], 1), strict=True):
            n_rows = len(block.rows)
            hidden = part.reshape(copies * n_rows, block.width, self.dim)
            pooled = self.pooling(hidden, block.mask().repeat(copies, 1))
            parts.append(pooled.view(copies, n_rows, -1).transpose(0, 1))
        return restore_order(parts, blocks).transpose(0, 1)

    def _hidden_in_blocks(
        self, item_seq: Tensor, item_seq_len: Tensor, copies: int
    ) -> tuple[Tensor, list[Block], Tensor]:
        """Return hidden states ``(C, P, d)`` at the P positions of blocks, the blocks, and the positions in the batch.

        Everything except attention and pooling is computed for all blocks at once. Places are int64 ``(P,)``, counted
        row by row.
        """
        length = item_seq.shape[1]
        blocks = length_blocks(item_seq_len, self.length_groups)
        column = torch.arange(length, device=item_seq.device)
        places = torch.cat([(block.rows[:, None] * length + column[: block.width]).flatten() for block in blocks])
        # One lookup for all: its gradient has the size of the item table, whatever the number of ids.
        vectors = self.items(item_seq.flatten()[places]) + F.embedding(places % length, self.positions)  # (P, d)
        hidden = self.embed_dropout(self.embed_norm(vectors).expand(copies, -1, -1))
        for layer in self.layers:
            hidden = layer(hidden, blocks)
        return hidden, blocks, places

    def _hidden(self, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states ``(B, L, d)``, and which positions are behaviours, bool ``(B, L)``."""
        length = item_seq.shape[1]
        visible = torch.arange(length, device=item_seq.device) < item_seq_len[:, None]
        hidden = self.embed_dropout(self.embed_norm(self.items(item_seq) + self.positions[:length]))
        for layer in self.layers:
            hidden = layer(hidden, visible)
        return hidden, visible
