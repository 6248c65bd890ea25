"""Mask-and-fill: what the model is shown, what is drawn from its logits, and that nothing trains or moves it."""

import weakref

import augment_reference as reference
import numpy as np
import pytest
import torch
from augment_reference import generator
from readbacks import count_readbacks
from refusals import refusal_of
from scipy import stats

import adaptssr_plugin.augment.operators.mask_and_fill as module
from adaptssr_plugin import ItemCrop, MaskAndFill, RandomPair
from adaptssr_plugin.augment import MaskAndFillPair, linear_ratios
from adaptssr_plugin.errors import InputError

N_ITEMS = 40
ROWS = [[7], [3, 3], [5, 6, 7], list(range(1, 12)), list(range(2, 33)), [9, 8, 7, 6, 5]]


class Linear(torch.nn.Module):
    """A filler whose logits depend on row, position and what is visible; keeps what it was shown."""

    n_items = N_ITEMS

    def __init__(self, seed=0, scale=2.0):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(100, N_ITEMS, generator=generator(seed)) * scale)
        self.calls = []
        self.eval()

    def forward(self, item_seq, item_seq_len, rows, positions):
        self.calls.append((item_seq.clone(), item_seq_len.clone(), rows.clone(), positions.clone()))
        visible = (item_seq * (item_seq < N_ITEMS)).sum(1) % 50  # (B,)
        return self.table[visible[rows]] + self.table[positions]


def constant(logits):
    """A filler that gives every position the same logits."""
    return lambda _seq, _len, rows, _positions: logits.expand(len(rows), -1)


@pytest.mark.parametrize(
    ("ratio", "counts"),
    [
        (0.3, {1: 0, 2: 1, 3: 1, 5: 2, 10: 3, 55: 17, 100: 30}),
        (1.0, {1: 0, 2: 1, 3: 2, 55: 54}),
        (0.01, {1: 0, 2: 1, 3: 1, 100: 1}),
    ],
)
def test_how_many_are_masked_and_what_the_model_is_shown(ratio, counts):
    filler = Linear()
    item_seq, lengths = reference.padded([[1 + place % 30 for place in range(n)] for n in counts])
    MaskAndFill(ratio, filler)(item_seq, lengths, generator())
    shown, shown_lengths, rows, positions = filler.calls[0]
    assert len(filler.calls) == 1
    assert rows.bincount(minlength=len(counts)).tolist() == list(counts.values())
    slots = torch.zeros_like(item_seq, dtype=torch.bool)
    slots[rows, positions] = True
    assert torch.equal(shown == N_ITEMS, slots)
    assert torch.equal(shown[~slots], item_seq[~slots])
    assert torch.equal(shown_lengths, lengths)
    assert int(slots.sum()) == len(rows)  # each position once


def test_only_masked_positions_change_and_the_input_never():
    filler = Linear()
    item_seq, lengths = reference.padded(ROWS)
    before = item_seq.clone(), lengths.clone()
    filled, new_lengths = MaskAndFill(0.5, filler)(item_seq, lengths, generator())
    shown = filler.calls[0][0]
    assert torch.equal(filled[shown < N_ITEMS], item_seq[shown < N_ITEMS])
    assert torch.equal(new_lengths, lengths)
    assert (filled[item_seq == 0] == 0).all()
    filled.fill_(77)
    assert torch.equal(item_seq, before[0])
    assert torch.equal(lengths, before[1])


def test_a_batch_of_single_items_stays_and_asks_no_model():
    filler = Linear()
    for rows in ([[7], [3]], [[7, 0, 0]]):
        item_seq = torch.tensor(rows)
        filled, _ = MaskAndFill(0.9, filler)(item_seq, torch.ones(len(rows), dtype=torch.int64), generator())
        assert torch.equal(filled, item_seq)
        assert filled.data_ptr() != item_seq.data_ptr()
    assert filler.calls == []
    assert MaskAndFill.min_length == 2


