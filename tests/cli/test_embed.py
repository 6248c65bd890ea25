"""``adaptssr embed`` and ``export``: vectors of any users, under the names that they came with."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from command_cases import invoke
from pyarrow import parquet
from refusals import refusal_of
from training_cases import TRAINING, encoder_of, write_profiled_dataset

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.corpus import known_histories
from adaptssr_plugin.corpus.formats.vector_file import VectorWriter
from adaptssr_plugin.corpus.known_histories import known_corpus, known_lines, known_parquet
from adaptssr_plugin.encoders import EncoderKind, register_encoder, unregister_encoder
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.recbole.compat.user_sequences import load_user_sequences
from adaptssr_plugin.recbole.user_model.finetune import whole_histories
from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain
from adaptssr_plugin.training import save_artefact
from adaptssr_plugin.training.serving import embed_users, load_user_model

SIZES = {"n_items": 7, "dim": 8, "n_layers": 2, "n_heads": 2, "max_len": 4, "ff_dim": 16}
TOKENS = np.array(["[PAD]", "1", "2", "3", "ä", "漢字", "10"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model that knows six items."""
    folder = tmp_path_factory.mktemp("model")
    save_artefact(folder, encoder_of(UserEncoder, **SIZES), SIZES, {"recipe": {}}, TOKENS)
    return folder


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run a command in a folder of its own; what the user got wrong comes as it is raised."""
    monkeypatch.chdir(tmp_path)
    return invoke


def vectors_in(path, column="user_id"):
    """The names and the vectors of a file."""
    table = parquet.read_table(path)
    assert table.column_names == [column, "vector"]
    vectors = table["vector"].combine_chunks()
    assert pa.types.is_fixed_size_list(vectors.type)
    return table[column].to_pylist(), vectors.flatten().to_numpy().reshape(len(table), -1)


def encoded(folder, *histories):
    """What the model in a folder makes of lists of ids, one by one."""
    encoder = load_user_model(folder).encoder
    with torch.no_grad():
        return np.stack([encoder(torch.tensor([ids]), torch.tensor([len(ids)]))[0].numpy() for ids in histories])


# What a new user has, and what the model can read of it: the newest four of the items that it knows.
NEW = {
    "u": ["1", "2", "3"],
    "nobody": ["7", "[PAD]"],
    "v": ["漢字"],
    "long": ["10", "3", "new", "2", "1", "ä", "7"],
}
KNOWN = {"u": [1, 2, 3], "v": [5], "long": [3, 2, 1, 4]}
REPORT = [
    "note: 4 of 13 behaviours left out, of items unknown to the model",
    "note: 1 of 4 users left out, without a known item",
]


def write_lines(path):
    path.write_text("\n\n".join(" ".join([user, *items]) for user, items in NEW.items()), encoding="utf-8")


def write_parquet(path):
    parquet.write_table(pa.table({"user_id": [*NEW], "item_id": [*NEW.values()]}), path)


@pytest.mark.parametrize("write", [write_lines, write_parquet])
@pytest.mark.parametrize("chunk", [1, 2, 8192])
def test_new_users_from_a_file(model, call, tmp_path, monkeypatch, write, chunk):
    monkeypatch.setattr(known_histories, "_CHUNK", chunk)
    name = "new.txt" if write is write_lines else "new.parquet"
    write(tmp_path / name)
    done = call("embed", model, "--input", name, "--output", "out/users.parquet", "--device", "cpu")
    users, vectors = vectors_in("out/users.parquet")
    assert users == [*KNOWN]
    np.testing.assert_allclose(vectors, encoded(model, *KNOWN.values()), atol=1e-6)
    head, *rest = done.stdout.splitlines()
    assert head.startswith("3 users, vectors of 8 numbers, in ")
    assert rest == [*REPORT, "Files:", "  out/users.parquet"]
    assert "100%" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["users.parquet"]


def test_a_clean_file_has_nothing_to_note(model, call, tmp_path):
    (tmp_path / "new.txt").write_text("u 1 2\nv 3")
    done = call("embed", model, "--input", "new.txt", "--output", "users.parquet", "--quiet")
    assert done.stdout.splitlines()[1:] == ["Files:", "  users.parquet"]
    assert done.stderr == ""


LISTS = [[1, 2, 99], None, [], [3, None]]


@pytest.mark.parametrize(
    ("users", "items"),
    [
        (pa.array([7, 8, 9, 10]), pa.array(LISTS)),
        (pa.array(["7", "8", "9", "10"]).dictionary_encode(), pa.array(LISTS, pa.large_list(pa.int16()))),
        (
            pa.array(["7", "8", "9", "10"], pa.large_string()),
            pa.array(LISTS).cast(pa.list_(pa.string())),
        ),
    ],
    ids=["integers", "dictionary and large lists", "large strings"],
)
def test_parquet_of_any_type_keeps_that_of_its_users(model, call, tmp_path, users, items):
    parquet.write_table(pa.table({"who": users, "what": items}), "new.parquet")
    words = ("--input", "new.parquet", "--user-column", "who", "--items-column", "what", "--quiet")
    done = call("embed", model, *words, "--output", "users.parquet")
    names, vectors = vectors_in("users.parquet")
    assert names == [users[0].as_py(), users[3].as_py()]
    plain = users.type.value_type if pa.types.is_dictionary(users.type) else users.type
    assert parquet.read_schema("users.parquet").field("user_id").type == plain
    np.testing.assert_allclose(vectors, encoded(model, [1, 2], [3]), atol=1e-6)
    assert done.stdout.splitlines()[1:3] == [
        "note: 2 of 5 behaviours left out, of items unknown to the model",
        "note: 2 of 4 users left out, without a known item",
    ]


@pytest.mark.skipif(int(pa.__version__.split(".")[0]) < 26, reason="pyarrow before 26 cannot read such a list of null")
def test_lists_of_one_size(model, tmp_path):
    lists = pa.array([[1, 2], None, [3, 99]], pa.list_(pa.int64(), 2))
    parquet.write_table(pa.table({"user_id": [1, 2, 3], "item_id": lists}), tmp_path / "new.parquet")
    (chunk,) = known_parquet([tmp_path / "new.parquet"], TOKENS, show_progress=False)
    assert chunk.users.to_pylist() == [1, 3]
    assert [chunk.corpus.history(row).tolist() for row in range(2)] == [[1, 2], [3]]
    assert (chunk.behaviours, chunk.unknown, chunk.skipped) == (4, 1, 1)


def test_lists_of_a_dictionary_in_several_row_groups(tmp_path):
    """As pandas and polars write categories; pyarrow does not join such lists across groups."""
    lists = pa.array([[1, 2], [3, 99], [2]]).cast(pa.list_(pa.string()))
    coded = pa.ListArray.from_arrays(lists.offsets, lists.values.dictionary_encode())
    parquet.write_table(pa.table({"user_id": [1, 2, 3], "item_id": coded}), tmp_path / "new.parquet", row_group_size=2)
    chunks = list(known_parquet([tmp_path / "new.parquet"], TOKENS, show_progress=False))
    assert [user for chunk in chunks for user in chunk.users.to_pylist()] == [1, 2, 3]
    assert [row.tolist() for chunk in chunks for row in map(chunk.corpus.history, range(len(chunk.corpus)))] == [
        [1, 2],
        [3],
        [2],
    ]


def test_the_vectors_do_not_depend_on_the_batches(model, tmp_path):
    random = np.random.default_rng(0)
    lines = [f"u{row} " + " ".join(map(str, random.integers(1, 4, random.integers(1, 7)))) for row in range(150)]
    (tmp_path / "new.txt").write_text("\n".join(lines))
    files = []
    for batch_size in (1, 7, 512):
        files.append(tmp_path / f"{batch_size}.parquet")
        chunks = known_lines([tmp_path / "new.txt"], TOKENS, show_progress=False)
        assert embed_users(load_user_model(model), chunks, files[-1], batch_size).rows == 150
    (names, first), *others = map(vectors_in, files)
    for other, vectors in others:
        assert other == names
        np.testing.assert_allclose(vectors, first, atol=1e-6)


def test_one_chunk_is_in_memory_at_a_time(model, tmp_path, monkeypatch):
    """Every chunk is in the file before the next one is read, and the file comes into its place at the end."""
    (tmp_path / "new.txt").write_text("\n".join(f"u{row} 1 2" for row in range(10)))
    monkeypatch.setattr(known_histories, "_CHUNK", 4)
    written = []
    write = VectorWriter.write

    def note(self, names, vectors):
        write(self, names, vectors)
        written.append(len(names))

    monkeypatch.setattr(VectorWriter, "write", note)

    def chunks():
        for number, chunk in enumerate(known_lines([tmp_path / "new.txt"], TOKENS, show_progress=False)):
            assert len(written) == number
            assert not (tmp_path / "users.parquet").exists()
            yield chunk

    embed_users(load_user_model(model), chunks(), tmp_path / "users.parquet")
    assert written == [4, 4, 2]
    assert parquet.ParquetFile(tmp_path / "users.parquet").num_row_groups == 3


def test_what_goes_wrong_half_way_leaves_the_old_file(model, tmp_path):
    (tmp_path / "users.parquet").write_text("old")

    def chunks():
        (tmp_path / "new.txt").write_text("u 1 2")
        yield from known_lines([tmp_path / "new.txt"], TOKENS, show_progress=False)
        raise OSError("a full disk")

    with pytest.raises(OSError, match="a full disk"):
        embed_users(load_user_model(model), chunks(), tmp_path / "users.parquet")
    assert (tmp_path / "users.parquet").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.txt", "users.parquet"]


def test_items(model, call, tmp_path):
    (tmp_path / "new.txt").write_text("u 1")
    done = call("embed", model, "--input", "new.txt", "--output", "users.parquet", "--items", "items.parquet")
    names, vectors = vectors_in("items.parquet", "item_id")
    assert names == TOKENS[1:].tolist()
    assert np.array_equal(vectors, load_user_model(model).encoder.item_weight[1:].numpy())
    assert done.stdout.splitlines()[-2:] == ["  users.parquet", "  items.parquet"]


# --- RecBole's datasets ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished pre-training on a small dataset, its folder and the dataset."""
    small = write_profiled_dataset(tmp_path_factory.mktemp("data") / "small")
    source = Source(str(small), {"use_gpu": False})
    folder = tmp_path_factory.mktemp("model") / "run"
    pretrain(source, recipe("adaptssr", "paper", TRAINING), folder, False)
    return folder, source


