"""A trained masked-item model that fills masked positions and measures how far rows are changed (CCL)."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...encoders import MaskedItemHead
from ...errors import InputError

# Scores held at once: 16 MiB of float32 on a CPU, 128 MiB elsewhere.
_CPU_SCORES, _DEVICE_SCORES = 2**22, 2**25


class MaskedItemFiller(nn.Module):
    """Scores all items at masked positions, for :class:`~adaptssr_plugin.MaskAndFill`, and encodes whole rows.

    It holds copies of encoder and head, in evaluation mode and without gradient, so later training does not change
    them; ``train()`` has no effect. Scores come in chunks of positions: memory does not grow with positions times
    items.

    Args:
        encoder: with ``hidden_states``, ``item_weight`` and ``n_items``.
        head: of the same number of items.

    Raises:
        InputError: an encoder without ``hidden_states``, ``item_weight`` or ``n_items``.
    """

    def __init__(self, encoder: nn.Module, head: MaskedItemHead) -> None:
        super().__init__()
        for name in ("hidden_states", "item_weight", "n_items"):
            if not hasattr(encoder, name):
                came = type(encoder).__name__
                raise InputError(f"encoder: expected one with {name} to fill masked items, got {came}")
        self.encoder = copy.deepcopy(encoder)
        self.head = copy.deepcopy(head)
        self.n_items: int = encoder.n_items  # type: ignore[assignment]
        self.requires_grad_(False)
        self.train(False)

    def train(self, _mode: bool = True) -> "MaskedItemFiller":
        """Stay in evaluation mode, whatever the argument."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, item_seq: Tensor, item_seq_len: Tensor, rows: Tensor, positions: Tensor) -> Iterator[Tensor]:
        """Score the M masked positions of a batch; arguments as :class:`~adaptssr_plugin.augment.Filler`.

        Returns:
            An iterator of logits (m, n_items), at most some 16 MiB at a time on a CPU and 128 elsewhere.
        """
        hidden = self._hidden_states(item_seq, item_seq_len)
        slots = hidden[rows, positions]  # (M, d)
        scores = _CPU_SCORES if slots.device.type == "cpu" else _DEVICE_SCORES
        return self._scores(slots, max(1, scores // self.n_items))

    @torch.no_grad()
    def mean_states(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Average the hidden states over the items of every row, for the difficulty of candidates.

        The encoder's pooling is not used, because masked items do not train it.

        Args:
            item_seq: (B, L) int64, right-padded with 0.
            item_seq_len: (B,) int64, at least 1.

        Returns:
            (B, d), in the precision of the encoder, at least float32.
        """
        hidden = self._hidden_states(item_seq, item_seq_len)  # (B, L, d), 0 at padding
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        return hidden.sum(1, dtype=dtype) / item_seq_len[:, None]

    def _hidden_states(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode every position: (B, L, d)."""
        if item_seq.device.type != "cpu" and hasattr(self.encoder, "length_groups"):
            # Grouping by length needs a read-back, and a step already has one where the views are encoded.
            self.encoder.length_groups = 1  # type: ignore[assignment]
        hidden: Tensor = self.encoder.hidden_states(item_seq, item_seq_len)  # type: ignore[operator]
        return hidden

    def _scores(self, slots: Tensor, chunk_size: int) -> Iterator[Tensor]:
        for part in torch.split(slots, chunk_size):
            with torch.no_grad():
                yield self.head(part, self.encoder.item_weight)
