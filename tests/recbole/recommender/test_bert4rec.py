"""BERT4Rec on short histories: a batch in which no masked item counts, and lists too short to mask anything."""

import random
import sys

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.data.transform import MaskItemSequence
from recbole.model.sequential_recommender import BERT4Rec
from recbole_cases import write_table
from refusals import refusal_of
from run_cases import SMALL, our_run

from adaptssr_plugin.recbole import compat_patches, run_recbole
from adaptssr_plugin.recbole.recommender.config import RunConfig

stock_loss = BERT4Rec.calculate_loss  # of RecBole as pip installs it: nothing is patched while this file is imported
SHORT = {**SMALL, "metrics": ["MRR"], "topk": [2], "valid_metric": "MRR@2", "hidden_dropout_prob": 0.0}


@pytest.fixture(autouse=True)
def shops_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    header = "user_id:token item_id:token timestamp:float"
    # Of four interactions the first is all that is trained on, with the second as its target.
    for name, length in (("short", 4), ("longer", 9)):
        rows = [(f"u{user}", f"i{(user + place) % 11}", place) for user in range(12) for place in range(length)]
        write_table(tmp_path / name / f"{name}.inter", header, rows)


@pytest.fixture
def model_and_batch():
    """Make a model and a batch of rows of which some, or none, have a masked item that counts."""

    def make(loss_type, counted):
        with compat_patches():
            from recbole.data import create_dataset, data_preparation

            options = {**SHORT, "loss_type": loss_type, "mask_ratio": 0.3}
            config = RunConfig("BERT4Rec", "longer", None, options)
            loader = data_preparation(config, create_dataset(config))[0]
            torch.manual_seed(3)
            model = BERT4Rec(config, loader._dataset).train()
        sequences = torch.tensor([[model.mask_token, 2, 3, 0], [model.mask_token, 4, 0, 0]])
        positives, places = torch.tensor([[0, 0, 5], [0, 0, 6]]), torch.zeros(2, 3, dtype=torch.int64)
        if counted:
            sequences[0, 2], positives[0, 1], places[0, 1] = model.mask_token, 3, 2
        fields = (model.MASK_ITEM_SEQ, model.POS_ITEMS, model.NEG_ITEMS, model.MASK_INDEX)
        values = (sequences, positives, (positives > 0) * 7, places)
        return model, Interaction(dict(zip(fields, values, strict=True)))

    return make


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
def test_a_batch_in_which_no_masked_item_counts_adds_zero_and_keeps_its_graph(model_and_batch, loss_type):
    model, batch = model_and_batch(loss_type, counted=False)
    assert stock_loss(model, batch).isnan()
    before = {name: batch[name].clone() for name in batch}
    with compat_patches():
        loss = model.calculate_loss(batch)
        (loss + 0).backward()
    assert loss == 0
    assert loss.shape == ()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert not any(gradient is None or gradient.any() for gradient in found.values())
    assert all(torch.equal(batch[name], values) for name, values in before.items())


@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
def test_every_other_batch_has_recboles_loss_and_gradients_to_the_last_bit(model_and_batch, loss_type):
    model, batch = model_and_batch(loss_type, counted=True)
    state = torch.get_rng_state()
    theirs = stock_loss(model, batch)
    torch.set_rng_state(state)
    with compat_patches():
        ours = model.calculate_loss(batch)
    assert torch.equal(ours, theirs)
    assert ours > 0
    stock, mine = gradients(model, theirs), gradients(model, ours)
    assert all(torch.equal(mine[name], gradient) for name, gradient in stock.items())


@pytest.mark.parametrize("flag", [{}, {"faster_layers": True}, {"ssl_loss": "adaptssr", "ssl_mode": "joint"}], ids=str)
@pytest.mark.parametrize("loss_type", ["CE", "BPR"])
@pytest.mark.usefixtures("untrained")
def test_histories_of_one_item_are_refused(flag, loss_type):
    """No item would count in any batch, and nothing would be learnt."""
    line = (
        "dataset: expected a list of two items or more among the 12 training rows of short, since mask_itemseq masks "
        "an item after the first, got lists of one"
    )
    assert refusal_of(run_recbole, "BERT4Rec", "short", config_dict={**SHORT, "loss_type": loss_type, **flag}) == line


