"""The losses of the paper written out twice, apart from the package: once literally, once the usual way.

The literal functions loop over users, sides, augmented views and negatives with torch scalars, so that every
line can be held against its equation and autograd gives the gradient. The straightforward functions keep the
whole similarity matrix under autograd, as one would write the losses without further thought; the benchmarks
measure against them. Neither shares a line with ``adaptssr_plugin``.

Symbols, for user i: a, a⁺ the unit vectors of û, û⁺ (one augmented view encoded twice), b, b⁺ those of ũ, ũ⁺
(the other view); P = a·a⁺; V the similarities of the anchor to the other view; W those to every encoding of
other users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Variant:
    """One variant of Eq. 7; the defaults are the paper's."""

    granularity: str = "sample"
    terms: int = 4
    clamp: bool = True
    detach: bool = True


PAPER = Variant()
OFFICIAL_CODE = Variant(granularity="batch", terms=2, clamp=False, detach=True)


class LiteralTerms(NamedTuple):
    """What the literal ranking loss is made of, one entry per row; ``valid``: the row has a negative."""

    loss: Tensor  # (B,)
    valid: Tensor  # (B,) bool
    coefficient: Tensor  # (B,)
    positive: Tensor  # (B,)
    augmented: Tensor  # (B,)
    hardest: Tensor  # (B,)


# --- the literal oracle -------------------------------------------------------------------------------------


def unit(vector):
    """The vector over its length; a zero vector stays zero and passes no gradient."""
    length = vector.dot(vector).sqrt() if bool((vector != 0).any()) else None
    return vector * 0 if length is None else vector / length


def same_user(user_ids, i, j):
    """Whether rows i and j share an id, or, where they have several, one of them in the same place."""
    if user_ids is None:
        return False
    if user_ids.dim() == 1:
        return bool(user_ids[i] == user_ids[j])
    return any(int(x) == int(y) for x, y in zip(user_ids[i], user_ids[j], strict=True))


def minus_log_sigmoid(x):
    return torch.log1p(torch.exp(-x))


def literal_negative(similarities, negatives):
    """The largest for ``"hardest"``; for a number τ, the soft negative τ log (mean of exp(w/τ))."""
    if negatives == "hardest":
        return max(similarities)
    return negatives * torch.log(sum(torch.exp(w / negatives) for w in similarities) / len(similarities))


def literal_coefficients(anchor, anchor_pos, view, view_pos, variant=PAPER):
    """λ of every row for one anchor side, Eq. 7: one minus the mean similarity between the two views."""
    coefficients = []
    for i in range(len(anchor)):
        own = [unit(anchor[i]), unit(anchor_pos[i])] if variant.terms == 4 else [unit(anchor[i])]
        similarities = []
        for s in own:
            for t in (unit(view[i]), unit(view_pos[i])):
                similarity = s.dot(t)
                if variant.clamp and similarity < 0:
                    similarity = similarity * 0
                similarities.append(similarity)
        coefficients.append(1 - sum(similarities) / variant.terms)
    if variant.granularity == "batch":
        coefficients = [sum(coefficients) / len(coefficients)] * len(coefficients)
    if variant.detach:
        coefficients = [c.detach() for c in coefficients]
    return coefficients


def literal_terms(u1, u1_pos, u2, u2_pos, user_ids=None, *, fusion=PAPER, negatives="hardest", scale=1.0):
    """Eq. 5 (``negatives="all"``), Eq. 6 (``"hardest"``) or Eq. 6 with a soft negative, row by row and side by side."""
    views = [[unit(row) for row in u] for u in (u1, u1_pos, u2, u2_pos)]
    a, a_pos, b, b_pos = views
    n_rows = len(u1)
    if isinstance(fusion, Variant):
        lambdas = (
            literal_coefficients(u1, u1_pos, u2, u2_pos, fusion),
            literal_coefficients(u2, u2_pos, u1, u1_pos, fusion),
        )
    else:
        lambdas = ([u1.new_tensor(fusion)] * n_rows,) * 2
    sides = ((a, a_pos, b, b_pos), (b, b_pos, a, a_pos))

    zero = sum((u * 0).sum() for u in (u1, u1_pos, u2, u2_pos))  # a row without negatives keeps its graph
    rows = []
    for i in range(n_rows):
        others = [j for j in range(n_rows) if j != i and not same_user(user_ids, i, j)]
        losses, coefficient, positive, augmented, hardest = [], [], [], [], []
        for side in (0, 1):
            own, own_pos, other, other_pos = sides[side]
            lam = lambdas[side][i]
            p = own[i].dot(own_pos[i])
            v_set = [own[i].dot(other[i]), own[i].dot(other_pos[i])]
            w_set = [own[i].dot(view[j]) for j in others for view in views]
            if not w_set:
                losses.append(zero)
                hardest.append(p.new_tensor(-torch.inf))
            else:
                assert len(w_set) == 4 * len(others)
                hardest.append(max(w_set))
                if negatives != "all":
                    negative = literal_negative(w_set, negatives)
                    bracket = lam * (p - max(v_set)) + (1 - lam) * (min(v_set) - negative)
                    losses.append(minus_log_sigmoid(scale * bracket))
                else:
                    quadruples = []
                    for v in v_set:
                        positive_over_augmented = lam * (p - v)
                        for w in w_set:
                            bracket = positive_over_augmented + (1 - lam) * (v - w)
                            quadruples.append(minus_log_sigmoid(scale * bracket))
                    losses.append(sum(quadruples) / len(quadruples))
            coefficient.append(lam)
            positive.append(p)
            augmented.append(sum(v_set) / 2)
        means = [sum(x) / 2 for x in (losses, coefficient, positive, augmented, hardest)]
        rows.append((means[0], torch.tensor(bool(others)), *means[1:]))
    return LiteralTerms(*(torch.stack(column) for column in zip(*rows, strict=True)))


