import copy
import os
import sys
from pathlib import Path

import pytest
import torch
import yaml
from recbole.model.general_recommender import BPR
from recbole.model.sequential_recommender import SASRec
from recbole_cases import MeanOfItems, write_odd_dataset, write_table
from refusals import refusal_of

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import atomic_columns, build_config

COLUMNS = "user_id:token item_id:token rating:float timestamp:float"


@pytest.fixture
def odd(tmp_path):
    return write_odd_dataset(tmp_path / "odd")


def refusal(*args, **kwargs):
    return refusal_of(build_config, *args, **kwargs)


def test_a_model_of_ours_gets_what_sequential_training_needs():
    config = build_config(MeanOfItems, "ml-100k")
    assert config["model"] == "MeanOfItems"
    assert config["loss_type"] == "CE"
    assert config["train_neg_sample_args"]["distribution"] == "none"
    assert config["MAX_ITEM_LIST_LENGTH"] == 100
    assert config["eval_args"]["order"] == "TO"
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert config["repeatable"] is True
    assert config["load_col"] == {"inter": ["user_id", "item_id", "timestamp"]}
    assert config["normalize_all"] is True  # from RecBole's own ml-100k.yaml
    assert Path(config["data_path"], "ml-100k.inter").is_file()


def test_defaults_of_recboles_own_models_remain():
    config = build_config(SASRec, "ml-100k", {"loss_type": "BPR", "n_layers": 3})
    assert (config["hidden_size"], config["n_layers"]) == (64, 3)
    assert config["train_neg_sample_args"]["distribution"] == "uniform"


def test_what_eval_args_leaves_out_is_as_for_sequential_models():
    held_out = build_config(MeanOfItems, "ml-100k", {"eval_args": {"split": {"LS": "valid_only"}}})["eval_args"]
    assert (held_out["order"], held_out["group_by"], held_out["split"]) == ("TO", "user", {"LS": "valid_only"})
    sampled = build_config(MeanOfItems, "ml-100k", {"eval_args": {"mode": "uni100"}})["eval_args"]
    assert (sampled["split"], sampled["mode"]["test"]) == ({"LS": "valid_and_test"}, "uni100")
    assert "options: eval_args:[full] should be a dict" in refusal(MeanOfItems, "ml-100k", {"eval_args": "full"})


def test_options_over_later_over_earlier_files(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("epochs: 3\nlearning_rate: 1e-3\nseed: 5\n")
    second.write_text("seed: 6\nMAX_ITEM_LIST_LENGTH: 7\nplain: 1.5e-2\ntime: '08'\n")
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing\n")
    config = build_config(MeanOfItems, "ml-100k", {"epochs": 4}, [first, second, str(empty)])
    assert (config["epochs"], config["seed"], config["MAX_ITEM_LIST_LENGTH"]) == (4, 6, 7)
    assert (config["learning_rate"], config["plain"], config["time"]) == (1e-3, 1.5e-2, "08")


def test_yaml_loaders_of_others_stay_as_they_are(tmp_path):
    tables = [copy.deepcopy(loader.yaml_implicit_resolvers) for loader in (yaml.FullLoader, yaml.SafeLoader)]
    build_config(MeanOfItems, "ml-100k")
    assert [yaml.FullLoader.yaml_implicit_resolvers, yaml.SafeLoader.yaml_implicit_resolvers] == tables


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.001", 0.001),
        ("1e-3", 0.001),
        ("[1, 2]", [1, 2]),
        ("None", None),
        ("True", True),
        ("false", False),
        ("'quoted'", "quoted"),
        ("{'RS': [0.8, 0.1, 0.1]}", {"RS": [0.8, 0.1, 0.1]}),
        ("[5,inf)", "[5,inf)"),
        ("max", "max"),
        ("2 * 3", "2 * 3"),
        ("3+4j", "3+4j"),
        (r"'C:\d'", r"C:\d"),
        ("__import__('os').environ.update(EVALUATED='yes')", "__import__('os').environ.update(EVALUATED='yes')"),
        ("", ""),
    ],
)
def test_strings_become_literals_and_are_never_evaluated(text, value):
    options = {"some_option": text, "nested": {"text": "1"}}
    config = build_config(MeanOfItems, "ml-100k", options)
    assert config["some_option"] == value
    assert type(config["some_option"]) is type(value)
    assert "EVALUATED" not in os.environ
    assert options == {"some_option": text, "nested": {"text": "1"}}


