"""The methods `ptum` and `idicl` from recipe to fine-tuning: what they are made of, and that they learn."""

import json

import numpy as np
import pytest
import torch
from refusals import refusal_of
from training_cases import N_ITEMS, TINY, batch_of, corpus_of, encoder_of, streams, write_profiled_dataset

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss, UserEncoder
from adaptssr_plugin.augment import PeriodPair
from adaptssr_plugin.corpus import BehaviourCorpus
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import recipe, view_methods
from adaptssr_plugin.methods.plan import stage_plans
from adaptssr_plugin.methods.registry import make_views
from adaptssr_plugin.methods.views import UserHistories
from adaptssr_plugin.recbole import load_user_sequences
from adaptssr_plugin.recbole.user_model.finetune import fine_tune, profile_task
from adaptssr_plugin.recbole.user_model.pretrain import Source, fresh_encoder, load_pretrained, pretrain
from adaptssr_plugin.training import MLM_TO_RANKING, WHOLE_ENCODER, NextBehaviourStage, PairwiseStage, transfer

RUNS = {
    "ptum": ("ptum", {}),
    "ptum, uniform": ("ptum", {"ptum_negatives_from": "uniform", "ptum_next": 1}),
    "idicl, infonce": ("idicl", {}),
    "idicl, adaptssr": ("idicl", {"loss": "adaptssr"}),
}
SOURCE = UserHistories(corpus_of(5, 3, 7, 4), max_len=10)


def stage_of(method, encoder=None, source=SOURCE, **options):
    made = recipe(method, options={**TINY, **options})
    (plan,) = stage_plans(made)
    return plan.make(encoder or fresh_encoder(made, source.n_items, 0.1, 0), source)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = write_profiled_dataset(tmp_path_factory.mktemp("data") / "small", n_users=40, least=2)
    return Source(str(folder), {"use_gpu": False})


@pytest.fixture(scope="module", params=RUNS, ids=RUNS.keys())
def run(request, source, tmp_path_factory):
    """A pre-trained model, the recipe, and the method's name."""
    method, options = RUNS[request.param]
    made = recipe(method, options={**TINY, "epochs": 6, **options})
    return pretrain(source, made, tmp_path_factory.mktemp("out") / "run", show_progress=False), made, method


def test_the_loss_goes_down(run):
    model, _, method = run
    (stage,) = model.stages
    assert stage.name == method
    losses = [epoch["loss"] for epoch in stage.history]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < losses[0]


def test_its_numbers_are_logged(run):
    model, _, method = run
    names = set(model.stages[0].history[-1])
    if method == "ptum":
        assert {"masked_loss", "next_loss", "valid_masked_accuracy", "valid_next_accuracy", "valid_accuracy"} <= names
    else:
        assert {"loss", "penalty", "valid_loss", "valid_penalty"} <= names
        penalties = [epoch["penalty"] for epoch in model.stages[0].history]
        assert penalties[-1] < penalties[0]  # the interests move apart


def test_the_model_is_read_again(run):
    model, made, method = run
    again = load_pretrained(model.folder).encoder
    sequences = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1])
    assert torch.equal(again(*sequences), model.encoder(*sequences))
    assert again.out_dim == (8 if method == "ptum" else 32)
    card = json.loads((model.folder / "model.json").read_text(encoding="utf-8"))
    assert card["encoder"]["interests"] == made.interests == (1 if method == "ptum" else 4)


def test_fine_tuning_goes_on_from_it(run, source):
    model, made, _ = run
    config = source.config(made.max_len)
    corpus = load_user_sequences(config).corpus
    result = fine_tune(config, corpus, profile_task(config, corpus, "gender"), made, 0, model.encoder)
    assert 0 <= result.test <= 1
    target = fresh_encoder(made, model.encoder.n_items, made.ft_dropout, 1)
    report = transfer(model.encoder.state_dict(), target, WHOLE_ENCODER)
    assert report.left == ()
    assert torch.equal(target.pooling.query, model.encoder.pooling.query)


def test_fine_tuning_refuses_another_number_of_interests(source):
    made = recipe(options=TINY)
    config = source.config(made.max_len)
    corpus = load_user_sequences(config).corpus
    model = fresh_encoder(recipe("idicl", options=TINY), corpus.n_items, 0.1, 0)
    with pytest.raises(InputError) as refused:
        fine_tune(config, corpus, profile_task(config, corpus, "gender"), made, 0, model)
    assert str(refused.value) == "model: pooling.query: expected shape (8,), got (4, 8) in the weights"


