"""Fine-tuning on cold recommendation: the head scores a label space of its own (spec §4.3, rows 41, 43, 44)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..corpus import Batch
from ..errors import InputError
from ..training import StepResult, Streams
from .fine_tuning import TaskStage
from .heads import MLPHead
from .positives import Positives
from .ranking import Ties, ranking_metrics, target_ranks

if TYPE_CHECKING:
    from .cold import ColdRecommendationTask
    from .tasks import TaskSplit

LOSSES = ("bpr", "ce")
EXCLUDES = ("all", "train")


class ColdRecommendationStage(TaskStage):
    """Tell a user's target from one label that is not the user's (BPR), or from all others (cross-entropy).

    With BPR a row whose user has every label, so that no negative is left, contributes nothing.

    Args:
        encoder: any module ``(item_seq, item_seq_len) -> (B, d)``.
        task: what to predict.
        dim: d.
        hidden: width of the head's hidden layer.
        split: the task's, of which ``neg_exclude="train"`` needs the training part.
        loss: ``bpr``, −log σ(s_target − s_negative), or ``ce``, over the whole label space.
        neg_exclude: which of the user's positives are never drawn as negatives: ``all`` of them, those held out
            included, as the authors' code (row 41), or only those of the ``train`` part, which gives nothing away.
        ties: see :func:`target_ranks`.

    Raises:
        InputError: another word, or labels of which every user has all.
    """

    name = "cold recommendation"
    users: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        task: ColdRecommendationTask,
        dim: int,
        hidden: int,
        split: TaskSplit,
        *,
        loss: str = "bpr",
        neg_exclude: str = "all",
        ties: str = "pessimistic",
    ) -> None:
        super().__init__()
        for argument, value, words in (("loss", loss, LOSSES), ("neg_exclude", neg_exclude, EXCLUDES)):
            if value not in words:
                raise InputError(f"{argument}: expected {' or '.join(words)}, got {value!r}")
        self.encoder = encoder
        self.head = MLPHead(dim, len(task.labels), hidden)
        self.loss, self.ties = loss, cast(Ties, ties)
        users = task.user_of_row
        self.register_buffer("users", torch.from_numpy(users), persistent=False)
        n_users, n_labels = int(users.max()) + 1, len(task.labels)
        self.known = Positives(users[task.rows], task.targets, n_users, n_labels)
        taken = (users[split.train.rows], split.train.labels) if neg_exclude == "train" else None
        self.excluded = self.known if taken is None else Positives(*taken, n_users, n_labels)
        counts = self.excluded.start.diff()[users[np.unique(split.train.rows)]]
        if loss == "bpr" and bool((counts == n_labels).all()):
            raise InputError(f"loss: expected ce in task {task.name}, where every user has all labels, got bpr")

    def step(self, batch: Batch, streams: Streams) -> StepResult:
        """Mean loss of the rows that have a negative."""
        assert batch.labels is not None
        encodings = self.encoder(batch.item_seq, batch.item_seq_len)
        if self.loss == "ce":
            loss = F.cross_entropy(self.head(encodings).float(), batch.labels)
        else:
            drawn, possible = self.excluded.negatives(self.users[batch.user_ids], streams.generator("negatives"))
            scores = self.head.scores_of(encodings, torch.stack([batch.labels, drawn], 1)).float()  # (B, 2)
            each = F.softplus(scores[:, 1] - scores[:, 0])
            loss = (each * possible).sum() / possible.sum().clamp(min=1)
        return StepResult(loss, {"loss": loss.detach()})

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """NDCG@10 and the others of :func:`ranking_metrics`."""
        return ranking_metrics(self.ranks(batches))

    @torch.no_grad()
    def ranks(self, batches: Iterable[Batch]) -> Tensor:
        """Rank every row's target among the labels that are not its user's: float64 ``(N,)``, on the CPU.

        Scores (B, labels) are held for one batch at a time.
        """
        self.eval()
        found = []
        for batch in batches:
            assert batch.labels is not None
            scores = self.head(self.encoder(batch.item_seq, batch.item_seq_len)).float()  # (B, labels)
            known = self.known.pairs(self.users[batch.user_ids])
            found.append(target_ranks(scores, batch.labels, *known, self.ties).cpu())
        return torch.cat(found)
