"""A corpus on disk: what it gives, how it comes about, killed and started again, and damaged."""

import json
import re
import signal

import numpy as np
import pyarrow as pa
import pytest
import torch
from core_only import run_python
from corpus_cases import FILES, contents, interactions
from pyarrow import parquet
from refusals import refusal_of

from adaptssr_plugin.corpus import (
    BatchLoader,
    CorpusOnDisk,
    is_corpus,
    on_disk,
    open_corpus,
    read_interactions,
    read_sequence_lines,
)
from adaptssr_plugin.corpus.formats import corpus_writer
from adaptssr_plugin.corpus.formats.atomic_converter import convert_interactions
from adaptssr_plugin.corpus.formats.converters import convert_lines, convert_parquet
from adaptssr_plugin.errors import InputError


def text_of(n_users=300, seed=0):
    """Lines of users with 1 to 29 items, of which some names are long."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 60, rng.integers(1, 30)).tolist() for _ in range(n_users)]
    return "".join(f"u{number} " + " ".join(f"i{item**5}" for item in row) + "\n" for number, row in enumerate(rows))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "users.txt"
    path.write_text(text_of())
    return path


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(corpus_writer, "PART", 500)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(corpus_writer, "_synchronise", lambda _: None)


@pytest.fixture
def folder(text, tmp_path):
    """A whole corpus."""
    convert_lines([text], tmp_path / "shop", corpus=True, show_progress=False)
    return tmp_path / "shop"


def assert_same(one, other):
    assert one.n_items == other.n_items
    for name in ("items", "offsets", "user_tokens", "item_tokens"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


# --- what it gives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [20, 500, 1 << 22])
def test_it_is_the_corpus_that_reading_the_lines_gives(text, tmp_path, monkeypatch, part):
    monkeypatch.setattr(corpus_writer, "PART", part)
    done = convert_lines([text], tmp_path / "shop", corpus=True, show_progress=False)
    corpus, expected = open_corpus(tmp_path / "shop"), read_sequence_lines(text)
    assert_same(corpus, expected)
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == FILES
    assert sorted(path.name for path in done.files) == FILES
    assert (done.users, done.items, done.behaviours) == (300, expected.n_items - 1, len(expected.items))


def test_batches_are_those_of_a_corpus_in_memory(folder, text):
    corpora = open_corpus(folder), read_sequence_lines(text)
    loaders = [BatchLoader(corpus, batch_size=32, max_len=10, seed=3) for corpus in corpora]
    for one, other in zip(*loaders, strict=True):
        assert torch.equal(one.item_seq, other.item_seq)
        assert torch.equal(one.item_seq_len, other.item_seq_len)
    rows = np.array([5, 250, 5])
    assert_same(corpora[0].select(rows), corpora[1].select(rows))
    assert corpora[0].history(7).tolist() == corpora[1].history(7).tolist()


def test_nothing_is_read_that_is_not_asked_for(folder):
    corpus = open_corpus(folder)
    assert isinstance(corpus, CorpusOnDisk)
    assert isinstance(corpus.items.base, np.memmap)
    assert isinstance(corpus.offsets.base, np.memmap)
    next(iter(BatchLoader(corpus, batch_size=32, max_len=10, seed=3)))
    assert str(folder) in repr(corpus)
    assert not {"user_tokens", "item_tokens"} & vars(corpus).keys()
    assert corpus.user_tokens is corpus.user_tokens
    with pytest.raises(ValueError, match="read-only"):
        corpus.items[0] = 1


def test_names_may_be_anything(tmp_path):
    users, items = ["a b", "tab\t", 'quo"te', "NaN", "line\n"], ["日本", "x" * 300, "None", '"', "0"]
    table = pa.table({"user_id": users, "item_id": [items[: 1 + row] for row in range(5)]})
    parquet.write_table(table, tmp_path / "x.parquet")
    convert_parquet([tmp_path / "x.parquet"], tmp_path / "odd", corpus=True, show_progress=False)
    corpus = open_corpus(tmp_path / "odd")
    assert corpus.user_tokens.tolist() == users
    assert corpus.item_tokens.tolist() == ["[PAD]", *items]
    assert [corpus.history(row).tolist() for row in (0, 4)] == [[1], [1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int64()),
        pa.large_list(pa.int32()),
        pa.list_(pa.string()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
        pa.list_(pa.int64(), 3),
    ],
    ids=str,
)
@pytest.mark.usefixtures("small_parts")
def test_lists_of_every_kind(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("adaptssr_plugin.corpus.formats.converters._BATCH", 40)
    rng = np.random.default_rng(0)
    sizes = np.full(250, 3) if pa.types.is_fixed_size_list(kind) else rng.integers(1, 9, 250)
    rows = [rng.integers(10, 99, size).tolist() for size in sizes]
    if "string" in str(kind):
        rows = [list(map(str, row)) for row in rows]
    # A dictionary that names more than occurs makes no item.
    table = pa.table({"user_id": range(250), "item_id": pa.array([["77"] * 200, *rows], kind)[1:] if "dict" in str(kind)
                      else pa.array(rows, kind)})  # fmt: skip
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=90)
    convert_parquet([tmp_path / "x.parquet"], tmp_path / "all", corpus=True, show_progress=False)
    corpus = open_corpus(tmp_path / "all")
    assert [corpus.item_tokens[corpus.history(row)].tolist() for row in range(250)] == [list(map(str, r)) for r in rows]
    assert corpus.n_items == 1 + len({item for row in rows for item in row})
    assert corpus.item_tokens[:2].tolist() == ["[PAD]", str(rows[0][0])]


# --- RecBole's files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [1, 37, 500, 1 << 22])
def test_an_unsorted_inter_file(tmp_path, monkeypatch, part):
    monkeypatch.setattr(corpus_writer, "PART", part)
    path = interactions(tmp_path / "source", n=min(3000, 40 * part))
    done = convert_interactions(path.parent, tmp_path / "all", show_progress=False)
    assert_same(open_corpus(tmp_path / "all"), read_interactions(path))
    assert (tmp_path / "all" / "all.user").read_text().splitlines()[:3] == [
        "user_id:token\tage:token",
        "u0\t1",
        "u1\t2",
    ]
    assert done.labelled == {"age": 80}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user_id:token\titem_id:token\nu\ti\n", ": expected a column timestamp, got user_id, item_id"),
        ("", ": expected a first line of name:type columns separated by"),
        ("user_id:token\titem_id:token\ttimestamp:float\n", None),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\nu\ti\n", ", line 3: expected 3 values separated by"),
        ("user_id:token\titem_id:token\ttimestamp:float\nu\ti\tlate\n", ", line 2: timestamp: expected a number, got"),
        (
            "user_id:token\titem_id:token\ttimestamp:float\nu\t[PAD]\t1\n",
            ", line 2: item_id: expected a token, got [PAD], the",
        ),
        (
            "user_id:token\titem_id:token\ttimestamp:float\n\t3\t1\n",
            ", line 2: user_id: expected a token, got an empty cell",
        ),
    ],
)
def test_odd_inter_files(tmp_path, text, said):
    path = tmp_path / "x.inter"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        convert_interactions(path, tmp_path / "all", show_progress=False)
    assert str(caught.value).startswith(f"{path}{said}" if said else "input: expected at least one user, got none")
    assert not (tmp_path / "all").exists()


PROFILES = "age group:token\tuser_id:token\tweight:float\n"


def test_labels_beside_an_inter_file(tmp_path):
    """The first line of a user counts."""
    path = interactions(tmp_path / "source")
    path.with_suffix(".user").write_text(f'{PROFILES}"old\tu1\tNA\nold\tu1\t1\n\tu2\t2.5\n')
    done = convert_interactions(path, tmp_path / "all", show_progress=False)
    expected = 'user_id:token\tage group:token\tweight:float\nu1\t"old\tNA\nu2\t\t2.5\n'
    assert (tmp_path / "all" / "all.user").read_text() == expected
    assert done.labelled == {"age group": 1, "weight": 1}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("[PAD]\tu1\t1\n", ", line 2: age group: expected a token, got [PAD], the name of the padding"),
        ("old\t\t1\n", ", line 2: user_id: expected a token, got an empty cell"),
        ("old\tu1\theavy\n", ", line 2: weight: expected a number, got 'heavy'"),
        ("old\tu1\n", ", line 2: expected 3 values separated by tabs, got 2"),
    ],
)
def test_odd_labels_beside_an_inter_file(tmp_path, row, said):
    path = interactions(tmp_path / "source").with_suffix(".user")
    path.write_text(PROFILES + row)
    with pytest.raises(InputError, match=f"^{re.escape(str(path) + said)}$"):
        convert_interactions(path.with_suffix(".inter"), tmp_path / "all", show_progress=False)


def test_a_folder_needs_a_single_inter_file(tmp_path):
    with pytest.raises(InputError, match=r"^input: expected a single \.inter file in .*, got none$"):
        convert_interactions(tmp_path, tmp_path / "all", show_progress=False)


# --- killed and started again ------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from adaptssr_plugin.corpus.formats import corpus_writer
from adaptssr_plugin.corpus.formats.atomic_converter import convert_interactions
from adaptssr_plugin.corpus.formats.converters import convert_lines
import pyarrow.parquet, tqdm  # once, and not in every child
corpus_writer.PART = 500
corpus_writer._synchronise = lambda path: None
kind, source, output, *moments = sys.argv[1:]
replace = Path.replace

def convert():
    if kind == "lines":
        convert_lines([source], output, corpus=True, show_progress=False)
    else:
        convert_interactions(source, output, show_progress=False)

def killed_at(name, times):
    def at(path, *arguments):
        global times
        if arguments:
            replace(path, *arguments)
        if name in (path.name, "move" if arguments else ""):
            times -= 1
        if times == 0:
            if not arguments:  # not even this one whole
                os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    corpus_writer._synchronise = Path.replace = at
    convert()

for moment in moments:
    name, _, times = moment.partition(":")
    times = int(times)
    child = os.fork()
    if child == 0:
        killed_at(name, times)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    parts = sorted(part for part in os.listdir(os.path.join(output, ".parts")) if part.isdigit())
    print(os.WTERMSIG(status), len(parts), os.path.exists(os.path.join(output, "corpus.json")))
convert()
"""
# In the first part, in later ones, in each of the files that the parts become, and between their moves.
MOMENTS = ["source.json:1", "items.npy:1", "names.json:2", "names.json:1", "items.npy:3", "items.npy.tmp:1"]
MOMENTS += ["offsets.npy.tmp:1", "user_tokens.parquet.tmp:1", "item_tokens.parquet.tmp:1", "corpus.json.tmp:1"]
MOMENTS += ["move:1", "move:2", "move:3", "move:4"]


