"""Masked-item prediction: AdaptSSR's warm-up, and all of PeterRec's row, as in the authors' code."""

from typing import Literal

import torch
from torch import Tensor

from ...augment import ItemMask
from ...corpus import Batch
from ...encoders import UserEncoder
from ...errors import InputError
from .base import StepResult, Streams
from .item_prediction import ItemPredictionStage, Slots


class MaskedItemStage(ItemPredictionStage):
    """Predict the items behind [MASK] from both sides: cross-entropy over the whole catalogue or a sample of it.

    Of n behaviours ``min(ceil(ratio · n), n - 1)`` are masked, all of them by [MASK]. A user of one behaviour has none,
    and a batch without any is skipped. The item table, [MASK], positions, layers and a bias per item are learned; the
    pooling query is not, unless ``pooled`` is above 0.

    With ``pooled`` the loss is ``(1 - pooled) · positions + pooled · user``: the second term predicts the same items
    from the user vector of the masked sequence. This is ours; in the paper the pooling query is untrained when ranking
    starts. In both cases epochs are compared by the first term alone.

    Args:
        encoder: with ``hidden_states`` and ``item_weight``; for ``pooled`` also ``pooling``.
        ratio: share of masked behaviours in (0, 1].
        name: of the stage.
        softmax: as :class:`~adaptssr_plugin.training.stages.item_prediction.ItemPredictionStage`.
        sample_share: as there.
        pooled: share of the loss, in [0, 1], that predicts from the user vector.

    Raises:
        InputError: ``pooled`` out of range, or with an encoder whose user vector has another width.
    """

    def __init__(
        self,
        encoder: UserEncoder,
        ratio: float = 0.3,
        name: str = "mlm",
        softmax: Literal["full", "sampled"] = "full",
        sample_share: float = 0.2,
        pooled: float = 0.0,
    ) -> None:
        super().__init__(encoder, name, softmax, sample_share)
        if not 0 <= pooled <= 1:
            raise InputError(f"pooled: expected a number in [0, 1], got {pooled!r}")
        if pooled and (not hasattr(encoder, "pooling") or encoder.out_dim != encoder.item_weight.shape[1]):
            raise InputError(
                f"pooled: expected an encoder with one pooled user vector as wide as its items, got {encoder.out_dim} "
                f"of {type(encoder).__name__}"
            )
        self.mask = ItemMask(ratio, mask_id=encoder.n_items)
        self.pooled = pooled

    def predicted(self, batch: Batch, streams: Streams) -> tuple[Tensor, Tensor, Slots]:
        """Return the states at masked positions ``(M, d)``, the original items ``(M,)``, and their rows."""
        hidden, slots, positions, targets = self._masked_states(batch, streams)
        return hidden[slots.rows, positions], targets, slots

    def count(self, lengths: Tensor) -> int:
        """Count the masked positions of users with ``lengths`` ``(N,)``, on the CPU."""
        return int(self.mask.counts(lengths).numpy().sum())

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Mean cross-entropy over the masked positions, from their states and from the user vectors."""
        if not self.pooled:
            return super().step(batch, streams)
        hidden, (rows, _, counted), places, targets = self._masked_states(batch, streams)
        visible = torch.arange(hidden.shape[1], device=hidden.device) < batch.item_seq_len[:, None]
        users = self.encoder.pooling(hidden, visible)  # (B, d)
        generator = streams.generator("samples") if self.head.softmax == "sampled" else None
        positions, user = (
            self.cross_entropy(batch, states, targets, generator, counted)
            for states in (hidden[rows, places], users[rows])
        )
        loss = torch.lerp(positions, user, self.pooled)
        return StepResult(
            loss,
            {"loss": loss.detach(), "loss_positions": positions.detach(), "loss_user": user.detach()},
        )

    def _masked_states(self, batch: Batch, streams: Streams) -> tuple[Tensor, Slots, Tensor, Tensor]:
        """Mask, and encode every position: ``(B, L, d)``. Also the M slots, their positions and the original items."""
        order, counts = self.mask.positions(batch.item_seq_len, batch.item_seq.shape[1], streams.generator("mask"))
        first = torch.arange(order.shape[1], device=order.device) < counts[:, None]  # (B, L)
        masked = torch.zeros_like(first).scatter_(1, order, first)
        slots = self.slots(batch, counts)
        positions = order[slots.rows, slots.nth]
        targets = batch.item_seq[slots.rows, positions]
        item_seq = torch.where(masked, self.mask.mask_id, batch.item_seq)
        return self.encoder.hidden_states(item_seq, batch.item_seq_len), slots, positions, targets
