"""Substitute, insert and CoSeRec's rule for short rows, by the authors' code."""

import random
from collections import Counter

import augment_reference as reference
import pytest
import torch
from augment_reference import LEAST_P, Widen, assert_same_distribution, generator, outcomes
from refusals import refusal_of
from scipy.stats import chisquare

from adaptssr_plugin import ItemInsert, ItemSubstitute
from adaptssr_plugin.augment import (
    Compose,
    FromLength,
    ItemCrop,
    ItemMask,
    ItemReorder,
    coserec_pair,
    replace_neighbours,
)

N_ITEMS = 400  # items 1 .. 199 have neighbours 200 more, then 1 less than that, so that a neighbour names its item
NEIGHBOURS = torch.zeros(N_ITEMS, 3, dtype=torch.int64)
NEIGHBOURS[1:200] = torch.arange(1, 200)[:, None] + torch.tensor([200, 199, 198])
NEIGHBOURS[1, 2] = 0
LISTS = NEIGHBOURS.tolist()
LENGTHS = [1, 2, 3, 5, 10, 55, 100]
DRAWS = 8_000


def substitute(ratio=0.1, neighbours=NEIGHBOURS):
    return ItemSubstitute(ratio, neighbours=neighbours)


def insert(ratio=0.4, neighbours=NEIGHBOURS, most=1):
    return ItemInsert(ratio, neighbours=neighbours, max_insert_per_position=most)


def pair(**options):
    return coserec_pair(NEIGHBOURS, mask_id=N_ITEMS, **options)


# --- the per-user reference ---------------------------------------------------------------------------------------


def slow_count(ratio, n):
    return max(reference.dn(ratio, n), 1)


def slow_substitute(items, ratio, rng):
    items = list(items)
    for place in rng.sample(range(len(items)), slow_count(ratio, len(items))):
        items[place] = LISTS[items[place]][0]
    return items


