"""Readers of text files: numbering, order, names, and what is said about odd files."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from corpus_cases import named
from refusals import refusal_of
from ttl_cases import write

from adaptssr_plugin.corpus import read_interactions, read_sequence_lines
from adaptssr_plugin.errors import InputError

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def test_sequence_lines(tmp_path):
    corpus = read_sequence_lines(write(tmp_path, "u7 b a b\n\nu2  c\ta \nünal b"))
    assert named(corpus) == {"u7": ["b", "a", "b"], "u2": ["c", "a"], "ünal": ["b"]}
    assert corpus.item_tokens.tolist() == ["[PAD]", "b", "a", "c"]
    assert corpus.items.tolist() == [1, 2, 1, 3, 2, 1]
    assert corpus.n_items == 4


def test_sequence_lines_of_another_system(tmp_path):
    corpus = read_sequence_lines(str(write(tmp_path, "\ufeff1 5 6\r\n2 6\r\n")))
    assert named(corpus) == {"1": ["5", "6"], "2": ["6"]}


def test_interactions_are_sorted_by_user_then_time_then_file_order(tmp_path):
    rows = [("u", "d", 9), ("v", "a", 5), ("u", "b", 2), ("u", "c", 9), ("v", "d", 4.5), ("u", "a", 9), ("u", "b", 1e9)]
    text = HEADER + "".join(f"{user}\t{item}\t3\t{time}\n" for user, item, time in rows)
    corpus = read_interactions(write(tmp_path, text))
    assert named(corpus) == {"u": ["b", "d", "c", "a", "b"], "v": ["d", "a"]}
    assert corpus.item_tokens.tolist() == ["[PAD]", "d", "a", "b", "c"]


def test_interactions_with_other_columns_and_no_time(tmp_path):
    text = "who:token\twhat:token\nv\tx\nu\ty\nv\ty\n\nv\tx"
    corpus = read_interactions(write(tmp_path, text), user_field="who", item_field="what", time_field=None)
    assert named(corpus) == {"v": ["x", "y", "x"], "u": ["y"]}


def test_tokens_may_hold_blanks_in_an_atomic_file(tmp_path):
    corpus = read_interactions(write(tmp_path, HEADER + "a b\tgreen tea\t1\t1\n"))
    assert named(corpus) == {"a b": ["green tea"]}


def test_ml_100k_of_the_recbole_wheel():
    package = importlib.util.find_spec("recbole")
    assert package is not None, "the dev extra installs recbole"
    path = Path(package.origin).parent / "dataset_example" / "ml-100k" / "ml-100k.inter"
    corpus = read_interactions(path)
    assert (len(corpus), corpus.n_items, corpus.items.size) == (943, 1683, 100_000)
    assert corpus.lengths.min() == 20
    # One user, by another route: sorted tuples of the raw file.
    lines = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    mine = sorted((float(time), place) for place, (user, _, _, time) in enumerate(lines) if user == "196")
    expected = [lines[place][1] for _, place in mine]
    assert named(corpus)["196"] == expected
    assert corpus.user_tokens[0] == lines[0][0]


def test_interactions_agree_with_sequence_lines(tmp_path):
    rng = np.random.default_rng(0)
    histories = [[f"i{item}" for item in rng.integers(0, 40, rng.integers(1, 20))] for _ in range(50)]
    lines = "".join(f"u{row} {' '.join(history)}\n" for row, history in enumerate(histories))
    rows = [(f"u{row}", item, time) for row, history in enumerate(histories) for time, item in enumerate(history)]
    by_line = read_sequence_lines(write(tmp_path, lines, "lines"))
    shuffled = "".join(
        f"{user}\t{item}\t0\t{time}\n" for user, item, time in (rows[i] for i in rng.permutation(len(rows)))
    )
    by_row = read_interactions(write(tmp_path, HEADER + shuffled, "rows"))
    assert named(by_row) == named(by_line)


LINES, ROWS = read_sequence_lines, read_interactions


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (LINES, "", "{path}: expected one line per user, got an empty file"),
        (LINES, "\n \n", "{path}: expected one line per user, got an empty file"),
        (LINES, "1 2\n7\n", "{path}, line 2: expected a user and at least one item, got '7' alone"),
        (LINES, "1 2\n3 4\n1 5\n", "{path}, line 3: expected one line per user, got '1' again"),
        (LINES, "1 [PAD]\n", "{path}, line 1: expected a token, got [PAD], the name of the padding"),
        (
            LINES,
            b"1 2\n\xff\xfe 3\n",
            "{path}: expected UTF-8 text, got other bytes (invalid start byte)",
        ),
        (
            ROWS,
            "",
            "{path}: expected a first line of name:type columns separated by '\\t' "
            "(types token, float, token_seq, float_seq), got an empty one",
        ),
        (ROWS, HEADER, "{path}: expected at least one interaction, got none below the header"),
        (ROWS, "uid:token\titem_id:token\n", "{path}: expected a column user_id, got uid, item_id"),
        (ROWS, "user_id:token\titem_id:token\nu\ta\n", "{path}: expected a column timestamp, got user_id, item_id"),
        (ROWS, HEADER + "u\ta\t1\t1\nu\ta\t1\n", "{path}, line 3: expected 4 values separated by tabs, got 3"),
        (ROWS, HEADER + "u\ta\t1\tnoon\n", "{path}, line 2: timestamp: expected a number, got 'noon'"),
        (ROWS, HEADER + "u\ta\t1\tnan\n", "{path}, line 2: timestamp: expected a number, got 'nan'"),
        (ROWS, HEADER + "u\t\t1\t1\n", "{path}, line 2: item_id: expected a token, got an empty cell"),
    ],
)
def test_odd_files_get_one_line(tmp_path, reader, text, message):
    path = write(tmp_path, text)
    assert refusal_of(reader, path) == message.format(path=path)


@pytest.mark.parametrize("reader", [LINES, ROWS])
def test_a_missing_file_and_a_folder(tmp_path, reader):
    with pytest.raises(InputError, match="expected a readable file, got No such file or directory"):
        reader(tmp_path / "nothing")
    with pytest.raises(InputError, match="expected a readable file, got Is a directory"):
        reader(tmp_path)