@pytest.mark.parametrize("width", [N_ITEMS, N_ITEMS + 1, N_ITEMS + 5])
def test_padding_and_mask_are_never_drawn(width):
    logits = torch.zeros(width)
    logits[0] = logits[N_ITEMS:] = 50.0
    item_seq, lengths = reference.padded(ROWS * 20)
    filled, _ = MaskAndFill(0.9, constant(logits), mask_id=N_ITEMS)(item_seq, lengths, generator())
    assert ((filled > 0) & (filled < N_ITEMS) | (item_seq == 0)).all()


def drawn_items(operator, n_rows=4000, row=(5, 6)):
    """Many rows of two items after an operator, and where it changed them."""
    item_seq = torch.tensor([row] * n_rows)
    filled, _ = operator(item_seq, torch.full((n_rows,), len(row)), generator(3))
    return filled, filled != item_seq


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_items_are_drawn_from_the_softmax_of_the_top_k(temperature):
    logits = torch.full((N_ITEMS,), -1.0)
    logits[[11, 12, 13, 14]] = torch.tensor([2.0, 1.0, 0.5, 0.0])
    operator = MaskAndFill(0.5, constant(logits), mask_id=N_ITEMS, top_k=3, temperature=temperature)
    shown, changed = drawn_items(operator)
    assert (changed.sum(1) == 1).all()
    counts = shown[changed].bincount(minlength=N_ITEMS)
    expected = (logits[11:14].double() / temperature).softmax(0) * counts.sum()
    assert int(counts[11:14].sum()) == 4000  # the fourth is not among the three likeliest
    assert stats.chisquare(counts[11:14].numpy(), expected.numpy()).pvalue > 1e-4


def test_positions_are_drawn_uniformly():
    logits = torch.zeros(N_ITEMS)
    logits[30] = 90.0
    item_seq = torch.tensor([[1, 2, 3, 4, 5]] * 4000)
    operator = MaskAndFill(0.2, constant(logits), mask_id=N_ITEMS)
    filled, _ = operator(item_seq, torch.full((4000,), 5), generator(1))
    assert stats.chisquare((filled == 30).sum(0).numpy()).pvalue > 1e-4


def test_argmax_takes_the_likeliest():
    logits = torch.arange(N_ITEMS).float()
    shown, changed = drawn_items(MaskAndFill(0.5, constant(logits), mask_id=N_ITEMS, fill="argmax"), 50)
    assert (shown[changed] == N_ITEMS - 1).all()


def test_the_original_comes_back_unless_it_is_banned():
    logits = torch.zeros(N_ITEMS)
    logits[5] = logits[6] = 30.0
    logits[17] = 10.0
    kept, changed = drawn_items(MaskAndFill(0.5, constant(logits), mask_id=N_ITEMS), 400)
    assert not changed.all(1).any()
    assert (kept[~changed.any(1)] == torch.tensor([5, 6])).all()  # the item that stood there
    assert 100 < int((~changed.any(1)).sum()) < 300
    banned, changed = drawn_items(MaskAndFill(0.5, constant(logits), mask_id=N_ITEMS, ban_original=True), 400)
    assert (changed.sum(1) == 1).all()
    assert set(banned.flatten().tolist()) == {5, 6}  # the other of the two


def test_where_nothing_is_left_to_draw_the_row_stays():
    item_seq = torch.tensor([[1, 1, 1]])
    operator = MaskAndFill(0.9, constant(torch.tensor([9.0, 3.0])), mask_id=2, ban_original=True)
    assert operator(item_seq, torch.tensor([3]), generator()).item_seq.tolist() == [[1, 1, 1]]


