"""Data loaders that a run has saved: a later run that takes them up is the run that would have made its own."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from recbole.data import create_dataset, data_preparation
from recbole_cases import stock_reading, write_table
from run_cases import SMALL, our_run, same_weights

from adaptssr_plugin.errors import InputError, MissingDatasetError
from adaptssr_plugin.recbole import import_quick_start, installed, load_data_and_model, run_recbole
from adaptssr_plugin.recbole.recommender.config import RunConfig
from adaptssr_plugin.recbole.recommender.saved_loaders import load_split_dataloaders

RATED = {"inter": ["user_id", "item_id", "rating", "timestamp"]}
VALUES = {
    "metrics": ["AUC", "MAE"],
    "valid_metric": "AUC",
    "threshold": {"rating": 4},
    "load_col": RATED,
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled"},
}


@pytest.fixture(autouse=True)
def slice_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    # RecBole counts operations on a row that is another one with saved loaders, and draws its masks.
    import_quick_start()
    monkeypatch.setattr(importlib.import_module("recbole.quick_start.quick_start"), "get_flops", lambda *_: 0)
    header = "user_id:token item_id:token rating:float timestamp:float"
    rows = [
        (f"u{user}", f"i{user * place % 17}", 1 + place * user % 5, place) for user in range(20) for place in range(9)
    ]
    write_table(tmp_path / "slice" / "slice.inter", header, rows)


def save(model, **options):
    """Run a model that saves its loaders; gives the file."""
    our_run(model, {**options, "epochs": 1, "save_dataloaders": True, "checkpoint_dir": "first"})
    return f"first/slice-for-{model}-dataloader.pth"


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("BERT4Rec", {}),
        ("BERT4Rec", {"faster_layers": True}),
        ("BERT4Rec", {"ssl_loss": "adaptssr", "ssl_mode": "joint"}),
        ("BERT4Rec", {"loss_type": "BPR"}),
        ("SASRec", {"ssl_loss": "adaptssr", "ssl_mode": "joint"}),
        ("GRU4Rec", VALUES),
        ("GRU4Rec", {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni5"}}),
        ("BPR", {}),
    ],
    ids=str,
)
def test_a_run_with_saved_loaders_is_the_run_without(model, options):
    path = save(model, **options)
    taken, trainer = our_run(model, {**options, "dataloaders_save_path": path, "checkpoint_dir": "second"})
    fresh, fresh_trainer = our_run(model, {**options, "checkpoint_dir": "third"})
    assert taken == fresh
    assert trainer.train_loss_dict == fresh_trainer.train_loss_dict
    assert same_weights(trainer.model, fresh_trainer.model)


@pytest.mark.parametrize(
    "changed", [{"mask_ratio": 0.6}, {"train_batch_size": 31}, {"faster_layers": True}, {"loss_type": "BPR"}], ids=str
)
def test_the_options_of_the_later_run_count(changed):
    path = save("BERT4Rec")
    options = {"epochs": 1, **changed}
    taken, trainer = our_run("BERT4Rec", {**options, "dataloaders_save_path": path, "checkpoint_dir": "second"})
    fresh, fresh_trainer = our_run("BERT4Rec", {**options, "checkpoint_dir": "third"})
    _, unchanged = our_run("BERT4Rec", {"epochs": 1, "checkpoint_dir": "fourth"})
    assert taken == fresh
    assert trainer.train_loss_dict == fresh_trainer.train_loss_dict != unchanged.train_loss_dict


def test_loaders_of_other_data_options_are_left_alone():
    path = save("GRU4Rec")
    for other in ({"seed": 3}, {"MAX_ITEM_LIST_LENGTH": 5}):
        with installed():
            config = RunConfig("GRU4Rec", "slice", None, {**SMALL, **other, "dataloaders_save_path": path})
            assert load_split_dataloaders(config) is None


@pytest.mark.parametrize(
    ("model", "faster_layers", "saving"),
    [("GRU4Rec", False, True), ("BERT4Rec", False, True), ("BERT4Rec", True, True), ("BERT4Rec", True, False)],
)
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(model, faster_layers, saving):
    """Whether it saves its loaders in its first part, or takes up saved ones in both."""
    # Without validation every epoch is written.
    options = {"faster_layers": faster_layers, "eval_step": 0}
    options |= {"save_dataloaders": True} if saving else {"dataloaders_save_path": save(model)}
    _, whole = our_run(model, {**options, "epochs": 4, "checkpoint_dir": "whole"})
    our_run(model, {**options, "epochs": 2, "checkpoint_dir": "parts"})
    (checkpoint,) = Path("parts").glob(f"{model}-*.pth")
    _, resumed = our_run(model, {**options, "epochs": 4, "checkpoint_dir": "parts", "resume": str(checkpoint)})
    assert resumed.train_loss_dict == {epoch: whole.train_loss_dict[epoch] for epoch in (2, 3)}
    assert same_weights(resumed.model, whole.model)


def test_a_checkpoint_is_loaded_beside_saved_loaders():
    save("BERT4Rec")
    (checkpoint,) = Path("first").glob("BERT4Rec-*.pth")
    _, model, _, train_data, *_ = load_data_and_model(checkpoint)
    with installed():
        assert model.calculate_loss(next(iter(train_data))).isfinite()


@pytest.mark.parametrize("content", [None, b"", b"junk", b"\x80\x04]."])
def test_a_file_that_holds_no_loaders_is_refused(content):
    if content is not None:
        Path("loaders.pth").write_bytes(content)
    expected = "expected an existing file, got 'loaders.pth'" if content is None else "cannot load loaders.pth: "
    with pytest.raises(InputError, match=rf"^dataloaders_save_path: {expected}") as refused:
        run_recbole("GRU4Rec", "slice", config_dict={**SMALL, "dataloaders_save_path": "loaders.pth"})
    assert "\n" not in str(refused.value)


def test_what_the_data_do_not_allow_is_refused_with_saved_loaders_too():
    path = save("GRU4Rec")
    with pytest.raises(InputError, match=r"^topk: expected at most \d+, the number of items and padding, got "):
        run_recbole("GRU4Rec", "slice", config_dict={**SMALL, "topk": [5, 5000], "dataloaders_save_path": path})


@pytest.mark.parametrize("saved", ["save_dataset", "save_dataloaders"])
def test_rows_that_were_saved_from_other_files_are_refused(tmp_path, saved):
    """RecBole would train on the saved ones."""
    options = {**SMALL, "epochs": 1, "checkpoint_dir": "first"}
    run_recbole("GRU4Rec", "slice", config_dict={**options, saved: True})
    shutil.copy(next(Path("first").glob("GRU4Rec-*.pth")), "run.pth")
    run_recbole("GRU4Rec", "slice", config_dict=options)
    rows = (tmp_path / "slice" / "slice.inter").read_text()
    (tmp_path / "other" / "slice").mkdir(parents=True)
    (tmp_path / "other" / "slice" / "slice.inter").write_text(rows)
    run_recbole("GRU4Rec", "other/slice", config_dict=options)
    (tmp_path / "other" / "slice" / "slice.inter").write_text(rows.replace("\ti0\t", "\ti1\t"))
    line = "^dataset: expected other/slice/slice.inter as it was when save_dataset or save_dataloaders kept its rows, "
    with pytest.raises(InputError, match=line):
        run_recbole("GRU4Rec", "other/slice", config_dict=options)
    shutil.rmtree(tmp_path / "slice")
    if saved == "save_dataset":  # the files are gone, the rows are there
        load_data_and_model("run.pth")
    else:
        with pytest.raises(MissingDatasetError, match=r"^dataset: expected slice\.inter in .*; data_path= says where"):
            load_data_and_model("run.pth")


def test_loaders_that_recbole_alone_has_saved_are_refused():
    """Their rows may be in the wrong order."""
    with stock_reading():
        config = RunConfig("GRU4Rec", "slice", None, {**SMALL, "save_dataloaders": True, "checkpoint_dir": "first"})
        data_preparation(config, create_dataset(config))
    line = "^dataset: expected slice as read while this package is installed, got it from RecBole alone; make it anew"
    with pytest.raises(InputError, match=line):
        run_recbole("GRU4Rec", "slice", config_dict={**SMALL, "checkpoint_dir": "first"})


def test_several_processes_take_up_none():
    path = save("GRU4Rec")
    with installed():
        config = RunConfig("GRU4Rec", "slice", None, {**SMALL, "dataloaders_save_path": path})
        config["single_spec"] = False
        with pytest.raises(InputError, match=r"^dataloaders_save_path: expected no saved loaders in several proc"):
            load_split_dataloaders(config)
