"""The search for the hardest negative as one Triton kernel, which keeps no part of the similarity matrix in memory.

A program takes a block of anchors and a share of the encodings. It computes the products block by block, excludes the
pairs that are not negatives, and keeps the running maximum and its place. It writes one value and one row number per
anchor. If several programs share the encodings, their results are compared at the end.

The tests compare it with the torch search (:func:`.search.search`): on a CPU through Triton's interpreter, on a GPU
with ``pytest -m gpu``.

Products of float32 run on the tensor cores as three products of TF32, which together are accurate to about 3e-7. They
only decide which encoding wins; the similarity to the winner is then computed in float32.

Triton is imported by the first search, so that the package works without it.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

if TYPE_CHECKING:
    import triton.language as tl  # bound by _kernel

NOT_INSTALLED = "implementation: 'triton' needs triton, which is not installed: pip install triton"

_PROGRAMS_PER_MULTIPROCESSOR = 4  # at least, if there is enough work
_INTERPRETED_PROGRAMS = 6  # the interpreter has no multiprocessors; more than one, so that shares are tested too


class Blocks(NamedTuple):
    """What one program of the kernel holds at once."""

    anchors: int
    keys: int
    dim: int
    warps: int


def _search_kernel(
    vectors: tl.tensor,  # (B * m, d), contiguous
    ids: tl.tensor,  # (k, B), contiguous; any tensor if n_columns is 0
    values: tl.tensor,  # (shares, anchors)
    winners: tl.tensor,  # (shares, anchors), int32
    n_anchors: tl.tensor,
    n_keys: tl.tensor,
    keys_per_share: tl.tensor,  # a multiple of block_keys
    per_user: tl.constexpr,
    stride: tl.constexpr,
    dim: tl.constexpr,
    n_columns: tl.constexpr,
    block_anchors: tl.constexpr,
    block_keys: tl.constexpr,
    block_dim: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    share = tl.program_id(1)
    anchors = tl.program_id(0) * block_anchors + tl.arange(0, block_anchors)
    is_anchor = anchors < n_anchors
    anchor_users = anchors * stride // per_user
    # Offsets into the encodings can exceed 32 bits; row numbers cannot.
    anchor_at = vectors + (anchors * stride).to(tl.int64)[:, None] * dim
    first = share * keys_per_share
    last = tl.minimum(first + keys_per_share, n_keys)
    # Every element of the block keeps its maximum and place; they are compared with one another once, at the end.
    best = tl.full((block_anchors, block_keys), float("-inf"), values.dtype.element_ty)
    block_of_best = tl.zeros((block_anchors, block_keys), tl.int32)
    for start in range(first, last, block_keys):
        keys = start + tl.arange(0, block_keys)
        is_key = keys < n_keys
        key_at = vectors + keys.to(tl.int64)[None, :] * dim
        scores = tl.zeros((block_anchors, block_keys), values.dtype.element_ty)
        for begin in range(0, dim, block_dim):
            parts = begin + tl.arange(0, block_dim)
            a = tl.load(anchor_at + parts[None, :], mask=is_anchor[:, None] & (parts < dim)[None, :], other=0.0)
            b = tl.load(key_at + parts[:, None], mask=is_key[None, :] & (parts < dim)[:, None], other=0.0)
            scores = tl.dot(a, b, scores, input_precision=precision, out_dtype=values.dtype.element_ty)
        key_users = keys // per_user
        excluded = (anchor_users[:, None] == key_users[None, :]) | ~is_key[None, :]
        for column in tl.static_range(n_columns):
            at = ids + column * (n_keys // per_user)
            anchor_ids = tl.load(at + anchor_users, mask=is_anchor, other=0)
            key_ids = tl.load(at + key_users, mask=is_key, other=0)
            excluded = excluded | (anchor_ids[:, None] == key_ids[None, :])
        scores = tl.where(excluded, float("-inf"), scores)
        better = (scores > best) | (scores != scores)  # NaN wins, as in torch
        best = tl.where(better, scores, best)
        block_of_best = tl.where(better, start, block_of_best)
    is_nan = (best != best).to(tl.int32)
    has_nan = tl.max(is_nan, axis=1)
    top = tl.max(tl.where(is_nan == 1, float("-inf"), best), axis=1)
    wins = tl.where((has_nan == 1)[:, None], is_nan == 1, best == top[:, None])
    places = block_of_best + tl.arange(0, block_keys)[None, :]
    winner = tl.min(tl.where(wins, places, n_keys), axis=1)  # the first of equal ones
    at = share.to(tl.int64) * n_anchors + anchors
    tl.store(values + at, tl.where(has_nan == 1, float("nan"), top), mask=is_anchor)
    tl.store(winners + at, winner, mask=is_anchor)


def blocks_for(dim: int, dtype: torch.dtype) -> Blocks:
    """Choose the block sizes: by d, so that little padding is computed, and by the width of a number.

    The sizes for float32 come from a sweep on an H100 at d = 64. Those for float64 were not tuned.
    """
    if dtype == torch.float64:
        return Blocks(anchors=64, keys=64, dim=16, warps=8)
    return Blocks(anchors=64, keys=64, dim=16 if dim <= 16 else 32 if dim <= 32 else 64, warps=4)


def is_measured(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether "auto" takes the kernel on this device: compute capability 9, not float64, Triton installed."""
    if device.type != "cuda" or not torch.cuda.is_available() or dtype == torch.float64:
        return False
    return torch.cuda.get_device_capability(device)[0] == 9 and is_installed()


