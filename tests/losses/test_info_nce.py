"""`InfoNCELoss` against the literal oracle, values and gradients."""

import math

import pytest
import torch
from loss_cases import NEGATIVES, REDUCTIONS, USERS, assert_agrees, encodings, info_nce_truth, user_ids_of
from oracle import literal_info_nce, reduce_rows, straightforward_info_nce

from adaptssr_plugin import InfoNCELoss

SHAPES = [(2, 1), (2, 5), (3, 2), (3, 64), (5, 1), (5, 5), (7, 2), (7, 64), (17, 1), (17, 5)]
CHUNK_SIZES = [1, 2, 3, 7, 128, None]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.05])
def test_every_temperature_and_reduction_is_the_literal_one(temperature, negatives, users, reduction):
    inputs, ids, (loss, valid) = info_nce_truth(negatives, users, temperature=temperature)
    criterion = InfoNCELoss(temperature, negatives=negatives, reduction=reduction, chunk_size=3)
    assert_agrees(criterion(*inputs, ids), reduce_rows(loss, valid, reduction), inputs)


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("n_rows", "dim"), SHAPES)
def test_odd_shapes_and_chunks(n_rows, dim, negatives, chunk_size):
    inputs, _, (loss, _) = info_nce_truth(negatives, "one-each", n_rows, dim)
    criterion = InfoNCELoss(negatives=negatives, reduction="none", chunk_size=chunk_size)
    # With one dimension every similarity is a tie at ±1, so there is no one gradient to agree on.
    assert_agrees(criterion(*inputs), loss, inputs, check_gradients=dim > 1)


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("n_rows", [2, 3, 7])
def test_repeated_users_in_uneven_chunks(n_rows, negatives, chunk_size):
    inputs, ids, (loss, _) = info_nce_truth(negatives, "repeats", n_rows, 3)
    criterion = InfoNCELoss(negatives=negatives, reduction="none", chunk_size=chunk_size)
    assert_agrees(criterion(*inputs, ids), loss, inputs)


@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_gradcheck(temperature, negatives, users):
    inputs, ids = encodings(3, 2, count=2, seed=1), user_ids_of(users, 3)
    criterion = InfoNCELoss(temperature, negatives=negatives, reduction="none", chunk_size=2)
    assert torch.autograd.gradcheck(lambda *z: criterion(*z, ids), inputs)


@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_ties_give_one_winner_the_gradient(chunk_size):
    generator = torch.Generator().manual_seed(3)
    z1, z2 = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    for z in (z1, z2):  # rows 1 and 2 are one user seen twice, close to row 0; rows 3 and 4 are far off
        z[1] = z1[0] + 0.1 * z[0]
        z[2] = z[1]
        z[3:] = -z[:2]
    inputs = [z1.requires_grad_(), z2.requires_grad_()]
    loss = InfoNCELoss(0.2, negatives="hardest", reduction="none", chunk_size=chunk_size)(*inputs)
    right = literal_info_nce(*inputs, temperature=0.2, negatives="hardest", reduction="none")
    torch.testing.assert_close(loss, right, rtol=1e-12, atol=1e-14)
    got = torch.stack(torch.autograd.grad(loss[0], inputs))  # (2, B, d)
    expected = torch.stack(torch.autograd.grad(right[0], inputs))
    assert expected[:, 1:3].abs().sum() > 0, "the tied rows should be the hardest negatives of row 0"
    assert (got[:, 1:].abs().sum(-1) > 0).sum() <= 2
    torch.testing.assert_close(got[:, 0], expected[:, 0], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(got[:, 1] + got[:, 2], expected[:, 1] + expected[:, 2], rtol=1e-10, atol=1e-13)


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
