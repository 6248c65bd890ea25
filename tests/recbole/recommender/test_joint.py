"""RecBole models with a self-supervised loss: what is added to the model's own, by which rows, and to which weights."""

import random

import backbone_cases
import pytest
import torch
from backbone_cases import in_slice, run
from oracle import literal_adaptssr, literal_info_nce
from recbole.model.sequential_recommender.fearec import FEARec
from recbole.model.sequential_recommender.sasrec import SASRec
from recbole.trainer import Trainer
from refusals import refusal_of
from run_cases import quiet_root

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import view_methods
from adaptssr_plugin.recbole import compat_patches, installed, load_data_and_model
from adaptssr_plugin.recbole.recommender.joint import COMPARED_FIELD, self_supervised_term
from adaptssr_plugin.recbole.recommender.trainer import RecommenderTrainer
from adaptssr_plugin.recbole.user_model.trainer import StageTrainer
from adaptssr_plugin.seeding import stream_generator

NEED_GENERATOR = {"ccl"}  # views made by a trained model, which `adaptssr pretrain` lays before
METHODS = tuple(sorted({*view_methods()} - NEED_GENERATOR))
ADAPTSSR, INFONCE = ({"ssl_loss": loss, "ssl_mode": "joint"} for loss in ("adaptssr", "infonce"))
PRETRAIN = {"ssl_loss": "adaptssr"}  # the default mode


slice_of_ml_100k = in_slice(users=40, newest=12)


def made(model, **options):
    """Make a model whose own loss has the random numbers and the rounding of the model's own code."""
    return backbone_cases.made(model, **{"faster_layers": False, **options})


def batch_of(loader, per_user, users=8):
    """Take the newest rows of some users, one user after the other."""
    rows = loader._dataset.inter_feat
    with installed():
        return rows[torch.cat([(rows["user_id"] == user).nonzero()[-per_user:, 0] for user in range(1, users + 1)])]


def parts_of(model, batch):
    self_supervised_term(model).apart = True
    return model.calculate_loss(batch)


def with_same_random_numbers(compute, state):
    torch.set_rng_state(state)
    with installed():
        return compute()


# --- the loss ------------------------------------------------------------------------------------------------------

CASES = [
    (ADAPTSSR, 3),
    (ADAPTSSR | {"ssl_rows": "all"}, 3),
    (ADAPTSSR | {"ssl_rows": "user"}, 3),
    (ADAPTSSR | {"ssl_rows": "all", "ssl_mask_same_target": True}, 3),
    (ADAPTSSR | {"ssl_mask_same_target": True, "ssl_weight": 0.7, "ssl_negatives": 0.1}, 1),
    (ADAPTSSR | {"ssl_negatives": "all", "ssl_scale": 2.0, "ssl_weight": 0.0}, 2),
    (INFONCE, 2),
    (INFONCE | {"ssl_rows": "all", "ssl_temperature": 0.5, "ssl_similarity": "dot"}, 2),
    (INFONCE | {"ssl_rows": "all", "ssl_mask_same_target": True, "ssl_method": "clue"}, 2),
]


def same_targets(batch):
    """Give every third row of a batch the same target, whoever's it is."""
    batch.interaction["item_id"] = batch["item_id"].clone()
    batch.interaction["item_id"][::3] = batch["item_id"][0]
    return batch


@pytest.mark.parametrize(("options", "per_user"), CASES, ids=[" ".join(map(str, case[0].values())) for case in CASES])
@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec"])
def test_joint_loss_is_the_models_own_and_the_weighted_literal_loss(model, options, per_user):
    config, loader, made_model = made(model, **options)
    made_model.train()
    term = self_supervised_term(made_model)
    batch = same_targets(batch_of(loader, per_user))
    if model == "BERT4Rec":
        with installed():
            batch = loader.transform(loader._dataset, batch)
    state = torch.get_rng_state()
    parts = with_same_random_numbers(lambda: parts_of(made_model, batch), state)
    own = with_same_random_numbers(lambda: type(made_model).__mro__[2].calculate_loss(made_model, batch), state)
    assert type(made_model).__mro__[2].__module__.startswith("recbole.model")

    # The newest row of each user, the first, or all; views of epoch 0 and step 0; û, û⁺, ũ, ũ⁺ in one encode.
    start, step = {"all": (0, 1), "user": (0, per_user)}.get(options.get("ssl_rows"), (per_user - 1, per_user))
    chosen = list(range(start, len(batch), step))
    generator = stream_generator("cpu", config["seed"], "ssl", 0, 0, "views")
    first, second, *_ = term.stage.views(batch["item_id_list"][chosen], batch["item_length"][chosen], generator)
    each = 2 if options["ssl_loss"] == "adaptssr" else 1
    encoded = term.stage.encoder(
        torch.cat([first.item_seq] * each + [second.item_seq] * each),
        torch.cat([first.item_seq_len] * each + [second.item_seq_len] * each),
    ).double()
    ids = batch["user_id"][chosen]
    if options.get("ssl_mask_same_target"):
        ids = torch.stack((ids, batch["item_id"][chosen]), 1)
    if options["ssl_loss"] == "adaptssr":
        literal = literal_adaptssr(
            *encoded.chunk(4),
            ids,
            negatives=options.get("ssl_negatives", "hardest"),
            scale=options.get("ssl_scale", 1.0),
        )
    else:
        literal = literal_info_nce(
            *encoded.chunk(2),
            ids,
            temperature=options.get("ssl_temperature", 1.0),
            similarity=options.get("ssl_similarity", "cosine"),
        )
    assert torch.equal(parts[0], own)
    torch.testing.assert_close(parts[1].double(), options.get("ssl_weight", 0.1) * literal, rtol=1e-5, atol=1e-7)


