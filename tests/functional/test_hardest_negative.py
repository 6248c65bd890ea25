"""The search for the largest similarity where it cuts rows up: every place, ties, NaN, -inf, rows of any width."""

import pytest
import torch

from adaptssr_plugin.functional import hardest_negative
from adaptssr_plugin.functional.search import _row_maximum, search

WIDTHS = [1, 4, 31, 127, 128, 129, 130, 159, 160, 161, 512, 1023, 1024, 1028, 4100]


def scores_of(rows, width):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(width))


@pytest.mark.parametrize("width", WIDTHS)
def test_every_place_of_a_row(width):
    places = torch.arange(width)[:: max(1, width // 300)]
    scores = scores_of(len(places), width)
    scores[torch.arange(len(places)), places] = 9.0
    value, index = _row_maximum(scores)
    assert (value == 9).all()
    assert torch.equal(index, places)


@pytest.mark.parametrize("width", WIDTHS)
def test_nan_wins(width):
    scores = scores_of(7, width)
    places = torch.arange(7) * 997 % width
    scores[torch.arange(7), places] = torch.nan
    value, index = _row_maximum(scores)
    assert value.isnan().all()
    assert torch.equal(index, places)


@pytest.mark.parametrize("width", WIDTHS)
def test_of_a_tie_one_is_named(width):
    scores = scores_of(6, width).round()
    value, index = _row_maximum(scores)
    assert torch.equal(value, scores.amax(1))
    assert torch.equal(scores.gather(1, index[:, None])[:, 0], value)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_of_minus_infinity_names_a_column(width):
    value, index = _row_maximum(torch.full((3, width), -torch.inf))
    assert (value == -torch.inf).all()
    assert ((index >= 0) & (index < width)).all()


@pytest.mark.parametrize("users", ["none", "repeats", "columns"])
@pytest.mark.parametrize(
    ("n_rows", "per_user", "stride"), [(2, 4, 2), (33, 4, 2), (131, 4, 2), (300, 2, 1), (67, 3, 3)]
)
def test_chunks_of_the_size_chosen_for_the_cpu(n_rows, per_user, stride, users):
    generator = torch.Generator().manual_seed(n_rows)
    vectors = torch.randn(n_rows, per_user, 5, generator=generator, dtype=torch.float64)
    ids = {
        "none": torch.arange(n_rows),
        "repeats": torch.arange(n_rows) * 7 % (n_rows // 2 + 1),
        "columns": torch.stack([torch.arange(n_rows), torch.arange(n_rows) // 40], 1),
    }[users]
    columns = ids.view(n_rows, -1)
    same = (columns[:, None] == columns).any(2)  # (B, B)
    anchors = vectors[:, ::stride]
    right = torch.einsum("iad,jmd->iajm", anchors, vectors).masked_fill(same[:, None, :, None], -torch.inf)
    given = None if users == "none" else ids
    torch.testing.assert_close(hardest_negative(vectors, stride, given), right.amax((2, 3)))
    _, winners = search(vectors, stride, given, None)
    with_negatives = (~same).any(1).repeat_interleave(anchors.shape[1])
    assert torch.equal(winners[with_negatives], right.flatten(0, 1).flatten(1).argmax(1)[with_negatives])
