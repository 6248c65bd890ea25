"""Re-identification of users across time: a measure of user vectors that needs no labels.

Every user's history is cut into two halves (:meth:`~adaptssr_plugin.corpus.BehaviourCorpus.halves`). The vector of the
newer half has to find the user's older half among those of all users, by cosine. Fitted models may have seen only the
older halves: with the newer ones the numbers measure memory and mean nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..corpus.svd_items import item_counts
from ..encoders import UserEncoder
from ..errors import InputError, check_count, check_kind
from ..functional.similarity import unit_vectors
from ..training.serving import user_vectors
from .ranking import hit_at, reciprocal_rank

if TYPE_CHECKING:
    from ..corpus import BehaviourCorpus

CHANCE, TFIDF_COSINE, LSA_COSINE = "Chance", "TF-IDF cosine", "LSA cosine"
_TIE = 1e-6  # larger than the rounding error of equal similarities in float32
_ELEMENTS = 1 << 25  # similarities held at once


@torch.no_grad()
def reidentification_ranks(older: Tensor, newer: Tensor, chunk_size: int | None = None) -> Tensor:
    """Rank every user's own older half among those of all users, by cosine with the newer half.

    The own one ranks after all others of the same similarity (pessimistic ties). Similarities within 1e-6 count as
    equal, so that rounding breaks no ties: a collapsed encoder finds no one. A zero vector is equally similar to all.

    Args:
        older: floating ``(N, d)``, N at least 1.
        newer: ``(N, d)`` of the same dtype on the same device; row i belongs to the same user.
        chunk_size: rows of the ``(N, N)`` similarities held at once; None: 128 MB of float32.

    Returns:
        int64 ``(N,)`` on that device, 1 for the first place.

    Raises:
        InputError: shapes, dtypes or devices that differ, or vectors that are not finite.
    """
    for name, vectors in (("older", older), ("newer", newer)):
        check_kind(name, vectors, Tensor, "a tensor")
        usable = vectors.layout == torch.strided and not vectors.is_meta and vectors.is_floating_point()
        if not usable or vectors.dim() != 2 or 0 in vectors.shape:
            raise InputError(
                f"{name}: expected a floating, dense tensor of shape (N, d) with values, got {vectors.dtype}, "
                f"{vectors.layout} of shape {tuple(vectors.shape)} on {vectors.device}"
            )
    if newer.shape != older.shape or newer.dtype != older.dtype or newer.device != older.device:
        raise InputError(
            f"newer: expected {older.dtype} of shape {tuple(older.shape)} on {older.device} as older, got "
            f"{newer.dtype} of {tuple(newer.shape)} on {newer.device}"
        )
    for name, vectors in (("older", older), ("newer", newer)):
        if not bool(vectors.isfinite().all()):
            raise InputError(f"{name}: expected finite vectors, got NaN or infinity among them")
    older, newer = unit_vectors(older), unit_vectors(newer)
    return _ranks(len(older), chunk_size, lambda part: newer[part] @ older.T)


def _ranks(n_users: int, chunk_size: int | None, similarities: Callable[[slice], Tensor]) -> Tensor:
    """Rank from the rows of the similarities ``(N, N)`` that ``similarities`` returns."""
    check_count("chunk_size", chunk_size, optional=True)
    ranks = []
    step = chunk_size or max(1, _ELEMENTS // n_users)
    for start in range(0, n_users, step):
        rows = similarities(slice(start, start + step))
        own = rows.diagonal(start)[:, None]
        ranks.append((rows >= own - _TIE).view(torch.int8).sum(1, dtype=torch.int32))  # twice as fast as of bool
    return torch.cat(ranks).long()


def reidentification_metrics(ranks: Tensor) -> dict[str, float]:
    """Average HR@1, HR@10 and MRR, fractions in [0, 1], from ranks ``(N,)``."""
    values = {"HR@1": hit_at(ranks, 1), "HR@10": hit_at(ranks, 10), "MRR": reciprocal_rank(ranks)}
    return {name: float(value.mean()) for name, value in values.items()}


def chance(n_users: int) -> dict[str, float]:
    """Return the expectation of the same metrics for a random order of ``n_users`` users."""
    check_count("n_users", n_users)
    return reidentification_metrics(torch.arange(1, n_users + 1))


def reidentify(
    encoder: UserEncoder,
    older: "BehaviourCorpus",
    newer: "BehaviourCorpus",
    max_len: int,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Return the metrics of an encoder, which reads the newest ``max_len`` behaviours of each half, dropout off.

    Args:
        encoder: moved to ``device`` and put in evaluation mode.
        older: from :meth:`BehaviourCorpus.halves`; the encoder may have been trained on nothing else.
        newer: likewise.
        max_len: at most that of the encoder.
        batch_size: users encoded at once.
        device: where to encode.

    Raises:
        InputError: no users.
    """
    _check_halves(older, newer)
    encoder = encoder.to(device).eval()
    old, new = (
        torch.from_numpy(user_vectors(encoder, half, max_len, batch_size, device)).to(device) for half in (older, newer)
    )
    return reidentification_metrics(reidentification_ranks(old, new))


def plain_reidentification(
    older: "BehaviourCorpus", newer: "BehaviourCorpus", max_len: int, dim: int
) -> dict[str, dict[str, float]]:
    """Return the metrics of baselines without an encoder, by name: chance, the cosines of TF-IDF and of LSA.

    A half is the bag of its newest ``max_len`` items. Inverse document frequencies, and the truncated SVD of the
    weighted counts onto which LSA projects both halves, are computed from the older halves. Deterministic.

    Args:
        older: from :meth:`BehaviourCorpus.halves`.
        newer: likewise.
        max_len: as for the encoder in the table.
        dim: length of LSA's vectors; smaller if there are fewer users or items.

    Raises:
        InputError: no users.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    _check_halves(older, newer)
    rows = np.arange(len(older))
    counts = [item_counts(half, rows, max_len) for half in (older, newer)]
    weighting = TfidfTransformer().fit(counts[0])
    old, new = (weighting.transform(half) for half in counts)
    projection = TruncatedSVD(min(dim, *old.shape), random_state=0).fit(old)
    old_lsa, new_lsa = (torch.from_numpy(projection.transform(half)) for half in (old, new))
    ranks = {
        TFIDF_COSINE: _ranks(len(older), None, lambda part: torch.from_numpy((new[part] @ old.T).toarray())),
        LSA_COSINE: reidentification_ranks(old_lsa, new_lsa),
    }
    return {CHANCE: chance(len(older)), **{name: reidentification_metrics(found) for name, found in ranks.items()}}


def _check_halves(older: "BehaviourCorpus", newer: "BehaviourCorpus") -> None:
    """Raise InputError unless there are users, and the same number in both."""
    if len(older) == 0 or len(newer) != len(older):
        raise InputError(
            f"halves: expected users with two behaviours or more, as many of both, got {len(older)} and {len(newer)}"
        )
