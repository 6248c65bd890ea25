"""`SameTargetPair` against its rule written out row by row; buckets, draws, wrong calls, the provider of a corpus."""

from collections import Counter

import augment_reference as reference
import numpy as np
import pytest
import torch
from augment_reference import assert_uniform, generator
from refusals import refusal_of

from adaptssr_plugin import InfoNCELoss
from adaptssr_plugin.augment import SameTargetPair
from adaptssr_plugin.augment.buckets import contents
from adaptssr_plugin.corpus import BehaviourCorpus, same_target_pair
from adaptssr_plugin.errors import InputError

DRAWS = 8_000
# Key 3: rows 0, 1, 2, 4 and 7, of which 0, 4 and 7 are the same; key 6: rows 3 and 5; key 8: row 6 alone.
ROWS = [[1, 2, 3], [4, 3], [3], [5, 6], [1, 2, 3], [9, 8, 7, 2, 6], [8], [1, 2, 3]]
OPTIONS = {
    "kept": {},
    "dropped": {"drop_last": True},
    "different": {"skip_identical": True},
    "different-dropped": {"drop_last": True, "skip_identical": True},
    "some": {"candidates": torch.tensor([True, True, False, True, True, False, True, False])},
    "none": {"candidates": torch.zeros(8, dtype=torch.bool)},
    "none-dropped": {"drop_last": True, "candidates": torch.zeros(8, dtype=torch.bool)},
    "some-different": {
        "skip_identical": True,
        "candidates": torch.tensor([True, True, False, True, False, False, True, False]),
    },
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def data_of(rows, dtype=torch.int64, key=-1):
    """The ragged arrays of lists of items, the first behind a gap; ``key``: the place of the key item."""
    lengths = torch.tensor([len(row) for row in rows])
    flat = torch.tensor([99] + [item for row in rows for item in row], dtype=dtype)
    return flat, 1 + lengths.cumsum(0) - lengths, lengths, torch.tensor([row[key] for row in rows])


def partners(rows, row, drop_last=False, skip_identical=False, candidates=None):
    """DuoRec's rule: which rows can be drawn for ``row``; itself if there is none."""
    allowed = [
        other
        for other in range(len(rows))
        if other != row
        and rows[other][-1] == rows[row][-1]
        and not (drop_last and (len(rows[other]) == 1 or len(rows[row]) == 1))
        and not (skip_identical and rows[other] == rows[row])
        and (candidates is None or candidates[other])
    ]
    return allowed or [row]


def shown(row, drop_last=False, width=None):
    row = row[:-1] if drop_last and len(row) > 1 else row
    return row[-width:] if width else row


@each_option
def test_every_partner_is_as_likely_and_nobody_else_is_drawn(options):
    pair = SameTargetPair(*data_of(ROWS), **options)
    drawn = pair.draw(torch.arange(len(ROWS)).repeat(DRAWS), generator(1)).view(DRAWS, len(ROWS))
    for row in range(len(ROWS)):
        expected = partners(ROWS, row, **options)
        counts = Counter(drawn[:, row].tolist())
        assert set(counts) == set(expected), f"row {row}"
        assert_uniform(counts, expected)


@pytest.mark.parametrize("negatives", ["all", "hardest"])
def test_collision_mask_empties_correctly(negatives):
    """Rows of one key are no negatives of each other; a row that is left without any is skipped."""
    pair = SameTargetPair(*data_of(ROWS))
    criterion = InfoNCELoss(negatives=negatives, reduction="none")
    z1, z2 = torch.randn(2, 8, 5, generator=generator())

    def loss(rows):
        rows = torch.tensor(rows)
        return criterion(z1[rows], z2[rows], torch.stack([rows, pair.keys_of(rows)], 1))

    assert (loss([0, 1, 2, 4, 7]) == 0).all()
    assert (loss([0, 3, 6]) == criterion(z1[[0, 3, 6]], z2[[0, 3, 6]])).all()
    # Of these, 0 has no negatives but 3 and 5, whichever other rows of its key are there.
    assert torch.equal(loss([0, 3, 5])[0], loss([0, 3, 5, 1, 2, 7])[0])
    assert (loss([0, 3, 5, 1]) > 0).all()


@each_option
@pytest.mark.parametrize("width", [5, 3, 1])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_views_are_the_newest_items_of_the_row_and_of_its_partner(options, width, dtype):
    pair = SameTargetPair(*data_of(ROWS, dtype), **options)
    drop_last = options.get("drop_last", False)
    rows = torch.tensor([5, 0, 6, 3, 2, 2, 7])
    item_seq, lengths = reference.padded([ROWS[row][-width:] for row in rows], width=width)
    for seed in range(5):
        first, second, operators = pair(item_seq, lengths, generator(seed), rows=rows)
        assert operators is None
        drawn = pair.draw(rows, generator(seed))
        own = [shown(ROWS[row][-width:], drop_last) for row in rows]
        other = [
            mine if row == partner else shown(ROWS[partner], drop_last, width)
            for mine, row, partner in zip(own, rows.tolist(), drawn.tolist(), strict=True)
        ]
        for view, expected in ((first, own), (second, other)):
            padded = reference.padded(expected, width=width)
            assert torch.equal(view.item_seq, padded[0])
            assert torch.equal(view.item_seq_len, padded[1])


def test_the_dropped_key_is_in_neither_view():
    rows = [[n, n + 1, 50] for n in range(1, 20)]
    pair = SameTargetPair(*data_of(rows), drop_last=True)
    item_seq, lengths = reference.padded(rows)
    for view in pair(item_seq, lengths, generator(), rows=torch.arange(19))[:2]:
        assert not (view.item_seq == 50).any()
        assert (view.item_seq_len == 2).all()


def test_rows_may_overlap_and_keys_be_any_item():
    """As RecBole's prefixes do: three rows of one history, keyed by the item that follows each."""
    items = torch.tensor([1, 2, 3, 2, 7, 2])
    pair = SameTargetPair(items, torch.tensor([0, 0, 0]), torch.tensor([1, 3, 5]), torch.tensor([2, 2, 2]))
    item_seq, lengths = reference.padded([[1], [1, 2, 3], [1, 2, 3, 2, 7]])
    seen = {0: set(), 1: set(), 2: set()}
    for seed in range(40):
        _, second, _ = pair(item_seq, lengths, generator(seed), rows=torch.arange(3))
        for row in range(3):
            seen[row].add(tuple(second.item_seq[row, : int(second.item_seq_len[row])].tolist()))
    views = [(1,), (1, 2, 3), (1, 2, 3, 2, 7)]
    assert seen == {row: set(views) - {views[row]} for row in range(3)}


@pytest.mark.parametrize("others", [[], [4, 5], [5, 4], [6, 7]], ids=str)
def test_rows_that_are_alike_but_for_their_keys(others):
    """Rows 0 to 3 hold the same item, two under each key; each key may have one row that differs."""
    items = torch.tensor([1, *others])
    starts = torch.tensor([0, 0, 0, 0, 1, 2])[: 4 + len(others)]
    keys = torch.tensor([2, 2, 3, 3, 2, 3])[: len(starts)]
    pair = SameTargetPair(items, starts, torch.ones_like(starts), keys, skip_identical=True)
    drawn = pair.draw(torch.arange(len(starts)).repeat(50), generator()).view(50, -1)
    seen = [set(column.tolist()) for column in drawn.T]
    assert seen == ([{4}, {4}, {5}, {5}, {0, 1}, {2, 3}] if others else [{0}, {1}, {2}, {3}])
    assert pair.n_others.tolist() == ([1, 1, 1, 1, 2, 2] if others else [0, 0, 0, 0])


def test_buckets_of_many_rows():
    rng = np.random.default_rng(0)
    rows = [[*rng.integers(1, 4, rng.integers(1, 4)), rng.integers(1, 40)] for _ in range(400)]
    rows = [[int(item) for item in row] for row in rows]
    for options in ({}, {"skip_identical": True}):
        pair = SameTargetPair(*data_of(rows), **options)
        drawn = pair.draw(torch.arange(400).repeat(200), generator()).view(200, 400)
        for row in range(400):
            assert set(drawn[:, row].tolist()) <= set(partners(rows, row, **options))
        assert pair.n_others.tolist() == [
            len([x for x in partners(rows, row, **options) if x != row]) for row in range(400)
        ]


def test_contents_tell_rows_apart():
    rows = [[1], [1, 1], [2], [1, 2], [2, 1], [1, 2], [1, 2, 1], [2**31 - 1], [1, 1]]
    rows += [[*range(1, 65), *range(65, 0, -1)], [*range(1, 64), 65, 64, *range(65, 0, -1)]]
    numbers = contents(*data_of(rows)[:3]).tolist()
    assert [[a == b for b in numbers] for a in numbers] == [[a == b for b in rows] for a in rows]
    many = torch.arange(1, 100_001)
    every = contents(many.repeat_interleave(2), torch.arange(0, 199_999), torch.full((199_999,), 2))
    assert len(every.unique()) == 199_999


class TestPromises:
    PAIR = SameTargetPair(*data_of(ROWS))
    BATCH = (*reference.padded(ROWS), torch.arange(len(ROWS)))

    def test_keys_of_rows(self):
        assert self.PAIR.keys_of(torch.tensor([5, 0, 0])).tolist() == [6, 3, 3]

    def test_one_row_alone(self):
        pair = SameTargetPair(*data_of([[4, 5]]))
        item_seq, lengths = reference.padded([[4, 5]])
        for view in pair(item_seq, lengths, generator(), rows=torch.tensor([0]))[:2]:
            assert view.item_seq.tolist() == [[4, 5]]

    def test_arguments_are_shown(self):
        assert repr(self.PAIR) == "SameTargetPair(n_rows=8, drop_last=False, skip_identical=False)"


def changed(name, value):
    data = dict(zip(("items", "starts", "lengths", "keys"), data_of(ROWS), strict=True))
    return {**data, name: value(data.get(name))}


WRONG_DATA = [
    ("items", lambda x: x.float(), "items: expected int64 or int32 of shape (n,), got float32 of shape (21,)"),
    ("items", lambda x: x.tolist(), "items: expected a tensor, got list"),
    ("starts", lambda x: x[:, None], "starts: expected int64 of shape (n,), got int64 of shape (8, 1)"),
    ("lengths", lambda x: x.int(), "lengths: expected int64 of shape (n,), got int32 of shape (8,)"),
    ("lengths", lambda x: x[1:], "lengths: expected shape (8,), one per row as starts, got (7,)"),
    ("keys", lambda x: x[:5], "keys: expected shape (8,), one per row as starts, got (5,)"),
    ("keys", lambda x: x - 4, "keys: expected numbers of at least 0, got -1"),
    ("keys", lambda x: x.to("meta"), "keys: expected device cpu as items, got meta"),
    ("lengths", lambda x: x - 1, "lengths: expected numbers of at least 1, got 0"),
    ("starts", lambda x: x - 2, "starts: expected numbers of at least 0, got -1"),
    ("starts", lambda x: x + 1, "lengths: expected rows that end within the 21 items, got one that ends at 22"),
    ("candidates", lambda _: torch.arange(8), "candidates: expected bool of shape (n,), got int64 of shape (8,)"),
    ("candidates", lambda _: torch.ones(3) > 0, "candidates: expected shape (8,), one per row as starts, got (3,)"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG_DATA, ids=range(len(WRONG_DATA)))
def test_wrong_data(name, value, message):
    assert refusal_of(SameTargetPair, **changed(name, value)) == message


def test_no_rows():
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(InputError, match=r"^starts: expected at least one row, got none$"):
        SameTargetPair(none, none, none, none)


def test_dropped_keys_must_be_the_last_items():
    with pytest.raises(InputError, match=r"^keys: expected the last item of every row with drop_last=True"):
        SameTargetPair(*data_of(ROWS, key=0), drop_last=True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 1], "rows: expected a tensor, got list"),
        (torch.arange(3), r"rows: expected shape \(2,\), one per row of item_seq, got \(3,\)"),
        (torch.ones(2), r"rows: expected int64 of shape \(n,\), got float32 of shape \(2,\)"),
        (torch.zeros(2, 1, dtype=torch.int64), r"rows: expected int64 of shape \(n,\), got int64 of shape \(2, 1\)"),
        (torch.zeros(2, dtype=torch.int64, device="meta"), "rows: expected device cpu as item_seq, got meta"),
    ],
)
def test_wrong_rows(rows, message):
    pair = SameTargetPair(*data_of(ROWS))
    with pytest.raises(InputError, match=f"^{message}$"):
        pair(*reference.padded(ROWS[:2]), rows=rows)


