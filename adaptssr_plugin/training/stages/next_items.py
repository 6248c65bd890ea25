"""Next-item prediction: the warm-up of causal encoders, which cannot predict masked items from both sides."""

from typing import Any, Literal

from torch import Tensor

from ...corpus import Batch
from .base import Streams
from .item_prediction import ItemPredictionStage, Slots


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

    def predicted(self, batch: Batch, streams: Streams) -> tuple[Tensor, Tensor, Slots]:  # noqa: ARG002 - no draws
        """Return the M states before a behaviour ``(M, d)``, those behaviours ``(M,)``, and their places."""
        states = self.encoder.hidden_states(batch.item_seq, batch.item_seq_len)
        slots = self.slots(batch, batch.item_seq_len - 1)
        return states[slots.rows, slots.nth], batch.item_seq[slots.rows, slots.nth + 1], slots

    def count(self, lengths: Tensor) -> int:
        """Count the behaviours except the first of users with ``lengths`` ``(N,)``, on the CPU."""
        return int((lengths - 1).numpy().sum())
