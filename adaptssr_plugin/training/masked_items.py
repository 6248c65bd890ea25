"""Masked-item prediction: AdaptSSR's warm-up, and the whole of PeterRec's row (spec §2.2)."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..augment import ItemMask
from ..corpus import Batch
from ..encoders import UserEncoder
from .item_prediction import ItemPredictionStage
from .stage import Streams


class MaskedSlots(NamedTuple):
    """The M masked positions of a batch."""

    item_seq: Tensor
    """``(B, L)`` with [MASK] written in."""
    rows: Tensor
    """int64 ``(M,)``."""
    positions: Tensor
    """int64 ``(M,)``."""
    targets: Tensor
    """int64 ``(M,)``: the items that stood there."""


class MaskedItemStage(ItemPredictionStage):
    """Predict the items behind [MASK] from both sides: cross-entropy over the whole catalogue or a sample of it.

    Of n behaviours ``min(ceil(ratio · n), n - 1)`` are masked, all of them by [MASK]; a user of one behaviour
    has none, and a batch without any is skipped. Learned are the item table, [MASK], positions, layers and a
    bias per item; the pooling query is not.

    Args:
        encoder: with ``hidden_states`` and ``item_weight``.
        ratio: share of masked behaviours in (0, 1].
        name: of the stage.
        softmax: as :class:`~adaptssr_plugin.training.item_prediction.ItemPredictionStage`.
        sample_share: as there.
    """

    def __init__(
        self,
        encoder: UserEncoder,
        ratio: float = 0.3,
        name: str = "mlm",
        softmax: Literal["full", "sampled"] = "full",
        sample_share: float = 0.2,
    ) -> None:
        super().__init__(encoder, name, softmax, sample_share)
        self.mask = ItemMask(ratio, mask_id=encoder.n_items)

    def predicted(self, batch: Batch, streams: Streams) -> tuple[Tensor, Tensor]:
        """Return the states at masked positions ``(M, d)``, and the items that stood there ``(M,)``."""
        slots = self._mask(batch, streams)
        hidden = self.encoder.hidden_states(slots.item_seq, batch.item_seq_len)
        return hidden[slots.rows, slots.positions], slots.targets

    def _mask(self, batch: Batch, streams: Streams) -> MaskedSlots:
        order, counts = self.mask.positions(batch.item_seq_len, batch.item_seq.shape[1], streams.generator("mask"))
        # The number of slots follows from the lengths, which the host has: nothing is read back for it.
        total = int(self.mask.counts(batch.lengths).numpy().sum())
        users = torch.arange(len(counts), device=counts.device)
        rows = users.repeat_interleave(counts, output_size=total)  # (M,)
        nth = torch.arange(total, device=counts.device) - (counts.cumsum(0) - counts)[rows]  # of its row
        positions = order[rows, nth]
        masked = batch.item_seq.index_put((rows, positions), torch.full_like(rows, self.mask.mask_id))
        return MaskedSlots(masked, rows, positions, batch.item_seq[rows, positions])
