"""Profile tasks: predict a label of a user from the user's behaviours, by a fresh two-layer head."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...corpus import Batch, BehaviourCorpus
from ...errors import InputError
from ...methods import Recipe
from ...training import StepResult, Streams
from ..heads import MLPHead
from ..metrics import Values, accuracy, auc
from ..splits import split_rows
from .base import LabelledRows, TaskSplit, TaskStage, integers

Kind = Literal["multiclass", "binary"]


@dataclass(frozen=True, eq=False)
class ProfileTask:
    """A label for some users of a corpus.

    ``kind="multiclass"`` is measured by accuracy, ``"binary"`` by the AUC of the difference of its two
    logits; both are trained with cross-entropy. :meth:`from_labels` chooses the kind.

    Attributes:
        name: name of the label, for tables.
        kind: "multiclass" or "binary" (two classes, the second one positive).
        rows: ``(N,)`` int64 rows of the corpus, each at most once, so that no user straddles the split.
        labels: ``(N,)`` int64 in [0, len(classes)).
        classes: names of the classes.
        inputs: the corpus of ``rows``; None: the corpus of the pre-training.

    Raises:
        InputError: any of these conditions is violated.
    """

    name: str
    kind: Kind
    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    inputs: BehaviourCorpus | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "labels"):
            object.__setattr__(self, name, integers(name, getattr(self, name)))
        object.__setattr__(self, "classes", tuple(str(one) for one in self.classes))
        if not isinstance(self.kind, str) or self.kind not in ("multiclass", "binary"):
            raise InputError(f"kind: expected multiclass or binary, got {self.kind}")
        if len(self.rows) != len(self.labels):
            raise InputError(f"labels: expected {len(self.rows)}, one for each row, got {len(self.labels)}")
        if len(np.unique(self.rows)) != len(self.rows) or (self.rows < 0).any():
            raise InputError(f"rows: expected each row of the corpus at most once in task {self.name}")
        n_classes = len(self.classes)
        if n_classes < 2 or (self.kind == "binary" and n_classes != 2):
            wanted = "2" if self.kind == "binary" else "at least 2"
            raise InputError(f"classes: expected {wanted} in {self.kind} task {self.name}, got {n_classes}")
        if len(set(self.classes)) != n_classes:
            raise InputError(f"classes: expected different names in task {self.name}, got {self.classes}")
        if len(self.labels) and not (self.labels.min() >= 0 and self.labels.max() < n_classes):
            raise InputError(
                f"labels: expected integers in [0, {n_classes}) in task {self.name}, "
                f"got {self.labels.min()} to {self.labels.max()}"
            )

    @classmethod
    def from_labels(
        cls,
        name: str,
        rows: np.ndarray | Sequence[int],
        labels: np.ndarray | Sequence[int],
        classes: Sequence[str],
        kind: Kind | None = None,
    ) -> "ProfileTask":
        """Make a task; without ``kind``, two classes make it binary and more make it multi-class."""
        if kind is None:
            kind = "binary" if len(classes) == 2 else "multiclass"
        return cls(name, kind, np.asarray(rows), np.asarray(labels), tuple(classes))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def metric_name(self) -> str:
        """``"accuracy"`` or ``"AUC"``, as written in tables."""
        return "AUC" if self.kind == "binary" else "accuracy"

    @property
    def size(self) -> str:
        """The size of the task, for the line below a table."""
        return f"{len(self)} users with {self.name}"

    def metric(self, scores: Values, labels: Values) -> float:
        """The task's metric, a fraction in [0, 1], of scores ``(N, C)`` against labels ``(N,)``."""
        if np.ndim(scores) != 2 or scores.shape[1] != len(self.classes):
            raise InputError(
                f"scores: expected shape (N, {len(self.classes)}) for task {self.name}, got {tuple(scores.shape)}"
            )
        return auc(scores, labels) if self.kind == "binary" else accuracy(scores, labels)

    def split(self, seed: int) -> TaskSplit:
        """Split the rows 6:2:2, the same for the same number of rows and seed (:func:`split_rows`)."""
        return TaskSplit(*(LabelledRows(self.rows[p], self.labels[p]) for p in split_rows(len(self), seed)))

    def parts(self, recipe: Recipe) -> TaskSplit:
        """Split by the recipe's ``split_seed``."""
        return self.split(recipe.split_seed)

    def stage(self, encoder: nn.Module, dim: int, recipe: Recipe) -> "ProfileStage":
        """Make the stage that fine-tunes ``encoder`` on this task."""
        return ProfileStage(encoder, self, dim, recipe.ft_hidden)


class ProfileStage(TaskStage):
    """Predict a profile label of every user by cross-entropy.

    ``encoder`` is any module ``(item_seq, item_seq_len) -> (B, dim)``.
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