def test_the_users_of_the_pre_training(run, call):
    folder, source = run
    corpus = load_user_sequences(source.config(10)).corpus
    done = call("embed", folder, "--output", "users.parquet")
    assert "note" not in done.stdout
    names, vectors = vectors_in("users.parquet")
    assert names == corpus.user_tokens.tolist()
    histories = [corpus.history(row)[-10:].tolist() for row in range(len(corpus))]
    np.testing.assert_allclose(vectors, encoded(folder, *histories), atol=1e-6)


def test_all_that_they_did(run, call):
    folder, source = run
    assert call("embed", folder, "--output", "users.parquet", "--whole", "--quiet").exit_code == 0
    corpus = whole_histories(source.config(10))
    numbers = {token: number for number, token in enumerate(load_user_model(folder).artefact.item_tokens)}
    histories = [[numbers[token] for token in corpus.item_tokens[corpus.history(row)[-10:]]] for row in range(24)]
    names, vectors = vectors_in("users.parquet")
    assert names == corpus.user_tokens.tolist()
    np.testing.assert_allclose(vectors, encoded(folder, *histories), atol=1e-6)


def test_another_dataset_numbers_its_items_otherwise(run, call, tmp_path):
    other = write_profiled_dataset(tmp_path / "other", n_items=15, seed=8)
    done = call("embed", run[0], "--dataset", other, "--set", "use_gpu=False", "--output", "users.parquet", "--quiet")
    tokens = load_user_model(run[0]).artefact.item_tokens
    corpus = load_user_sequences(Source(str(other), {"use_gpu": False}).config(10)).corpus
    (chunk,) = known_corpus(corpus, tokens, show_progress=False)
    first = [token for token in corpus.item_tokens[corpus.history(0)] if token in tokens]
    assert tokens[chunk.corpus.history(0)].tolist() == first
    assert 0 < chunk.unknown < chunk.behaviours == len(corpus.items)
    assert f"note: {chunk.unknown} of {chunk.behaviours} behaviours left out" in done.stdout
    assert vectors_in("users.parquet")[0] == chunk.users.to_pylist()


