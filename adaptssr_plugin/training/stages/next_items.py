"""Next-item prediction: the warm-up of causal encoders, which cannot predict masked items from both sides."""

from typing import Any, Literal

import torch
from torch import Tensor

from ...corpus import Batch
from .base import Streams
from .item_prediction import ItemPredictionStage


class NextItemStage(ItemPredictionStage):
    """Predict every behaviour except the first from the state before it; cross-entropy over the catalogue.

    Args:
        encoder: causal, with ``hidden_states`` and ``item_weight``.
        name: of the stage.
        softmax: as :class:`ItemPredictionStage`.
        sample_share: as there.
    """

    def __init__(
        self, encoder: Any, name: str = "next", softmax: Literal["full", "sampled"] = "full", sample_share: float = 0.2
    ) -> None:
        super().__init__(encoder, name, softmax, sample_share)

    def predicted(self, batch: Batch, streams: Streams) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - no draws
        """Return the M states before a behaviour ``(M, d)``, and those behaviours ``(M,)``."""
        states = self.encoder.hidden_states(batch.item_seq, batch.item_seq_len)
        # Their number follows from the lengths, which are on the CPU, so nothing is read back.
        counts = batch.lengths - 1
        total = self.count(batch.lengths)
        rows = torch.arange(len(counts)).repeat_interleave(counts, output_size=total)
        positions = torch.arange(total) - (counts.cumsum(0) - counts)[rows]
        rows, positions = rows.to(states.device), positions.to(states.device)
        return states[rows, positions], batch.item_seq[rows, positions + 1]

    def count(self, lengths: Tensor) -> int:
        """Count the behaviours except the first of users with ``lengths`` ``(N,)``, on the CPU."""
        return int((lengths - 1).sum())
