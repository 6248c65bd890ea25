"""The item table in pre-training and fine-tuning: where it starts from, and how fast it learns."""

import copy
import importlib

import numpy as np
import pytest
import torch
from refusals import refusal_of
from training_cases import TINY, corpus_of, encoder_of, some_views, write_profiled_dataset

from adaptssr_plugin import AdaptSSRLoss, UserEncoder
from adaptssr_plugin.corpus import BatchLoader, BehaviourCorpus, svd_item_vectors
from adaptssr_plugin.downstream import ProfileTask
from adaptssr_plugin.encoders.embedding import _LookUp
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.methods.plan import StagePlan
from adaptssr_plugin.recbole.compat.user_sequences import UserSequences, load_user_sequences
from adaptssr_plugin.recbole.user_model import pretrain as module
from adaptssr_plugin.recbole.user_model.finetune import fine_tune
from adaptssr_plugin.recbole.user_model.pretrain import Source, fresh_encoder, load_pretrained, pretrain
from adaptssr_plugin.recbole.user_model.trainer import StageTrainer
from adaptssr_plugin.recbole.user_model.user_split import UserSplit
from adaptssr_plugin.seeding import stream_seed
from adaptssr_plugin.training import (
    MaskedItemStage,
    NextItemStage,
    PairwiseStage,
    WithMaskedItemsStage,
)

