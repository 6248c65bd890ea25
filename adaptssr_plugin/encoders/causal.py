"""Encoders that read a sequence from the oldest behaviour to the newest; the last state is the user vector.

The method is independent of the user model (paper §3.3). These three have the interface of
:class:`~adaptssr_plugin.encoders.UserEncoder`: ``forward``, ``hidden_states``, ``item_weight``, and a [MASK] outside
the item table. A causal state sees no later behaviour, so they are warmed up on next items instead of masked items.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check_count, check_counts, check_kind
from .arguments import check_batch, check_dropout, check_heads
from .embedding import INIT_STD, ItemEmbedding, init_linear

_NORM_EPS = 1e-12


class CausalEncoder(nn.Module):
    """The common part of the causal encoders: item vectors in, the state of the newest behaviour out.

    Args:
        n_items: items, the padding id 0 included; the id ``n_items`` itself marks a masked position.
        dim: d.
        max_len: the longest sequence.
        dropout: probability in [0, 1); each architecture says where it applies.

    Raises:
        InputError: a size or probability out of range.
    """

    causal = True

    def __init__(self, n_items: int, dim: int, max_len: int, dropout: float) -> None:
        super().__init__()
        check_counts(n_items=n_items, dim=dim, max_len=max_len)
        check_dropout(dropout)
        self.n_items = n_items
        self.dim = dim
        self.max_len = max_len
        self.items = ItemEmbedding(n_items, dim)
        self.dropout = nn.Dropout(dropout)

    @property
    def item_weight(self) -> Tensor:
        """The item table ``(n_items, d)``, without [MASK]."""
        return self.items.weight

    @property
    def out_dim(self) -> int:
        """Length of user vectors: d."""
        return self.dim

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode sequences.

        Args:
            item_seq: int64 ``(B, L)``, ids 1..n_items, right-padded with 0; L at most ``max_len``.
            item_seq_len: int64 ``(B,)``, 1..L, on the same device.

        Returns:
            User vectors ``(B, d)``, the states of the newest behaviours, not normalised.

        Raises:
            InputError: tensors of another shape; more than ``max_len`` positions.
        """
        states = self._checked_states(item_seq, item_seq_len)
        newest = (item_seq_len - 1)[:, None, None].expand(-1, 1, self.dim)
        return states.gather(1, newest)[:, 0]

    def hidden_states(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode every position: ``(B, L, d)``, 0 at padding; arguments and errors as :meth:`forward`."""
        states = self._checked_states(item_seq, item_seq_len)
        padding = torch.arange(item_seq.shape[1], device=item_seq.device) >= item_seq_len[:, None]
        return states.masked_fill(padding[..., None], 0)

    def _checked_states(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        check_batch(item_seq, item_seq_len, self.max_len)
        return self._states(self.items(item_seq))

    def _states(self, vectors: Tensor) -> Tensor:
        """Turn item vectors ``(B, L, d)`` into states of the same shape; a state depends on no later item."""
        raise NotImplementedError(f"{type(self).__name__} has no states")


class GRUEncoder(CausalEncoder):
    """GRU4Rec (Hidasi et al., 2016): gated recurrent units over item vectors, and a linear layer back to d.

    Args:
        n_items: as :class:`CausalEncoder`.
        dim: d.
        max_len: the longest sequence.
        dropout: on the item vectors.
        n_layers: recurrent layers.
        hidden_dim: width of the units; None: 2 · d.
    """

    def __init__(
        self,
        n_items: int,
        dim: int = 64,
        max_len: int = 100,
        dropout: float = 0.1,
        n_layers: int = 1,
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__(n_items, dim, max_len, dropout)
        check_count("n_layers", n_layers)
        check_count("hidden_dim", hidden_dim, optional=True)
        width = 2 * dim if hidden_dim is None else hidden_dim
        self.units = nn.GRU(dim, width, n_layers, bias=False, batch_first=True)
        self.out = nn.Linear(width, dim)
        for name, parameter in self.units.named_parameters():
            # As RecBole's GRU4Rec: Xavier for input weights, orthogonal for recurrent weights.
            nn.init.xavier_uniform_(parameter) if "ih" in name else nn.init.orthogonal_(parameter)

    def _states(self, vectors: Tensor) -> Tensor:
        states: Tensor = self.out(self.units(self.dropout(vectors))[0])
        return states


class _ResidualBlock(nn.Module):
    """Two causal convolutions of width 3, the second with twice the dilation, and a residual (NextItNet, Fig. 3b)."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.dilations = dilation, 2 * dilation
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, dim, 3, dilation=spread) for spread in self.dilations)
        self.norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-8) for _ in self.dilations)

    def forward(self, hidden: Tensor) -> Tensor:
        out = hidden
        for dilation, convolution, norm in zip(self.dilations, self.convolutions, self.norms, strict=True):
            padded = F.pad(out.transpose(1, 2), (2 * dilation, 0))  # (B, d, 2 · dilation + L): causal by left padding
            out = F.relu(norm(convolution(padded).transpose(1, 2)))
        return hidden + out