def test_a_position_that_was_masked_before_is_filled_and_bans_nothing():
    logits = torch.zeros(N_ITEMS)
    logits[N_ITEMS - 1] = 90.0
    item_seq = torch.tensor([[N_ITEMS, N_ITEMS, N_ITEMS]])
    operator = MaskAndFill(0.9, constant(logits), mask_id=N_ITEMS, ban_original=True)
    filled = operator(item_seq, torch.tensor([3]), generator()).item_seq[0]
    assert sorted(filled.tolist()) == [N_ITEMS - 1, N_ITEMS - 1, N_ITEMS]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunks_of_logits_are_the_same_as_all_at_once_and_one_at_a_time(size):
    whole = Linear()
    alive = []

    def in_chunks(*arguments):
        for part in whole(*arguments).detach().split(size):
            assert sum(one() is not None for one in alive) <= 1  # the one that was asked for last
            chunk = part.clone()
            alive.append(weakref.ref(chunk))
            yield chunk
            del chunk

    item_seq, lengths = reference.padded(ROWS)
    expected = MaskAndFill(0.5, whole)(item_seq, lengths, generator(4))
    ours = MaskAndFill(0.5, in_chunks, mask_id=N_ITEMS)(item_seq, lengths, generator(4))
    assert torch.equal(ours.item_seq, expected.item_seq)
    assert len(alive) == -(-len(whole.calls[0][2]) // size)


def test_where_positions_cannot_be_counted_the_result_is_the_same_and_nothing_is_read_back(monkeypatch):
    item_seq, lengths = reference.padded(ROWS)
    filler = Linear()
    operator = MaskAndFill(0.5, filler)
    expected = operator(item_seq, lengths, generator(4))
    monkeypatch.setattr(module, "on_cpu", lambda _tensor: False)
    with count_readbacks() as reads:
        ours = operator(item_seq, lengths, generator(4))
    assert reads == []
    assert torch.equal(ours.item_seq, expected.item_seq)
    assert torch.equal(filler.calls[0][0], filler.calls[1][0])


# --- the model ----------------------------------------------------------------------------------------------------


def test_the_model_is_no_part_of_the_operator():
    filler = Linear()
    views = RandomPair([MaskAndFill(0.5, filler), ItemCrop(0.4)])
    assert list(views.parameters()) == []
    assert views.state_dict() == {}
    views.train()
    assert not filler.training
    item_seq, lengths = reference.padded(ROWS)
    views(item_seq, lengths, generator())
    assert filler.table.grad is None
    assert filler.table.requires_grad  # whose it is, is not ours to say


def test_the_model_moves_along():
    filler = Linear()
    RandomPair([MaskAndFill(0.5, filler)]).to("meta")
    assert filler.table.is_meta
    MaskAndFill(0.5, len, mask_id=3).to("meta")  # a function stays where it is


def test_a_model_in_training_mode_is_refused():
    filler = torch.nn.Sequential(torch.nn.Dropout(), Linear())
    operator = MaskAndFill(0.5, filler, mask_id=N_ITEMS)
    filler[1].eval()
    item_seq, lengths = reference.padded(ROWS)
    with pytest.raises(InputError, match=r"^filler: expected a model in evaluation mode, got one in training mode"):
        operator(item_seq, lengths, generator())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.5}, "ratio: expected a number in (0, 1], got 1.5"),
        ({"filler": 3}, "filler: expected a masked-item model, got int"),
        ({"filler": len}, "mask_id: expected a positive integer, got None"),
        ({"mask_id": 0}, "mask_id: expected a positive integer, got 0"),
        ({"top_k": 2.0}, "top_k: expected a positive integer, got 2.0"),
        ({"temperature": 0}, "temperature: expected a positive number, got 0"),
        ({"temperature": float("inf")}, "temperature: expected a positive number, got inf"),
        ({"fill": "beam"}, "fill: expected 'sample' or 'argmax', got 'beam'"),
    ],
)
def test_wrong_arguments(arguments, message):
    assert refusal_of(MaskAndFill, **{"ratio": 0.3, "filler": Linear(), **arguments}) == message


