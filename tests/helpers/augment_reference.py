"""The operators written from the authors' code, one user at a time, on lists: what the batched ones must equal."""

import math
from collections import Counter

import torch
from scipy.stats import chi2_contingency, chisquare

from adaptssr_plugin.augment import ItemCrop, ItemMask, ItemReorder, Operator, Sequences

# With fixed seeds a test either always passes or always fails; one in ten thousand right codes would fail here.
LEAST_P = 1e-4


class Widen(Operator):
    """Does what no operator may: gives back wider sequences."""

    def forward(self, item_seq, item_seq_len, generator=None):
        return Sequences(torch.nn.functional.pad(item_seq, (0, 1)), item_seq_len)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


N_ITEMS = 120
ROWS = [[7], [3, 3], [5, 6, 3], list(range(1, 12)), list(range(20, 51)), [9, 8, 7, 6, 3]]
NEIGHBOURS = torch.randint(1, N_ITEMS, (N_ITEMS, 3), generator=generator())


def three():
    return [ItemMask(0.6, mask_id=N_ITEMS), ItemCrop(0.4), ItemReorder(0.6)]


def up(ratio, n):
    return math.ceil(ratio * n - 1e-9)


def dn(ratio, n):
    return math.floor(ratio * n + 1e-9)


def masked_count(ratio, n):
    m = up(ratio, n)
    if m == n:
        m = dn(ratio, n)
    return min(m, n - 1)


def mask(items, ratio, mask_id, rng):
    items = list(items)
    for place in rng.sample(range(len(items)), masked_count(ratio, len(items))):
        items[place] = mask_id
    return items


def crop(items, ratio, rng):
    length = up(ratio, len(items))
    start = rng.randint(0, len(items) - length)
    return items[start : start + length]


def reorder(items, ratio, rng):
    length = up(ratio, len(items))
    start = rng.randint(0, len(items) - length)
    window = items[start : start + length]
    rng.shuffle(window)
    return items[:start] + window + items[start + length :]


def view(items, mask_id, rng):
    operators = [lambda row: crop(row, 0.4, rng), lambda row: reorder(row, 0.6, rng)]
    if len(items) > 1:
        operators.append(lambda row: mask(row, 0.6, mask_id, rng))
    return rng.choice(operators)(items)


def padded(rows, width=None):
    """Lists of item ids as (B, L) and (B,) int64."""
    width = width or max(map(len, rows))
    return (
        torch.tensor([list(row) + [0] * (width - len(row)) for row in rows]),
        torch.tensor([len(row) for row in rows]),
    )


def outcomes(view):
    """How often each row, as a tuple of its items, stands in a view."""
    return Counter(
        tuple(row[:length]) for row, length in zip(view.item_seq.tolist(), view.item_seq_len.tolist(), strict=True)
    )


def assert_uniform(counts, kinds):
    assert set(counts) <= set(kinds)
    if len(kinds) > 1:
        assert chisquare([counts[kind] for kind in kinds]).pvalue > LEAST_P


def assert_same_distribution(ours, theirs):
    kinds = sorted(set(ours) | set(theirs))
    assert len(kinds) > 1
    assert chi2_contingency([[counts[kind] for kind in kinds] for counts in (ours, theirs)]).pvalue > LEAST_P
