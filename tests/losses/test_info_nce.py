"""`InfoNCELoss` over cosines and dot products, against the literal oracle, values and gradients."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from loss_cases import (
    COLUMNS,
    NEGATIVES,
    REDUCTIONS,
    USERS,
    assert_agrees,
    assert_one_winner,
    encodings,
    info_nce_truth,
    tied_encodings,
    user_ids_of,
)
from oracle import literal_info_nce, reduce_rows, straightforward_info_nce

from adaptssr_plugin import InfoNCELoss
from adaptssr_plugin.functional import info_nce

SHAPES = [(2, 1), (2, 5), (3, 2), (3, 64), (5, 1), (5, 5), (7, 2), (7, 64), (17, 1), (17, 5)]
CHUNK_SIZES = [1, 2, 3, 7, 128, None]
COSINES = [*product(["cosine"], [1.0, 0.5, 0.05], USERS), *product(["cosine"], [0.5], COLUMNS)]
DOTS = [*product(["dot"], [1.0, 4.0], USERS), *product(["dot"], [0.5], COLUMNS)]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("similarity", "temperature", "users"), [*COSINES, *DOTS])
def test_every_temperature_and_reduction_is_the_literal_one(similarity, temperature, users, negatives, reduction):
    inputs, ids, (loss, valid) = info_nce_truth(negatives, users, temperature=temperature, similarity=similarity)
    criterion = InfoNCELoss(temperature, negatives, reduction, chunk_size=3, similarity=similarity)
    assert_agrees(criterion(*inputs, ids), reduce_rows(loss, valid, reduction), inputs)


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("n_rows", "dim"), SHAPES)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_odd_shapes_and_chunks(similarity, n_rows, dim, negatives, chunk_size):
    inputs, _, (right, _) = info_nce_truth(negatives, "one-each", n_rows, dim)
    if similarity == "dot":  # the literal log Σ exp overflows at what 64 dimensions give; cross-entropy does not
        right = straightforward_info_nce(*inputs, negatives=negatives, reduction="none", similarity="dot")
    criterion = InfoNCELoss(negatives=negatives, reduction="none", chunk_size=chunk_size, similarity=similarity)
    # With one dimension every cosine is a tie at ±1, so there is no one gradient to agree on.
    assert_agrees(criterion(*inputs), right, inputs, check_gradients=dim > 1 or similarity == "dot")


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(
    ("similarity", "temperature", "users"), [*product(["cosine"], [1.0, 0.1], USERS), ("dot", 1.0, "repeats")]
)
def test_gradcheck(similarity, temperature, users, negatives):
    inputs, ids = encodings(3, 2, count=2, seed=1), user_ids_of(users, 3)
    criterion = InfoNCELoss(temperature, negatives, "none", chunk_size=2, similarity=similarity)
    assert torch.autograd.gradcheck(lambda *z: criterion(*z, ids), inputs)


@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_ties_give_one_winner_the_gradient(chunk_size):
    inputs = tied_encodings(2)
    loss = InfoNCELoss(0.2, negatives="hardest", reduction="none", chunk_size=chunk_size)(*inputs)
    right = literal_info_nce(*inputs, temperature=0.2, negatives="hardest", reduction="none")
    assert_one_winner(loss, right, inputs)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_a_batch_of_real_size(negatives):
    inputs = encodings(96, 16, count=2)
    ids = torch.arange(96) % 61
    criterion = InfoNCELoss(0.1, negatives=negatives, chunk_size=20)
    right = straightforward_info_nce(*inputs, ids, temperature=0.1, negatives=negatives)
    assert_agrees(criterion(*inputs, ids), right, inputs)


@pytest.mark.parametrize("n_rows", [9, 17, 37])
def test_every_place_can_hold_the_hardest_negative(n_rows):
    # Wherever the search for the largest similarity cuts its rows up, no seam may lose or misname a winner.
    plain = [z.detach() for z in encodings(n_rows, 6, count=2, alike=0.0)]
    criterion = InfoNCELoss(0.2, negatives="hardest", reduction="none", chunk_size=10)
    for place in range(2 * n_rows):
        inputs = [z.clone() for z in plain]
        view, row = place % 2, place // 2
        inputs[1 - view][row - 1] = inputs[view][row] + 0.01 * plain[1 - view][row - 1]
        inputs = [z.requires_grad_() for z in inputs]
        right = straightforward_info_nce(*inputs, temperature=0.2, negatives="hardest", reduction="none")
        assert_agrees(criterion(*inputs), right, inputs)


def test_defaults_are_eq9():
    inputs, _, (loss, _) = info_nce_truth("all")
    assert_agrees(InfoNCELoss()(*inputs), loss.mean(), inputs)


def test_temperature_so_low_that_exponentials_overflow():
    inputs = encodings(5, 3, count=2, dtype=torch.float32)
    loss = InfoNCELoss(temperature=1e-3)(*inputs)
    truth = straightforward_info_nce(*(z.detach().double() for z in inputs), temperature=1e-3)
    torch.testing.assert_close(loss.double(), truth, rtol=1e-4, atol=1e-4)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, inputs))


@pytest.mark.parametrize("n_rows", [2, 3, 8])
def test_every_anchor_has_two_negatives_of_each_other_row(n_rows):
    """Where all similarities are the same, an anchor's loss is the logarithm of how many it is compared with."""
    same = torch.ones(n_rows, 4, dtype=torch.float64)
    expected = math.log(1 + 2 * (n_rows - 1))
    torch.testing.assert_close(InfoNCELoss()(same, same), torch.tensor(expected, dtype=torch.float64))


