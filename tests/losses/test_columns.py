"""Several ids per row, ``user_ids`` of shape (B, k): rows that share one in any column are no negatives."""

import pytest
import torch
from loss_cases import (
    COLUMNS,
    NEGATIVES,
    assert_agrees,
    encodings,
    every_loss,
    info_nce_truth,
    ranking_truth,
    user_ids_of,
)
from oracle import PAPER, same_user

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss
from adaptssr_plugin.functional import hardest_negative, order_hits, unit_vectors
from adaptssr_plugin.functional.similarity import valid_negatives

CHUNK_SIZES = [1, 2, 3, 7, 128, None]


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("users", ["repeats", *COLUMNS[1:]])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("n_rows", [2, 3, 7])
def test_uneven_chunks(n_rows, negatives, users, chunk_size):
    inputs, ids, terms = ranking_truth(PAPER, negatives, users, n_rows, 3)
    assert_agrees(AdaptSSRLoss(None, negatives, 1.0, "none", False, chunk_size)(*inputs, ids), terms.loss, inputs)
    inputs, ids, (loss, _) = info_nce_truth(negatives, users, n_rows, 3)
    assert_agrees(InfoNCELoss(1.0, negatives, "none", False, chunk_size)(*inputs, ids), loss, inputs)


@every_loss
@pytest.mark.parametrize("negatives", NEGATIVES)
class TestRows:
    def test_a_row_without_negatives(self, module, count, literal, negatives):
        """Row 0 shares its user with row 1 and its item with the rest, which stay negatives of each other."""
        ids = torch.tensor([[1, 7], [1, 8], [2, 7], [3, 7]])
        inputs = encodings(4, 3, count=count)
        criterion = module(negatives=negatives, reduction="none", chunk_size=3)
        loss = criterion(*inputs, ids)
        assert loss[0] == 0
        assert (loss[1:] > 0).all()
        assert_agrees(loss, literal(*inputs, ids, negatives=negatives, reduction="none"), inputs)
        mean = module(negatives=negatives, chunk_size=3)(*inputs, ids)
        torch.testing.assert_close(mean, loss.sum() / 3)

    def test_no_row_has_a_negative(self, module, count, literal, negatives):
        ids = torch.tensor([[1, 7], [1, 8], [2, 7]])[:2]
        inputs = encodings(2, 3, count=count)
        loss = module(negatives=negatives)(*inputs, ids)
        loss.backward()
        assert loss == 0
        assert all((u.grad == 0).all() for u in inputs)

    def test_one_column_is_ids_of_one_dimension(self, module, count, literal, negatives):
        inputs, ids = encodings(7, 3, count=count), user_ids_of("repeats", 7)
        criterion = module(negatives=negatives, chunk_size=3)
        assert torch.equal(criterion(*inputs, ids[:, None]), criterion(*inputs, ids))

    def test_a_column_in_which_all_differ_changes_nothing(self, module, count, literal, negatives):
        inputs, ids = encodings(7, 3, count=count), user_ids_of("repeats", 7)
        criterion = module(negatives=negatives, chunk_size=3)
        for columns in ([ids, torch.arange(7)], [torch.arange(7), ids], [torch.arange(7), ids, ids]):
            torch.testing.assert_close(criterion(*inputs, torch.stack(columns, 1)), criterion(*inputs, ids))

    def test_ids_in_two_columns_do_not_meet(self, module, count, literal, negatives):
        """User 3 and item 3 are two things."""
        inputs = encodings(4, 3, count=count)
        ids = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])
        criterion = module(negatives=negatives, chunk_size=3)
        torch.testing.assert_close(criterion(*inputs, ids), criterion(*inputs))

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
    def test_dtypes_and_layouts(self, module, count, literal, negatives, dtype):
        inputs = encodings(5, 3, count=count)
        ids = torch.tensor([[1, 1, 2, 9, 4], [8, 5, 8, 3, 6]], dtype=dtype).t()  # (B, 2), not contiguous
        criterion = module(negatives=negatives, chunk_size=4)
        assert_agrees(criterion(*inputs, ids), literal(*inputs, ids, negatives=negatives), inputs)


@pytest.mark.parametrize("n_ids", [2, 5, 60])
@pytest.mark.parametrize("n_columns", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("n_rows", [1, 2, 63, 64, 150])
def test_counted_negatives(n_rows, n_columns, n_ids):
    generator = torch.Generator().manual_seed(n_rows + n_columns + n_ids)
    ids = torch.randint(n_ids, (n_rows, max(n_columns, 1)), generator=generator) * 2**60 - 2**61
    ids = ids if n_columns else ids[:, 0]
    expected = [sum(not same_user(ids, i, j) for j in range(n_rows)) for i in range(n_rows)]
    assert valid_negatives(ids).tolist() == expected


def test_functional_search_takes_columns():
    units = unit_vectors(torch.stack([u.detach() for u in encodings(4, 3, count=2)], 1))
    ids = user_ids_of("two-columns", 4)
    found = hardest_negative(units, 2, ids, chunk_size=1)[:, 0]
    scores = (units[:, :1].flatten(0, 1) @ units.flatten(0, 1).T).view(4, 4, 2).amax(2)
    excluded = torch.tensor([[i == j or same_user(ids, i, j) for j in range(4)] for i in range(4)])
    torch.testing.assert_close(found, scores.masked_fill(excluded, -torch.inf).amax(1))
    pairs = 16 * int((~excluded).sum())
    four = units.repeat(1, 2, 1)
    assert int(order_hits(four, ids).negative_pairs) == pairs
