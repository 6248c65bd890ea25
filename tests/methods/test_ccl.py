"""CCL from its recipe to its weights: the filler, the curriculum, resumed runs; and warm starts from a folder."""

import copy
import json
import shutil

import pytest
import torch
from readbacks import count_readbacks
from refusals import refusal_of
from training_cases import (
    N_ITEMS,
    TINY,
    assert_filler_left_alone,
    assert_same_weights,
    batch_of,
    corpus_of,
    encoder_of,
    interrupted_before,
    source_with_filler,
    streams,
    write_profiled_dataset,
)

from adaptssr_plugin import InfoNCELoss, UserEncoder
from adaptssr_plugin.augment import MaskAndFillPair
from adaptssr_plugin.corpus import ItemCorrelation
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.methods.plan import stage_plans
from adaptssr_plugin.methods.registry import make_views
from adaptssr_plugin.methods.views import UserHistories
from adaptssr_plugin.recbole.user_model.pretrain import Source, fresh_encoder, load_pretrained, pretrain
from adaptssr_plugin.training import (
    MLM_TO_RANKING,
    MaskedItemFiller,
    MaskedItemStage,
    PairwiseStage,
    load_checkpoint,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Source(str(write_profiled_dataset(tmp_path_factory.mktemp("data") / "small")), {"use_gpu": False})


def run(source, folder, method="ccl", **options):
    return pretrain(source, recipe(method, options={**TINY, **options}), folder, show_progress=False)


def assert_still(encoder, start):
    """The same weights, but for what a learning rate of 1e-30 adds to one that is 0 (biases begin there)."""
    before = start.state_dict()
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-20, msg=name)


# --- the filler ------------------------------------------------------------------------------------------------


def test_the_filler_scores_as_its_stage_and_keeps_what_it_had():
    encoder = encoder_of(UserEncoder, dropout=0.5)
    stage = MaskedItemStage(encoder)
    with torch.no_grad():
        stage.head.bias.normal_()
    filler = MaskedItemFiller(encoder, stage.head)
    batch = batch_of(4, 7, 2)
    rows, positions = torch.tensor([0, 1, 1, 2]), torch.tensor([3, 0, 6, 1])
    stage.eval()
    hidden = encoder.hidden_states(batch.item_seq, batch.item_seq_len)[rows, positions]
    expected = stage.head(hidden, encoder.item_weight).detach()
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.zero_()
    filler.train()  # in vain
    torch.nn.Module.train(stage, True)
    for _ in range(2):
        logits = torch.cat(list(filler(batch.item_seq, batch.item_seq_len, rows, positions)))
        torch.testing.assert_close(logits, expected)
    assert not logits.requires_grad
    assert not any(parameter.requires_grad for parameter in filler.parameters())
    assert filler.n_items == N_ITEMS


def test_the_filler_gives_no_more_scores_at_a_time_than_it_says(monkeypatch):
    monkeypatch.setattr("adaptssr_plugin.training.stages.filler._CPU_SCORES", 3 * N_ITEMS + 1)
    filler = source_with_filler().filler
    batch = batch_of(8)
    parts = list(filler(batch.item_seq, batch.item_seq_len, torch.zeros(8, dtype=torch.int64), torch.arange(8)))
    assert [len(part) for part in parts] == [3, 3, 2]


def test_a_step_on_a_device_reads_no_more_back_than_its_encoder(monkeypatch):
    """One read-back, the lengths by which views are split; on the CPU the filler splits its batches too."""
    made = recipe("ccl", options={**TINY, "fill_ratio": 0.5})
    source = source_with_filler()
    stage = stage_plans(made)[1].make(encoder_of(UserEncoder), source)
    batch = batch_of(*[5, 3, 9] * 30, max_len=10)
    monkeypatch.setattr("adaptssr_plugin.augment.operators.mask_and_fill.on_cpu", lambda _tensor: False)
    with count_readbacks() as reads:
        stage.step(batch, streams())
    assert len(reads) == 2
    filler = copy.deepcopy(source.filler).to("meta")
    empty = torch.empty(90, 9, dtype=torch.int64, device="meta")
    rows = empty[:, 0]
    assert sum(len(chunk) for chunk in filler(empty, rows, rows, rows)) == 90
    source.filler.encoder.length_groups = filler.encoder.length_groups  # as it is elsewhere
    with count_readbacks() as reads:
        stage.step(batch, streams())
    assert len(reads) == 1


