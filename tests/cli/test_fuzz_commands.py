"""Wrong files and calls: what is raised. Wrong commands: exit status 2 and one line on standard error, no traceback."""

import random
import re
import shlex
import subprocess
import sys

import pytest
from document_cases import DOCS
from fuzz_cases import FOREIGN, MARK, call_cases, command_lines, file_cases, make_place, run_command
from time_limits import time_limit

from adaptssr_plugin.cli.main import cli
from adaptssr_plugin.errors import InputError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_place()
    return tmp_path


@pytest.mark.parametrize("case", file_cases() + call_cases(), ids=lambda case: f"{case.group}, {case.tried}")
def test_what_is_raised(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if case.raises is None:
        case.call()
        return
    with pytest.raises(case.raises) as raised:
        case.call()
    if case.raises is InputError:
        assert str(raised.value).isprintable()
    else:
        assert not isinstance(raised.value, InputError)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("line", command_lines())
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
    assert {shlex.split(line)[0] for line in command_lines()} >= cli.commands.keys()
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
    lines = [line for line in command_lines() if line.split()[0] in ("convert", "embed", "describe")]
    lines += [line for line in command_lines() if line.startswith(("finetune nowhere", "export nowhere"))]
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