def test_one_row_of_each_user_is_compared_the_first_in_the_batch():
    _, loader, made_model = made("SASRec", **ADAPTSSR, ssl_rows="user")
    term = self_supervised_term(made_model)
    with installed():
        batch = batch_of(loader, 3)[torch.tensor([7, 3, 8, 0, 6, 1, 4, 20])]
    assert batch["user_id"].tolist() == [3, 2, 3, 1, 3, 1, 2, 7]
    assert term.compared_rows(batch).tolist() == [0, 1, 3, 7]


def test_an_epoch_compares_every_user_once_by_the_longest_prefix():
    _, loader, made_model = made("SASRec", **ADAPTSSR, MAX_ITEM_LIST_LENGTH=6)
    rows, term = loader._dataset.inter_feat, self_supervised_term(made_model)
    longest = {}
    for row, (user, length) in enumerate(zip(rows["user_id"].tolist(), rows["item_length"].tolist(), strict=True)):
        if length >= rows["item_length"][longest.get(user, row)]:
            longest[user] = row
    assert len({*rows["item_length"][list(longest.values())].tolist()} - {6}) == 0 < (rows["item_length"] < 6).sum()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    compared = [part[term.compared_rows(rows[part])] for part in order.split(50)]
    assert sorted(torch.cat(compared).tolist()) == sorted(longest.values())


def test_rows_that_the_trainer_chose_are_those_that_are_compared():
    _, loader, made_model = made("SASRec", **ADAPTSSR)
    made_model.eval()  # no dropout: only the rows differ
    term, state = self_supervised_term(made_model), torch.get_rng_state()
    batch = batch_of(loader, 3)
    losses = []
    for rows in (None, term.compared_rows(batch), torch.tensor([1, 9, 15])):
        term.stage._dropout_seen = True
        term.start_epoch(0)
        if rows is not None:
            batch.interaction[COMPARED_FIELD] = rows
        losses.append(with_same_random_numbers(lambda: term.loss(batch), state).item())
    assert losses[0] == losses[1] != losses[2]


def test_views_are_keyed_by_epoch_and_step():
    _, loader, made_model = made("STAMP", **INFONCE)
    made_model.eval()  # no dropout: only the views differ
    term, batch = self_supervised_term(made_model), batch_of(loader, 1)
    with installed():
        first_epoch = [term.loss(batch).item() for _ in range(3)]
        term.start_epoch(1)
        second_epoch = [term.loss(batch).item() for _ in range(3)]
        term.start_epoch(0)
        again = [term.loss(batch).item() for _ in range(3)]
    assert again == first_epoch
    assert len({*first_epoch, *second_epoch}) == 6


@pytest.mark.parametrize("rows", ["user", "all"])
@pytest.mark.parametrize("loss", ["adaptssr", "infonce"])
def test_a_batch_of_one_user_adds_exactly_0_and_still_trains(loss, rows):
    _, loader, made_model = made("SASRec", ssl_loss=loss, ssl_mode="joint", ssl_rows=rows)
    made_model.train()
    batch, state = batch_of(loader, 5, users=1), torch.get_rng_state()
    parts = with_same_random_numbers(lambda: parts_of(made_model, batch), state)
    assert parts[1] == 0
    sum(parts).backward()
    gradients = {name: parameter.grad for name, parameter in made_model.named_parameters()}
    made_model.zero_grad(set_to_none=True)
    with_same_random_numbers(lambda: SASRec.calculate_loss(made_model, batch), state).backward()
    for name, parameter in made_model.named_parameters():
        assert (
            (gradients[name] is None or not gradients[name].any())
            if parameter.grad is None
            else torch.equal(gradients[name], parameter.grad)
        )


