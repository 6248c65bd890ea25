"""Eq. 5-7 of the paper: multiple pairwise ranking with an augmentation-adaptive coefficient.

Symbols, for user i: ``a = û``, ``a⁺ = û⁺`` (the first augmented view under two dropout masks), ``b = ũ``,
``b⁺ = ũ⁺`` (the second view), all unit vectors. For the anchor a:

* ``P = a · a⁺``: the implicit view, which should be nearest;
* ``V = {a · b, a · b⁺}``: the explicitly augmented view;
* ``W = {a · x_j : j ≠ i, x ∈ {a, a⁺, b, b⁺}}``: the 4(B - 1) encodings of other users.

For the anchor b the two views are swapped. Both sides are computed at once: the unit vectors are stacked as
``(B, 4, d)`` in the order a, a⁺, b, b⁺, and a result ``(B, 2, ...)`` holds the anchor a first, then b.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .hardest_negative import hardest_negative, scatter_to_winners_
from .search import Implementation, find_winners
from .similarity import exclude_own_, full_precision, rows_of, similarity_chunks, valid_negatives
from .soft_negative import find_soft_negatives, log_of_count, spread_over_negatives_

_STRIDE = 2  # every second of a, a⁺, b, b⁺ is an anchor


class RankedPairs(NamedTuple):
    """What Eq. 5 and 6 compare, for both anchors of every row."""

    loss: Tensor
    """``(B, 2)``: L̂ᵢ and L̃ᵢ; 0 where a row has no negative."""
    positive: Tensor
    """``(B, 2)``: P."""
    augmented: Tensor
    """``(B, 2, 2)``: V."""
    hardest: Tensor
    """``(B, 2)``: max W; -inf where a row has no negative."""


class _IntraUserSimilarities(torch.autograd.Function):
    """units @ unitsᵀ per user; under autocast the backward, too, stays in the dtype of the units."""

    @staticmethod
    def forward(ctx: Any, units: Tensor) -> Tensor:
        ctx.save_for_backward(units)
        with full_precision(units):
            return units @ units.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (units,) = ctx.saved_tensors
        with full_precision(units):
            grad_units: Tensor = (grad + grad.mT) @ units
        return grad_units


def intra_user_similarities(units: Tensor) -> Tensor:
    """Compare the four encodings of each user with one another: unit vectors ``(B, 4, d)`` to ``(B, 4, 4)``."""
    own: Tensor = _IntraUserSimilarities.apply(units)  # type: ignore[no-untyped-call]
    return own


def adaptive_coefficient(cross: Tensor, terms: int = 4, clamp: bool = True) -> Tensor:
    """Eq. 7: λᵢ = 1 - ¼ Σ_{s ∈ {a, a⁺}} Σ_{t ∈ {b, b⁺}} max(s · t, 0).

    The more similar the two augmented views are, the smaller λ is: then the augmented view is ranked against other
    users rather than against the implicit view.

    Args:
        cross: similarities ``(..., 2, 2)``: [anchor's encodings, other view's encodings].
        terms: 4 as in the paper; 2 takes those of the anchor a alone (1 - ½ Σ_t), as the authors' code does.
        clamp: max(·, 0) of every term; without it λ can exceed 1.

    Returns:
        ``(...)``, in [0, 1] if clamped.
    """
    similarities = cross if terms == 4 else cross[..., :1, :]
    if not clamp:
        return 1 - similarities.mean((-2, -1))
    # The product of two unit vectors can exceed 1 by a rounding error.
    return (1 - similarities.clamp_min(0).mean((-2, -1))).clamp_min(0)


def _implicit_and_augmented(own: Tensor) -> tuple[Tensor, Tensor]:
    """Pick P ``(B, 2)`` and V ``(B, 2, 2)`` of both anchors as views of a user's own similarities ``(B, 4, 4)``."""
    # Row by row the sixteen are a·a a·a⁺ a·b a·b⁺ | … | b·a b·a⁺ b·b b·b⁺ | …: P stands at 1 and 11, V at 2, 3, 8, 9.
    flat = own.flatten(1)
    return flat[:, 1::10], flat[:, 2:14].view(-1, 2, 6)[..., :2]


