"""Rows in buckets by a key item, so that a row can be drawn from any bucket in constant time (DuoRec's views)."""

from typing import NamedTuple

import torch
from torch import Tensor

# The multipliers of splitmix64 and its step: odd 64-bit numbers, written as signed integers.
_FACTORS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
_STEP = -0x61C8864680B583EB


class Buckets(NamedTuple):
    """Which rows can be drawn for which row. Memory grows with N and the number of keys.

    Attributes:
        order: (M,) int64, the rows that can be drawn, bucket after bucket; a single 0 if no row can be drawn.
        first_place: (N,) int64, where in ``order`` the bucket of each row starts.
        own_place: (N,) int64, where in ``order`` the rows start that are not drawn for the row: itself and identical
            ones.
        n_own: (N,) int64, the number of these.
        n_others: (N,) int64, the number of rows of its bucket that can be drawn for each row.
    """

    order: Tensor
    first_place: Tensor
    own_place: Tensor
    n_own: Tensor
    n_others: Tensor


def index_buckets(keys: Tensor, drawable: Tensor, content: Tensor | None = None) -> Buckets:
    """Put rows into buckets by a counting sort.

    Args:
        keys: (N,) int64, at least 0: rows with the same key share a bucket.
        drawable: (N,) bool, which rows can be drawn.
        content: (N,) int64; rows of a bucket with the same number are never drawn for each other. None: only the
            row itself is excluded.
    """
    by_key, group = _sort(keys, content)
    order = by_key[drawable[by_key]]
    key_start, key_size = _sizes(keys, drawable)
    group_start, group_size = _sizes(group, drawable)
    n_own = group_size[group]
    if len(order) == 0:
        order = order.new_zeros(1)
    return Buckets(order, key_start[keys], group_start[group], n_own, key_size[keys] - n_own)


def _sort(keys: Tensor, content: Tensor | None) -> tuple[Tensor, Tensor]:
    """Order the rows by key and content, and number the groups with equal key and content in that order: both (N,)."""
    place = torch.arange(len(keys), device=keys.device)
    if content is None:
        by_key = keys.argsort(stable=True)
        in_order = place
    else:
        by_content = content.argsort(stable=True)
        by_key = by_content[keys[by_content].argsort(stable=True)]
        key, same = keys[by_key], content[by_key]
        begins = (key[1:] != key[:-1]) | (same[1:] != same[:-1])
        in_order = torch.cat([begins.new_zeros(1), begins]).cumsum(0)
    return by_key, torch.empty_like(place).scatter_(0, by_key, in_order)


def _sizes(labels: Tensor, drawable: Tensor) -> tuple[Tensor, Tensor]:
    """Count the rows that can be drawn under each label, and those under smaller ones: ``(start, size)``."""
    size = torch.bincount(labels[drawable], minlength=int(labels.max()) + 1)
    return size.cumsum(0) - size, size


def contents(items: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    """Give every row a 64-bit hash of its items and their order: (N,) int64.

    Rows of the same items in the same order get the same number; two different rows do with probability 2^-64.
    Arguments as in :class:`SameTargetPair`; rows may overlap. Goes through the positions, at each one over all rows
    that are long enough, so memory grows with N.
    """
    by_length = lengths.argsort(descending=True)
    start = starts[by_length]
    number = torch.zeros_like(start)
    shorter = torch.bincount(lengths).cumsum(0)[:-1]  # the number of rows with at most 0, 1, ... items
    for place, n_rows in enumerate((len(lengths) - shorter).tolist()):
        item = items[start[:n_rows] + place].long()
        number[:n_rows] = _mixed(number[:n_rows] + _STEP * item)
    return torch.empty_like(number).scatter_(0, by_length, number)


def _mixed(number: Tensor) -> Tensor:
    """Mix the bits of int64 so that each depends on all others, as splitmix64 does; one to one, products wrap."""
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        number = (number ^ _shifted(number, shift)) * factor
    return number ^ _shifted(number, 31)


def _shifted(number: Tensor, shift: int) -> Tensor:
    """Shift int64 to the right and fill with zeros, where ``>>`` would repeat the sign."""
    return (number >> shift) & ((1 << (64 - shift)) - 1)
