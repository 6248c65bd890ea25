"""Splits, heads, metrics and profile tasks."""

import numpy as np
import pytest
import torch

from adaptssr_plugin.downstream import MLPHead, ProfileTask, accuracy, auc, split_rows
from adaptssr_plugin.errors import InputError


@pytest.mark.parametrize("n", [5, 7, 10, 943, 11_376])
def test_split_covers_every_row_once_in_the_stated_sizes(n):
    split = split_rows(n, seed=3)
    assert [len(part) for part in split[:2]] == [6 * n // 10, 2 * n // 10]
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in split)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(n))


def test_split_depends_on_its_seed_alone():
    np.random.seed(0)  # noqa: NPY002 - the global state is what must not matter
    first = split_rows(100, seed=1)
    np.random.seed(1)  # noqa: NPY002
    assert all(map(np.array_equal, first, split_rows(100, seed=np.int64(1))))
    assert not np.array_equal(first.test, split_rows(100, seed=2).test)
    # Every row can land in every part.
    tested = np.unique(np.concatenate([split_rows(20, seed).test for seed in range(40)]))
    assert np.array_equal(tested, np.arange(20))


def test_split_sizes_are_not_one_short_from_rounding():
    assert 0.29 * 100 < 29
    assert len(split_rows(100, 0, (0.29, 0.29, 0.42)).train) == 29


@pytest.mark.parametrize("ratios", [(0.5, 0.5, 0.0), (0.6, 0.2, 0.3), (0.8, 0.2)])
def test_split_refuses_shares_that_do_not_add_up(ratios):
    with pytest.raises(InputError, match="ratios: expected three shares"):
        split_rows(100, 0, ratios)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_split_refuses_an_empty_part(n):
    with pytest.raises(InputError, match=f"n_rows: .*got {n}$"):
        split_rows(n, 0)


def test_head_is_linear_relu_linear_from_the_specified_start():
    head = MLPHead(200, 300, hidden=250, generator=torch.Generator().manual_seed(0))
    for layer in (head.hidden, head.output):
        assert abs(layer.weight.mean().item()) < 5e-4
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not layer.bias.any()
    user = torch.randn(3, 5, 200)
    expected = (user @ head.hidden.weight.T).clamp(min=0) @ head.output.weight.T
    torch.testing.assert_close(head(user), expected)
    again = MLPHead(200, 300, hidden=250, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head.output.weight, again.output.weight)


def test_head_has_64_hidden_units_by_default_and_refuses_none():
    assert MLPHead(16, 7).hidden.weight.shape == (64, 16)
    with pytest.raises(InputError, match="n_outputs: expected a positive integer, got 0"):
        MLPHead(16, 0)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_accuracy_by_hand(convert):
    scores = convert([[0.1, 0.2, 0.0], [3.0, -1.0, 2.0], [-np.inf, -5.0, -4.0], [1.0, 1.0, 0.0]])
    assert accuracy(scores, convert([1, 2, 2, 0])) == 0.75  # the last row ties: the first class is chosen
    assert accuracy(scores, convert([1, 2, 2, 1])) == 0.5


def test_auc_is_that_of_the_logit_difference_with_half_a_point_for_ties():
    # Differences 2, 1, 1, 0 for labels 1, 1, 0, 0: of four pairs three are right and one ties.
    scores = torch.tensor([[0.0, 2.0], [5.0, 6.0], [-1.0, 0.0], [9.0, 9.0]], dtype=torch.bfloat16)
    assert auc(scores, torch.tensor([1, 1, 0, 0])) == 0.875
    assert auc(np.zeros((6, 2)), np.array([0, 1, 1, 1, 0, 1])) == 0.5