FROZEN = {**TINY, "item_init": "svd", "item_lr_share": 0.0, "epochs": 1, "mlm_epochs": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Users of few items, so that some items occur in no training history."""
    folder = write_profiled_dataset(tmp_path_factory.mktemp("data") / "small", n_items=120)
    return Source(str(folder), {"use_gpu": False})


def split_of(source, plan):
    corpus = load_user_sequences(source.config(plan.max_len)).corpus
    return UserSplit.draw(corpus, stream_seed(plan.split_seed, "pretrain split"), plan.valid_share, "valid_share")


def trained(source, folder, **options):
    plan = recipe(options.pop("method", "adaptssr"), options={**FROZEN, **options})
    return plan, pretrain(source, plan, folder, show_progress=False).encoder


# --- where it starts from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["transformer", "gru4rec", "nextitnet", "sasrec"])
def test_method_none_gives_the_table_of_the_svd(source, tmp_path, kind):
    plan, encoder = trained(source, tmp_path / "run", method="none", encoder=kind)
    users = split_of(source, plan)
    seed = stream_seed(plan.seed, "item_init")
    vectors = svd_item_vectors(users.corpus, plan.dim, users.train, plan.max_len, seed)
    fresh = fresh_encoder(plan, users.corpus.n_items, plan.dropout, plan.seed)
    unknown = ~vectors.any(dim=1)
    assert 1 < unknown.sum() < len(unknown) / 2
    expected = torch.where(unknown[:, None], fresh.items.weight, vectors)
    assert torch.equal(encoder.items.weight, expected)
    for name, tensor in encoder.state_dict().items():
        assert name == "items.weight" or torch.equal(tensor, fresh.state_dict()[name]), name


def test_validation_users_leave_no_trace(source, tmp_path, monkeypatch):
    plan, before = trained(source, tmp_path / "before", method="none")
    users = split_of(source, plan)
    lists = [users.corpus.history(row).tolist() for row in range(len(users.corpus))]

    def table_with(rows, folder):
        changed = [[5, 7, 5] if row in rows else items for row, items in enumerate(lists)]
        other = BehaviourCorpus.from_lists(changed, users.corpus.n_items)
        monkeypatch.setattr(module, "load_user_sequences", lambda _: UserSequences(other, 0, 0))
        return trained(source, tmp_path / folder, method="none")[1].items.weight

    assert torch.equal(table_with(users.valid, "valid"), before.items.weight)
    assert not torch.equal(table_with(users.train[:1], "train"), before.items.weight)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"warm_start": "none", "mlm_beside": 0.5},
        {"mlm_softmax": "sampled", "mlm_sample_share": 0.5, "mlm_pooled": 0.5},
        {"micro_batch": 3},
        {"method": "ptum"},
        {"method": "ccl", "warm_start": "none"},
        {"encoder": "sasrec"},
    ],
    ids=str,
)
def test_a_frozen_table_stands_still_in_every_stage(source, tmp_path, options):
    _, start = trained(source, tmp_path / "start", **{**options, "method": "none", "warm_start": "none"})
    _, encoder = trained(source, tmp_path / "run", **options)
    assert torch.equal(encoder.items.weight, start.items.weight)
    assert all(parameter.requires_grad for parameter in encoder.parameters())  # for who trains on
    moved = [name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, start.state_dict()[name])]
    assert len(moved) > 5
    assert load_pretrained(tmp_path / "run").encoder.items.weight.requires_grad


# --- how fast it learns -----------------------------------------------------------------------------------------------


def stages():
    def encoder():
        return encoder_of(UserEncoder, dropout=0.1, n_layers=1)

    both = PairwiseStage(encoder(), some_views(), AdaptSSRLoss(), "both")
    return {
        "masked": MaskedItemStage(encoder()),
        "sampled": MaskedItemStage(encoder(), softmax="sampled", sample_share=0.5, pooled=0.5),
        "next": NextItemStage(encoder()),
        "pairs": PairwiseStage(encoder(), some_views(), AdaptSSRLoss()),
        "micro": PairwiseStage(encoder(), some_views(), AdaptSSRLoss(), micro_batch=2),
        "both": WithMaskedItemsStage(both, MaskedItemStage(both.encoder, name="both"), 0.5),
    }


def trainer_of(source, stage, share, directory=None, learner="adam"):
    plan = StagePlan("stage", lambda *_: stage, 2, 1e-2, 0.1, "last", item_lr_share=share)
    config = Source(source.dataset, {"use_gpu": False, "learner": learner}).config(10)
    return StageTrainer(config, stage, plan, directory, seed=0)


def run(trainer):
    corpus = corpus_of(*range(2, 9))
    train, valid = (BatchLoader(corpus, batch_size=3, max_len=10, seed=0, name=name) for name in ("train", "valid"))
    trainer.run(train, valid, show_progress=False)
    return trainer.stage.state_dict()


@pytest.mark.parametrize("name", stages())
def test_of_a_frozen_table_no_gradient_is_computed(source, monkeypatch, name):
    chunked = importlib.import_module("adaptssr_plugin.functional.linear_cross_entropy")
    wanted, sums = [], chunked._sums
    monkeypatch.setattr(chunked, "_sums", lambda *a: wanted.append(a[-1]) or sums(*a))
    monkeypatch.setattr(_LookUp, "backward", None)
    stage = stages()[name]
    table = stage.encoder.item_weight
    before = table.detach().clone()
    trainer = trainer_of(source, stage, 0.0)
    run(trainer)
    assert torch.equal(table, before)
    assert table.grad is None
    assert table not in trainer.optimizer.state
    assert len(trainer.optimizer.state) > 5
    assert bool(wanted) == (name in ("masked", "sampled", "next", "both"))
    assert not any(weight for _, weight, *_ in wanted)


@pytest.mark.parametrize("name", ["masked", "both"])
@pytest.mark.parametrize("learner", ["adam", "sgd"])
def test_a_share_is_a_group_of_the_optimiser(source, name, learner):
    first = stages()[name]
    second = copy.deepcopy(first)
    shared = run(trainer_of(source, first, 0.1, learner=learner))
    trainer = trainer_of(source, second, 1.0, learner=learner)
    table = second.encoder.items.weight
    others = [weight for weight in second.parameters() if weight is not table]
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[learner]
    options = {"fused": True} if learner == "adam" else {}
    trainer.optimizer = kind([{"params": [table], "lr": 1e-3}, {"params": others}], lr=1e-2, **options)
    expected = run(trainer)
    for key, tensor in shared.items():
        assert torch.equal(tensor, expected[key]), key


def test_a_stage_without_a_table_is_refused(source):
    stage = stages()["masked"]
    stage.encoder = torch.nn.Linear(2, 2)
    message = "item_lr_share: expected an encoder whose item_weight is a parameter, got Linear"
    assert refusal_of(trainer_of, source, stage, 0.5) == message
    assert refusal_of(trainer_of, source, stage, 0.0) == message


# --- fine-tuning --------------------------------------------------------------------------------------------------


def test_fine_tuning_freezes_the_table_of_a_model_and_no_random_one(source, monkeypatch):
    ends, own = [], StageTrainer.run
    monkeypatch.setattr(StageTrainer, "run", lambda self, *a, **k: (own(self, *a, **k), ends.append(self.stage)))
    corpus, plan = corpus_of(*range(1, 31)), recipe(options={**TINY, "ft_item_lr_share": 0.0})
    task = ProfileTask.from_labels("kind", np.arange(30), np.arange(30) % 2, ["0", "1"])
    model = encoder_of(UserEncoder, dim=8, max_len=10, ff_dim=16)
    config = source.config(10)
    frozen = fine_tune(config, corpus, task, plan, 0, model)
    scratch = fine_tune(config, corpus, task, plan, 0)
    of_model, of_scratch = (stage.encoder for stage in ends)
    assert torch.equal(of_model.items.weight, model.items.weight)
    assert not torch.equal(of_model.positions, model.positions)
    table = model.items.weight.numel()
    assert frozen.trained == pytest.approx(1 - table / sum(weight.numel() for weight in model.parameters()))
    assert scratch.trained == 1
    assert not torch.equal(of_scratch.items.weight, fresh_encoder(plan, corpus.n_items, 0.1, 0).items.weight)


# --- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"item_init": "lsa"}, "item_init: expected random or svd, got 'lsa'"),
        (
            {"item_init": "svd", "warm_start": "some/folder"},
            "item_init: expected random beside the item table of 'some/folder', got svd",
        ),
        ({"item_lr_share": 1.5}, "item_lr_share: expected a number in [0, 1], got 1.5"),
        ({"ft_item_lr_share": -0.1}, "ft_item_lr_share: expected a number in [0, 1], got -0.1"),
        (
            {"ft_item_lr_share": 0, "ft_tune": "lora"},
            "ft_item_lr_share: expected 1 with ft_tune lora, which freezes the table, got 0.0",
        ),
    ],
)
def test_what_a_recipe_refuses(options, message):
    assert refusal_of(recipe, options=options) == message
