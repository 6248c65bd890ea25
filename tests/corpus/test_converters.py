"""Converters to RecBole's atomic files: what they write, and the one line that an odd file gets."""

from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from corpus_cases import named
from pyarrow import parquet
from refusals import refusal_of
from ttl_cases import AGE, ttl_files, write

from adaptssr_plugin.corpus import read_interactions
from adaptssr_plugin.corpus.formats.atomic import MISSING_NUMBERS
from adaptssr_plugin.corpus.formats.converters import convert_lines, convert_parquet
from adaptssr_plugin.corpus.formats.dataset_writer import DatasetWriter
from adaptssr_plugin.corpus.formats.ttl import convert_ttl
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole.compat.profiles import profile_labels
from adaptssr_plugin.recbole.compat.user_sequences import load_user_sequences
from adaptssr_plugin.recbole.user_model.pretrain import Source

WHOLE = {"eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "user"}}


def histories(folder):
    """Histories by user, as RecBole reads them."""
    return named(load_user_sequences(Source(str(folder), WHOLE).config()).corpus)


def labels(folder, field):
    """Labels by user, as fine-tuning reads them."""
    config = Source(str(folder), WHOLE).config()
    users = load_user_sequences(config).corpus.user_tokens
    found = profile_labels(config, users, field)
    return {str(users[row]): found.classes[label] for row, label in zip(found.rows, found.labels, strict=True)}


def user_table(folder):
    return [line.split("\t") for line in (folder / f"{folder.name}.user").read_text().splitlines()]


def quiet(convert):
    return lambda *words, **options: convert(*words, show_progress=False, **options)


lines, ttl, columns = map(quiet, (convert_lines, convert_ttl, convert_parquet))


# --- one line per user -------------------------------------------------------------------------------------


def test_lines(tmp_path):
    first = write(tmp_path, "\ufeffu7 b a b\r\n\r\nu2  c\ta\r\n")
    second = write(tmp_path, "ünal b 007", "more.txt")
    done = lines([first, str(second)], tmp_path / "new" / "shop")
    expected = {"u7": ["b", "a", "b"], "u2": ["c", "a"], "ünal": ["b", "007"]}
    assert histories(tmp_path / "new" / "shop") == expected
    assert (done.users, done.items, done.behaviours, done.labelled, done.notes) == (3, 4, 7, {}, ())
    assert done.files == (tmp_path / "new" / "shop" / "shop.inter",)
    assert [path.name for path in (tmp_path / "new" / "shop").iterdir()] == ["shop.inter"]
    times = [line.split("\t")[2] for line in done.files[0].read_text().splitlines()]
    assert times == ["timestamp:float", "0", "1", "2", "0", "1", "0", "1"]


def test_a_long_file_with_its_progress(tmp_path, capfd):
    text = "".join(f"u{user} " + " ".join(f"i{(user * place) % 97}" for place in range(1, 60)) + "\n"
                   for user in range(2000))  # fmt: skip
    path = write(tmp_path, text)
    done = convert_lines([path], tmp_path / "shop")
    assert (done.users, done.items, done.behaviours) == (2000, 97, 2000 * 59)
    assert read_interactions(done.files[0]).history(1999).tolist() != []
    assert capfd.readouterr().err == "convert: 100%, 0:00:00 to go\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("u a\nv\n", "line 2: expected a user and at least one item, got 'v' alone"),
        ("u a\n\nv b\nu c\nv d\n", "line 4: expected every user once, got 'u' again"),
        ("[PAD] a b\n", "line 1: expected a token, got [PAD], the name of the padding"),
        (f"u a\nv {'b' * 5000}\n", "line 2: expected a token of at most 4,096 characters, got 5,000"),
        ("u a\nv \0\n", "line 2: expected a name without tabs, ends of lines and NULs, got"),
        (b"u a\nv \xff\n", "line 2: expected UTF-8 text, got other bytes"),
    ],
)  # fmt: skip
def test_odd_lines(tmp_path, text, said):
    path = write(tmp_path, text)
    for corpus in kinds(said):
        assert refusal_of(lines, [path], tmp_path / "shop", corpus=corpus).startswith(f"{path}, {said}")
        assert not (tmp_path / "shop").exists()