def test_the_callers_options_are_not_shared_with_the_config():
    options = {"eval_args": {"split": {"RS": [8, 1, 1]}, "order": "TO"}, "train_neg_sample_args": None}
    before = copy.deepcopy(options)
    config = build_config(MeanOfItems, "ml-100k", options)
    config["eval_args"]["split"]["RS"].append(1)
    assert options == before


def test_the_command_line_is_not_read(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--epochs=17", "--epochs=18", "--model=SASRec"])
    assert build_config(MeanOfItems, "ml-100k")["epochs"] == 300


@pytest.mark.parametrize("devices", [None, "3"])
def test_visible_devices_stay_as_they_are(monkeypatch, devices):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if devices:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    build_config(MeanOfItems, "ml-100k", {"gpu_id": "7", "use_gpu": False})
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == devices


@pytest.mark.parametrize(
    ("options", "device"),
    [
        ({}, "cuda:0"),
        ({"gpu_id": 1}, "cuda:1"),
        ({"gpu_id": "1,0"}, "cuda:1"),
        ({"gpu_id": (1, 0)}, "cuda:1"),
        ({"gpu_id": ""}, "cpu"),
        ({"use_gpu": False}, "cpu"),
        ({"use_gpu": "False"}, "cpu"),
    ],
)
def test_recboles_switches_choose_the_device(monkeypatch, options, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = build_config(MeanOfItems, "ml-100k", options)
    assert config["device"] == torch.device(device)
    assert (config["single_spec"], config["local_rank"]) == (True, 0)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "gpu_id: expected a device from 0 to 1, got '2'" in refusal(MeanOfItems, "ml-100k", {"gpu_id": 2})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build_config(MeanOfItems, "ml-100k", {"gpu_id": 2})["device"] == torch.device("cpu")


@pytest.mark.parametrize(
    "options", [{"nproc": 2}, {"nproc": "2"}, {"world_size": 4}, {"local_rank": 1}], ids=lambda options: str(options)
)
def test_several_processes_are_not_available_yet(options):
    message = refusal(MeanOfItems, "ml-100k", options)
    assert message.startswith(next(iter(options)))
    assert "several processes are adaptssr pretrain --nproc's" in message
    alone = build_config(MeanOfItems, "ml-100k", {"nproc": 1, "world_size": -1, "local_rank": 0})
    assert (alone["nproc"], alone["single_spec"]) == (1, True)


def test_a_dataset_is_found_by_name_and_by_folder(odd, monkeypatch):
    for dataset, options in [(str(odd), {}), (f"{odd}/", {}), ("odd", {"data_path": str(odd.parent)})]:
        config = build_config(MeanOfItems, dataset, options)
        assert (config["dataset"], Path(config["data_path"])) == ("odd", odd)
    monkeypatch.chdir(odd)
    assert build_config(MeanOfItems, ".")["dataset"] == "odd"
    monkeypatch.chdir(odd.parent)
    assert build_config(MeanOfItems, "odd")["data_path"] == "odd"


def test_the_only_inter_file_may_have_another_name(odd):
    (odd / "odd.inter").rename(odd / "clicks.inter")
    config = build_config(MeanOfItems, str(odd))
    assert (config["dataset"], Path(config["data_path"])) == ("clicks", odd)
    write_table(odd / "likes.inter", COLUMNS, [])
    message = refusal(MeanOfItems, str(odd))
    assert "dataset: expected odd.inter or a single dataset" in message
    assert message.endswith("found clicks.inter, likes.inter")


def test_a_folder_named_as_recboles_example_is_the_folder(tmp_path):
    folder = write_odd_dataset(tmp_path / "ml-100k")
    assert Path(build_config(MeanOfItems, str(folder))["data_path"]) == folder


@pytest.mark.parametrize("dataset", ["no-such-dataset", "", "ml-1m"])
def test_an_unknown_dataset_is_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(MeanOfItems, dataset).startswith("dataset: expected ml-100k, a folder")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_refused(tmp_path):
    message = refusal(MeanOfItems, str(tmp_path))
    assert f"expected {tmp_path.name}.inter" in message
    assert message.endswith("found none")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ("user_id:token item_id:token rating:float", {}, "TIME_FIELD: expected a column 'timestamp' in odd.inter"),
        ("user_id:token item_id:token t:float", {"TIME_FIELD": "time"}, "TIME_FIELD: expected a column 'time'"),
        ("user:token item_id:token timestamp:float", {}, "USER_ID_FIELD: expected a column 'user_id'"),
        ("user_id:token item:token timestamp:float", {}, "ITEM_ID_FIELD: expected a column 'item_id'"),
        ("user_id:token item_id:token timestamp:token", {}, "odd.inter, line 1: expected timestamp to be of type"),
        ("user_id:float item_id:token timestamp:float", {}, "odd.inter, line 1: expected user_id to be of type"),
        ("user_id item_id timestamp", {}, "expected a first line of name:type columns"),
        ("user_id:token item_id:int timestamp:float", {}, "got 'item_id:int'"),
        (COLUMNS, {"field_separator": ","}, "separated by ','"),
        (COLUMNS, {"encoding": "no-such-encoding"}, "encoding: expected one that Python knows"),
        (COLUMNS, {"load_col": {"inter": ["user_id", "item_id"]}}, "load_col: expected 'timestamp' among the columns"),
        (COLUMNS, {"load_col": {"user": ["user_id", "age"]}}, "odd.user: expected a readable file, got No such file"),
        (COLUMNS, {"load_col": {"inter": "user_id"}}, "load_col: expected a list of columns for 'inter', got"),
        (COLUMNS, {"load_col": ["user_id"]}, "load_col: expected a mapping"),
        (COLUMNS, {"unload_col": {"inter": ["timestamp"]}}, "unload_col: 'timestamp' is needed"),
        (COLUMNS, {"val_interval": "[3,inf)"}, "val_interval: expected a mapping"),
        (COLUMNS, {"benchmark_filename": "train"}, "benchmark_filename: expected a list"),
        (COLUMNS, {"benchmark_filename": ["train", "test"]}, "expected odd.train.inter and odd.test.inter"),
    ],
)
def test_missing_columns_and_files_are_named(tmp_path, columns, options, message):
    write_table(tmp_path / "odd" / "odd.inter", columns, [])
    assert message in refusal(MeanOfItems, str(tmp_path / "odd"), options)


