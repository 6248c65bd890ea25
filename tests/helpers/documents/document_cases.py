"""The README and the guide as something to run: their blocks of code, their commands, and both made short."""

import configparser
import re
import shlex
from pathlib import PurePosixPath

import click
import numpy as np
import pyarrow as pa
from core_only import ROOT
from pyarrow import parquet

from adaptssr_plugin.cli.main import cli

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "adaptssr_plugin" / "docs"
GUIDE = (DOCS / "guide.md").read_text(encoding="utf-8")
NOT_RUN = "<!-- not run -->"
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")

# What needs no extra, with a heading for its end.
README_CORE, GUIDE_CORE = README.partition("\n## In RecBole\n")[0], GUIDE.partition("\n## The whole procedure\n")[0]


def blocks(language, text):
    """Code blocks in a language, but for those with ``<!-- not run -->`` right above them."""
    found, opened, code, above = [], None, [], ""
    for line in text.splitlines():
        if opened is None and line.startswith("```"):
            opened, code = (line.removeprefix("```").strip(), above), []
        elif opened is not None and line == "```":
            if opened[0] == language and opened[1] != NOT_RUN:
                found.append("\n".join(code))
            opened, above = None, ""
        elif opened is not None:
            code.append(line)
        elif line:
            above = line
    return found


def shell_commands(code):
    """The words of every simple command in a piece of shell."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        command = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)


def commands_of(text):
    """The words of every command that a page shows, in its order."""
    return [words for code in blocks("bash", text) for words in shell_commands(code)]


def adaptssr_arguments(words):
    """What follows ``adaptssr`` or ``python -m adaptssr_plugin``; None for another command."""
    if PurePosixPath(words[0]).name == "adaptssr":
        return words[1:]
    if words[1:3] == ["-m", "adaptssr_plugin"]:
        return words[3:]
    return None


def prose_of(text):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def inline_code(text):
    """What stands between backticks in the prose of a page."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose_of(text))]


def with_options(text):
    """Options and commands with options that the prose of a page names."""
    return [code for code in inline_code(text) if re.match(r"(adaptssr (\w+ )?)?--", code)]


# --- made short ------------------------------------------------------------------------------------------------------

# For RecBole's runs, which put what stands on the command line before what a page says.
SHORT_RUN = ["--epochs=1", "--MAX_ITEM_LIST_LENGTH=5", "--val_interval={'timestamp':'[892500000,inf)'}"]
SHORT_RUN += ["--show_progress=False", "--state=ERROR"]
SMALL = ["--mlm-epochs", "1", "--epochs", "1", "--max-len", "4", "--dim", "8", "--ff-dim", "16", "--quiet"]
SHORTER = {
    "quickstart": [*SMALL, "--ft-epochs", "1", "--splits", "2"],
    "run": SHORT_RUN,
    "pretrain": SMALL,
    "finetune": ["--ft-epochs", "1", "--seeds", "1", "--quiet"],
    "compare": ["--table", "paper", "--method", "none", "--method", "peterrec", "--seeds", "1", "--quiet"],
}
FULL_SIZE = {"compare", "compare-losses"}  # a plan's epochs are no option: hours


def shortened(arguments):
    """What follows ``adaptssr``, with as little work as its options allow."""
    extra = SHORTER.get(arguments[0], []) + ["--splits", "2"] * ("--splits" in arguments)
    given = {word.partition("=")[0] for word in extra if "=" in word}  # given twice, an option of a run is refused
    kept = [word for word in arguments if word.partition("=")[0] not in given]
    return ["smoke" if word == "--smoke" else word for word in kept] + extra  # the plan without its figures


def documented_commands():
    """Arguments of ``adaptssr`` in the README and then the guide, each once, but for what takes hours."""
    shown = [adaptssr_arguments(words) for words in [*commands_of(README), *commands_of(GUIDE)]]
    kept = [words for words in shown if words is not None and not (words[0] in FULL_SIZE and "--smoke" not in words)]
    return [words for place, words in enumerate(kept) if words not in kept[:place]]


def write_what_the_guide_has(folder):
    """The reader's own two Parquet files: users with items of ml-100k, among the new ones a user with no known item."""
    draw = np.random.default_rng(0)
    for name, users in (("histories", 60), ("new-users", 9)):
        histories = [draw.integers(1, 100, draw.integers(3, 9)).astype(str).tolist() for _ in range(users)]
        histories += [["nothing known"]] * (name == "new-users")
        columns = {"user_id": [f"user {row}" for row in range(len(histories))], "history": histories}
        parquet.write_table(pa.table(columns), folder / f"{name}.parquet")


def refusal(arguments):
    """Why click refuses a command line of ``adaptssr``, or None."""
    arguments = [word for word in arguments if word != "--help"]
    if not arguments or arguments == ["--version"]:
        return None
    name, *rest = arguments
    if name not in cli.commands:
        return f"no command {name}"
    try:
        cli.commands[name].make_context(name, rest)
    except click.ClickException as error:
        return error.format_message()
    return None


def unknown_options(code):
    """Options that a command in the text has, here, and the program does not."""
    words = code.split()
    known = EVERY_OPTION
    if words[0] == "adaptssr" and words[1].isalpha() and words[1].islower():  # not COMMAND
        known = options_of(cli.commands[words[1]]) | {"--help"}
    return {word.partition("=")[0] for word in words if word.startswith("--")} - known


# Rooms in the order in which they may import one another: only from the left.
CORE_ROOMS = ["functional", "distributed", "losses", "augment", "encoders", "corpus", "training", "methods"]
CORE_ROOMS += ["downstream"]
ROOMS = [*CORE_ROOMS, "recbole", "experiments", "cli"]


def options_of(command):
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


EVERY_OPTION = {"--help", "--version"}.union(*(options_of(command) for command in cli.commands.values()))
