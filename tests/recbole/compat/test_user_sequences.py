import copy
from functools import partialmethod

import numpy as np
import pandas as pd
import pytest
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole_cases import (
    BY_RATIO_AND_TIME,
    SPLITS,
    MeanOfItems,
    split_name,
    stock_reading,
    write_odd_dataset,
    write_table,
)

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import build_config, load_user_sequences
from adaptssr_plugin.recbole.compat.patches import temporary_attribute

FILTERS = {
    "as it is": {},
    "at least 3": {"user_inter_num_interval": "[3,inf)", "item_inter_num_interval": "[2,inf)"},
    "rated well": {"val_interval": {"rating": "[3,inf)"}},
    "first time only": {"rm_dup_inter": "first"},
    "normalised": {"normalize_all": True},
    "columns unused": {"unused_col": {"inter": ["rating"]}, "load_col": None},
}


class StockRows:
    """RecBole's own prefix rows, made once, and split by its own code as often as one likes.

    Times that float32 does not hold are replaced by their ranks, which it does: RecBole would not order them.
    """

    def __init__(self, config):
        # RecBole sorts by a method that leaves the order of equal times open, where rm_dup_inter is set.
        stable = partialmethod(pd.DataFrame.sort_values, kind="stable")
        with stock_reading(), temporary_attribute(pd.DataFrame, "sort_values", stable):
            self.dataset = SequentialDataset(config)
            everything = self.dataset.inter_feat
            times = everything[config["TIME_FIELD"]]
            if (times.astype(np.float32) != times).any():
                everything[config["TIME_FIELD"]] = np.unique(times, return_inverse=True)[1].astype(np.float64)
            self.users = everything[config["USER_ID_FIELD"]].to_numpy()
            self.times = everything[config["TIME_FIELD"]].to_numpy().astype(np.float32)
            self.items = everything[config["ITEM_ID_FIELD"]].to_numpy()
            self.dataset._change_feat_format()
            self.rows = self.dataset.inter_feat.interaction

    def split(self, eval_args):
        with stock_reading():
            dataset = copy.copy(self.dataset)
            dataset.inter_feat = Interaction({name: column.clone() for name, column in self.rows.items()})
            dataset.config = copy.deepcopy(dataset.config)
            dataset.config["eval_args"] = eval_args
            dataset.config["unused_col"] = None
            dataset._change_feat_format = lambda: None
            return dataset.build()

    def histories(self, part):
        """By user: how many rows there are, and the longest of the prefixes with its target after it."""
        found = {}
        columns = [part.inter_feat[name].numpy() for name in ("user_id", "item_length", "item_id", "item_id_list")]
        for user, length, item, items in zip(*columns, strict=True):
            rows, longest = found.get(user, (0, []))
            history = [*items[:length], item]
            found[user] = (rows + 1, history if len(history) >= len(longest) else longest)
        return found

    def tokens(self, users):
        return [str(token) for token in self.dataset.id2token("user_id", users)]


def expected_users(stock, train, eval_args):
    """Users with a training row, and those whose first interaction is not newer than the training part."""
    users = set(train.inter_feat["user_id"].tolist())
    newest = train.inter_feat["timestamp"].max().item()
    by_user = "LS" in eval_args["split"] or ("RS" in eval_args["split"] and eval_args["group_by"] == "user")
    for user in set(stock.users.tolist()):
        if by_user or stock.times[stock.users == user].min() <= newest:
            users.add(user)
    return sorted(users)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return str(write_odd_dataset(tmp_path_factory.mktemp("datasets") / "odd"))


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("eval_args", SPLITS, ids=split_name)
def test_a_row_is_the_longest_training_prefix_and_its_target(odd, filters, eval_args):
    config = build_config(MeanOfItems, odd, {**filters, "eval_args": eval_args})
    stock = StockRows(config)
    train, valid, test = stock.split(config["eval_args"])
    view = load_user_sequences(config)
    corpus = view.corpus

    users = expected_users(stock, train, config["eval_args"])
    assert corpus.user_tokens.tolist() == stock.tokens(users)
    longest = stock.histories(train)
    for row, user in enumerate(users):
        history = corpus.history(row).tolist()
        if user in longest:
            assert history == longest[user][1]
        else:
            own = stock.users == user
            assert len(history) == 1
            assert history[0] in stock.items[own & (stock.times == stock.times[own].min())]
    for part in (valid, test):  # item_length is the position of the row's target among the user's interactions
        held_out = part.inter_feat["user_id"].tolist(), part.inter_feat["item_length"].tolist()
        for user, position in zip(*held_out, strict=True):
            if user in users:
                assert position >= len(corpus.history(users.index(user)))
    assert view.held_out == len(valid) + len(test)
    assert view.left_out == len(set(stock.users.tolist())) - len(users)
    assert corpus.n_items == stock.dataset.item_num
    for item, token in enumerate(corpus.item_tokens):
        assert token == stock.dataset.id2token("item_id", item)


