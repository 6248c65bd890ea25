"""RecBole's datasets as this package reads, orders and cuts them, against RecBole's own lines."""

import copy
import pickle
import shutil

import numpy as np
import pytest
import torch
from recbole.data import create_dataset
from recbole.data.dataset import Dataset, DIENDataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole_cases import SPLITS, MeanOfItems, split_name, stock_reading, write_odd_dataset, write_table

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import build_config, compat_patches
from adaptssr_plugin.recbole.compat.reading import PrefixRows
from adaptssr_plugin.recbole.recommender.config import RunConfig

HEADER = "user_id:token item_id:token tags:token_seq scores:float_seq rating:float timestamp:float"
OPTIONS = {
    "as it is": {},
    "short lists": {"MAX_ITEM_LIST_LENGTH": 3},
    "normalised": {"normalize_all": True},
    "numerical": {"numerical_features": ["timestamp", "rating"]},
    "discretised": {"numerical_features": ["rating"], "discretization": {"rating": {"method": "ED", "bucket": 3}}},
    "columns unused": {"unused_col": {"inter": ["rating", "tags", "item_id_list"]}},
    "at least 3": {"user_inter_num_interval": "[3,inf)"},
    "cut": {"seq_len": {"tags": 2}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Users with 1 to 14 behaviours in no order; lists of any length; times that float32 holds, no two alike."""
    random = np.random.default_rng(3)
    rows = []
    for user in range(14):
        for _ in range(user + 1):
            tags = " ".join(f"t{tag}" for tag in random.integers(0, 6, random.integers(0, 5)))
            scores = " ".join(str(score) for score in random.normal(size=random.integers(1, 4)).round(3))
            rows.append((f"u{user}", f"i{random.integers(0, 9)}", tags, scores, random.integers(1, 6), 0))
    times = random.permutation(len(rows))
    rows = [(*row[:-1], time) for row, time in zip(rows, times, strict=True)]
    random.shuffle(rows)
    write_table(tmp_path_factory.mktemp("data") / "many" / "many.inter", HEADER, rows)
    return str(next(tmp_path_factory.getbasetemp().glob("data*/many")))


def parts_of(kind, folder, options):
    config = build_config(MeanOfItems, folder, {"load_col": None, **options})
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - DIEN's negative lists
    dataset = kind(config)
    return dataset, dataset.build()


def assert_same(ours, stock):
    assert list(ours) == list(stock)
    for field in stock:
        assert ours[field].dtype == stock[field].dtype, field
        assert torch.equal(ours[field], stock[field]), field


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("eval_args", SPLITS, ids=split_name)
def test_rows_and_splits_are_recboles(folder, options, eval_args):
    if "TS" in eval_args["split"] and "timestamp" in options.get("numerical_features", ()):
        options = {"numerical_features": ["rating"]}  # RecBole cannot split by a numerical time
    options = {**options, "eval_args": eval_args}
    with stock_reading():
        stock, stock_parts = parts_of(SequentialDataset, folder, options)
    with compat_patches():
        ours, parts = parts_of(SequentialDataset, folder, options)
        for part, expected in zip((*parts, ours), (*stock_parts, stock), strict=True):
            assert part.field2seqlen == expected.field2seqlen
            assert part.field2type == expected.field2type
            assert len(part) == len(expected)
            assert isinstance(part.inter_feat, PrefixRows)
            if len(part):
                everything = torch.arange(len(part))
                assert_same(part.inter_feat[everything], expected.inter_feat)
                assert_same(part[everything[::2]], expected[everything[::2]])
            assert_same(part.inter_feat, expected.inter_feat)  # whole columns, made when they are asked for


def test_a_split_by_time_compares_nanoseconds_exactly(tmp_path):
    times = np.random.default_rng(1).permutation(40)  # ns, so that float64 holds none but the multiples of 256
    rows = [(f"u{time % 3}", f"i{time}", "", "1", 1, 1_700_000_000_000_000_000 + time) for time in times]
    write_table(tmp_path / "ns" / "ns.inter", HEADER, rows)
    by_time = {"eval_args": {"order": "TO", "split": {"TS": [0.5, 0.25, 0.25]}, "group_by": "user"}}
    with compat_patches():
        dataset, parts = parts_of(Dataset, str(tmp_path / "ns"), by_time)
    names = [dataset.id2token("item_id", part.inter_feat["item_id"]) for part in parts]
    found = [sorted(int(name[1:]) for name in part) for part in names]
    assert found[2] == list(range(30, 40))
    assert sorted(found[0] + found[1]) == list(range(30))
    assert parts[2].inter_feat["timestamp"].dtype == torch.float32  # RecBole's again


@pytest.mark.parametrize("options", [{}, {"numerical_features": ["timestamp"]}], ids=["plain", "numerical"])
def test_the_lists_of_dien(folder, options):
    with stock_reading():
        _, stock = parts_of(
            DIENDataset, folder, {**options, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
        )
    with compat_patches():
        _, ours = parts_of(DIENDataset, folder, {**options, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}})
    for part, expected in zip(ours, stock, strict=True):
        assert_same(part.inter_feat[:], expected.inter_feat)


@pytest.mark.parametrize("order", ["TO", "RO"])
def test_a_dataset_without_lists(folder, order):
    options = {"eval_args": {"order": order, "split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "user"}}
    with stock_reading():
        _, stock = parts_of(Dataset, folder, options)
    with compat_patches():
        _, ours = parts_of(Dataset, folder, options)
    for part, expected in zip(ours, stock, strict=True):
        assert_same(part.inter_feat, expected.inter_feat)


def rows_of(folder, **options):
    with compat_patches():
        return parts_of(SequentialDataset, folder, options)[1][0].inter_feat


def test_any_index_gives_what_it_gives_of_whole_columns(folder):
    rows, whole = rows_of(folder), rows_of(folder)[:]
    mask = torch.arange(len(rows)) % 3 == 0
    indices = [slice(2, 9), slice(None, None, 4), mask, torch.tensor([7]), torch.tensor([], dtype=torch.int64)]
    as_lists = [[5, 0, 5], [], range(3, 6), np.array([4, 1]), mask.numpy(), mask.tolist()]
    tensors = [torch.tensor(list(index), dtype=torch.bool if len(index) > 9 else torch.int64) for index in as_lists]
    for index, same in zip([*indices, *as_lists], [*indices, *tensors], strict=True):
        assert_same(rows[index], Interaction({name: column[same] for name, column in whole.interaction.items()}))
    assert rows[3]["item_id_list"].tolist() == whole["item_id_list"][3].tolist()
    assert "item_id_list" in rows
    assert len(rows) == len(whole)


def test_copies_and_pickles_hold_no_whole_columns(folder):
    rows = rows_of(folder, MAX_ITEM_LIST_LENGTH=4000)
    pickled = pickle.dumps(rows)
    assert len(pickled) < rows["item_id_list"].nbytes / 10
    for other in (pickle.loads(pickled), copy.deepcopy(rows_of(folder, MAX_ITEM_LIST_LENGTH=4000))):
        assert_same(other[[0, 5, 3]], rows[[0, 5, 3]])


def test_rows_put_into_another_order_keep_their_lists(folder):
    rows, expected = rows_of(folder), rows_of(folder)[:]
    order = torch.randperm(len(rows))
    rows._reindex(order)
    assert_same(rows[:], expected[order])
    with compat_patches():
        rows.sort("item_id")
        expected.sort("item_id")
    assert rows["item_id"].tolist() == expected["item_id"].tolist()
    assert sorted(rows["item_id_list"].tolist()) == sorted(expected["item_id_list"].tolist())


def test_of_equal_times_the_first_in_the_file_is_kept(tmp_path):
    rows = [("u", f"i{item}", "", "1", rating, 5) for rating, item in enumerate([0, 1, 2] * 30)]
    write_table(tmp_path / "ties" / "ties.inter", HEADER, rows)
    for keep, ratings in (("first", [0.0, 1.0, 2.0]), ("last", [87.0, 88.0, 89.0])):
        config = build_config(MeanOfItems, str(tmp_path / "ties"), {"rm_dup_inter": keep, "load_col": None})
        with compat_patches():
            assert Dataset(config).inter_feat["rating"].tolist() == ratings


KEYS = {"user_id": "token", "item_id": "token", "timestamp": "float"}


@pytest.mark.parametrize("field", KEYS)
@pytest.mark.parametrize("kind", ["token", "float", "token_seq"])
def test_keys_of_another_type(tmp_path, field, kind):
    header = " ".join(f"{name}:{kind if name == field else own}" for name, own in KEYS.items())
    write_table(tmp_path / "x" / "x.inter", header, [("1", "1", 1), ("1", "2", 2)])
    config = build_config(MeanOfItems, str(write_odd_dataset(tmp_path / "odd")))
    config["data_path"], config["dataset"] = str(tmp_path / "x"), "x"
    with compat_patches():
        if kind == KEYS[field]:
            SequentialDataset(config)
            return
        expected = rf"x\.inter, line 1: expected {field} to be of type {KEYS[field]}, got {field}:{kind}$"
        with pytest.raises(InputError, match=expected):
            SequentialDataset(config)


def test_a_dataset_that_recbole_has_saved_is_not_taken_for_ours(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest"])
    data = str(write_odd_dataset(tmp_path / "odd"))
    with stock_reading():
        config = RunConfig("SASRec", data, None, {"save_dataset": True, "checkpoint_dir": str(tmp_path / "saved")})
        create_dataset(config)
    with compat_patches():
        saved = create_dataset(config)
        with pytest.raises(InputError, match=r"^dataset: expected odd as read while this package is installed, got it"):
            saved.build()
    shutil.rmtree(tmp_path / "saved")
    with compat_patches():
        first, again = create_dataset(config), create_dataset(config)
        assert again is not first
        for part, same in zip(first.build(), again.build(), strict=True):
            assert_same(part.inter_feat, same.inter_feat)
