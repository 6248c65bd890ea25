"""The scored curriculum: which candidates are drawn, how difficult they are, and which of them become the views."""

import math

import augment_reference as reference
import pytest
import torch
from augment_reference import generator
from readbacks import count_readbacks
from refusals import refusal_of
from training_cases import N_ITEMS, encoder_of

import adaptssr_plugin.augment.operators.mask_and_fill as module
from adaptssr_plugin import ItemCrop, MaskAndFill, UserEncoder
from adaptssr_plugin.augment.curriculum import ScoredFillPair, equal_stages
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training import MaskedItemFiller, MaskedItemStage

ROWS = [[7], [3, 3], [5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [9, 8, 7, 6, 5], list(range(1, 12)) * 2]


def model(seed=0, dropout=0.5, dtype=torch.float32):
    """A frozen masked-item model whose encoder would drop out half of everything, were it in training mode."""
    stage = MaskedItemStage(encoder_of(UserEncoder, seed=seed, dropout=dropout))
    return MaskedItemFiller(stage.encoder, stage.head).to(dtype)


def pair_of(filler=None, ratio=0.6, **options):
    return ScoredFillPair(MaskAndFill(ratio, filler or model(), ban_original=True), **options)


def by_hand(filler, row, other):
    """1 - cos of the means of hidden states, of one user, computed in Python numbers."""
    means = []
    for items in (row, other):
        hidden = filler.encoder.hidden_states(torch.tensor([items]), torch.tensor([len(items)]))[0].tolist()
        means.append([sum(column) / len(items) for column in zip(*hidden, strict=True)])
    one, two = means
    norms = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in two))
    return 1 - sum(x * y for x, y in zip(one, two, strict=True)) / norms


# --- candidates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_the_difficulty_of_every_candidate_is_that_of_a_single_user_by_hand(dtype, error):
    filler, literal = model(dtype=dtype), model(dtype=torch.float64)
    item_seq, lengths = reference.padded(ROWS)
    drawn = pair_of(filler, candidates=3).draw(item_seq, lengths, generator())
    assert drawn.item_seq.shape == (2, 3, len(ROWS), 22)
    assert drawn.difficulty.shape == (2, 3, len(ROWS))
    assert drawn.difficulty.dtype == dtype
    for view in range(2):
        for nth in range(3):
            for number, row in enumerate(ROWS):
                candidate = drawn.item_seq[view, nth, number, : len(row)].tolist()
                expected = by_hand(literal, row, candidate)
                assert float(drawn.difficulty[view, nth, number]) == pytest.approx(expected, abs=error)
    assert (drawn.difficulty[:, :, 1:] > 1e-3).all()  # nothing above compares noise


@pytest.mark.parametrize(
    ("ratio", "candidates", "counts"),
    [
        (0.3, 5, {1: [0] * 5, 2: [1] * 5, 10: [1, 2, 2, 3, 3], 22: [2, 3, 4, 6, 7], 100: [6, 12, 18, 24, 30]}),
        (1.0, 4, {1: [0] * 4, 2: [1] * 4, 3: [1, 2, 2, 2], 20: [5, 10, 15, 19]}),
        (0.9, 1, {10: [9]}),
    ],
)
def test_each_candidate_masks_its_own_share(ratio, candidates, counts):
    """up(ρ·c/C, n), at least one and all but one at most; what is banned shows how many were filled."""
    item_seq, lengths = reference.padded([[1 + place % 11 for place in range(n)] for n in counts])
    drawn = pair_of(ratio=ratio, candidates=candidates).draw(item_seq, lengths, generator())
    changed = (drawn.item_seq != item_seq).sum(-1)  # (V, C, B)
    for view in changed:
        assert view.t().tolist() == list(counts.values())
    by_rule = [[min(max(reference.up(ratio * c / candidates, n), 1), n - 1) for c in range(1, candidates + 1)]
               for n in counts]  # fmt: skip
    assert by_rule == list(counts.values())


def test_candidates_of_views_are_drawn_for_themselves():
    item_seq, lengths = reference.padded([ROWS[-1]] * 8)
    drawn = pair_of().draw(item_seq, lengths, generator()).item_seq
    kinds = {tuple(row) for row in drawn.flatten(0, 2).tolist()}
    assert len(kinds) == 2 * 5 * 8