def test_the_users_of_a_dataset_that_has_moved(run, call, tmp_path):
    folder, source = run
    assert call("embed", folder, "--output", "users.parquet", "--quiet").exit_code == 0
    shutil.copytree(folder, tmp_path / "model")
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    for options, besides in (({"use_gpu": False}, ", with its --set and --recbole-config"), ({}, "")):
        moved = {**card, "dataset": str(tmp_path / "gone"), "recbole_options": options}
        (tmp_path / "model" / "model.json").write_text(json.dumps(moved), encoding="utf-8")
        assert refusal_of(call, "embed", "model", "--output", "moved.parquet", "--quiet") == (
            "dataset: expected ml-100k, a folder under data_path ('dataset/') or the path of a folder that holds an "
            f".inter file, got '{tmp_path}/gone'; the model in model was trained on it, and --dataset says where it is "
            f"now{besides}"
        )
    words = ("--dataset", source.dataset, "--set", "use_gpu=False", "--output", "moved.parquet", "--quiet")
    assert call("embed", "model", *words).exit_code == 0
    assert parquet.read_table("moved.parquet").equals(parquet.read_table("users.parquet"))


def test_options_given_here_go_before_those_of_the_pre_training(run, call, tmp_path):
    folder, _ = run
    words = ("embed", folder, "--output", "users.parquet", "--quiet")
    (tmp_path / "few.yaml").write_text("user_inter_num_interval: '[8,inf)'\nuse_gpu: false\n")
    assert call(*words, "--recbole-config", "few.yaml").exit_code == 0
    few = vectors_in("users.parquet")[0]
    assert call(*words, "--recbole-config", "few.yaml", "--set", "user_inter_num_interval=[0,inf)").exit_code == 0
    assert 0 < len(few) < len(vectors_in("users.parquet")[0]) == 24


