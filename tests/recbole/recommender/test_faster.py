"""With `faster_layers` the losses, gradients and scores of RecBole's sequential models are their own, but for rounding.

A model's own form is the class that the faster one is laid over: same weights, same rows, no dropout.
"""

import contextlib
import functools
import random
from unittest import mock

import pytest
import torch
from backbone_cases import BROKEN_MODELS, in_slice, made, sequential_models

from adaptssr_plugin.functional import linear_scores
from adaptssr_plugin.recbole import installed
from adaptssr_plugin.recbole.recommender import faster
from adaptssr_plugin.recbole.recommender.backbones import item_embedding
from adaptssr_plugin.recbole.recommender.faster import Faster

# Models whose rows can be computed apart and without padding, and models whose loss is a cross-entropy over all items.
IN_GROUPS = {
    "BERT4Rec", "CORE", "FDSA", "GCSAN", "GRU4Rec", "GRU4RecF", "GRU4RecKG", "HRM", "NARM", "SASRec", "SASRecF",
    "SRGNN", "TransRec", "CL4SRec", "CoSeRec", "DuoRec",
}  # fmt: skip
OTHER_LOSSES = {"DIEN", "DIN", "FPMC", "RepeatNet", "S3Rec", "TransRec"}
IN_FLOAT64 = ("GRU4Rec", "NARM", "SASRec", "STAMP")  # others write float32 in their code


slice_of_ml_100k = in_slice()


@functools.cache
def case(name):
    """A model without dropout, its training batch, and rows to predict for."""
    options = {} if name in OTHER_LOSSES else {"loss_type": "CE", "train_neg_sample_args": None, "ssl_loss": "none"}
    _, loader, model = made(name, faster_layers=True, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model, next(iter(loader)), loader._dataset.inter_feat[torch.arange(40)]


@contextlib.contextmanager
def own_form(model):
    kind = type(model)
    assert kind.__mro__[1] is Faster
    model.__class__ = kind.__mro__[2]
    try:
        yield
    finally:
        model.__class__ = kind


def loss_and_gradient(model, batch):
    model.train()
    model.zero_grad()
    random.seed(7)  # S3Rec draws masks
    with installed():
        losses = model.calculate_loss(batch)
    loss = sum(losses) if isinstance(losses, tuple) else losses
    loss.sum().backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def off(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


@contextlib.contextmanager
def watched(model):
    """How many positions go through the item table in groups, and calls of the chunked cross-entropy."""
    with (
        mock.patch.object(faster, "restore_order", wraps=faster.restore_order) as grouped,
        mock.patch.object(linear_scores, "linear_cross_entropy", wraps=linear_scores.linear_cross_entropy) as chunked,
    ):
        yield grouped, chunked


@pytest.mark.parametrize("name", [name for name in sequential_models() if name not in BROKEN_MODELS])
def test_loss_and_gradient_are_the_models_own(name):
    model, batch, _ = case(name)
    with watched(model) as (grouped, chunked):
        ours = loss_and_gradient(model, batch)
    assert grouped.called == (name in IN_GROUPS)
    assert chunked.called == (name not in OTHER_LOSSES)
    with own_form(model):
        theirs = loss_and_gradient(model, batch)
    assert off(ours[0], theirs[0]) <= 1e-6
    assert off(ours[1], theirs[1]) <= 1e-5


@pytest.mark.parametrize("name", IN_FLOAT64)
def test_in_double_precision_nothing_but_rounding_is_left(name):
    model, batch, _ = case.__wrapped__(name)
    model.double()
    ours = loss_and_gradient(model, batch)
    with own_form(model):
        theirs = loss_and_gradient(model, batch)
    assert off(ours[0], theirs[0]) <= 1e-12
    assert off(ours[1], theirs[1]) <= 1e-10


@pytest.mark.parametrize("name", ["BERT4Rec", "CORE", "GRU4Rec", "HRM", "NARM", "SASRec"])
@pytest.mark.parametrize("how", ["full_sort_predict", "predict"])
def test_scores_are_the_models_own(name, how):
    model, batch, rows = case(name)
    loss_and_gradient(model, batch)
    model.eval()
    with torch.no_grad(), watched(model) as (grouped, _):
        ours = getattr(model, how)(rows)
    assert grouped.called
    with own_form(model), torch.no_grad():
        torch.testing.assert_close(ours, getattr(model, how)(rows), rtol=1e-5, atol=1e-6)


def test_padding_is_hardly_computed():
    model, batch, _ = case("SASRec")
    loss_and_gradient(model, batch)
    table, positions = item_embedding(model, model.n_items), []
    handle = table.register_forward_hook(lambda _, arguments, __: positions.append(arguments[0].numel()))
    loss_and_gradient(model, batch)
    handle.remove()
    items, everything = int(batch["item_length"].sum()), batch["item_id_list"].numel()
    assert items <= sum(positions) < (items + everything) / 2
    assert len(positions) > 1


def test_a_batch_norm_sees_the_whole_batch():
    model, batch, _ = case.__wrapped__("GRU4Rec")
    model.emb_dropout = torch.nn.Sequential(
        torch.nn.Flatten(0, 1), torch.nn.BatchNorm1d(16), torch.nn.Unflatten(0, (-1, 10))
    )
    with watched(model) as (grouped, _):
        loss_and_gradient(model, batch)
    assert not grouped.called


def test_trying_a_model_leaves_no_trace():
    model, batch, _ = case.__wrapped__("SASRec")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    loss_and_gradient(model, batch)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn without dropout
    assert all(module.training for module in model.modules())


def test_without_the_option_a_model_is_of_its_own_class():
    model = made("SASRec")[2]
    assert not isinstance(model, Faster)
    assert type(model).__module__ == "recbole.model.sequential_recommender.sasrec"
