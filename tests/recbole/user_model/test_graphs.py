"""``cuda_graphs`` in ``StageTrainer``, on a CPU: a stand-in (tests/helpers/recorded_graph.py) replays operations."""

import logging

import pytest
from recorded_graph import trainers_capture
from training_cases import (
    STAGES,
    TINY,
    assert_same_weights,
    corpus_of,
    encoder_of,
    interrupt,
    masked_items,
    ranking,
    write_profiled_dataset,
)

from adaptssr_plugin import UserEncoder, methods
from adaptssr_plugin.corpus import BatchLoader
from adaptssr_plugin.methods.plan import StagePlan
from adaptssr_plugin.recbole.compat.user_sequences import load_user_sequences
from adaptssr_plugin.recbole.user_model.finetune import fine_tune, profile_task
from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain
from adaptssr_plugin.recbole.user_model.trainer import StageTrainer
from adaptssr_plugin.training import MaskedItemStage

BATCH, STEPS = 4, 8  # of an epoch; the last batch is short
ONE_LINE = "cuda_graphs: steps run one operation at a time, as without it: "


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_profiled_dataset(tmp_path_factory.mktemp("data") / "small")


def config_of(dataset, **options):
    return Source(str(dataset), {"use_gpu": False, **options}).config(TINY["max_len"])


@pytest.fixture
def captures(monkeypatch):
    return trainers_capture(monkeypatch, StageTrainer)


def loader(n_rows, name):
    lengths = [10 - n % 3 for n in range(n_rows)]  # all of one width; for masked items of one number of slots
    return BatchLoader(corpus_of(*lengths), batch_size=BATCH, max_len=10, seed=0, name=name)


def trained(dataset, make, directory=None, stop=None, graphs=True, item_lr_share=1.0, seed=0, **options):
    """Train two epochs, or ``stop`` steps of them."""
    amp = {name: options.pop(name) for name in ("enable_amp", "enable_scaler", "learner") if name in options}
    plan = StagePlan("stage", lambda *_: None, 2, 1e-2, 0.1, "last", item_lr_share=item_lr_share)
    trainer = StageTrainer(
        config_of(dataset, **amp),
        make(),
        plan,
        directory,
        seed=seed,
        checkpoint_minutes=0.0,
        cuda_graphs=graphs,
        **options,
    )
    interrupt(trainer, stop)
    trainer.run(loader(BATCH * (STEPS - 1) + 2, "train"), loader(BATCH, "valid"), show_progress=False)
    return trainer


HALF = {"enable_amp": True, "enable_scaler": True, "amp_dtype": "float16", "clip_grad_norm": 1.0}


@STAGES
@pytest.mark.parametrize("options", [{}, HALF, {"item_lr_share": 0.0}, {"item_lr_share": 0.5}], ids=str)
def test_a_run_of_replayed_steps_is_one_of_ordinary_steps(dataset, captures, make, options):
    replayed = trained(dataset, make, **options)
    captures.captures = False
    ordinary = trained(dataset, make, **options)
    assert captures[0].captured >= 1
    assert captures[0].replayed + captures[0].ordinary == 2 * STEPS
    assert captures[0].replayed > STEPS // 2
    assert (captures[1].captured, captures[1].ordinary) == (0, 2 * STEPS)
    assert_same_weights(replayed.stage.state_dict(), ordinary.stage.state_dict())
    for ours, theirs in zip(replayed.history, ordinary.history, strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


@STAGES
@pytest.mark.parametrize("options", [{}, HALF], ids=["float32", "float16, scaled"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(dataset, captures, tmp_path, make, options):
    whole = trained(dataset, make, tmp_path / "whole", **options)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trained(dataset, make, tmp_path / "cut", stop=6, **options)
    cut = trained(dataset, make, tmp_path / "cut", **options)
    assert captures[0].replayed > captures[-1].replayed  # the rest begins with ordinary steps again
    assert captures[1].captured == 1
    assert_same_weights(cut.stage.state_dict(), whole.stage.state_dict())


def test_a_seed_gives_the_same_run_again_and_another_seed_another(dataset, captures):
    first, again, other = (trained(dataset, ranking, seed=seed) for seed in (0, 0, 1))
    assert all(capture.replayed for capture in captures)
    assert_same_weights(first.stage.state_dict(), again.stage.state_dict())
    assert other.history[0]["loss"] != first.history[0]["loss"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [({}, "there is no CUDA device, but cpu"), ({"learner": "sgd"}, "learner sgd is neither adam nor adamw")],
)
def test_without_a_device_one_line_says_so_and_nothing_else_changes(dataset, caplog, options, reason):
    with caplog.at_level(logging.WARNING):
        asked = trained(dataset, masked_items, **options)
    assert [record.getMessage() for record in caplog.records] == [f"stage: {ONE_LINE}{reason}"]
    plain = trained(dataset, masked_items, graphs=False, **options)
    assert_same_weights(asked.stage.state_dict(), plain.stage.state_dict())


def test_a_stage_that_is_not_known_is_left_alone(dataset, caplog, captures):
    class Own(MaskedItemStage):
        def why_eager(self):
            return super(MaskedItemStage.__mro__[1], self).why_eager()

    with caplog.at_level(logging.WARNING):
        trained(dataset, lambda: Own(encoder_of(UserEncoder)))
    (record,) = caplog.records
    assert record.getMessage() == f"stage: {ONE_LINE}the steps of Own are not known to have fixed shapes"
    assert captures == []


@pytest.mark.parametrize("method", ["adaptssr", "ptum", "cl4srec"])
def test_the_option_of_a_recipe_reaches_every_stage(dataset, captures, tmp_path, method):
    options = {**TINY, "batch_size": 2, "cuda_graphs": True}
    recipe = methods.recipe(method, options=options)
    source = Source(str(dataset), {"use_gpu": False})
    model = pretrain(source, recipe, tmp_path / "run", show_progress=False)
    assert len(captures) == len(model.stages)
    assert all(capture.replayed for capture in captures)
    config = source.config(recipe.max_len)
    corpus = load_user_sequences(config).corpus
    before = len(captures)
    fine_tune(
        config,
        corpus,
        profile_task(config, corpus, "job"),
        methods.recipe(method, options={**options, "ft_batch_size": 2, "ft_epochs": 3}),
        0,
        model.encoder,
    )
    assert len(captures) == before + 1
    assert captures[-1].replayed