def test_a_batch_elsewhere():
    elsewhere = [tensor.to("meta") for tensor in (*reference.padded(ROWS[:2]), torch.arange(2))]
    with pytest.raises(InputError, match=r"^item_seq: expected device cpu as the stored sequences, got meta$"):
        SameTargetPair(*data_of(ROWS))(*elsewhere[:2], rows=elsewhere[2])


class TestOfACorpus:
    CORPUS = BehaviourCorpus.from_lists(ROWS)

    def drawn(self, pair):
        draws = pair.draw(torch.arange(len(ROWS)).repeat(300), generator()).view(300, -1)
        return [sorted(set(draws[:, row].tolist())) for row in range(len(ROWS))]

    @pytest.mark.parametrize(("key", "drop_last"), [("last_kept", False), ("last_dropped", True)])
    @pytest.mark.parametrize("skip_identical", [False, True])
    def test_partners_share_the_last_behaviour(self, key, drop_last, skip_identical):
        pair = same_target_pair(self.CORPUS, key, skip_identical=skip_identical)
        assert self.drawn(pair) == [partners(ROWS, row, drop_last, skip_identical) for row in range(len(ROWS))]
        item_seq, lengths = self.CORPUS.padded(np.arange(len(ROWS)), 4)
        first, _, _ = pair(item_seq, lengths, generator(), rows=torch.arange(len(ROWS)))
        assert first.item_seq_len.tolist() == [len(shown(row[-4:], drop_last)) for row in ROWS]

    def test_only_candidates_are_drawn(self):
        candidates = np.array([5, 1, 7])
        chosen = [row in candidates for row in range(len(ROWS))]
        pair = same_target_pair(self.CORPUS, candidates=candidates)
        assert self.drawn(pair) == [partners(ROWS, row, candidates=chosen) for row in range(len(ROWS))]

    def test_items_are_shared_even_if_read_only(self, tmp_path):
        np.save(tmp_path / "items.npy", self.CORPUS.items.astype(np.int32))
        mapped = np.load(tmp_path / "items.npy", mmap_mode="r")
        corpus = BehaviourCorpus(
            mapped, self.CORPUS.offsets, self.CORPUS.n_items, self.CORPUS.user_tokens, self.CORPUS.item_tokens
        )
        pair = same_target_pair(corpus)
        assert pair.items.dtype == torch.int32
        assert pair.items.data_ptr() == mapped.ctypes.data
        assert self.drawn(pair) == self.drawn(same_target_pair(self.CORPUS))

    def test_wrong_calls(self):
        with pytest.raises(InputError, match=r"^key: expected 'last_kept' or 'last_dropped', got 'next'$"):
            same_target_pair(self.CORPUS, "next")
        with pytest.raises(InputError, match=r"^candidates: expected rows from 0 to 7, got 8$"):
            same_target_pair(self.CORPUS, candidates=np.array([8]))