def test_an_encoder_without_hidden_states_fills_nothing():
    with pytest.raises(
        InputError, match=r"^encoder: expected one with hidden_states to fill masked items, got Linear$"
    ):
        MaskedItemFiller(torch.nn.Linear(2, 2), None)


def test_the_filler_is_neither_trained_nor_kept_by_the_stage():
    made = recipe("ccl", options=TINY)
    source = source_with_filler()
    (_, plan) = stage_plans(made)
    stage = plan.make(encoder_of(UserEncoder), source)
    theirs = {id(parameter) for parameter in source.filler.parameters()}
    assert theirs.isdisjoint(map(id, stage.parameters()))
    assert_filler_left_alone(stage, source.filler)


def test_views_of_a_source_without_a_filler_are_refused_in_one_line():
    with pytest.raises(InputError) as refused:
        make_views("ccl", recipe("ccl"), UserHistories(corpus_of(5, 3), max_len=10))
    assert str(refused.value).startswith(
        "method: expected one whose views need no trained model, got one that needs a stage"
    )
    assert "\n" not in str(refused.value)


# --- the recipe -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("ccl", {}, [("mlm", True, ()), ("ccl", False, ())]),
        ("ccl", {"warm_start": "mlm"}, [("mlm", True, ()), ("ccl", False, MLM_TO_RANKING)]),
        ("ccl", {"warm_start": "some/folder"}, [("mlm", True, ()), ("ccl", False, ())]),
        ("ccl", {"epochs": 0}, []),
        ("ccl", {"epochs": 0, "warm_start": "mlm"}, [("mlm", False, ())]),
        ("clue", {"warm_start": "mlm"}, [("mlm", False, ()), ("clue", False, MLM_TO_RANKING)]),
        ("adaptssr", {}, [("mlm", False, ()), ("adaptssr", False, MLM_TO_RANKING)]),
    ],
)
def test_stages(method, options, expected):
    plans = stage_plans(recipe(method, options=options))
    assert [(plan.name, plan.fills, plan.takes) for plan in plans] == expected


def test_the_epoch_of_the_filler_is_one_of_its_stage():
    assert recipe("ccl", options={"mlm_select": "epoch:20"}).mlm_select == "epoch:20"
    with pytest.raises(InputError, match=r"^mlm_select: expected one of the 20 epochs, got 'epoch:21'$"):
        recipe("ccl", options={"mlm_select": "epoch:21"})


@pytest.mark.parametrize(
    ("options", "epochs_of_each"),
    [
        ({"epochs": 20}, [5, 5, 5, 5]),
        ({"epochs": 6}, [2, 2, 2]),
        ({"epochs": 1}, [1]),
        ({"epochs": 100}, [5] * 20),
        ({"epochs": 7, "curriculum_epochs": 3}, [3, 3, 1]),
    ],
)
def test_the_curriculum_grows_by_equal_steps(options, epochs_of_each):
    views = make_views("ccl", recipe("ccl", options=options), source_with_filler())
    steps = len(epochs_of_each)
    expected = [0.3 * (step + 1) / steps for step, epochs in enumerate(epochs_of_each) for _ in range(epochs)]
    assert views.ratios == pytest.approx(expected)


