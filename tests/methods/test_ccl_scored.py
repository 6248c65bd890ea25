"""CCL by its scored curriculum, from the recipe to the weights: options, stages over epochs, whole and resumed runs."""

import pytest
import torch
from readbacks import count_readbacks
from refusals import refusal_of
from training_cases import (
    TINY,
    assert_filler_left_alone,
    assert_same_weights,
    batch_of,
    encoder_of,
    interrupted_before,
    source_with_filler,
    streams,
    write_profiled_dataset,
)

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.augment import ScoredFillPair
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.methods.plan import stage_plans
from adaptssr_plugin.methods.registry import make_views
from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain

SCORED = {"curriculum": "scored"}
SHORT = {**TINY, **SCORED, "curriculum_candidates": 3, "epochs": 4, "fill_ratio": 0.6, "select": "last"}


def own_stage(source=None, **options):
    plan = stage_plans(recipe("ccl", options={**SHORT, **options}))[-1]
    return plan.make(encoder_of(UserEncoder), source or source_with_filler())


# --- the recipe -------------------------------------------------------------------------------------------------------


def test_the_options_reach_the_views():
    options = {
        "fill_ratio": 0.7, "fill": "argmax", "fill_top_k": 3, "fill_temperature": 2.0, "fill_ban_original": True,
        "fill_one_side": True, "curriculum_candidates": 4, "curriculum_stages": 2, "epochs": 5,
    }  # fmt: skip
    source = source_with_filler()
    views = make_views("ccl", recipe("ccl", options={**SCORED, **options}), source)
    assert isinstance(views, ScoredFillPair)
    assert (views.one_side, views.candidates, views.ranks) == (True, 4, (2, 2, 2, 4, 4))
    fill = views.fill
    assert (fill.ratio, fill.fill, fill.top_k, fill.temperature, fill.ban_original) == (0.7, "argmax", 3, 2.0, True)
    assert fill.filler is source.filler


@pytest.mark.parametrize(("epochs", "expected"), [(20, [4] * 5), (100, [20] * 5), (5, [1] * 5), (13, [3, 3, 2, 3, 2])])
def test_five_candidates_take_equal_parts_of_the_epochs(epochs, expected):
    views = make_views("ccl", recipe("ccl", options={**SCORED, "epochs": epochs}), source_with_filler())
    assert [views.ranks.count(rank) for rank in range(1, 6)] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 4}, "epochs: expected at least 5, one for each stage of curriculum scored, got 4"),
        (
            {"epochs": 2, "curriculum_stages": 3},
            "epochs: expected at least 3, one for each stage of curriculum scored, got 2",
        ),
        ({"curriculum_stages": 6}, "curriculum_stages: expected at most curriculum_candidates = 5, got 6"),
        ({"curriculum_stages": -1}, "curriculum_stages: expected an integer of at least 0, got -1"),
        (
            {"curriculum_epochs": 2},
            "curriculum_epochs: expected 0 beside curriculum scored, whose stages share the epochs equally, got 2",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_trained(options, message):
    assert refusal_of(recipe, "ccl", options={**SCORED, **options}) == message


@pytest.mark.parametrize(
    "options",
    [
        {**SCORED, "epochs": 0},
        {**SCORED, "epochs": 2, "curriculum_stages": 2},
        {"epochs": 2, "curriculum_stages": 9, "curriculum_epochs": 1},  # of another curriculum
    ],
)
def test_what_goes_together(options):
    assert recipe("ccl", options=options).epochs == options["epochs"]


# --- a stage ----------------------------------------------------------------------------------------------------------


def test_the_filler_is_neither_trained_nor_kept_by_the_stage():
    source = source_with_filler()
    assert_filler_left_alone(own_stage(source), source.filler)


def test_the_views_of_a_step_do_not_depend_on_what_is_trained_and_those_of_a_validation_not_on_the_epoch():
    stage = own_stage(loss="adaptssr")
    batch = batch_of(5, 9, 7, 1, 10)
    before = batch.item_seq.clone()
    losses = []
    for epoch in (0, 1, 3):
        stage.set_epoch(epoch)
        losses.append(stage.validate([batch], streams())["loss"])
    assert losses[0] == losses[1] == losses[2]
    assert torch.equal(batch.item_seq, before)

    views = []
    for epoch in (0, 0, 3):
        stage.set_epoch(epoch)
        views.append(stage.views(batch.item_seq, batch.item_seq_len, streams().generator("views")).first.item_seq)
        with torch.no_grad():
            for parameter in stage.parameters():
                parameter.zero_()
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


def test_a_step_on_a_device_reads_no_more_back_than_its_encoder(monkeypatch):
    source = source_with_filler()
    stage = own_stage(source)
    source.filler.encoder.length_groups = 1  # as it is elsewhere
    monkeypatch.setattr("adaptssr_plugin.augment.operators.mask_and_fill.on_cpu", lambda _tensor: False)
    batch = batch_of(*[5, 3, 9] * 30, max_len=10)
    with count_readbacks() as reads:
        stage.step(batch, streams())
    assert len(reads) == 1


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Source(str(write_profiled_dataset(tmp_path_factory.mktemp("data") / "small")), {"use_gpu": False})


def run(source, folder, **options):
    return pretrain(source, recipe("ccl", options={**SHORT, **options}), folder, show_progress=False)


@pytest.fixture
def noted(monkeypatch):
    """The rank of every call for views, in order; repeats of the one before it left out."""
    ranks = []
    forward = ScoredFillPair.forward

    def noting(self, *arguments):
        if not ranks or ranks[-1] != self.rank:
            ranks.append(self.rank)
        return forward(self, *arguments)

    monkeypatch.setattr(ScoredFillPair, "forward", noting)
    return ranks


@pytest.mark.parametrize("loss", ["infonce", "adaptssr"])
def test_a_run_goes_through_its_stages_and_ends_the_same_when_resumed_between_them(source, tmp_path, noted, loss):
    """Four epochs of stages 1, 1, 2, 3; interrupted before the third epoch, then taken up again."""
    whole = run(source, tmp_path / "whole", loss=loss)
    assert [stage.name for stage in whole.stages] == ["mlm", "ccl"]
    assert noted == [1, 3, 1, 3, 2, 3]  # of epochs and validations in turn; the last two are of one rank
    assert all(bool(torch.isfinite(tensor).all()) for tensor in whole.encoder.state_dict().values())

    interrupted_before(2, ScoredFillPair, lambda: run(source, tmp_path / "run", loss=loss))
    noted.clear()
    resumed = run(source, tmp_path / "run", loss=loss)
    assert noted == [2, 3]
    assert_same_weights(resumed.encoder.state_dict(), whole.encoder.state_dict())
