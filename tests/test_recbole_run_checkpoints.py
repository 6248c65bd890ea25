"""Checkpoints of RecBole runs: what they hold, who can read them, and going on from them."""

import os
import pickle
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.trainer import Trainer
from recbole_cases import MeanOfItems
from run_cases import SMALL, our_run, quiet_root, same_weights, stock_run, write_slice
from safetensors.torch import save_file

from adaptssr_plugin.encoders import UserEncoder
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import installed, load_data_and_model, mended, run_recbole, uninstall
from adaptssr_plugin.recbole.run_checkpoints import load_run, random_states, restore_random_states
from adaptssr_plugin.recbole.run_config import RunConfig
from adaptssr_plugin.training.artefacts import save_artefact

SSL = {"ssl_loss": "adaptssr"}
BETTER = {"topk": [20], "valid_metric": "NDCG@20", "learning_rate": 0.01}


@pytest.fixture(autouse=True)
def slice_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    write_slice(tmp_path / "slice")
    yield
    uninstall()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of ours with the flag and one of RecBole's own: result, trainer, checkpoint."""
    folder = tmp_path_factory.mktemp("runs")
    before, argv = Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["x"]
    try:
        write_slice(folder / "slice")
        ours, our_trainer = our_run("SASRec", {**BETTER, **SSL, "seed": 5})
        theirs, their_trainer = stock_run("SASRec", {**BETTER, "train_neg_sample_args": None})
        return {
            "ours": (ours, our_trainer, folder / our_trainer.saved_model_file),
            "theirs": (theirs, their_trainer, folder / their_trainer.saved_model_file),
        }
    finally:
        os.chdir(before)
        sys.argv = argv


def scores(model, loader):
    model.eval()
    with mended(), torch.no_grad():
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
    with mended(), quiet_root():
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
    with mended():
        assert Trainer(config, model).evaluate(test_data, load_best_model=False) == result["test_result"]


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def write_malicious(path):
    torch.save({"config": {}, "state_dict": {}, "x": Malicious()}, path)


