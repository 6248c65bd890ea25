"""Checkpoints of RecBole runs: what they hold, who can read them, and going on from them."""

import copy
import os
import pickle
import random
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from backbone_cases import workplace
from recbole.trainer import Trainer
from recbole_cases import MeanOfItems
from refusals import refusal_of
from run_cases import SMALL, our_run, quiet_root, same_weights, stock_run, write_slice
from safetensors.torch import save_file

from adaptssr_plugin.encoders import UserEncoder
from adaptssr_plugin.errors import InputError, MissingDatasetError
from adaptssr_plugin.recbole import compat_patches, installed, load_data_and_model, run_recbole
from adaptssr_plugin.recbole.entry_points import construction
from adaptssr_plugin.recbole.recommender.checkpoints import (
    load_pretrained_weights,
    load_run,
    random_states,
    restore_random_states,
)
from adaptssr_plugin.recbole.recommender.config import RunConfig
from adaptssr_plugin.recbole.recommender.data import find_data, items_state, tokens_in
from adaptssr_plugin.training.artefacts import save_artefact

SSL = {"ssl_loss": "adaptssr", "ssl_mode": "joint"}
PRETRAIN = {**SSL, "ssl_mode": "pretrain", "ssl_warmup_epochs": 1, "ssl_epochs": 1, "ssl_batch_size": 16}
BETTER = {"topk": [20], "valid_metric": "NDCG@20", "learning_rate": 0.01}


pytestmark = pytest.mark.usefixtures("slice_here")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of ours with the flag and one of RecBole's own: result, trainer, checkpoint."""
    folder = tmp_path_factory.mktemp("runs")
    with workplace(folder):
        write_slice(folder / "slice")
        ours, our_trainer = our_run("SASRec", {**BETTER, **SSL, "seed": 5})
        theirs, their_trainer = stock_run("SASRec", {**BETTER, "train_neg_sample_args": None})
        return {
            "ours": (ours, our_trainer, folder / our_trainer.saved_model_file),
            "theirs": (theirs, their_trainer, folder / their_trainer.saved_model_file),
        }


def scores(model, loader):
    model.eval()
    with compat_patches(), torch.no_grad():
        return torch.cat([model.full_sort_predict(batch[0]) for batch in loader])


# --- loading ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_loads_without_executing_anything(runs):
    _, trainer, path = runs["ours"]
    state = torch.load(path, weights_only=True)
    assert state["config"]["model"] == "SASRec"
    assert state["config"]["ssl_loss"] == "adaptssr"
    assert type(state["best_valid_score"]) is float
    assert state["epoch"] in (0, 1)
    assert set(state["state_dict"]) == set(trainer.model.state_dict())


def test_stock_trainers_read_it(runs):
    result, trainer, path = runs["ours"]
    config, model, _, _, _, test_data = load_data_and_model(path)
    with compat_patches(), quiet_root():
        stock = Trainer(config, model)
        for parameter in model.parameters():
            parameter.data.zero_()
        assert stock.evaluate(test_data, model_file=str(path)) == result["test_result"]
        stock.resume_checkpoint(path)
        assert stock.start_epoch == torch.load(path)["epoch"] + 1
        assert stock.best_valid_score == result["best_valid_score"]
    assert same_weights(model, trainer.model)


def test_a_loaded_model_scores_as_the_trained_one(runs, monkeypatch):
    result, trainer, path = runs["ours"]
    monkeypatch.setattr(sys, "argv", ["x", "--hidden_size=99", "--ssl_loss=none", "--nproc=3", "--model=GRU4Rec"])
    config, model, _, _, _, test_data = load_data_and_model(str(path))
    assert type(model).__name__ == "SASRec"
    assert config["hidden_size"] == SMALL["hidden_size"]
    assert torch.equal(scores(model, test_data), scores(trainer.model, test_data))
    with installed():
        again = Trainer(config, model).evaluate(test_data, load_best_model=False)
    assert again == result["test_result"]