class _HardestPairRanking(torch.autograd.Function):
    """Eq. 6 from the unit vectors to L̂ᵢ and L̃ᵢ, with its gradient in closed form.

    Under autograd the loss would be some sixty operations on small tensors, which at the paper's B = 128 take longer
    than the products. With x the bracket and g = ∂L/∂x = -κ σ(-κx), the gradients are gλ for P, -gλ for max V,
    g(1 - λ) for min V and -g(1 - λ) for max W. The gradients of a user's own similarities form a (4, 4) matrix G,
    whose rows of a⁺ and b⁺ are 0; the encodings of that user get (G + Gᵀ) times themselves. A soft negative in place
    of max W distributes its gradient over all w by their softmax.
    """

    @staticmethod
    def forward(
        ctx: Any,
        units: Tensor,
        own: Tensor,
        coefficient: Tensor,
        scale: float,
        user_ids: Tensor | None,
        chunk_size: int | None,
        implementation: Implementation,
        rows: slice | None,
        softness: float,
    ) -> tuple[Tensor, ...]:
        positive, augmented = _implicit_and_augmented(own)
        if softness:
            found, hardest = find_soft_negatives(units, _STRIDE, softness, user_ids, chunk_size, rows)
            negative = found - softness * log_of_count(units, user_ids, rows)
        else:
            hardest, found = find_winners(units, _STRIDE, user_ids, chunk_size, implementation, rows)
            negative = hardest
        smallest, largest = augmented.aminmax(dim=2)
        first, second = positive - largest, smallest - negative  # (B, 2)
        if user_ids is not None:
            # If no row is a negative, max W is -inf. A bracket of +inf makes loss and slope 0.
            valid = hardest != -torch.inf
            second = torch.where(valid, second, 0)
            bracket = torch.where(valid, torch.lerp(second, first, coefficient), torch.inf)
        else:
            bracket = torch.lerp(second, first, coefficient)  # λ · first + (1 - λ) · second
        ctx.save_for_backward(units, augmented, coefficient, first - second, bracket, found, user_ids)
        ctx.scale, ctx.rows, ctx.chunk_size, ctx.softness = scale, rows, chunk_size, softness
        ctx.mark_non_differentiable(positive, augmented, hardest)
        return -F.logsigmoid(scale * bracket), positive, augmented, hardest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        units, augmented, coefficient, difference, bracket, found, user_ids = ctx.saved_tensors
        slope = torch.sigmoid(-ctx.scale * bracket) * grad * -ctx.scale  # g
        for_positive = coefficient * slope  # (B, 2)
        for_smallest = slope - for_positive
        first_is_largest = augmented[..., 0] >= augmented[..., 1]
        own = units.new_zeros(len(augmented), 4, 4)  # G
        own_positive, own_augmented = _implicit_and_augmented(own)
        own_positive.copy_(for_positive)
        for_largest = -for_positive
        own_augmented[..., 0] = torch.where(first_is_largest, for_largest, for_smallest)
        own_augmented[..., 1] = torch.where(first_is_largest, for_smallest, for_largest)
        with full_precision(units):
            grad_units = (own + own.mT) @ rows_of(units, ctx.rows)  # (n, 4, d)
        if ctx.rows is not None:
            grad_own, grad_units = grad_units, torch.zeros_like(units)
            grad_units[ctx.rows] = grad_own
        searched = (grad_units, -for_smallest, units, _STRIDE)
        if ctx.softness:
            spread_over_negatives_(*searched, ctx.softness, found, user_ids, ctx.chunk_size, ctx.rows)
        else:
            scatter_to_winners_(*searched, found, ctx.rows)
        return grad_units, None, slope * difference, None, None, None, None, None, None


