"""What every operator promises: inputs untouched, shapes and dtypes kept, seeds, padding, wrong calls."""

import copy

import augment_reference as reference
import pytest
import torch
from augment_reference import N_ITEMS, NEIGHBOURS, ROWS, Widen, generator, three
from refusals import refusal_of

from adaptssr_plugin.augment import (
    Compose,
    FromLength,
    ItemCrop,
    ItemInsert,
    ItemMask,
    ItemReorder,
    ItemSubstitute,
    Operator,
    RandomChoice,
    RandomPair,
)
from adaptssr_plugin.augment.operators.draws import shuffled_windows

SHORTENING = {
    "mask": three()[0],
    "crop": three()[1],
    "reorder": three()[2],
    "choice": RandomChoice(three()),
    "compose": Compose(three()),
}
GROWING = {
    "substitute": ItemSubstitute(neighbours=NEIGHBOURS),
    "insert": ItemInsert(neighbours=NEIGHBOURS),
    "insert-many": ItemInsert(0.2, neighbours=NEIGHBOURS, max_insert_per_position=3),
    "from-length": FromLength(ItemInsert(neighbours=NEIGHBOURS), 4),
}
OPERATORS = SHORTENING | GROWING
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())


@each_operator
@pytest.mark.parametrize("width", [31, 60])
def test_input_is_never_written_to(operator, width):
    item_seq, lengths = reference.padded([*ROWS, [N_ITEMS, 6, N_ITEMS]], width)
    given = item_seq, lengths, NEIGHBOURS
    before = [tensor.clone() for tensor in given]
    for seed in range(5):
        operator(item_seq, lengths, generator(seed)).item_seq.add_(1)
    assert all(torch.equal(*both) for both in zip(given, before, strict=True))


@each_operator
@pytest.mark.parametrize("rows", [1, 2, 47])
@pytest.mark.parametrize("width", [1, 31, 100])
def test_shapes_dtypes_and_padding(operator, rows, width):
    lengths = torch.randint(1, width + 1, (rows,), generator=generator(rows))
    place = torch.arange(width)
    item_seq = torch.where(place < lengths[:, None], place + 1, 0)
    out, out_len = operator(item_seq, lengths, generator(1))
    assert out.shape == item_seq.shape
    assert out.dtype == out_len.dtype == torch.int64
    assert torch.equal(out > 0, place < out_len[:, None])
    least, most = (lengths, width) if operator in GROWING.values() else (1, lengths)
    assert bool(((out_len >= least) & (out_len <= most)).all())
    assert out.max().item() <= N_ITEMS