@pytest.mark.parametrize("kind", ["lines", pytest.param("recbole", marks=pytest.mark.slow)])
def test_killed_over_and_over_it_ends_as_if_it_had_not_been(tmp_path, text, kind):
    source = text if kind == "lines" else interactions(tmp_path / "source").parent
    done = run_python("-c", KILLED, kind, source, tmp_path / "killed", *MOMENTS)
    assert done.returncode == 0, done.stderr
    signals, parts, corpora = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert signals == (str(int(signal.SIGKILL)),) * len(MOMENTS)
    assert corpora == ("False",) * len(MOMENTS)  # nothing half-written looks like a corpus
    assert list(map(int, parts)) == sorted(map(int, parts))  # none is lost
    assert parts[:5] == ("0", "0", "1", "1", "3")
    if kind == "lines":
        convert_lines([source], tmp_path / "whole", name="killed", corpus=True, show_progress=False)
    else:
        convert_interactions(source, tmp_path / "whole", name="killed", show_progress=False)
    assert_same(open_corpus(tmp_path / "killed"), open_corpus(tmp_path / "whole"))
    assert sorted(contents(tmp_path / "killed")) == sorted(contents(tmp_path / "whole"))
    assert contents(tmp_path / "killed").get("killed.user") == contents(tmp_path / "whole").get("killed.user")


