"""The pages keep their word: snippets run, equations lead to code, every error is listed with what to do about it."""

import configparser
import importlib
import importlib.util
import re
import subprocess
import sys

import pytest
import torch
from core_only import ROOT
from document_cases import DOCS, GUIDE, README, adaptssr_arguments, blocks, commands_of, prose_of, with_options
from test_package import ROOMS
from test_readme import refusal, unknown_options

from adaptssr_plugin import AdaptSSRLoss, ItemMask, UserEncoder
from adaptssr_plugin.cli.main import cli
from adaptssr_plugin.encoders import make_encoder
from adaptssr_plugin.errors import InputError

PAGES = sorted(DOCS.rglob("*.md"))
EQUATIONS = (DOCS / "equations.md").read_text(encoding="utf-8")


def code_of_the_pages(name):
    """A module beside the pages, which is in no package."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))


messages = code_of_the_pages("error_messages")
advice = code_of_the_pages("error_advice")
LISTED = messages.messages()


# --- the guide -------------------------------------------------------------------------------------------------------


def test_python_blocks_run_in_one_namespace(tmp_path):
    codes = blocks("python", GUIDE)
    assert len(codes) > 5
    torch.manual_seed(0)
    namespace = {"__name__": "guide", "folder": tmp_path}
    for number, code in enumerate(codes, start=1):
        exec(compile(code, f"guide.md, Python block {number}", "exec"), namespace)
    torch.testing.assert_close(namespace["user"], namespace["model"].encoder(*SEQUENCE), atol=1e-5, rtol=0)


SEQUENCE = torch.tensor([[1, 4, 0]]), torch.tensor([2])  # apple and fig


IN_SHELL = [words for page in PAGES for words in commands_of(page.read_text("utf-8"))]


@pytest.mark.parametrize("words", IN_SHELL, ids=" ".join)
def test_commands_parse(words):
    arguments = adaptssr_arguments(words)
    if arguments is None:
        assert words == ["sphinx-build", "-W", "-b", "html", "adaptssr_plugin/docs", "html"]
    else:
        assert refusal(arguments) is None


@pytest.mark.parametrize("code", [code for page in PAGES for code in with_options(page.read_text("utf-8"))])
def test_options_named_in_the_text_exist(code):
    assert not unknown_options(code)


@pytest.mark.parametrize("text", [README, *(page.read_text("utf-8") for page in PAGES)])
def test_commands_stand_in_blocks(text):
    """An indented one would be seen by no test."""
    assert not re.search(r"^(?: {4}|\t)(?:adaptssr|python|pip) .+", prose_of(text), re.MULTILINE)


def test_every_new_command_is_shown_and_extras_exist():
    shown = {arguments[0] for words in IN_SHELL if (arguments := adaptssr_arguments(words))}
    assert {"pretrain", "finetune", "run", "embed", "export"} <= shown <= cli.commands.keys()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    named = re.findall(r"pip install\s+\"\.\[(\w+)\]\"", GUIDE)
    assert set(named) == {"recbole", "docs"} <= setup["options.extras_require"].keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_what_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r"```\{include\} (\S+)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:examples|benchmarks|tests)/[^`]+)`", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"\.\. automodule:: (\S+)", text):
        assert importlib.import_module(module).__doc__


def test_every_room_has_a_page():
    listed = (DOCS / "index.md").read_text(encoding="utf-8")
    for room in set(ROOMS) - {"cli"}:
        assert f".. automodule:: adaptssr_plugin.{room}\n" in (DOCS / "api" / f"{room}.md").read_text(encoding="utf-8")
        assert f"\napi/{room}\n" in listed


# --- from equation to code -------------------------------------------------------------------------------------------

SECTIONS = re.split(r"^## ", EQUATIONS, flags=re.MULTILINE)[1:]
ROLES = re.findall(r"\{py:(\w+)\}`([^`]+)`", EQUATIONS)


def test_every_equation_of_the_paper_has_a_formula_and_code():
    titles = [section.partition("\n")[0] for section in SECTIONS]
    assert [title.partition(":")[0] for title in titles] == [
        *(f"Eq. {number}" for number in range(1, 10)),
        "Algorithm 1",
    ]
    for section in SECTIONS:
        assert re.search(r"\{py:(class|func|meth)\}`adaptssr_plugin\.", section)
        assert ("$$" in section) == section.startswith("Eq.")


@pytest.mark.parametrize(("role", "name"), sorted(set(ROLES)))
def test_an_equation_leads_to_code_that_exists(role, name):
    module, _, last = name.rpartition(".")
    owner = None
    if role == "meth":
        module, _, owner = module.rpartition(".")
    room = importlib.import_module(module)
    place = room if owner is None else getattr(room, owner)
    assert callable(getattr(place, last))
    assert isinstance(getattr(place, last), type) == (role == "class")


def test_equations_that_the_readme_maps_are_mapped_here():
    """The README names functions by themselves."""
    named = set(re.findall(r"`(\w+_(?:ranking|coefficient))`", prose_of(README)))
    assert len(named) == 3
    assert named <= {name.rpartition(".")[2] for _, name in ROLES}


# --- every error -----------------------------------------------------------------------------------------------------


def test_every_message_has_advice():
    assert len(LISTED) > 400
    for message in LISTED:
        assert advice.advice(message)


def test_every_rule_is_of_use():
    used = {advice.specific_rule(message) for message in LISTED}
    assert set(range(len(advice.SPECIFIC))) <= used, [
        pattern for place, (pattern, _) in enumerate(advice.SPECIFIC) if place not in used
    ]


def test_a_message_of_no_usual_form_needs_a_rule():
    with pytest.raises(LookupError, match=r"losses/x\.py, line 3: no advice for 'odd'"):
        advice.advice(messages.Message("InputError", "odd", "losses/x.py", 3))


def test_messages_are_read_from_the_source(tmp_path):
    source = """