class ConvolutionEncoder(CausalEncoder):
    """NextItNet (Yuan et al., WSDM 2019): residual blocks of dilated causal convolutions.

    Args:
        n_items: as :class:`CausalEncoder`.
        dim: d, the channels too.
        max_len: the longest sequence.
        dropout: on the item vectors. The original has no dropout, but the implicit view needs one.
        dilations: of the first convolution of each block; the second one of a block has twice that dilation.
    """

    def __init__(
        self,
        n_items: int,
        dim: int = 64,
        max_len: int = 100,
        dropout: float = 0.1,
        dilations: tuple[int, ...] = (1, 4, 1, 4),
    ) -> None:
        super().__init__(n_items, dim, max_len, dropout)
        check_kind("dilations", dilations, (tuple, list), "a tuple of integers")
        for place, dilation in enumerate(dilations):
            check_count(f"dilations[{place}]", dilation)
        self.blocks = nn.Sequential(*(_ResidualBlock(dim, dilation) for dilation in dilations))
        self.out = nn.Linear(dim, dim)

    def _states(self, vectors: Tensor) -> Tensor:
        states: Tensor = self.out(self.blocks(self.dropout(vectors)))
        return states


class CausalTransformer(CausalEncoder):
    """SASRec (Kang & McAuley, ICDM 2018) with post-norm layers, as in RecBole.

    Args:
        n_items: as :class:`CausalEncoder`.
        dim: d.
        max_len: the longest sequence.
        dropout: on item + position, on attention weights and on the output of both parts of a layer.
        n_layers: Transformer layers.
        n_heads: attention heads; must divide ``dim``.
        ff_dim: width of the feed-forward part; None: 4 · dim.
    """

    def __init__(
        self,
        n_items: int,
        dim: int = 64,
        max_len: int = 100,
        dropout: float = 0.1,
        n_layers: int = 2,
        n_heads: int = 2,
        ff_dim: int | None = None,
    ) -> None:
        super().__init__(n_items, dim, max_len, dropout)
        check_counts(n_layers=n_layers, n_heads=n_heads)
        check_count("ff_dim", ff_dim, optional=True)
        check_heads(dim, n_heads)
        self.positions = nn.Parameter(torch.empty(max_len, dim))
        self.norm = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, n_heads, ff_dim or 4 * dim, dropout, F.gelu, _NORM_EPS, batch_first=True)
            for _ in range(n_layers)
        )
        nn.init.normal_(self.positions, std=INIT_STD)
        init_linear(self)

    def _states(self, vectors: Tensor) -> Tensor:
        length = vectors.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=vectors.device).triu(1)
        hidden: Tensor = self.dropout(self.norm(vectors + self.positions[:length]))
        for layer in self.layers:
            hidden = layer(hidden, src_mask=later)
        return hidden
