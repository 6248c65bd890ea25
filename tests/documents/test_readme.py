"""The README keeps its word: its Python runs, its commands parse, what it names exists."""

import logging
import re
import subprocess
import sys
from pathlib import PurePosixPath

import pytest
import torch
import yaml
from core_only import ROOT
from document_cases import (
    GUIDE,
    NOT_RUN,
    README,
    SETUP,
    SHORT_RUN,
    adaptssr_arguments,
    blocks,
    commands_of,
    inline_code,
    refusal,
    shell_commands,
)

from adaptssr_plugin.cli.main import cli, main
from adaptssr_plugin.errors import INSTALL
from adaptssr_plugin.recbole.requirements import RECBOLE_VERSION

TOP_LEVEL = ("adaptssr_plugin", "examples", "benchmarks", "tests", ".ci")


INLINE = inline_code(README)
IN_SHELL = commands_of(README)
ADAPTSSR = [arguments for words in IN_SHELL if (arguments := adaptssr_arguments(words)) is not None]


def test_python_blocks_run_in_one_namespace(tmp_path, monkeypatch):
    codes = blocks("python", README)
    assert codes, "the README shows no Python"
    monkeypatch.chdir(tmp_path)  # where RecBole writes
    monkeypatch.setattr(sys, "argv", ["readme", *SHORT_RUN])
    # RecBole's own run_recbole wraps the streams, sets the level, and attaches its handlers only if there are none.
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(logging.getLogger(), "level", logging.getLogger().level)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    torch.manual_seed(0)
    namespace = {"__name__": "readme"}
    for number, code in enumerate(codes, start=1):
        exec(compile(code, f"README.md, Python block {number}", "exec"), namespace)
    for handler in logging.getLogger().handlers:  # of RecBole's own run_recbole
        handler.close()
    assert {"AdaptSSRLoss", "run_recbole"} <= namespace.keys()
    saved = [path.stem for path in tmp_path.glob("saved/*.pth") if not path.stem.endswith("-pretrained")]
    assert sorted(name.partition("-")[0] for name in saved) == ["GRU4Rec", "SASRec"]


RUNS = [arguments for arguments in ADAPTSSR if arguments[0] == "run"]


@pytest.mark.parametrize("arguments", RUNS, ids=" ".join)
def test_recbole_runs_have_options_that_exist(arguments, monkeypatch, capsys):
    """RecBole takes any name without a word."""
    monkeypatch.chdir(ROOT)
    main([*arguments[:3], "--show-config"])
    known = yaml.safe_load(capsys.readouterr().out)
    main([*arguments, "--show-config"])
    assert yaml.safe_load(capsys.readouterr().out).keys() == known.keys()


def test_options_of_recbole_runs_in_the_text_exist(capsys):
    main(["run", "SASRec", "ml-100k", "--show-config"])
    defaults = yaml.safe_load(capsys.readouterr().out)
    named = {code for code in INLINE if re.fullmatch(r"ssl_[a-z_]+[a-z]", code)}
    assert len(named) > 8
    assert named <= defaults.keys()
    rows = re.findall(r"^\| `(ssl_\w+)` \| `?([\w.]+)`? \|", README, re.MULTILINE)
    assert len(rows) > 5
    assert [(name, str(defaults[name])) for name, _ in rows] == rows


@pytest.mark.parametrize("arguments", ADAPTSSR, ids=" ".join)
def test_commands_parse(arguments):
    assert refusal(arguments) is None


def test_there_are_commands_to_parse():
    assert ["quickstart"] in [arguments[:1] for arguments in ADAPTSSR]


def test_commands_named_in_the_text_exist():
    named = {code.split()[1] for code in INLINE if re.match(r"adaptssr \w", code)}
    assert named <= cli.commands.keys()


def test_ci_runs_the_line_that_tests_as_it_is_printed():
    """.ci/run finds it in the README by itself."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (found,) = re.findall(r"^readme=.*$", script, re.MULTILINE)
    words = ["bash", "-c", f'{found}; printf %s "$readme"']
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout in [line for block in blocks("bash", README) for line in block.splitlines()]
    pip = ".venv/bin/pip"
    assert [words[0] for words in shell_commands(done.stdout)] == ["python3", pip, pip, ".venv/bin/pytest"]
    assert 'bash -c "$readme"' in script.splitlines()


def test_every_place_installs_recbole_in_the_same_way():
    """In the README's lines, in the guide, and in what an error says."""
    in_clone, alone = [list(shell_commands(INSTALL.split("`")[1]))[step] for step in (0, 1)]
    assert (in_clone, alone[-1]) == (["pip", "install", "-e", ".[recbole]"], f"recbole=={RECBOLE_VERSION}")
    for page in (README, GUIDE):
        commands = [[PurePosixPath(words[0]).name, *words[1:]] for words in commands_of(page)]
        assert in_clone in commands
        for place, words in enumerate(commands):
            if words[:3] == in_clone[:3]:
                assert commands[place + 1] == alone


def test_extras_exist():
    named = {extra for words in IN_SHELL for word in words for extra in re.findall(r"^\.\[([\w,]+)\]$", word)}
    assert named
    assert {extra for names in named for extra in names.split(",")} <= SETUP["options.extras_require"].keys()


PATHS = sorted({code for code in INLINE if code.startswith(tuple(f"{folder}/" for folder in TOP_LEVEL))})


@pytest.mark.parametrize("code", PATHS)
def test_paths_named_in_the_text_exist(code):
    assert (ROOT / code).exists()


def test_the_test_sees_what_it_looks_for():
    """A block marked as not run is passed over; a wrong option and a wrong command are refused."""
    text = f"```python\na\n\nb\n```\n\n{NOT_RUN}\n```python\nc\n```\n```python\nd\n```\n"
    assert blocks("python", text) == ["a\n\nb", "d"]
    assert [*shell_commands('x "a b" && .venv/bin/adaptssr run --y=1 | z # no')] == [
        ["x", "a b"],
        [".venv/bin/adaptssr", "run", "--y=1"],
        ["z"],
    ]
    assert refusal(["pretrain", "--dataset", "d", "--output", "o", "--epochs", "3"]) is None
    assert "--epoch-s" in refusal(["pretrain", "--dataset", "d", "--output", "o", "--epoch-s", "3"])
    assert "x" in refusal(["pretrain", "--dataset", "d", "--output", "o", "--epochs", "x"])
    assert refusal(["quickstop"]) == "no command quickstop"
