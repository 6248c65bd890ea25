"""The corpus and its batches: histories, padding, selection, construction, wrong calls."""

import numpy as np
import pytest
import torch
from readbacks import count_readbacks
from refusals import refusal_of

from adaptssr_plugin.corpus import Batch, BatchLoader, BehaviourCorpus

HISTORIES = [[3], [1, 2, 3, 4, 5], [5, 5], [2, 1, 2, 1, 2, 1, 2], [4, 3, 2]]


def corpus(histories=HISTORIES, **arguments):
    return BehaviourCorpus.from_lists(histories, **arguments)


def random_corpus(n_users=200, seed=0):
    rng = np.random.default_rng(seed)
    return corpus([rng.integers(1, 50, rng.integers(1, 30)).tolist() for _ in range(n_users)], n_items=60)


def int32(values):
    return np.array(values, dtype=np.int32)


def test_lengths_histories_and_names():
    users = corpus()
    assert len(users) == 5
    assert users.n_items == 6
    assert users.lengths.tolist() == [1, 5, 2, 7, 3]
    assert [users.history(row).tolist() for row in range(5)] == HISTORIES
    assert users.user_tokens.tolist() == ["0", "1", "2", "3", "4"]
    assert users.item_tokens.tolist() == ["[PAD]", "1", "2", "3", "4", "5"]


def test_names_are_kept():
    users = corpus([[1], [2, 1]], user_tokens=["ann", "bob"], item_tokens=["[PAD]", "tea", "nuts"])
    assert users.user_tokens.tolist() == ["ann", "bob"]
    assert users.item_tokens[users.history(1)].tolist() == ["nuts", "tea"]


def test_halves_against_a_loop():
    users = random_corpus(20_000)  # more than are copied at a time
    older, newer = users.halves()
    rows = [row for row in range(len(users)) if len(users.history(row)) > 1]
    assert 0 < len(rows) < len(users)
    assert older.user_tokens.tolist() == newer.user_tokens.tolist() == users.user_tokens[rows].tolist()
    assert older.n_items == newer.n_items == users.n_items
    for place, row in enumerate(rows):
        history = users.history(row).tolist()
        middle = len(history) // 2
        assert older.history(place).tolist() == history[:middle]
        assert newer.history(place).tolist() == history[middle:]


def test_a_checksum_knows_items_order_and_users():
    sums = {corpus(histories).checksum() for histories in ([[1, 2], [3]], [[2, 1], [3]], [[1], [2, 3]], [[1, 2], [1]])}
    assert len(sums) == 4
    assert corpus().checksum() == corpus().checksum()


@pytest.mark.parametrize("max_len", [1, 2, 5, 29, 100])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_padded_against_a_loop(max_len, dtype):
    wide = random_corpus()
    users = BehaviourCorpus(wide.items.astype(dtype), wide.offsets, wide.n_items, wide.user_tokens, wide.item_tokens)
    rows = np.random.default_rng(1).integers(0, len(users), 77)
    item_seq, lengths = users.padded(rows, max_len)
    assert item_seq.dtype == lengths.dtype == torch.int64
    expected = [users.history(row)[-max_len:].tolist() for row in rows]
    width = max(map(len, expected))
    assert item_seq.tolist() == [row + [0] * (width - len(row)) for row in expected]
    assert lengths.tolist() == list(map(len, expected))


def test_padded_owns_its_memory():
    users = corpus()
    users.padded(np.array([1]), 5)[0].zero_()
    assert users.history(1).tolist() == HISTORIES[1]


def test_select():
    part = corpus(user_tokens=list("abcde")).select(np.array([3, 0, 3]))
    assert [part.history(row).tolist() for row in range(3)] == [HISTORIES[3], HISTORIES[0], HISTORIES[3]]
    assert part.user_tokens.tolist() == ["d", "a", "d"]
    assert part.n_items == 6
    nobody = corpus().select(np.array([], dtype=np.int64))
    assert (len(nobody), nobody.items.size) == (0, 0)


def test_batch_moves_all_but_its_lengths_on_the_cpu():
    batch = next(iter(BatchLoader(corpus(), batch_size=3, max_len=4, seed=0, labels=np.arange(5))))
    with count_readbacks() as reads:
        moved = batch.to("meta", non_blocking=True)
    assert reads == []
    assert {tensor.device.type for tensor in (moved.item_seq, moved.item_seq_len, moved.user_ids, moved.labels)} == {
        "meta"
    }
    assert moved.lengths is batch.lengths
    assert len(moved) == len(batch) == 3
    assert Batch(batch.item_seq, batch.item_seq_len, batch.user_ids, batch.lengths).to("meta").labels is None


