"""The majority class, and TF-IDF with logistic regression."""

import numpy as np
import pytest

from adaptssr_plugin.corpus.behaviours import BehaviourCorpus
from adaptssr_plugin.corpus.svd_items import item_counts
from adaptssr_plugin.downstream import LabelledRows, ProfileTask, TaskSplit, majority, tfidf_logistic_regression
from adaptssr_plugin.errors import InputError


def corpus_of(*histories, n_items=None):
    return BehaviourCorpus.from_lists(histories, n_items)


def split_of(train, valid, test):
    return TaskSplit(*(LabelledRows(np.array(rows), np.array(labels)) for rows, labels in (train, valid, test)))


def test_counts_are_those_of_the_newest_items():
    corpus = corpus_of([1, 2, 2, 3], [4], [3, 1, 3, 3, 1], n_items=6)
    counts = item_counts(corpus, np.array([2, 0, 1]), max_len=3)
    expected = [[0, 1, 0, 2, 0, 0], [0, 0, 2, 1, 0, 0], [0, 0, 0, 0, 1, 0]]
    assert np.array_equal(counts.toarray(), expected)
    assert np.array_equal(item_counts(corpus, np.arange(3), max_len=99).sum(axis=1).ravel(), [[4, 1, 5]])
    assert item_counts(corpus, np.array([], int), max_len=3).shape == (0, 6)
    with pytest.raises(InputError, match="max_len: expected a positive integer, got 0"):
        item_counts(corpus, np.arange(3), max_len=0)
    with pytest.raises(InputError, match="rows: expected rows from 0 to 2, got 3"):
        item_counts(corpus, np.array([0, 3]), max_len=3)


def test_majority_is_the_training_class_whatever_the_other_parts_hold():
    task = ProfileTask.from_labels("age", range(10), [2, 2, 1, 0, 0, 0, 0, 2, 2, 1], "abc")
    split = split_of(([0, 1, 2], [2, 2, 1]), ([3, 4], [0, 2]), ([5, 6, 7, 8], [0, 2, 2, 2]))
    result = majority(task, split)
    assert (result.test, result.valid, result.C) == (0.75, 0.5, None)


def test_majority_tells_nobody_apart_under_auc():
    task = ProfileTask.from_labels("gender", range(10), [0, 1] * 5, "ab")
    split = split_of(([0, 1], [0, 1]), ([2, 3], [0, 1]), ([4, 5, 7], [0, 1, 1]))
    assert majority(task, split).test == 0.5


def telling_corpus(n_users, n_classes, seed):
    """Users whose newest item tells their class, after items that tell nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_users) % n_classes
    histories = [[*rng.integers(10, 20, rng.integers(1, 9)), 1 + label] for label in labels]
    return corpus_of(*histories, n_items=20), labels


@pytest.mark.parametrize("n_classes", [2, 3])
def test_what_an_item_tells_is_found(n_classes):
    corpus, labels = telling_corpus(120, n_classes, seed=0)
    task = ProfileTask.from_labels("t", np.arange(120), labels, "abc"[:n_classes])
    result = tfidf_logistic_regression(corpus, task, task.split(0), max_len=100)
    assert result.valid == 1.0
    assert result.test > 0.9
    assert 0 < result.seconds < 60


def test_items_beyond_max_len_are_not_seen():
    corpus, labels = telling_corpus(200, 2, seed=1)
    told = corpus_of(*([*corpus.history(row)[::-1], 10] for row in range(200)), n_items=20)
    task = ProfileTask.from_labels("t", np.arange(200), labels, "ab", kind="multiclass")
    split = task.split(0)
    assert tfidf_logistic_regression(told, task, split, max_len=100).test > 0.95
    assert tfidf_logistic_regression(told, task, split, max_len=1).test == majority(task, split).test


def test_c_is_the_smallest_of_several_that_are_equally_good_on_validation_rows():
    corpus = corpus_of([1], [1], [2], [2], [3], [1], n_items=4)
    task = ProfileTask.from_labels("t", range(6), [0, 0, 1, 1, 2, 0], "abc")
    split = split_of(([0, 1, 2, 3], [0, 0, 1, 1]), ([4], [2]), ([5], [0]))  # of a class that no C can predict
    assert tfidf_logistic_regression(corpus, task, split, 5, C_grid=(1e4, 1e-2, 1e-4, 1.0)).C == 1e-4


def test_a_class_without_training_rows_is_never_answered():
    corpus = corpus_of([1], [1], [2], [2], [1], [2], [3], [1], n_items=4)
    task = ProfileTask.from_labels("t", range(8), [0, 0, 2, 2, 0, 2, 1, 0], "abc")
    split = split_of(([0, 1, 2, 3], [0, 0, 2, 2]), ([4, 5], [0, 2]), ([6, 7, 5], [1, 0, 2]))
    result = tfidf_logistic_regression(corpus, task, split, max_len=5)
    assert (result.valid, result.test) == (1.0, pytest.approx(2 / 3))


def test_one_training_class_is_refused():
    corpus = corpus_of([1], [2], [1], [2])
    task = ProfileTask.from_labels("t", range(4), [0, 0, 1, 0], "ab")
    split = split_of(([0, 1], [0, 0]), ([2], [1]), ([3], [0]))
    with pytest.raises(InputError, match="labels: expected at least two classes among the training rows of t"):
        tfidf_logistic_regression(corpus, task, split, max_len=5)


def test_nothing_is_fitted_on_test_rows():
    rng = np.random.default_rng(3)
    histories = [rng.integers(1, 30, rng.integers(1, 20)) for _ in range(200)]
    task = ProfileTask.from_labels("t", np.arange(200), rng.integers(0, 2, 200), "ab")
    split = task.split(0)
    before = tfidf_logistic_regression(corpus_of(*histories, n_items=30), task, split, 100)
    for row in split.test.rows:
        histories[row] = np.full(15, 7)
    after = tfidf_logistic_regression(corpus_of(*histories, n_items=30), task, split, 100)
    assert (after.valid, after.C) == (before.valid, before.C)
    assert after.test == 0.5 != before.test
