"""Downstream tasks of a user model: splits, heads, metrics, baselines and significance tests."""

from adaptssr_plugin.downstream.baselines import (
    RankingBaselineResult,
    lsa_logistic_regression,
    lsa_vectors,
    majority,
    popularity,
    tfidf_logistic_regression,
)
from adaptssr_plugin.downstream.heads import MLPHead
from adaptssr_plugin.downstream.linear import BaselineResult, fewer_labels, logistic_regression, standardised
from adaptssr_plugin.downstream.metrics import accuracy, auc
from adaptssr_plugin.downstream.ranking import (
    RANKING_METRICS,
    hit_at,
    ndcg_at,
    ranking_metrics,
    reciprocal_rank,
    target_ranks,
)
from adaptssr_plugin.downstream.reidentification import (
    plain_reidentification,
    reidentification_metrics,
    reidentification_ranks,
    reidentify,
)
from adaptssr_plugin.downstream.significance import Summary, paired, relative_improvement, summarise, welch
from adaptssr_plugin.downstream.splits import Split, split_rows
from adaptssr_plugin.downstream.tasks.base import LabelledRows, Task, TaskSplit
from adaptssr_plugin.downstream.tasks.cold import ColdRecommendationTask
from adaptssr_plugin.downstream.tasks.cold_files import ColdRows, cold_task, read_cold_rows, write_cold_rows
from adaptssr_plugin.downstream.tasks.conversion import conversion_task
from adaptssr_plugin.downstream.tasks.profile import ProfileTask
from adaptssr_plugin.downstream.tasks.two_domain import TwoDomains, two_domains

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
