"""Wrong commands: exit status 2 and one line on standard error, no traceback."""

import contextlib
import io
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from document_cases import DOCS
from fuzz_cases import FOREIGN, MARK
from fuzz_readers import INTER, LINES, READERS, USER
from time_limits import time_limit

from adaptssr_plugin.cli.main import cli, main

# Beside those of test_commands.py, test_run.py and the like.
COMMANDS = """
pretrain --dataset half --output o
pretrain --dataset small --output o --seed -3
pretrain --dataset small --output o --config tag.yaml
pretrain --dataset small --output o --config list.yaml
pretrain --dataset small --output o --recbole-config tag.yaml
pretrain --dataset small --output o --set "USER_ID_FIELD=__import__('os').mkdir('executed')"
pretrain --dataset small --output o --set eval_args=3
pretrain --dataset small --output o --set encoding=foo
pretrain --dataset small --output o --checkpoint-minutes nan
finetune nowhere --task age
run SASRec small --ssl_weight=nan
run SASRec small --config_files=tag.yaml
run SASRec small --nproc=two
run SASRec half
convert csv lines.txt --output o
convert lines nowhere --output o --quiet
convert lines small --output o --quiet
convert lines picture.txt --output o --quiet
convert lines lines.txt --output empty --quiet
convert lines lines.txt --output o --name a/b --quiet
convert ttl lines.txt --output o --quiet
convert parquet picture.parquet --output o --quiet
convert recbole small --output o --quiet
convert recbole small --corpus --output o --time-column x --quiet
convert two-domains lines.txt --boundary 3 --output o
describe nowhere
describe half
describe small --users -1
describe small --users 2 --rho 3
describe small --users 2 --model small
embed nowhere --output o.parquet
embed model --output o.parquet --input nowhere --quiet
embed model --output o.parquet --input picture.parquet --quiet
embed model --output o.parquet --input picture.txt --quiet
embed model --output o.parquet --input empty --quiet
embed model --output small --input lines.txt --quiet
embed model --output o.parquet --input lines.txt --items o.parquet
embed model --output o.parquet --input lines.txt --device foo --quiet
embed model --output o.parquet --input lines.txt --device meta --quiet
embed model --output o.parquet --input lines.txt --whole
export nowhere --output e.pt2
export model --output e.txt
export model --output e.pt2 --device meta
compare nowhere
compare-losses nowhere
compare-losses --models SASRec
reidentify nowhere
reidentify model
quickstart --mask-ratio 2
""".strip().splitlines()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work in a folder with what the commands are given."""
    monkeypatch.chdir(tmp_path)
    READERS["load_user_model"].make(Path())
    for name, files in {"small": {".inter": INTER, ".user": USER}, "half": {".inter": "user_id:token\n"}}.items():
        Path(name).mkdir()
        for ending, text in files.items():
            Path(name, name + ending).write_text(text, encoding="utf-8")
    Path("lines.txt").write_text(LINES, encoding="utf-8")
    Path("empty").touch()
    Path("list.yaml").write_text("- 1\n", encoding="utf-8")
    Path("tag.yaml").write_bytes(FOREIGN["YAML with a Python tag"])
    for name in ("picture.txt", "picture.parquet"):
        Path(name).write_bytes(FOREIGN["a picture"])
    return tmp_path


def run_command(words):
    """Run a command in the working directory; gives its exit status and what it wrote to standard error."""
    written = io.StringIO()
    with contextlib.redirect_stderr(written), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(words)
        except SystemExit as leaving:
            return leaving.code, written.getvalue()
    return 0, written.getvalue()


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line, place):
    status, said = run_command(shlex.split(line))
    assert status == 2, said
    assert said.startswith("adaptssr: ")
    assert said.count("\n") == 1
    assert not (place / MARK).exists()


SHOWN = re.findall(r"^\$ adaptssr (.+)\n(.+)$", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("line", "shown"), SHOWN)
def test_what_the_page_of_errors_shows(line, shown, place):
    assert run_command(shlex.split(line)) == (2, f"{shown}\n")


def test_every_command_is_tried():
    assert {shlex.split(line)[0] for line in COMMANDS} >= cli.commands.keys()
    assert len(SHOWN) > 5


def scrambled(words, chance):
    """Damage a command line: an option that is not there, a wrong value, a word too many or too few."""
    words = list(words)
    place = chance.randrange(1, len(words) + 1)
    how = chance.randrange(4)
    if how == 0:
        words.insert(place, chance.choice(["--frobnicate", "--", "-x", "--=", "", "ü", "--output"]))
    elif how == 1 and len(words) > 1:
        words.pop(min(place, len(words) - 1))
    else:
        odd = ["nan", "-1", "1e999", "9" * 30, "", "nowhere", "picture.txt", "tag.yaml", "small", "\udcff", "a" * 300]
        words[min(place, len(words) - 1)] = chance.choice(odd)
    return words


@pytest.mark.parametrize("number", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_scrambled_commands(place, number):
    chance = random.Random(7)
    # Commands that train, or write into the working directory for a while, when a change happens to mend them.
    lines = [line for line in COMMANDS if line.split()[0] in ("convert", "embed", "describe")]
    lines += [line for line in COMMANDS if line.startswith(("finetune nowhere", "export nowhere"))]
    refused = 0
    for _ in range(number):
        words = scrambled(shlex.split(chance.choice(lines)), chance)
        with time_limit(60):
            status, said = run_command(words)
        assert status in (0, 2), (words, said)
        assert "Traceback" not in said
        refused += status == 2
        if status == 2:
            assert said.splitlines()[-1].startswith("adaptssr: "), (words, said)
        # As the value of an option it is no flag.
        if status == 2 and words[-1] == "--quiet" and not words[-2].startswith("--"):
            assert said.count("\n") == 1, (words, said)
    assert refused > 0.8 * number
    assert not (place / MARK).exists()


@pytest.mark.parametrize("what", FOREIGN)
def test_a_model_whose_card_is_something_else(place, what):
    (place / "model" / "model.json").write_bytes(FOREIGN[what])
    for words in (
        ["embed", "model", "--input", "lines.txt", "--output", "o", "--quiet"],
        ["finetune", "model", "--task", "age"],
    ):
        status, said = run_command(words)
        assert (status, said.count("\n")) == (2, 1), said
    assert not (place / MARK).exists()


def test_a_process_of_its_own(place):
    words = ["pretrain", "--dataset", "small", "--output", "o", "--config", "tag.yaml"]
    command = [sys.executable, "-m", "adaptssr_plugin", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert (done.returncode, done.stderr) == run_command(words)
    assert not (place / MARK).exists()