def test_an_unrelated_folder_named_as_the_dataset_does_not_matter(runs, tmp_path, monkeypatch):
    path = runs["ours"][2]
    state = torch.load(path)
    state["config"]["data_path"] = str(tmp_path / "slice")
    torch.save(state, tmp_path / "moved.pth")
    (tmp_path / "other" / "slice").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "other")
    config, *_ = load_data_and_model(tmp_path / "moved.pth")
    assert config["dataset"] == "slice"


def test_a_model_from_outside_is_loaded_with_its_class():
    result, trainer = our_run(MeanOfItems, {"loss_type": "CE"})
    with pytest.raises(InputError, match=r"^model: expected the name of a RecBole model, "):
        load_data_and_model(trainer.saved_model_file)
    config, model, _, _, _, test_data = load_data_and_model(trainer.saved_model_file, model=MeanOfItems)
    assert same_weights(model, trainer.model)
    with compat_patches():
        assert Trainer(config, model).evaluate(test_data, load_best_model=False) == result["test_result"]


# --- data that have moved --------------------------------------------------------------------------------------------


@pytest.fixture
def moved(runs, tmp_path):
    """The checkpoint of a run whose data have moved, and the folder that they are in now."""
    path = tmp_path / "moved.pth"
    state = torch.load(runs["ours"][2])
    state["config"]["data_path"] = str(tmp_path / "slice")
    torch.save(state, path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "slice").rename(tmp_path / "elsewhere" / "slice")
    return path, tmp_path / "elsewhere" / "slice"


def test_data_that_have_moved_are_asked_for(moved, tmp_path):
    path, _ = moved
    with pytest.raises(MissingDatasetError) as refused:
        load_data_and_model(path)
    assert str(refused.value) == (
        f"dataset: expected slice.inter in {tmp_path / 'slice'}, where {path} was trained, found none; "
        "data_path= says where the data are now"
    )
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        with pytest.raises(MissingDatasetError) as refused:
            load_data_and_model(path, data_path=name)
        assert str(refused.value) == (
            f"data_path: expected slice.inter, on which {path} was trained, in {tmp_path / name} or in a folder slice "
            "there, found none"
        )


@pytest.mark.parametrize("which", ["folder", "parent", "renamed", "beside another"])
def test_data_path_says_where_they_are(runs, moved, which):
    result, trainer, _ = runs["ours"]
    path, folder = moved
    name, place = "slice", folder
    if which == "renamed":
        (folder / "slice.inter").rename(folder / "shop.inter")
        name, place = "shop", folder.rename(folder.with_name("shop"))
    elif which == "beside another":
        (folder / "other.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n")
    given = folder.parent if which == "parent" else place
    config, model, dataset, _, _, test_data = load_data_and_model(path, data_path=str(given))
    assert (config["data_path"], config["dataset"], dataset.dataset_name) == (str(place), name, name)
    assert torch.equal(scores(model, test_data), scores(trainer.model, test_data))
    with installed():
        assert Trainer(config, model).evaluate(test_data, load_best_model=False) == result["test_result"]


def test_recboles_own_function_takes_data_path_too(runs, moved):
    path, folder = moved
    with installed(), quiet_root():
        from recbole.quick_start import load_data_and_model as recboles

        assert same_weights(recboles(str(path), data_path=folder)[1], runs["ours"][1].model)


def test_data_path_of_recboles_own_checkpoint(runs, moved):
    folder = moved[1].rename(moved[1].with_name("theirs")).parent / "theirs"
    config, model, *_ = load_data_and_model(runs["theirs"][2], trusted=True, data_path=folder)
    assert config["data_path"] == str(folder)
    assert same_weights(model, runs["theirs"][1].model)


