"""The interface between fine-tuning and a task of any form."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
from torch import nn

from ...corpus import Batch, BehaviourCorpus
from ...errors import InputError
from ...methods import Recipe
from ...training import Stage, Streams


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
    """What fine-tuning needs from a task of any form."""

    @property
    def name(self) -> str:
        """Name of the task, for tables."""

    @property
    def inputs(self) -> BehaviourCorpus | None:
        """The encoder's input, under the ids of its own items; None: the corpus of the pre-training."""

    @property
    def metric_name(self) -> str:
        """The metric by which epochs are chosen, as written in tables."""

    @property
    def size(self) -> str:
        """The size of the task, for the line below a table."""

    def __len__(self) -> int:
        """Count the rows."""

    def parts(self, recipe: Recipe) -> TaskSplit:
        """Split 6:2:2 by the recipe: rows of the inputs and their labels."""

    def stage(self, encoder: nn.Module, dim: int, recipe: Recipe) -> "TaskStage":
        """Make the stage that trains ``encoder``, of width ``dim``, and a fresh head on the task."""


class TaskStage(Stage):
    """The common part of fine-tuning on any task: epochs are compared by the first of the task's metrics."""

    criterion = "metric"

    def why_eager(self) -> str | None:
        """Nothing stands against it: one row, one prediction."""
        return None

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute the task's metrics, fractions in [0, 1], with dropout off; the first one selects the epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no metrics")

    def validate(self, batches: Iterable[Batch], streams: Streams) -> dict[str, float]:
        """Compute the task's metrics, the first one also as ``metric``."""
        values = self.evaluate(batches)
        return {"metric": next(iter(values.values())), **values}


def integers(name: str, values: np.ndarray) -> np.ndarray:
    """Return ``values`` as (N,) int64; raise InputError unless they are a list of integers."""
    values = np.asarray(values)
    if values.ndim != 1 or not (len(values) == 0 or np.issubdtype(values.dtype, np.integer)):
        raise InputError(f"{name}: expected a list of integers, got {values.dtype} of shape {values.shape}")
    return values.astype(np.int64)
