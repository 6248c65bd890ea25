"""Ranking metrics of cold recommendation: one target per row, without the user's other positives."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, check_count, check_kind

Ties = Literal["pessimistic", "optimistic", "mean"]
RANKING_METRICS = ("NDCG@10", "NDCG@5", "NDCG@20", "MRR", "HR@5", "HR@10", "HR@20")  # epochs are chosen by the first


def target_ranks(
    scores: Tensor, targets: Tensor, known_rows: Tensor, known_items: Tensor, ties: Ties = "pessimistic"
) -> Tensor:
    """Rank every row's target among all items except the user's other positives.

    Args:
        scores: floating ``(R, N)``, of all items of the label space.
        targets: int64 ``(R,)``, the target item of each row.
        known_rows: int64 ``(K,)``; with ``known_items``, pairs of a row and an item that is a positive of its user,
            from any split. The target itself may be among them, and pairs may repeat.
        known_items: int64 ``(K,)``.
        ties: the rank of a target among items of the same score: after all, before all, or in the middle.

    Returns:
        float64 ``(R,)``, 1 for the first place; NaN for a row with a NaN among its scores.

    Raises:
        InputError: shapes that do not agree, or another word for ``ties``.
    """
    _check_tensor("scores", scores, floating=True)
    for name, indices in (("targets", targets), ("known_rows", known_rows), ("known_items", known_items)):
        _check_tensor(name, indices)
        if indices.dtype != torch.int64 or indices.device != scores.device:
            raise InputError(f"{name}: expected int64 on {scores.device}, got {indices.dtype} on {indices.device}")
    if scores.dim() != 2 or targets.shape != scores.shape[:1]:
        raise InputError(
            f"targets: expected shape (R,) beside scores (R, N), got {tuple(targets.shape)} and {tuple(scores.shape)}"
        )
    if known_rows.dim() != 1 or known_rows.shape != known_items.shape:
        raise InputError(
            f"known_items: expected shape {tuple(known_rows.shape)} as known_rows, got {tuple(known_items.shape)}"
        )
    if not isinstance(ties, str) or ties not in ("pessimistic", "optimistic", "mean"):
        raise InputError(f"ties: expected pessimistic, optimistic or mean, got {ties!r}")
    rows = torch.arange(len(scores), device=scores.device)
    own = scores[rows, targets]
    # The other positives are counted with the rest and then subtracted, which avoids a masked copy of all scores.
    known = torch.unique(known_rows * scores.shape[1] + known_items)
    known = known[known % scores.shape[1] != targets[known // scores.shape[1]]]  # a target stays where it is
    at = known // scores.shape[1]
    others = scores.flatten()[known]
    off = torch.zeros(2, len(scores), dtype=torch.int64, device=scores.device)
    off.scatter_add_(1, at.expand(2, -1), torch.stack([others > own[at], others == own[at]]).long())
    before, reached = (counts - taken for counts, taken in zip(_above(scores, own), (off[0], off.sum(0)), strict=True))
    ranks = ranks_of(before, reached - before - 1, ties)
    # Comparisons with NaN are false: without this the scores of a model that has diverged would all rank first.
    return ranks.masked_fill(scores.amax(1).isnan(), torch.nan)


def ranks_of(before: Tensor, beside: Tensor, ties: Ties) -> Tensor:
    """Return float64 ranks for targets from the number of items before them and of others with the same score."""
    share = {"pessimistic": 1.0, "optimistic": 0.0, "mean": 0.5}[ties]
    return 1 + before + share * beside.double()


def _above(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Count in every row the scores above the target's, and those at least as large: (R,) int64 each."""
    if scores.device.type != "cpu" or scores.dtype == torch.bfloat16:  # numpy has none
        return (scores > own[:, None]).sum(1), (scores >= own[:, None]).sum(1)
    counts = torch.empty(2, len(scores), dtype=torch.int64)
    # numpy counts true values several times faster than torch adds them, in blocks that stay in the cache.
    rows_at_once = max(1, (1 << 18) // scores.shape[1])
    for start in range(0, len(scores), rows_at_once):
        block = slice(start, start + rows_at_once)
        values, bound = scores[block].detach().numpy(), own[block, None].detach().numpy()
        counts[0, block] = torch.from_numpy(np.count_nonzero(values > bound, axis=1))
        counts[1, block] = torch.from_numpy(np.count_nonzero(values >= bound, axis=1))
    return counts[0], counts[1]


def ndcg_at(ranks: Tensor, k: int = 10) -> Tensor:
    """Return 1 / log2(rank + 1) for ranks up to k, and 0 beyond: ``(R,)``; with one positive the ideal is 1."""
    _check_ranks(ranks, k)
    return torch.where(ranks <= k, 1 / torch.log2(ranks.double() + 1), 0.0)


def hit_at(ranks: Tensor, k: int = 10) -> Tensor:
    """Return 1 for ranks up to k, and 0 beyond: ``(R,)``."""
    _check_ranks(ranks, k)
    return (ranks <= k).double()


def reciprocal_rank(ranks: Tensor) -> Tensor:
    """Return 1 / rank: ``(R,)``."""
    _check_ranks(ranks)
    return 1 / ranks.double()


def ranking_metrics(ranks: Tensor) -> dict[str, float]:
    """Average the :data:`RANKING_METRICS` over ranks ``(R,)``, NDCG@10 first; NaN if a rank is NaN."""
    _check_ranks(ranks)
    if ranks.isnan().any():
        return dict.fromkeys(RANKING_METRICS, math.nan)
    values = {f"NDCG@{k}": ndcg_at(ranks, k) for k in (10, 5, 20)}
    values["MRR"] = reciprocal_rank(ranks)
    values |= {f"HR@{k}": hit_at(ranks, k) for k in (5, 10, 20)}
    return {name: float(values[name].mean()) for name in RANKING_METRICS}


def _check_ranks(ranks: Tensor, k: int = 1) -> None:
    _check_tensor("ranks", ranks)
    check_count("k", k)
    if ranks.dim() != 1 or ranks.is_complex():
        raise InputError(f"ranks: expected numbers of shape (R,), got {ranks.dtype} of shape {tuple(ranks.shape)}")


def _check_tensor(name: str, value: Tensor, floating: bool = False) -> None:
    check_kind(name, value, Tensor, "a tensor")
    if value.layout != torch.strided or (floating and not value.is_floating_point()):
        kind = "floating and dense" if floating else "dense"
        raise InputError(f"{name}: expected a tensor that is {kind}, got {value.dtype}, {value.layout}")