def test_other_items_in_the_place_of_the_data(runs, moved, tmp_path):
    path, folder = moved
    dataset = load_data_and_model(path, data_path=folder)[2]
    items = {*dataset.field2id_token["item_id"][1:]}

    refusal = partial(refusal_of, load_data_and_model)
    rename_an_item(folder)
    assert refusal(path, data_path=folder) == (
        f"dataset: expected the {len(items)} items that {path} was trained on, got {len(items) - 1} of them and 1 "
        f"others in {folder}; data_path= says where its data are now"
    )
    write_slice(folder, users=20)
    assert f"the {len(items)} items that {path} was trained on, got " in refusal(path, data_path=folder)
    lines = (write_slice(folder) / "slice.inter").read_text().splitlines()
    (folder / "slice.inter").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert "got the same in another order in" in refusal(path, data_path=folder)
    # Where nobody says that they have moved, and where the checkpoint has no tokens.
    shutil.copytree(folder, tmp_path / "slice")
    assert "got the same in another order in" in refusal(path)
    write_without_tokens(path)
    assert refusal(path).startswith(f"dataset: expected the items that {path} was trained on, got others in ")


def test_other_users_in_the_place_of_the_data(tmp_path):
    """Of the same items, in the same order."""
    _, trainer = our_run("BPR", {"epochs": 1, "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}})
    file = tmp_path / "slice" / "slice.inter"
    last = file.read_text().splitlines()[-1].split("\t")
    with file.open("a") as lines:
        lines.write("\t".join(["somebody new", *last[1:]]) + "\n")
    with pytest.raises(InputError, match=r"^checkpoint: the weights in \S+ do not fit these data: size mismatch for "):
        load_data_and_model(trainer.saved_model_file)


def test_a_dataset_that_the_run_has_saved_stands_for_its_files(tmp_path):
    """Until data_path names files."""
    _, trainer = our_run("SASRec", {"save_dataset": True})
    path = trainer.saved_model_file
    (tmp_path / "slice").rename(tmp_path / "elsewhere")
    assert same_weights(load_data_and_model(path)[1], trainer.model)
    rename_an_item(tmp_path, "elsewhere")
    with pytest.raises(InputError, match=r"got \d+ of them and 1 others in \S+elsewhere; "):
        load_data_and_model(path, data_path=tmp_path / "elsewhere")


def test_files_that_were_split_beforehand_are_found(tmp_path):
    config = SimpleNamespace(
        final_config_dict={
            "dataset": "shop",
            "data_path": str(tmp_path / "gone"),
            "benchmark_filename": ["train", "test"],
            "checkpoint_dir": "saved",
        }
    )
    with pytest.raises(MissingDatasetError, match=r"^dataset: expected shop\.train\.inter and shop\.test\.inter in "):
        find_data(config, "x.pth", None)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "shop.train.inter").touch()
    with pytest.raises(MissingDatasetError, match=r"^data_path: expected shop\.train\.inter and shop\.test\.inter, "):
        find_data(config, "x.pth", tmp_path / "shop")
    (tmp_path / "shop" / "shop.test.inter").touch()
    find_data(config, "x.pth", tmp_path)
    assert config.final_config_dict["data_path"] == str(tmp_path / "shop")


# --- other files -----------------------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def write_malicious(path):
    torch.save({"config": {}, "state_dict": {}, "x": Malicious()}, path)


def write_half(path):
    torch.save({"config": {"model": "SASRec"}, "state_dict": {"w": torch.zeros(9)}}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def saving(content):
    return lambda path: torch.save(content, path)


OPTIONS = {"model": "SASRec", "dataset": "slice"}
BAD = {
    "malicious": (write_malicious, "which is damaged or foreign"),
    "half": (write_half, "which is damaged or foreign"),
    "text": (lambda path: path.write_text("hello"), "which is damaged or foreign"),
    "empty": (lambda path: path.write_bytes(b""), "which is damaged or foreign"),
    "pickle": (
        lambda path: path.write_bytes(pickle.dumps({"config": {}, "state_dict": {}})),
        "which is damaged or foreign",
    ),
    "folder": (lambda path: path.mkdir(), "which is damaged or foreign"),
    "missing": (lambda path: None, "which does not exist"),
    "list": (saving([1, 2]), "expected a dictionary"),
    "no config": (saving({"state_dict": {}}), "expected a 'config' as of a RecBole run"),
    "no weights": (saving({"config": OPTIONS}), "expected a 'state_dict' as of a RecBole run"),
    "odd config": (saving({"config": 3, "state_dict": {}}), "expected a 'config' as of a RecBole run"),
    "odd weights": (saving({"config": OPTIONS, "state_dict": {"a": 1}}), "expected a 'state_dict' as of a RecBole run"),
    "few options": (saving({"config": OPTIONS, "state_dict": {}}), "its options are not those of a RecBole run"),
}


@pytest.mark.parametrize(("write", "reason"), BAD.values(), ids=BAD.keys())
def test_other_files_are_refused_with_the_reason(tmp_path, write, reason):
    path = tmp_path / "bad.pth"
    write(path)
    message = refusal_of(load_data_and_model, path)
    assert message.startswith("checkpoint: ")
    assert reason in message
    assert not (tmp_path / "executed").exists()
    if path.is_file() and "damaged" in reason:
        assert message.endswith(
            "if you made it yourself with RecBole alone, say so: trusted_files=True among the options, trusted=True to "
            "load_data_and_model"
        )


@pytest.mark.parametrize("name", ["half", "text", "empty", "missing", "list", "no config", "odd weights"])
def test_a_file_that_is_none_is_refused_though_trusted(tmp_path, name):
    path = tmp_path / "bad.pth"
    BAD[name][0](path)
    with pytest.raises(InputError, match=r"^checkpoint: [^\n]*$"):
        load_run(path, trusted=True)


def test_recboles_own_checkpoint_is_loaded_if_trusted(runs):
    result, trainer, path = runs["theirs"]
    with pytest.raises(InputError, match=r"^checkpoint: .* trusted=True to load_data_and_model$"):
        load_data_and_model(path)
    config, model, _, _, _, test_data = load_data_and_model(path, trusted=True)
    assert same_weights(model, trainer.model)
    with compat_patches():
        assert Trainer(config, model).evaluate(test_data, load_best_model=False) == result["test_result"]


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("SASRec", {"loss_type": "BPR"}),
        ("BERT4Rec", SSL),
        ("GRU4Rec", PRETRAIN),
    ],
)
def test_a_run_goes_on_as_if_never_interrupted(model, options):
    options = {**BETTER, **options, "stopping_step": 9}
    whole, whole_trainer = our_run(model, {**options, "epochs": 4, "checkpoint_dir": "whole"})
    _, first = our_run(model, {**options, "epochs": 2, "checkpoint_dir": "parts"})
    epoch = torch.load(first.saved_model_file)["epoch"]
    torch.manual_seed(1)  # whatever others drew meanwhile
    result, second = our_run(
        model, {**options, "epochs": 4, "checkpoint_dir": "parts", "resume": first.saved_model_file}
    )
    assert result == whole
    assert sorted(second.train_loss_dict) == list(range(epoch + 1, 4))
    assert second.train_loss_dict == {e: loss for e, loss in whole_trainer.train_loss_dict.items() if e > epoch}
    assert same_weights(second.model, whole_trainer.model)
    saved = torch.load(second.saved_model_file)
    assert saved["epoch"] == torch.load(whole_trainer.saved_model_file)["epoch"]


