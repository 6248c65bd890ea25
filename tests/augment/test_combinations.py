"""RandomChoice, RandomPair and Compose: who gets which operator, row by row."""

import augment_reference as reference
import pytest
import torch
from augment_reference import generator

from adaptssr_plugin.augment import (
    Compose,
    ItemCrop,
    ItemMask,
    ItemReorder,
    Operator,
    RandomChoice,
    RandomPair,
    Sequences,
)

ROWS = 6000


class Stamp(Operator):
    """Adds its stamp to every item, so that a row shows who has been there."""

    def __init__(self, stamp, min_length=1):
        super().__init__()
        self.stamp, self.min_length = stamp, min_length

    def forward(self, item_seq, item_seq_len, generator=None):
        return Sequences(torch.where(item_seq > 0, item_seq + self.stamp, 0), item_seq_len)


@pytest.fixture(params=["cpu", "as on a gpu"])
def path(request, monkeypatch):
    """Groups of rows on the CPU, all rows through every operator elsewhere: both must do the same."""
    if request.param != "cpu":
        monkeypatch.setattr("adaptssr_plugin.augment.operators.choice.on_cpu", lambda tensor: False)


def shares(values, kinds):
    return torch.stack([(values == kind).double().mean() for kind in kinds])


@pytest.mark.usefixtures("path")
def test_choice_is_uniform_over_what_is_offered_to_the_row():
    choice = RandomChoice([Stamp(100), Stamp(200, min_length=2), Stamp(300, min_length=4)])
    item_seq, lengths = reference.padded([[1], [1, 1, 1], [1] * 5] * ROWS)
    stamps = choice(item_seq, lengths, generator()).item_seq[:, 0] - 1
    kinds = [100, 200, 300]
    for n, expected in ((1, [1, 0, 0]), (3, [0.5, 0.5, 0]), (5, [1 / 3, 1 / 3, 1 / 3])):
        torch.testing.assert_close(
            shares(stamps[lengths == n], kinds), torch.tensor(expected).double(), atol=0.025, rtol=0
        )


@pytest.mark.usefixtures("path")
def test_row_to_which_nothing_is_offered_stays_as_it_is():
    choice = RandomChoice([Stamp(100, min_length=3), Stamp(200, min_length=4)])
    assert choice.min_length == 3
    item_seq, lengths = reference.padded([[1, 2], [1, 2, 3]] * 50)
    out = choice(item_seq, lengths, generator()).item_seq
    assert torch.equal(out[0::2], item_seq[0::2])
    assert bool((out[1::2, 0] == 101).all())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("distinct", [False, True])
def test_both_paths_give_the_same_rows(monkeypatch, seed, distinct):
    pair = RandomPair([Stamp(100), Stamp(200, min_length=2), Stamp(300, min_length=4)], distinct=distinct)
    item_seq, lengths = reference.padded([[1], [1, 2, 3], [5] * 5, [1, 2]] * 13)
    here = pair(item_seq, lengths, generator(seed))
    monkeypatch.setattr("adaptssr_plugin.augment.operators.choice.on_cpu", lambda tensor: False)
    elsewhere = pair(item_seq, lengths, generator(seed))
    for mine, other in zip(here[:2], elsewhere[:2], strict=True):
        assert torch.equal(mine.item_seq, other.item_seq)
        assert torch.equal(mine.item_seq_len, other.item_seq_len)
    assert torch.equal(here.operators, elsewhere.operators)


@pytest.mark.usefixtures("path")
def test_pair_says_which_operator_made_each_view():
    pair = RandomPair([Stamp(100), Stamp(200, min_length=2), Stamp(300, min_length=4)])
    item_seq, lengths = reference.padded([[1], [1, 1, 1], [1] * 5] * 100)
    first, second, operators = pair(item_seq, lengths, generator())
    assert operators.shape == (300, 2)
    assert torch.equal(first.item_seq[:, 0], 101 + 100 * operators[:, 0])
    assert torch.equal(second.item_seq[:, 0], 101 + 100 * operators[:, 1])


def test_the_two_draws_of_a_pair_are_independent():
    pair = RandomPair([Stamp(100), Stamp(200), Stamp(300)])
    item_seq, lengths = reference.padded([[1]] * ROWS * 3)
    drawn = pair(item_seq, lengths, generator()).operators
    torch.testing.assert_close(
        shares(drawn[:, 0] * 3 + drawn[:, 1], range(9)), torch.full((9,), 1 / 9).double(), atol=0.015, rtol=0
    )


@pytest.mark.usefixtures("path")
def test_distinct_never_draws_the_same_operator_twice():
    pair = RandomPair([Stamp(100), Stamp(200), Stamp(300, min_length=2)], distinct=True)
    item_seq, lengths = reference.padded([[1], [1, 1]] * ROWS)
    drawn = pair(item_seq, lengths, generator()).operators
    assert not (drawn[:, 0] == drawn[:, 1]).any()
    kinds = [first * 3 + second for first in range(3) for second in range(3)]
    long = shares((drawn[:, 0] * 3 + drawn[:, 1])[lengths == 2], kinds).view(3, 3)
    expected = (1 - torch.eye(3).double()) / 6
    torch.testing.assert_close(long, expected, atol=0.02, rtol=0)
    short = shares((drawn[:, 0] * 3 + drawn[:, 1])[lengths == 1], kinds).view(3, 3)
    expected = torch.tensor([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]]).double()
    torch.testing.assert_close(short, expected, atol=0.025, rtol=0)