# --- dot products, as the originals of CL4SRec and DuoRec have them ---------------------------------------------


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_the_dot_product_of_unit_vectors_is_the_cosine(negatives):
    units = [F.normalize(z, dim=-1) for z in encodings(6, 4, count=2)]
    dot = InfoNCELoss(0.3, negatives=negatives, similarity="dot")(*units)
    torch.testing.assert_close(dot, InfoNCELoss(0.3, negatives=negatives)(*units), rtol=1e-12, atol=0)


def test_lengths_count_in_dot_products():
    z1, z2 = encodings(5, 3, count=2)
    criterion = InfoNCELoss(similarity="dot")
    assert not torch.isclose(criterion(2 * z1, z2), criterion(z1, z2), rtol=1e-3)


def test_tau_divides_the_products():
    z1, z2 = encodings(5, 3, count=2)
    scaled = InfoNCELoss(similarity="dot")(z1 / 2, z2 / 2)
    torch.testing.assert_close(InfoNCELoss(4.0, similarity="dot")(z1, z2), scaled)


@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("length", [30.0, 1e4, 1e15])
def test_large_products_do_not_overflow(length, negatives, with_ids):
    """exp(90) is past float32 already; at 1e15 so is all but the product itself."""
    inputs = [(length * F.normalize(z.detach(), dim=-1)).float().requires_grad_() for z in encodings(6, 4, count=2)]
    ids = torch.tensor([[1, 5], [1, 6], [2, 5], [1, 7], [3, 5], [4, 8]]) if with_ids else None
    criterion = InfoNCELoss(negatives=negatives, reduction="none", chunk_size=5, similarity="dot")
    loss = criterion(*inputs, ids)
    exact = [z.detach().double().requires_grad_() for z in inputs]
    right = straightforward_info_nce(*exact, ids, negatives=negatives, reduction="none", similarity="dot")
    # What float32 loses of products of this size, and no more.
    torch.testing.assert_close(loss.double(), right, rtol=1e-5, atol=1e-6 * length**2)
    got, expected = (torch.autograd.grad(x.sum(), z) for x, z in ((loss, inputs), (right, exact)))
    for mine, gradient in zip(got, expected, strict=True):
        assert mine.isfinite().all()
        if length > 30:  # one negative takes all the weight, so the gradient is exact
            torch.testing.assert_close(mine.double(), gradient, rtol=1e-5, atol=1e-5 * length)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_float16_products_past_float16(negatives):
    """Products of 1e5 and more: past float16's largest number, so they must be taken in float32."""
    inputs = [(500 * F.normalize(z.detach(), dim=-1)).half().requires_grad_() for z in encodings(6, 4, count=2)]
    exact = [z.detach().double() for z in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = InfoNCELoss(negatives=negatives, reduction="none", similarity="dot")(*inputs)
    right = straightforward_info_nce(*exact, negatives=negatives, reduction="none", similarity="dot")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), right, rtol=1e-5, atol=0.1)
    assert all(g.dtype == torch.float16 and g.isfinite().all() for g in torch.autograd.grad(loss.sum(), inputs))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_dot_products_of_a_batch_of_real_size(reduction):
    inputs = encodings(96, 16, count=2)
    ids = torch.stack([torch.arange(96) % 61, torch.arange(96) // 5], 1)
    criterion = InfoNCELoss(reduction=reduction, chunk_size=20, similarity="dot")
    assert_agrees(
        criterion(*inputs, ids), straightforward_info_nce(*inputs, ids, reduction=reduction, similarity="dot"), inputs
    )


def test_the_function_takes_any_vectors():
    inputs = encodings(4, 3, count=2)
    per_anchor, valid = info_nce(torch.stack(inputs, 1), 2.0)
    right = literal_info_nce(*inputs, temperature=2.0, similarity="dot", reduction="none")
    assert_agrees(per_anchor.mean(1), right, inputs)
    assert valid.all()
