"""Ranks of targets against a literal loop, the mask of other positives, ties, and what is made of ranks."""

import math

import pytest
import torch

from adaptssr_plugin.downstream.ranking import hit_at, ndcg_at, reciprocal_rank, target_ranks
from adaptssr_plugin.errors import InputError


def literal_rank(scores, target, known, ties):
    rivals = [score for item, score in enumerate(scores) if item != target and item not in known]
    better = sum(score > scores[target] for score in rivals)
    equal = sum(score == scores[target] for score in rivals)
    return 1 + better + {"pessimistic": equal, "optimistic": 0, "mean": equal / 2}[ties]


def case(seed, rows=40, items=23, levels=7):
    """Scores with many ties, targets, and each row's positives, the target and repetitions among them."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, levels, (rows, items), generator=generator).float()
    targets = torch.randint(0, items, (rows,), generator=generator)
    known = [
        [int(targets[row]), *torch.randint(0, items, (5,), generator=generator).tolist()] * (1 + row % 2)
        for row in range(rows)
    ]
    pairs = [(row, item) for row in range(rows) for item in known[row]]
    known_rows, known_items = (torch.tensor(column) for column in zip(*pairs, strict=True))
    return scores, targets, known, known_rows, known_items


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "mean"])
@pytest.mark.parametrize("seed", range(3))
def test_ranks_equal_the_literal_loop(seed, ties):
    scores, targets, known, known_rows, known_items = case(seed)
    before = scores.clone()
    ranks = target_ranks(scores, targets, known_rows, known_items, ties)
    expected = [
        literal_rank(scores[row].tolist(), int(targets[row]), set(known[row]), ties) for row in range(len(scores))
    ]
    assert ranks.tolist() == expected
    assert torch.equal(scores, before)


def test_the_mask_of_a_row_keeps_its_target():
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]]).repeat(3, 1)
    targets = torch.tensor([1, 2, 4])  # three rows of one user, whose positives are 0, 1, 2 and 4
    rows = torch.arange(3).repeat_interleave(4)
    items = torch.tensor([0, 1, 2, 4]).repeat(3)
    assert target_ranks(scores, targets, rows, items).tolist() == [1, 1, 2]
    nothing = torch.empty(0, dtype=torch.int64)
    assert target_ranks(scores, targets, nothing, nothing).tolist() == [2, 3, 5]


def test_metrics_of_ranks():
    ranks = torch.tensor([1.0, 2.0, 10.0, 11.0, 2.5])
    expected = [1.0, 1 / math.log2(3), 1 / math.log2(11), 0.0, 1 / math.log2(3.5)]
    torch.testing.assert_close(ndcg_at(ranks), torch.tensor(expected, dtype=torch.float64))
    assert ndcg_at(ranks, 1).tolist() == [1, 0, 0, 0, 0]
    assert hit_at(ranks, 2).tolist() == [1, 1, 0, 0, 0]
    torch.testing.assert_close(reciprocal_rank(ranks), 1 / ranks.double())


def test_wrong_calls():
    scores, two, none = torch.zeros(2, 3), torch.tensor([0, 1]), torch.empty(0, dtype=torch.int64)
    with pytest.raises(InputError, match=r"^targets: expected shape \(R,\) beside .*, got \(1,\) and \(2, 3\)$"):
        target_ranks(scores, two[:1], none, none)
    with pytest.raises(InputError, match=r"^known_items: expected shape \(2,\) as known_rows, got \(0,\)$"):
        target_ranks(scores, two, two, none)
    with pytest.raises(InputError, match=r"^ties: expected pessimistic, optimistic or mean, got 'x'$"):
        target_ranks(scores, two, none, none, "x")