def test_all_candidates_are_filled_in_one_pass_and_scored_in_another(monkeypatch):
    filler = model()
    calls = []
    encode = filler.encoder.hidden_states
    monkeypatch.setattr(
        filler.encoder, "hidden_states", lambda *both: (calls.append((len(both[0]), torch.is_grad_enabled())),
                                                        encode(*both))[1]
    )  # fmt: skip
    item_seq, lengths = reference.padded(ROWS)
    pair_of(filler, candidates=4)(item_seq, lengths, generator())
    assert calls == [(2 * 4 * 6, False), (2 * 4 * 6 + 6, False)]
    calls.clear()
    pair_of(filler, candidates=4, one_side=True)(item_seq, lengths, generator())
    assert calls == [(4 * 6, False), (4 * 6 + 6, False)]


# --- the views --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_side", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_the_views_are_the_candidates_of_that_rank_row_by_row(rank, one_side):
    item_seq, lengths = reference.padded(ROWS * 5)
    pair = pair_of(candidates=4, ranks=[rank], one_side=one_side)
    drawn = pair.draw(item_seq, lengths, generator(2))
    pair.set_epoch(0)
    first, second, operators = pair(item_seq, lengths, generator(2))
    assert operators is None
    views = [second] if one_side else [first, second]
    seen = set()
    for view, (made, made_len) in enumerate(views):
        assert torch.equal(made_len, lengths)
        for row in range(len(lengths)):
            difficulty = drawn.difficulty[view, :, row].tolist()
            nth = sorted(range(4), key=lambda nth: difficulty[nth])[rank - 1]
            seen.add(nth)
            assert torch.equal(made[row], drawn.item_seq[view, nth, row])
    assert len(seen) > 1  # the rank is by difficulty, not by ratio
    if one_side:
        assert torch.equal(first.item_seq, item_seq)


def test_of_equal_candidates_the_first_is_the_easiest():
    class Blind(torch.nn.Module):
        n_items = N_ITEMS

        def forward(self, item_seq, item_seq_len, rows, positions):
            return torch.randn(len(rows), N_ITEMS, generator=generator(5))

        def mean_states(self, item_seq, item_seq_len):
            return torch.ones(len(item_seq), 3)

    item_seq, lengths = reference.padded(ROWS)
    pair = pair_of(Blind().eval(), candidates=3, ranks=[1, 2, 3])
    drawn = pair.draw(item_seq, lengths, generator())
    assert drawn.difficulty.abs().max() == 0
    for epoch in range(3):
        pair.set_epoch(epoch)
        first, second, _ = pair(item_seq, lengths, generator())
        assert torch.equal(torch.stack([first.item_seq, second.item_seq]), drawn.item_seq[:, epoch])


def test_rows_of_one_item_stay():
    item_seq = torch.tensor([[7, 0, 0], [3, 0, 0]])
    pair = pair_of(ratio=1.0)
    drawn = pair.draw(item_seq, torch.ones(2, dtype=torch.int64), generator())
    assert (drawn.item_seq == item_seq).all()
    assert drawn.difficulty.abs().max() < 1e-6
    first, second, _ = pair(item_seq, torch.ones(2, dtype=torch.int64), generator())
    assert torch.equal(first.item_seq, item_seq)
    assert torch.equal(second.item_seq, item_seq)


def test_an_empty_batch_gives_empty_views():
    empty = torch.empty(0, 4, dtype=torch.int64)
    first, second, _ = pair_of()(empty, empty[:, 0], generator())
    assert first.item_seq.shape == second.item_seq.shape == (0, 4)


