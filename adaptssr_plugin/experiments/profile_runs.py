"""Rows of a table: fine-tuning from a pre-trained model and from scratch over seeds, beside two plain baselines."""

import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..corpus import BehaviourCorpus
from ..downstream import ProfileTask, majority, tfidf_logistic_regression
from ..encoders import UserEncoder
from ..methods import Recipe
from ..progress import progress_bar
from ..recbole import Config
from ..recbole.finetune import fine_tune
from .records import Record, tuned_name

MAJORITY, TFIDF = "Majority class", "TF-IDF + LR"


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


def baseline_records(
    dataset: str, corpus: BehaviourCorpus, tasks: Sequence[ProfileTask], max_len: int, split_seed: int
) -> Iterator[Record]:
    """Yield the test values of the majority class and of TF-IDF with logistic regression."""
    for task in tasks:
        split = task.split(split_seed)
        results = {MAJORITY: majority(task, split), TFIDF: tfidf_logistic_regression(corpus, task, split, max_len)}
        for method, result in results.items():
            record = Record(
                dataset, task.name, method, None, None, None, None, None, task.metric_name, "test", result.test,
                seconds=result.seconds,
            )  # fmt: skip
            yield replace(record, split="valid", value=result.valid)
            yield record


def fine_tuning_records(
    dataset: str,
    config: Config,
    corpus: BehaviourCorpus,
    tasks: Sequence[ProfileTask],
    starts: Sequence[Start],
    seeds: Sequence[int],
    show_progress: bool = True,
) -> Iterator[Record]:
    """Yield validation and test values of every task, start and seed; a seed's order of runs is that of the rows.

    Args:
        dataset: name for the records.
        config: of the dataset.
        corpus: the behaviours.
        tasks: what to predict.
        starts: rows of the table.
        seeds: of initialisation, dropout and order; the split is the recipe's.
        show_progress: one progress bar over all runs.
    """
    cells = [(task, start, seed) for seed in seeds for task in tasks for start in starts]
    with progress_bar(len(cells), "fine-tuning", show_progress, unit="run") as bar:
        for task, start, seed in cells:
            bar.set_postfix_str(f"{task.name}, {start.method}, seed {seed}")
            result = fine_tune(config, corpus, task, start.recipe, seed, start.encoder)
            method = start.method
            if start.recipe.ft_tune != "all":
                method = tuned_name(method, start.recipe.ft_tune, result.trained)
            record = Record(
                dataset, task.name, method, start.recipe.preset, start.recipe.warm_start, None, None, seed,
                task.metric_name, "test", result.test, result.best_epoch, start.pretrain_epoch, result.seconds,
                peak_memory_mb(),
            )  # fmt: skip
            yield replace(record, split="valid", value=result.valid)
            yield record
            bar.update(1)


def test_counts(tasks: Sequence[ProfileTask], split_seed: int) -> dict[str, Sequence[int]]:
    """Count the test users of every class, by task."""
    return {
        task.name: np.bincount(task.split(split_seed).test.labels, minlength=len(task.classes)).tolist()
        for task in tasks
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1.0 if sys.platform == "darwin" else 1024.0) / 1e6