def test_a_run_goes_on_from_where_its_stages_ended():
    options = {**BETTER, **PRETRAIN, "checkpoint_dir": "whole"}
    whole, whole_trainer = our_run("SASRec", options)
    (ended,) = Path("whole").glob("*-pretrained.pth")
    result, second = our_run("SASRec", {**options, "resume": str(ended)})
    assert result == whole
    assert second.train_loss_dict == whole_trainer.train_loss_dict


def test_a_run_that_is_not_saved_leaves_no_checkpoint():
    our_run("SASRec", {**SMALL, **PRETRAIN, "checkpoint_dir": "none"}, saved=False)
    assert not list(Path("none").iterdir())


def test_going_on_with_a_run_that_is_over_gives_its_result_again():
    result, trainer = our_run("SASRec", {**BETTER, **SSL})
    before = torch.load(trainer.saved_model_file)
    again, resumed = our_run(
        "SASRec", {**BETTER, **SSL, "resume": trainer.saved_model_file, "epochs": before["epoch"] + 1}
    )
    assert again == result
    assert resumed.train_loss_dict == {}
    after = torch.load(trainer.saved_model_file)
    assert after["epoch"] == before["epoch"]  # RecBole would write -1, and the next run would begin anew
    assert after["best_valid_result"] == before["best_valid_result"]
    assert torch.equal(after["random_states"]["torch"], before["random_states"]["torch"])