def test_fields_to_load_are_checked_against_the_files(odd):
    write_table(odd / "odd.user", "user_id:token age:token", [("two", 30)])
    user = {"load_col": {"user": ["user_id", "ages"]}}
    assert "expected columns of odd.user (user_id, age), got 'ages'" in refusal(MeanOfItems, str(odd), user)
    user = {"load_col": {"user": ["age"]}}
    assert "load_col: expected 'user_id' among the columns for 'user'" in refusal(MeanOfItems, str(odd), user)
    config = build_config(MeanOfItems, str(odd), {"load_col": {"user": ["user_id", "age"]}})
    assert config["load_col"]["inter"] == ["user_id", "item_id", "timestamp"]
    assert build_config(MeanOfItems, str(odd), {"load_col": None})["load_col"] is None
    assert build_config(MeanOfItems, str(odd), {"unload_col": {"inter": ["rating"]}})["load_col"] is None
    filtered = build_config(MeanOfItems, str(odd), {"val_interval": {"rating": "[3,inf)"}})
    assert filtered["load_col"]["inter"] == ["user_id", "item_id", "timestamp", "rating"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: [1", "cannot read"),
        ("- epochs", "expected option: value lines"),
        ("x: !!python/object/apply:os.getcwd []", "cannot read"),
        (None, "No such file"),
    ],
)
def test_an_unreadable_config_file_is_refused(tmp_path, content, message):
    path = tmp_path / "options.yaml"
    if content is not None:
        path.write_text(content)
    refused = refusal(MeanOfItems, "ml-100k", None, [path])
    assert refused.startswith("config_files: ")
    assert str(path) in refused
    assert message in refused


def test_what_recbole_refuses_is_refused_in_one_line():
    assert refusal(MeanOfItems, "ml-100k", {"metrics": ["Luck"]}) == "options: There is no metric named 'Luck'"
    assert "options: train_neg_sample_args" in refusal(MeanOfItems, "ml-100k", {"train_neg_sample_args": {"a": 1}})
    assert "model_class: expected a class with type = ModelType.SEQUENTIAL" in refusal(BPR, "ml-100k")


def test_columns_of_the_example():
    folder = build_config(MeanOfItems, "ml-100k")["data_path"]
    assert atomic_columns(folder, "ml-100k", "user") == dict.fromkeys(
        ["user_id", "age", "gender", "occupation", "zip_code"], "token"
    )
    assert atomic_columns(folder, "ml-100k", "item")["class"] == "token_seq"
    with pytest.raises(InputError, match=r"ml-100k\.users: expected a readable file"):
        atomic_columns(folder, "ml-100k", "users")
