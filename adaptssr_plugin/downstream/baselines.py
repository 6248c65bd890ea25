"""The baselines in the tables: the majority class, TF-IDF and LSA, or the most popular items.

None of them uses an encoder. Word counts see the same input as an encoder, as a bag: a pre-trained user model that does
not beat them has learned nothing from the order of behaviours. Latent semantic analysis also learns from other users.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from ..corpus.svd_items import item_counts
from ..errors import check_count, check_kind
from .linear import C_GRID, BaselineResult, Features, logistic_regression, standardised
from .ranking import Ties, ranking_metrics, ranks_of
from .tasks.base import LabelledRows, TaskSplit
from .tasks.cold import ColdRecommendationTask
from .tasks.positives import Positives
from .tasks.profile import ProfileTask

if TYPE_CHECKING:
    from adaptssr_plugin.corpus.behaviours import BehaviourCorpus


@dataclass(frozen=True)
class RankingBaselineResult:
    """The result of a baseline of cold recommendation: metrics by name, fractions in [0, 1], and wall-clock time."""

    test: dict[str, float]
    valid: dict[str, float]
    seconds: float


def popularity(task: ColdRecommendationTask, split: TaskSplit, ties: Ties = "pessimistic") -> RankingBaselineResult:
    """Recommend the most frequent targets of the training pairs to all users, except the user's other positives.

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
        # All rows share one order, so only the user's own positives have to be looked up; the target is one of them.
        rows, labels = known.pairs(torch.from_numpy(users[part.rows]))
        off = torch.zeros(2, len(own), dtype=torch.int64)
        others = counts[labels]
        off.scatter_add_(1, rows.expand(2, -1), torch.stack([others > own[rows], others == own[rows]]).long())
        return ranking_metrics(ranks_of(above - off[0], beside - off[1], ties))

    valid, test = measured(split.valid), measured(split.test)
    return RankingBaselineResult(test, valid, time.perf_counter() - start)


def majority(task: ProfileTask, split: TaskSplit) -> BaselineResult:
    """Always predict the most frequent class of the training rows (ties: the first such class).

    The accuracy is the class's share; the AUC is 1/2, since all rows get the same scores.
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
    C_grid: Sequence[float] = C_GRID,  # noqa: N803 - scikit-learn's name
) -> BaselineResult:
    """TF-IDF of a user's last ``max_len`` items, and :func:`logistic_regression` on it.

    Args:
        corpus: the behaviours; the task's rows are its rows.
        task: what to predict, and the metric.
        split: ``task.split(seed)``.
        max_len: the number of newest items that count, as for the encoder in the table.
        C_grid: the values of C to try.

    Raises:
        InputError: training rows of one class only, rows that the corpus lacks, or a ``max_len`` below 1.
    """
    _check(task, split)
    return logistic_regression(task, split, tfidf_features(corpus, split.train.rows, max_len), C_grid)


def lsa_logistic_regression(
    corpus: "BehaviourCorpus",
    task: ProfileTask,
    split: TaskSplit,
    max_len: int,
    dim: int = 64,
    C_grid: Sequence[float] = C_GRID,  # noqa: N803 - scikit-learn's name
) -> BaselineResult:
    """Standardised :func:`lsa_vectors`, and :func:`logistic_regression` on them; arguments and errors as there."""
    _check(task, split)
    vectors = lsa_vectors(corpus, max_len, dim)
    return logistic_regression(task, split, standardised(vectors.__getitem__, split.train.rows), C_grid)


def tfidf_features(corpus: "BehaviourCorpus", rows: np.ndarray, max_len: int) -> Features:
    """TF-IDF of the newest ``max_len`` items, sparse ``(n, n_items)``, with document frequencies of ``rows``.

    A user is a bag of items: counts, weighted by the smoothed inverse document frequency, scaled to length 1
    (scikit-learn's ``TfidfTransformer``).
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    weighting = TfidfTransformer().fit(item_counts(corpus, rows, max_len))
    return lambda wanted: weighting.transform(item_counts(corpus, wanted, max_len))


def lsa_vectors(corpus: "BehaviourCorpus", max_len: int, dim: int = 64) -> npt.NDArray[np.float64]:
    """Latent semantic analysis (Deerwester et al., 1990): ``(U, dim)`` float64, a vector for every user of the corpus.

    :func:`tfidf_features` of the newest ``max_len`` items, and scikit-learn's ``TruncatedSVD`` of them with a fixed
    seed. Both are fitted on the inputs of all users of the corpus, as a pre-training is, without labels.

    Args:
        corpus: the behaviours.
        max_len: as for :func:`tfidf_features`.
        dim: components; fewer if there are fewer users or items.
    """
    from sklearn.decomposition import TruncatedSVD

    check_count("dim", dim)
    everybody = np.arange(len(corpus))
    weighted = tfidf_features(corpus, everybody, max_len)(everybody)
    vectors: npt.NDArray[np.float64] = TruncatedSVD(min(dim, *weighted.shape), random_state=0).fit_transform(weighted)
    return vectors


def _check(task: object, split: object) -> None:
    check_kind("task", task, ProfileTask, "a ProfileTask")
    check_kind("split", split, TaskSplit, "a TaskSplit")
