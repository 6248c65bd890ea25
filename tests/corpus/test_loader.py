"""Batches: everyone once per epoch, in an order that a resumed run finds again."""

import numpy as np
import pytest
import torch

from adaptssr_plugin.corpus import BatchLoader, BehaviourCorpus

ORDER = [12, 2, 20, 22, 14, 0, 7, 11, 10, 4, 21, 3, 5, 8, 9, 6, 19, 18, 17, 16, 1, 15, 13]


def corpus(n_users=23):
    return BehaviourCorpus.from_lists([[row % 7 + 1] * (row % 5 + 1) for row in range(n_users)], n_items=9)


def loader(users=None, rows=None, **arguments):
    arguments = {"batch_size": 5, "max_len": 4, "seed": 1, **arguments}
    return BatchLoader(users or corpus(), rows, **arguments)


def order(batches):
    return [user for batch in batches for user in batch.user_ids.tolist()]


@pytest.mark.parametrize(("batch_size", "sizes"), [(5, [5, 5, 5, 5, 3]), (23, [23]), (100, [23]), (22, [22, 1])])
def test_last_short_batch_is_kept(batch_size, sizes):
    batches = loader(batch_size=batch_size)
    assert [len(batch) for batch in batches] == sizes
    assert len(batches) == len(sizes)


def test_every_user_once_with_its_history():
    users = corpus()
    seen = []
    for batch in loader(users):
        expected_seq, expected_len = users.padded(batch.user_ids.numpy(), 4)
        assert torch.equal(batch.item_seq, expected_seq)
        assert torch.equal(batch.item_seq_len, expected_len)
        assert torch.equal(batch.lengths, expected_len)
        assert batch.user_ids.dtype == batch.lengths.dtype == torch.int64
        assert batch.labels is None
        seen += batch.user_ids.tolist()
    assert sorted(seen) == list(range(23))


def test_order_is_keyed_by_seed_name_and_epoch():
    orders = {}
    for seed in (1, 2):
        for name in ("a", "b"):
            batches = loader(seed=seed, name=name)
            for epoch in (0, 1, 7):
                batches.set_epoch(epoch)
                orders[seed, name, epoch] = tuple(order(batches))
    assert len(set(orders.values())) == len(orders)
    resumed = loader(seed=2, name="b")
    resumed.set_epoch(7)
    assert tuple(order(resumed)) == orders[2, "b", 7]


def test_same_epoch_twice_is_the_same_pass_and_passes_do_not_disturb_each_other():
    batches = loader()
    expected = order(batches)
    first, second = iter(batches), iter(batches)
    interleaved = [next(first), next(second), *first]
    assert order([interleaved[0], *interleaved[2:]]) == expected
    assert order([interleaved[1], *second]) == expected


@pytest.mark.parametrize("step", [0, 1, 4, 5, 9])
def test_the_rest_of_an_epoch(step):
    batches = loader()
    batches.set_epoch(3)
    expected, rest = list(batches)[step:], list(batches.from_step(step))
    assert [batch.user_ids.tolist() for batch in rest] == [batch.user_ids.tolist() for batch in expected]
    assert all(torch.equal(ours.item_seq, theirs.item_seq) for ours, theirs in zip(rest, expected, strict=True))


def test_order_does_not_touch_global_random_state():
    legacy = np.random.get_state
    before = legacy()[1].copy(), torch.get_rng_state()
    order(loader())
    assert np.array_equal(legacy()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_order_is_this_one():
    """A change of hash or generator would break every resumed run; it has to be made on purpose."""
    assert order(loader(batch_size=4)) == ORDER


def test_without_shuffling_rows_keep_their_order():
    rows = np.array([4, 2, 20, 2])
    batches = loader(rows=rows, shuffle=False, batch_size=3)
    assert order(batches) == [4, 2, 20, 2]
    rows[:] = 0
    assert order(batches) == [4, 2, 20, 2]


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_labels_follow_their_users(dtype):
    rows = np.array([3, 1, 19, 8, 12, 0])
    labels = (rows * 10).astype(dtype)
    for batch in loader(rows=rows, labels=labels, batch_size=4):
        assert batch.labels.tolist() == (batch.user_ids * 10).tolist()
        assert batch.labels.dtype == torch.from_numpy(labels).dtype
