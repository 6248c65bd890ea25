"""Counts of the operators: rounding, exactly, and a table of lengths."""

import random
from fractions import Fraction

import augment_reference as reference
import pytest
import torch

from adaptssr_plugin.augment import ItemCrop, ItemMask, ItemReorder
from adaptssr_plugin.augment.operators.counts import dn, up

LENGTHS = torch.arange(1, 1001)
RATIOS = sorted(
    {k / 100 for k in range(1, 101)}
    | {k / 1000 for k in (1, 7, 333, 667, 999)}
    | {1 / k for k in range(1, 40)}
    | {k / 7 for k in range(1, 7)}
    | {0.1 + 0.2, 1e-3, 1e-12, 1 - 1e-12, 0.123456789012, 2**-0.5}
)
MASK_ID = 10_000


@pytest.mark.parametrize("ratio", RATIOS)
def test_counts_are_the_specs_formula_for_every_length(ratio):
    assert up(ratio, LENGTHS).tolist() == [reference.up(ratio, n) for n in range(1, 1001)]
    assert dn(ratio, LENGTHS).tolist() == [reference.dn(ratio, n) for n in range(1, 1001)]


def test_counts_are_the_specs_formula_for_random_ratios():
    rng = random.Random(1)
    for ratio in (rng.random() for _ in range(300)):
        assert up(ratio, LENGTHS[::7]).tolist() == [reference.up(ratio, n) for n in range(1, 1001, 7)]


@pytest.mark.parametrize(("ratio", "n", "exact"), [(0.7, 90, 63), (0.3, 100, 30), (0.6, 100, 60), (0.29, 100, 29)])
def test_counts_where_floating_point_is_off_by_one(ratio, n, exact):
    length = torch.tensor([n])
    assert (up(ratio, length).item(), dn(ratio, length).item()) == (exact, exact)
    naive = {int(ratio * n), -int(-(length.float() * ratio) // 1)}
    assert naive != {exact}, "this vector no longer shows anything"


@pytest.mark.parametrize("n", [10**4, 10**5, 922_337])
def test_counts_do_not_overflow_at_any_length(n):
    assert up(0.1234567890123, torch.tensor([n])).item() == -(-Fraction("0.1234567890123") * n // 1)
    assert dn(1.0, torch.tensor([n])).item() == n


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_every_length_and_ratio_has_the_right_counts(ratio):
    rows = [range(1, n + 1) for n in range(1, 121)]
    item_seq, lengths = reference.padded(rows)
    generator = torch.Generator().manual_seed(3)

    masked, masked_len = ItemMask(ratio, mask_id=MASK_ID)(item_seq, lengths, generator)
    assert (masked == MASK_ID).sum(1).tolist() == [reference.masked_count(ratio, n) for n in range(1, 121)]
    visible = masked != MASK_ID
    assert torch.equal(masked[visible], item_seq[visible])
    assert torch.equal(masked_len, lengths)

    cropped, cropped_len = ItemCrop(ratio)(item_seq, lengths, generator)
    assert cropped_len.tolist() == [reference.up(ratio, n) for n in range(1, 121)]
    for row, length in zip(cropped.tolist(), cropped_len.tolist(), strict=True):
        assert row[:length] == list(range(row[0], row[0] + length))
        assert row[length:] == [0] * (120 - length)
    assert bool((cropped.amax(1) <= lengths).all())

    shuffled, shuffled_len = ItemReorder(ratio)(item_seq, lengths, generator)
    assert torch.equal(shuffled_len, lengths)
    for n, row in enumerate(shuffled.tolist(), start=1):
        assert sorted(row[:n]) == list(range(1, n + 1))
        assert row[n:] == [0] * (120 - n)
        moved = [place for place in range(n) if row[place] != place + 1]
        assert not moved or moved[-1] - moved[0] < reference.up(ratio, n)


@pytest.mark.parametrize(
    ("n", "masked", "kept", "window"),
    [(1, 0, 1, 1), (2, 1, 1, 2), (3, 2, 2, 2), (5, 3, 2, 3), (10, 6, 4, 6), (55, 33, 22, 33), (100, 60, 40, 60)],
)
def test_table_of_the_default_ratios(n, masked, kept, window):
    item_seq, lengths = reference.padded([range(1, n + 1)] * 400)
    out, out_len = ItemMask(mask_id=MASK_ID)(item_seq, lengths)
    assert (out == MASK_ID).sum(1).tolist() == [masked] * 400
    assert torch.equal(out_len, lengths)
    out, out_len = ItemCrop()(item_seq, lengths)
    assert (out > 0).sum(1).tolist() == out_len.tolist() == [kept] * 400
    moved = ItemReorder()(item_seq, lengths, torch.Generator().manual_seed(0)).item_seq != item_seq  # (rows, n)
    place = torch.arange(n)
    spans = torch.where(moved, place, -1).amax(1) - torch.where(moved, place, n).amin(1) + 1
    # Over 400 draws the two ends of the window trade places with others in some row, and nothing goes further.
    assert max(spans.max().item(), 1) == window


def test_a_ratio_too_small_for_one_item_still_masks_and_keeps_one():
    item_seq, lengths = reference.padded([range(1, 8)])
    assert (ItemMask(1e-12, mask_id=9)(item_seq, lengths).item_seq == 9).sum().item() == 1
    assert ItemCrop(1e-12)(item_seq, lengths).item_seq_len.item() == 1
    assert torch.equal(ItemReorder(1e-12)(item_seq, lengths).item_seq, item_seq)