def kinds(said):
    """What is written: RecBole's files; and a corpus, in which names may be anything."""
    return [False] if "expected a name without" in said else [False, True]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_nothing_to_convert(tmp_path, text):
    with pytest.raises(InputError, match=r"^input: expected at least one user, got none$"):
        lines([write(tmp_path, text)], tmp_path / "shop")
    assert not (tmp_path / "shop").exists()


def test_no_file(tmp_path):
    for inputs, said in (
        ([], "expected at least one file"),
        ([tmp_path / "x"], "expected a file, got"),
        ([tmp_path], "a folder"),
    ):
        with pytest.raises(InputError, match=said):
            lines(inputs, tmp_path / "shop")


def test_any_name_comes_back_as_it_was(tmp_path):
    """Also those that pandas takes for missing values or for the beginning of a quotation."""
    odd = [
        'a"b',
        '"open',
        "[MASK]",
        "0",
        "-1",
        "1e5",
        "007",
        "#",
        "'x'",
        "a,b",
        "漢字",
        *sorted(MISSING_NUMBERS - {""}),
    ]
    odd = [name for name in odd if " " not in name]
    path = write(tmp_path, "".join(f"{name} x {name} y\n" for name in odd))
    lines([path], tmp_path / "kept")
    assert histories(tmp_path / "kept") == {name: ["x", name, "y"] for name in odd}


# --- files in place, or nothing ----------------------------------------------------------------------------


def test_nothing_is_replaced_unasked(tmp_path):
    old, new = write(tmp_path, "u a b\n"), write(tmp_path, "v c d\n", "new.txt")
    lines([old], tmp_path / "shop")
    with pytest.raises(InputError, match=r"shop\.inter is there already; --overwrite replaces it$"):
        lines([new], tmp_path / "shop")
    assert histories(tmp_path / "shop") == {"u": ["a", "b"]}
    lines([new], tmp_path / "shop", name="other")
    assert len(list((tmp_path / "shop").iterdir())) == 2
    lines([new], tmp_path / "shop", overwrite=True)
    assert histories(tmp_path / "shop") == {"v": ["c", "d"]}


def test_a_failed_overwrite_leaves_everything_as_it_was(tmp_path):
    folder = tmp_path / "shop"
    ttl([write(tmp_path, "1,2,,7\n3,,8\n", "age.csv")], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"shop.inter", "shop.user"}
    with pytest.raises(InputError, match="line 2"):
        lines([write(tmp_path, "u a\nv\n")], folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    lines([write(tmp_path, "u a\n")], folder, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["shop.inter"], "labels of other users are gone"


def test_a_kill_between_the_moves_leaves_no_dataset(tmp_path, monkeypatch):
    """Rather than the labels of one and the behaviours of another."""
    folder = tmp_path / "shop"
    ttl([write(tmp_path, "1,2,,7\n3,,8\n", "age.csv")], folder)
    moves = []

    def replace(source, target):
        moves.append(Path(target).name)
        if len(moves) == 2:
            raise KeyboardInterrupt
        return original(source, target)

    original = Path.replace
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        ttl([write(tmp_path, "5,,1\n6,,2\n", "age.csv")], folder, overwrite=True)
    assert moves == ["shop.user", "shop.inter"]
    assert [path.name for path in folder.iterdir()] == ["shop.user"]


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    (tmp_path / "shop[1]").mkdir()
    left = write(tmp_path / "shop[1]", "user", ".shop[1].inter.123.tmp")
    lines([write(tmp_path, "u a\n")], tmp_path / "shop[1]")
    assert not left.exists()


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "..", "a\\b"])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(InputError, match=r"^name: expected the name of a dataset"):
        DatasetWriter(tmp_path, name)


def test_an_output_that_is_a_file(tmp_path):
    path = write(tmp_path, "u a\n")
    with pytest.raises(InputError, match=r"^output: expected a folder, got the file"):
        lines([path], path)


