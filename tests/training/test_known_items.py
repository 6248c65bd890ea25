"""What two catalogues have in common, and which rows of a table that is."""

import pytest
import torch
from refusals import refusal_of

from adaptssr_plugin.training.known_items import known_items

HERE = ["[PAD]", "a", "new", "c", "b"]
THERE = ["[PAD]", "b", "c", "old", "older", "a", "oldest"]


def known():
    return known_items("start", HERE, THERE, "there")


def table(n_rows, *width):
    return torch.arange(1.0, 1 + n_rows).view(-1, *([1] * len(width))).expand(n_rows, *width).clone()


def test_which_items_both_have():
    assert [(int(here), int(there)) for here, there in zip(known().here, known().there, strict=True)] == [
        (0, 0),
        (1, 5),
        (3, 2),
        (4, 1),
    ]
    assert str(known()) == "3 of 4 items taken by token, 1 keep their initialisation"


def test_thousands_can_be_read():
    numbers = [str(number) for number in range(2001)]
    assert str(known_items("start", numbers, numbers[:1500], "there")) == (
        "1,499 of 2,000 items taken by token, 501 keep their initialisation"
    )


@pytest.mark.parametrize("there", [HERE, ["", *HERE[1:]]])
def test_nothing_is_to_be_done_where_both_number_the_same_items_alike(there):
    assert known_items("start", HERE, there, "there") is None


@pytest.mark.parametrize("there", [[*HERE, "more"], HERE[:-1], [HERE[0], *HERE[:0:-1]]])
def test_any_other_numbering_is_another(there):
    assert known_items("start", HERE, there, "there") is not None


def test_an_item_called_as_the_padding_is_an_item():
    found = known_items("start", ["[PAD]", "a", "[PAD]"], ["[PAD]", "[PAD]", "a"], "there")
    assert found.here.tolist() == [0, 1, 2]
    assert found.there.tolist() == [0, 2, 1]


@pytest.mark.parametrize("there", [["[PAD]"], ["[PAD]", "x", "y"]])
def test_no_item_in_common_is_refused(there):
    assert refusal_of(known_items, "start", HERE, there, "there") == (
        f"start: expected some of the 4 items here among the {len(there) - 1} of there, found none"
    )


@pytest.mark.parametrize("width", [(), (3,), (2, 2)])
@pytest.mark.parametrize("mask", [0, 1])
def test_rows_are_copied(width, mask):
    target, source = -table(5 + mask, *width), table(7 + mask, *width)
    assert known().fit(target, source)
    known().copy_rows(target, source)
    expected = torch.tensor([1.0, 6, -3, 3, 2, 8][: 5 + mask])
    assert torch.equal(target, expected.view(-1, *([1] * len(width))).expand_as(target))


@pytest.mark.parametrize(
    ("target", "source"),
    [
        ((5, 3), (7, 4)),
        ((5, 3), (8, 3)),
        ((6, 3), (7, 3)),
        ((7, 3), (9, 3)),
        ((5,), (7, 3)),
        ((), ()),
        ((3, 5), (3, 7)),
    ],
)
def test_what_is_no_table_of_both(target, source):
    """Other widths, [MASK] on one side alone, two rows more, columns in the place of rows."""
    assert not known().fit(torch.zeros(target), torch.zeros(source))