class TestIdicl:
    @pytest.mark.parametrize(("loss", "kind"), [("infonce", InfoNCELoss), ("adaptssr", AdaptSSRLoss)])
    def test_is_two_periods_a_dictionary_and_its_overlap(self, loss, kind):
        stage = stage_of("idicl", loss=loss, interest_penalty=0.5, dropout=0.2)
        assert isinstance(stage, PairwiseStage)
        assert isinstance(stage.loss, kind)
        assert isinstance(stage.views, PeriodPair)
        batch = batch_of(5, 3, 7, 4)
        torch.manual_seed(0)
        result = stage.step(batch, streams())
        stage.penalty = None
        torch.manual_seed(0)
        plain = stage.step(batch, streams())
        penalty = 0.5 * stage.encoder.pooling.overlap().detach()
        assert penalty > 0
        assert result.logs["penalty"] == penalty
        assert "penalty" not in plain.logs
        torch.testing.assert_close(result.loss, plain.loss + penalty)
        torch.testing.assert_close(result.logs["loss"], result.loss.detach())

    def test_the_penalty_trains_the_dictionary(self):
        gradients = []
        for weight in (0.0, 2.0):
            stage = stage_of("idicl", interest_penalty=weight)
            torch.manual_seed(0)
            stage.step(batch_of(5, 3, 7, 4), streams()).loss.backward()
            gradients.append(stage.encoder.pooling.query.grad)
        (overlap,) = torch.autograd.grad(stage.encoder.pooling.overlap(), stage.encoder.pooling.query)
        torch.testing.assert_close(gradients[1] - gradients[0], 2 * overlap, rtol=1e-4, atol=1e-5)

    def test_validation_counts_the_penalty_in_the_loss(self):
        stage, batches = stage_of("idicl"), [batch_of(5, 3, 7, 4)]
        result = stage.validate(batches, streams())
        stage.penalty = None
        plain = stage.validate(batches, streams())
        assert result["penalty"] == stage.encoder.pooling.overlap().item()
        assert result["loss"] == pytest.approx(plain["loss"] + result["penalty"])

    def test_its_options_reach_the_views(self):
        assert "idicl" in view_methods()
        views = make_views("idicl", recipe("idicl"), SOURCE)
        assert (views.ratio, views.period) == (0.4, "disjoint")
        views = make_views("idicl", recipe("idicl", options={"crop_ratio": 0.7, "period": "independent"}), SOURCE)
        assert (views.ratio, views.period) == (0.7, "independent")

    def test_one_interest_has_no_penalty(self):
        assert stage_of("idicl", interests=1).penalty is None
        assert stage_of("idicl", interest_penalty=0).penalty is None

    def test_any_method_that_compares_views_may_have_interests(self):
        assert stage_of("cl4srec", interests=3).penalty is not None

    def test_from_masked_items_the_dictionary_starts_fresh(self):
        warm, ranked = (encoder_of(UserEncoder, seed, interests=4) for seed in (1, 2))
        report = transfer(warm.state_dict(), ranked, MLM_TO_RANKING)
        assert report.left == ("pooling.query",)

    def test_its_defaults(self):
        made = recipe("idicl")
        assert (made.interests, made.interest_penalty, made.crop_ratio) == (4, 1.0, 0.4)
        assert (made.loss, made.warm_start, made.temperature, made.similarity) == ("infonce", "none", 1.0, "cosine")


class TestPtum:
    def test_its_options_reach_the_stage(self):
        options = {"ptum_negatives": 3, "ptum_next": 1, "ptum_weight": 0.5}
        stage = stage_of("ptum", **options)
        assert isinstance(stage, NextBehaviourStage)
        assert (stage.n_negatives, stage.n_next, stage.weight, stage.name) == (3, 1, 0.5, "ptum")
        assert (stage_of("ptum").n_negatives, stage_of("ptum").n_next, stage_of("ptum").weight) == (4, 2, 1.0)

    @pytest.mark.parametrize("where", ["history", "uniform"])
    def test_negatives_are_of_the_training_users_or_the_catalogue(self, where):
        corpus = BehaviourCorpus.from_lists([[1, 2], [3, 4], [2, 5]], N_ITEMS)
        source = UserHistories(corpus, 10, train_rows=np.array([0, 2]))
        stage = stage_of("ptum", source=source, ptum_negatives_from=where)
        drawn = stage.negatives(torch.tensor([1]), 2000, torch.Generator().manual_seed(0))
        others = {2, 5} if where == "history" else set(range(2, N_ITEMS))
        assert set(drawn.flatten().tolist()) == others

    def test_it_refuses_interests(self):
        with pytest.raises(InputError, match=r"^interests: expected 1, for user vectors"):
            stage_of("ptum", interests=4)

    def test_a_recipe_refuses(self):
        for name, value, message in (
            ("ptum_negatives", 0, "ptum_negatives: expected an integer of at least 1, got 0"),
            ("ptum_weight", 0, "ptum_weight: expected a positive number, got 0.0"),
            ("ptum_negatives_from", "users", "ptum_negatives_from: expected history or uniform, got 'users'"),
            ("interests", 0, "interests: expected an integer of at least 1, got 0"),
            ("interest_penalty", -1, "interest_penalty: expected 0 or more, got -1.0"),
        ):
            assert refusal_of(recipe, "ptum", options={name: value}) == message
