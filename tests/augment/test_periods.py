"""`PeriodPair` and `DropoutPair`: what the views hold, how they are distributed, what they promise."""

from collections import Counter

import augment_reference as reference
import pytest
import torch
from augment_reference import ROWS, assert_uniform, generator

from adaptssr_plugin.augment import DropoutPair, ItemCrop, ItemReorder, PeriodPair, RandomPair
from adaptssr_plugin.augment.periods import ByLength
from adaptssr_plugin.errors import InputError

DRAWS = 12_000
PAIRS = {"disjoint": PeriodPair(), "independent": PeriodPair(period="independent"), "dropout": DropoutPair()}
each_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


def starts_of(n, ratio=0.4, period="disjoint", seed=0):
    """Where the two windows start, for many rows ``0 .. n - 1`` (items 1 .. n), and their common length."""
    item_seq, lengths = reference.padded([range(1, n + 1)] * DRAWS, width=n + 3)
    first, second, operators = PeriodPair(ratio, period)(item_seq, lengths, generator(seed))
    assert operators is None
    length = int(first.item_seq_len[0])
    for view in (first, second):
        assert (view.item_seq_len == length).all()
        window = view.item_seq[:, :1] + torch.arange(n + 3)
        assert torch.equal(view.item_seq, torch.where(torch.arange(n + 3) < length, window, 0))
    return (first.item_seq[:, 0] - 1).tolist(), (second.item_seq[:, 0] - 1).tolist(), length


# By hand, for a ratio of 0.4: the length of a window, and whether two of them are disjoint.
TABLE = {1: (1, False), 2: (1, True), 3: (2, False), 5: (2, True), 10: (4, True), 55: (22, True), 100: (40, True)}


@pytest.mark.parametrize(("n", "length", "disjoint"), [(n, *row) for n, row in TABLE.items()], ids=TABLE)
def test_windows_are_disjoint_where_two_fit(n, length, disjoint):
    first, second, got = starts_of(n, seed=n)
    assert got == length
    apart = [abs(a - b) >= length for a, b in zip(first, second, strict=True)]
    assert all(apart) if disjoint else not any(apart)
    assert {min(first), min(second)} == {0}
    assert {max(first), max(second)} == {n - length}


@pytest.mark.parametrize(("n", "ratio"), [(2, 0.4), (5, 0.4), (7, 0.4), (7, 0.1), (10, 0.5), (10, 0.4), (9, 0.3)])
def test_every_disjoint_pair_in_either_order_is_as_likely(n, ratio):
    first, second, length = starts_of(n, ratio, seed=n)
    places = range(n - length + 1)
    kinds = [(a, b) for a in places for b in places if abs(a - b) >= length]
    assert_uniform(Counter(zip(first, second, strict=True)), kinds)


@pytest.mark.parametrize(
    ("n", "ratio", "period"),
    [
        (6, 0.4, "independent"),
        (3, 0.4, "disjoint"),
        (7, 0.6, "disjoint"),
        (4, 1.0, "disjoint"),
        (1, 0.4, "independent"),
    ],
)
def test_every_pair_of_independent_windows_is_as_likely(n, ratio, period):
    first, second, length = starts_of(n, ratio, period, seed=n)
    places = range(n - length + 1)
    assert_uniform(Counter(zip(first, second, strict=True)), [(a, b) for a in places for b in places])


@pytest.mark.parametrize("period", ["disjoint", "independent"])
@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_every_length_and_ratio(ratio, period):
    item_seq, lengths = reference.padded([range(1, n + 1) for n in range(1, 61)])
    for view in PeriodPair(ratio, period)(item_seq, lengths, generator())[:2]:
        assert view.item_seq_len.tolist() == [max(1, reference.up(ratio, n)) for n in range(1, 61)]
        assert torch.equal(view.item_seq > 0, torch.arange(60) < view.item_seq_len[:, None])


def test_one_window_alone_is_a_crop():
    """Both draw their length alike, so a sweep over ratios means the same in both."""
    item_seq, lengths = reference.padded(ROWS)
    crop = ItemCrop(0.3)(item_seq, lengths, generator())
    first, _, _ = PeriodPair(0.3)(item_seq, lengths, generator())
    assert torch.equal(first.item_seq_len, crop.item_seq_len)


def test_dropout_views_are_the_row_itself():
    item_seq, lengths = reference.padded(ROWS, width=40)
    first, second, operators = DropoutPair()(item_seq, lengths)
    assert operators is None
    for view in (first, second):
        assert torch.equal(view.item_seq, item_seq)
        assert torch.equal(view.item_seq_len, lengths)


@each_pair
@pytest.mark.parametrize(("shape", "n"), [((1, 1), 1), ((3, 1), 1), ((1, 9), 9), ((2, 9), 1)])
def test_odd_shapes(pair, shape, n):
    item_seq = torch.where(torch.arange(shape[1]) < n, 5, 0).expand(shape)
    for view in pair(item_seq, torch.full((shape[0],), n), generator())[:2]:
        assert view.item_seq.shape == shape
        assert torch.equal(view.item_seq, torch.where(torch.arange(shape[1]) < view.item_seq_len[:, None], 5, 0))


@pytest.mark.parametrize("ratio", [0, -0.1, 1.5, True, "0.4", float("nan")])
def test_wrong_ratio(ratio):
    with pytest.raises(InputError, match=r"^ratio: expected a number in \(0, 1\], got "):
        PeriodPair(ratio)


@pytest.mark.parametrize("period", ["timestamp", None, True, ["disjoint"]])
def test_wrong_period(period):
    with pytest.raises(InputError, match=r"^period: expected 'disjoint' or 'independent', got "):
        PeriodPair(period=period)


def test_arguments_are_shown():
    assert repr(PeriodPair(0.2)) == "PeriodPair(ratio=0.2, period='disjoint')"


# --- by length -----------------------------------------------------------------------------------------------------


def test_long_rows_get_the_views_of_one_pair_and_short_ones_those_of_the_other():
    item_seq, lengths = reference.padded(ROWS, width=40)
    long, short = PeriodPair(), RandomPair([ItemCrop(0.6), ItemReorder(0.5)])
    pair = ByLength(long, short, 6)(item_seq, lengths, generator(3))
    drawn = generator(3)
    expected = [views(item_seq, lengths, drawn) for views in (long, short)]
    for view, of_long, of_short in zip(pair[:2], expected[0][:2], expected[1][:2], strict=True):
        for row, n in enumerate(map(len, ROWS)):
            source = of_long if n >= 6 else of_short
            assert torch.equal(view.item_seq[row], source.item_seq[row])
            assert view.item_seq_len[row] == source.item_seq_len[row]
    assert pair.operators is None
    assert {n >= 6 for n in map(len, ROWS)} == {True, False}


def test_no_row_is_too_short_to_be_short():
    with pytest.raises(InputError, match="least: expected a positive integer, got 0"):
        ByLength(PeriodPair(), PeriodPair(), 0)