def reduce_rows(loss, valid, reduction="mean"):
    """``"mean"`` leaves out the rows without a negative; without any valid row it is 0."""
    if reduction == "none":
        return loss
    total = sum(loss[i] for i in range(len(loss)))
    return total if reduction == "sum" else total / max(int(valid.sum()), 1)


def literal_adaptssr(*encodings, reduction="mean", **options):
    """The AdaptSSR loss, Eq. 5 or 6 with a variant of Eq. 7 or a constant λ; arguments as :func:`literal_terms`."""
    terms = literal_terms(*encodings, **options)
    return reduce_rows(terms.loss, terms.valid, reduction)


def literal_info_nce_rows(z1, z2, user_ids=None, *, temperature=1.0, negatives="all", similarity="cosine"):
    """Eq. 9 (``"all"``), Eq. 8 (``"hardest"``) or Eq. 8 with a soft negative, and which rows have a negative."""
    n_rows = len(z1)
    z = [*z1, *z2] if similarity == "dot" else [unit(row) for row in (*z1, *z2)]
    zero = (z1 * 0).sum() + (z2 * 0).sum()
    rows, valid = [], []
    for i in range(n_rows):
        others = [j for j in range(n_rows) if j != i and not same_user(user_ids, i, j)]
        anchors = []
        for anchor, partner in ((i, i + n_rows), (i + n_rows, i)):
            positive = z[anchor].dot(z[partner]) / temperature
            negative = [z[anchor].dot(z[k]) for j in others for k in (j, j + n_rows)]
            if not negative:
                anchors.append(zero)
            elif negatives == "all":
                assert len(negative) == 2 * len(others)
                logits = [positive, *(s / temperature for s in negative)]
                anchors.append(-positive + torch.log(sum(torch.exp(s) for s in logits)))
            else:
                anchors.append(minus_log_sigmoid(positive - literal_negative(negative, negatives) / temperature))
        rows.append(sum(anchors) / 2)
        valid.append(bool(others))
    return torch.stack(rows), torch.tensor(valid)


def literal_info_nce(*encodings, reduction="mean", **options):
    """InfoNCE, Eq. 8 or 9; arguments as :func:`literal_info_nce_rows`."""
    return reduce_rows(*literal_info_nce_rows(*encodings, **options), reduction)


# --- the usual way: the whole similarity matrix under autograd ----------------------------------------------


def straightforward_coefficients(anchor, anchor_pos, view, view_pos, variant=PAPER):
    """Eq. 7 for one anchor side, from unit vectors; ``(B,)``."""
    own = [anchor, anchor_pos] if variant.terms == 4 else [anchor]
    similarities = torch.stack([(s * t).sum(-1) for s in own for t in (view, view_pos)])  # (terms, B)
    if variant.clamp:
        similarities = similarities.clamp(min=0)
    coefficient = 1 - similarities.mean(0)
    if variant.granularity == "batch":
        coefficient = coefficient.mean().expand_as(coefficient)
    return coefficient.detach() if variant.detach else coefficient


def softplus(x):
    """Exact to float64: torch's default threshold of 20 leaves off a relative 1e-10."""
    return F.softplus(x, threshold=40)


def no_negatives(user_ids, n_rows, device):
    """``(B, B)``: true where row j gives row i no negatives, being the same row or the same user."""
    same = torch.eye(n_rows, dtype=torch.bool, device=device)
    if user_ids is None:
        return same
    columns = user_ids.reshape(n_rows, -1)  # (B, k)
    return same | (columns[:, None] == columns[None, :]).any(dim=2)