@pytest.fixture
def few(tmp_path):
    """Write histories that hold all of five items, before the last two for training and validation."""
    rows = [(f"u{user}", f"i{(user + place) % 5}", place) for user in range(12) for place in range(9)]
    write_table(tmp_path / "few" / "few.inter", "user_id:token item_id:token timestamp:float", rows)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("faster_layers", [False, True])
def test_lists_that_hold_all_items_have_no_negatives_which_cross_entropy_does_not_need(faster_layers):
    """RecBole would look for one forever."""
    result, trainer = our_run("BERT4Rec", {**SHORT, "epochs": 2, "faster_layers": faster_layers}, "few")
    assert all(0 < loss < float("inf") for loss in trainer.train_loss_dict.values())
    assert 0 <= result["best_valid_score"] <= 1


@pytest.mark.usefixtures("few", "untrained")
def test_lists_that_hold_all_items_are_refused_for_a_pairwise_loss():
    assert refusal_of(run_recbole, "BERT4Rec", "few", config_dict={**SHORT, "loss_type": "BPR"}) == (
        "loss_type: expected CE for few, in which a training row holds all 5 items, so that none is left to compare a "
        "masked one with, got BPR"
    )


def test_negatives_are_those_that_recbole_draws():
    transform = MaskItemSequence.__new__(MaskItemSequence)
    for row in ([1, 2, 3, 0, 0], [1, 2, 4, 5, 6], [3, 3, 3]):
        random.seed(2)
        stock = [MaskItemSequence._neg_sample(transform, row, 8) for _ in range(50)]
        random.seed(2)
        with compat_patches():
            assert [transform._neg_sample(row, 8) for _ in range(50)] == stock


@pytest.mark.parametrize("faster_layers", [False, True])
def test_a_small_last_batch_does_not_end_a_run(faster_layers):
    """Seven rows of each user, 84 in all: the last batch is a row alone, in most epochs without an item that counts."""
    options = {**SHORT, "train_batch_size": 83, "epochs": 12, "faster_layers": faster_layers}
    result, trainer = our_run("BERT4Rec", options, "longer")
    assert all(0 < loss < float("inf") for loss in trainer.train_loss_dict.values())
    assert 0 <= result["best_valid_score"] <= 1


@pytest.mark.parametrize(
    ("ratio", "length", "least"), [(0.2, 4, 5), (0.2, 1, 5), (0.05, 10, 20), (0.9, 1, 2), (1.0, 1, 2), (0.3, 3, 4)]
)
def test_lists_too_short_to_mask_an_item_that_counts_are_refused(ratio, length, least):
    options = {**SHORT, "mask_ratio": ratio, "MAX_ITEM_LIST_LENGTH": length}
    message = (
        f"MAX_ITEM_LIST_LENGTH: expected 2 or more, and 1 / mask_ratio (1 / {ratio}) or more, so that an item is "
        f"masked, got {length}"
    )
    for more in ({}, {"faster_layers": True}, {"ssl_loss": "adaptssr", "ssl_mode": "joint"}):
        assert refusal_of(run_recbole, "BERT4Rec", "longer", config_dict={**options, **more}) == message
    result, _ = our_run("BERT4Rec", {**options, "MAX_ITEM_LIST_LENGTH": least, "epochs": 1}, "longer")
    assert 0 <= result["best_valid_score"] <= 1


@pytest.mark.parametrize("ratio", [0, -0.2, 1.5, "half", None, True])
def test_a_share_of_masked_items_that_is_none_is_refused(ratio):
    message = refusal_of(run_recbole, "BERT4Rec", "longer", config_dict={**SHORT, "mask_ratio": ratio})
    assert message == f"mask_ratio: expected a number in (0, 1], got {ratio!r}"


@pytest.mark.parametrize("transform", [None, "crop_itemseq"])
def test_without_masking_there_is_nothing_to_train_on(transform):
    message = refusal_of(run_recbole, "BERT4Rec", "longer", config_dict={**SHORT, "transform": transform})
    assert message == f"transform: expected mask_itemseq or user_defined for BERT4Rec, got {transform!r}"


def test_other_models_may_have_lists_of_one_item():
    result = run_recbole("GRU4Rec", "longer", config_dict={**SHORT, "MAX_ITEM_LIST_LENGTH": 1, "mask_ratio": 0.2})
    assert 0 <= result["best_valid_score"] <= 1