@each_operator
def test_empty_batch(operator):
    out, out_len = operator(torch.zeros(0, 5, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert (out.shape, out_len.shape) == ((0, 5), (0,))


@each_operator
def test_same_seed_same_result_and_another_seed_another(operator):
    item_seq, lengths = reference.padded([range(1, 40)] * 6, 50)
    first, again, other = (operator(item_seq, lengths, generator(seed)).item_seq for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_operator
def test_generator_none_follows_torchs_own_seed(operator):
    item_seq, lengths = reference.padded([range(1, 40)] * 6, 50)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        first = operator(item_seq, lengths).item_seq
        torch.manual_seed(11)
        assert torch.equal(operator(item_seq, lengths).item_seq, first)


@pytest.mark.parametrize("operator", SHORTENING.values(), ids=SHORTENING.keys())
def test_padding_width_changes_nothing_but_the_padding(operator):
    """Not the draws themselves, whose number depends on the width, but what can come out."""
    seen = {}
    for width in (4, 9):
        item_seq, lengths = reference.padded([range(1, 5)] * 4000, width)
        out, out_len = operator(item_seq, lengths, generator(2))
        assert not out[:, 4:].any()
        seen[width] = set(zip(map(tuple, out[:, :4].tolist()), out_len.tolist(), strict=True))
    assert seen[4] == seen[9]


@pytest.mark.parametrize("name", ["mask", "choice", "compose"])
def test_one_item_is_never_masked(name):
    item_seq, lengths = reference.padded([[7]] * 200, width=6)
    out, out_len = OPERATORS[name](item_seq, lengths, generator())
    assert torch.equal(out, item_seq)
    assert torch.equal(out_len, lengths)


@each_operator
def test_non_contiguous_input(operator):
    item_seq, lengths = reference.padded([range(1, 30)] * 8, 33)
    flipped = item_seq.T.contiguous().T
    assert not flipped.is_contiguous()
    expected = operator(item_seq, lengths, generator(3))
    assert torch.equal(operator(flipped, lengths, generator(3)).item_seq, expected.item_seq)


def test_mask_positions_are_the_ones_forward_masks():
    item_seq, lengths = reference.padded(ROWS)
    operator = OPERATORS["mask"]
    order, m = operator.positions(lengths, item_seq.shape[1], generator(8))
    assert torch.equal(order.sort(1).values, torch.arange(item_seq.shape[1]).expand_as(order))
    masked = operator(item_seq, lengths, generator(8)).item_seq == N_ITEMS
    for row, length in enumerate(lengths.tolist()):
        assert set(order[row, :length].tolist()) == set(range(length))
        assert set(masked[row].nonzero().flatten().tolist()) == set(order[row, : m[row]].tolist())


def test_ratio_one_crops_nothing_and_reorders_everything():
    item_seq, lengths = reference.padded(ROWS)
    kept, kept_len = ItemCrop(1)(item_seq, lengths)
    assert torch.equal(kept, item_seq)
    assert torch.equal(kept_len, lengths)
    item_seq, lengths = reference.padded([range(1, 31)] * 200)
    moved = ItemReorder(1)(item_seq, lengths, generator()).item_seq != item_seq
    assert bool(moved.any(0).all())


@pytest.mark.parametrize("width", [1, 2, 3, 64, 65, 5000, 70_000])
def test_shuffled_windows_are_permutations_at_any_width(width):
    """65,536 positions are where the random bits of a key begin to be fewer."""
    rows = 3 if width > 1000 else 50
    length = torch.randint(0, width + 1, (rows,), generator=generator(width))
    start = ((width - length + 1) * torch.rand(rows, generator=generator(1))).long()
    order = shuffled_windows(start, length, width, generator(2))
    place = torch.arange(width)
    assert torch.equal(order.sort(1).values, place.expand(rows, width))
    outside = (place < start[:, None]) | (place >= (start + length)[:, None])
    assert torch.equal(order[outside], place.expand(rows, width)[outside])
    if width > 1000:
        assert (order != place).sum().item() > 0.9 * length.sum().item()


@pytest.mark.parametrize("width", [100, 300])
def test_sorting_elsewhere_gives_what_sorting_on_the_cpu_gives(monkeypatch, width):
    start, length = torch.tensor([0, 3, 50, 99]), torch.tensor([100, 4, 0, 1])
    here = shuffled_windows(start, length, width, generator(5))
    monkeypatch.setattr("adaptssr_plugin.augment.operators.draws.on_cpu", lambda tensor: False)
    assert torch.equal(shuffled_windows(start, length, width, generator(5)), here)


@each_operator
def test_meta_device(operator):
    """No tensor is born on another device, and nothing is read back: on meta there is nothing to read."""
    item_seq = torch.zeros(5, 12, dtype=torch.int64, device="meta")
    out, out_len = copy.deepcopy(operator).to("meta")(item_seq, torch.ones(5, dtype=torch.int64, device="meta"))
    assert (out.device.type, out_len.device.type) == ("meta", "meta")
    assert (out.shape, out_len.shape, out.dtype) == ((5, 12), (5,), torch.int64)


@pytest.mark.gpu
@pytest.mark.parametrize("distinct", [False, True])
def test_pair_on_a_gpu_never_waits(distinct):
    rows = [list(range(1, n + 1)) for n in range(1, 101)] * 40
    item_seq, lengths = (tensor.cuda() for tensor in reference.padded(rows))
    pair = RandomPair(three(), distinct=distinct)
    on_gpu = torch.Generator("cuda").manual_seed(0)
    pair(item_seq, lengths, on_gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        views = pair(item_seq, lengths, on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert views.first.item_seq.is_cuda
    for view, drawn in ((views.first, views.operators[:, 0]), (views.second, views.operators[:, 1])):
        masked = (view.item_seq == N_ITEMS).sum(1)
        for row, n, kept, hidden, operator in zip(
            view.item_seq.tolist(),
            lengths.tolist(),
            view.item_seq_len.tolist(),
            masked.tolist(),
            drawn.tolist(),
            strict=True,
        ):
            assert kept == (reference.up(0.4, n) if operator == 1 else n)
            assert hidden == (reference.masked_count(0.6, n) if operator == 0 else 0)
            if operator == 2:
                assert sorted(row[:n]) == list(range(1, n + 1))


SEQ, LEN = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ItemCrop(0), "ratio: expected a number in (0, 1], got 0"),
        (lambda: ItemCrop(1.5), "ratio: expected a number in (0, 1], got 1.5"),
        (lambda: ItemReorder(float("nan")), "ratio: expected a number in (0, 1], got nan"),
        (lambda: ItemReorder("0.5"), "ratio: expected a number in (0, 1], got '0.5'"),
        (lambda: ItemMask(True, mask_id=9), "ratio: expected a number in (0, 1], got True"),
        (lambda: ItemMask(mask_id=0), "mask_id: expected a positive integer, got 0"),
        (lambda: ItemMask(mask_id=9.0), "mask_id: expected a positive integer, got 9.0"),
        (lambda: RandomChoice([]), "operators: expected at least one operator, got an empty list"),
        (lambda: RandomPair(ItemCrop()), "operators: expected a list of operators, got ItemCrop"),
        (lambda: Compose([ItemCrop(), "crop"]), "operators[1]: expected an Operator, got str"),
        (lambda: RandomPair([ItemCrop]), "operators[0]: expected an Operator, got the class ItemCrop"),
        (lambda: RandomPair([ItemCrop()], distinct=True), "operators: expected at least two with distinct=True, got 1"),
        (lambda: ItemCrop()([[1, 2]], LEN), "item_seq: expected a tensor, got list"),
        (lambda: ItemCrop()(SEQ, [1, 1]), "item_seq_len: expected a tensor, got list"),
        (lambda: ItemCrop()(SEQ[0], LEN), "item_seq: expected shape (B, L) with L >= 1, got (3,)"),
        (lambda: ItemCrop()(SEQ[:, :0], LEN), "item_seq: expected shape (B, L) with L >= 1, got (2, 0)"),
        (lambda: ItemCrop()(SEQ.int(), LEN), "item_seq: expected int64, got int32"),
        (lambda: ItemCrop()(SEQ, LEN.float()), "item_seq_len: expected int64, got float32"),
        (lambda: ItemCrop()(SEQ, SEQ), "item_seq_len: expected shape (B,), got (2, 3)"),
        (
            lambda: ItemCrop()(SEQ, LEN[:1]),
            "item_seq_len: expected shape (2,), one per row of item_seq, got (1,)",
        ),
        (lambda: ItemCrop()(SEQ, LEN.to("meta")), "item_seq_len: expected device cpu as item_seq, got meta"),
        (
            lambda: ItemCrop()(SEQ.to("meta"), LEN.to("meta"), torch.Generator()),
            "generator: expected one on meta as item_seq_len, got one on cpu",
        ),
        (
            lambda: ItemMask(mask_id=9).positions(LEN.int(), 4),
            "item_seq_len: expected int64, got int32",
        ),
        (
            lambda: RandomChoice([Widen()])(SEQ, LEN),
            "operators[0]: expected sequences of shape (2, 3) back, as they came in, got (2, 4)",
        ),
        (
            lambda: Compose([ItemCrop(), Widen()])(SEQ, LEN),
            "operators[1]: expected sequences of shape (2, 3) back, as they came in, got (2, 4)",
        ),
    ],
)
def test_wrong_calls_get_one_line(call, message):
    assert refusal_of(call) == message


def test_an_operator_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Operator does not say what it does"):
        Operator()(SEQ, LEN)
