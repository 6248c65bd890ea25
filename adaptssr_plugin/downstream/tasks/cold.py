"""Cold recommendation: rank the items of a label space that pre-training has not seen (the paper's T3 and T4)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...corpus import Batch, BehaviourCorpus
from ...errors import InputError
from ...methods import Recipe
from ...training import StepResult, Streams
from ..heads import MLPHead
from ..ranking import RANKING_METRICS, Ties, ranking_metrics, target_ranks
from ..splits import Split, split_rows
from .base import LabelledRows, TaskSplit, TaskStage, integers
from .positives import Positives

SPLIT_UNITS = ("pair", "user")


@dataclass(frozen=True, eq=False)
class ColdRecommendationTask:
    """Pairs of a user and an item of a separate label space; a user may have several.

    Attributes:
        name: for tables.
        rows: ``(N,)`` int64, the row of ``inputs`` for each pair.
        targets: ``(N,)`` int64 in [0, len(labels)).
        labels: names of the items of the label space.
        inputs: the encoder's input; None: the corpus of the pre-training.
        users: ``(N,)`` int64, the user of each pair, if several rows of ``inputs`` are one user at different times;
            None: every row is a user.
        left_out: number of pairs of the source that were left out because they have no input or repeat another.

    Raises:
        InputError: numbers out of range, a row of two users, or a repeated pair of user and target, which could be
            in two parts of the split.
    """

    name: str
    rows: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.str_]
    inputs: BehaviourCorpus | None = None
    users: npt.NDArray[np.int64] | None = None
    left_out: int = 0

    def __post_init__(self) -> None:
        given = self.rows if self.users is None else self.users
        for name, values in (("rows", self.rows), ("targets", self.targets), ("users", given)):
            object.__setattr__(self, name, integers(name, values))
        object.__setattr__(self, "labels", np.asarray(list(self.labels), dtype=np.str_))
        n_rows, n_labels = len(self.rows), len(self.labels)
        for name, values in (("targets", self.targets), ("users", self._users)):
            if len(values) != n_rows:
                raise InputError(f"{name}: expected {n_rows}, one for each row, got {len(values)}")
        if n_rows == 0 or n_labels < 2:
            raise InputError(f"rows, labels: expected 1 and 2 or more in task {self.name}, got {n_rows} and {n_labels}")
        if self.targets.min() < 0 or self.targets.max() >= n_labels:
            came = f"{self.targets.min()} to {self.targets.max()}"
            raise InputError(f"targets: expected integers in [0, {n_labels}) in task {self.name}, got {came}")
        if self.inputs is not None:
            self.inputs.check_rows(self.rows)
        if self.rows.min() < 0:
            raise InputError(f"rows: expected rows of the corpus in task {self.name}, got {self.rows.min()}")
        owner = self.user_of_row
        if (owner[self.rows] != self._user_numbers()).any():
            raise InputError(f"users: expected one user for each row of the corpus in task {self.name}, got two")
        pairs = owner[self.rows] * n_labels + self.targets
        if len(np.unique(pairs)) != n_rows:
            raise InputError(f"targets: expected each pair of user and target once in task {self.name}, got one twice")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def metric_name(self) -> str:
        """``"NDCG@10"``, by which epochs are chosen."""
        return RANKING_METRICS[0]

    @property
    def size(self) -> str:
        """The size of the task, for the line below a table."""
        left = f"; {self.left_out} left out" if self.left_out else ""
        users = len(np.unique(self._users))
        return f"{len(self)} pairs of {users} users and {len(self.labels)} items in {self.name}{left}"

    @property
    def user_of_row(self) -> npt.NDArray[np.int64]:
        """int64, the user number of each row of ``inputs``, from 0; 0 for rows without a pair."""
        owner = np.zeros(int(self.rows.max()) + 1, dtype=np.int64)
        owner[self.rows] = self._user_numbers()
        return owner

    def split(self, seed: int, unit: str = "pair") -> TaskSplit:
        """Split 6:2:2, at random over pairs, or over users with all their pairs (METHODS.md, row 42).

        Raises:
            InputError: an unknown unit, or too few units for three parts.
        """
        if unit not in SPLIT_UNITS:
            raise InputError(f"split_unit: expected {' or '.join(SPLIT_UNITS)}, got {unit!r}")
        if unit == "pair":
            parts = split_rows(len(self), seed)
        else:
            users = self._user_numbers()
            of_users = split_rows(int(users.max()) + 1, seed)
            parts = Split(*(np.flatnonzero(np.isin(users, chosen)) for chosen in of_users))
        return TaskSplit(*(LabelledRows(self.rows[part], self.targets[part]) for part in parts))

    def parts(self, recipe: Recipe) -> TaskSplit:
        """Split by the recipe's ``split_seed`` and ``ft_split_unit``."""
        return self.split(recipe.split_seed, recipe.ft_split_unit)

    def stage(self, encoder: nn.Module, dim: int, recipe: Recipe) -> "ColdRecommendationStage":
        """Make the stage that fine-tunes ``encoder`` on this task, by the recipe's ``ft_`` options."""
        return ColdRecommendationStage(
            encoder, self, dim, recipe.ft_hidden, self.parts(recipe),
            loss=recipe.ft_coldrec_loss, neg_exclude=recipe.ft_neg_exclude, ties=recipe.ft_ties,
        )  # fmt: skip

    @property
    def _users(self) -> npt.NDArray[np.int64]:
        assert self.users is not None
        return self.users

    def _user_numbers(self) -> npt.NDArray[np.int64]:
        return np.unique(self._users, return_inverse=True)[1].astype(np.int64)


class ColdRecommendationStage(TaskStage):
    """Distinguish a user's target from a label that is not the user's (BPR), or from all labels (cross-entropy).

    With BPR a row whose user has all labels, and so no negative, contributes nothing.

    Args:
        encoder: any module ``(item_seq, item_seq_len) -> (B, d)``.
        task: what to predict.
        dim: d.
        hidden: width of the head's hidden layer.
        split: the task's; ``neg_exclude="train"`` needs its training part.
        loss: ``bpr``, −log σ(s_target − s_negative), or ``ce``, over the whole label space.
        neg_exclude: which of the user's positives are never drawn as negatives: ``all``, including held-out ones, as
            in the authors' code (METHODS.md, row 41), or only those of the ``train`` part, which reveals nothing
            about the others.
        ties: see :func:`target_ranks`.

    Raises:
        InputError: labels that every user has.
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
