"""The operators written from spec 1.1-1.4, one user at a time on Python lists: what the batched ones must equal."""

import math
import random

import torch


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


def random_pair(batch, mask_id, seed):
    """Both views of a list of users, as tensors: the work that ``RandomPair`` does."""
    rng = random.Random(seed)
    return tuple(padded([view(items, mask_id, rng) for items in batch]) for _ in range(2))
