"""Downstream tasks of a user model: splits, heads, metrics, baselines and significance (spec 4)."""

from adaptssr_plugin.downstream.baselines import BaselineResult, majority, tfidf_logistic_regression
from adaptssr_plugin.downstream.heads import MLPHead
from adaptssr_plugin.downstream.metrics import accuracy, auc
from adaptssr_plugin.downstream.ranking import hit_at, ndcg_at, reciprocal_rank, target_ranks
from adaptssr_plugin.downstream.significance import Summary, paired, relative_improvement, summarise, welch
from adaptssr_plugin.downstream.splits import Split, split_rows
from adaptssr_plugin.downstream.tasks import LabelledRows, ProfileTask, TaskSplit

__all__ = [
    "BaselineResult",
    "LabelledRows",
    "MLPHead",
    "ProfileTask",
    "Split",
    "Summary",
    "TaskSplit",
    "accuracy",
    "auc",
    "hit_at",
    "majority",
    "ndcg_at",
    "paired",
    "reciprocal_rank",
    "relative_improvement",
    "split_rows",
    "summarise",
    "target_ranks",
    "tfidf_logistic_regression",
    "welch",
]