@pytest.mark.parametrize(
    ("filler", "message"),
    [
        (lambda _s, _n, rows, _p: torch.zeros(len(rows) + 1, N_ITEMS), "expected logits for 1 positions, got 2"),
        (lambda *_: iter(()), "expected logits for 1 positions, got 0"),
        (
            lambda _s, _n, rows, _p: torch.zeros(len(rows), N_ITEMS - 1),
            "expected floating logits (M, n) with n >= 40, got float32 of shape (1, 39)",
        ),
        (
            lambda _s, _n, rows, _p: torch.zeros(len(rows), N_ITEMS, dtype=torch.int64),
            "expected floating logits (M, n) with n >= 40, got int64 of shape (1, 40)",
        ),
    ],
)
def test_wrong_logits(filler, message):
    operator = MaskAndFill(0.3, filler, mask_id=N_ITEMS)
    assert refusal_of(operator, torch.tensor([[1, 2]]), torch.tensor([2]), generator()) == f"filler: {message}"


# --- pairs and curriculum ---------------------------------------------------------------------------------------


def test_a_pair_is_two_draws_by_one_pass():
    filler = Linear()
    item_seq, lengths = reference.padded(ROWS)
    first, second, operators = MaskAndFillPair(MaskAndFill(0.5, filler))(item_seq, lengths, generator())
    assert operators is None
    assert len(filler.calls) == 1
    assert not torch.equal(first.item_seq, second.item_seq)
    both = MaskAndFill(0.5, filler)(item_seq.repeat(2, 1), lengths.repeat(2), generator())
    assert torch.equal(torch.cat([first.item_seq, second.item_seq]), both.item_seq)
    second.item_seq.fill_(1)
    assert torch.equal(first.item_seq, both.item_seq[: len(ROWS)])


def test_one_side_leaves_the_first_view():
    item_seq, lengths = reference.padded(ROWS)
    first, second, _ = MaskAndFillPair(MaskAndFill(0.5, Linear()), one_side=True)(item_seq, lengths, generator())
    assert torch.equal(first.item_seq, item_seq)
    assert not torch.equal(second.item_seq, item_seq)
    first.item_seq.fill_(1)
    assert item_seq.max() == 32


@pytest.mark.parametrize(
    ("ratio", "epochs", "per_stage", "expected"),
    [
        (0.4, 4, 1, [0.1, 0.2, 0.3, 0.4]),
        (0.3, 5, 2, [0.1, 0.1, 0.2, 0.2, 0.3]),
        (0.3, 3, 5, [0.3, 0.3, 0.3]),
    ],
)
def test_linear_ratios(ratio, epochs, per_stage, expected):
    assert linear_ratios(ratio, epochs, per_stage) == pytest.approx(expected)


def test_linear_ratios_of_the_public_code():
    """100 epochs in steps of five: .015 to .30."""
    ratios = linear_ratios(0.3, 100, 5)
    assert np.unique(np.round(ratios, 9)).tolist() == pytest.approx(np.arange(1, 21) * 0.015)
    assert ratios[-1] == 0.3


def test_the_pair_follows_its_epochs():
    fill = MaskAndFill(0.8, Linear())
    pair = MaskAndFillPair(fill, ratios=[0.2, 0.4])
    assert fill.ratio == 0.8
    seen = []
    for epoch in (0, None, 1, 7, None):
        pair.set_epoch(epoch, None)
        seen.append(fill.ratio)
    assert seen == [0.2, 0.8, 0.4, 0.4, 0.8]
    without = MaskAndFillPair(MaskAndFill(0.8, Linear()))
    without.set_epoch(0)
    assert without.fill.ratio == 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MaskAndFillPair(ItemCrop(0.4)), "fill: expected a MaskAndFill, got ItemCrop"),
        (lambda: MaskAndFillPair(MaskAndFill(0.3, Linear()), ratios=[0]), "ratio: expected a number in (0, 1], got 0"),
        (lambda: linear_ratios(0.3, 0, 5), "epochs: expected a positive integer, got 0"),
        (lambda: linear_ratios(0.3, 5, 0), "epochs_per_stage: expected a positive integer, got 0"),
    ],
)
def test_wrong_pairs(call, message):
    assert refusal_of(call) == message
