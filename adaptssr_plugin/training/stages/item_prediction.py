"""What masked-item and next-item prediction share: cross-entropy of states against the whole catalogue."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from ...corpus import Batch
from ...encoders import MaskedItemHead
from ...errors import InputError
from .base import Stage, StepResult, Streams, share_of


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

    def predicted(self, batch: Batch, streams: Streams) -> tuple[Tensor, Tensor]:
        """Return the M states to predict from ``(M, d)``, and the items to predict ``(M,)``."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it predicts")

    def count(self, lengths: Tensor) -> int:
        """Count the predictions for users with ``lengths`` ``(N,)``, on the CPU."""
        raise NotImplementedError(f"{type(self).__name__} does not say how much it predicts")

    def usable(self, batch: Batch) -> bool:
        """Whether any user of the batch has two behaviours."""
        return bool((batch.all_lengths.numpy() > 1).any())

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Mean cross-entropy over the predictions of the batch."""
        hidden, targets = self.predicted(batch, streams)
        # Unused streams are not made.
        generator = streams.generator("samples") if self.head.softmax == "sampled" else None
        loss = self.cross_entropy(batch, hidden, targets, generator)
        return StepResult(loss, {"loss": loss.detach()})

    def cross_entropy(self, batch: Batch, states: Tensor, targets: Tensor, generator: torch.Generator | None) -> Tensor:
        """Mean cross-entropy of M states; for a part of a batch, weighted by its share of all predictions."""
        if batch.whole is None:
            return self.head.loss(states, self.encoder.item_weight, targets, generator)
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
            hidden, targets = self.predicted(batch, Streams(streams.device, (*streams.key, number)))
            scores = self.head.compare(hidden, self.encoder.item_weight, targets)
            sums += torch.stack(((scores.margin > 0).sum().double(), scores.loss.sum().double())).cpu()
            count += len(targets)
        if not count:
            raise InputError("validation users: expected one with two behaviours or more, got none; raise valid_share")
        accuracy, cross_entropy = (sums / count).tolist()
        return {"accuracy": accuracy, "cross_entropy": cross_entropy}