def hardest_pair_ranking(
    units: Tensor,
    own: Tensor,
    coefficient: Tensor | float,
    scale: float = 1.0,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
    implementation: Implementation = "auto",
    rows: slice | None = None,
    softness: float = 0.0,
) -> RankedPairs:
    """Eq. 6: L̂ᵢ = -log σ(λᵢ (P - max V) + (1 - λᵢ)(min V - max W)), and L̃ᵢ from the other view.

    Args:
        units: unit vectors ``(B, 4, d)`` in the order a, a⁺, b, b⁺; B ≥ 2.
        own: :func:`intra_user_similarities` of the anchors' users, ``(n, 4, 4)``.
        coefficient: λ, a number or of a shape that broadcasts to ``(n, 2)``.
        scale: multiplies the bracket before the sigmoid.
        user_ids: integers ``(B,)`` or ``(B, k)``; rows with the same id in any column (say the user and the
            target item) are never negatives of each other. None: all rows are negatives of each other.
        chunk_size: rows of the similarity matrix held at once; None chooses for the device.
        implementation: of the search for max W, as :func:`choose_search`; a soft negative has only torch's.
        rows: users whose encodings are anchors (in a gathered batch, those of this process), n of them; None: all B.
        softness: 0: max W. τ > 0: τ log mean exp(w/τ) over w ∈ W in its place, which is ours and not the paper's. It
            tends to the mean of W for τ → ∞ and to max W for τ → 0. Every w has a gradient, by its softmax share.

    Returns:
        Results for n rows; ``hardest`` is max W, whatever the softness. Only ``loss`` is differentiable, once, with
        respect to ``units`` and ``coefficient``.
    """
    weight = _as_coefficient(coefficient, own)
    arguments = (units, own.detach(), weight, scale, user_ids, chunk_size, implementation, rows, softness)
    return RankedPairs(*_HardestPairRanking.apply(*arguments))  # type: ignore[no-untyped-call]


def _as_coefficient(coefficient: Tensor | float, own: Tensor) -> Tensor:
    """Expand λ to ``(n, 2)`` in the dtype and on the device of ``own``."""
    if not isinstance(coefficient, Tensor):
        return own.new_full((len(own), 2), coefficient)
    return coefficient.to(own.dtype).expand(len(own), 2)


class _SumOverNegatives(torch.autograd.Function):
    """Σ_w -log σ(-(offset_v + slope · w)) for every anchor and v. w is streamed; the backward recomputes the chunks."""

    @staticmethod
    def forward(
        ctx: Any,
        units: Tensor,
        offset: Tensor,
        slope: Tensor,
        user_ids: Tensor | None,
        chunk_size: int | None,
        rows: slice | None,
    ) -> Tensor:
        sums = torch.empty_like(offset)  # (n, 2, 2)
        with full_precision(units):
            for users, scores in similarity_chunks(units, _STRIDE, chunk_size, rows):
                scores *= slope[users, :, None, None]
                for v in range(2):
                    terms = F.logsigmoid(-offset[users, :, v, None, None] - scores)
                    sums[users, :, v] = -exclude_own_(terms, users, user_ids, 0, rows).sum((2, 3))
        ctx.save_for_backward(units, offset, slope, user_ids)
        ctx.chunk_size, ctx.rows = chunk_size, rows
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        units, offset, slope, user_ids = ctx.saved_tensors
        grad_units = torch.zeros_like(units)
        grad_offset, grad_slope = torch.empty_like(offset), torch.empty_like(slope)
        flat, grad_flat = units.flatten(0, 1), grad_units.view(-1, units.shape[-1])
        anchors, grad_anchors = (rows_of(x, ctx.rows)[:, ::_STRIDE] for x in (units, grad_units))  # (n, 2, d)
        with full_precision(units):
            for users, scores in similarity_chunks(units, _STRIDE, ctx.chunk_size, ctx.rows):
                weights = torch.zeros_like(scores)
                for v in range(2):
                    exponent = offset[users, :, v, None, None] + slope[users, :, None, None] * scores
                    share = exclude_own_(exponent.sigmoid_(), users, user_ids, 0, ctx.rows)
                    grad_offset[users, :, v] = grad[users, :, v] * share.sum((2, 3))
                    weights += grad[users, :, v, None, None] * share
                grad_slope[users] = (weights * scores).sum((2, 3))
                weights *= slope[users, :, None, None]
                flat_weights = weights.flatten(0, 1).flatten(1)  # (anchors, 4B)
                grad_anchors[users] += (flat_weights @ flat).view_as(anchors[users])
                grad_flat.addmm_(flat_weights.t(), anchors[users].flatten(0, 1))
        return grad_units, grad_offset, grad_slope, None, None, None


