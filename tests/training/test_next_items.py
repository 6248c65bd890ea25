"""Next-item prediction against a literal loop."""

import pytest
import torch
import torch.nn.functional as F
from encoder_cases import gradients_of
from training_cases import N_ITEMS, batch_of, batches_of, streams

from adaptssr_plugin.encoders import CausalTransformer, GRUEncoder
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training import NextItemStage


def stage_of(seed=0, **options):
    torch.manual_seed(seed)
    stage = NextItemStage(GRUEncoder(N_ITEMS, dim=8, max_len=20, dropout=0.0), **options).double()
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return stage


def literal(stage, batches):
    losses, hits = [], []
    for batch in batches:
        states = stage.encoder.hidden_states(batch.item_seq, batch.item_seq_len)
        for row, length in enumerate(batch.lengths.tolist()):
            for t in range(length - 1):
                scores = states[row, t] @ stage.encoder.item_weight.T + stage.head.bias
                target = batch.item_seq[row, t + 1]
                losses.append(F.cross_entropy(scores, target))
                hits.append(scores.argmax() == target)
    return torch.stack(losses).mean(), torch.stack(hits).double().mean()


def test_loss_and_gradients_equal_the_literal_loop():
    stage, batch = stage_of(), batch_of(3, 1, 7, 2)
    result = stage.step(batch, streams())
    expected, _ = literal(stage, [batch])
    torch.testing.assert_close(result.loss, expected)
    ours, theirs = (gradients_of(loss, stage) for loss in (result.loss, expected))
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], msg=name)
        assert gradient.any() == (name != "encoder.items.mask")  # nothing is masked


def test_validation_pools_over_batches():
    stage, batches = stage_of(), batches_of(3, 1, 7, 2, 5, 1, batch_size=2)
    numbers = stage.validate(batches, streams())
    cross_entropy, accuracy = (float(value.detach()) for value in literal(stage, batches))
    assert numbers == {"accuracy": pytest.approx(accuracy), "cross_entropy": pytest.approx(cross_entropy)}


def test_users_of_one_behaviour_are_skipped():
    stage = stage_of()
    assert not stage.usable(batch_of(1, 1))
    assert stage.usable(batch_of(1, 2))
    with pytest.raises(InputError, match=r"^validation users: expected one with two behaviours or more, got none"):
        stage.validate(batches_of(1, 1), streams())


def test_sampled_softmax_compares_with_a_sample_drawn_from_the_stream():
    stage, batch = stage_of(softmax="sampled", sample_share=0.3), batch_of(6, 6)
    first, again, other = (stage.step(batch, streams(seed)).loss for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_it_learns_what_follows_what():
    torch.manual_seed(0)
    stage = NextItemStage(CausalTransformer(N_ITEMS, dim=8, max_len=20, dropout=0.0))
    batch = batch_of(10, 12, 9)
    optimizer = torch.optim.Adam(stage.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = stage.step(batch, streams()).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