@pytest.mark.usefixtures("path")
def test_distinct_leaves_the_second_view_alone_where_one_operator_is_offered():
    pair = RandomPair([Stamp(100, min_length=2), Stamp(200)], distinct=True)
    item_seq, lengths = reference.padded([[1], [1, 1]])
    first, second, operators = pair(item_seq, lengths, generator())
    assert operators[0].tolist() == [1, -1]
    assert first.item_seq[0].tolist() == [201, 0]
    assert second.item_seq[0].tolist() == [1, 0]
    assert sorted(operators[1].tolist()) == [0, 1]


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.usefixtures("path")
def test_pair_offers_nothing_to_rows_that_are_too_short(distinct):
    pair = RandomPair([Stamp(100, min_length=2), Stamp(200, min_length=2)], distinct=distinct)
    item_seq, lengths = reference.padded([[1], [1, 1]])
    first, second, operators = pair(item_seq, lengths, generator())
    assert operators[0].tolist() == [-1, -1]
    assert first.item_seq[0].tolist() == second.item_seq[0].tolist() == [1, 0]
    assert operators[1].min().item() >= 0


@pytest.mark.parametrize("rows", [0, 1, 2, 63, 500])
@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.usefixtures("path")
def test_a_pair_holds_what_its_operators_promise(rows, distinct):
    lengths = torch.randint(1, 34, (rows,), generator=generator(rows))
    place = torch.arange(33)
    item_seq = torch.where(place < lengths[:, None], place + 1, 0)
    before = item_seq.clone(), lengths.clone()
    pair = RandomPair([ItemMask(0.6, mask_id=99), ItemCrop(0.4), ItemReorder(0.6)], distinct=distinct)
    first, second, drawn = pair(item_seq, lengths, generator(1))
    assert torch.equal(item_seq, before[0])
    assert torch.equal(lengths, before[1])
    assert drawn.shape == (rows, 2)
    for view, operators in ((first, drawn[:, 0]), (second, drawn[:, 1])):
        assert view.item_seq.shape == (rows, 33)
        for row, length, n, operator in zip(*(t.tolist() for t in (*view, lengths, operators)), strict=True):
            assert not any(row[length:])
            row = row[:length]
            if operator == 0:
                assert row.count(99) == reference.masked_count(0.6, n)
                assert all(item in (place, 99) for place, item in enumerate(row, start=1))
            elif operator == 1:
                assert row == list(range(row[0], row[0] + reference.up(0.4, n)))
            elif operator == 2:
                assert sorted(row) == list(range(1, n + 1))
            else:
                assert row == list(range(1, n + 1))


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.usefixtures("path")
def test_an_operator_for_rows_longer_than_the_batch_is_never_drawn(width):
    lengths = torch.arange(50) % width + 1
    item_seq = (torch.arange(width) < lengths[:, None]).long()
    pair = RandomPair([Stamp(100, min_length=width + 1), Stamp(200, min_length=3)])
    first, _, drawn = pair(item_seq, lengths, generator())
    assert torch.equal(drawn[:, 0], torch.where(lengths >= 3, 1, -1))
    assert torch.equal(first.item_seq, torch.where(lengths[:, None] >= 3, 201 * item_seq, item_seq))


def test_one_item_rows_are_cropped_and_reordered_to_themselves():
    pair = RandomPair([ItemMask(mask_id=99), ItemCrop(), ItemReorder()])
    item_seq, lengths = reference.padded([[7]] * ROWS, width=3)
    first, second, operators = pair(item_seq, lengths, generator())
    assert torch.equal(first.item_seq, item_seq)
    assert torch.equal(second.item_seq, item_seq)
    torch.testing.assert_close(shares(operators, range(3)), torch.tensor([0, 0.5, 0.5]).double(), atol=0.025, rtol=0)


def test_compose_applies_in_turn():
    item_seq, lengths = reference.padded([range(1, 101)] * 8)
    out, out_len = Compose([ItemCrop(0.4), ItemMask(0.5, mask_id=999)])(item_seq, lengths, generator())
    assert out_len.tolist() == [40] * 8
    assert (out == 999).sum(1).tolist() == [20] * 8
    swapped, _ = Compose([ItemMask(0.5, mask_id=999), ItemCrop(0.4)])(item_seq, lengths, generator())
    assert len(set((swapped == 999).sum(1).tolist())) > 1


def test_compose_asks_each_operator_again_after_the_row_got_shorter():
    compose = Compose([ItemCrop(0.5), Stamp(100, min_length=3)])
    assert compose.min_length == 1
    item_seq, lengths = reference.padded([range(1, 5), range(1, 7)])
    out, out_len = compose(item_seq, lengths, generator())
    assert out_len.tolist() == [2, 3]
    assert bool((out[0] < 100).all())
    assert bool((out[1, :3] > 100).all())


def test_combinations_nest_and_move_as_modules():
    nested = RandomChoice([Compose([ItemCrop(), ItemReorder()]), RandomChoice([ItemMask(mask_id=99)])])
    item_seq, lengths = reference.padded([range(1, 21)] * 40)
    out, out_len = nested(item_seq, lengths, generator())
    assert set(out_len.tolist()) == {8, 20}
    assert torch.equal((out == 99).sum(1), torch.where(out_len == 20, 12, 0))
    assert [type(module).__name__ for module in nested.to("cpu").modules()].count("ItemCrop") == 1
    assert "ItemMask(ratio=0.6, mask_id=99)" in repr(nested)
