"""The 6:2:2 split of a task's rows, the paper's shares."""

from typing import NamedTuple

import numpy as np

from adaptssr_plugin.errors import InputError, check_count
from adaptssr_plugin.seeding import stream_seed

SPLIT_OVERLAP = 0.2 / 0.6
"""Test rows per training row, with which :func:`paired` corrects a test over several splits."""


class Split(NamedTuple):
    """Positions into a task's rows: three int64 arrays, sorted, disjoint, covering every row once."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def split_rows(n_rows: int, seed: int, ratios: tuple[float, float, float] = (0.6, 0.2, 0.2)) -> Split:
    """Divide ``n_rows`` rows at random into training, validation and test parts.

    Training gets ``floor(0.6 n)`` rows, validation ``floor(0.2 n)``, test the rest. The result depends only on
    ``n_rows``, ``seed`` and ``ratios``, so that tasks over the same users share it.

    Args:
        n_rows: number of rows.
        seed: seed of the split; kept fixed while the seeds of fine-tuning vary (METHODS.md, row 33).
        ratios: shares of the three parts, each above 0, with sum 1.

    Raises:
        InputError: bad shares, or so few rows that a part would be empty.
    """
    check_count("n_rows", n_rows, 0)
    check_count("seed", seed, 0)
    if len(ratios) != 3 or not all(ratio > 0 for ratio in ratios) or abs(sum(ratios) - 1) > 1e-9:
        raise InputError(f"ratios: expected three shares above 0 with sum 1, got {ratios}")
    # 0.29 * 100 is slightly below 29 in floating point; 1e-9 corrects it.
    n_train, n_valid = (int(np.floor(ratio * n_rows + 1e-9)) for ratio in ratios[:2])
    if min(n_train, n_valid, n_rows - n_train - n_valid) < 1:
        raise InputError(f"n_rows: expected enough rows for three parts in the ratios {ratios}, got {n_rows}")
    order = np.random.default_rng(stream_seed(int(seed), "split")).permutation(n_rows)
    parts = np.split(order.astype(np.int64), [n_train, n_train + n_valid])
    return Split(*(np.sort(part) for part in parts))


def split_seeds(split_seed: int, n_splits: int) -> range:
    """Seeds of repeated splits; the first one is ``split_seed``."""
    check_count("n_splits", n_splits)
    return range(split_seed, split_seed + n_splits)
