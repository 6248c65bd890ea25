"""The distributions of the batched operators, against uniform ones and against the per-user reference."""

import random
from collections import Counter
from itertools import permutations

import augment_reference as reference
import pytest
import torch
from augment_reference import LEAST_P, assert_same_distribution, assert_uniform, generator, outcomes
from scipy.stats import chi2_contingency

from adaptssr_plugin.augment import ItemCrop, ItemMask, ItemReorder, RandomPair
from adaptssr_plugin.augment.operators.draws import shuffled_windows, uniform_below

DRAWS = 20_000


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 100])
def test_uniform_below(bound):
    draws = uniform_below(torch.full((DRAWS,), bound), generator(bound))
    if bound > 1:
        assert_uniform(Counter(draws.tolist()), range(bound))
    assert (draws.min().item(), draws.max().item()) == (0, bound - 1)


def test_uniform_below_zero_is_zero():
    assert uniform_below(torch.zeros(5, dtype=torch.int64), generator()).tolist() == [0] * 5


@pytest.mark.parametrize(("start", "length", "width"), [(0, 4, 4), (2, 4, 9), (0, 5, 130), (3, 3, 6)])
def test_every_permutation_of_a_window_is_as_likely(start, length, width):
    order = shuffled_windows(torch.full((DRAWS,), start), torch.full((DRAWS,), length), width, generator(length))
    windows = Counter(map(tuple, (order[:, start : start + length] - start).tolist()))
    assert_uniform(windows, list(permutations(range(length))))


def test_every_position_is_masked_as_often():
    item_seq, lengths = reference.padded([range(1, 11)] * DRAWS, width=13)
    masked = ItemMask(0.3, mask_id=99)(item_seq, lengths, generator(1)).item_seq == 99
    assert_uniform(Counter({place: int(n) for place, n in enumerate(masked.sum(0)[:10])}), range(10))


def test_every_set_of_positions_is_masked_as_often_as_in_the_reference():
    item_seq, lengths = reference.padded([range(1, 6)] * DRAWS)
    ours = outcomes(ItemMask(0.4, mask_id=99)(item_seq, lengths, generator(2)))
    rng = random.Random(2)
    theirs = Counter(tuple(reference.mask(list(range(1, 6)), 0.4, 99, rng)) for _ in range(DRAWS))
    assert len(ours) == len(theirs) == 10
    assert_same_distribution(ours, theirs)
    assert_uniform(ours, list(theirs))


def test_every_crop_is_as_likely():
    item_seq, lengths = reference.padded([range(1, 21)] * DRAWS)
    starts = Counter(ItemCrop(0.4)(item_seq, lengths, generator(3)).item_seq[:, 0].tolist())
    assert_uniform(starts, range(1, 14))


@pytest.mark.parametrize(("n", "ratio"), [(5, 0.6), (6, 0.6), (4, 1.0), (7, 0.4)])
def test_reorder_gives_what_the_reference_gives_as_often(n, ratio):
    item_seq, lengths = reference.padded([range(1, n + 1)] * DRAWS)
    ours = outcomes(ItemReorder(ratio)(item_seq, lengths, generator(n)))
    rng = random.Random(n)
    theirs = Counter(tuple(reference.reorder(list(range(1, n + 1)), ratio, rng)) for _ in range(DRAWS))
    assert_same_distribution(ours, theirs)


@pytest.mark.parametrize("view", ["first", "second"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_view_of_a_pair_is_what_the_reference_gives_as_often(n, view):
    pair = RandomPair([ItemMask(0.6, mask_id=99), ItemCrop(0.4), ItemReorder(0.6)])
    item_seq, lengths = reference.padded([range(1, n + 1)] * DRAWS)
    ours = outcomes(getattr(pair(item_seq, lengths, generator(n)), view))
    rng = random.Random(n)
    theirs = Counter(tuple(reference.view(list(range(1, n + 1)), 99, rng)) for _ in range(DRAWS))
    if n == 1:
        assert ours == theirs == {(1,): DRAWS}
    else:
        assert_same_distribution(ours, theirs)


def test_rows_of_other_lengths_change_no_distribution():
    """Rows of 2, 3 and 20 items mixed: every outcome of the rows of 3 as often as it should be."""
    item_seq, lengths = reference.padded([range(1, 3), range(1, 4), range(1, 21)] * 8000)
    view = RandomPair([ItemMask(0.6, mask_id=99), ItemReorder(0.6)])(item_seq, lengths, generator(4)).second
    seen = Counter(map(tuple, view.item_seq[1::3, :3].tolist()))
    expected = {(1, 99, 99): 1, (99, 2, 99): 1, (99, 99, 3): 1, (1, 2, 3): 1.5, (2, 1, 3): 0.75, (1, 3, 2): 0.75}
    assert set(seen) == set(expected)
    for outcome, share in expected.items():
        assert seen[outcome] / 8000 == pytest.approx(share / 6, abs=0.015)


def test_the_two_views_of_a_row_and_the_rows_of_a_batch_are_independent():
    item_seq, lengths = reference.padded([range(1, 5)] * DRAWS)
    first, second, _ = RandomPair([ItemCrop(0.25)])(item_seq, lengths, generator(6))
    rows = ItemCrop(0.25)(item_seq, lengths, generator(7)).item_seq
    for one, other in ((first.item_seq, second.item_seq), (rows[::2], rows[1::2])):
        table = torch.zeros(4, 4, dtype=torch.int64)
        table.index_put_((one[:, 0] - 1, other[:, 0] - 1), torch.tensor(1), accumulate=True)
        assert chi2_contingency(table.numpy()).pvalue > LEAST_P
