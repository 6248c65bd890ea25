from pathlib import Path

import numpy as np
import pytest
from recbole_cases import MeanOfItems, write_table
from refusals import refusal_of

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import build_config, load_user_sequences, profile_labels

AGES = (18, 25, 35, 45, 50, 56)
USERS = [
    ("a", "30", "F", "1.5", "x y"),
    ("nobody", "31", "D", "2", "x"),
    ("c", "", "M", "2", "x"),
    ("漢", "9", "É", "", "x"),
    ("d", "100", "", "-3", "x"),
    ("a", "99", "M", "9", "x"),
]


@pytest.fixture
def small(tmp_path):
    rows = [(user, f"i{n}", n) for user in ("d", "b", "a", "漢", "c") for n in range(3)]
    write_table(tmp_path / "small" / "small.inter", "user_id:token item_id:token timestamp:float", rows)
    header = "user_id:token age:token sex:token score:float tags:token_seq"
    write_table(tmp_path / "small" / "small.user", header, USERS)
    return build_config(MeanOfItems, str(tmp_path / "small"))


@pytest.fixture
def users(small):
    tokens = load_user_sequences(small).corpus.user_tokens
    assert tokens.tolist() == ["d", "b", "a", "漢", "c"]  # b is not in the .user file
    return tokens


@pytest.fixture(scope="module")
def example():
    config = build_config(MeanOfItems, "ml-100k")
    return config, load_user_sequences(config).corpus.user_tokens


def named(found, users):
    assert found.rows.dtype == found.labels.dtype == np.int64
    return {str(users[row]): found.classes[label] for row, label in zip(found.rows, found.labels, strict=True)}


@pytest.mark.parametrize(
    ("field", "bins", "n_classes", "largest"),
    [("gender", None, 2, 71.05), ("age", AGES, 7, 32.87), ("occupation", None, 21, 20.78)],
)
def test_the_example_that_comes_with_recbole(example, field, bins, n_classes, largest):
    found = profile_labels(*example, field, bins)
    assert found.rows.tolist() == list(range(943))
    counts = np.bincount(found.labels, minlength=len(found.classes))
    assert len(found.classes) == n_classes
    assert counts.min() > 0
    assert round(100 * counts.max() / 943, 2) == largest


def test_the_example_by_user(example):
    config, users = example[0], np.array(["2", "no such user", "1", "3"])
    found = profile_labels(config, users, "occupation")
    assert named(found, users) == {"2": "other", "1": "technician", "3": "writer"}
    assert found.rows.tolist() == [0, 2, 3]
    ages = profile_labels(config, users, "age", AGES)
    assert ages.classes == ("under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+")
    assert named(ages, users) == {"2": "50-55", "1": "18-24", "3": "18-24"}


def test_tokens_in_order_and_missing_labels_left_out(small, users):
    found = profile_labels(small, users, "sex")
    assert named(found, users) == {"a": "F", "c": "M", "漢": "É"}
    assert found.classes == ("F", "M", "É")
    assert found.rows.tolist() == [2, 3, 4]


def test_numbers_in_the_order_of_numbers(small, users):
    assert profile_labels(small, users, "age").classes == ("9", "30", "100")


@pytest.mark.parametrize(
    ("field", "bins", "classes", "expected"),
    [
        ("age", (10, 31), ("under 10", "10-30", "31+"), {"a": "10-30", "漢": "under 10", "d": "31+"}),
        ("age", [9, 10, 30], ("under 9", "9", "10-29", "30+"), {"a": "30+", "漢": "9", "d": "30+"}),
        ("age", (50,), ("under 50", "50+"), {"a": "under 50", "漢": "under 50", "d": "50+"}),
        ("score", (0, 2), ("under 0", "0 to under 2", "2+"), {"a": "0 to under 2", "c": "2+", "d": "under 0"}),
        ("age", (9.5, 30), ("under 9.5", "9.5 to under 30", "30+"), {"a": "30+", "漢": "under 9.5", "d": "30+"}),
    ],
)
def test_bins_make_classes_of_numbers(small, users, field, bins, classes, expected):
    found = profile_labels(small, users, field, bins)
    assert found.classes == classes
    assert named(found, users) == expected


@pytest.mark.parametrize(
    ("field", "bins", "message"),
    [
        ("gender", None, "field: expected a column of small.user (age, sex, score), got 'gender'"),
        ("user_id", None, "field: expected a column of small.user (age, sex, score), got 'user_id'"),
        ("tags", None, "field: expected a column of small.user (age, sex, score), got 'tags'"),
        ("score", None, "bins: needed to make classes of 'score'"),
        ("sex", (1, 2), "bins: expected 'sex' to hold numbers, got 'F'"),
        ("score", (1, 2), "bins: expected 'score' to hold numbers, got 'inf'"),
        ("age", (2, 1), "bins: expected ascending numbers, got (2, 1)"),
        ("age", (1, 1), "bins: expected ascending numbers, got (1, 1)"),
        ("age", (), "bins: expected ascending numbers, got ()"),
        ("age", (1, float("inf")), "bins: expected ascending numbers, got (1, inf)"),
    ],
)
def test_wrong_calls_are_named(small, users, field, bins, message):
    path = Path(small["data_path"], "small.user")
    path.write_text(path.read_text(encoding="utf-8").replace("1.5", "inf"), encoding="utf-8")
    assert refusal_of(profile_labels, small, users, field, bins).startswith(message)


def test_a_label_needs_two_classes(small):
    with pytest.raises(InputError, match="field: expected 'sex' to have two values or more, got only 'F'"):
        profile_labels(small, np.array(["a", "b"]), "sex")
    with pytest.raises(InputError, match="field: none of the 2 users has a value of 'sex'"):
        profile_labels(small, np.array(["b", "d"]), "sex")


def test_a_dataset_without_profiles(tmp_path):
    write_table(tmp_path / "bare" / "bare.inter", "user_id:token item_id:token timestamp:float", [("a", "x", 1)])
    config = build_config(MeanOfItems, str(tmp_path / "bare"))
    with pytest.raises(InputError, match=r"bare\.user: expected a readable file"):
        profile_labels(config, np.array(["a"]), "age")