@pytest.mark.parametrize("model", ["SASRec", "GCSAN"])
def test_the_loss_has_the_form_of_the_models_own_unless_a_trainer_takes_it_apart(model):
    _, loader, made_model = made(model, **ADAPTSSR)
    made_model.eval()
    batch, state = batch_of(loader, 2), torch.get_rng_state()
    term = self_supervised_term(made_model)
    term.stage._dropout_seen = True
    whole = with_same_random_numbers(lambda: made_model.calculate_loss(batch), state)
    term.start_epoch(0)
    parts = with_same_random_numbers(lambda: parts_of(made_model, batch), state)
    assert [loss.shape for loss in (whole, *parts)] == [(), (), ()]  # GCSAN's own has the shape (1,)
    assert torch.equal(whole, sum(parts))


def test_in_pretrain_mode_the_models_own_loss_is_all():
    _, loader, made_model = made("SASRec", **PRETRAIN)
    batch, state = batch_of(loader, 2), torch.get_rng_state()
    loss = with_same_random_numbers(lambda: made_model.calculate_loss(batch), state)
    assert torch.equal(loss, with_same_random_numbers(lambda: SASRec.calculate_loss(made_model, batch), state))


# --- the vector of [MASK], and what a checkpoint holds -------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_vector_is_there_where_views_hold_masks_and_is_trained(method):
    _, loader, made_model = made("SASRec", **ADAPTSSR, ssl_method=method)
    made_model.train()
    encoder, seen = self_supervised_term(made_model).stage.encoder, []
    encoder.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))
    with installed():
        newest_first = loader._dataset.inter_feat[torch.arange(len(loader._dataset.inter_feat)).flip(0)]
        made_model.calculate_loss(newest_first).backward()
    assert all(parameter.grad.any() for parameter in made_model.parameters())
    assert ("ssl_mask" in made_model.state_dict()) == bool((seen[0] == encoder.n_items).any())


def test_without_masks_the_weights_are_recboles_by_name():
    names = [list(made("SASRec", **options)[2].state_dict()) for options in ({}, ADAPTSSR | {"ssl_method": "clue"})]
    assert names[0] == names[1]


@pytest.mark.parametrize("model", ["SASRecF", "FDSA", "GRU4RecF"])
@pytest.mark.parametrize("options", [{}, ADAPTSSR], ids=["none", "adaptssr"])
def test_feature_layers_are_weights_of_a_checkpoint_and_not_pickled_beside_them(model, options):
    made_model = made(model, **options)[2]
    assert made_model.other_parameter() == {}
    assert any(name.startswith("feature_embed_layer.") for name in made_model.state_dict())


# --- FEARec --------------------------------------------------------------------------------------------------------

CONTRAST = {"contrast": "us_x", "tau": 1.0, "sim": "dot"}


def test_fearec_without_its_contrast_is_recboles_and_searches_for_nothing():
    config, loader, made_model = made("FEARec")
    assert isinstance(made_model, FEARec)
    assert made_model.same_item_index == {}
    with compat_patches():
        torch.manual_seed(3)
        stock = FEARec(config, loader._dataset)
    made_model.load_state_dict(stock.state_dict())
    assert stock.same_item_index
    batch, state = batch_of(loader, 3), torch.get_rng_state()
    own, theirs = (
        with_same_random_numbers(lambda model=model: model.calculate_loss(batch), state)
        for model in (made_model, stock)
    )
    assert torch.equal(own, theirs)


def test_fearecs_own_contrast_stays_where_it_is_asked_for():
    config, loader, made_model = made("FEARec", **CONTRAST, train_batch_size=24)
    assert type(made_model) is FEARec
    batch, state = batch_of(loader, 3), torch.get_rng_state()
    with compat_patches():
        stock = FEARec(config, loader._dataset)
    stock.load_state_dict(made_model.state_dict())
    losses = []
    for model in (made_model, stock):
        random.seed(3)
        losses.append(with_same_random_numbers(lambda model=model: model.calculate_loss(batch), state))
    assert torch.equal(*losses)
    random.seed(3)
    next_item = with_same_random_numbers(lambda: SASRec.calculate_loss(made_model, batch), state)
    assert losses[0] > next_item


@pytest.mark.parametrize("options", [{}, CONTRAST], ids=["off", "us_x"])
def test_ssl_loss_swaps_fearecs_contrast(options):
    _, loader, made_model = made("FEARec", **ADAPTSSR, **options)
    assert made_model.same_item_index == {}
    assert self_supervised_term(made_model).settings.method == "duorec"
    batch, state = batch_of(loader, 3), torch.get_rng_state()
    parts = with_same_random_numbers(lambda: parts_of(made_model, batch), state)
    assert torch.equal(parts[0], with_same_random_numbers(lambda: SASRec.calculate_loss(made_model, batch), state))
    assert parts[1] > 0


