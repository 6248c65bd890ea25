"""Files that are split beforehand (``benchmark_filename``): what RecBole needs of them, by our entry points."""

import sys
from pathlib import Path

import pytest
from recbole_cases import write_table
from refusals import refusal_of
from run_cases import SMALL, stock_run

from adaptssr_plugin.cli.main import main
from adaptssr_plugin.recbole import compat_patches, run_recbole
from adaptssr_plugin.recbole.recommender.config import RunConfig

PARTS = ["train", "valid", "test"]
HEADER = "user_id:token item_id_list:token_seq item_id:token"
OPTIONS = {name: value for name, value in SMALL.items() if name != "load_col"} | {"benchmark_filename": PARTS}
# As RecBole wants it said.
IN_FULL = {"load_col": {"inter": ["user_id", "item_id_list", "item_id"]}, "alias_of_item_id": ["item_id_list"]}


def write_parts(folder, empty=""):
    """Write a part for training, validation and test, one of them with an empty list in its second and fifth row."""
    for longer, part in enumerate(PARTS):
        rows = []
        for user in range(20):
            items = [f"i{(user + place) % 9}" for place in range(4 + longer)]
            history = [] if part == empty and user in (1, 4) else items[:-1]
            rows.append((f"u{user}", " ".join(history), items[-1]))
        write_table(folder / f"{folder.name}.{part}.inter", HEADER, rows)


@pytest.fixture(autouse=True)
def parts_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    write_parts(tmp_path / "parts")


def refused_by_the_command(capfd, *words):
    with pytest.raises(SystemExit) as leaving:
        main(["run", "GRU4Rec", "parts", *words])
    assert leaving.value.code == 2
    return capfd.readouterr().err.splitlines()[-1]


def test_lists_are_read_and_share_the_items_ids_without_being_told_so():
    ours = run_recbole("GRU4Rec", "parts", config_dict=OPTIONS)
    theirs, _ = stock_run("GRU4Rec", {**OPTIONS, **IN_FULL, "train_neg_sample_args": None}, "parts")
    assert ours == theirs
    assert run_recbole("GRU4Rec", "parts", config_dict={**OPTIONS, **IN_FULL}) == theirs


@pytest.mark.parametrize("mode", ["joint", "pretrain"])
def test_views_may_be_as_long_as_lists_that_exceed_the_maximum(mode):
    options = {"ssl_loss": "adaptssr", "ssl_mode": mode, "ssl_method": "coserec", "ssl_epochs": 1}
    assert run_recbole("GRU4Rec", "parts", config_dict={**OPTIONS, **options, "MAX_ITEM_LIST_LENGTH": 2})["test_result"]


def test_columns_that_a_user_names_stay():
    with compat_patches():
        given = {
            **OPTIONS,
            "load_col": {"inter": ["item_id_list", "user_id", "item_id"]},
            "alias_of_item_id": ["other"],
        }
        config = RunConfig("GRU4Rec", "parts", None, given)
        general = RunConfig("BPR", "parts", None, OPTIONS)
    assert config["load_col"] == given["load_col"]
    assert config["alias_of_item_id"] == ["other", "item_id_list"]
    assert (general["load_col"], general["alias_of_item_id"]) == ({"inter": ["user_id", "item_id"]}, None)


@pytest.mark.parametrize("parts", [["train", "test"], ["train"], [], "train", [*PARTS, "more"], {"train": 1}])
@pytest.mark.parametrize("dataset", ["parts", "./parts"])
def test_another_number_of_parts_than_three(parts, dataset):
    refusal = refusal_of(run_recbole, "GRU4Rec", dataset, config_dict={**OPTIONS, "benchmark_filename": parts})
    expected = "benchmark_filename: expected the parts for training, validation and test, such as "
    assert refusal == f"{expected}['train', 'valid', 'test'], got {parts!r}"


def test_two_parts_by_the_command(capfd):
    line = refused_by_the_command(capfd, "--benchmark_filename=['train','test']")
    assert line.startswith("adaptssr: benchmark_filename: expected the parts for training, validation and test, ")


def test_parts_without_lists_by_the_command(capfd):
    for part in PARTS:
        write_table(Path("parts") / f"parts.{part}.inter", "user_id:token item_id:token", [("u", "i"), ("v", "i")])
    line = refused_by_the_command(capfd, "--benchmark_filename=['train','valid','test']")
    assert line.startswith("adaptssr: benchmark_filename: expected a column 'item_id_list' in parts/parts.train.inter")


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("options", [{}, {"ssl_loss": "adaptssr", "ssl_mode": "joint"}, {"model": "BERT4Rec"}], ids=str)
def test_an_empty_list_is_named_with_its_file_and_row(tmp_path, part, options):
    write_parts(tmp_path / "parts", empty=part)
    model = options.get("model", "SASRec")
    assert refusal_of(run_recbole, model, "parts", config_dict={**OPTIONS, **options}) == (
        f"parts.{part}.inter: expected an item or more in every item_id_list, got an empty one in row 2 and 1 more"
    )


def test_an_empty_list_by_the_command(tmp_path, capfd):
    write_parts(tmp_path / "parts", empty="valid")
    line = refused_by_the_command(capfd, "--benchmark_filename=['train','valid','test']")
    assert line.startswith("adaptssr: parts.valid.inter: expected an item or more in every item_id_list, got an empty")
