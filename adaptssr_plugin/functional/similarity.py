"""Cosine similarity, and the similarity matrix of a batch visited a few users at a time.

Every loss of this package compares some encodings of a user, the anchors, with all encodings of other users.
Encodings of one batch are stacked as ``(B, m, d)``: m of them per user. So which pairs are negatives follows
from the place alone, and no mask of the whole matrix is ever built.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available
from torch.autograd.function import once_differentiable

# Elements of the similarity matrix held at once. On a CPU the chunk should stay in the cache: at B = 4,096
# this makes 128 rows. Elsewhere larger chunks keep the device busy (2**25 float32 are 128 MiB).
_CPU_CHUNK_ELEMENTS = 2**21
_DEVICE_CHUNK_ELEMENTS = 2**25
_MIN_CHUNK_ROWS = 64


class _UnitVectors(torch.autograd.Function):
    """x / |x|, with the projection as its backward: at small B the number of small operations is the time."""

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
        The same shape, float32 for half-precision input. A vector shorter than 1e-12 counts as 0: it
        stays as it is (its similarity to anything is 0 but for rounding) and passes its gradient on unscaled, so
        that it gives neither NaN nor infinity.
        Differentiable once.
    """
    if encodings.dtype in (torch.float16, torch.bfloat16):
        encodings = encodings.float()
    units: Tensor = _UnitVectors.apply(encodings)  # type: ignore[no-untyped-call]
    return units


def stacked_unit_vectors(*encodings: Tensor) -> Tensor:
    """Stack encodings, each ``(B, d)``, as unit vectors ``(B, m, d)``, in at least float32 also under autocast."""
    with full_precision(encodings[0]):
        return unit_vectors(torch.stack(encodings, 1))


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off for the device of ``like``: products of unit vectors stay in their own dtype."""
    device = like.device.type
    if is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _users_at_once(n_users: int, n_anchors: int, n_keys: int, device: torch.device, chunk_size: int | None) -> int:
    """Users whose rows of the similarity matrix are held at once; at least one."""
    if chunk_size is None:
        elements = _CPU_CHUNK_ELEMENTS if device.type == "cpu" else _DEVICE_CHUNK_ELEMENTS
        chunk_size = max(_MIN_CHUNK_ROWS, elements // n_keys)
    return min(n_users, max(1, chunk_size // n_anchors))


def similarity_chunks(units: Tensor, stride: int, chunk_size: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Visit the similarities of all anchors to all encodings of the batch, a few users at a time.

    Args:
        units: unit vectors ``(B, m, d)``; every ``stride``-th of a user is an anchor, the first included.
        stride: a divisor of m.
        chunk_size: rows (anchors) of the matrix held at once, at least one user's; None chooses for the device.

    Yields:
        The users, and the similarities of their anchors ``(users, m / stride, B, m)``: contiguous, and free to
        be written to, but the next chunk overwrites it. (A fresh tensor per chunk would lie between the small
        results that a caller keeps, and the heap could grow to the size of the whole matrix.)
    """
    batch_size, per_user, _ = units.shape
    keys = units.flatten(0, 1).t()  # (d, B * m)
    anchors = units[:, ::stride]
    n_anchors = anchors.shape[1]
    step = _users_at_once(batch_size, n_anchors, keys.shape[1], units.device, chunk_size)
    buffer = units.new_empty(step * n_anchors, keys.shape[1])
    for start in range(0, batch_size, step):
        users = slice(start, min(start + step, batch_size))
        chunk = anchors[users].flatten(0, 1)
        scores = torch.mm(chunk, keys, out=buffer[: len(chunk)])  # (users * anchors, B * m)
        yield users, scores.view(-1, n_anchors, batch_size, per_user)


def exclude_own_(scores: Tensor, users: slice, user_ids: Tensor | None, value: float) -> Tensor:
    """Overwrite, in place, what belongs to pairs of one and the same user.

    Args:
        scores: ``(users, anchors, B, m)`` as from :func:`similarity_chunks`.
        users: which users the rows belong to.
        user_ids: ``(B,)`` integers; rows of the same id are the same user. None: all B differ.
        value: what to write.

    Returns:
        ``scores``.
    """
    if user_ids is None:
        scores[:, :, users].diagonal(dim1=0, dim2=2).fill_(value)
        return scores
    same = user_ids[users, None] == user_ids  # (users, B)
    return scores.masked_fill_(same[:, None, :, None], value)


def valid_negatives(user_ids: Tensor) -> Tensor:
    """Count, for every row, the rows of the batch that belong to other users: int64 ``(B,)``."""
    # By sorting, so that memory stays linear in B.
    user_ids = user_ids.contiguous()
    ordered = user_ids.sort().values
    first = torch.searchsorted(ordered, user_ids)
    last = torch.searchsorted(ordered, user_ids, right=True)
    return len(user_ids) - (last - first)
