"""Wrong commands: exit status 2 and one line on standard error, never a traceback; and the page that lists them all."""

import random
import shlex
import subprocess
import sys

import pytest
from fuzz_cases import (
    FOREIGN,
    MARK,
    PAGE,
    call_cases,
    came_back,
    command_came_back,
    command_lines,
    file_cases,
    make_place,
    page,
    run_command,
)
from test_fuzz_files import time_limit

from adaptssr_plugin.cli.main import cli


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_place()
    return tmp_path


def test_the_page_says_what_comes_back():
    """``python tests/fuzz_cases.py`` writes it anew."""
    written = PAGE.read_text(encoding="utf-8").splitlines()
    for there, now in zip(written, page().splitlines(), strict=True):
        assert there == now


def test_the_page_is_complete():
    assert {shlex.split(line)[0] for line in command_lines()} >= cli.commands.keys()
    accepted = [case.tried for case in file_cases() + call_cases() if came_back(case) == "accepted"]
    assert len(accepted) < 10, accepted
    for case in call_cases():
        assert case.limit or came_back(case).startswith(("InputError: ", "DamagedCheckpointError: ")), case.tried


def scrambled(words, chance):
    """Damage a command line: an option that is not there, a value that is none, a word too many or too few."""
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


def test_scrambled_commands(place):
    chance = random.Random(7)
    # Commands that train, or write into the working directory for a while, when a change happens to mend them.
    lines = [line for line in command_lines() if line.split()[0] in ("convert", "embed", "describe")]
    lines += [line for line in command_lines() if line.startswith(("finetune nowhere", "export nowhere"))]
    refused = 0
    for _ in range(250):
        words = scrambled(shlex.split(chance.choice(lines)), chance)
        with time_limit(60):
            status, said = run_command(words)
        assert status in (0, 2), (words, said)
        assert "Traceback" not in said
        refused += status == 2
        if status == 2 and "--quiet" in words:
            assert said.count("\n") == 1, (words, said)
    assert refused > 200
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
    for line in ("pretrain --dataset small --output o --config tag.yaml", "describe nowhere"):
        command = [sys.executable, "-m", "adaptssr_plugin", *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.strip() == command_came_back(line).replace(" …", "") or command_came_back(line).endswith("…")
        assert done.stderr.count("\n") == 1
    assert not (place / MARK).exists()