def test_a_corpus_on_disk(run, call, tmp_path):
    (tmp_path / "new.txt").write_text("zoe i3 i1\nann i2 what\nbob what\n")
    assert call("convert", "lines", "new.txt", "--output", "mapped", "--corpus", "--quiet").exit_code == 0
    words = ("--dataset", "mapped", "--set", "use_gpu=False", "--output", "users.parquet", "--quiet")
    done = call("embed", run[0], *words)
    names, vectors = vectors_in("users.parquet")
    numbers = {token: number for number, token in enumerate(load_user_model(run[0]).artefact.item_tokens)}
    assert names == ["zoe", "ann"]
    expected = encoded(run[0], [numbers["i3"], numbers["i1"]], [numbers["i2"]])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert "note: 1 of 3 users left out" in done.stdout


# --- other programs --------------------------------------------------------------------------------------------------

READER = """
import json, sys
from pyarrow import parquet
from safetensors.torch import load_file

items, users = (parquet.read_table(path) for path in sys.argv[1:3])
table = load_file(sys.argv[3] + "/model.safetensors")["items.weight"]
vectors = [row for row in items["vector"].to_pylist()]
assert not [name for name in sys.modules if name.startswith(("adaptssr", "recbole"))]
print(json.dumps([items["item_id"].to_pylist(), vectors == table[1:].tolist(), users["user_id"].to_pylist(),
                  users.schema.metadata[b"dataset"].decode()]))
"""


