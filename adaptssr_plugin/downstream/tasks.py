"""What a task is, and profile tasks: predict a label of a user from the user's behaviours (spec 4.1 to 4.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from torch import nn

from adaptssr_plugin.corpus import BehaviourCorpus
from adaptssr_plugin.downstream.fine_tuning import ProfileStage, TaskStage
from adaptssr_plugin.downstream.metrics import Values, accuracy, auc
from adaptssr_plugin.downstream.splits import split_rows
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import Recipe

Kind = Literal["multiclass", "binary"]


class LabelledRows(NamedTuple):
    """One part of a task: rows of the corpus ``(N,)`` int64 and their labels ``(N,)`` int64."""

    rows: np.ndarray
    labels: np.ndarray


class TaskSplit(NamedTuple):
    """The three parts of a task."""

    train: LabelledRows
    valid: LabelledRows
    test: LabelledRows


class Task(Protocol):
    """What fine-tuning asks of a task, whatever its form."""

    @property
    def name(self) -> str:
        """Name of the task, for tables."""

    @property
    def inputs(self) -> BehaviourCorpus | None:
        """What the encoder is shown, under the ids of its own items; None: the corpus that it was pre-trained on."""

    @property
    def metric_name(self) -> str:
        """The metric by which epochs are chosen, as tables write it."""

    @property
    def size(self) -> str:
        """How much there is of the task, for the line below a table."""

    def __len__(self) -> int:
        """Count the rows."""

    def parts(self, recipe: Recipe) -> TaskSplit:
        """Split 6:2:2 by the recipe: rows of the inputs and their labels."""

    def stage(self, encoder: nn.Module, dim: int, recipe: Recipe) -> TaskStage:
        """Make the stage that trains ``encoder``, of width ``dim``, and a fresh head on the task."""


@dataclass(frozen=True, eq=False)
class ProfileTask:
    """A label for some users of a corpus.

    ``kind="multiclass"`` is measured by accuracy, ``"binary"`` by the AUC of the difference of its two
    logits; both are trained with cross-entropy (spec 4.3). :meth:`from_labels` chooses the kind.

    Attributes:
        name: name of the label, for tables.
        kind: "multiclass" or "binary" (two classes, the second one positive).
        rows: ``(N,)`` int64 rows of the corpus, each at most once, so that no user straddles the split.
        labels: ``(N,)`` int64 in [0, len(classes)).
        classes: names of the classes.
        inputs: what ``rows`` are rows of; None: the corpus that the encoder was pre-trained on.

    Raises:
        InputError: any of these does not hold.
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
        """``"accuracy"`` or ``"AUC"``, as tables write it."""
        return "AUC" if self.kind == "binary" else "accuracy"

    @property
    def size(self) -> str:
        """How much there is of the task, for the line below a table."""
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

    def stage(self, encoder: nn.Module, dim: int, recipe: Recipe) -> ProfileStage:
        """Make the stage that fine-tunes ``encoder`` on this task."""
        return ProfileStage(encoder, self, dim, recipe.ft_hidden)


def integers(name: str, values: np.ndarray) -> np.ndarray:
    """Give ``values`` back as (N,) int64; raise InputError unless they are a list of integers."""
    values = np.asarray(values)
    if values.ndim != 1 or not (len(values) == 0 or np.issubdtype(values.dtype, np.integer)):
        raise InputError(f"{name}: expected a list of integers, got {values.dtype} of shape {values.shape}")
    return values.astype(np.int64)