def is_installed() -> bool:
    """Tell whether Triton can be imported, without importing it."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _kernel() -> Any:
    """Import Triton and compile the kernel, once."""
    global tl
    try:
        import triton
        import triton.language as tl
    except ImportError as error:
        raise InputError(NOT_INSTALLED) from error
    return triton.jit(_search_kernel)


def is_interpreted() -> bool:
    """Tell whether Triton's interpreter runs the kernel (``TRITON_INTERPRET=1`` when Triton was imported)."""
    kernel = _kernel()
    from triton.runtime.jit import JITFunction

    return not isinstance(kernel, JITFunction)


def _shares(n_anchor_blocks: int, n_key_blocks: int, device: torch.device) -> tuple[int, int]:
    """Split the blocks of keys into shares, enough programs to fill the device: their number, and blocks per share."""
    programs = _INTERPRETED_PROGRAMS
    if device.type == "cuda":
        programs = _PROGRAMS_PER_MULTIPROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
    wanted = min(n_key_blocks, -(-programs // n_anchor_blocks))
    blocks = -(-n_key_blocks // wanted)
    return -(-n_key_blocks // blocks), blocks


def search(vectors: Tensor, stride: int, user_ids: Tensor | None, chunk_size: int | None) -> tuple[Tensor, Tensor]:
    """Find every anchor's largest similarity to another user, without autograd.

    As :func:`.search.search`, with these differences. Values are exact float32 (never TF32, whatever torch's setting)
    or float64. Half-precision vectors are multiplied in float32. Of equal similarities the first wins; of similarities
    that differ by less than about 3e-7 either may win. In both, NaN wins over everything.

    Args:
        vectors: floating ``(B, m, d)``, of any length; every ``stride``-th of a user is an anchor, the first included.
        stride: a divisor of m.
        user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column are not negatives of each
            other. None: a row is not a negative of itself.
        chunk_size: ignored, since no rows of the matrix are held; present so that both searches have one signature.

    Returns:
        The similarities ``(B, m / stride)``, -inf where a row has no negative, and the winners ``(B * m / stride,)``,
        int64: row numbers in the ``(B * m, d)`` encodings.

    Raises:
        InputError: Triton is not installed.
    """
    del chunk_size
    kernel = _kernel()
    batch_size, per_user, dim = vectors.shape
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    flat = vectors.detach().to(dtype).flatten(0, 1).contiguous()  # (B * m, d)
    columns = None if user_ids is None else user_ids.view(batch_size, -1).t().contiguous()  # (k, B)
    n_keys, n_anchors = len(flat), len(flat) // stride
    blocks = blocks_for(dim, dtype)
    n_anchor_blocks = -(-n_anchors // blocks.anchors)
    n_shares, blocks_per_share = _shares(n_anchor_blocks, -(-n_keys // blocks.keys), vectors.device)
    values = flat.new_empty(n_shares, n_anchors)
    winners = torch.empty_like(values, dtype=torch.int32)
    # The kernel runs on the current device; on a CPU this changes nothing.
    with torch.cuda.device_of(flat):  # type: ignore[no-untyped-call]
        kernel[(n_anchor_blocks, n_shares)](
            flat,
            winners if columns is None else columns,
            values,
            winners,
            n_anchors,
            n_keys,
            blocks_per_share * blocks.keys,
            per_user=per_user,
            stride=stride,
            dim=dim,
            n_columns=0 if columns is None else len(columns),
            block_anchors=blocks.anchors,
            block_keys=blocks.keys,
            block_dim=blocks.dim,
            precision="ieee" if dtype == torch.float64 else "tf32x3",
            num_warps=blocks.warps,
        )
    best, share = values.max(0)
    winner = winners.gather(0, share[None])[0].long()
    exact = flat[winner.clamp_max(n_keys - 1)].mul_(flat[::stride]).sum(1)
    best = torch.where(best.isfinite(), exact, best)
    return best.to(vectors.dtype).view(batch_size, -1), winner
