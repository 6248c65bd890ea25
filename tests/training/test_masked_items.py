"""Masked-item prediction: which slots, which targets, which loss; validation that repeats itself."""

import math

import pytest
import torch
from training_cases import N_ITEMS, assert_same_weights, batch_of, batches_of, encoder_of, streams

from adaptssr_plugin.encoders import MaskedItemHead
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training import MaskedItemStage

LENGTHS = (1, 2, 3, 5, 10, 55, 100)


def slots_of(recorded, batch):
    """(row, position) of every [MASK] that the encoder was handed, and nothing else changed."""
    item_seq, item_seq_len, _ = recorded
    assert torch.equal(item_seq_len, batch.item_seq_len)
    masked = item_seq == N_ITEMS
    assert torch.equal(item_seq[~masked], batch.item_seq[~masked])
    return masked.nonzero().tolist()


def literal_log_probabilities(stage, recorded, batch):
    """log p of all items at every masked position, by way of loops; with the item that stood there."""
    result = []
    table, bias = stage.encoder.item_weight.detach().double(), stage.head.bias.detach().double()
    for row, position in slots_of(recorded, batch):
        hidden = recorded[2][row, position].double()
        scores = [float(hidden @ table[item] + bias[item]) for item in range(N_ITEMS)]
        total = math.log(sum(math.exp(score) for score in scores))
        result.append(([score - total for score in scores], int(batch.item_seq[row, position])))
    return result


def stage_of(ratio=0.3, softmax="full", sample_share=0.2, **options):
    stage = MaskedItemStage(encoder_of(**options), ratio, "mlm", softmax, sample_share)
    with torch.no_grad():
        stage.head.bias.copy_(torch.linspace(-1, 1, N_ITEMS))
    return stage


# By hand: ceil, but never all (METHODS.md, row 16).
@pytest.mark.parametrize(
    ("ratio", "counts"),
    [
        (0.3, (0, 1, 1, 2, 3, 17, 30)),
        (0.6, (0, 1, 2, 3, 6, 33, 60)),
        (0.7, (0, 1, 2, 4, 7, 39, 70)),
        (1.0, (0, 1, 2, 4, 9, 54, 99)),
        (0.01, (0, 1, 1, 1, 1, 1, 1)),
    ],
)
def test_as_many_slots_as_the_table_has(ratio, counts):
    stage, batch = stage_of(ratio), batch_of(*LENGTHS)
    original = batch.item_seq.clone()
    stage.step(batch, streams())
    (recorded,) = stage.encoder.calls
    slots = slots_of(recorded, batch)
    assert tuple(sum(row == wanted for row, _ in slots) for wanted in range(len(LENGTHS))) == counts
    assert all(position < LENGTHS[row] for row, position in slots)  # PAD is never masked
    assert torch.equal(batch.item_seq, original)


def test_every_position_is_masked_sooner_or_later_and_by_the_stream_alone():
    stage, batch = stage_of(0.3), batch_of(2, 5, 7)
    drawn = []
    for step in range(60):
        stage.encoder.calls.clear()
        stage.step(batch, streams(0, "mlm", 0, step))
        drawn.append(slots_of(stage.encoder.calls[0], batch))
    assert {tuple(slot) for slots in drawn for slot in slots} == {
        (r, p) for r, n in enumerate((2, 5, 7)) for p in range(n)
    }
    stage.encoder.calls.clear()
    torch.manual_seed(99)
    stage.step(batch, streams(0, "mlm", 0, 17))
    assert slots_of(stage.encoder.calls[0], batch) == drawn[17]


@pytest.mark.parametrize("lengths", [(5,), (1, 2), (3, 1, 1, 9), (2, 7, 4, 1, 10)])
def test_loss_is_the_literal_cross_entropy_at_the_items_that_stood_there(lengths):
    stage, batch = stage_of(), batch_of(*lengths)
    result = stage.step(batch, streams())
    literal = literal_log_probabilities(stage, stage.encoder.calls[0], batch)
    expected = -sum(row[target] for row, target in literal) / len(literal)
    assert result.loss.item() == pytest.approx(expected, rel=1e-5)
    assert result.logs["loss"] == result.loss
    assert not result.logs["loss"].requires_grad


