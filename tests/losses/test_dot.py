"""`InfoNCELoss` over dot products, as the originals of CL4SRec and DuoRec have it."""

import pytest
import torch
import torch.nn.functional as F
from loss_cases import NEGATIVES, REDUCTIONS, USERS, assert_agrees, encodings, info_nce_truth, user_ids_of
from oracle import literal_info_nce, reduce_rows, straightforward_info_nce

from adaptssr_plugin import InfoNCELoss
from adaptssr_plugin.functional import info_nce

CHUNK_SIZES = [1, 3, 7, None]
SHAPES = [(2, 1), (2, 5), (3, 64), (7, 2), (17, 5)]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_against_the_oracle(temperature, negatives, users, reduction):
    inputs, ids, (loss, valid) = info_nce_truth(negatives, users, temperature=temperature, similarity="dot")
    criterion = InfoNCELoss(temperature, negatives, reduction, chunk_size=3, similarity="dot")
    assert_agrees(criterion(*inputs, ids), reduce_rows(loss, valid, reduction), inputs)


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("n_rows", "dim"), SHAPES)
def test_odd_shapes_and_chunks(n_rows, dim, negatives, chunk_size):
    inputs, _, _ = info_nce_truth(negatives, "one-each", n_rows, dim)
    # The literal log Σ exp overflows at what 64 dimensions give; cross-entropy does not.
    right = straightforward_info_nce(*inputs, negatives=negatives, reduction="none", similarity="dot")
    criterion = InfoNCELoss(negatives=negatives, reduction="none", chunk_size=chunk_size, similarity="dot")
    assert_agrees(criterion(*inputs), right, inputs)


@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("negatives", NEGATIVES)
def test_straightforward_is_the_literal_one(negatives, users):
    inputs, ids, (loss, _) = info_nce_truth(negatives, users, similarity="dot")
    right = straightforward_info_nce(*inputs, ids, negatives=negatives, reduction="none", similarity="dot")
    assert_agrees(right, loss, inputs)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_gradcheck(negatives):
    inputs, ids = encodings(3, 2, count=2, seed=1), user_ids_of("repeats", 3)
    criterion = InfoNCELoss(negatives=negatives, reduction="none", chunk_size=2, similarity="dot")
    assert torch.autograd.gradcheck(lambda *z: criterion(*z, ids), inputs)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_of_unit_vectors_it_is_the_cosine(negatives):
    units = [F.normalize(z, dim=-1) for z in encodings(6, 4, count=2)]
    dot = InfoNCELoss(0.3, negatives=negatives, similarity="dot")(*units)
    torch.testing.assert_close(dot, InfoNCELoss(0.3, negatives=negatives)(*units), rtol=1e-12, atol=0)


def test_lengths_count():
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
def test_a_batch_of_real_size(reduction):
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