# --- TTL ---------------------------------------------------------------------------------------------------


def test_ttl(tmp_path):
    done = ttl(ttl_files(tmp_path), tmp_path / "ttl")
    expected = {"0": "10 11 12", "1": "10 11 12 13", "3": "10 11 12", "4": "7", "5": "9 8"}
    assert histories(tmp_path / "ttl") == {user: items.split() for user, items in expected.items()}
    assert user_table(tmp_path / "ttl") == [
        ["user_id:token", "age:token"],
        ["0", "1"],
        ["1", "3"],
        ["3", "2"],  # of equal sequences the second, as in the file of labels
        ["4", ""],
        ["5", "3"],
    ]
    targets = (tmp_path / "ttl" / "ttl.click.cold").read_text()
    assert targets == "user_id:token\ttarget_id:token\n1\t501\n1\t500\n4\t500\n"
    assert [path.name for path in done.files] == ["ttl.inter", "ttl.user", "ttl.click.cold"]
    assert labels(tmp_path / "ttl", "age") == {"0": "1", "1": "3", "3": "2", "5": "3"}
    assert done.labelled == {"age": 4, "click": 2}
    assert (done.users, done.items, done.behaviours, done.notes) == (5, 7, 13, ())


def test_ttl_in_the_form_of_peterrec_is_one_file(tmp_path):
    done = ttl([write(tmp_path, "0,5,6,,9\n0,0,5,,8\n0,5,6,,7\n", "coldrec1 fine.csv")], tmp_path / "cold")
    assert histories(tmp_path / "cold") == {"0": ["5", "6"], "1": ["5"], "2": ["5", "6"]}
    assert done.labelled == {"coldrec1_fine": 3}
    assert labels(tmp_path / "cold", "coldrec1_fine") == {"0": "9", "1": "8", "2": "7"}


def test_several_labels_in_a_line_are_targets(tmp_path):
    done = ttl(ttl_files(tmp_path, age="7,,1,2\n8,9,,3\n9,8,,3\n", click=None), tmp_path / "ttl", name="x")
    assert [path.name for path in done.files] == ["x.inter", "x.age.cold"]
    assert done.files[1].read_text().splitlines()[1:] == ["4\t1", "4\t2", "5\t3"]
    assert (done.labelled, len(done.notes)) == ({"age": 2}, 1)
    with pytest.raises(InputError, match=r"x\.inter is there already"):
        ttl(ttl_files(tmp_path), tmp_path / "ttl", name="x")
    done.files[0].unlink()
    with pytest.raises(InputError, match=r"x\.age\.cold is there already"):
        ttl(ttl_files(tmp_path, age="7,,1,2\n", click=None), tmp_path / "ttl", name="x")


def test_ttl_without_labels(tmp_path):
    done = ttl(ttl_files(tmp_path, age=None, click=None), tmp_path / "ttl")
    assert [path.suffix for path in done.files] == [".inter"]


