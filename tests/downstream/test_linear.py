"""Linear reading on real users, against scikit-learn spelt out; how labels are made fewer, and what may see them."""

from pathlib import Path

import numpy as np
import pytest
import recbole
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from adaptssr_plugin.corpus import BehaviourCorpus
from adaptssr_plugin.downstream import (
    LabelledRows,
    ProfileTask,
    TaskSplit,
    fewer_labels,
    logistic_regression,
    lsa_logistic_regression,
    lsa_vectors,
    standardised,
    tfidf_logistic_regression,
)
from adaptssr_plugin.downstream.linear import C_GRID
from adaptssr_plugin.downstream.splits import split_seeds
from adaptssr_plugin.errors import InputError

N_USERS, MAX_LEN, DIM = 240, 20, 8


@pytest.fixture(scope="module")
def users():
    """Histories of ml-100k's first users, oldest first, and their gender and a part of their occupations."""
    folder = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"
    lines = [line.split("\t") for line in (folder / "ml-100k.inter").read_text().splitlines()[1:]]
    histories = [[] for _ in range(N_USERS)]
    for user, item, _, _when in sorted(lines, key=lambda line: (float(line[3]), int(line[1]))):
        if int(user) <= N_USERS:
            histories[int(user) - 1].append(int(item))
    profiles = {int(one[0]): one for one in map(str.split, (folder / "ml-100k.user").read_text().splitlines()[1:])}
    tasks = []
    for name, column, classes in (("gender", 2, "FM"), ("job", 3, ("student", "other", "educator"))):
        known = [
            (row, classes.index(value)) for row in range(N_USERS) if (value := profiles[row + 1][column]) in classes
        ]
        tasks.append(ProfileTask.from_labels(name, *zip(*known, strict=True), classes))
    return histories, tasks


def bag_of(histories):
    """TF-IDF as its documentation writes it: idf = ln((1 + n) / (1 + df)) + 1, rows of length 1."""
    counts = np.zeros((len(histories), 1683))
    for row, history in enumerate(histories):
        for item in history[-MAX_LEN:]:
            counts[row, item] += 1
    return counts


def weighted(counts, known):
    rows = counts * (np.log((1 + len(known)) / (1 + (known > 0).sum(axis=0))) + 1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def literal(task, split, features):
    """Try every C, keep the first with the smallest cross-entropy of validation rows: (C, valid, test)."""
    tried = []
    for c in C_GRID:
        model = LogisticRegression(C=c, max_iter=100_000).fit(features[split.train.rows], split.train.labels)
        if len(task.classes) == 2:
            values = [roc_auc_score(part.labels, model.decision_function(features[part.rows])) for part in split[1:]]
        else:
            values = [accuracy_score(part.labels, model.predict(features[part.rows])) for part in split[1:]]
        loss = log_loss(split.valid.labels, model.predict_proba(features[split.valid.rows]), labels=model.classes_)
        tried.append((loss, c, *values))
    return min(tried)[1:]


def features_of(name, histories, split):
    counts = bag_of(histories)
    if name == "tfidf":
        return weighted(counts, counts[split.train.rows])
    latent = TruncatedSVD(DIM, random_state=0).fit_transform(weighted(counts, counts))
    known = latent[split.train.rows]
    return (latent - known.mean(axis=0)) / known.std(axis=0) / DIM**0.5


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ["tfidf", "lsa"])
def test_it_is_scikit_learn_spelt_out(users, name, which):
    histories, tasks = users
    task, corpus = tasks[which], BehaviourCorpus.from_lists(histories, 1683)
    split = task.split(3)
    baseline = {"tfidf": tfidf_logistic_regression, "lsa": lsa_logistic_regression}[name]
    done = baseline(corpus, task, split, MAX_LEN, **({"dim": DIM} if name == "lsa" else {}))
    assert (done.C, done.valid, done.test) == pytest.approx(literal(task, split, features_of(name, histories, split)))