def test_checkpoints_of_other_models_sizes_and_items_are_not_resumed(runs, tmp_path):
    path = str(runs["ours"][2])
    with pytest.raises(InputError, match=r"^resume: expected a checkpoint of GRU4Rec, got one of SASRec$"):
        run_recbole("GRU4Rec", "slice", config_dict={**SMALL, "resume": path})
    with pytest.raises(InputError, match=r"^resume: \S+ does not fit this model: [^\n]+$"):
        run_recbole("SASRec", "slice", config_dict={**SMALL, **SSL, "hidden_size": 8, "resume": path})
    with pytest.raises(InputError, match=r"^resume: \S+ does not fit this model: [^\n]+$"):
        run_recbole("SASRec", "slice", config_dict={**SMALL, "resume": path})  # without the flag
    rename_an_item(tmp_path)
    with pytest.raises(InputError, match=r"^resume: \S+ was trained on other items than those of this dataset$"):
        run_recbole("SASRec", "slice", config_dict={**SMALL, **SSL, "resume": path})


@pytest.mark.parametrize("place", ["elsewhere/slice", "renamed"])
def test_a_run_goes_on_where_its_data_are_now(tmp_path, place):
    data = str(tmp_path / place)
    # With these options the third epoch is the best.
    options = {**BETTER, **SSL, "ssl_rows": "user", "stopping_step": 9, "faster_layers": False}
    whole, whole_trainer = our_run("SASRec", {**options, "epochs": 3, "checkpoint_dir": "whole"})
    _, first = our_run("SASRec", {**options, "epochs": 2, "checkpoint_dir": "parts"})
    Path(data).parent.mkdir(exist_ok=True)
    (tmp_path / "slice").rename(data)
    more = {**options, "epochs": 3, "checkpoint_dir": "parts", "resume": first.saved_model_file}
    result, second = our_run("SASRec", more, dataset=data)
    assert result == whole
    assert same_weights(second.model, whole_trainer.model)
    assert load_data_and_model(second.saved_model_file)[0]["data_path"] == data  # the checkpoint says so from now on


def test_recboles_own_checkpoint_is_resumed_if_trusted(runs):
    path = runs["theirs"][2]
    options = {**BETTER, "resume": str(path), "epochs": 3}
    with pytest.raises(InputError, match="trusted_files=True among the options"):
        our_run("SASRec", options)
    _, resumed = our_run("SASRec", {**options, "trusted_files": True})
    assert max(resumed.train_loss_dict) == 2
    assert min(resumed.train_loss_dict) > 0


def test_random_states_come_back():
    generator = torch.Generator().manual_seed(4)
    states = random_states({"order": generator})

    def draw():
        drawn = torch.rand(3), torch.rand(3, generator=generator)
        return [*torch.cat(drawn).tolist(), random.random(), *np.random.rand(3)]  # noqa: NPY002

    drawn = draw()
    assert draw() != drawn
    restore_random_states(states, {"order": generator})
    assert draw() == drawn


# --- weights from elsewhere ------------------------------------------------------------------------------------------


