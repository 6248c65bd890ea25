"""Ranking metrics of cold recommendation: one target per row, the user's other positives left out (spec §4.3)."""

from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError

Ties = Literal["pessimistic", "optimistic", "mean"]


def target_ranks(
    scores: Tensor, targets: Tensor, known_rows: Tensor, known_items: Tensor, ties: Ties = "pessimistic"
) -> Tensor:
    """Rank every row's target among all items but the user's other positives.

    Args:
        scores: floating ``(R, N)``, of all items of the label space.
        targets: int64 ``(R,)``, the item that each row asks for.
        known_rows: int64 ``(K,)``; with ``known_items``, pairs of a row and an item that is a positive of its user,
            from whichever split. The target itself may be among them, and a pair may come twice.
        known_items: int64 ``(K,)``.
        ties: where a target stands among items of its own score: behind all, before all, or in the middle.

    Returns:
        float64 ``(R,)``, 1 for the first place.

    Raises:
        InputError: shapes that do not agree, or another word for ``ties``.
    """
    rows = torch.arange(len(scores), device=scores.device)
    if scores.dim() != 2 or targets.shape != scores.shape[:1]:
        raise InputError(
            f"targets: expected shape (R,) beside scores (R, N), got {tuple(targets.shape)} and {tuple(scores.shape)}"
        )
    if known_rows.dim() != 1 or known_rows.shape != known_items.shape:
        raise InputError(
            f"known_items: expected shape {tuple(known_rows.shape)} as known_rows, got {tuple(known_items.shape)}"
        )
    if ties not in ("pessimistic", "optimistic", "mean"):
        raise InputError(f"ties: expected pessimistic, optimistic or mean, got {ties!r}")
    own = scores[rows, targets]
    # The target last, so that it stays even where it is one of the known.
    masked = scores.index_put((known_rows, known_items), scores.new_tensor(-torch.inf)).index_put((rows, targets), own)
    before = (masked > own[:, None]).sum(1)
    beside = (masked == own[:, None]).sum(1) - 1
    share = {"pessimistic": 1.0, "optimistic": 0.0, "mean": 0.5}[ties]
    return 1 + before + share * beside.double()


def ndcg_at(ranks: Tensor, k: int = 10) -> Tensor:
    """Give 1 / log2(rank + 1) for ranks up to k, and 0 beyond: ``(R,)``; with one positive the ideal is 1."""
    return torch.where(ranks <= k, 1 / torch.log2(ranks.double() + 1), 0.0)


def hit_at(ranks: Tensor, k: int = 10) -> Tensor:
    """Give 1 for ranks up to k, and 0 beyond: ``(R,)``."""
    return (ranks <= k).double()


def reciprocal_rank(ranks: Tensor) -> Tensor:
    """Give 1 / rank: ``(R,)``."""
    return 1 / ranks.double()
