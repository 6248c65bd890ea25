"""Downstream tasks of a user model: splits, heads, metrics, baselines and significance (spec 4)."""

from adaptssr_plugin.downstream.baselines import BaselineResult, majority, tfidf_logistic_regression
from adaptssr_plugin.downstream.heads import MLPHead
from adaptssr_plugin.downstream.metrics import accuracy, auc
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
    "majority",
    "paired",
    "relative_improvement",
    "split_rows",
    "summarise",
    "tfidf_logistic_regression",
    "welch",
]