def slow_insert(items, ratio, rng, width, most=1):
    m = slow_count(ratio, len(items))
    chosen = rng.sample(range(len(items)), m)
    grown = []
    for place, item in enumerate(items):
        if place in chosen:
            grown += LISTS[item][: rng.randint(1, max(1, most // m))]
        grown.append(item)
    return grown[-width:]


@pytest.mark.parametrize(("n", "ratio"), [(1, 0.1), (2, 0.1), (3, 0.7), (5, 0.4), (6, 0.5)])
def test_substitute_gives_what_the_reference_gives_as_often(n, ratio):
    item_seq, lengths = reference.padded([range(2, n + 2)] * DRAWS, n + 2)
    ours = outcomes(substitute(ratio)(item_seq, lengths, generator(n)))
    rng = random.Random(n)
    theirs = Counter(tuple(slow_substitute(range(2, n + 2), ratio, rng)) for _ in range(DRAWS))
    if n == 1:
        assert ours == theirs == {(202,): DRAWS}
    else:
        assert_same_distribution(ours, theirs)


@pytest.mark.parametrize(
    ("n", "ratio", "width", "most"),
    [
        (1, 0.4, 1, 1), (1, 0.4, 4, 3), (2, 0.4, 2, 1), (3, 0.4, 9, 2), (3, 0.7, 4, 1),
        (5, 0.4, 6, 1), (5, 0.4, 20, 3), (6, 0.5, 9, 1), (4, 0.5, 5, 3), (7, 0.15, 8, 3),
    ],
)  # fmt: skip
def test_insert_gives_what_the_reference_gives_as_often(n, ratio, width, most):
    item_seq, lengths = reference.padded([range(2, n + 2)] * DRAWS, width)
    ours = outcomes(insert(ratio, most=most)(item_seq, lengths, generator(n)))
    rng = random.Random(n)
    theirs = Counter(tuple(slow_insert(range(2, n + 2), ratio, rng, width, most)) for _ in range(DRAWS))
    if (n, width) == (1, 1):
        assert ours == theirs == {(2,): DRAWS}
    else:
        assert_same_distribution(ours, theirs)


@pytest.mark.parametrize("operator", [substitute(0.3), insert(0.3)], ids=["substitute", "insert"])
def test_every_position_is_drawn_as_often(operator):
    item_seq, lengths = reference.padded([range(1, 11)] * DRAWS, 15)
    out = operator(item_seq, lengths, generator(1)).item_seq
    drawn = [int((out == place + 201).sum()) for place in range(10)]
    assert sum(drawn) == 3 * DRAWS
    assert chisquare(drawn).pvalue > LEAST_P


# --- counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), list(zip(LENGTHS, [1, 1, 1, 1, 1, 5, 10], strict=True)))
def test_table_substitute(n, m):
    item_seq, lengths = reference.padded([range(1, n + 1)] * 50, 101)
    out, out_len = substitute()(item_seq, lengths, generator(n))
    changed = out != item_seq
    assert changed.sum(1).tolist() == [m] * 50
    assert torch.equal(out[changed], item_seq[changed] + 200)
    assert torch.equal(out_len, lengths)


@pytest.mark.parametrize(("n", "m"), list(zip(LENGTHS, [1, 1, 1, 2, 4, 22, 40], strict=True)))
def test_table_insert(n, m):
    item_seq, lengths = reference.padded([range(1, n + 1)] * 50, 140)
    out, out_len = insert()(item_seq, lengths, generator(n))
    assert out_len.tolist() == [n + m] * 50
    assert (out > 200).sum(1).tolist() == [m] * 50
    assert (out > 0).sum(1).tolist() == [n + m] * 50


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.29, 0.4, 0.5, 0.7, 1.0])
def test_counts_of_every_length(ratio):
    rows = [range(1, n + 1) for n in range(1, 121)]
    item_seq, lengths = reference.padded(rows, 240)
    expected = [slow_count(ratio, n) for n in range(1, 121)]
    assert (substitute(ratio)(item_seq, lengths, generator()).item_seq != item_seq).sum(1).tolist() == expected
    grown = insert(ratio)(item_seq, lengths, generator()).item_seq_len - lengths
    assert grown.tolist() == expected


# --- insert: where, and what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("width", [100, 104, 140])
def test_neighbours_precede_their_anchor_and_the_newest_are_kept(width, most):
    """Read from the back, a row is its items, each with its neighbours before it, the nearest first, cut at L."""
    table = torch.zeros(800, 3, dtype=torch.int64)
    table[1:200] = torch.arange(1, 200)[:, None] + torch.tensor([200, 400, 600])
    rows = [list(range(1, n + 1)) for n in range(1, 101)] * 3
    out = insert(0.03 if most > 1 else 0.4, table, most)(*reference.padded(rows, width), generator(width))
    sizes = set()
    for items, row, length in zip(rows, out.item_seq.tolist(), out.item_seq_len.tolist(), strict=True):
        assert not any(row[length:])
        left, items = row[:length], list(items)
        while left:
            assert left.pop() == items[-1]
            company = []
            while left and left[-1] >= 200:
                company.insert(0, left.pop())
            found = table[items.pop()].tolist()
            cut = not left and length == width
            assert company in [found[start:stop] for stop in range(most + 1) for start in range(stop * cut + 1)]
            sizes.add(len(company))
        assert not items or length == width
    assert sizes == set(range(most + 1))


def test_a_full_row_drops_its_oldest():
    item_seq, lengths = reference.padded([[1, 2, 3, 4]])
    out, out_len = insert(1.0)(item_seq, lengths)
    assert (out.tolist(), out_len.tolist()) == ([[203, 3, 204, 4]], [4])
    wide, lengths = reference.padded([[1, 2, 3, 4]], 7)
    out, out_len = insert(1.0)(wide, lengths)
    assert (out.tolist(), out_len.tolist()) == ([[1, 202, 2, 203, 3, 204, 4]], [7])


def test_how_many_are_put_before_one_depends_on_how_many_are_drawn():
    """floor(3 / m): up to 3 before the only one, and no more than 1 before each of two."""
    one, lengths = reference.padded([[7]] * 3000, 6)
    kinds = outcomes(insert(most=3)(one, lengths, generator()))
    assert set(kinds) == {(207, 7), (207, 206, 7), (207, 206, 205, 7)}
    assert chisquare(list(kinds.values())).pvalue > LEAST_P
    two, lengths = reference.padded([[7, 8]] * 300, 9)
    assert set(outcomes(insert(1.0, most=3)(two, lengths, generator()))) == {(207, 7, 208, 8)}


# --- items without neighbours, masked positions -------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_an_item_without_neighbour_gets_any_item_of_the_catalogue(ratio):
    neighbours = torch.tensor([0, 2, 1, 0, 0, 0, 0])
    item_seq, lengths = reference.padded([[5]] * DRAWS, 2)
    for out in (
        substitute(ratio, neighbours)(item_seq, lengths, generator()),
        insert(ratio, neighbours)(item_seq, lengths, generator()),
    ):
        drawn = Counter(out.item_seq[:, 0].tolist())
        assert set(drawn) == set(range(1, 7))
        assert chisquare(list(drawn.values())).pvalue > LEAST_P


def test_the_random_items_of_a_row_differ():
    neighbours = torch.zeros(1000, dtype=torch.int64)
    item_seq, lengths = reference.padded([range(1, 51)] * 2, 100)
    first, second = insert(1.0, neighbours)(item_seq, lengths, generator()).item_seq.tolist()
    assert len(set(first[::2])) > 40
    assert first != second


def test_a_missing_second_neighbour_is_drawn():
    """Item 1 has two of the three neighbours that may come before it."""
    item_seq, lengths = reference.padded([[1]] * 3000, 4)
    rows = outcomes(insert(most=3)(item_seq, lengths, generator()))
    third = {row[2] for row in rows if len(row) == 4}
    assert len(third) > 300
    assert {row[:2] for row in rows if len(row) > 2} == {(201, 200)}
    assert 0 not in third


def test_masked_positions_stay_masked_and_get_any_item_before_them():
    item_seq, lengths = reference.padded([[N_ITEMS, 3, N_ITEMS]] * 2000, 7)
    out, out_len = substitute(1.0)(item_seq, lengths, generator())
    assert out[:, :3].tolist() == [[N_ITEMS, 203, N_ITEMS]] * 2000
    out, out_len = insert(1.0)(item_seq, lengths, generator())
    assert out_len.tolist() == [6] * 2000
    assert out[:, [1, 2, 3, 5, 6]].tolist() == [[N_ITEMS, 203, 3, N_ITEMS, 0]] * 2000
    assert set(out[:, [0, 4]].flatten().tolist()) == set(range(1, N_ITEMS))


def test_a_masked_position_does_not_stand_for_the_last_item():
    item_seq, lengths = reference.padded([[4, 3]] * 500, 4)  # of items 1 to 3, the last has a neighbour
    out = insert(1.0, torch.tensor([0, 0, 0, 1]))(item_seq, lengths, generator()).item_seq
    assert set(out[:, 0].tolist()) == {1, 2, 3}
    assert out[:, 1:].tolist() == [[4, 1, 3]] * 500


def test_what_the_padding_has_as_neighbour_does_not_matter():
    odd = NEIGHBOURS.clone()
    odd[0] = 77
    item_seq, lengths = reference.padded([[N_ITEMS, 5]] * 500, 6)
    for make in (substitute, insert):
        expected = make(1.0)(item_seq, lengths, generator()).item_seq
        assert torch.equal(make(1.0, odd)(item_seq, lengths, generator()).item_seq, expected)
    assert odd[0].tolist() == [77] * 3


def test_one_column_is_as_good_as_a_vector():
    item_seq, lengths = reference.padded([range(1, 30)] * 9, 50)
    for make in (substitute, insert):
        results = [
            make(0.5, table)(item_seq, lengths, generator()).item_seq
            for table in (NEIGHBOURS, NEIGHBOURS[:, 0], NEIGHBOURS[:, :1], NEIGHBOURS.T.contiguous().T)
        ]
        assert all(torch.equal(result, results[0]) for result in results)


def test_new_neighbours_on_the_meta_device():
    neighbours = NEIGHBOURS.to("meta")
    substitute(neighbours=neighbours).set_neighbours(neighbours)


@pytest.mark.gpu
@pytest.mark.parametrize("most", [1, 3])
def test_pair_on_a_gpu_never_waits(most):
    rows = [list(range(1, n + 1)) for n in range(1, 101)] * 20
    item_seq, lengths = (tensor.cuda() for tensor in reference.padded(rows, 140))
    views = pair(max_insert_per_position=most).cuda()
    on_gpu = torch.Generator("cuda").manual_seed(0)
    views(item_seq, lengths, on_gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        first, _, operators = views(item_seq, lengths, on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    grown = (first.item_seq_len - lengths)[operators[:, 0] == 1].cpu()
    n = lengths[operators[:, 0] == 1].cpu()
    fewest = torch.tensor([slow_count(0.4, int(length)) for length in n])
    assert bool((grown >= fewest).all())
    if most == 1:
        assert torch.equal(grown, fewest)


# --- new neighbours -----------------------------------------------------------------------------------------------


def test_new_neighbours_are_used_and_are_not_part_of_the_state():
    item_seq, lengths = reference.padded([range(1, 12)] * 3, 22)
    views = pair(substitute=1.0)
    assert views.state_dict() == {}
    replace_neighbours(views, NEIGHBOURS.clamp(max=300))
    replace_neighbours(views, torch.where(NEIGHBOURS > 0, 9, 0))
    assert substitute(1.0)(item_seq, lengths).item_seq[0, 0] == 201
    for operator in list(views.operators)[:2]:
        assert 9 in set(operator(item_seq, lengths, generator()).item_seq.flatten().tolist())
        assert not (operator(item_seq, lengths, generator()).item_seq > 11).any()
    compose = Compose([FromLength(substitute(1.0), 2), ItemCrop()])
    replace_neighbours(compose, torch.full((N_ITEMS,), 9))
    assert compose(item_seq, lengths, generator()).item_seq[0, 0] == 9


# --- CoSeRec's short rule -----------------------------------------------------------------------------------------

LETTERS = "SICMR"
SETS = ["SI", "SIM", "SIR", "SIC", "SIMR", "SIMC", "SIRC", "SIMRC"]


def drawn_for(n, rows=400, **options):
    item_seq, lengths = reference.padded([range(1, n + 1)] * rows, n + 5)
    operators = pair(**options)(item_seq, lengths, generator(n)).operators
    return {LETTERS[index] if index >= 0 else "" for index in operators.flatten().tolist()}


@pytest.mark.parametrize("threshold", [1, 4, 12])
@pytest.mark.parametrize("short", SETS)
def test_short_rows_get_the_operators_of_their_set(short, threshold):
    n = max(2, threshold)  # mask is not offered to a row of one item
    if threshold > 1:
        assert drawn_for(n, threshold=threshold, short=short) == set(short)
    assert drawn_for(1, threshold=threshold, short=short) == set(short) - {"M"}
    assert drawn_for(threshold + 1, threshold=threshold, short=short) == set(LETTERS)


def test_without_a_threshold_all_operators_are_always_offered():
    assert drawn_for(1, threshold=-1) == set("SICR")
    assert drawn_for(2, threshold=-1, short="SI") == set(LETTERS)
    assert drawn_for(2, threshold=0) == set(LETTERS)


def test_defaults_are_those_of_coserec():
    """SIM up to four items, then all five, each with the same probability and with replacement."""
    assert drawn_for(4) == set("SIM")
    assert drawn_for(5) == set(LETTERS)
    item_seq, lengths = reference.padded([range(1, 11)] * 5000, 16)
    first, second, operators = pair()(item_seq, lengths, generator(1))
    together = Counter(map(tuple, operators.tolist()))
    assert len(together) == 25
    assert chisquare(list(together.values())).pvalue > LEAST_P
    for view, by in ((first, operators[:, 0]), (second, operators[:, 1])):
        for letter, length, masked in zip("SICMR", (10, 14, 2, 10, 10), (0, 0, 0, 7, 0), strict=True):
            rows = by == LETTERS.index(letter)
            assert set(view.item_seq_len[rows].tolist()) == {length}
            assert set((view.item_seq[rows] == N_ITEMS).sum(1).tolist()) == {masked}
        substituted = view.item_seq[by == 0] != item_seq[by == 0]
        assert substituted.sum(1).tolist() == [1] * len(substituted)


def test_ratios_reach_their_operators():
    views = pair(substitute=0.3, insert=0.5, crop=0.6, mask=0.2, reorder=0.9, max_insert_per_position=2)
    inner = [operator.operator if isinstance(operator, FromLength) else operator for operator in views.operators]
    assert [type(operator) for operator in inner] == [ItemSubstitute, ItemInsert, ItemCrop, ItemMask, ItemReorder]
    assert [operator.ratio for operator in inner] == [0.3, 0.5, 0.6, 0.2, 0.9]
    assert (inner[1].max_insert_per_position, inner[3].mask_id, views.distinct) == (2, N_ITEMS, False)
    assert [operator.min_length for operator in views.operators] == [1, 1, 5, 2, 5]


def test_from_length_alone_leaves_shorter_rows():
    operator = FromLength(substitute(1.0), 3)
    item_seq, lengths = reference.padded([[1, 2], [1, 2, 3], [4]])
    out, out_len = operator(item_seq, lengths)
    assert out.tolist() == [[1, 2, 0], [201, 202, 203], [4, 0, 0]]
    assert torch.equal(out_len, lengths)
    assert FromLength(ItemMask(mask_id=9), 1).min_length == 2
    assert FromLength(FromLength(ItemCrop(), 7), 3).min_length == 7


def test_arguments_are_shown():
    assert "ratio=0.1, n_items=400" in repr(substitute())
    assert "ratio=0.4, n_items=400, max_insert_per_position=3" in repr(insert(most=3))
    assert "min_length=5" in repr(FromLength(ItemCrop(), 5))


# --- wrong calls --------------------------------------------------------------------------------------------------


SEQ, LEN = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, dtype=torch.int64)
SHORT = "short: expected some of the letters S, I, C, M, R, each once, got "


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: substitute(0), "ratio: expected a number in (0, 1], got 0"),
        (lambda: insert(1.5), "ratio: expected a number in (0, 1], got 1.5"),
        (lambda: insert(most=0), "max_insert_per_position: expected a positive integer, got 0"),
        (lambda: insert(most=True), "max_insert_per_position: expected a positive integer, got True"),
        (lambda: insert(most=4), "neighbours: expected shape (n_items, k) with k >= 4, got (400, 3)"),
        (lambda: insert(most=2).set_neighbours(NEIGHBOURS[:, 0]),
         "neighbours: expected shape (n_items, k) with k >= 2, got (400,)"),
        (lambda: substitute(neighbours=[0, 1]), "neighbours: expected a tensor, got list"),
        (lambda: substitute(neighbours=NEIGHBOURS.int()), "neighbours: expected int64, got int32"),
        (lambda: substitute(neighbours=NEIGHBOURS[:1]),
         "neighbours: expected shape (n_items,) or (n_items, k) with n_items >= 2, got (1, 3)"),
        (lambda: substitute(neighbours=NEIGHBOURS[None]),
         "neighbours: expected shape (n_items,) or (n_items, k) with n_items >= 2, got (1, 400, 3)"),
        (lambda: substitute(neighbours=NEIGHBOURS[:, :0]),
         "neighbours: expected shape (n_items, k) with k >= 1, got (400, 0)"),
        (lambda: substitute(neighbours=torch.tensor([0, 2, 3])), "neighbours: expected ids from 0 to 2, got 3"),
        (lambda: substitute(neighbours=torch.tensor([0, -1, 9])), "neighbours: expected ids from 0 to 2, got -1"),
        (lambda: substitute().set_neighbours(NEIGHBOURS[:399].clamp(max=9)),
         "neighbours: expected 400 rows as before, got 399"),
        (lambda: insert()(SEQ.int(), LEN), "item_seq: expected int64, got int32"),
        (lambda: insert()(SEQ.to("meta"), LEN.to("meta")), "item_seq: expected device cpu as neighbours, got meta"),
        (lambda: FromLength(ItemCrop, 3), "operator: expected an Operator, got the class ItemCrop"),
        (lambda: FromLength(ItemCrop(), 0), "min_length: expected a positive integer, got 0"),
        (lambda: FromLength(ItemCrop(), 2.0), "min_length: expected a positive integer, got 2.0"),
        (lambda: FromLength(Widen(), 1)(SEQ, LEN),
         "operator: expected sequences of shape (2, 3) back, as they came in, got (2, 4)"),
        (lambda: pair(threshold=-2), "threshold: expected an integer of at least -1, got -2"),
        (lambda: pair(threshold=1.5), "threshold: expected an integer of at least -1, got 1.5"),
        (lambda: pair(short=""), SHORT + "''"),
        (lambda: pair(short="SIX"), SHORT + "'SIX'"),
        (lambda: pair(short="SII"), SHORT + "'SII'"),
        (lambda: coserec_pair(NEIGHBOURS, mask_id=401),
         "neighbours: expected 401 rows as mask_id, one per item, got 400"),
    ],
)  # fmt: skip
def test_wrong_calls_get_one_line(call, message):
    assert refusal_of(call) == message