def test_the_example_that_comes_with_recbole():
    columns = {"MAX_ITEM_LIST_LENGTH": 20, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    stock = StockRows(build_config(MeanOfItems, "ml-100k", columns))
    for eval_args in (SPLITS[0], BY_RATIO_AND_TIME):
        config = build_config(MeanOfItems, "ml-100k", {**columns, "eval_args": eval_args})
        train, *held_out = stock.split(config["eval_args"])
        view = load_user_sequences(config)
        users = expected_users(stock, train, config["eval_args"])
        assert view.corpus.user_tokens.tolist() == stock.tokens(users)
        assert view.held_out == sum(len(part) for part in held_out)
        histories = stock.histories(train)
        for row, user in enumerate(users):
            rows, longest = histories.get(user, (0, []))
            history = view.corpus.history(row).tolist()
            assert len(history) == rows + 1  # RecBole's prefixes are cut to MAX_ITEM_LIST_LENGTH, these are not
            assert history[-21:] == longest or not longest
        if eval_args is SPLITS[0]:
            assert (len(users), view.corpus.n_items, view.held_out, view.left_out) == (943, 1683, 2 * 943, 0)
            assert view.corpus.lengths.sum() == 100_000 - 2 * 943
    assert view.left_out > 0  # under the split by time, users who came after the training period


def test_a_user_with_one_interaction_keeps_it_unless_it_is_newer_than_the_training_part(odd):
    for eval_args in SPLITS:
        view = load_user_sequences(build_config(MeanOfItems, odd, {"eval_args": eval_args}))
        lengths = dict(zip(view.corpus.user_tokens.tolist(), view.corpus.lengths.tolist(), strict=True))
        assert lengths["ünï"] == 1
        by_time = "TS" in eval_args["split"] or eval_args.get("group_by") == "none"
        assert ("late" in lengths, "later" in lengths) == (not by_time, not by_time)
        assert view.left_out + len(lengths) == 9


def test_a_time_column_among_the_numerical_features(odd):
    options = {"numerical_features": ["timestamp"]}
    plain, doubled = (load_user_sequences(build_config(MeanOfItems, odd, extra)).corpus for extra in ({}, options))
    assert plain.items.tolist() == doubled.items.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user_inter_num_interval": "[99,inf)"}, "dataset: cannot load odd: Some feat is empty"),
        ({"eval_args": {"split": {"LS": "all"}}}, "The leave_one_mode \\[all\\] has not been implemented"),
        ({"eval_args": {"split": {"RS": 3}}}, "should be a list"),
        ({"eval_args": {"order": "RO", "split": {"RS": [8, 1, 1]}}}, "has to be 'TO'"),
        ({"val_interval": {"price": "[3,inf)"}}, "Field \\[price\\] not defined"),
    ],
)
def test_what_recbole_refuses_is_refused_in_one_line(odd, options, message):
    config = build_config(MeanOfItems, odd, options)
    with pytest.raises(InputError, match=message) as refused:
        load_user_sequences(config)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x", "1"), ("a", "y", "noon")], r"small\.inter, line 3: timestamp: expected a number, got 'noon'$"),
        ([], r"small\.inter: expected at least one row below the header, got none$"),
        ([("a", "x", "1"), ("b", "y", "2")], "expected a user with two interactions or more in small"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(tmp_path, rows, message):
    write_table(tmp_path / "small" / "small.inter", "user_id:token item_id:token timestamp:float", rows)
    config = build_config(MeanOfItems, str(tmp_path / "small"))
    with pytest.raises(InputError, match=message) as refused:
        load_user_sequences(config)
    assert "\n" not in str(refused.value)


def test_files_that_are_split_beforehand(tmp_path):
    folder, header = tmp_path / "split", "user_id:token item_id:token item_id_list:token_seq"
    train = [("a", "y", "x"), ("b", "x", "z y"), ("a", "z", "x y"), ("b", "w", "y x"), ("c", "x", "x")]
    write_table(folder / "split.train.inter", header, train)
    write_table(folder / "split.valid.inter", header, [("a", "v", "x y z")])
    write_table(folder / "split.test.inter", header, [("a", "w", "x y z v"), ("d", "x", "y")])
    config = build_config(MeanOfItems, str(folder), {"benchmark_filename": ["train", "valid", "test"]})
    view = load_user_sequences(config)
    found = {
        str(user): [str(token) for token in view.corpus.item_tokens[view.corpus.history(row)]]
        for row, user in enumerate(view.corpus.user_tokens)
    }
    assert found == {"a": ["x", "y", "z"], "b": ["y", "x", "w"], "c": ["x", "x"]}
    assert view.held_out == 3
    assert view.corpus.n_items == 6


@pytest.mark.parametrize("parts", [["train"], ["train", "test"], ["train", "valid", "test", "more"]])
def test_of_files_that_are_split_beforehand_the_first_is_trained_on_and_all_others_are_held_out(tmp_path, parts):
    """However many there are; in it, an empty list is that of a user's first item, which is kept."""
    folder, header = tmp_path / "split", "user_id:token item_id:token item_id_list:token_seq"
    rows = {"train": [("a", "y", "x"), ("b", "z", "")]}
    for part in parts:
        write_table(folder / f"split.{part}.inter", header, rows.get(part, [("a", "z", "x y"), ("b", "x", "")]))
    view = load_user_sequences(build_config(MeanOfItems, str(folder), {"benchmark_filename": parts}))
    found = [[str(token) for token in view.corpus.item_tokens[view.corpus.history(row)]] for row in range(2)]
    assert found == [["x", "y"], ["z"]]
    assert (view.held_out, view.left_out) == (2 * (len(parts) - 1), 0)


def test_files_split_beforehand_without_histories_are_refused(tmp_path):
    folder = tmp_path / "split"
    write_table(folder / "split.train.inter", "user_id:token item_id:token timestamp:float", [("a", "x", 1)])
    with pytest.raises(InputError, match="benchmark_filename: expected a column 'item_id_list' in split"):
        build_config(MeanOfItems, str(folder), {"benchmark_filename": ["train"]})