@pytest.mark.parametrize(("lengths", "usable"), [((1,), False), ((1, 1, 1), False), ((1, 2), True), ((9,), True)])
def test_a_batch_without_slots_is_not_usable(lengths, usable):
    assert stage_of().usable(batch_of(*lengths)) is usable


def test_what_learns_and_what_does_not():
    stage = stage_of()
    stage.step(batch_of(5, 9, 2), streams()).loss.backward()
    untouched = [name for name, parameter in stage.named_parameters() if parameter.grad is None]
    assert untouched == ["encoder.pooling.query"]
    assert stage.encoder.items.mask.grad.abs().sum() > 0
    assert stage.head.bias.grad.abs().sum() > 0


def test_validation_repeats_itself_and_drops_nothing_out():
    stage, batches = stage_of(dropout=0.5), batches_of(5, 9, 2, 1, 8, batch_size=2)
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    first = stage.validate(batches, streams(0, "valid"))
    calls = list(stage.encoder.calls)
    torch.manual_seed(5)
    stage.train()
    assert stage.validate(batches, streams(0, "valid")) == first
    stage.eval()
    assert stage.validate(batches, streams(0, "valid")) == first
    assert stage.validate(batches, streams(1, "valid")) != first
    assert_same_weights(stage.state_dict(), before)
    assert len(calls) == len(batches)


def test_batches_of_validation_draw_from_streams_of_their_own():
    stage, batch = stage_of(), batch_of(9, 9, 9)
    stage.validate([batch, batch], streams(0, "valid"))
    one, other = stage.encoder.calls
    assert slots_of(one, batch) != slots_of(other, batch)


def test_validation_pools_literal_counts_over_batches():
    # Batches of unequal numbers of slots, one of them without any.
    stage, batches = stage_of(0.6), batches_of(90, 60, 1, 1, 2, 8, 30, batch_size=2)
    result = stage.validate(batches, streams())
    usable = [batch for batch in batches if stage.usable(batch)]
    assert len(usable) == len(batches) - 1 == len(stage.encoder.calls)
    literal = [
        slot
        for call, batch in zip(stage.encoder.calls, usable, strict=True)
        for slot in literal_log_probabilities(stage, call, batch)
    ]
    hits = sum(max(range(N_ITEMS), key=row.__getitem__) == target for row, target in literal)
    assert 0 < hits < len(literal)
    assert result["accuracy"] == pytest.approx(hits / len(literal))
    assert result["cross_entropy"] == pytest.approx(
        -sum(row[target] for row, target in literal) / len(literal), rel=1e-5
    )


def test_validation_without_a_single_slot_is_refused():
    with pytest.raises(InputError, match=r"^validation users: expected one with two behaviours or more, got none"):
        stage_of().validate(batches_of(1, 1), streams())


def gradients(stage, batch, key=(0, "mlm", 0, 0)):
    stage.zero_grad()
    loss = stage.step(batch, streams(*key)).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in stage.named_parameters() if p.grad is not None}


def assert_close_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


def test_gradients_are_those_of_torch_on_all_scores(monkeypatch):
    stage, batch = stage_of(dropout=0.0), batch_of(2, 7, 4, 1, 10)
    loss, ours = gradients(stage, batch)
    assert ours["encoder.items.weight"][0].abs().sum() > 0  # the padding id is a column, as in the authors' code
    monkeypatch.setattr(
        MaskedItemHead,
        "loss",
        lambda head, hidden, table, targets, *_: torch.nn.functional.cross_entropy(head(hidden, table), targets),
    )
    right, theirs = gradients(stage, batch)
    assert loss == pytest.approx(right, rel=1e-6)
    assert_close_gradients(ours, theirs)


@pytest.mark.parametrize("softmax", ["full", "sampled"])
def test_no_step_makes_the_scores_of_all_items(monkeypatch, softmax):
    monkeypatch.setattr(MaskedItemHead, "forward", lambda *_: pytest.fail("all scores at once"))
    stage, batch = stage_of(softmax=softmax), batch_of(2, 7, 4)
    stage.step(batch, streams()).loss.backward()
    stage.validate([batch], streams())


