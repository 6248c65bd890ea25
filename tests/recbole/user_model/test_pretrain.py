"""`pretrain`: what it leaves in its folder, and what it leaves alone."""

import json
import logging
import os
import random
import re
import sys
import warnings
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from refusals import refusal_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_cases import TINY, assert_same_weights, write_profiled_dataset

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.recbole import load_user_sequences
from adaptssr_plugin.recbole.user_model.manifest import claim
from adaptssr_plugin.recbole.user_model.pretrain import Source, fresh_encoder, load_pretrained, pretrain
from adaptssr_plugin.recbole.user_model.trainer import StageTrainer
from adaptssr_plugin.training import load_checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Source(str(write_profiled_dataset(tmp_path_factory.mktemp("data") / "small")), {"use_gpu": False})


def surroundings():
    """All that RecBole and TensorBoard are known to touch."""
    return {
        "argv": list(sys.argv),
        "numpy": sorted(vars(np)),
        "warnings": list(warnings.filters),
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy's": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],  # noqa: NPY002
        "anomaly": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        # torch's first optimiser step imports its compiler, which names its cache there.
        "environment": {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")},
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark),
        "grad": torch.is_grad_enabled(),
        "handlers": list(logging.getLogger().handlers),
        "level": logging.getLogger().level,
        "cwd": os.getcwd(),  # noqa: PTH109
    }


@pytest.fixture(scope="module")
def pretrained(source, tmp_path_factory):
    """One run from a strange place, and what it changed there."""
    cwd, folder = tmp_path_factory.mktemp("cwd"), tmp_path_factory.mktemp("out") / "deep" / "run"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["program", "--epochs=7", "--learning_rate=9", "stray"])
        patch.setenv("CUDA_VISIBLE_DEVICES", "strange")
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="a filter of the caller's")
        torch.autograd.set_detect_anomaly(False, check_nan=False)
        fresh_encoder(recipe(options=TINY), 4, 0.1, 0)
        load_user_sequences(source.config())  # what importing alone changes is another test's
        before = surroundings()
        model = pretrain(source, recipe(options=TINY), folder, show_progress=False)
        after = surroundings()
        left = sorted(path.name for path in cwd.rglob("*"))
    torch.autograd.set_detect_anomaly(False)
    return model, folder, before, after, left


def test_the_process_is_left_as_it_was(pretrained):
    _, _, before, after, _ = pretrained
    assert after == before


def test_nothing_is_written_to_the_working_directory(pretrained):
    *_, left = pretrained
    assert left == []


def test_the_folder_holds_the_model_and_a_folder_per_stage(pretrained):
    _, folder, *_ = pretrained
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "tensorboard" not in path.parts}
    assert names == {
        "run.json", "model.safetensors", "model.json", "items.json", "MODEL_CARD.md",
        "mlm", "mlm/best.pt", "mlm/last.pt", "mlm/previous.pt",
        "adaptssr", "adaptssr/best.pt", "adaptssr/last.pt", "adaptssr/previous.pt",
    }  # fmt: skip


def test_the_model_is_the_selected_epoch_of_the_last_stage(pretrained):
    model, folder, *_ = pretrained
    stage = model.stages[-1]
    scores = [epoch["valid_order_accuracy"] for epoch in stage.history]
    assert stage.selected_epoch == scores.index(max(scores)) + 1
    best = load_checkpoint(folder / "adaptssr" / "best.pt")
    assert best["epoch"] == stage.selected_epoch - 1
    expected = {
        name.removeprefix("encoder."): tensor
        for name, tensor in best["state_dict"].items()
        if name.startswith("encoder.")
    }
    assert_same_weights(model.encoder.state_dict(), expected)
    assert_same_weights(load_pretrained(folder).encoder.state_dict(), expected)
    assert not model.encoder.training
    assert not load_pretrained(folder).encoder.training


