"""Rows of a table: fine-tuning from a pre-trained model and from scratch over seeds, beside plain baselines."""

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from ..corpus import BehaviourCorpus
from ..downstream import ColdRecommendationTask, ProfileTask, Task, majority, popularity, tfidf_logistic_regression
from ..downstream.ranking import Ties
from ..encoders import UserEncoder
from ..methods import Recipe
from ..progress import Progress, Show
from ..recbole import Config
from ..recbole.user_model.finetune import fine_tune
from .records import MAJORITY, POPULARITY, TFIDF, Record, tuned_name


@dataclass(frozen=True)
class Start:
    """What fine-tuning starts from: a row of the table.

    Attributes:
        method: name of the row.
        encoder: pre-trained weights; None for a random initialisation.
        recipe: its fine-tuning options hold.
        pretrain_epoch: the epoch of pre-training that the weights are of.
    """

    method: str
    encoder: UserEncoder | None
    recipe: Recipe
    pretrain_epoch: int | None = None


def baseline_records(dataset: str, corpus: BehaviourCorpus, tasks: Sequence[Task], recipe: Recipe) -> Iterator[Record]:
    """Yield values of what needs no encoder, for tasks that have such a baseline.

    Those are the majority class and TF-IDF with logistic regression for profile tasks, the most popular items for cold
    recommendation.

    Args:
        dataset: name for the records.
        corpus: the behaviours that were pre-trained on, for tasks without inputs of their own.
        tasks: what to predict.
        recipe: its splits, lengths and ties.
    """
    for task in tasks:
        for method, valid, test, seconds in _baselines(corpus, task, recipe):
            blank = Record(dataset, task.name, method, None, None, None, None, None, "", "", 0.0, seconds=seconds)
            yield from _of_metrics(blank, valid, test)


def _baselines(
    corpus: BehaviourCorpus, task: Task, recipe: Recipe
) -> Iterator[tuple[str, Mapping[str, float], Mapping[str, float], float]]:
    """Yield each baseline's name, validation and test values by metric, and seconds."""
    split, name = task.parts(recipe), task.metric_name
    if isinstance(task, ProfileTask):
        inputs = corpus if task.inputs is None else task.inputs
        of_words = tfidf_logistic_regression(inputs, task, split, recipe.max_len)
        for method, result in ((MAJORITY, majority(task, split)), (TFIDF, of_words)):
            yield method, {name: result.valid}, {name: result.test}, result.seconds
    elif isinstance(task, ColdRecommendationTask):
        popular = popularity(task, split, cast(Ties, recipe.ft_ties))
        yield POPULARITY, popular.valid, popular.test, popular.seconds


def _of_metrics(blank: Record, valid: Mapping[str, float], test: Mapping[str, float]) -> Iterator[Record]:
    """Fill in a record for every metric, first of validation, then of test."""
    for split, values in (("valid", valid), ("test", test)):
        for metric, value in values.items():
            yield replace(blank, metric=metric, split=split, value=value)


def fine_tuning_records(
    dataset: str,
    config: Config,
    corpus: BehaviourCorpus,
    tasks: Sequence[Task],
    starts: Sequence[Start],
    seeds: Sequence[int],
    show_progress: Show = True,
) -> Iterator[Record]:
    """Yield every validation and test value of every task, start and seed, run in the order of the rows within a seed.

    Args:
        dataset: name for the records.
        config: of the dataset.
        corpus: the behaviours.
        tasks: what to predict.
        starts: rows of the table.
        seeds: of initialisation, dropout and order; the split is the recipe's.
        show_progress: True: a bar over all runs on a terminal, elsewhere one line per run; ``"last"``: only the last
            line; False: nothing.
    """
    cells = [(task, start, seed) for seed in seeds for task in tasks for start in starts]
    with Progress(len(cells), "fine-tuning", show_progress, unit="run", reports=True) as bar:
        for number, (task, start, seed) in enumerate(cells, start=1):
            bar.note(name := f"{task.name}, {start.method}, seed {seed}")
            result = fine_tune(config, corpus, task, start.recipe, seed, start.encoder)
            method = start.method
            if start.recipe.ft_tune != "all":
                method = tuned_name(method, start.recipe.ft_tune, result.trained)
            blank = Record(
                dataset, task.name, method, start.recipe.preset, start.recipe.warm_start, None, None, seed, "", "", 0.0,
                result.best_epoch, start.pretrain_epoch, result.seconds, peak_memory_mb(),
            )  # fmt: skip
            yield from _of_metrics(blank, result.valid_metrics, result.test_metrics)
            bar.update(1)
            bar.line(f"run {number}/{len(cells)}, {name}, {result.seconds:.1f} s, {bar.to_go()} to go")


def test_counts(tasks: Sequence[ProfileTask], split_seed: int) -> dict[str, Sequence[int]]:
    """Count the test users of every class, by profile task."""
    return {
        task.name: np.bincount(task.split(split_seed).test.labels, minlength=len(task.classes)).tolist()
        for task in tasks
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1.0 if sys.platform == "darwin" else 1024.0) / 1e6