def test_sampled_follows_its_stream_and_leaves_the_slots_alone():
    batch = batch_of(9, 9, 9, 4)
    stage, full = stage_of(softmax="sampled", dropout=0.0), stage_of(dropout=0.0)
    first, again, other = (stage.step(batch, streams(seed, "mlm")).loss.item() for seed in (0, 0, 1))
    assert first == again != other
    whole = full.step(batch, streams(0, "mlm")).loss.item()
    assert torch.equal(stage.encoder.calls[0][0], full.encoder.calls[0][0])
    assert first < whole  # among 3 other items, not among 11


def test_a_sample_of_everything_is_the_full_softmax():
    batch = batch_of(2, 7, 4, 1, 10)
    loss, ours = gradients(stage_of(softmax="sampled", sample_share=1.0, dropout=0.0), batch)
    right, theirs = gradients(stage_of(dropout=0.0), batch)
    assert loss == pytest.approx(right, rel=1e-6)
    assert_close_gradients(ours, theirs)


def test_validation_compares_with_all_items_whatever_the_softmax():
    batches = batches_of(9, 8, 7, 6, batch_size=2)
    assert stage_of(softmax="sampled").validate(batches, streams()) == stage_of().validate(batches, streams())


def test_a_table_of_equal_items_hits_nothing():
    stage = stage_of()
    with torch.no_grad():
        stage.encoder.items.weight.zero_()
        stage.head.bias.zero_()
    result = stage.validate(batches_of(9, 8), streams())
    assert result["accuracy"] == 0
    assert result["cross_entropy"] == pytest.approx(math.log(N_ITEMS))


@pytest.mark.parametrize(("share", "count"), [(0.2, 3), (0.001, 1), (0.5, 6), (3 / 11, 3), (1.0, 11)])
def test_the_share_is_of_the_other_items_and_rounded_up(share, count):
    assert MaskedItemHead(12, "sampled", share).n_samples == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"softmax": "half"}, "softmax: expected 'full' or 'sampled', got 'half'"),
        ({"sample_share": 0}, r"sample_share: expected a number in \(0, 1\], got 0"),
        ({"sample_share": 1.5}, r"sample_share: expected a number in \(0, 1\], got 1.5"),
    ],
)
def test_a_head_refuses(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        MaskedItemHead(12, **options)


# --- from the user vector too (mlm_pooled) ----------------------------------------------------------------------


def literal_loss_of_users(stage, recorded, batch):
    """Mean cross-entropy of the items behind [MASK] under their users' vectors, by way of loops."""
    table, bias = stage.encoder.item_weight.detach().double(), stage.head.bias.detach().double()
    query = stage.encoder.pooling.query.detach().double()
    losses = []
    for row, position in slots_of(recorded, batch):
        states = recorded[2][row, : int(batch.item_seq_len[row])].double()
        weights = [math.exp(float(state @ query)) for state in states]
        user = sum(weight / sum(weights) * state for weight, state in zip(weights, states, strict=True))
        scores = [float(user @ table[item] + bias[item]) for item in range(N_ITEMS)]
        losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[int(batch.item_seq[row, position])])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("pooled", [0.3, 1.0])
def test_the_user_vector_predicts_what_is_masked(pooled):
    stage, batch = stage_of(dropout=0.0), batch_of(*LENGTHS)
    stage.pooled = pooled
    result = stage.step(batch, streams())
    (recorded,) = stage.encoder.calls
    of_positions = -sum(logs[item] for logs, item in literal_log_probabilities(stage, recorded, batch))
    of_positions /= len(slots_of(recorded, batch))
    of_users = literal_loss_of_users(stage, recorded, batch)
    assert float(result.loss.detach()) == pytest.approx((1 - pooled) * of_positions + pooled * of_users, rel=1e-5)
    assert float(result.logs["loss_positions"]) == pytest.approx(of_positions, rel=1e-5)
    assert float(result.logs["loss_user"]) == pytest.approx(of_users, rel=1e-5)
    result.loss.backward()
    assert stage.encoder.pooling.query.grad.abs().sum() > 0


def test_pooled_has_a_range_and_needs_a_pooled_encoder():
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match=r"^pooled: expected a number in \[0, 1\], got"):
            MaskedItemStage(encoder_of(), pooled=wrong)
    with pytest.raises(InputError, match=r"^pooled: expected an encoder with one pooled user vector"):
        MaskedItemStage(encoder_of(interests=2), pooled=0.5)
