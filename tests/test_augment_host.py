"""What the CPU does with tables, arrays and parts of groups is what tensor operations do everywhere else."""

from collections import Counter

import augment_reference as reference
import pytest
import torch

from adaptssr_plugin.augment import ItemCrop, ItemMask, ItemReorder, Operator, RandomChoice, RandomPair, Sequences
from adaptssr_plugin.augment import choice as choice_module

N_ITEMS = 500


def three(ratio=0.6):
    return {
        "mask": ItemMask(ratio, mask_id=N_ITEMS),
        "crop": ItemCrop(ratio),
        "reorder": ItemReorder(ratio),
    }


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(rows, width, seed=0):
    lengths = torch.randint(1, width + 1, (rows,), generator=generator(seed))
    item_seq = torch.randint(1, N_ITEMS, (rows, width), generator=generator(seed))
    return item_seq * (torch.arange(width) < lengths[:, None]), lengths


@pytest.fixture
def elsewhere(monkeypatch):
    """Give a switch from the host's way to that of any other device."""

    def switch():
        for module in ("draws", "choice"):
            monkeypatch.setattr(f"adaptssr_plugin.augment.{module}.on_host", lambda tensor: False)

    return switch


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(choice_module, "_PART", 1 << 6)
    monkeypatch.setattr(choice_module, "_STEP", 2)


@pytest.mark.parametrize("name", three())
@pytest.mark.parametrize("width", [1, 2, 31, 64, 100, 129, 256, 257])
@pytest.mark.parametrize("ratio", [1e-12, 0.4, 1.0])
def test_same_seed_gives_the_same_rows_on_the_host_and_elsewhere(elsewhere, name, width, ratio):
    """256 is where the tables end."""
    item_seq, lengths = batch(23, width)
    lengths[0], lengths[1] = 1, width
    operator = three(ratio)[name]
    here = operator(item_seq, lengths, generator(width))
    elsewhere()
    there = operator(item_seq, lengths, generator(width))
    assert torch.equal(here.item_seq, there.item_seq)
    assert torch.equal(here.item_seq_len, there.item_seq_len)


def test_masked_positions_and_masked_rows_agree_at_every_width():
    operator = three()["mask"]
    for width in (5, 128, 256, 300):
        item_seq, lengths = batch(11, width)
        order, m = operator.positions(lengths, width, generator(3))
        first = torch.arange(width) < m[:, None]
        expected = torch.zeros_like(first).scatter_(1, order, first)
        assert torch.equal(operator(item_seq, lengths, generator(3)).item_seq == N_ITEMS, expected)


def test_results_are_contiguous_and_no_table_is_handed_out():
    item_seq, lengths = batch(9, 20)
    for operator in three().values():
        first = operator(item_seq.T.contiguous().T, lengths, generator(1))
        kept = [tensor.clone() for tensor in first]
        assert first.item_seq.is_contiguous()
        first.item_seq.fill_(-7)
        if first.item_seq_len is not lengths:
            first.item_seq_len.fill_(-7)
        again = operator(item_seq, lengths, generator(1))
        assert torch.equal(again.item_seq, kept[0])
        assert torch.equal(again.item_seq_len, kept[1])


class Width(Operator):
    """Writes over every item how wide a batch it was handed."""

    def __init__(self, keeps_padding, min_length=1):
        super().__init__()
        self.keeps_padding, self.min_length = keeps_padding, min_length

    def forward(self, item_seq, item_seq_len, generator=None):
        return Sequences(torch.where(item_seq > 0, item_seq.shape[1], 0), item_seq_len)


def test_rows_are_handed_over_by_length_to_operators_that_keep_padding_alone(small_parts):
    item_seq, lengths = batch(200, 40)
    covered = torch.arange(40) < lengths[:, None]
    whole = RandomChoice([Width(False)])(item_seq, lengths, generator())
    assert torch.equal(whole.item_seq, 40 * covered)
    narrow, narrow_len = RandomChoice([Width(True)])(item_seq, lengths, generator())
    assert torch.equal(narrow > 0, covered)
    assert torch.equal(narrow_len, lengths)
    widths = narrow[:, 0]
    assert bool(((widths >= lengths) & (widths <= 40)).all())
    assert widths.double().mean() < 0.6 * 40
    assert not Operator.keeps_padding


@pytest.mark.parametrize("rows", [1, 2, 63, 500])
@pytest.mark.parametrize("distinct", [False, True])
def test_a_pair_made_in_parts_holds_what_its_operators_promise(small_parts, rows, distinct):
    lengths = torch.randint(1, 34, (rows,), generator=generator(rows))
    place = torch.arange(33)
    item_seq = torch.where(place < lengths[:, None], place + 1, 0)
    before = item_seq.clone(), lengths.clone()
    pair = RandomPair([ItemMask(0.6, mask_id=N_ITEMS), ItemCrop(0.4), ItemReorder(0.6)], distinct=distinct)
    first, second, drawn = pair(item_seq, lengths, generator(1))
    assert torch.equal(item_seq, before[0])
    assert torch.equal(lengths, before[1])
    for view, operators in ((first, drawn[:, 0]), (second, drawn[:, 1])):
        for row, length, n, operator in zip(*(t.tolist() for t in (*view, lengths, operators)), strict=True):
            assert not any(row[length:])
            row = row[:length]
            if operator == 0:
                assert row.count(N_ITEMS) == reference.masked_count(0.6, n)
                assert all(item in (place, N_ITEMS) for place, item in enumerate(row, start=1))
            elif operator == 1:
                assert row == list(range(row[0], row[0] + reference.up(0.4, n)))
            elif operator == 2:
                assert sorted(row) == list(range(1, n + 1))
            else:
                assert row == list(range(1, n + 1))


def test_parts_change_no_distribution(small_parts):
    """Rows of 2, 3 and 20 items mixed: every outcome of the rows of 3 as often as it should be."""
    item_seq, lengths = reference.padded([range(1, 3), range(1, 4), range(1, 21)] * 8000)
    view = RandomPair([ItemMask(0.6, mask_id=99), ItemReorder(0.6)])(item_seq, lengths, generator(4)).second
    seen = Counter(map(tuple, view.item_seq[1::3, :3].tolist()))
    expected = {(1, 99, 99): 1, (99, 2, 99): 1, (99, 99, 3): 1, (1, 2, 3): 1.5, (2, 1, 3): 0.75, (1, 3, 2): 0.75}
    assert set(seen) == set(expected)
    for outcome, share in expected.items():
        assert seen[outcome] / 8000 == pytest.approx(share / 6, abs=0.015)


@pytest.mark.parametrize("width", [1, 3, 8])
def test_an_operator_for_rows_longer_than_the_batch_is_never_drawn(width):
    item_seq, lengths = batch(50, width)
    first, _, drawn = RandomPair([Width(True, min_length=width + 1), Width(False, 3)])(item_seq, lengths, generator())
    assert torch.equal(drawn[:, 0], torch.where(lengths >= 3, 1, -1))
    assert torch.equal(first.item_seq, torch.where(lengths[:, None] >= 3, width * (item_seq > 0), item_seq))


def test_an_empty_batch_has_an_empty_pair():
    pair = RandomPair(list(three().values()))
    empty = torch.zeros(0, 7, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    first, second, drawn = pair(*empty)
    assert (first.item_seq.shape, second.item_seq_len.shape, drawn.shape) == ((0, 7), (0,), (0, 2))