def rename_an_item(folder, name="slice"):
    """Give the most recent item of the slice another name, which changes no count."""
    file = next(path for path in (folder / name / "slice.inter", folder / "slice.inter") if path.exists())
    lines = file.read_text().splitlines()
    item = lines[-1].split("\t")[1]
    renamed = [
        "\t".join([parts[0], "renamed", *parts[2:]]) if (parts := line.split("\t"))[1] == item else line
        for line in lines
    ]
    file.write_text("\n".join(renamed) + "\n")


def write_without_tokens(path):
    """Write a checkpoint as it was before checkpoints had the tokens of their items."""
    state = torch.load(path)
    del state["item_tokens"]
    torch.save(state, path)
    return path


def tokens_of(dataset):
    return dataset.field2id_token[dataset.iid_field].tolist()


def started(model, source, options=None):
    """The model as it stands before training, what was logged of its weights, these as they were, and the dataset."""
    found, own = [], construction.load_pretrained_weights

    def load(*arguments):
        fresh = {name: tensor.clone() for name, tensor in arguments[0].state_dict().items()}
        found.append((arguments[0], own(*arguments), fresh, arguments[2]))
        raise KeyboardInterrupt

    with mock.patch.object(construction, "load_pretrained_weights", load), pytest.raises(KeyboardInterrupt):
        run_recbole(model, "slice", config_dict={**SMALL, **(options or {}), "pretrained": str(source)})
    return found[0]


def test_weights_of_a_run_start_another(runs):
    _, trainer, path = runs["ours"]
    model, report, *_ = started("SASRec", path, SSL)
    assert same_weights(model, trainer.model)
    assert (report.skipped, report.missing) == ({}, ())
    model, report, *_ = started("SASRec", path)
    assert report.skipped == {"ssl_mask": "not in the model"}
    assert torch.equal(model.item_embedding.weight, trainer.model.item_embedding.weight)
    model, report, *_ = started("SASRec", path, {"n_layers": 2, "inner_size": 8})
    assert set(report.missing) >= {"trm_encoder.layer.1.feed_forward.dense_1.weight"}
    skipped = report.skipped["trm_encoder.layer.0.feed_forward.dense_1.weight"]
    assert skipped == "shape (16, 16), here (8, 16)"
    assert len(report.loaded) + len(report.missing) == len(model.state_dict())
    text = str(report)
    assert text.splitlines()[0].startswith(f"{len(report.loaded)} loaded: ")
    assert "shape (16, 16), here (8, 16)" in text


def assert_taken_by_token(tensor, fresh, there, here_tokens, there_tokens):
    """Every row is that of the item of the same token, or as it was; a last one besides is that of [MASK]."""
    n_here, n_there = len(here_tokens), len(there_tokens)
    known = {token: there[row] for row, token in enumerate(there_tokens)}
    expected = [known.get(token, fresh[row]) for row, token in enumerate(here_tokens)]
    expected += [there[n_there + row] for row in range(len(tensor) - n_here)]
    assert torch.equal(tensor, torch.stack(expected))


@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec"])
@pytest.mark.parametrize("change", ["renamed", "other users", "reversed", "more"])
def test_rows_of_items_are_taken_by_token(model, change, tmp_path):
    _, trainer = our_run(model, {"epochs": 1})
    there = tokens_of(trainer._train_data._dataset)
    weights = trainer.model.state_dict()
    tables = {"item_embedding.weight"} | ({"output_bias"} if model == "BERT4Rec" else set())
    for name in tables:
        weights[name].normal_()  # biases too; and rows that differ from all others
    state = torch.load(trainer.saved_model_file)
    torch.save({**state, "state_dict": weights}, "start.pth")
    if change == "renamed":
        rename_an_item(tmp_path)
    elif change == "reversed":
        lines = Path("slice/slice.inter").read_text().splitlines()
        Path("slice/slice.inter").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    else:
        write_slice(
            tmp_path / "slice", first=40 if change == "other users" else 1, users=60 if change[0] == "o" else 90
        )
    made, report, fresh, dataset = started(model, "start.pth")
    here = tokens_of(dataset)
    both = len({*here[1:]} & {*there[1:]})
    assert here != there
    assert 1 < both <= len(here) - 1
    assert (change == "reversed") == (both == len(here) - 1)
    assert (report.skipped, report.missing) == ({}, ())
    for name, tensor in made.state_dict().items():
        if name in tables:
            assert_taken_by_token(tensor, fresh[name], weights[name], here, there)
        else:
            assert torch.equal(tensor, weights[name])
    line = f"{both} of {len(here) - 1} items taken by token, {len(here) - 1 - both} keep their initialisation"
    assert line in str(report).splitlines()