def test_the_options_reach_the_operator():
    options = {
        "fill_ratio": 0.7, "fill": "argmax", "fill_top_k": 3, "fill_temperature": 2.0, "fill_ban_original": True,
        "fill_one_side": True, "curriculum": "none",
    }  # fmt: skip
    views = make_views("ccl", recipe("ccl", options=options), source_with_filler())
    assert isinstance(views, MaskAndFillPair)
    assert (views.one_side, views.ratios) == (True, ())
    fill = views.fill
    assert (fill.ratio, fill.fill, fill.top_k, fill.temperature, fill.ban_original, fill.mask_id) == (
        0.7, "argmax", 3, 2.0, True, N_ITEMS,
    )  # fmt: skip


# --- whole runs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ccl") / "run"
    return run(source, folder, epochs=3), folder


def test_the_fillers_weights_do_not_move_on_without_a_warm_start(source, tmp_path):
    still = run(source, tmp_path / "still", learning_rate=1e-30, epochs=1)
    made = recipe("ccl", options=TINY)
    assert_still(still.encoder, fresh_encoder(made, still.encoder.n_items, 0.1, made.seed))
    assert [stage.name for stage in still.stages] == ["mlm", "ccl"]
    assert still.warm_up is None


def test_they_move_on_with_one(source, tmp_path):
    still = run(source, tmp_path / "still", learning_rate=1e-30, epochs=1, warm_start="mlm", loss="adaptssr")
    assert torch.equal(still.encoder.items.weight, still.warm_up.items.weight)
    made = recipe("ccl", options=TINY)
    assert not torch.equal(still.encoder.items.weight, fresh_encoder(made, still.encoder.n_items, 0, 2020).items.weight)


def test_the_filler_of_a_resumed_run_is_the_selected_epoch_of_its_finished_stage(
    source, finished, tmp_path, monkeypatch
):
    model, folder = finished
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "ccl")
    (tmp_path / "run" / "model.json").unlink()
    fillers = []
    make = MaskedItemFiller.__init__
    monkeypatch.setattr(MaskedItemFiller, "__init__", lambda self, *both: (make(self, *both), fillers.append(self))[0])
    again = run(source, tmp_path / "run", epochs=3)
    assert_same_weights(again.encoder.state_dict(), model.encoder.state_dict())
    (filler,) = fillers
    best = load_checkpoint(folder / "mlm" / "best.pt")["state_dict"]
    assert_same_weights(
        dict(filler.state_dict().items()),
        {name: tensor for name, tensor in best.items() if name.startswith(("encoder.", "head."))},
    )


def test_a_run_resumed_in_the_middle_of_its_curriculum_ends_with_the_same_weights(source, finished, tmp_path):
    """Two of three epochs, each of another ratio, then the third: as all three at once."""
    model, _ = finished
    told = interrupted_before(2, MaskAndFillPair, lambda: run(source, tmp_path / "run", epochs=3))
    assert told == [0, None, 1, None, 2]  # validation by the full ratio, then the next epoch's own
    again = run(source, tmp_path / "run", epochs=3)
    assert_same_weights(again.encoder.state_dict(), model.encoder.state_dict())


# --- other views by epochs, and keys ---------------------------------------------------------------------------------


def neighbours_of(views):
    return views.views.operators[0].neighbours[:, 0].tolist()


@pytest.mark.parametrize(("correlation", "warmup"), [("model", 2), ("hybrid", 2), ("model", 0), ("hybrid", -1)])
def test_coserecs_correlation_follows_the_item_table_after_its_warm_up(correlation, warmup):
    histories = corpus_of(6, 5, 7, 4, seed=2)
    options = {"correlation": correlation, "correlation_warmup": warmup, "epochs": 4}
    source = UserHistories(histories, max_len=10)
    views = make_views("coserec", recipe("coserec", options=options), source)
    stage = PairwiseStage(encoder_of(UserEncoder), views, InfoNCELoss())
    memory = ItemCorrelation.from_histories(histories)
    weight = stage.encoder.item_weight.detach()
    model = (
        ItemCorrelation.hybrid(memory, weight) if correlation == "hybrid" else ItemCorrelation.from_item_weight(weight)
    )
    by_memory, by_model = memory.neighbours[:, 0].tolist(), model.neighbours[:, 0].tolist()
    assert by_memory != by_model
    begin = 2 if warmup < 0 else warmup  # by default half of the epochs
    for epoch in range(4):
        stage.set_epoch(epoch)
        assert neighbours_of(views) == (by_model if epoch >= begin else by_memory)
    stage.validate([batch_of(5, 3, 7)], streams())
    assert neighbours_of(views) == by_memory


