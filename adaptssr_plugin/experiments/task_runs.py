"""Rows of a table: fine-tuning from a pre-trained model and from scratch over seeds, beside plain baselines."""

import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from ..corpus import BehaviourCorpus
from ..downstream import (
    BaselineResult,
    ColdRecommendationTask,
    ProfileTask,
    RankingBaselineResult,
    Task,
    TaskSplit,
    fewer_labels,
    logistic_regression,
    lsa_vectors,
    majority,
    popularity,
    standardised,
)
from ..downstream.baselines import tfidf_features
from ..downstream.ranking import Ties
from ..encoders import UserEncoder
from ..methods import Recipe
from ..progress import Progress, Show
from ..recbole import Config
from ..recbole.user_model.finetune import fine_tune, frozen_vectors
from .records import LSA, MAJORITY, POPULARITY, TFIDF, Record, tuned_name


@dataclass(frozen=True)
class Start:
    """The start of fine-tuning: a row of the table."""

    method: str  # the row's name
    encoder: UserEncoder | None  # None: a random initialisation
    recipe: Recipe  # has the fine-tuning options
    pretrain_epoch: int | None = None  # from which the encoder's weights are


def baseline_records(
    dataset: str,
    corpus: BehaviourCorpus,
    tasks: Sequence[Task],
    recipe: Recipe,
    splits: Sequence[int] | None = None,
    labels: Sequence[int | None] = (None,),
    methods: Sequence[str] = (MAJORITY, TFIDF, LSA, POPULARITY),
) -> Iterator[Record]:
    """Yield values of baselines without an encoder, for tasks that have them.

    These are the majority class, TF-IDF and LSA (``recipe.dim`` components), both with logistic regression, for
    profile tasks, and the most popular items for cold recommendation.

    ``corpus`` has the behaviours of the pre-training, for tasks without separate inputs. ``splits`` are seeds; None:
    the recipe's. ``labels`` are numbers of training labels, used one after another (:func:`fewer_labels`); None: all.
    """
    for task in tasks:
        inputs = corpus if task.inputs is None else task.inputs
        latent = (
            lsa_vectors(inputs, recipe.max_len, recipe.dim)
            if isinstance(task, ProfileTask) and LSA in methods
            else None
        )
        for split_seed in [recipe.split_seed] if splits is None else splits:
            split = task.parts(replace(recipe, split_seed=split_seed))
            readers: dict[str, Callable[[TaskSplit], BaselineResult | RankingBaselineResult]] = {}
            if isinstance(task, ProfileTask):
                readers[MAJORITY] = partial(majority, task)
                if TFIDF in methods:
                    words = tfidf_features(inputs, split.train.rows, recipe.max_len)
                    readers[TFIDF] = partial(logistic_regression, task, features=words)
                if latent is not None:
                    standard = standardised(latent.__getitem__, split.train.rows)
                    readers[LSA] = partial(logistic_regression, task, features=standard)
            elif isinstance(task, ColdRecommendationTask):
                readers[POPULARITY] = partial(popularity, task, ties=cast(Ties, recipe.ft_ties))
            for n_labels in labels:
                few = split if n_labels is None else fewer_labels(split, n_labels, split_seed)
                for method in [name for name in readers if name in methods]:
                    done = readers[method](few)
                    values = (done.valid, done.test)
                    valid, test = ({task.metric_name: v} if isinstance(v, float) else v for v in values)
                    blank = Record(
                        dataset, task.name, method, None, None, None, None, None, "", "", 0.0, seconds=done.seconds,
                        split_seed=split_seed, labels=n_labels,
                    )  # fmt: skip
                    yield from of_metrics(blank, valid, test)


def of_metrics(blank: Record, valid: Mapping[str, float], test: Mapping[str, float]) -> Iterator[Record]:
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
    splits: Sequence[int] | None = None,
    labels: Sequence[int | None] = (None,),
) -> Iterator[Record]:
    """Yield every validation and test value of every task, start and seed, run in the order of the rows within a seed.

    Linear reading of a pre-trained encoder is deterministic, so it runs with the first seed only.

    ``starts`` are the rows of the table, ``seeds`` those of initialisation, dropout and order; ``splits`` and
    ``labels`` are as for :func:`baseline_records`. ``show_progress``: True: a bar over all runs on a terminal,
    elsewhere one line per run; ``"last"``: only the last line; False: nothing.
    """
    cells = [
        (task, start, seed)
        for seed in seeds
        for task in tasks
        for start in starts
        if seed == seeds[0] or start.encoder is None or start.recipe.ft_tune != "linear"
    ]
    within = [(one, n_labels) for one in splits or (None,) for n_labels in labels]
    total = len(cells) * len(within)
    number = 0
    with Progress(total, "fine-tuning", show_progress, unit="run", reports=True) as bar:
        for task, start, seed in cells:
            bar.note(name := f"{task.name}, {start.method}, seed {seed}")
            frozen = None
            if start.recipe.ft_tune == "linear":
                frozen = frozen_vectors(config, corpus, task, start.recipe, seed, start.encoder)
            for split_seed, n_labels in within:
                recipe = start.recipe if split_seed is None else replace(start.recipe, split_seed=split_seed)
                result = fine_tune(config, corpus, task, recipe, seed, start.encoder, n_labels, frozen)
                method = start.method
                if recipe.ft_tune not in ("all", "linear"):
                    method = tuned_name(method, recipe.ft_tune, result.trained)
                blank = Record(
                    dataset, task.name, method, recipe.preset, recipe.warm_start, None, None, seed, "", "", 0.0,
                    result.best_epoch, start.pretrain_epoch, result.seconds, peak_memory_mb(), recipe.split_seed,
                    n_labels,
                )  # fmt: skip
                yield from of_metrics(blank, result.valid_metrics, result.test_metrics)
                bar.update(1)
                bar.line(f"run {(number := number + 1)}/{total}, {name}, {result.seconds:.1f} s, {bar.to_go()} to go")


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