def test_a_run_starts_from_one_on_other_items(runs, tmp_path):
    write_slice(tmp_path / "slice", first=40)
    result, _ = our_run("SASRec", {**SSL, "epochs": 1, "pretrained": str(runs["ours"][2])})
    assert result["test_result"]


def test_a_start_without_a_single_known_item_is_refused(runs, tmp_path):
    file = tmp_path / "slice" / "slice.inter"
    header, *lines = file.read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    file.write_text("\n".join([header, *("\t".join([row[0], f"new{row[1]}", *row[2:]]) for row in rows)]) + "\n")
    path = runs["ours"][2]
    n_items = len({row[1] for row in rows})
    assert refusal_of(run_recbole, "SASRec", "slice", config_dict={**SMALL, "pretrained": str(path)}) == (
        f"pretrained: expected some of the {n_items} items here among the {n_items} of {path}, found none"
    )


def test_tables_of_a_checkpoint_without_tokens_stay_behind_where_its_items_are_others(runs, tmp_path):
    path = write_without_tokens(shutil.copy(runs["ours"][2], tmp_path / "old.pth"))
    model, report, *_ = started("SASRec", path, SSL)
    assert same_weights(model, runs["ours"][1].model)
    rename_an_item(tmp_path)
    model, report, *_ = started("SASRec", path, SSL)
    assert report.skipped == {"item_embedding.weight": "of other items"}
    assert not torch.equal(model.item_embedding.weight, runs["ours"][1].model.item_embedding.weight)
    _, trainer = our_run("BERT4Rec", {"epochs": 1})
    path = write_without_tokens(trainer.saved_model_file)
    write_slice(tmp_path / "slice")
    _, report, *_ = started("BERT4Rec", path)
    assert set(report.skipped) == {"item_embedding.weight", "output_bias"}


def catalogue(*tokens):
    return SimpleNamespace(
        iid_field="item", field2id_token={"item": np.array(["[PAD]", *tokens])}, item_num=1 + len(tokens)
    )


def test_columns_of_other_items_stay_behind(tmp_path):
    """As of an autoencoder over items, whose first layer has a column for each, its last one a row and a bias."""
    there, here = catalogue(*"abcde"), catalogue(*"cafeg")
    trained, model = (torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 6)) for _ in range(2))
    fresh, weights = copy.deepcopy(model.state_dict()), trained.state_dict()
    torch.save({"config": OPTIONS, "state_dict": weights, **items_state(there)}, tmp_path / "start.pth")
    report = load_pretrained_weights(model, tmp_path / "start.pth", here)
    assert report.skipped == {"0.weight": "of other items"}
    assert torch.equal(model[0].weight, fresh["0.weight"])
    assert torch.equal(model[0].bias, weights["0.bias"])
    for name in ("1.weight", "1.bias"):
        assert_taken_by_token(model.state_dict()[name], fresh[name], weights[name], tokens_of(here), tokens_of(there))