def test_coserecs_other_correlations_do_not_change():
    source = UserHistories(corpus_of(6, 5, 7, 4), max_len=10)
    memory = make_views("coserec", recipe("coserec"), source)
    assert neighbours_of(memory) == ItemCorrelation.from_histories(source.histories()).neighbours[:, 0].tolist()
    random = make_views("coserec", recipe("coserec", options={"correlation": "random"}), source)
    assert not any(neighbours_of(random))
    assert not hasattr(memory, "set_epoch")
    assert not hasattr(random, "set_epoch")


def test_coserec_by_model_needs_an_item_table():
    source = UserHistories(corpus_of(6, 5, 7), max_len=10)
    options = {"correlation": "model", "correlation_warmup": 0}
    stage = PairwiseStage(
        torch.nn.Linear(2, 2), make_views("coserec", recipe("coserec", options=options), source), None
    )
    with pytest.raises(InputError, match=r"^encoder: expected one with item_weight, to correlate by, got Linear$"):
        stage.set_epoch(0)


def test_duorecs_key_and_identical_histories_reach_its_views():
    source = UserHistories(corpus_of(5, 3, 7), max_len=10)
    plain = make_views("duorec", recipe("duorec"), source)
    assert (plain.drop_last, plain.skip_identical) == (False, False)
    options = {"duorec_key": "last_dropped", "skip_identical": True}
    views = make_views("duorec", recipe("duorec", options=options), source)
    assert (views.drop_last, views.skip_identical) == (True, True)


@pytest.mark.parametrize("loss", ["infonce", "adaptssr"])
def test_users_of_one_key_are_no_negatives_of_each_other(loss):
    made = recipe("duorec", options={**TINY, "mask_same_key": True, "loss": loss})
    corpus = corpus_of(5, 3, 7, 4, 6, 2)
    source = UserHistories(corpus, max_len=10)
    (plan,) = stage_plans(made)
    stage = plan.make(encoder_of(UserEncoder), source)
    handed = []
    calls = stage.loss.terms if loss == "adaptssr" else stage.loss.forward
    name = "terms" if loss == "adaptssr" else "forward"

    def noted(*arguments):
        handed.append(arguments[-1])
        return calls(*arguments)

    setattr(stage.loss, name, noted)
    batch = batch_of(5, 3, 7, 4, 6, 2)
    stage.step(batch, streams())
    keys = torch.tensor([int(corpus.history(row)[-1]) for row in batch.user_ids.tolist()])
    assert torch.equal(handed[0], torch.stack((batch.user_ids, keys), 1))


def test_views_without_keys_mask_none():
    (plan,) = stage_plans(recipe("clue", options={"mask_same_key": True}))
    with pytest.raises(InputError, match=r"^mask_same_key: expected views with key items \(duorec\), got DropoutPair$"):
        plan.make(encoder_of(UserEncoder), UserHistories(corpus_of(5, 3), max_len=10))


# --- a folder as warm start ----------------------------------------------------------------------------------------


def test_a_run_starts_from_the_whole_encoder_of_a_finished_one(source, finished, tmp_path):
    model, folder = finished
    still = run(source, tmp_path / "still", "clue", warm_start=str(folder), learning_rate=1e-30, epochs=1)
    assert_still(still.encoder, model.encoder)
    assert [stage.name for stage in still.stages] == ["clue"]
    nothing = run(source, tmp_path / "nothing", "none", warm_start=str(folder))
    assert_same_weights(nothing.encoder.state_dict(), model.encoder.state_dict())
    moved = run(source, tmp_path / "moved", "clue", warm_start=str(folder), epochs=1)
    assert not torch.equal(moved.encoder.items.weight, model.encoder.items.weight)