# --- whole runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_views_trains_sasrec(method):
    assert run("SASRec", **ADAPTSSR, ssl_method=method)["best_valid_score"] >= 0


@pytest.mark.parametrize("method", sorted(NEED_GENERATOR))
def test_methods_that_need_a_stage_before_are_refused_in_one_line(method):
    with pytest.raises(InputError, match=r"^ssl_method: expected adaptssr or [^\n]*, got 'ccl'$"):
        run("SASRec", **ADAPTSSR, ssl_method=method)


RUNS = [
    ("SASRec", INFONCE),
    ("GRU4Rec", INFONCE | {"ssl_rows": "all", "ssl_mask_same_target": True}),
    ("BERT4Rec", ADAPTSSR | {"ssl_rows": "all"}),
    ("DuoRec", ADAPTSSR),
]


@pytest.mark.parametrize(("model", "options"), RUNS, ids=[model for model, _ in RUNS])
def test_runs_with_other_losses_and_rows(model, options):
    assert run(model, **options)["best_valid_score"] >= 0


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "BERT4Rec", "NextItNet"])
def test_user_level_stages_go_before_the_models_own_training(model, tmp_path):
    options = {"ssl_warmup_epochs": 1, "ssl_epochs": 2, "ssl_batch_size": 16, "ssl_valid_share": 0.2}
    run(model, **PRETRAIN, checkpoint_dir=str(tmp_path), **options)
    (before,) = tmp_path.glob("*-pretrained.pth")
    (after,) = set(tmp_path.glob("*.pth")) - {before}
    with quiet_root():
        pretrained, trained = (load_data_and_model(path)[1].state_dict() for path in (before, after))
    fresh = made(model, **PRETRAIN, **options)[2].state_dict()
    assert not torch.equal(pretrained["item_embedding.weight"], fresh["item_embedding.weight"])
    assert not torch.equal(pretrained["item_embedding.weight"], trained["item_embedding.weight"])
    if "ssl_mask" in fresh:
        assert not torch.equal(pretrained["ssl_mask"], fresh["ssl_mask"])


def test_too_few_users_for_the_stages():
    assert refusal_of(run, "GRU4Rec", **PRETRAIN, ssl_warmup_epochs=0, ssl_valid_share=0.03) == (
        "dataset: expected at least two users for training and two for validation (ssl_valid_share 0.03), got 40 users"
    )


@pytest.mark.parametrize("warm_up", [0, 2])
def test_the_warm_up_is_by_the_models_own_loss_and_comes_before_the_views(monkeypatch, warm_up, tmp_path):
    happened = []

    def noted(owner, name, what):
        own = getattr(owner, name)

        def call(*arguments, **options):
            happened.append(what)
            return own(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    noted(RecommenderTrainer, "_train_epoch", "own loss")  # of which nothing else is a part in this mode
    noted(StageTrainer, "run", "views")
    options = {"ssl_warmup_epochs": warm_up, "ssl_epochs": 1, "ssl_batch_size": 16, "ssl_valid_share": 0.2}
    run("GRU4Rec", **PRETRAIN, checkpoint_dir=str(tmp_path), **options)
    assert happened == ["own loss"] * warm_up + ["views", "own loss"]


def test_the_warm_up_may_choose_the_hardest_of_several_negatives(tmp_path):
    hardest = {"distribution": "uniform", "sample_num": 1, "dynamic": True, "candidate_num": 3}
    options = {"ssl_warmup_epochs": 1, "ssl_epochs": 1, "ssl_batch_size": 16, "ssl_valid_share": 0.2}
    options |= {"loss_type": "BPR", "train_neg_sample_args": hardest, "checkpoint_dir": str(tmp_path)}
    assert run("SASRec", **PRETRAIN, **options)["best_valid_score"] >= 0


def test_a_trainer_of_the_models_own_takes_joint_mode_and_is_refused_the_stages_before(monkeypatch):
    epochs = []

    class GRU4RecTrainer(Trainer):
        def _train_epoch(self, *arguments, **options):
            epochs.append(1)
            return super()._train_epoch(*arguments, **options)

    monkeypatch.setattr("recbole.trainer.GRU4RecTrainer", GRU4RecTrainer, raising=False)
    assert run("GRU4Rec", **ADAPTSSR)["best_valid_score"] >= 0
    assert epochs == [1]
    with pytest.raises(InputError, match=r"^ssl_mode: expected joint for GRU4Rec, which GRU4RecTrainer trains, got"):
        run("GRU4Rec", **PRETRAIN)
    assert epochs == [1]