def test_a_fresh_process_reads_the_files_without_this_package(run, call, tmp_path):
    folder, _ = run
    call("embed", folder, "--output", "users.parquet", "--items", "items.parquet", "--quiet")
    command = [sys.executable, "-I", "-c", READER, "items.parquet", "users.parquet", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    model = load_user_model(folder)
    names, _ = vectors_in("users.parquet")
    assert json.loads(done.stdout) == [
        model.artefact.item_tokens[1:].tolist(), True, names, model.artefact.card["dataset"],
    ]  # fmt: skip


def test_export(model, call):
    done = call("export", model, "--output", "encoder.pt2")
    assert done.stdout == "Files:\n  encoder.pt2\n"
    graph = torch.export.load("encoder.pt2").module()
    vector = graph(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    np.testing.assert_allclose(vector.numpy(), encoded(model, [1, 2, 3]), atol=1e-5)


# --- wrong calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input", "a.txt", "--dataset", "ml-100k"], "--dataset: expected without --input, got both"),
        (["--input", "a.parquet", "--input", "b.txt"], "--input: expected files of one kind, got a.parquet beside"),
        (["--input", "a.txt", "--input", "b.inter"],
         "--input: expected Parquet or one line per user, got b.inter; --dataset takes its folder"),
        (["--input", "a.txt", "--whole"], "--whole: expected with a dataset alone, got it with other input"),
        (["--input", "a.txt", "--set", "a=b"], "--set: expected with a dataset alone, got it with other input"),
        (["--user-column", "who"], "--user-column: expected with Parquet alone, got it with other input"),
        (["--input", "absent.txt"], "input: expected a file, got absent.txt, which does not exist"),
        (["--input", "none.txt"], "input: expected a user with an item that the model knows, got 2 users with none "
                                  "(2 behaviours of unknown items)"),
        (["--input", "empty.txt"], "input: expected a user with an item that the model knows, got 0 users with none "
                                   "(0 behaviours of unknown items)"),
        (["--input", "good.txt", "--items", "out.parquet"],
         "--items: expected another file than --output, got out.parquet for both"),
        (["--input", "x.parquet"], "user_column: expected a column of x.parquet (who, what, n), got 'user_id'"),
        (["--input", "x.parquet", "--user-column", "who", "--items-column", "n"],
         "items_column: expected lists of integers or strings in 'n' of x.parquet, got int64"),
        (["--input", "x.parquet", "--user-column", "who", "--items-column", "what"],
         "x.parquet: expected a user in every row, got null after row 0"),
        (["--input", "good.txt", "--device", "abacus"], "device: expected one that torch has here, got 'abacus'"),
        ([], "--dataset: expected one, or --input, since "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_calls(model, call, tmp_path, words, said):
    (tmp_path / "none.txt").write_text("u 77\nv 88\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "good.txt").write_text("u 1\n")
    parquet.write_table(pa.table({"who": ["a", None], "what": [["1"], ["2"]], "n": [1, 2]}), "x.parquet")
    assert refusal_of(call, "embed", model, *words, "--output", "out.parquet", "--quiet").startswith(said)
    assert not (tmp_path / "out.parquet").exists()


def test_users_of_two_types(model, call):
    for name, users in (("a.parquet", [1]), ("b.parquet", ["x"])):
        parquet.write_table(pa.table({"user_id": users, "item_id": [["1"]]}), name)
    with pytest.raises(InputError, match=r"^user_id: expected int64 as before, got string$"):
        call("embed", model, "--input", "a.parquet", "--input", "b.parquet", "--output", "out.parquet", "--quiet")


def test_a_folder_as_output(model, call, tmp_path):
    (tmp_path / "new.txt").write_text("u 1")
    with pytest.raises(InputError, match=r"^output: expected a file, got the folder \.$"):
        call("embed", model, "--input", "new.txt", "--output", ".", "--quiet")


class Mean(torch.nn.Module):
    """An encoder of the user's own, without ``item_weight``."""

    out_dim = 2

    def __init__(self, n_items, max_len, dropout):
        super().__init__()
        self.items = torch.nn.Embedding(n_items, 2)

    def forward(self, item_seq, item_seq_len):
        return self.items(item_seq).sum(1) / item_seq_len[:, None]


def test_items_of_an_encoder_that_has_none(call, tmp_path):
    register_encoder("mean", EncoderKind(Mean, ("max_len",)))
    try:
        sizes = {"kind": "mean", "n_items": 7, "max_len": 4}
        save_artefact(tmp_path / "model", Mean(7, 4, 0.1), sizes, {}, TOKENS)
        (tmp_path / "new.txt").write_text("u 1 1")
        words = ("embed", "model", "--input", "new.txt", "--output", "users.parquet", "--quiet")
        assert call(*words).exit_code == 0
        assert vectors_in("users.parquet")[1].shape == (1, 2)
        with pytest.raises(InputError, match=r"^model: expected an encoder with item_weight, got Mean$"):
            call(*words, "--items", "items.parquet")
    finally:
        unregister_encoder("mean")