class BrokenOffError(Exception):
    """What no one expects: a full disk, say."""


@pytest.fixture
def breaks_off(small_parts, monkeypatch):
    """Break a conversion off at its 200th user; gives the users that were read."""
    read, add = [], corpus_writer.CorpusWriter.add

    def counted(self, place, user, items):
        read.append(user)
        if len(read) == 200:
            raise BrokenOffError
        add(self, place, user, items)

    monkeypatch.setattr(corpus_writer.CorpusWriter, "add", counted)
    return read


def test_what_is_written_is_not_read_again(text, tmp_path, breaks_off):
    with pytest.raises(BrokenOffError):
        convert_lines([text], tmp_path / "shop", corpus=True, show_progress=False)
    assert not is_corpus(tmp_path / "shop")
    with pytest.raises(InputError, match=r"a conversion that was broken off; the same command goes on with it$"):
        open_corpus(tmp_path / "shop")
    convert_lines([text], tmp_path / "shop", corpus=True, show_progress=False)
    again = len(breaks_off) - 300
    assert 0 < again < 60  # of the part that was not whole
    assert_same(open_corpus(tmp_path / "shop"), read_sequence_lines(text))


@pytest.mark.usefixtures("small_parts")
def test_parts_of_another_source_are_not_taken_up(text, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(corpus_writer.CorpusWriter, "_write_files", lambda _: (_ for _ in ()).throw(BrokenOffError))
        with pytest.raises(BrokenOffError):
            convert_lines([text], tmp_path / "shop", corpus=True, show_progress=False)
    assert (tmp_path / "shop/.parts/000000").is_dir()
    text.write_text(text_of(seed=1))
    convert_lines([text], tmp_path / "shop", corpus=True, show_progress=False)
    assert_same(open_corpus(tmp_path / "shop"), read_sequence_lines(text))


@pytest.mark.usefixtures("breaks_off")
def test_the_same_user_twice_in_parts_written_before_and_after(tmp_path):
    path = tmp_path / "users.txt"
    path.write_text(text_of() + "u3 a b\n")
    with pytest.raises(BrokenOffError):
        convert_lines([path], tmp_path / "shop", corpus=True, show_progress=False)
    with pytest.raises(InputError, match=r"line 301: expected every user once, got 'u3' again$"):
        convert_lines([path], tmp_path / "shop", corpus=True, show_progress=False)
    assert list((tmp_path / "shop").iterdir()) == []


def test_overwriting(folder, tmp_path):
    before = contents(folder)
    other = tmp_path / "other.txt"
    other.write_text("x 1 2\n")
    with pytest.raises(InputError, match=r"corpus\.json is there already; --overwrite replaces it$"):
        convert_lines([other], folder, corpus=True, show_progress=False)
    assert contents(folder) == before
    convert_lines([other], folder, corpus=True, overwrite=True, show_progress=False)
    assert open_corpus(folder).user_tokens.tolist() == ["x"]


# --- damaged and foreign -----------------------------------------------------------------------------------


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 8
    path.write_bytes(data)


def resealed(folder, **numbers):
    """Make the manifest fit again, whatever the files hold now."""
    manifest = json.loads((folder / "corpus.json").read_text())
    known = {name: numbers.get(name, manifest[name]) for name in ("users", "n_items", "behaviours")}
    files = {name: folder / name for name in on_disk.FILES}
    (folder / "corpus.json").write_text(on_disk.make_manifest("shop", **known, files=files))


@pytest.mark.parametrize("name", on_disk.FILES)
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), flip, lambda path: path.write_bytes(b"x" * 99)])
def test_damaged_files(folder, name, damage):
    damage(folder / name)
    with pytest.raises(InputError) as caught:
        open_corpus(folder)
    assert str(caught.value) == f"corpus: {name} in {folder} is missing or damaged; convert it again with --overwrite"


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("items.npy", np.array([1, 2, 3], dtype=np.int32)),
        ("items.npy", np.zeros((2, 2), dtype=np.int32)),
        ("items.npy", None),
        ("offsets.npy", np.array([0, 3], dtype=np.int32)),
        ("offsets.npy", np.array([0.0, 3.0])),
    ],
)
def test_arrays_of_another_form(folder, name, array):
    if array is None:  # ids beyond the catalogue
        array = np.load(folder / name) + np.int32(1)
    np.save(folder / name, array)
    resealed(folder)
    with pytest.raises(InputError, match=f"^corpus: {name} in .* is missing or damaged"):
        open_corpus(folder)