A = "from a constant"
raise InputError(f"x: {n} of {m[0]}" " and " + "more")
errors.InputError(A)
Other("no")
"""
    (tmp_path / "room.py").write_text(source)
    found = [message[:3] for message in messages.messages(tmp_path)]
    assert found == [
        ("InputError", "x: ‹n› of … and more", "room.py"),
        ("InputError", "from a constant", "room.py"),
    ]


def pattern_of(template):
    return re.sub(r"‹\w+›|…", ".+", re.escape(template))


@pytest.mark.parametrize(
    "call",
    [
        lambda: AdaptSSRLoss(scale=0),
        lambda: AdaptSSRLoss()(*torch.ones(3, 4, 2), torch.ones(4, 3)),
        lambda: AdaptSSRLoss()(*torch.ones(4, 1, 2)),
        lambda: ItemMask(1.5, mask_id=3),
        lambda: UserEncoder(9, dim=7),
        lambda: UserEncoder(9)(torch.ones(2, 101, dtype=torch.int64), torch.ones(2, dtype=torch.int64)),
        lambda: make_encoder("rnn"),
    ],
    ids=["scale", "shape", "one row", "ratio", "heads", "length", "encoder"],
)
def test_what_is_raised_is_on_the_page(call):
    with pytest.raises(InputError) as raised:
        call()
    assert [message for message in LISTED if re.fullmatch(pattern_of(message.template), str(raised.value))]


# --- the build -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="sphinx is not installed (extra docs)")
def test_the_pages_build_without_a_warning(tmp_path):
    command = ["-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "tree", DOCS, tmp_path / "html"]
    done = subprocess.run([sys.executable, "-m", "sphinx", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    equations = (tmp_path / "html" / "equations.html").read_text(encoding="utf-8")
    assert equations.count("<math") > 20
    assert "$$" not in equations
    linked = set(re.findall(r'href="api/\w+\.html#(adaptssr_plugin[\w.]+)"', equations))
    assert {name for _, name in ROLES} <= linked
    assert not re.search(r'<(script|link)[^>]+(src|href)="https?:', equations), "a page needs another server"
    errors = (tmp_path / "html" / "errors.html").read_text(encoding="utf-8")
    assert errors.count("<li>") > 300
    commands = (tmp_path / "html" / "commands.html").read_text(encoding="utf-8")
    assert all(f"Usage: adaptssr {name}" in commands for name in cli.commands)