def test_a_checkpoint_holds_the_tokens_of_its_items(runs):
    state = torch.load(runs["ours"][2], weights_only=True)
    assert tokens_in(state, "x.pth") == tokens_of(load_data_and_model(runs["ours"][2])[2])
    odd = ["[PAD]", "a b", 'quo"ted', "漢字", "🎬", "back\\slash", "007", "", "line\nbreak"]
    state = items_state(catalogue(*odd[1:]))
    assert tokens_in(state, "x.pth") == odd
    assert state["item_tokens"].dtype == torch.uint8
    for wrong in (torch.zeros(3, dtype=torch.uint8), "text", torch.tensor([*b"[1]"], dtype=torch.uint8)):
        with pytest.raises(InputError, match=r"^checkpoint: expected item tokens as of a RecBole run in x\.pth, got"):
            tokens_in({"item_tokens": wrong}, "x.pth")


def test_weights_come_from_safetensors(runs, tmp_path):
    trainer = runs["ours"][1]
    weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    save_file({**weights, "more": torch.zeros(2)}, tmp_path / "weights.safetensors")
    model, report, *_ = started("SASRec", tmp_path / "weights.safetensors", SSL)
    assert same_weights(model, trainer.model)
    assert report.skipped == {"more": "not in the model"}
    rename_an_item(tmp_path)  # of which such a file says nothing
    model, report, *_ = started("SASRec", tmp_path / "weights.safetensors", SSL)
    assert same_weights(model, trainer.model)
    (tmp_path / "bad.safetensors").write_text("hello")
    for name in ("bad", "nowhere"):
        with pytest.raises(InputError, match=rf"^pretrained: cannot read \S+{name}\.safetensors: [^\n]+$"):
            run_recbole("SASRec", "slice", config_dict={**SMALL, "pretrained": str(tmp_path / f"{name}.safetensors")})


def user_model(folder, tokens, dim=16):
    torch.manual_seed(3)
    arguments = {"n_items": len(tokens), "dim": dim, "n_layers": 1, "n_heads": 2, "ff_dim": 16, "max_len": 10}
    encoder = UserEncoder(**arguments)
    save_artefact(folder, encoder, arguments, {}, tokens)
    return encoder


def test_the_item_table_of_a_pretrained_user_model_is_taken(runs, tmp_path):
    dataset = load_data_and_model(runs["ours"][2])[2]
    tokens = np.array([str(token) for token in dataset.field2id_token["item_id"]])
    encoder = user_model(tmp_path / "same", tokens)
    model, report, *_ = started("GRU4Rec", tmp_path / "same")
    assert report.loaded == ("item_embedding.weight",)
    assert torch.equal(model.item_embedding.weight, encoder.state_dict()["items.weight"])
    assert "not in the model" in report.skipped.values()
    others = np.array([*tokens[:-2], tokens[-1], "new", tokens[-2]])
    encoder = user_model(tmp_path / "other", others)
    made, report, fresh, _ = started("GRU4Rec", tmp_path / "other")
    assert report.loaded == ("item_embedding.weight",)
    name, table = "item_embedding.weight", encoder.state_dict()["items.weight"]
    assert_taken_by_token(made.state_dict()[name], fresh[name], table, tokens.tolist(), others.tolist())
    assert f"{len(tokens) - 1} of {len(tokens) - 1} items taken by token, 0 keep" in str(report)
    for name, names in (("wider", tokens), ("wider and other", others)):
        user_model(tmp_path / name, names, dim=32)
        options = {**SMALL, "pretrained": str(tmp_path / name)}
        message = refusal_of(run_recbole, "GRU4Rec", "slice", config_dict=options)
        assert message.startswith(f"pretrained: nothing in {tmp_path / name} fits GRU4Rec: ")
        assert "item_embedding.weight (shape " in message


def test_a_config_comes_back_from_its_plain_values(runs):
    state = torch.load(runs["ours"][2])
    config = RunConfig.restored(state["config"])
    own = runs["ours"][1].config.final_config_dict
    assert config.final_config_dict == {**own, "pretrained": "", "resume": ""}
    assert config.ssl == runs["ours"][1].config.ssl
