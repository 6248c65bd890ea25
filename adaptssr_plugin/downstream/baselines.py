"""The baselines that tables stand beside: the majority class and word counts, or the most popular items.

None knows an encoder. Word counts see the same input as one, as a bag: a pre-trained user model that
does not beat it has learned nothing from the order of behaviours or from other users.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adaptssr_plugin.corpus.svd_items import item_counts
from adaptssr_plugin.downstream.ranking import Ties, ranking_metrics, ranks_of
from adaptssr_plugin.downstream.tasks.base import LabelledRows, TaskSplit
from adaptssr_plugin.downstream.tasks.cold import ColdRecommendationTask
from adaptssr_plugin.downstream.tasks.positives import Positives
from adaptssr_plugin.downstream.tasks.profile import ProfileTask
from adaptssr_plugin.errors import InputError, check_kind

if TYPE_CHECKING:
    from adaptssr_plugin.corpus.behaviours import BehaviourCorpus

C_GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class BaselineResult:
    """What a baseline reached: the task's metric on test and validation rows, a fraction in [0, 1].

    ``C`` is the inverse strength of the L2 penalty that was chosen (None where there is none to choose),
    ``seconds`` the wall-clock time of the whole baseline, features and search included.
    """

    test: float
    valid: float
    C: float | None
    seconds: float


@dataclass(frozen=True)
class RankingBaselineResult:
    """What a baseline of cold recommendation reached: metrics by name, fractions in [0, 1], and its wall-clock time."""

    test: dict[str, float]
    valid: dict[str, float]
    seconds: float


def popularity(task: ColdRecommendationTask, split: TaskSplit, ties: Ties = "pessimistic") -> RankingBaselineResult:
    """Recommend to everyone what most training pairs ask for, but the user's other positives.

    Args:
        task: what to predict.
        split: ``task.split(seed)``.
        ties: see :func:`target_ranks`.
    """
    start = time.perf_counter()
    users = task.user_of_row
    known = Positives(users[task.rows], task.targets, int(users.max()) + 1, len(task.labels))
    counts = torch.from_numpy(np.bincount(split.train.labels, minlength=len(task.labels)))
    ascending = counts.sort().values

    def measured(part: LabelledRows) -> dict[str, float]:
        targets = torch.from_numpy(part.labels)
        own = counts[targets]
        above = len(counts) - torch.searchsorted(ascending, own, right=True)
        beside = len(counts) - torch.searchsorted(ascending, own) - above
        # All rows share one order, so that only the user's own positives have to be looked at; the target is one.
        rows, labels = known.pairs(torch.from_numpy(users[part.rows]))
        off = torch.zeros(2, len(own), dtype=torch.int64)
        others = counts[labels]
        off.scatter_add_(1, rows.expand(2, -1), torch.stack([others > own[rows], others == own[rows]]).long())
        return ranking_metrics(ranks_of(above - off[0], beside - off[1], ties))

    valid, test = measured(split.valid), measured(split.test)
    return RankingBaselineResult(test, valid, time.perf_counter() - start)


def majority(task: ProfileTask, split: TaskSplit) -> BaselineResult:
    """Always answer the most frequent class of the training rows (ties: the first such class).

    Measured by accuracy that is the class's share; an AUC is 1/2, since all rows get the same scores.
    """
    _check(task, split)
    start = time.perf_counter()
    shares = np.bincount(split.train.labels, minlength=len(task.classes)) / len(split.train.labels)
    valid, test = (
        task.metric(np.tile(shares, (len(part.labels), 1)), part.labels) for part in (split.valid, split.test)
    )
    return BaselineResult(test, valid, None, time.perf_counter() - start)


def tfidf_logistic_regression(
    corpus: "BehaviourCorpus",
    task: ProfileTask,
    split: TaskSplit,
    max_len: int,
    C_grid: tuple[float, ...] = C_GRID,  # noqa: N803 - scikit-learn's name
) -> BaselineResult:
    """TF-IDF of a user's last ``max_len`` items, and multinomial logistic regression on it.

    A user is the bag of their newest ``max_len`` items: counts, weighted by the smoothed inverse document
    frequency of the training users, scaled to length 1 (scikit-learn's ``TfidfTransformer``). The weights
    carry an L2 penalty; its inverse strength C is the value of ``C_grid`` with the best metric on the
    validation rows (ties: the smaller C). Nothing here is random.

    Args:
        corpus: the behaviours; the task's rows are its rows.
        task: what to predict, and the metric.
        split: ``task.split(seed)``.
        max_len: how many of the newest items count, as for the encoder it stands beside.
        C_grid: the values of C to try.

    Raises:
        InputError: training rows of one class only, rows that the corpus lacks, or a ``max_len`` below 1.
    """
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    _check(task, split)
    start = time.perf_counter()
    if len(np.unique(split.train.labels)) < 2:
        raise InputError(f"labels: expected at least two classes among the training rows of {task.name}")
    counts = [item_counts(corpus, part.rows, max_len) for part in split]
    weighting = TfidfTransformer().fit(counts[0])
    train, valid, test = (weighting.transform(part) for part in counts)
    best: tuple[float, float, Any] | None = None
    for c in sorted(C_grid):
        # Some hundred steps are enough on real corpora; the limit only has to be out of reach.
        model = LogisticRegression(C=c, max_iter=100_000).fit(train, split.train.labels)
        value = task.metric(_class_scores(model, valid, len(task.classes)), split.valid.labels)
        if best is None or value > best[0]:
            best = (value, c, model)
    if best is None:
        raise InputError("C_grid: expected at least one value, got none")
    value, c, model = best
    result = task.metric(_class_scores(model, test, len(task.classes)), split.test.labels)
    return BaselineResult(result, value, c, time.perf_counter() - start)


def _check(task: object, split: object) -> None:
    check_kind("task", task, ProfileTask, "a ProfileTask")
    check_kind("split", split, TaskSplit, "a TaskSplit")


def _class_scores(model: Any, features: Any, n_classes: int) -> np.ndarray:
    """Scores ``(N, n_classes)`` of a fitted classifier; -inf for a class that it has never seen."""
    decision = model.decision_function(features)
    if decision.ndim == 1:  # two classes: the logit of the second against the first
        decision = np.stack([-decision / 2, decision / 2], axis=1)
    scores = np.full((len(decision), n_classes), -np.inf)
    scores[:, model.classes_] = decision
    return scores
