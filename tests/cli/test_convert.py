"""``adaptssr convert``: what it prints and writes, and that training reads it."""

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from command_cases import invoke, words_of
from pyarrow import parquet
from refusals import refusal_of
from ttl_cases import AGE, CLICK, PRETRAIN, ttl_files

from adaptssr_plugin.errors import InputError


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command in a folder of its own; gives its output. What the user got wrong comes as it is raised."""
    monkeypatch.chdir(tmp_path)
    return partial(invoke, "convert")


def test_lines(call):
    Path("shop.txt").write_text("u a b c\nv a d\n")
    done = call("lines", "shop.txt", "--output", "out/shop")
    assert done.exit_code == 0
    head, *rest = done.stdout.splitlines()
    assert head.startswith("2 users, 4 items, 5 behaviours in ")
    assert rest == ["Files:", "  out/shop/shop.inter"]
    assert "100%" in done.stderr
    with pytest.raises(InputError, match=r"^output: out/shop/shop\.inter is there already; --overwrite replaces it$"):
        call("lines", "shop.txt", "--output", "out/shop")
    again = call("lines", "shop.txt", "--output", "out/shop", "--overwrite", "--quiet")
    assert again.exit_code == 0
    assert again.stderr == ""


def test_ttl_prints_labels_and_notes(call):
    files = ttl_files(Path(), PRETRAIN, AGE + "1,1,,4\n", CLICK)
    done = call("ttl", *files, "--output", "ttl", "--name", "other", "--quiet")
    head, note, *rest = done.stdout.splitlines()
    assert head.startswith("5 users, 7 items, 13 behaviours in ")
    assert head.endswith("; age: 4 users; click: 2 users")
    assert note.startswith("note: age: 1 of 5 rows left out, ")
    assert rest == ["Files:", "  ttl/other.inter", "  ttl/other.user", "  ttl/other.click.cold"]


def test_parquet(call):
    parquet.write_table(pa.table({"who": ["u"], "what": [["a", "b"]], "age": [7]}), "x.parquet")
    options = ["--user-column", "who", "--items-column", "what", "--label-column", "age", "--quiet"]
    done = call("parquet", "x.parquet", "--output", "shop", *options)
    assert done.exit_code == 0
    assert Path("shop/shop.user").read_text() == "user_id:token\tage:token\nu\t7\n"
    assert "  shop/shop.user\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lines"], "INPUT: expected at least one INPUT for lines, got 0"),
        (["two-domains", "--boundary", "1"], "INPUT: expected one INPUT for two-domains, got 0"),
        (["two-domains", "a", "b", "--boundary", "1"], "INPUT: expected one INPUT for two-domains, got 2"),
        (["ttl", "a", "--label-column", "age"], "--label-column: expected with parquet alone, got it with ttl"),
        (
            ["lines", "a", "--user-column", "user_id"],
            "--user-column: expected with parquet or recbole, got it with lines",
        ),
        (["lines", "absent.txt"], "input: expected a file, got absent.txt, which does not exist"),
    ],
)
def test_wrong_calls(call, words, said):
    assert refusal_of(call, *words, "--output", "out") == said
    assert not Path("out").exists()


def test_unknown_kinds(call):
    done = call("csv", "x", "--output", "out")
    assert done.exit_code == 2
    assert "'csv' is not one of 'lines', 'ttl', 'parquet'" in done.stderr


def test_training_reads_what_was_converted(call):
    rows = [f"0,0,{1 + user},{2 + user % 5},{3 + user % 7},{4 + user % 3}" for user in range(40)]
    texts = ["\n".join(rows) + "\n", "".join(f"{row},,{user % 2}\n" for user, row in enumerate(rows)), None]
    assert call("ttl", *ttl_files(Path(), *texts)[::-1], "--output", "ttl", "--quiet").exit_code == 0
    options = {"dim": 8, "ff_dim": 16, "max_len": 8, "batch_size": 16, "mlm_epochs": 1, "epochs": 1, "valid_share": 0.2}
    train = ["pretrain", "--dataset", "ttl", "--output", "run", "--set", "use_gpu=False", "--quiet"]
    assert invoke(*train, *words_of(options)).exit_code == 0
    done = invoke("finetune", "run", "--task", "age", "--seeds", 1, "--ft-epochs", 1, "--no-scratch", "--quiet")
    assert "40 users with age" in done.stdout
