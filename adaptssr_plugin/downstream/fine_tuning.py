"""Fine-tuning of a user encoder on a task: all weights trained, a fresh two-layer head (spec §4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..corpus import Batch
from ..training import Stage, StepResult, Streams
from .heads import MLPHead

if TYPE_CHECKING:
    from .tasks import ProfileTask


class TaskStage(Stage):
    """What fine-tuning on any task has in common: epochs are compared by the first of the task's metrics."""

    criterion = "metric"

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute the task's metrics, fractions in [0, 1], with dropout off; the one to select on comes first."""
        raise NotImplementedError(f"{type(self).__name__} has no metrics")

    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """Compute the task's metrics, the first one also as ``metric``."""
        values = self.evaluate(batches)
        return {"metric": next(iter(values.values())), **values}


class ProfileStage(TaskStage):
    """Predict a profile label of every user by cross-entropy.

    Args:
        encoder: any module ``(item_seq, item_seq_len) -> (B, d)``.
        task: what to predict.
        dim: d.
        hidden: width of the head's hidden layer.
    """

    name = "profile"

    def __init__(self, encoder: nn.Module, task: ProfileTask, dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = MLPHead(dim, len(task.classes), hidden)
        self.task = task

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Mean cross-entropy of the batch's labels."""
        assert batch.labels is not None
        loss = F.cross_entropy(self._scores(batch).float(), batch.labels)
        return StepResult(loss, {"loss": loss.detach()})

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Accuracy or AUC."""
        scores, labels = self.predict(batches)
        return {self.task.metric_name: self.task.metric(scores, labels)}

    @torch.no_grad()
    def predict(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Score users with dropout off: scores ``(N, C)`` and labels ``(N,)``, on the CPU."""
        self.eval()
        scores, labels = [], []
        for batch in batches:
            assert batch.labels is not None
            scores.append(self._scores(batch).float().cpu())
            labels.append(batch.labels.cpu())
        return torch.cat(scores), torch.cat(labels)

    def _scores(self, batch: Batch) -> Tensor:
        scores: Tensor = self.head(self.encoder(batch.item_seq, batch.item_seq_len))
        return scores