def straightforward_negative(similarities, negatives):
    """One negative per row of a matrix that holds -inf where there is none."""
    if negatives == "hardest":
        return similarities.max(dim=1).values
    counts = similarities.isfinite().sum(dim=1, dtype=similarities.dtype)
    return negatives * (torch.logsumexp(similarities / negatives, dim=1) - counts.log())


def reduce_straightforward(loss, valid, reduction):
    loss = torch.where(valid, loss, 0)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / valid.sum().clamp(min=1)


def straightforward_adaptssr(
    u1, u1_pos, u2, u2_pos, user_ids=None, *, fusion=PAPER, negatives="hardest", scale=1.0, reduction="mean"
) -> Tensor:
    """The AdaptSSR loss with its 2B × 4B matrix (Eq. 5: 2B × 2 × 4B) under autograd, in its inputs' dtype."""
    n_rows = len(u1)
    a, a_pos, b, b_pos = (F.normalize(u, dim=-1) for u in (u1, u1_pos, u2, u2_pos))
    similarities = torch.cat([a, b]) @ torch.cat([a, a_pos, b, b_pos]).T  # (2B, 4B)
    positive = torch.cat([(a * a_pos).sum(-1), (b * b_pos).sum(-1)])  # (2B,)
    cross = (a * b).sum(-1)
    augmented = torch.stack(  # (2B, 2)
        [torch.cat([cross, cross]), torch.cat([(a * b_pos).sum(-1), (b * a_pos).sum(-1)])], dim=1
    )
    if isinstance(fusion, Variant):
        coefficient = torch.cat(  # (2B,)
            [
                straightforward_coefficients(a, a_pos, b, b_pos, fusion),
                straightforward_coefficients(b, b_pos, a, a_pos, fusion),
            ]
        )
    else:
        coefficient = torch.full_like(positive, fusion)

    excluded = no_negatives(user_ids, n_rows, u1.device)
    valid = ~excluded.all(dim=1)  # (B,)
    excluded = excluded.repeat(2, 4)  # (2B, 4B)
    if negatives != "all":
        hardest = straightforward_negative(similarities.masked_fill(excluded, -torch.inf), negatives)  # (2B,)
        hardest = torch.where(valid.repeat(2), hardest, 0)
        easy = coefficient * (positive - augmented.max(dim=1).values)
        hard = (1 - coefficient) * (augmented.min(dim=1).values - hardest)
        loss = softplus(-scale * (easy + hard))  # (2B,)
    else:
        lam = coefficient[:, None, None]
        bracket = lam * (positive[:, None] - augmented)[:, :, None]
        bracket = bracket + (1 - lam) * (augmented[:, :, None] - similarities[:, None, :])  # (2B, 2, 4B)
        quadruples = softplus(-scale * bracket).masked_fill(excluded[:, None, :], 0)
        loss = quadruples.sum(dim=(1, 2)) / (2 * (~excluded).sum(dim=1)).clamp(min=1)
    return reduce_straightforward((loss[:n_rows] + loss[n_rows:]) / 2, valid, reduction)


def straightforward_info_nce(
    z1, z2, user_ids=None, *, temperature=1.0, negatives="all", reduction="mean", similarity="cosine"
) -> Tensor:
    """InfoNCE with its 2B × 2B matrix under autograd, in its inputs' dtype."""
    n_rows = len(z1)
    z = torch.cat([z1, z2])  # (2B, d)
    if similarity == "cosine":
        z = F.normalize(z, dim=-1)
    logits = z @ z.T  # (2B, 2B)
    partner = torch.arange(2 * n_rows, device=z.device).roll(n_rows)  # (2B,)
    excluded = no_negatives(user_ids, n_rows, z.device)
    valid = ~excluded.all(dim=1)  # (B,)
    excluded = excluded.repeat(2, 2)  # (2B, 2B); the partner is the same row
    positive = logits.gather(1, partner[:, None]).squeeze(1)  # (2B,)
    masked = logits.masked_fill(excluded, -torch.inf)
    if negatives != "all":
        hardest = torch.where(valid.repeat(2), straightforward_negative(masked, negatives), 0)
        loss = softplus((hardest - positive) / temperature)
    else:
        masked = masked.scatter(1, partner[:, None], positive[:, None])
        loss = F.cross_entropy(masked / temperature, partner, reduction="none")
    return reduce_straightforward((loss[:n_rows] + loss[n_rows:]) / 2, valid, reduction)