def test_where_positions_cannot_be_counted_the_result_is_the_same_and_nothing_is_read_back(monkeypatch):
    filler = model()
    filler.encoder.length_groups = 1  # as on a device
    item_seq, lengths = reference.padded(ROWS)
    pair = pair_of(filler, candidates=3, ranks=[2])
    pair.set_epoch(0)
    expected = pair(item_seq, lengths, generator(4))
    shown = []
    score = filler.forward
    monkeypatch.setattr(filler, "forward", lambda *args: (shown.append(len(args[2])), score(*args))[1])
    monkeypatch.setattr(module, "on_cpu", lambda _tensor: False)
    with count_readbacks() as reads:
        ours = pair(item_seq, lengths, generator(4))
    assert reads == []
    assert torch.equal(ours.first.item_seq, expected.first.item_seq)
    assert torch.equal(ours.second.item_seq, expected.second.item_seq)
    assert shown == [2 * len(ROWS) * sum(reference.up(share, 22) for share in (0.2, 0.4, 0.6))]  # no more than need be


def test_the_model_is_no_part_of_the_views():
    filler = model()
    pair = pair_of(filler)
    assert list(pair.parameters()) == []
    assert pair.state_dict() == {}
    pair.train()
    assert not any(part.training for part in filler.modules())
    pair.to("meta")
    assert all(parameter.is_meta for parameter in filler.parameters())
    assert all(parameter.is_meta for parameter in pair.evaluator.parameters())


# --- the schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "candidates", "stages", "expected"),
    [
        (20, 5, None, [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4),
        (5, 5, None, [1, 2, 3, 4, 5]),
        (7, 3, None, [1, 1, 1, 2, 2, 3, 3]),
        (8, 3, None, [1, 1, 1, 2, 2, 2, 3, 3]),
        (6, 5, 2, [3, 3, 3, 5, 5, 5]),
        (4, 5, 1, [5] * 4),
        (3, 1, None, [1] * 3),
    ],
)
def test_equal_stages(epochs, candidates, stages, expected):
    assert list(equal_stages(epochs, candidates, stages)) == expected


@pytest.mark.parametrize("epochs", range(5, 40))
def test_stages_are_as_long_as_each_other_but_for_one_epoch(epochs):
    ranks = equal_stages(epochs, 5)
    lengths = [ranks.count(rank) for rank in range(1, 6)]
    assert sum(lengths) == epochs
    assert max(lengths) - min(lengths) <= 1
    assert list(ranks) == sorted(ranks)


def test_the_pair_follows_its_epochs_and_is_validated_by_the_hardest():
    pair = pair_of(candidates=3, ranks=[1, 2])
    seen = [pair.rank]
    for epoch in (0, None, 1, 7, None):
        pair.set_epoch(epoch, None)
        seen.append(pair.rank)
    assert seen == [3, 1, 3, 2, 2, 3]
    without = pair_of(candidates=3)
    without.set_epoch(0)
    assert without.rank == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ScoredFillPair(ItemCrop(0.4)), "fill: expected a MaskAndFill, got ItemCrop"),
        (
            lambda: ScoredFillPair(MaskAndFill(0.3, len, mask_id=3)),
            "fill: expected a filler with mean_states, got builtin_function_or_method",
        ),
        (lambda: pair_of(candidates=0), "candidates: expected a positive integer, got 0"),
        (lambda: pair_of(candidates=2.0), "candidates: expected a positive integer, got 2.0"),
        (lambda: pair_of(candidates=3, ranks=[1, 4]), "ranks: expected an integer in 1 .. 3, got 4"),
        (lambda: pair_of(candidates=3, ranks=[0]), "ranks: expected an integer in 1 .. 3, got 0"),
        (lambda: equal_stages(4, 5), "epochs: expected at least one for each of the 5 stages, got 4"),
        (lambda: equal_stages(0, 1), "epochs: expected a positive integer, got 0"),
        (lambda: equal_stages(9, 3, 4), "stages: expected an integer in 1 .. 3, got 4"),
        (
            lambda: pair_of()(torch.ones(2, 3), torch.ones(2, dtype=torch.int64)),
            "item_seq: expected int64, got float32",
        ),
    ],
)
def test_wrong_calls(call, message):
    assert refusal_of(call) == message


def test_a_model_in_training_mode_is_refused():
    filler = model()
    filler.encoder.train()
    item_seq, lengths = reference.padded(ROWS)
    with pytest.raises(InputError, match=r"^filler: expected a model in evaluation mode, got one in training mode"):
        pair_of(filler)(item_seq, lengths, generator())
