"""The paper's user model: Eq. 2-4."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .embedding import INIT_STD, ItemEmbedding
from .interests import InterestPooling
from .length_groups import LengthGroup, length_groups, restore_order
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
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """Transform ``(B, L, d)``; ``visible`` ``(B, L)`` says which positions may be attended to."""
        batch, length, dim = hidden.shape
        heads = self.query_key_value(hidden).view(batch, length, 3, self.n_heads, dim // self.n_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, L, d / heads)
        context = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=visible[:, None, None],
            dropout_p=self.dropout.p if self.dropout.training else 0.0,
        )
        context = self.attention_out(context.transpose(1, 2).reshape(batch, length, dim))
        hidden = self.attention_norm(hidden + self.dropout(context))
        fed = self.feed_out(F.gelu(self.feed_in(hidden)))
        normed: Tensor = self.feed_norm(hidden + self.dropout(fed))
        return normed


class UserEncoder(nn.Module):
    """Encode behaviour sequences into user vectors: embedding, Transformer, attention pooling (Eq. 2-4).

    Token t enters as e_t + p_t. The authors' code normalises and drops out that sum, which Eq. 2 does not
    show (spec §3, row 21): on by default, off for the paper's literal reading. Encodings do not depend on
    how far a batch is padded nor on which rows stand beside each other.

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
        length_groups: groups of similar length a batch is cut into, so that padding is not computed on;
            None chooses by the number of rows, 1 keeps batches whole. More than one costs one read-back of
            the lengths from the device.
        interests: M; 1: the attention pooling of Eq. 3-4, more: :class:`InterestPooling` and encodings of M · d.

    Raises:
        InputError: a size or probability outside of the above.
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
        sizes = {"n_items": n_items, "dim": dim, "n_layers": n_layers, "n_heads": n_heads, "max_len": max_len}
        for name, size in (*sizes.items(), ("interests", interests)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"{name}: expected a positive integer, got {size!r}")
        for name, optional in (("ff_dim", ff_dim), ("length_groups", length_groups)):
            if optional is not None and (isinstance(optional, bool) or not isinstance(optional, int) or optional < 1):
                raise InputError(f"{name}: expected a positive integer or None, got {optional!r}")
        if dim % n_heads:
            raise InputError(f"n_heads: expected a divisor of dim = {dim}, got {n_heads}")
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise InputError(f"dropout: expected a number in [0, 1), got {dropout!r}")
        self.n_items = n_items
        self.dim = dim
        self.out_dim = dim * interests
        self.max_len = max_len
        self.length_groups = length_groups
        self.items = ItemEmbedding(n_items, dim)
        self.positions = nn.Parameter(torch.empty(max_len, dim))
        nn.init.normal_(self.positions, std=INIT_STD)
        self.embed_norm = nn.LayerNorm(dim, eps=_NORM_EPS) if embed_norm else nn.Identity()
        self.embed_dropout = nn.Dropout(dropout if embed_dropout else 0.0)
        self.layers = nn.ModuleList(TransformerLayer(dim, n_heads, ff_dim or 4 * dim, dropout) for _ in range(n_layers))
        self.pooling = AttentionPooling(dim) if interests == 1 else InterestPooling(dim, interests)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)

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
        self._check(item_seq, item_seq_len)
        if self._whole(item_seq):
            return self._pool(*self._hidden(self.items(item_seq), item_seq_len))
        groups, parts = self._in_groups(item_seq, item_seq_len)
        return restore_order([self._pool(hidden, visible) for hidden, visible in parts], groups)

    def hidden_states(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode every position: ``(B, L, d)``, 0 at padding; arguments and errors as :meth:`forward`."""
        self._check(item_seq, item_seq_len)
        if self._whole(item_seq):
            hidden, visible = self._hidden(self.items(item_seq), item_seq_len)
            return hidden.masked_fill(~visible[..., None], 0)
        groups, parts = self._in_groups(item_seq, item_seq_len)
        padded = []
        for hidden, visible in parts:
            hidden = hidden.masked_fill(~visible[..., None], 0)
            padded.append(F.pad(hidden, (0, 0, 0, item_seq.shape[1] - hidden.shape[1])))
        return restore_order(padded, groups)

    def _whole(self, item_seq: Tensor) -> bool:
        """Whether the batch is computed as it stands: asked for, or traced, or without values to read."""
        return self.length_groups == 1 or item_seq.is_meta or torch.compiler.is_compiling() or len(item_seq) == 0

    def _in_groups(
        self, item_seq: Tensor, item_seq_len: Tensor
    ) -> tuple[list[LengthGroup], Iterator[tuple[Tensor, Tensor]]]:
        """Cut the batch into groups, and return what :meth:`_hidden` gives for each."""
        groups = list(length_groups(item_seq_len, self.length_groups))
        ids = [item_seq[rows, :width] for rows, width in groups]
        # One lookup for all: its gradient is as large as the item table, however few ids were looked up.
        vectors = self.items(torch.cat([part.flatten() for part in ids])).split([part.numel() for part in ids])
        parts = (
            self._hidden(looked_up.view(*part.shape, self.dim), item_seq_len[group.rows])
            for looked_up, part, group in zip(vectors, ids, groups, strict=True)
        )
        return groups, parts

    def _hidden(self, vectors: Tensor, item_seq_len: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states ``(B, L, d)`` of item vectors, and which positions are behaviours, bool ``(B, L)``."""
        length = vectors.shape[1]
        visible = torch.arange(length, device=vectors.device) < item_seq_len[:, None]
        hidden = self.embed_dropout(self.embed_norm(vectors + self.positions[:length]))
        for layer in self.layers:
            hidden = layer(hidden, visible)
        return hidden, visible

    def _pool(self, hidden: Tensor, visible: Tensor) -> Tensor:
        pooled: Tensor = self.pooling(hidden, visible)
        return pooled

    def _check(self, item_seq: Tensor, item_seq_len: Tensor) -> None:
        for name, tensor in (("item_seq", item_seq), ("item_seq_len", item_seq_len)):
            if not isinstance(tensor, Tensor):
                raise InputError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        if item_seq.dim() != 2 or item_seq.dtype != torch.int64:
            raise InputError(
                f"item_seq: expected int64 of shape (B, L), got {item_seq.dtype} of shape {tuple(item_seq.shape)}"
            )
        if not 1 <= item_seq.shape[1] <= self.max_len:
            raise InputError(
                f"item_seq: expected 1 to max_len = {self.max_len} positions, padding included, got {item_seq.shape[1]}"
            )
        if item_seq_len.shape != item_seq.shape[:1] or item_seq_len.dtype != torch.int64:
            raise InputError(
                f"item_seq_len: expected int64 of shape ({item_seq.shape[0]},), "
                f"got {item_seq_len.dtype} of shape {tuple(item_seq_len.shape)}"
            )
        if item_seq_len.device != item_seq.device:
            raise InputError(f"item_seq_len: expected device {item_seq.device} as item_seq, got {item_seq_len.device}")