def test_a_run_of_masked_items_alone_is_a_start_for_the_ranking(source, tmp_path):
    before = run(source, tmp_path / "before", "peterrec", epochs=1)
    still = run(
        source, tmp_path / "still", "adaptssr", warm_start=str(tmp_path / "before"), learning_rate=1e-30, epochs=1
    )
    assert_still(still.encoder, load_pretrained(tmp_path / "before").encoder)
    assert_same_weights(before.encoder.state_dict(), still.encoder.state_dict())


@pytest.mark.parametrize("kind", ["transformer", "gru4rec", "nextitnet", "sasrec"])
@pytest.mark.parametrize("n_items", [6, 9, 14])
def test_a_start_on_another_catalogue_takes_items_by_token(source, tmp_path, kind, n_items):
    """Of as many items too, as many as positions; what has no row for an item is taken whole."""
    start = run(source, tmp_path / "start", "none", encoder=kind)
    other = Source(str(write_profiled_dataset(tmp_path / "other", n_users=30, n_items=n_items, seed=5)), source.options)
    fresh = run(other, tmp_path / "fresh", "none", encoder=kind)
    said = []
    options = {**TINY, "encoder": kind, "warm_start": str(tmp_path / "start")}
    begun = pretrain(other, recipe("none", options=options), tmp_path / "begun", False, say=said.append)
    there, here = (json.loads((tmp_path / name / "items.json").read_text()) for name in ("start", "begun"))
    assert here != there
    n_known = len({*here[1:]} & {*there[1:]})
    unknown = len(here) - 1 - n_known
    assert said == [
        f"warm start: {n_known} of {len(here) - 1} items taken by token, {unknown} keep their initialisation"
    ]
    before, ours, untouched = (model.encoder.state_dict() for model in (start, begun, fresh))
    for name, tensor in ours.items():
        if name != "items.weight":
            assert torch.equal(tensor, before[name]), name
    for row, token in enumerate(here):
        known = before["items.weight"][there.index(token)] if token in there else untouched["items.weight"][row]
        assert torch.equal(ours["items.weight"][row], known)
    assert (n_items == 14) == (unknown > 0)


def test_nothing_is_said_of_items_where_they_are_the_same(source, finished, tmp_path):
    said = []
    options = {**TINY, "warm_start": str(finished[1]), "epochs": 1}
    pretrain(source, recipe("clue", options=options), tmp_path / "run", False, say=said.append)
    assert said == []


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("missing", {}, "warm_start: expected mlm, none or the folder of a finished pre-training, got '{folder}'"),
        ("", {"dim": 4}, "warm_start: expected a model with dim 4 as this recipe, got 8 in {folder}"),
        ("", {"max_len": 9}, "warm_start: expected a model with max_len 9 as this recipe, got 10 in {folder}"),
        ("damaged", {}, "model: cannot read the files in {folder}: "),
        (
            "no known item",
            {},
            "warm_start: expected some of the 9 items here among the 9 of {folder}, found none",
        ),
    ],
)
def test_a_wrong_folder_gets_one_line(source, finished, tmp_path, change, options, message):
    folder = tmp_path / "start"
    shutil.copytree(finished[1], folder)
    if change == "missing":
        (folder / "model.json").unlink()
    elif change == "damaged":
        (folder / "items.json").write_text("[")
    elif change == "no known item":
        tokens = json.loads((folder / "items.json").read_text())
        (folder / "items.json").write_text(json.dumps([tokens[0], *(f"other {token}" for token in tokens[1:])]))
    said = refusal_of(run, source, tmp_path / "run", "clue", warm_start=str(folder), **options)
    assert said.startswith(message.format(folder=folder))
    assert not (tmp_path / "run").exists()
