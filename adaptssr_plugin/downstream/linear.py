"""Logistic regression on features of users, to measure frozen vectors.

The cross-entropy of validation rows chooses the penalty. There may be fewer labels than rows; features are made
without labels.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptssr_plugin.downstream.tasks.base import LabelledRows, TaskSplit
from adaptssr_plugin.downstream.tasks.profile import ProfileTask
from adaptssr_plugin.errors import InputError, check_count, check_kind
from adaptssr_plugin.seeding import stream_seed

C_GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

Features = Callable[[np.ndarray], Any]
"""Maps rows ``(n,)`` of a task to their features ``(n, k)``, dense or sparse."""


@dataclass(frozen=True)
class BaselineResult:
    """The result of a baseline or a linear reading: the task's metric on test and validation rows, in [0, 1].

    ``C`` is the chosen inverse strength of the L2 penalty (None if there is none to choose), ``seconds`` the
    wall-clock time, including features and search.
    """

    test: float
    valid: float
    C: float | None
    seconds: float


def logistic_regression(
    task: ProfileTask,
    split: TaskSplit,
    features: Features,
    C_grid: Sequence[float] = C_GRID,  # noqa: N803 - scikit-learn's name
) -> BaselineResult:
    """Fit multinomial logistic regression on the training rows' features; choose C on validation rows.

    The weights carry an L2 penalty; its inverse strength C is the value of ``C_grid`` with the smallest cross-entropy
    on the validation rows (ties: the smaller C). Accuracies of few rows are too coarse to choose by. Nothing is random.

    Args:
        task: what to predict, and the metric.
        split: ``task.split(seed)``, or :func:`fewer_labels` of it.
        features: of the task's rows.
        C_grid: the values of C to try, meant for features of a mean squared length of about 1.

    Raises:
        InputError: training rows of one class only, or no value of C.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # which comes with scikit-learn

    check_kind("task", task, ProfileTask, "a ProfileTask")
    check_kind("split", split, TaskSplit, "a TaskSplit")
    start = time.perf_counter()
    if len(np.unique(split.train.labels)) < 2:
        raise InputError(f"labels: expected at least two classes among the training rows of {task.name}")
    train, valid, test = (features(part.rows) for part in split)
    best: tuple[float, float, np.ndarray, Any] | None = None
    with threadpool_limits(1, "blas"):  # several threads for such small products wait for one another
        for c in sorted(C_grid):
            # Some hundred steps are enough on real corpora; the limit only has to be larger.
            model = LogisticRegression(C=c, max_iter=100_000).fit(train, split.train.labels)
            scores = _class_scores(model, valid, len(task.classes))
            loss = _cross_entropy(scores, split.valid.labels)
            if best is None or loss < best[0]:
                best = (loss, c, scores, model)
    if best is None:
        raise InputError("C_grid: expected at least one value, got none")
    _, c, scores, model = best
    value = task.metric(scores, split.valid.labels)
    result = task.metric(_class_scores(model, test, len(task.classes)), split.test.labels)
    return BaselineResult(result, value, c, time.perf_counter() - start)


def standardised(vectors: Features, rows: np.ndarray) -> Features:
    """Scale every component to mean 0 and variance 1/k over ``rows``: k numbers have squared length 1 on average.

    TF-IDF rows have that length, so one grid of C fits both. A component without spread becomes 0.

    Args:
        vectors: ``(n, k)`` dense vectors of rows.
        rows: the users whose mean and deviation count: training rows, whether or not their labels are used.
    """
    known = np.asarray(vectors(rows), dtype=np.float64)
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    scale = np.where(deviation > 1e-12 * np.abs(known).max(axis=0), deviation, np.inf) * np.sqrt(known.shape[1])
    return lambda wanted: (np.asarray(vectors(wanted), dtype=np.float64) - mean) / scale


def fewer_labels(split: TaskSplit, n_labels: int, seed: int) -> TaskSplit:
    """Keep the labels of ``n_labels`` training rows and of a third as many validation rows, the shares of 6:2:2.

    Rows are taken in an order that depends only on the seed, so that larger sets contain the smaller ones. If the first
    ones are all of one class, further rows are taken until there is another class. The test rows do not change.

    Args:
        split: of the task.
        n_labels: training rows to keep; all of them if there are no more.
        seed: of the order.
    """
    check_count("n_labels", n_labels)

    def kept(name: str, part: LabelledRows, count: int) -> LabelledRows:
        order = np.random.default_rng(stream_seed(seed, f"labels {name}")).permutation(len(part.rows))
        another = int(np.argmax(part.labels[order] != part.labels[order[0]]))
        order = order[: max(count, another + 1)]
        return LabelledRows(part.rows[order], part.labels[order])

    valid = kept("valid", split.valid, -(-n_labels // 3))
    return TaskSplit(kept("train", split.train, n_labels), valid, split.test)


def _cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of ``scores`` ``(N, n_classes)`` over rows whose class was among the training rows."""
    from scipy.special import logsumexp

    own = scores[np.arange(len(labels)), labels]
    known = np.isfinite(own)  # no penalty changes a class that the model has never seen
    return float((logsumexp(scores[known], axis=1) - own[known]).mean()) if known.any() else 0.0


def _class_scores(model: Any, features: Any, n_classes: int) -> np.ndarray:
    """Scores ``(N, n_classes)`` of a fitted classifier; -inf for a class that was not in its training rows."""
    decision = model.decision_function(features)
    if decision.ndim == 1:  # two classes: the logit of the second against the first
        decision = np.stack([-decision / 2, decision / 2], axis=1)
    scores = np.full((len(decision), n_classes), -np.inf)
    scores[:, model.classes_] = decision
    return scores