@pytest.mark.parametrize("change", [(0, 1), (1, 0), (5, 10**9), (-1, 7)])
def test_offsets_of_another_form(folder, change):
    offsets = np.load(folder / "offsets.npy")
    offsets[change[0]] = change[1]
    np.save(folder / "offsets.npy", offsets)
    resealed(folder)
    with pytest.raises(InputError, match=r"^corpus: offsets\.npy in .* is missing or damaged"):
        open_corpus(folder)


@pytest.mark.parametrize("name", ["user_tokens.parquet", "item_tokens.parquet"])
def test_names_of_another_form(folder, name):
    parquet.write_table(pa.table({"user_id": ["a"], "item_id": ["b"]}), folder / name)
    resealed(folder)
    corpus = open_corpus(folder)
    with pytest.raises(InputError, match=f"^corpus: {name} in .* is missing or damaged"):
        getattr(corpus, name.removesuffix(".parquet"))


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("", "expected corpus.json of adaptssr convert --corpus in"),
        ("[]", "expected corpus.json of adaptssr convert --corpus in"),
        ('{"format": "x", "version": 1}', "expected corpus.json of adaptssr convert --corpus in"),
        ('{"format": "adaptssr corpus", "version": 1, "users": "1"}', "expected corpus.json of adaptssr convert"),
        ('{"format": "adaptssr corpus", "version": 2}', "expected files of version 1, got version 2 in"),
        pytest.param("[" * 100_000, "expected corpus.json of adaptssr convert --corpus in", id="deep"),
    ],
)
def test_manifests_of_another_form(folder, manifest, said):
    (folder / "corpus.json").write_text(manifest)
    assert refusal_of(open_corpus, folder).startswith(f"corpus: {said}")


def test_a_folder_that_is_no_corpus(tmp_path):
    assert not is_corpus(tmp_path)
    with pytest.raises(InputError, match=r"^corpus: expected corpus\.json of adaptssr convert --corpus in"):
        open_corpus(tmp_path)
