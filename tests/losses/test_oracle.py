"""The oracle against numbers worked out by hand, and its two halves against each other."""

from math import exp, log, log1p

import pytest
import torch
from loss_cases import (
    EVERY_VARIANT,
    NEGATIVES,
    REDUCTIONS,
    USERS,
    assert_agrees,
    encodings,
    info_nce_truth,
    ranking_truth,
    user_ids_of,
)
from oracle import (
    OFFICIAL_CODE,
    PAPER,
    literal_adaptssr,
    literal_coefficients,
    literal_info_nce,
    literal_terms,
    straightforward_adaptssr,
    straightforward_info_nce,
)


def softplus(x: float) -> float:
    return log1p(exp(x))


@pytest.fixture
def by_hand():
    """Two users on the unit circle, at lengths other than one."""
    directions = (
        [[1.0, 0.0], [-1.0, 0.0]],  # a
        [[0.6, 0.8], [0.0, -1.0]],  # a⁺
        [[0.0, 1.0], [-0.6, -0.8]],  # b
        [[0.8, 0.6], [-0.8, 0.6]],  # b⁺
    )
    lengths = (2.0, 0.5, 1.0, 10.0)
    return [torch.tensor(d, dtype=torch.float64) * s for d, s in zip(directions, lengths, strict=True)]


def test_terms_by_hand(by_hand):
    terms = literal_terms(*by_hand)
    # Across the views, user 0: a·b = 0, a·b⁺ = a⁺·b = 0.8, a⁺·b⁺ = 0.96; user 1: 0.6, 0.8, 0.8 and -0.6 -> 0.
    torch.testing.assert_close(terms.coefficient, torch.tensor([0.36, 0.45], dtype=torch.float64))
    torch.testing.assert_close(terms.positive, torch.tensor([0.6, 0.0], dtype=torch.float64))
    torch.testing.assert_close(terms.augmented, torch.tensor([0.4, 0.7], dtype=torch.float64))
    # of user 0: a to (-1, 0, -0.6, -0.8), b to (0, -1, -0.8, 0.6)
    torch.testing.assert_close(terms.hardest[0], torch.tensor(0.3, dtype=torch.float64))


def test_eq6_by_hand(by_hand):
    side_a = softplus(-(0.36 * (0.6 - 0.8) + 0.64 * (0.0 - 0.0)))
    side_b = softplus(-(0.36 * (0.6 - 0.8) + 0.64 * (0.0 - 0.6)))
    row = literal_adaptssr(*by_hand, reduction="none")[0]
    assert row.item() == pytest.approx((side_a + side_b) / 2, rel=1e-12)


def test_eq5_by_hand(by_hand):
    def side(w_set):
        brackets = [0.36 * (0.6 - v) + 0.64 * (v - w) for v in (0.0, 0.8) for w in w_set]
        return sum(softplus(-bracket) for bracket in brackets) / 8

    row = literal_adaptssr(*by_hand, negatives="all", reduction="none")[0]
    expected = (side((-1.0, 0.0, -0.6, -0.8)) + side((0.0, -1.0, -0.8, 0.6))) / 2
    assert row.item() == pytest.approx(expected, rel=1e-12)


def test_coefficients_of_the_official_code_by_hand(by_hand):
    a, a_pos, b, b_pos = by_hand
    for_a = literal_coefficients(a, a_pos, b, b_pos, OFFICIAL_CODE)
    for_b = literal_coefficients(b, b_pos, a, a_pos, OFFICIAL_CODE)
    # a to (b, b⁺): (0, 0.8) and (0.6, 0.8); b to (a, a⁺): (0, 0.8) and (0.6, 0.8)
    assert [c.item() for c in for_a] == pytest.approx([1 - 2.2 / 4] * 2)
    assert [c.item() for c in for_b] == pytest.approx([1 - 2.2 / 4] * 2)


def test_eq9_and_eq8_by_hand(by_hand):
    a, _, b, _ = by_hand
    # a to its partner 0, to the others (-1, -0.6); b to its partner 0, to the others (0, -0.8)
    eq9 = (log(1 + exp(-1) + exp(-0.6)) + log(1 + 1 + exp(-0.8))) / 2
    assert literal_info_nce(a, b, reduction="none")[0].item() == pytest.approx(eq9, rel=1e-12)
    eq8 = (softplus(-0.6 / 0.5) + softplus(0.0)) / 2
    row = literal_info_nce(a, b, temperature=0.5, negatives="hardest", reduction="none")[0]
    assert row.item() == pytest.approx(eq8, rel=1e-12)


@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("variant", EVERY_VARIANT.values(), ids=EVERY_VARIANT)
def test_straightforward_adaptssr_is_the_literal_one(variant, negatives, users):
    inputs, ids, terms = ranking_truth(variant, negatives, users)
    options = {"fusion": variant, "negatives": negatives, "reduction": "none"}
    assert_agrees(straightforward_adaptssr(*inputs, ids, **options), terms.loss, inputs)


@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("temperature", "similarity"), [(1.0, "cosine"), (0.05, "cosine"), (1.0, "dot")])
def test_straightforward_info_nce_is_the_literal_one(temperature, similarity, negatives, users):
    inputs, ids, (loss, _) = info_nce_truth(negatives, users, temperature=temperature, similarity=similarity)
    options = {"temperature": temperature, "negatives": negatives, "reduction": "none", "similarity": similarity}
    assert_agrees(straightforward_info_nce(*inputs, ids, **options), loss, inputs)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("users", USERS)
def test_reductions_of_the_two_agree(users, reduction):
    u = encodings(4, 3)
    ids = user_ids_of(users, 4)
    right = literal_adaptssr(*u, ids, scale=1.7, reduction=reduction)
    assert_agrees(straightforward_adaptssr(*u, ids, scale=1.7, reduction=reduction), right, u)
    right = literal_info_nce(u[0], u[1], ids, reduction=reduction)
    assert_agrees(straightforward_info_nce(u[0], u[1], ids, reduction=reduction), right, u)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("n_rows", "dim"), [(2, 2), (3, 64), (7, 5), (17, 2)])
def test_the_two_agree_at_odd_shapes(n_rows, dim, negatives):
    inputs, _, terms = ranking_truth(PAPER, negatives, "one-each", n_rows, dim)
    assert_agrees(straightforward_adaptssr(*inputs, negatives=negatives, reduction="none"), terms.loss, inputs)
    inputs, _, (loss, _) = info_nce_truth(negatives, "one-each", n_rows, dim)
    assert_agrees(straightforward_info_nce(*inputs, negatives=negatives, reduction="none"), loss, inputs)


def test_without_any_other_user_no_row_is_valid():
    u = encodings(4, 3)
    ids = torch.tensor([1, 1, 1, 1])
    terms = literal_terms(*u, ids, fusion=PAPER)
    assert not terms.valid.any()
    assert torch.isneginf(terms.hardest).all()
    assert literal_adaptssr(*u, ids).item() == 0.0
    assert literal_info_nce(u[0], u[1], ids).item() == 0.0
