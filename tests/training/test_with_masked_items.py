"""Masked items beside two views: a sum of two losses of one encoder, and nothing else."""

import pytest
import torch
from encoder_cases import gradients_of
from oracle import literal_info_nce
from training_cases import (
    TINY,
    assert_same_weights,
    batch_of,
    encoder_of,
    some_views,
    source_with_filler,
    streams,
    write_profiled_dataset,
)

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss, UserEncoder
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.methods.plan import stage_plans
from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain
from adaptssr_plugin.training import MaskedItemStage, NextItemStage, PairwiseStage, WithMaskedItemsStage

LENGTHS = (3, 8, 5, 1, 10)


def parts(criterion=None, dropout=0.0, **options):
    """Both stages of one encoder in double precision."""
    encoder = encoder_of(dropout=dropout, **options).double()
    return PairwiseStage(encoder, some_views(), criterion or InfoNCELoss()), MaskedItemStage(encoder, name="adaptssr")


def test_loss_and_gradient_are_the_weighted_sum():
    views, items = parts()
    stage, batch = WithMaskedItemsStage(views, items, 0.7), batch_of(*LENGTHS)
    result = stage.step(batch, streams())
    alone = [one.step(batch, streams()) for one in (views, items)]
    torch.testing.assert_close(result.loss, alone[0].loss + 0.7 * alone[1].loss, rtol=1e-12, atol=0)
    whole, compared, predicted = (gradients_of(one.loss, stage.encoder) for one in (result, *alone))
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, compared[name] + 0.7 * predicted[name], rtol=1e-9, atol=1e-12)
    assert (predicted["items.mask"] != 0).any()
    assert result.logs["loss"].item() == result.loss.item()
    assert result.logs["loss_items"].item() == pytest.approx(alone[1].loss.item())


def test_the_views_are_those_of_the_stage_alone():
    """A literal InfoNCE of what was encoded, beside a literal cross-entropy of the masked positions."""
    views, items = parts()
    stage, batch = WithMaskedItemsStage(views, items, 2.0), batch_of(*LENGTHS)
    result = stage.step(batch, streams())
    (_, _, encodings), (masked, _, hidden) = stage.encoder.calls
    rows, positions = (masked == items.mask.mask_id).nonzero(as_tuple=True)
    logits = hidden[rows, positions] @ stage.encoder.item_weight.T
    cross_entropy = torch.nn.functional.cross_entropy(logits, batch.item_seq[rows, positions])
    expected = literal_info_nce(*encodings.chunk(2)) + 2 * cross_entropy
    assert result.loss.item() == pytest.approx(expected.item(), rel=1e-9)


def test_users_of_one_behaviour_count_by_their_views():
    views, items = parts()
    stage, batch = WithMaskedItemsStage(views, items, 1.0), batch_of(1, 1, 1)
    assert stage.usable(batch)
    result = stage.step(batch, streams())
    assert result.loss.item() == views.step(batch, streams()).loss.item()
    assert "loss_items" not in result.logs
    assert not stage.usable(batch_of(5))


def test_epochs_are_compared_as_without():
    views, items = parts(AdaptSSRLoss(), dropout=0.1)
    stage, batches = WithMaskedItemsStage(views, items, 1.0), [batch_of(*LENGTHS)]
    assert stage.validate(batches, streams()) == views.validate(batches, streams())
    assert (stage.criterion, stage.bigger_is_better, stage.name) == ("order_accuracy", True, "adaptssr")
    assert set(stage.step(batches[0], streams()).logs) > {"loss", "loss_items", "lambda_mean"}


def test_what_is_trained():
    views, items = parts()
    stage = WithMaskedItemsStage(views, items, 1.0)
    trained = {id(parameter) for parameter in stage.parameters()}
    assert trained == {id(parameter) for part in (stage.encoder, items.head) for parameter in part.parameters()}


@pytest.mark.parametrize("encoder", ["transformer", "gru4rec"])
def test_recipes_ask_for_it(encoder):
    made = recipe("cl4srec", options={**TINY, "encoder": encoder, "mlm_beside": 0.5})
    plan = stage_plans(made)[-1]
    stage = plan.make(encoder_of(UserEncoder), source_with_filler())
    assert isinstance(stage, WithMaskedItemsStage)
    assert isinstance(stage.items, NextItemStage if encoder == "gru4rec" else MaskedItemStage)
    assert stage.weight == 0.5
    assert isinstance(stage_plans(recipe("cl4srec"))[-1].make(encoder_of(UserEncoder), source_with_filler()),
                      PairwiseStage)  # fmt: skip


def test_a_run_goes_on_to_the_same_weights(tmp_path):
    source = Source(str(write_profiled_dataset(tmp_path / "data")), {"use_gpu": False})
    made = recipe("adaptssr", options={**TINY, "mlm_beside": 0.5})
    whole = pretrain(source, made, tmp_path / "whole", show_progress=False)
    assert whole.stages[-1].history[0]["loss_items"] > 0
    pretrain(source, made, tmp_path / "again", show_progress=False, checkpoint_minutes=0)
    (tmp_path / "again" / "model.json").unlink()
    (tmp_path / "again" / "adaptssr" / "last.pt").unlink()  # as if the last checkpoint had never been written
    again = pretrain(source, made, tmp_path / "again", show_progress=False)
    assert_same_weights(again.encoder.state_dict(), whole.encoder.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda views, _items: WithMaskedItemsStage(views, parts()[1], 1.0), r"^items: expected the encoder of"),
        (lambda views, items: WithMaskedItemsStage(views, items, -1.0), r"^weight: expected a number of 0 or more"),
        (lambda views, items: WithMaskedItemsStage(views, items, float("nan")), r"^weight: expected a number"),
    ],
)
def test_refused(change, message):
    with pytest.raises(InputError, match=message):
        change(*parts())


def test_micro_batches_are_refused():
    made = recipe("adaptssr", options={**TINY, "mlm_beside": 0.5, "micro_batch": 4})
    with pytest.raises(InputError, match=r"^micro_batch: expected 0 beside masked items, got 4$"):
        stage_plans(made)[-1].make(encoder_of(UserEncoder), source_with_filler())