def build(items, offsets, n_items=6, user_tokens=("0", "1"), item_tokens=("[PAD]", "1", "2", "3", "4", "5")):
    return BehaviourCorpus(
        items, np.asarray(offsets, dtype=np.int64), n_items, np.array(user_tokens), np.array(item_tokens)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build(int32([1, 0]), [0, 1, 2]), "items: expected ids from 1 to 5, got 0"),
        (lambda: build(int32([1, 6]), [0, 1, 2]), "items: expected ids from 1 to 5, got 6"),
        (lambda: build([1, 2], [0, 1, 2]), "items: expected a numpy array, got list"),
        (
            lambda: build(np.ones(2), [0, 1, 2]),
            "items: expected int32 or int64 of shape (n,), got float64 of shape (2,)",
        ),
        (
            lambda: build(int32([[1]]), [0, 1, 2]),
            "items: expected int32 or int64 of shape (n,), got int32 of shape (1, 1)",
        ),
        (lambda: build(int32([1, 2]), [0, 2]), "offsets: expected shape (3,), one more than user_tokens, got (2,)"),
        (
            lambda: build(int32([1, 2]), [0, 1, 3]),
            "offsets: expected to go from 0 to 2, the length of items, got 0 to 3",
        ),
        (
            lambda: build(int32([1, 2]), [0, 0, 2]),
            "offsets: expected at least one behaviour per user, got 0 in row 0",
        ),
        (
            lambda: build(int32([1, 2]), [0, 3, 2]),
            "offsets: expected at least one behaviour per user, got -1 in row 1",
        ),
        (lambda: build(int32([1, 2]), [0, 1, 2], n_items=0), "n_items: expected a positive integer, got 0"),
        (
            lambda: build(int32([1, 2]), [0, 1, 2], n_items=7),
            "item_tokens: expected shape (7,), one per item with the padding, got (6,)",
        ),
        (
            lambda: build(int32([1, 1]), [0, 1, 2], n_items=2, item_tokens=("0", "1")),
            "item_tokens: expected '[PAD]' for id 0, got '0'",
        ),
        (
            lambda: build(int32([1, 1]), [0, 1, 2], user_tokens=(0, 1)),
            "user_tokens: expected str of shape (n,), got int64 of shape (2,)",
        ),
        (lambda: corpus([[1], []]), "offsets: expected at least one behaviour per user, got 0 in row 1"),
        (lambda: corpus([[1.5]]), "histories: expected lists of integer ids, got something else among them"),
        (lambda: corpus([[1]], n_items=1), "items: expected ids from 1 to 0, got 1"),
        (lambda: corpus().history(5), "row: expected one of 0 to 4, got 5"),
        (lambda: corpus().history(-1), "row: expected one of 0 to 4, got -1"),
        (lambda: corpus().padded(np.array([0, 5]), 4), "rows: expected rows from 0 to 4, got 5"),
        (lambda: corpus().padded(np.array([-1]), 4), "rows: expected rows from 0 to 4, got -1"),
        (lambda: corpus().padded(np.array([], dtype=int), 4), "rows: expected at least one row, got none"),
        (
            lambda: corpus().padded(np.array([0.0]), 4),
            "rows: expected integers of shape (B,), got float64 of shape (1,)",
        ),
        (
            lambda: corpus().select(np.array([True] * 5)),
            "rows: expected integers of shape (B,), got bool of shape (5,)",
        ),
        (lambda: corpus().padded(np.array([0]), 0), "max_len: expected a positive integer, got 0"),
        (
            lambda: BatchLoader([[1, 2]], batch_size=1, max_len=4, seed=0),
            "corpus: expected a BehaviourCorpus, got list",
        ),
        (
            lambda: BatchLoader(corpus(), batch_size=1, max_len=4, seed=0, shuffle="no"),
            "shuffle: expected True or False, got str",
        ),
        (
            lambda: BatchLoader(corpus(), batch_size=0, max_len=4, seed=0),
            "batch_size: expected a positive integer, got 0",
        ),
        (
            lambda: BatchLoader(corpus(), batch_size=2, max_len=2.5, seed=0),
            "max_len: expected a positive integer, got 2.5",
        ),
        (
            lambda: BatchLoader(corpus(), np.array([], dtype=int), batch_size=2, max_len=2, seed=0),
            "rows: expected at least one row, got none",
        ),
        (
            lambda: BatchLoader(corpus(), np.array([9]), batch_size=2, max_len=2, seed=0),
            "rows: expected rows from 0 to 4, got 9",
        ),
        (
            lambda: BatchLoader(corpus(), np.array([1, 2]), batch_size=2, max_len=2, seed=0, labels=np.zeros(5)),
            "labels: expected shape (2,), one per row, got (5,)",
        ),
    ],
)
def test_wrong_calls_get_one_line(call, message):
    assert refusal_of(call) == message