def test_the_warm_up_is_kept_and_moves_on_but_for_the_pooling_query(pretrained, source):
    model, folder, *_ = pretrained
    best = load_checkpoint(folder / "mlm" / "best.pt")["state_dict"]
    for name, tensor in model.warm_up.state_dict().items():
        assert torch.equal(tensor, best[f"encoder.{name}"]), name
    fresh = fresh_encoder(recipe(options=TINY), model.encoder.n_items, 0.1, recipe().seed)
    assert torch.equal(model.warm_up.pooling.query, fresh.pooling.query)  # which no masked item trains
    assert not torch.equal(model.encoder.pooling.query, fresh.pooling.query)
    for name, tensor in model.encoder.state_dict().items():
        assert not torch.equal(tensor, model.warm_up.state_dict()[name]), name


def test_ranking_starts_from_the_selected_weights_of_the_warm_up(source, tmp_path):
    """A learning rate too small to move anything shows where the second stage began."""
    still = {**TINY, "learning_rate": 1e-30, "mlm_select": "epoch:1", "mlm_epochs": 3, "epochs": 1}
    model = pretrain(source, recipe(options=still), tmp_path / "run", show_progress=False)
    first = load_checkpoint(tmp_path / "run" / "mlm" / "epoch-1.pt")["state_dict"]
    last = load_checkpoint(tmp_path / "run" / "mlm" / "last.pt")["state_dict"]
    assert not torch.equal(first["encoder.items.weight"], last["encoder.items.weight"])
    for name, tensor in model.encoder.state_dict().items():
        # The query too: fresh is fresh. Not equal bit by bit: a weight of 0, say a key's bias, does move by 1e-30.
        torch.testing.assert_close(tensor, first[f"encoder.{name}"], rtol=0, atol=1e-20)
    assert model.stages[0].selected_epoch == 1


def test_the_card_says_how_the_model_was_made(pretrained, source):
    model, folder, *_ = pretrained
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert card["dataset"] == source.dataset
    assert card["recipe"]["mlm_learning_rate"] == 1e-2
    assert [stage["name"] for stage in card["stages"]] == ["mlm", "adaptssr"]
    assert card["versions"]["torch"] == torch.__version__
    assert card["users"] == 24
    tokens = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    assert len(tokens) == model.encoder.n_items == card["encoder"]["n_items"]
    assert tokens[0] == "[PAD]"