def test_ttl_labels_of_no_sequence_are_counted(tmp_path):
    age = AGE + "1,1,,4\n0,0,0,10,11,12,,5\n"  # unknown, and one more of a sequence than there are
    done = ttl(ttl_files(tmp_path, age=age, click=None), tmp_path / "ttl")
    assert done.notes == (
        "age: 2 of 6 rows left out, for which no sequence is left in original_desen_pretrain.csv (the first in line 6)",
    )
    assert done.labelled == {"age": 4}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("age", "10,11,12,,1\n10,11,12,,\n", "line 2: expected a label behind ',,', got nothing"),
        ("age", "10,11,12,,1\n10,11,12\n", "line 2: expected a label behind ',,', got no ',,'"),
        ("age", "10,11,12,,x\n", "line 1: expected labels separated by commas, got 'x'"),
        ("age", "10,11,12,,1.0\n", "line 1: expected labels separated by commas, got '1.0'"),
        ("age", "10,11,12,,1,,2\n", "line 1: expected labels separated by commas, got ''"),
        ("age", "10,11,12,,12345678901234567890\n", "line 1: expected labels separated by commas, got '1234567890"),
        ("age", "0,0,,1\n", "line 1: expected at least one item, got nothing but padding"),
        ("age", ",,1\n", "line 1: expected item numbers separated by commas, got ''"),
        ("pretrain", "1,2\n\n0,x,3\n", "line 3: expected item numbers separated by commas, got 'x'"),
        ("pretrain", "1,2\n1 2\n", "line 2: expected item numbers separated by commas, got '1 2'"),
        ("pretrain", "1,2\n1,٣\n", "line 2: expected item numbers separated by commas, got '٣'"),
        ("pretrain", "1,2\n1,2,\n", "line 2: expected item numbers separated by commas, got ''"),
        ("pretrain", "1,-2\n", "line 1: expected item numbers of at least 0, got -2"),
        ("pretrain", "1,2\n0,0\n", "line 2: expected at least one item, got nothing but padding"),
        ("pretrain", "1,2\n3,4,,5\n", "line 2: expected no label, as in the first line, got '5'"),
        ("age", "1,1,,4\n", "expected labels of the sequences of"),
    ],
)
def test_odd_ttl_lines(tmp_path, name, text, said):
    paths = ttl_files(tmp_path, **{name: text})
    with pytest.raises(InputError) as caught:
        ttl(paths, tmp_path / "ttl")
    separator = ":" if said.startswith("expected") else ","
    assert str(caught.value).startswith(f"{tmp_path / f'original_desen_{name}.csv'}{separator} {said}")
    assert not (tmp_path / "ttl").exists()


def test_ttl_files_that_do_not_go_together(tmp_path):
    age, click, pretrain = ttl_files(tmp_path)
    with pytest.raises(InputError, match=r"^input: expected one file of sequences without labels .* got none$"):
        ttl([age, click], tmp_path / "ttl")
    with pytest.raises(InputError, match=r"^input: expected one file of sequences without labels .*x\.csv"):
        ttl([age, pretrain, write(tmp_path, "1\n", "x.csv")], tmp_path / "ttl")
    with pytest.raises(InputError, match=r"^input: expected one file for the column age, got"):
        ttl([age, pretrain, write(tmp_path, AGE, "age.csv")], tmp_path / "ttl")
    with pytest.raises(InputError, match=r"got an empty file$"):
        ttl([write(tmp_path, "\n", "x.csv")], tmp_path / "ttl")
    with pytest.raises(InputError, match=r"^label: expected the name of a column"):
        ttl([pretrain, write(tmp_path, AGE, "user_id.csv")], tmp_path / "ttl")


# --- Parquet -----------------------------------------------------------------------------------------------


def table(folder, name="data.parquet", **fields):
    path = folder / name
    parquet.write_table(pa.table(fields), path, row_group_size=3)
    return path


def test_parquet(tmp_path):
    path = table(
        tmp_path,
        who=pa.array([7, 8, 9, 10, 11]),
        what=pa.array([[3, 1], [2], [2, 2, 4], [1], [5, 1]], pa.large_list(pa.int32())),
        job=pa.array(["a", None, "b", "c", "a"]).dictionary_encode(),
        wage=pa.array([1.5, float("nan"), None, 2.0, 3.0]),
        paid=pa.array([True, False, True, None, True]),
    )
    options = {"user_column": "who", "items_column": "what", "label_columns": ["job", "wage", "paid"]}
    done = columns([path], tmp_path / "shop", **options)
    expected = {"7": "31", "8": "2", "9": "224", "10": "1", "11": "51"}
    assert histories(tmp_path / "shop") == {user: list(items) for user, items in expected.items()}
    assert user_table(tmp_path / "shop") == [
        ["user_id:token", "job:token", "wage:float", "paid:token"],
        ["7", "a", "1.5", "True"],
        ["8", "", "", "False"],
        ["9", "b", "", "True"],
        ["10", "c", "2.0", ""],
        ["11", "a", "3.0", "True"],
    ]
    assert done.labelled == {"job": 4, "wage": 3, "paid": 4}
    assert (done.users, done.items, done.behaviours) == (5, 5, 9)
    assert labels(tmp_path / "shop", "job") == {"7": "a", "9": "b", "10": "c", "11": "a"}


