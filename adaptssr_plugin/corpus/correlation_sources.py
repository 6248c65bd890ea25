"""The correlation of items as in CoSeRec's code: by common users, and by item vectors of a model."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError
from .behaviours import BehaviourCorpus, blocks

# Pairs of items held at once. A pair takes some 40 bytes in a sparse block, and 4 in a block of products.
_SPARSE_PAIRS = 2**22
_CPU_PAIRS, _DEVICE_PAIRS = 2**22, 2**27
_MIN_ROWS = 64  # a block of fewer rows would spend its time reading the whole table
_LOW_BITS = (1 << 32) - 1


class NearestItems(NamedTuple):
    """The k most correlated items of every item, the most correlated first, among equal ones the smaller id first."""

    neighbours: npt.NDArray[np.int64]
    """(n_items, k): ids ``1 .. n_items - 1``, 0 where an item has no more."""
    scores: npt.NDArray[np.float32]
    """(n_items, k): 0 where there is no neighbour."""
    lowest: float
    """The smallest score of all pairs, including those that are not among the k."""
    highest: float
    """The largest score of all pairs."""


def item_cf(corpus: BehaviourCorpus, k: int = 1, iuf: bool = True, block_pairs: int = _SPARSE_PAIRS) -> NearestItems:
    """Correlate items by the users who have both: ItemCF-IUF of CoSeRec, or ItemCF without ``iuf``.

    With U_i the users who have item i and H_u the distinct items of user u, for i ≠ j::

        c(i, j) = Σ_{u ∈ U_i ∩ U_j} 1 / ln(1 + |H_u|)  /  sqrt(|U_i| · |U_j|)

    or Σ 1 in place of the numerator without ``iuf``. Scores are compared as returned, in float32.

    Args:
        corpus: only the training histories.
        k: the number of items to keep for each.
        iuf: let a user count less the more items the user has.
        block_pairs: pairs of items held at once; a single item may have up to ``n_items``.

    Returns:
        The nearest items. ``lowest`` and ``highest`` are over all pairs with a common user (0 if there is none).
    """
    histories = _distinct_items(corpus)  # (n_users, n_items), sparse
    size = np.diff(histories.indptr).astype(np.int64)  # |H_u|
    popularity = np.bincount(histories.indices, minlength=corpus.n_items)  # |U_i|
    users = histories.T.tocsr()  # (n_items, n_users): who has the item
    histories.data = np.repeat(1 / np.log1p(size) if iuf else np.ones(len(size)), size)
    best = np.zeros((corpus.n_items, k), dtype=np.int64)
    lowest, highest = np.inf, 0.0
    # Item i meets at most Σ_{u ∈ U_i} |H_u| others, and never more than all items.
    for start, stop in blocks(np.minimum(users @ size, corpus.n_items), block_pairs):
        block = users[start:stop] @ histories  # (stop - start, n_items), sparse
        item, other_item = np.repeat(np.arange(start, stop), np.diff(block.indptr)), block.indices.astype(np.int64)
        scores = (block.data / np.sqrt(popularity[item] * popularity[other_item])).astype(np.float32)
        other = item != other_item
        lowest = min(lowest, float(scores[other].min(initial=np.inf)))
        highest = max(highest, float(scores[other].max(initial=0)))
        # Positive floats have the order of their bits. With the id in the low bits, all keys of an item differ.
        keys = scores.view(np.int32).astype(np.int64) << 32 | (_LOW_BITS - other_item)
        _largest(np.where(other, keys, 0), block.indptr, best[start:stop])
    neighbours = np.where(best > 0, _LOW_BITS - (best & _LOW_BITS), 0)
    kept = (best >> 32).astype(np.int32).view(np.float32)
    return NearestItems(neighbours, kept, lowest if highest else 0.0, highest)


def _distinct_items(corpus: BehaviourCorpus) -> Any:
    """Make the (n_users, n_items) CSR matrix of who has which item; repeated items count once."""
    from scipy import sparse  # in the extra recbole: the core needs only torch and numpy

    ones = np.ones(len(corpus.items), dtype=np.int8)
    # Copies, since sorting and merging write to the arrays, which may be mapped from a file.
    arrays = (ones, np.array(corpus.items), np.array(corpus.offsets))
    matrix = sparse.csr_matrix(arrays, shape=(len(corpus), corpus.n_items))
    matrix.sum_duplicates()
    matrix.data = np.ones(matrix.nnz, dtype=np.int8)
    return matrix


def _largest(keys: npt.NDArray[np.int64], indptr: npt.NDArray[Any], out: npt.NDArray[np.int64]) -> None:
    """Write the largest keys of each row of a CSR block to ``out`` (rows, k), largest first; overwrites ``keys``."""
    size = np.diff(indptr)
    filled = np.flatnonzero(size)
    if len(filled) == 0:
        return
    largest = out[filled, 0] = np.maximum.reduceat(keys, indptr[filled])
    for column in range(1, out.shape[1]):
        keys[keys == np.repeat(largest, size[filled])] = 0
        largest = out[filled, column] = np.maximum.reduceat(keys, indptr[filled])
        if not largest.any():
            return


@torch.no_grad()
def nearest_by_product(item_weight: Tensor, k: int = 1, block_rows: int | None = None) -> NearestItems:
    """Correlate items by the dot products of their vectors: c(i, j) = e_i · e_j, i ≠ j, without the padding.

    Args:
        item_weight: (n_items, d) floating, n_items >= 2, on any device; row 0 is the padding. The computation is on
            that device, in float32, with ``block_rows`` rows of the matrix of products at a time.
        k: the number of items to keep for each.
        block_rows: by default chosen for the device.

    Returns:
        The nearest items. ``lowest`` and ``highest`` are over all pairs, including each item with itself.

    Raises:
        InputError: another shape or dtype, or products that are not finite.
    """
    _check_item_weight(item_weight)
    vectors = item_weight[1:].float()  # (N, d)
    n = len(vectors)
    if block_rows is None:
        block_rows = max(_MIN_ROWS, (_CPU_PAIRS if vectors.device.type == "cpu" else _DEVICE_PAIRS) // n)
    buffer = vectors.new_empty(min(block_rows, n), n)
    neighbours = torch.zeros(n + 1, k, dtype=torch.int64, device=vectors.device)
    scores = vectors.new_zeros(n + 1, k)
    extremes = []
    for start in range(0, n, block_rows):
        rows = slice(start, min(start + block_rows, n))
        # With ``out`` the product stays in float32 under autocast.
        products = torch.mm(vectors[rows], vectors.T, out=buffer[: rows.stop - start])  # (rows, N)
        extremes.append(torch.stack(products.aminmax()))
        products[:, rows].fill_diagonal_(-torch.inf)
        for column in range(min(k, n - 1)):
            # The first of equal maxima, which topk does not guarantee.
            score, place = products.max(1)
            scores[start + 1 : rows.stop + 1, column] = score
            neighbours[start + 1 : rows.stop + 1, column] = place + 1
            products.scatter_(1, place[:, None], -torch.inf)
    ends = torch.stack(extremes)  # (blocks, 2)
    lowest, highest = float(ends[:, 0].min()), float(ends[:, 1].max())
    if not np.isfinite([lowest, highest]).all():
        raise InputError(f"item_weight: expected finite products, got some from {lowest} to {highest}")
    return NearestItems(neighbours.cpu().numpy(), scores.cpu().numpy(), lowest, highest)


def _check_item_weight(item_weight: object) -> None:
    if not isinstance(item_weight, Tensor):
        raise InputError(f"item_weight: expected a tensor, got {type(item_weight).__name__}")
    if item_weight.dim() != 2 or len(item_weight) < 2 or not item_weight.is_floating_point():
        dtype = str(item_weight.dtype).removeprefix("torch.")
        raise InputError(
            f"item_weight: expected floats of shape (n_items, d) with n_items >= 2, "
            f"got {dtype} of shape {tuple(item_weight.shape)}"
        )