@pytest.mark.parametrize("name", ["tfidf", "lsa"])
def test_labels_of_test_rows_change_nothing_but_the_test_metric(users, name):
    histories, (task, _) = users
    split = task.split(0)
    other = split._replace(test=LabelledRows(split.test.rows, np.random.default_rng(0).permutation(split.test.labels)))
    corpus = BehaviourCorpus.from_lists(histories, 1683)
    baseline = {"tfidf": tfidf_logistic_regression, "lsa": lsa_logistic_regression}[name]
    first, second = (baseline(corpus, task, one, MAX_LEN) for one in (split, other))
    assert (first.C, first.valid) == (second.C, second.valid)
    assert first.test != second.test


def test_lsa_keeps_what_there_is_of_few_items():
    vectors = lsa_vectors(BehaviourCorpus.from_lists([[1, 2], [2], [3, 1], [3]], 4), max_len=5, dim=64)
    assert vectors.shape == (4, 4)
    with pytest.raises(InputError, match="dim: expected a positive integer, got 0"):
        lsa_vectors(BehaviourCorpus.from_lists([[1]], 2), 5, 0)


def test_standardised_vectors_have_length_one_on_average_over_the_rows_that_count():
    random = np.random.default_rng(0)
    vectors = np.append(random.normal(3, [1, 10, 0.1], (50, 3)), np.full((50, 1), 0.3), axis=1).astype(np.float32)
    rows = np.arange(10, 30)
    made = standardised(vectors.__getitem__, rows)
    assert (made(rows) ** 2).sum(axis=1).mean() == pytest.approx(3 / 4)  # the fourth number says nothing
    assert made(rows).mean(axis=0) == pytest.approx(0, abs=1e-7)
    assert not made(np.arange(50))[:, 3].any()
    elsewhere = vectors.copy()
    elsewhere[30:] = 99
    assert np.array_equal(standardised(elsewhere.__getitem__, rows)(rows), made(rows))


def test_fewer_labels_are_nested_and_keep_the_shares():
    labels = np.arange(100) % 3
    task = ProfileTask.from_labels("t", np.arange(100) + 7, labels, "abc")
    split = task.split(1)
    small, large, all_of_it = (fewer_labels(split, n, seed=5) for n in (7, 30, 999))
    assert [len(part.rows) for part in small] == [7, 3, 20]
    assert [len(part.rows) for part in large] == [30, 10, 20]
    for part in ("train", "valid"):
        inner, outer, whole = (set(getattr(one, part).rows) for one in (small, large, all_of_it))
        assert inner < outer < whole == set(getattr(split, part).rows)
    for rows, found in zip(large.train.rows, large.train.labels, strict=True):
        assert found == labels[rows - 7]
    assert all(np.array_equal(a, b) for a, b in zip(large.test, split.test, strict=True))
    assert set(fewer_labels(split, 30, seed=6).train.rows) != set(large.train.rows)
    with pytest.raises(InputError, match="n_labels: expected a positive integer, got 0"):
        fewer_labels(split, 0, 1)


def test_few_labels_always_have_two_classes():
    labels = np.zeros(100, int)
    labels[[4, 50, 70]] = 1
    part = LabelledRows(np.arange(100), labels)
    for seed in range(5):
        few = fewer_labels(TaskSplit(part, part, part), 2, seed)
        assert set(few.train.labels) == set(few.valid.labels) == {0, 1}
        assert few.train.labels[:-1].sum() == 0 or len(few.train.rows) == 2


def test_no_value_of_c():
    task = ProfileTask.from_labels("t", range(10), [0, 1] * 5, "ab")
    with pytest.raises(InputError, match="C_grid: expected at least one value, got none"):
        logistic_regression(task, task.split(0), np.eye(10).__getitem__, ())


def test_the_first_of_repeated_splits_is_the_seeds_own():
    assert list(split_seeds(2023, 3)) == [2023, 2024, 2025]
    with pytest.raises(InputError, match="n_splits: expected a positive integer, got 0"):
        split_seeds(1, 0)
