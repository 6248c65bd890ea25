"""``adaptssr describe``: Table 1 of a corpus, and what operators make of sample users."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from command_cases import invoke
from recbole_cases import write_table
from refusals import refusal_of
from torch import nn
from training_cases import TRAINING, write_profiled_dataset

from adaptssr_plugin.augment import Sequences
from adaptssr_plugin.corpus import BehaviourCorpus, ItemCorrelation
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments.describe import describe, label_statistics
from adaptssr_plugin.experiments.sample_users import MASK, _coefficients, sample_users
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.recbole.compat.profiles import profile_labels
from adaptssr_plugin.recbole.compat.user_sequences import load_user_sequences
from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain


def call(*words):
    return invoke("describe", *words)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_profiled_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    """A finished pre-training on ``small``."""
    folder = tmp_path_factory.mktemp("model") / "run"
    pretrain(Source(str(small), {"use_gpu": False}), recipe("adaptssr", "paper", TRAINING), folder, False)
    return folder


# --- Table 1 -----------------------------------------------------------------------------------------------


def test_ml_100k():
    """As its own documentation has it: 100,000 ratings by 943 users of 1,682 items; 670 are men."""
    found = describe(Source("ml-100k")).statistics
    assert (found.sequences, found.items, found.behaviours) == (943, 1682, 100_000)
    assert found.mean_length == pytest.approx(106.04, abs=0.01)
    assert found.length_quantiles["min"] == 20
    assert found.length_quantiles["max"] == 737
    by_name = {label.name: label for label in found.labels}
    gender = by_name["gender"]
    assert (gender.kind, gender.rows, gender.classes, gender.largest, gender.largest_rows) == (
        "token",
        943,
        2,
        "M",
        670,
    )
    assert gender.largest_share == pytest.approx(0.7105, abs=5e-5)
    assert by_name["occupation"].classes == 21
    assert by_name["occupation"].largest == "student"


def test_labels_are_counted_as_fine_tuning_reads_them():
    config = Source("ml-100k").config()
    users = load_user_sequences(config).corpus.user_tokens
    for label in label_statistics(config, users):
        read = profile_labels(config, users, label.name)
        counts = np.bincount(read.labels)
        assert (label.rows, label.classes, label.largest_rows) == (len(read.rows), len(read.classes), counts.max())
        assert counts[read.classes.index(label.largest)] == counts.max()


@pytest.fixture
def odd(tmp_path):
    """Users with and without labels, of every type of column; one user who is not in the corpus."""
    rows = [("u", "a", 0), ("u", "b", 1), ("v", "a", 0), ("v", "c", 1), ("v", "a", 2), ("w", "d", 5)]
    write_table(tmp_path / "odd" / "odd.inter", "user_id:token item_id:token timestamp:float", rows)
    header = "user_id:token job:token wage:float likes:token_seq none:token only:token"
    users = [("u", "x", "1.5", "p q", "", "y"), ("v", "NA", "1.5", "q", "", "y"), ("w", "z", "nan", "", "", ""),
             ("not there", "x", "2", "r", "k", "n")]  # fmt: skip
    write_table(tmp_path / "odd" / "odd.user", header, users)
    return tmp_path / "odd"


def test_the_table(odd):
    done = call(odd)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "odd",
        "sequences (users)     3",
        "items                 4",
        "behaviours            6",
        "mean length        2.00",
        "  min                 1",
        "  5 %               1.1",
        "  25 %              1.5",
        "  50 %                2",
        "  75 %              2.5",
        "  95 %              2.9",
        "  max                 3",
        "",
        "label  type       rows  classes  largest class  of rows     share",
        "job    token         3        3  x                    1   33.33 %",
        "wage   float         2        1  1.5                  2  100.00 %",
        "likes  token_seq     3        2  q                    2   66.67 %",
        "none   token         0        0  -                    0    0.00 %",
        "only   token         2        1  y                    2  100.00 %",
    ]


def test_filters_and_other_names_of_columns(odd):
    (odd / "odd.inter").write_text((odd / "odd.inter").read_text().replace("user_id", "uid"))
    (odd / "odd.user").unlink()
    found = json.loads(
        call(odd, "--set", "USER_ID_FIELD=uid", "--set", "user_inter_num_interval=[2,inf)", "--json").stdout
    )
    assert found["samples"] is None
    assert found["statistics"]["sequences"] == 2
    assert found["statistics"]["labels"] == []


def test_files_split_beforehand(tmp_path):
    header = "user_id:token item_id_list:token_seq item_id:token"
    for part in ("train", "valid", "test"):
        rows = [("u", "a b", "c"), ("u", "a", "b"), ("v", "a", "d")]
        write_table(tmp_path / "parts" / f"parts.{part}.inter", header, rows)
    options = {"benchmark_filename": ["train", "valid", "test"]}
    found = describe(Source(str(tmp_path / "parts"), options)).statistics
    assert (found.sequences, found.items, found.behaviours) == (2, 4, 5)


@pytest.mark.parametrize("text", [b"user_id:token\tjob:token\nu\t\xff\n", b"job:token\nx\n", b"nonsense\n"])
def test_user_files_that_cannot_be_read(odd, text):
    (odd / "odd.user").write_bytes(text)
    assert "odd.user" in refusal_of(call, odd)


# --- sample users ------------------------------------------------------------------------------------------


def views_of(found, word):
    return [next(view for view in user.views if view.operator.startswith(word)) for user in found.users]


def test_what_operators_make_of_users(small):
    corpus = load_user_sequences(Source(str(small)).config()).corpus
    found = sample_users(corpus, 8, seed=3)
    assert found.model is None
    names = corpus.user_tokens.tolist()
    rows = [names.index(user.user) for user in found.users]
    assert len(set(rows)) == 8
    originals = [tuple(corpus.item_tokens[corpus.history(row)].tolist()) for row in rows]
    assert [user.original for user in found.users] == originals
    for items, mask, crop, reorder in zip(
        originals, views_of(found, "mask"), views_of(found, "crop"), views_of(found, "reorder"), strict=True
    ):
        n = len(items)
        for view in (mask.first, mask.second):
            assert view.count(MASK) == -(-6 * n // 10)
            assert all(seen in (item, MASK) for seen, item in zip(view, items, strict=True))
        for view in (crop.first, crop.second):
            assert len(view) == -(-4 * n // 10)
            assert any(view == items[start : start + len(view)] for start in range(n))
        assert sorted(reorder.first) == sorted(items)
    assert any(view.first != view.second for view in views_of(found, "mask"))
    neighbour = ItemCorrelation.from_histories(corpus).neighbours[:, 0]
    names = corpus.item_tokens
    near = {str(names[item]): str(names[other]) for item, other in enumerate(neighbour) if other}
    for items, substitute, insert in zip(
        originals, views_of(found, "substitute"), views_of(found, "insert"), strict=True
    ):
        n, changed = len(items), max(len(items) * 6 // 10, 1)
        pairs = [(new, old) for new, old in zip(substitute.first, items, strict=True) if new != old]
        assert len(pairs) == changed
        assert all(near[old] == new for new, old in pairs)
        assert len(insert.first) == n + changed, "there is room for what is inserted"
    assert all(view.coefficient is None for user in found.users for view in user.views)


def test_samples_depend_on_the_seed_alone(small):
    corpus = load_user_sequences(Source(str(small)).config()).corpus
    state = torch.random.get_rng_state()
    first = sample_users(corpus, 3, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(9)
    assert sample_users(corpus, 3, seed=1) == first
    assert sample_users(corpus, 3, seed=2) != first


def test_coefficients(small, run):
    corpus = load_user_sequences(Source(str(small)).config()).corpus
    found = sample_users(corpus, 6, seed=1, model=run)
    assert sample_users(corpus, 6, seed=1, model=run) == found, "dropout is seeded"
    coefficients = np.array([[view.coefficient for view in user.views] for user in found.users])
    assert ((coefficients >= 0) & (coefficients <= 1)).all()
    assert len(np.unique(coefficients)) == coefficients.size
    assert max(len(user.original) for user in found.users) <= TRAINING["max_len"]


def test_coefficients_are_those_of_equation_7():
    """Of views with all, half and none of their items in common, for an encoder that counts items."""

    def encoder(item_seq, item_seq_len):
        return nn.functional.one_hot(item_seq, 9)[..., 1:].sum(1).float()

    def views(*rows):
        return Sequences(torch.tensor(rows), torch.full((len(rows),), 2))

    first, second = views([1, 2], [1, 2], [1, 2]), views([2, 1], [2, 3], [3, 4])
    assert _coefficients(encoder, [first, second], 0, "").tolist() == pytest.approx([0, 0.5, 1], abs=1e-6)


def test_samples_in_text_and_json(small, run):
    words = (small, "--users", 2, "--seed", 4)
    text = call(*words).stdout
    assert "\n2 sample users, augmented at ρ = 0.6; two views of each operator.\nλ is left out: it takes" in text
    assert max(map(len, text.splitlines())) <= 110
    for word in ("mask (0.6 hidden)", "crop (0.4 kept)", "reorder (0.6", "substitute (0.6", "insert (0.6"):
        assert text.count(f"\n  {word}") == 2
    with_lambda = call(*words, "--model", run).stdout
    assert with_lambda.count("  λ = 0.") + with_lambda.count("  λ = 1.") == 10
    found = json.loads(call(*words, "--model", run, "--json").stdout)
    user = found["samples"]["users"][0]
    assert f"user {user['user']}\n  original ({len(user['original'])})" in with_lambda
    assert f"mask (0.6 hidden)  λ = {user['views'][0]['coefficient']:.3f}\n" in with_lambda
    described = describe(Source(str(small)), users=2, seed=4, model=run)
    assert json.loads(json.dumps(dataclasses.asdict(described))) == found


def test_samples_are_the_histories_that_pretrain_sees(small):
    """Without the two items that RecBole keeps for validation and test."""
    found = json.loads(call(small, "--users", 24, "--json").stdout)
    seen = sum(len(user["original"]) for user in found["samples"]["users"])
    assert found["statistics"]["sequences"] == 24
    assert seen == found["statistics"]["behaviours"] - 2 * 24


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--users", "25"], "users: expected a number from 1 to the 24 of the corpus, got 25"),
        (["--users", "1", "--rho", "1"], "strength: expected a number between 0 and 1, got 1.0"),
        (["--users", "1", "--rho", "nan"], "strength: expected a number between 0 and 1, got nan"),
        (["--model", "x"], "--model: expected with --users alone, got it without"),
        (["--max-len", "5"], "--max-len: expected with --users alone, got it without"),
        (
            ["--users", "1", "--model", "x", "--max-len", "5"],
            "--max-len: expected without --model, which brings its own",
        ),
        (["--users", "1", "--model", "absent"], "model: expected a folder with model.safetensors, got absent"),
        (["--set", "USER_ID_FIELD"], "--set: expected key=value, got 'USER_ID_FIELD'"),
    ],
)
def test_wrong_calls(small, words, said):
    assert refusal_of(call, small, *words).startswith(said)


def test_a_model_of_other_items(run):
    corpus = BehaviourCorpus.from_lists([[1, 2, 3]] * 4)
    with pytest.raises(InputError, match=r"^dataset: its items are not those that the model in"):
        sample_users(corpus, 1, model=run)


def test_a_model_of_unknown_making(small, run, tmp_path):
    for path in run.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    card = json.loads((tmp_path / "model.json").read_text())
    del card["recipe"]
    (tmp_path / "model.json").write_text(json.dumps(card))
    corpus = load_user_sequences(Source(str(small)).config()).corpus
    with pytest.raises(InputError, match=r"^model: expected one from adaptssr pretrain, got another model\.json in"):
        sample_users(corpus, 1, model=tmp_path)