def write_half(path):
    write_malicious(path)
    torch.save({"config": {"model": "SASRec"}, "state_dict": {"w": torch.zeros(9)}}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_pickle(path):
    path.write_bytes(pickle.dumps({"config": {}, "state_dict": {}}))


def saving(content):
    return lambda path: torch.save(content, path)


OPTIONS = {"model": "SASRec", "dataset": "slice"}
BAD = {
    "malicious": (write_malicious, "which is damaged or foreign"),
    "half": (write_half, "which is damaged or foreign"),
    "text": (lambda path: path.write_text("hello"), "which is damaged or foreign"),
    "empty": (lambda path: path.write_bytes(b""), "which is damaged or foreign"),
    "pickle": (write_pickle, "which is damaged or foreign"),
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
    with pytest.raises(InputError) as refused:
        load_data_and_model(path)
    message = str(refused.value)
    assert message.startswith("checkpoint: ")
    assert reason in message
    assert "\n" not in message
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
    with mended():
        assert Trainer(config, model).evaluate(test_data, load_best_model=False) == result["test_result"]


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("SASRec", {"loss_type": "BPR"}),
        ("BERT4Rec", SSL),
        ("GRU4Rec", {**SSL, "ssl_mode": "pretrain", "ssl_warmup_epochs": 1, "ssl_epochs": 1, "ssl_batch_size": 16}),
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


def rename_an_item(folder):
    """Give the most recent item of the slice another name, which changes no count."""
    file = folder / "slice" / "slice.inter"
    lines = file.read_text().splitlines()
    item = lines[-1].split("\t")[1]
    renamed = [
        "\t".join([parts[0], "renamed", *parts[2:]]) if (parts := line.split("\t"))[1] == item else line
        for line in lines
    ]
    file.write_text("\n".join(renamed) + "\n")


def started_from(model, source, options=None):
    """The model as it stands before training, and what was logged of its weights."""
    reports = []

    class StartedError(Exception):
        pass

    from adaptssr_plugin.recbole import installing

    own = installing.load_pretrained_weights

    def load(*arguments):
        reports.append((arguments[0], own(*arguments)))
        raise StartedError

    installing.load_pretrained_weights = load
    try:
        with pytest.raises(StartedError):
            run_recbole(model, "slice", config_dict={**SMALL, **(options or {}), "pretrained": str(source)})
    finally:
        installing.load_pretrained_weights = own
    return reports[0]


def test_weights_of_a_run_start_another(runs):
    _, trainer, path = runs["ours"]
    model, report = started_from("SASRec", path, SSL)
    assert same_weights(model, trainer.model)
    assert (report.skipped, report.missing) == ({}, ())
    model, report = started_from("SASRec", path)
    assert report.skipped == {"ssl_mask": "not in the model"}
    assert torch.equal(model.item_embedding.weight, trainer.model.item_embedding.weight)
    model, report = started_from("SASRec", path, {"n_layers": 2, "inner_size": 8})
    assert set(report.missing) >= {"trm_encoder.layer.1.feed_forward.dense_1.weight"}
    skipped = report.skipped["trm_encoder.layer.0.feed_forward.dense_1.weight"]
    assert skipped == "shape (16, 16), here (8, 16)"
    assert len(report.loaded) + len(report.missing) == len(model.state_dict())
    text = str(report)
    assert text.splitlines()[0].startswith(f"{len(report.loaded)} loaded: ")
    assert "shape (16, 16), here (8, 16)" in text


def test_a_run_with_weights_from_elsewhere_ends(runs):
    result, _ = our_run("SASRec", {"epochs": 1, "pretrained": str(runs["ours"][2])})
    assert result["test_result"]


def test_tables_of_other_items_stay_behind(runs, tmp_path):
    _, trainer, path = runs["ours"]
    rename_an_item(tmp_path)
    model, report = started_from("SASRec", path, SSL)
    assert report.skipped == {"item_embedding.weight": "of other items"}
    assert not torch.equal(model.item_embedding.weight, trainer.model.item_embedding.weight)


def test_bert4recs_tables_of_other_items_stay_behind(tmp_path):
    _, trainer = our_run("BERT4Rec", {"epochs": 1})
    rename_an_item(tmp_path)
    _, report = started_from("BERT4Rec", trainer.saved_model_file)
    assert set(report.skipped) == {"item_embedding.weight", "output_bias"}


def test_weights_come_from_safetensors(runs, tmp_path):
    trainer = runs["ours"][1]
    weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    save_file({**weights, "more": torch.zeros(2)}, tmp_path / "weights.safetensors")
    model, report = started_from("SASRec", tmp_path / "weights.safetensors", SSL)
    assert same_weights(model, trainer.model)
    assert report.skipped == {"more": "not in the model"}
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
    model, report = started_from("GRU4Rec", tmp_path / "same")
    assert report.loaded == ("item_embedding.weight",)
    assert torch.equal(model.item_embedding.weight, encoder.state_dict()["items.weight"])
    assert "not in the model" in report.skipped.values()
    user_model(tmp_path / "other", np.array([*tokens[:-2], tokens[-1], tokens[-2]]))
    user_model(tmp_path / "wider", tokens, dim=32)
    for name, reason in (("other", "of other items"), ("wider", "shape ")):
        with pytest.raises(InputError) as refused:
            run_recbole("GRU4Rec", "slice", config_dict={**SMALL, "pretrained": str(tmp_path / name)})
        message = str(refused.value)
        assert message.startswith(f"pretrained: nothing in {tmp_path / name} fits GRU4Rec: ")
        assert f"item_embedding.weight ({reason}" in message
        assert "\n" not in message


def test_a_config_comes_back_from_its_plain_values(runs):
    state = torch.load(runs["ours"][2])
    config = RunConfig.restored(state["config"])
    own = runs["ours"][1].config.final_config_dict
    assert config.final_config_dict == {**own, "pretrained": "", "resume": ""}
    assert config.ssl == runs["ours"][1].config.ssl