def test_several_parquet_files(tmp_path):
    paths = [table(tmp_path, f"{user}.parquet", user_id=[user], item_id=[["x", user]]) for user in "ab"]
    assert columns(paths, tmp_path / "shop").users == 2
    assert histories(tmp_path / "shop") == {"a": ["x", "a"], "b": ["x", "b"]}
    with pytest.raises(InputError, match=r"b\.parquet, row 1: expected every user once, got 'b' again$"):
        columns([*paths, paths[1]], tmp_path / "shop", overwrite=True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"user_id": ["u"], "other": [["a"]]}, "items_column: expected a column of"),
        ({"user_id": ["u"], "item_id": ["a"]}, "items_column: expected lists of integers or strings in 'item_id'"),
        ({"user_id": ["u"], "item_id": [[1.5]]}, "items_column: expected lists of integers or strings"),
        ({"user_id": [1.5], "item_id": [["a"]]}, "user_column: expected integers or strings in 'user_id'"),
        ({"user_id": ["u", None], "item_id": [["a"], ["b"]]}, "row 2: expected a user and a list of items, got null"),
        ({"user_id": ["u", "v"], "item_id": [["a"], None]}, "row 2: expected a user and a list of items, got null"),
        ({"user_id": ["u", "v"], "item_id": [["a"], ["b", None]]}, "row 2: expected a user and a list of items, got"),
        (
            {"user_id": ["u", "v"], "item_id": [["a"], []]},
            "row 2: expected a user and at least one item, got 'v' alone",
        ),
        ({"user_id": ["u", "v"], "item_id": [["a"], ["b\tc"]]}, "row 2: expected a name without tabs"),
        ({"user_id": ["u", "v"], "item_id": [["a"], ["b\n"]]}, "row 2: expected a name without tabs"),
        ({"user_id": ["u", ""], "item_id": [["a"], ["b"]]}, "row 2: expected a token, got an empty cell"),
        ({"user_id": ["u", "v"], "item_id": [["a", None], ["b"]]}, "row 1: expected a user and a list of items, got"),
        ({"user_id": ["u", "v", "u"], "item_id": [["a"]] * 3}, "row 3: expected every user once, got 'u' again"),
    ],
)
def test_odd_parquet(tmp_path, fields, said):
    for corpus in kinds(said):
        with pytest.raises(InputError, match="^(?:[^ ]*, )?" + said.replace("(", r"\(")):
            columns([table(tmp_path, **fields)], tmp_path / "shop", corpus=corpus)
        assert not (tmp_path / "shop").exists()


def test_parquet_labels_that_are_none(tmp_path):
    path = table(tmp_path, user_id=["u"], item_id=[["a"]], when=[datetime(2000, 1, 1, tzinfo=timezone.utc)])
    with pytest.raises(InputError, match=r"^label_column: expected numbers or strings in 'when'"):
        columns([path], tmp_path / "shop", label_columns=["when"])
    with pytest.raises(InputError, match=r"^label_column: expected a column of .* got 'age'$"):
        columns([path], tmp_path / "shop", label_columns=["age"])


@pytest.mark.parametrize("cut", [0, 40, -10])
def test_files_that_are_no_parquet(tmp_path, cut):
    path = table(tmp_path, user_id=["u"] * 50, item_id=[["a"] * 9] * 50)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"expected a Parquet file, got something else"):
        columns([path], tmp_path / "shop")


def test_a_damaged_page_of_a_parquet_file(tmp_path):
    path = table(tmp_path, user_id=[f"u{n}" for n in range(9)], item_id=[["a", f"b{n}"] for n in range(9)])
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read after row 0"):
        columns([path], tmp_path / "shop")
    assert not (tmp_path / "shop").exists()
