"""What masked-item and next-item prediction share: cross-entropy of states against the whole catalogue."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ...corpus import Batch
from ...devices import shapes_are_fixed
from ...encoders import MaskedItemHead
from ...errors import InputError
from ..fixed_sizes import fixed_size
from .base import Stage, StepResult, Streams, share_of

_SIZES = 8  # numbers of predictions for which a step with fixed shapes has room


class Slots(NamedTuple):
    """Places of the M predictions of a batch; with fixed shapes M is a round number, and some are not counted."""

    rows: Tensor
    """int64 ``(M,)``."""
    nth: Tensor
    """int64 ``(M,)``: the number of the prediction among those of its row, from 0."""
    counted: Tensor | None
    """bool ``(M,)``; None: all of them."""


class ItemPredictionStage(Stage):
    """Predict items from states of the encoder. A subclass says which items, in :meth:`predicted`.

    A user of one behaviour has nothing to predict; a batch of such users is skipped. If several processes share a
    batch, the average of their losses is the mean over all predictions, and so the average of gradients is that of the
    whole batch; with "sampled" each process draws different items.

    Args:
        encoder: with ``hidden_states`` and ``item_weight``.
        name: of the stage.
        softmax: with which items the loss of a step compares: "full", all, or "sampled", drawn uniformly in every
            step (validation always compares with all).
        sample_share: the share of the catalogue that "sampled" draws, in (0, 1].
    """

    criterion = "accuracy"

    def __init__(self, encoder: Any, name: str, softmax: Literal["full", "sampled"], sample_share: float) -> None:
        super().__init__()
        self.name = name
        self.encoder = encoder
        self.head = MaskedItemHead(encoder.n_items, softmax, sample_share)

    def predicted(self, batch: Batch, streams: Streams) -> tuple[Tensor, Tensor, Slots]:
        """Return the M states to predict from ``(M, d)``, the items to predict ``(M,)``, and their places."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it predicts")

    def count(self, lengths: Tensor) -> int:
        """Count the predictions for users with ``lengths`` ``(N,)``, on the CPU."""
        raise NotImplementedError(f"{type(self).__name__} does not say how much it predicts")

    def slots(self, batch: Batch, counts: Tensor) -> Slots:
        """Number the predictions of a batch.

        Args:
            batch: whose lengths, which are on the CPU, say how many there are: nothing is read back.
            counts: int64 ``(B,)``, how many a row has, on the device.
        """
        ends = counts.cumsum(0)
        slot = torch.arange(self._n_slots(batch), device=counts.device)
        counted = slot < ends[-1:] if shapes_are_fixed() else None
        rows = torch.searchsorted(ends, slot, right=True).clamp_(max=len(counts) - 1)
        nth = slot - (ends - counts)[rows]
        return Slots(rows, nth if counted is None else nth * counted, counted)

    def _n_slots(self, batch: Batch) -> int:
        count = self.count(batch.lengths)
        if not shapes_are_fixed():
            return count
        return fixed_size(count, self.count(torch.full_like(batch.lengths, batch.item_seq.shape[1])), _SIZES)

    def why_eager(self) -> str | None:
        """Nothing stands against it."""
        return None

    def fixed(self, batch: Batch) -> tuple[int, ...]:
        """Return the number of slots."""
        return (self._n_slots(batch),)

    def usable(self, batch: Batch) -> bool:
        """Whether any user of the batch has two behaviours."""
        return bool((batch.all_lengths.numpy() > 1).any())

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Mean cross-entropy over the predictions of the batch."""
        hidden, targets, slots = self.predicted(batch, streams)
        # Unused streams are not made.
        generator = streams.generator("samples") if self.head.softmax == "sampled" else None
        loss = self.cross_entropy(batch, hidden, targets, generator, slots.counted)
        return StepResult(loss, {"loss": loss.detach()})

    def cross_entropy(
        self,
        batch: Batch,
        states: Tensor,
        targets: Tensor,
        generator: torch.Generator | None,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy of M states; for a part of a batch, weighted by its share of all predictions."""
        if batch.whole is None:
            return self.head.loss(states, self.encoder.item_weight, targets, generator, counted)
        if not len(targets):
            return 0 * states.float().sum()  # with a graph: this process takes part in the backward
        share = share_of(len(targets), batch, self.count(batch.whole.lengths))
        return share * self.head.loss(states, self.encoder.item_weight, targets, generator)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """Accuracy and cross-entropy, from the same streams every epoch, dropout off.

        A target that ties for the first place counts as missed.
        """
        self.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        count = 0
        for number, batch in enumerate(batches):
            if not self.usable(batch):
                continue
            hidden, targets, _ = self.predicted(batch, Streams(streams.device, (*streams.key, number)))
            scores = self.head.compare(hidden, self.encoder.item_weight, targets)
            sums += torch.stack(((scores.margin > 0).sum().double(), scores.loss.sum().double())).cpu()
            count += len(targets)
        if not count:
            raise InputError("validation users: expected one with two behaviours or more, got none; raise valid_share")
        accuracy, cross_entropy = (sums / count).tolist()
        return {"accuracy": accuracy, "cross_entropy": cross_entropy}