def all_pairs_ranking(
    units: Tensor,
    own: Tensor,
    coefficient: Tensor | float,
    scale: float = 1.0,
    user_ids: Tensor | None = None,
    chunk_size: int | None = None,
    implementation: Implementation = "auto",
    rows: slice | None = None,
) -> RankedPairs:
    """Eq. 5: the mean over all v ∈ V, w ∈ W of -log σ(λᵢ (P - v) + (1 - λᵢ)(v - w)).

    Arguments and result as :func:`hardest_pair_ranking`; ``hardest`` is found by one more search, detached.
    """
    positive, augmented = _implicit_and_augmented(own)
    # The exponent -κ[λ(P - v) + (1 - λ)(v - w)] is linear in w: offset + slope · w.
    weight = _as_coefficient(coefficient, own)
    slope = scale * (1 - weight)  # (B, 2)
    offset = -scale * weight[..., None] * (positive[..., None] - augmented) - slope[..., None] * augmented  # (B, 2, 2)
    arguments = (units, offset, slope, user_ids, chunk_size, rows)
    sums: Tensor = _SumOverNegatives.apply(*arguments)  # type: ignore[no-untyped-call]
    n_pairs: Tensor | int = 8 * (len(units) - 1)  # |V| · |W|
    if user_ids is not None:
        n_pairs = 8 * valid_negatives(user_ids, rows).clamp_min(1)[:, None]
    hardest = hardest_negative(units.detach(), _STRIDE, user_ids, chunk_size, implementation, rows)
    return RankedPairs(sums.sum(2) / n_pairs, positive, augmented, hardest)


class OrderHits(NamedTuple):
    """How often the order that the loss asks for holds: int64 scalars, which can be added over batches."""

    positive_over_augmented: Tensor
    """Pairs (anchor, v) with P > v, out of ``positive_pairs``."""
    positive_pairs: Tensor
    """4B."""
    augmented_over_negative: Tensor
    """Triples (anchor, v, w) with v > w, out of ``negative_pairs``."""
    negative_pairs: Tensor
    """16B(B - 1) where all users differ."""


@torch.no_grad()
def order_hits(units: Tensor, user_ids: Tensor | None = None, chunk_size: int | None = None) -> OrderHits:
    """Count how often P > v and v > w hold, as the authors' code does in validation; comparisons are strict.

    Args:
        units: unit vectors ``(B, 4, d)`` in the order a, a⁺, b, b⁺.
        user_ids: as in :func:`hardest_pair_ranking`.
        chunk_size: as in :func:`hardest_pair_ranking`.
    """
    batch_size = len(units)
    positive, augmented = _implicit_and_augmented(intra_user_similarities(units))
    hits = torch.zeros((), dtype=torch.int64, device=units.device)
    with full_precision(units):
        for users, scores in similarity_chunks(units, _STRIDE, chunk_size):
            exclude_own_(scores, users, user_ids, torch.inf)
            for v in range(2):
                hits += (augmented[users, :, v, None, None] > scores).sum()
    others = hits.new_full((batch_size,), batch_size - 1) if user_ids is None else valid_negatives(user_ids)
    return OrderHits(
        positive_over_augmented=(positive[..., None] > augmented).sum(),
        positive_pairs=hits.new_full((), 4 * batch_size),
        augmented_over_negative=hits,
        negative_pairs=16 * others.sum(),
    )
