"""A corpus on disk through the commands: converted to, pre-trained and fine-tuned on; and two domains converted."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from command_cases import invoke, words_of
from corpus_cases import FILES, contents, interactions
from pyarrow import parquet

from adaptssr_plugin.corpus import open_corpus
from adaptssr_plugin.errors import InputError

TRAIN = {"dim": 8, "ff_dim": 16, "max_len": 8, "batch_size": 16, "mlm_epochs": 1, "epochs": 1, "valid_share": 0.2}


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return invoke


def test_pretraining_and_finetuning_on_a_corpus(call, tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 20, rng.integers(2, 12)).tolist() for _ in range(60)]
    table = pa.table({"user_id": range(60), "item_id": rows, "age": [str(user % 2) for user in range(60)]})
    parquet.write_table(table, "x.parquet")
    done = call("convert", "parquet", "x.parquet", "--corpus", "--label-column", "age", "--output", "big", "--quiet")
    assert done.stdout.splitlines()[0].startswith("60 users, 19 items, ")
    assert sorted(contents(tmp_path / "big")) == sorted([*FILES, "big.user"])
    train = ["pretrain", "--dataset", "big", "--output", "run", "--set", "use_gpu=False", "--quiet"]
    assert call(*train, *words_of(TRAIN)).exit_code == 0
    assert json.loads((tmp_path / "run/model.json").read_text())["users"] == 60
    tune = ["finetune", "run", "--task", "age", "--task", "convert:5", "--seeds", "1", "--ft-epochs", "1"]
    done = call(*tune, "--no-scratch", "--quiet")
    assert "60 users with age" in done.stdout
    described = call("describe", "big")
    assert "60" in described.stdout
    with pytest.raises(InputError) as caught:
        call(*train, "--set", "USER_ID_FIELD=uid")
    assert str(caught.value).startswith("USER_ID_FIELD: expected with RecBole's files alone, got it with the corpus ")
    (tmp_path / "big/items.npy").unlink()
    with pytest.raises(InputError, match=r"^corpus: items\.npy in .* is missing or damaged"):
        call(*train)


def test_pretraining_on_a_corpus_that_was_broken_off(call, tmp_path):
    (tmp_path / "big/.parts").mkdir(parents=True)
    with pytest.raises(InputError, match=r"^corpus: .* holds a conversion that was broken off"):
        call("pretrain", "--dataset", "big", "--output", "run", "--quiet")


def test_converting_recboles_files(call, tmp_path):
    interactions(tmp_path / "source")
    columns = ["--item-column", "other", "--user-column", "user_id", "--time-column", "timestamp"]
    assert call("convert", "recbole", "source", "--corpus", "--output", "a", "--quiet").exit_code == 0
    assert call("convert", "recbole", "source", "--corpus", "--output", "b", "--quiet", *columns).exit_code == 0
    assert open_corpus(tmp_path / "a").n_items == 201
    assert open_corpus(tmp_path / "b").item_tokens.tolist() == ["[PAD]", "x"]
    with pytest.raises(InputError, match=r"^--corpus: needed with recbole$"):
        call("convert", "recbole", "source", "--output", "c")


def test_ttl_as_a_corpus_has_its_labels(call, tmp_path):
    (tmp_path / "original_desen_pretrain.csv").write_text("0,1,2\n3,4,5\n0,0,6\n")
    (tmp_path / "original_desen_age.csv").write_text("0,1,2,,7\n0,0,6,,8\n")
    (tmp_path / "original_desen_finetune_click_nouserID.csv").write_text("3,4,5,,90,91\n")
    done = call("convert", "ttl", *sorted(tmp_path.glob("*.csv")), "--corpus", "--output", "ttl", "--quiet")
    assert done.exit_code == 0
    assert (tmp_path / "ttl/ttl.user").read_text() == "user_id:token\tage:token\n0\t7\n1\t\n2\t8\n"
    assert (tmp_path / "ttl/ttl.click.cold").read_text() == "user_id:token\ttarget_id:token\n1\t90\n1\t91\n"
    assert open_corpus(tmp_path / "ttl").item_tokens.tolist() == ["[PAD]", *"123456"]


def test_two_domains(call, tmp_path):
    (tmp_path / "mix.txt").write_text("u 3 101 4 102\nv 5 103\nw 104 6 6\n")
    words = ["convert", "two-domains", "mix.txt", "--boundary", "100", "--output", "games"]
    done = call(*words)
    assert done.stdout.splitlines()[0].startswith("3 users, 4 items, 4 behaviours in ")
    assert sorted(contents(tmp_path / "games")) == ["games.cold", "games.inter"]
    assert (tmp_path / "games/games.cold").read_text().splitlines()[1:] == ["u\t4\t1", "w\t6\t1"]
    with pytest.raises(InputError, match=r"games\.inter is there already; --overwrite replaces it$"):
        call(*words)
    again = call(*words, "--overwrite", "--target", "high", "--name", "toys")
    assert (tmp_path / "games/toys.cold").read_text().splitlines()[1:] == ["u\t101\t1", "u\t102\t2", "v\t103\t1"]
    assert again.exit_code == 0
    with pytest.raises(InputError, match=r"^--boundary: needed with two-domains$"):
        call("convert", "two-domains", "mix.txt", "--output", "x")
    with pytest.raises(InputError, match=r"^--corpus: expected with lines, ttl, parquet or recbole, got it with"):
        call(*words, "--corpus")
    shutil.rmtree(tmp_path / "games")
    with pytest.raises(InputError, match=r"^boundary: expected items on both sides"):
        call("convert", "two-domains", "mix.txt", "--boundary", "1", "--output", "games")
    assert not (tmp_path / "games").exists()