def test_auc_agrees_with_counting_pairs():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, (60, 2)).astype(float), rng.integers(0, 2, 60)
    gap = scores[:, 1] - scores[:, 0]
    against = gap[labels == 1][:, None] - gap[labels == 0]
    assert auc(scores, labels) == pytest.approx(((against > 0) + 0.5 * (against == 0)).mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "scores", "labels", "message"),
    [
        (accuracy, np.zeros((3, 2)), np.zeros(2, int), r"labels: expected shape \(3,\) as scores, got \(2,\)"),
        (accuracy, np.zeros(3), np.zeros(3, int), r"scores: expected shape \(N, C\)"),
        (accuracy, np.zeros((0, 2)), np.zeros(0, int), r"scores: expected shape \(N, C\) with at least one row"),
        (accuracy, np.zeros((2, 2)), np.array([0, 2]), r"labels: expected integers in \[0, 2\), got 0 to 2"),
        (accuracy, np.zeros((2, 2)), np.array([0.0, 1.0]), "labels: expected integers, got float64"),
        (accuracy, np.array([[0.0, np.nan]]), np.array([0]), "scores: expected numbers, got NaN in 1 row"),
        (auc, np.zeros((2, 2)), np.array([1, 1]), "labels: expected both classes for AUC, got only class 1"),
        (auc, np.zeros((2, 3)), np.array([0, 1]), r"scores: expected two logits per row for AUC, got shape \(2, 3\)"),
        (auc, np.array([[0, np.inf], [0, 0]]), np.array([0, 1]), "scores: expected finite logits"),
    ],
)
def test_metrics_name_what_does_not_fit(metric, scores, labels, message):
    with pytest.raises(InputError, match=message):
        metric(scores, labels)


def test_two_classes_make_a_binary_task_unless_told_otherwise():
    binary = ProfileTask.from_labels("gender", [0, 1, 2], [0, 1, 1], ["F", "M"])
    assert (binary.kind, binary.metric_name) == ("binary", "AUC")
    told = ProfileTask.from_labels("gender", [0, 1, 2], [0, 1, 1], ["F", "M"], kind="multiclass")
    assert (told.kind, told.metric_name) == ("multiclass", "accuracy")
    scores, labels = np.array([[2.0, 0.0], [1.0, 0.0], [0.5, 0.0]]), binary.labels
    assert (binary.metric(scores, labels), told.metric(scores, labels)) == (1.0, pytest.approx(1 / 3))


def test_task_splits_rows_and_labels_together_and_alike_for_tasks_of_one_size():
    rows, labels = np.arange(50) * 2, np.arange(50) % 3
    first = ProfileTask.from_labels("age", rows, labels, "abc").split(7)
    second = ProfileTask.from_labels("job", rows, labels[::-1], "xyz").split(7)
    assert [len(part.rows) for part in first] == [30, 10, 10]
    for mine, other in zip(first, second, strict=True):
        assert np.array_equal(mine.labels, mine.rows // 2 % 3)
        assert np.array_equal(mine.rows, other.rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0], "ab"), "labels: expected 2, one for each row, got 1"),
        (([1, 1], [0, 1], "ab"), "rows: expected each row of the corpus at most once in task t"),
        (([-1, 1], [0, 1], "ab"), "rows: expected each row"),
        (([0, 1], [0, 2], "ab"), r"labels: expected integers in \[0, 2\) in task t, got 0 to 2"),
        (([0, 1], [0, 0], "a"), "classes: expected at least 2 in multiclass task t, got 1"),
        (([0, 1], [0, 1], "abc", "binary"), "classes: expected 2 in binary task t, got 3"),
        (([0, 1], [0, 1], "aa"), "classes: expected different names"),
        (([0, 1], [0.0, 1.0], "ab"), "labels: expected a list of integers, got float64"),
        (([0, 1], [0, 1], "ab", "ranking"), "kind: expected multiclass or binary, got ranking"),
    ],
)
def test_task_names_what_does_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        ProfileTask.from_labels("t", *arguments)


def test_task_refuses_scores_of_another_width():
    task = ProfileTask.from_labels("age", [0, 1, 2], [0, 1, 2], "abc")
    with pytest.raises(InputError, match=r"scores: expected shape \(N, 3\) for task age, got \(3, 2\)"):
        task.metric(torch.zeros(3, 2), task.labels)
