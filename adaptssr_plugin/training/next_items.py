"""Next-item prediction: the warm-up of causal encoders, which see no later behaviour that could be masked."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from ..corpus import Batch
from ..encoders import MaskedItemHead
from ..errors import InputError
from .stage import Stage, StepResult, Streams


class NextItemStage(Stage):
    """Predict every behaviour but the first from the state before it; cross-entropy over the catalogue.

    A user of one behaviour has nothing to predict, and a batch without any other is skipped.

    Args:
        encoder: causal, with ``hidden_states`` and ``item_weight``.
        name: of the stage.
        softmax: as in :class:`~adaptssr_plugin.training.MaskedItemStage`.
        sample_share: as there.
    """

    criterion = "accuracy"

    def __init__(
        self, encoder: Any, name: str = "next", softmax: Literal["full", "sampled"] = "full", sample_share: float = 0.2
    ) -> None:
        super().__init__()
        self.name = name
        self.encoder = encoder
        self.head = MaskedItemHead(encoder.n_items, softmax, sample_share)

    def usable(self, batch: Batch) -> bool:
        """Whether any user of the batch has two behaviours."""
        return bool((batch.lengths.numpy() > 1).any())

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Mean cross-entropy over all behaviours of the batch but the first ones."""
        hidden, targets = self._predicted(batch)
        generator = streams.generator("samples") if self.head.softmax == "sampled" else None
        loss = self.head.loss(hidden, self.encoder.item_weight, targets, generator)
        return StepResult(loss, {"loss": loss.detach()})

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:  # noqa: ARG002 - no draws
        """Accuracy and cross-entropy, dropout off. A target that shares the first place counts as missed."""
        self.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        count = 0
        for batch in batches:
            if not self.usable(batch):
                continue
            hidden, targets = self._predicted(batch)
            scores = self.head.compare(hidden, self.encoder.item_weight, targets)
            sums += torch.stack(((scores.margin > 0).sum().double(), scores.loss.sum().double())).cpu()
            count += len(targets)
        if not count:
            raise InputError("validation users: expected one with two behaviours or more, got none; raise valid_share")
        accuracy, cross_entropy = (sums / count).tolist()
        return {"accuracy": accuracy, "cross_entropy": cross_entropy}

    def _predicted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the M states before a behaviour ``(M, d)``, and those behaviours ``(M,)``."""
        states = self.encoder.hidden_states(batch.item_seq, batch.item_seq_len)
        # How many there are follows from the lengths, which the host has: nothing is read back for it.
        counts = batch.lengths - 1
        total = int(counts.sum())
        rows = torch.arange(len(counts)).repeat_interleave(counts, output_size=total)
        positions = torch.arange(total) - (counts.cumsum(0) - counts)[rows]
        rows, positions = rows.to(states.device), positions.to(states.device)
        return states[rows, positions], batch.item_seq[rows, positions + 1]
