"""Downstream tasks of a user model: splits, heads, metrics, baselines and significance tests."""

from .baselines import (
    RankingBaselineResult,
    lsa_logistic_regression,
    lsa_vectors,
    majority,
    popularity,
    tfidf_logistic_regression,
)
from .heads import MLPHead
from .linear import BaselineResult, fewer_labels, logistic_regression, standardised
from .metrics import accuracy, auc
from .ranking import RANKING_METRICS, hit_at, ndcg_at, ranking_metrics, reciprocal_rank, target_ranks
from .reidentification import plain_reidentification, reidentification_metrics, reidentification_ranks, reidentify
from .significance import Summary, paired, relative_improvement, summarise, welch
from .splits import Split, split_rows
from .tasks.base import LabelledRows, Task, TaskSplit
from .tasks.cold import ColdRecommendationTask
from .tasks.cold_files import ColdRows, cold_task, read_cold_rows, write_cold_rows
from .tasks.conversion import conversion_task
from .tasks.profile import ProfileTask
from .tasks.two_domain import TwoDomains, two_domains

__all__ = [
    "RANKING_METRICS",
    "BaselineResult",
    "ColdRecommendationTask",
    "ColdRows",
    "LabelledRows",
    "MLPHead",
    "ProfileTask",
    "RankingBaselineResult",
    "Split",
    "Summary",
    "Task",
    "TaskSplit",
    "TwoDomains",
    "accuracy",
    "auc",
    "cold_task",
    "conversion_task",
    "fewer_labels",
    "hit_at",
    "logistic_regression",
    "lsa_logistic_regression",
    "lsa_vectors",
    "majority",
    "ndcg_at",
    "paired",
    "plain_reidentification",
    "popularity",
    "ranking_metrics",
    "read_cold_rows",
    "reciprocal_rank",
    "reidentification_metrics",
    "reidentification_ranks",
    "reidentify",
    "relative_improvement",
    "split_rows",
    "standardised",
    "summarise",
    "target_ranks",
    "tfidf_logistic_regression",
    "two_domains",
    "welch",
    "write_cold_rows",
]
