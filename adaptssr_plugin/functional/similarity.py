"""Similarity of encodings, and the similarity matrix of a batch in chunks of a few users.

Every loss of this package compares some encodings of a user, the anchors, with all encodings of other users. The m
encodings per user of a batch are stacked as ``(B, m, d)``. So the position alone says which pairs are negatives, and
no mask of the whole matrix is built.

A similarity is the dot product of two of the given vectors: the cosine if they are unit vectors.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available
from torch.autograd.function import once_differentiable

_MIN_CHUNK_ROWS = 128  # smaller products cost more than a chunk in the cache saves
_COUNTED_AT_ONCE = 64  # users whose ids are compared with those of the batch


class _UnitVectors(torch.autograd.Function):
    """x / |x|, with the projection as its backward: at small B the number of small operations determines the time."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        norm = torch.where(norm > 1e-12, norm, 1.0)
        units = vectors / norm
        ctx.save_for_backward(units, norm)
        return units

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        units, norm = ctx.saved_tensors
        along = (units * grad).sum(-1, keepdim=True)
        return torch.addcmul(grad, units, along, value=-1).div_(norm)


def unit_vectors(encodings: Tensor) -> Tensor:
    """Scale every vector to length 1, in at least float32.

    Args:
        encodings: floating tensor ``(..., d)``.

    Returns:
        The same shape, float32 for half-precision input. A vector shorter than 1e-12 counts as 0: it is returned
        unchanged (its similarity to anything is 0 up to rounding) and passes its gradient on unscaled, so that it
        gives neither NaN nor infinity. Differentiable once.
    """
    if encodings.dtype in (torch.float16, torch.bfloat16):
        encodings = encodings.float()
    units: Tensor = _UnitVectors.apply(encodings)  # type: ignore[no-untyped-call]
    return units


def stacked_unit_vectors(*encodings: Tensor) -> Tensor:
    """Stack encodings, each ``(B, d)``, as unit vectors ``(B, m, d)``, in at least float32 also under autocast."""
    with full_precision(encodings[0]):
        return unit_vectors(torch.stack(encodings, 1))


def stacked_vectors(*encodings: Tensor) -> Tensor:
    """Stack encodings, each ``(B, d)``, without scaling, ``(B, m, d)``, in at least float32 also under autocast."""
    with full_precision(encodings[0]):
        vectors = torch.stack(encodings, 1)
        return vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off for the device of ``like``: products of vectors stay in their own dtype."""
    device = like.device.type
    if is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def elements_at_once(device: torch.device) -> int:
    """The number of elements of one chunk of a matrix: few enough for a CPU's cache, enough to fill another device."""
    return 2**18 if device.type == "cpu" else 2**25  # 1 and 128 MiB of float32


def rows_of(vectors: Tensor, rows: slice | None) -> Tensor:
    """Pick the users whose encodings are anchors, as a view; None: all."""
    return vectors if rows is None else vectors[rows]


def similarity_chunks(
    vectors: Tensor, stride: int, chunk_size: int | None, rows: slice | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Visit the similarities of all anchors to all encodings of the batch, a few users at a time.

    Args:
        vectors: ``(B, m, d)``; every ``stride``-th of a user is an anchor, the first included.
        stride: a divisor of m.
        chunk_size: rows (anchors) of the matrix held at once, at least one user's; None chooses for the device.
        rows: users whose encodings are anchors (in a gathered batch, those of this process), n of them; None: all.

    Yields:
        The users, counted from the first of ``rows``, and the similarities of their anchors
        ``(users, m / stride, B, m)``: contiguous and writable; the next chunk overwrites it. (A fresh tensor per
        chunk would lie between the small results that a caller keeps, and the heap could grow to the size of the
        whole matrix.)
    """
    batch_size, per_user, _ = vectors.shape
    keys = vectors.flatten(0, 1).t().contiguous()  # (d, B * m); products with the copy take less time
    anchors = rows_of(vectors, rows)[:, ::stride]
    n_users, n_anchors = anchors.shape[:2]
    if chunk_size is None:
        chunk_size = max(_MIN_CHUNK_ROWS, elements_at_once(vectors.device) // keys.shape[1])
    step = max(1, min(n_users, chunk_size // n_anchors))
    buffer = vectors.new_empty(step * n_anchors, keys.shape[1])
    for start in range(0, n_users, step):
        users = slice(start, min(start + step, n_users))
        chunk = anchors[users].flatten(0, 1)
        scores = torch.mm(chunk, keys, out=buffer[: len(chunk)])  # (users * anchors, B * m)
        yield users, scores.view(-1, n_anchors, batch_size, per_user)


def exclude_own_(
    scores: Tensor, users: slice, user_ids: Tensor | None, value: float, rows: slice | None = None
) -> Tensor:
    """Overwrite, in place, the entries of pairs of rows that are not negatives of each other.

    Args:
        scores: ``(users, anchors, B, m)`` as from :func:`similarity_chunks`.
        users: which users the rows belong to.
        user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column are not negatives of each
            other. None: a row is not a negative of itself.
        value: what to write.
        rows: as given to :func:`similarity_chunks`.

    Returns:
        ``scores``.
    """
    if rows is not None:
        users = slice(users.start + rows.start, users.stop + rows.start)
    if user_ids is None:
        scores[:, :, users].diagonal(dim1=0, dim2=2).fill_(value)
        return scores
    return scores.masked_fill_(_share_an_id(users, user_ids)[:, None, :, None], value)


def _share_an_id(users: slice, user_ids: Tensor) -> Tensor:
    """Tell which rows of the batch share an id in any column with each of ``users``: bool ``(users, B)``."""
    if user_ids.dim() == 1:
        return user_ids[users, None] == user_ids
    columns = user_ids.t().contiguous()  # (k, B)
    same = columns[0, users, None] == columns[0]
    for column in columns[1:]:
        same |= column[users, None] == column
    return same


def valid_negatives(user_ids: Tensor, rows: slice | None = None) -> Tensor:
    """Count, for every row, the rows of the batch that are negatives of it: int64 ``(B,)``.

    Args:
        user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column are not negatives of each
            other. Memory is linear in B.
        rows: count only for these n rows, ``(n,)``; None: for all.
    """
    if user_ids.dim() == 1:
        return rows_of(len(user_ids) - _equal_rows(user_ids)[0], rows)
    first, *others = user_ids.unbind(1)
    if not others:
        return valid_negatives(first, rows)
    if len(others) == 1:
        # |A or B| = |A| + |B| - |A and B|. A pair of ids becomes one number by the ranks of both.
        in_first, first_place = _equal_rows(first)
        in_second, second_place = _equal_rows(others[0])
        in_both, _ = _equal_rows(first_place * len(user_ids) + second_place)
        return rows_of(len(user_ids) - (in_first + in_second - in_both), rows)
    counts = [torch.empty(0, dtype=torch.int64, device=user_ids.device)]
    begin, end = (0, len(user_ids)) if rows is None else (rows.start, rows.stop)
    for start in range(begin, end, _COUNTED_AT_ONCE):
        users = slice(start, min(start + _COUNTED_AT_ONCE, end))
        counts.append((~_share_an_id(users, user_ids)).sum(1))
    return torch.cat(counts)


def _equal_rows(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Count the rows of ``(B,)`` with the same id as each row, itself included, and those with a smaller id."""
    # By sorting, so that memory stays linear in B.
    ids = ids.contiguous()
    ordered = ids.sort().values
    first = torch.searchsorted(ordered, ids)
    last = torch.searchsorted(ordered, ids, right=True)
    return last - first, first
