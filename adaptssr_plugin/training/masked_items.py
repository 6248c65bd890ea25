"""Masked-item prediction: AdaptSSR's warm-up, and the whole of PeterRec's row (spec §2.2)."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..augment import ItemMask
from ..corpus import Batch
from ..encoders import MaskedItemHead, UserEncoder
from ..errors import InputError
from .stage import Stage, StepResult, Streams


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


class MaskedItemStage(Stage):
    """Predict the items behind [MASK] from both sides: cross-entropy over the whole catalogue or a sample of it.

    Of n behaviours ``min(ceil(ratio · n), n - 1)`` are masked, all of them by [MASK]; a user of one behaviour
    has none, and a batch without any is skipped. Learned are the item table, [MASK], positions, layers and a
    bias per item; the pooling query is not.

    Args:
        encoder: with ``hidden_states`` and ``item_weight``.
        ratio: share of masked behaviours in (0, 1].
        name: of the stage.
        softmax: the items that the loss of a step compares with: "full", all, or "sampled", drawn uniformly for
            every step (validation always compares with all).
        sample_share: how many of the catalogue "sampled" draws, in (0, 1].
    """

    criterion = "accuracy"

    def __init__(
        self,
        encoder: UserEncoder,
        ratio: float = 0.3,
        name: str = "mlm",
        softmax: Literal["full", "sampled"] = "full",
        sample_share: float = 0.2,
    ) -> None:
        super().__init__()
        self.name = name
        self.encoder = encoder
        self.head = MaskedItemHead(encoder.n_items, softmax, sample_share)
        self.mask = ItemMask(ratio, mask_id=encoder.n_items)

    def usable(self, batch: Batch) -> bool:
        """Whether any user of the batch has two behaviours."""
        return bool((batch.lengths.numpy() > 1).any())

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Mean cross-entropy over the masked positions of the batch."""
        slots = self._mask(batch, streams)
        hidden, table = self._hidden(batch, slots), self.encoder.item_weight
        # A stream that nothing draws from is not made.
        generator = streams.generator("samples") if self.head.softmax == "sampled" else None
        loss = self.head.loss(hidden, table, slots.targets, generator)
        return StepResult(loss, {"loss": loss.detach()})

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """Accuracy and cross-entropy at masked positions drawn from the same stream every epoch, dropout off.

        A target that shares the first place counts as missed.
        """
        self.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        count = 0
        for number, batch in enumerate(batches):
            if not self.usable(batch):
                continue
            slots = self._mask(batch, Streams(streams.device, (*streams.key, number)))
            scores = self.head.compare(self._hidden(batch, slots), self.encoder.item_weight, slots.targets)
            sums += torch.stack(((scores.margin > 0).sum().double(), scores.loss.sum().double())).cpu()
            count += len(slots.targets)
        if not count:
            raise InputError("validation users: expected one with two behaviours or more, got none; raise valid_share")
        accuracy, cross_entropy = (sums / count).tolist()
        return {"accuracy": accuracy, "cross_entropy": cross_entropy}

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

    def _hidden(self, batch: Batch, slots: MaskedSlots) -> Tensor:
        hidden = self.encoder.hidden_states(slots.item_seq, batch.item_seq_len)
        return hidden[slots.rows, slots.positions]  # (M, d)