def curves(folder):
    found = EventAccumulator(str(folder)).Reload()
    return {tag: [point.value for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("stage", "tags"),
    [
        (0, ["train/loss", "valid/accuracy", "valid/cross_entropy"]),
        (
            1,
            [
                "train/loss",
                *(f"train/lambda_{name}" for name in ("mean", "q05", "q50", "q95")),
                *(f"train/sim_{name}" for name in ("implicit", "augmented", "hardest_negative")),
                *(f"valid/{name}" for name in ("implicit_over_augmented", "augmented_over_others", "order_accuracy")),
                "valid/lambda_mean",
                "valid/loss",
            ],
        ),
    ],
    ids=["mlm", "adaptssr"],
)
def test_tensorboard_has_the_curves(pretrained, stage, tags):
    model, folder, *_ = pretrained
    result = model.stages[stage]
    found = curves(folder / result.name / "tensorboard")
    for tag in tags:
        name = tag.removeprefix("train/").replace("valid/", "valid_")
        assert found[tag] == pytest.approx([epoch[name] for epoch in result.history], rel=1e-6), tag
        assert len(found[tag]) == 2


def test_quantiles_are_ordered(pretrained):
    model, *_ = pretrained
    for epoch in model.stages[1].history:
        assert 0 <= epoch["lambda_q05"] <= epoch["lambda_q50"] <= epoch["lambda_q95"] <= 1


def test_validation_users_are_a_tenth_that_does_not_depend_on_the_seed(source, tmp_path, monkeypatch):
    seen = {}

    def note(_trainer, *loaders_and_progress):
        seen[seed, split_seed] = [loader.rows.tolist() for loader in loaders_and_progress[:2]]
        raise KeyboardInterrupt

    monkeypatch.setattr(StageTrainer, "run", note)
    for seed, split_seed in ((1, 1), (2, 1), (1, 2)):
        with pytest.raises(KeyboardInterrupt):
            pretrain(source, recipe(options={"seed": seed, "split_seed": split_seed}), tmp_path / "run", False)
    train, valid = seen[1, 1]
    assert sorted(train + valid) == list(range(24))
    assert len(valid) == 2
    assert seen[1, 1] == seen[2, 1] != seen[1, 2]


def test_options_of_the_recipe_reach_the_trainers(source, tmp_path, monkeypatch):
    from adaptssr_plugin.recbole.user_model import stages as module

    made = []

    class Noted(module.StageTrainer):
        def __init__(self, config, stage, plan, directory, **options):
            super().__init__(config, stage, plan, directory, **options)
            rates = {one.p for one in stage.modules() if isinstance(one, torch.nn.Dropout)}
            made.append((rates, self.optimizer.defaults["lr"], self.epochs, options))

    monkeypatch.setattr(module, "StageTrainer", Noted)
    options = {"mlm_dropout": 0.4, "dropout": 0.2, "clip_grad_norm": 0.5, "amp_dtype": "bfloat16", "stopping_step": 3}
    changed = {**TINY, **options, "seed": 9, "mlm_learning_rate": 0.01, "learning_rate": 0.02, "mlm_epochs": 1}
    pretrain(source, recipe(options=changed), tmp_path / "run", show_progress=False, checkpoint_minutes=2)
    passed_on = {"seed": 9, "stopping_step": 3, "clip_grad_norm": 0.5, "amp_dtype": "bfloat16"}
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["recipe"]["learning_rate"] == 0.02
    passed_on |= {"checkpoint_minutes": 2, "run": run, "together": True, "cuda_graphs": False}
    assert made == [({0.4}, 0.01, 1, passed_on), ({0.2}, 0.02, 2, passed_on)]


def test_none_is_the_random_initialisation(source, tmp_path):
    made = recipe("none", options={"dim": 8, "seed": 5})
    model = pretrain(source, made, tmp_path / "run", show_progress=False)
    assert_same_weights(model.encoder.state_dict(), fresh_encoder(made, model.encoder.n_items, 0.1, 5).state_dict())
    assert (model.stages, model.warm_up) == ((), None)
    assert load_pretrained(tmp_path / "run").stages == ()


@pytest.mark.parametrize(
    ("method", "options", "criterion"),
    [("peterrec", {}, "valid_accuracy"), ("adaptssr", {"loss": "infonce"}, "valid_loss")],
)
def test_the_other_methods_and_losses_run(source, tmp_path, method, options, criterion):
    made = recipe(method, options={**TINY, **options, "mlm_epochs": 1})
    model = pretrain(source, made, tmp_path / "run", show_progress=False)
    assert model.stages[-1].name == method
    scores = [epoch[criterion] for epoch in model.stages[-1].history]
    best = min(scores) if criterion == "valid_loss" else max(scores)
    assert model.stages[-1].selected_epoch == scores.index(best) + 1


def test_mixed_precision_by_recboles_own_switches(source, tmp_path):
    options = {"use_gpu": False, "enable_amp": True, "enable_scaler": True}
    mixed = Source(source.dataset, options)
    made = recipe(options={**TINY, "amp_dtype": "float16", "clip_grad_norm": 1.0})
    model = pretrain(mixed, made, tmp_path / "run", show_progress=False)
    assert all(np.isfinite(epoch["loss"]) for stage in model.stages for epoch in stage.history)
    # A step whose gradient overflows is left out and halves the scale: it did not happen at every one of the six.
    assert 2**16 >= load_checkpoint(tmp_path / "run" / "adaptssr" / "last.pt")["scaler"]["scale"] > 2**16 / 2**6
    assert all(tensor.dtype == torch.float32 for tensor in model.encoder.state_dict().values())


class TestRefusals:
    def refusal(self, source, folder, **options):
        return refusal_of(pretrain, source, recipe(options={**TINY, **options}), folder, show_progress=False)

    def test_a_folder_of_another_run(self, source, pretrained):
        _, folder, *_ = pretrained
        files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert self.refusal(source, folder, epochs=9) == (
            f"output: {folder} holds another run (epochs: 2 there, 9 here); choose another folder"
        )
        assert "(seed: 2020 there, 1 here)" in self.refusal(source, folder, seed=1)
        other = Source(source.dataset, {**source.options, "user_inter_num_interval": "[5,inf)"})
        assert "holds another run (options: " in self.refusal(other, folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files

    def test_a_dataset_that_has_changed(self, tmp_path):
        dataset = write_profiled_dataset(tmp_path / "small")
        made = {**TINY, "mlm_epochs": 1, "epochs": 0}
        pretrain(Source(str(dataset), {"use_gpu": False}), recipe(options=made), tmp_path / "run", False)
        write_profiled_dataset(dataset, n_users=30)
        message = self.refusal(Source(str(dataset), {"use_gpu": False}), tmp_path / "run", mlm_epochs=1, epochs=0)
        assert "holds another run (users: 24 there, 30 here)" in message

    def test_a_dataset_of_the_same_size_with_other_histories(self, tmp_path):
        """A run would go on with other data; a finished one would pass for a model of them."""
        dataset = write_profiled_dataset(tmp_path / "small")
        made = {**TINY, "mlm_epochs": 1, "epochs": 0}
        pretrain(Source(str(dataset), {"use_gpu": False}), recipe(options=made), tmp_path / "run", False)
        *others, last = (dataset / "small.inter").read_text().splitlines()
        user, item, _ = last.split("\t")
        (dataset / "small.inter").write_text("\n".join([*others, f"{user}\t{item}\t-1"]) + "\n")
        message = self.refusal(Source(str(dataset), {"use_gpu": False}), tmp_path / "run", mlm_epochs=1, epochs=0)
        assert re.search(r"holds another run \(histories_crc32: \d+ there, \d+ here\)", message)

    def test_a_folder_in_use(self, source, tmp_path):
        """Another run would take this one's half-written files for a killed run's, and remove them."""
        half_written = tmp_path / "mlm" / ".last.pt.1.tmp"
        with ExitStack() as held:
            claim(tmp_path, {}, held)
            half_written.parent.mkdir()
            half_written.touch()
            message = self.refusal(source, tmp_path)
            assert message == f"output: {tmp_path} is in use by another process that pre-trains in it"
            assert half_written.exists()
        pretrain(source, recipe(options={**TINY, "mlm_epochs": 1, "epochs": 0}), tmp_path, False)
        assert not half_written.exists()

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"recipe": 3}', b"\xff"])
    def test_a_damaged_manifest(self, source, tmp_path, content):
        (tmp_path / "mlm").mkdir()
        (tmp_path / "mlm" / "last.pt").touch()
        (tmp_path / "run.json").write_bytes(content)
        assert self.refusal(source, tmp_path) == (
            f"output: {tmp_path}/run.json is missing or damaged; choose another folder"
        )

    def test_a_refused_call_may_be_corrected_in_the_same_folder(self, source, tmp_path):
        assert self.refusal(source, tmp_path, valid_share=0.001).startswith("dataset: expected at least two users")
        pretrain(source, recipe(options={**TINY, "mlm_epochs": 1, "epochs": 0}), tmp_path, show_progress=False)

    @pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf"), True])
    def test_checkpoint_minutes_out_of_range(self, source, tmp_path, minutes):
        with pytest.raises(InputError, match=r"^checkpoint_minutes: expected a number of at least 0, got"):
            pretrain(source, recipe(options=TINY), tmp_path, False, checkpoint_minutes=minutes)

    def test_a_file_in_place_of_the_folder(self, source, tmp_path):
        (tmp_path / "file").touch()
        assert self.refusal(source, tmp_path / "file") == f"output: expected a folder, got the file {tmp_path}/file"

    @pytest.mark.parametrize(
        "name", ["epochs", "learning_rate", "train_batch_size", "stopping_step", "seed", "MAX_ITEM_LIST_LENGTH"]
    )
    def test_an_option_of_recboles_that_the_recipe_has_in_its_place(self, source, tmp_path, name):
        message = self.refusal(Source(source.dataset, {name: 3}), tmp_path)
        assert message.startswith(f"{name}: expected among the options of the recipe, as ")
