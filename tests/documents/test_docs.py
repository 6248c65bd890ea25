"""The pages keep their word: snippets run, links and equations lead somewhere, exceptions are named."""

import importlib
import importlib.util
import re
import sys
import warnings
from typing import get_args

import pytest
import torch
from core_only import ROOT
from document_cases import (
    DOCS,
    GUIDE,
    README,
    ROOMS,
    SETUP,
    adaptssr_arguments,
    blocks,
    commands_of,
    prose_of,
    refusal,
    unknown_options,
    with_options,
)

from adaptssr_plugin import AdaptSSRLoss, errors
from adaptssr_plugin.cli.main import cli
from adaptssr_plugin.functional import triton_search
from adaptssr_plugin.functional.search import Implementation, choose_search
from adaptssr_plugin.recbole.requirements import RECBOLE_VERSION
from benchmarks.__main__ import BENCHMARKS

PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [README, *(page.read_text("utf-8") for page in PAGES)]
EQUATIONS = (DOCS / "equations.md").read_text(encoding="utf-8")


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
        benchmark = words[:-1] == ["python", "-m", "benchmarks"] and words[-1] in {*BENCHMARKS, "all"}
        known = {"pip", "sphinx-build", "ruff", "mypy", "pytest", "jupyter", "twine"}
        assert benchmark or words[0] in known or words == ["python", "-m", "build"]
        assert all((ROOT / word).exists() for word in words if "/" in word and word != "dist/*")
    else:
        assert refusal(arguments) is None


@pytest.mark.parametrize("code", [code for text in TEXTS for code in with_options(text)])
def test_options_named_in_the_text_exist(code):
    assert not unknown_options(code)


@pytest.mark.parametrize("text", TEXTS)
def test_commands_stand_in_blocks(text):
    """An indented one would be seen by no test."""
    assert not re.search(r"^(?: {4}|\t)(?:adaptssr|python|pip) .+", prose_of(text), re.MULTILINE)


def test_every_new_command_is_shown_and_extras_exist():
    shown = {arguments[0] for words in IN_SHELL if (arguments := adaptssr_arguments(words))}
    assert {"pretrain", "finetune", "run", "embed", "export"} <= shown <= cli.commands.keys()
    named = re.findall(r"pip install\s+-e\s+\"\.\[(\w+)\]\"", GUIDE)
    assert set(named) == {"recbole", "docs"} <= SETUP["options.extras_require"].keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_what_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"```\{include\} (\S+)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:examples|benchmarks|tests)/[^`]+)`", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"\.\. automodule:: (\S+)", text):
        assert importlib.import_module(module).__doc__


def anchors(page):
    """What a link to a heading of a page ends with, as on the repository's pages."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


OTHER_PAGES = ["README.md", "CHANGELOG.md", "benchmarks/results/README.md"]
LINKING = [*(ROOT / name for name in OTHER_PAGES), *PAGES, ROOT / "adaptssr_plugin/recbole/MODELS.md"]
LINKING += [ROOT / "adaptssr_plugin/methods/METHODS.md"]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_to_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert target.startswith("https://") or linked.exists(), target
        assert target.startswith("https://") or not anchor or anchor in anchors(linked), target


def test_every_room_has_a_page():
    listed = (DOCS / "index.md").read_text(encoding="utf-8")
    for room in set(ROOMS) - {"cli"}:
        assert f".. automodule:: adaptssr_plugin.{room}\n" in (DOCS / "api" / f"{room}.md").read_text(encoding="utf-8")
        assert f"\napi/{room}\n" in listed


# --- versions, and what implementation="auto" takes ------------------------------------------------------------------


def test_the_table_of_versions_is_what_setup_and_ci_say():
    table = {
        cells[0]: cells[1:]
        for line in GUIDE.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 3
    }
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pythons = re.findall(r":: (3\.\d+)$", SETUP["metadata"]["classifiers"], re.MULTILINE)
    assert SETUP["options"]["python_requires"] == f">={pythons[0]}"
    assert table["Python"] == [f"{pythons[0]} to {pythons[-1]}", "the machine's `python3`"]
    needs = SETUP["options"]["install_requires"] + SETUP["options.extras_require"]["recbole"]
    bounds = dict(re.findall(r"^(torch|numpy|pandas)>=(\S+)$", needs, re.MULTILINE))
    pinned = dict(re.findall(r"\b(torch|numpy|pandas)==(\S+)", ci))
    for name, bound in bounds.items():
        least, _, most = bound.partition(",<")
        assert table[name][0] == f"{least} or newer" + (f", below {most}" if most else "")
        assert table[name][1] == pinned.get(name, "the newest" + (f" below {most}" if most else ""))
    assert bounds.keys() == {"torch", "numpy", "pandas"}
    assert table["RecBole"] == [RECBOLE_VERSION] * 2
    assert f"recbole=={RECBOLE_VERSION}" in errors.INSTALL


@pytest.mark.parametrize("documented", [AdaptSSRLoss, choose_search], ids=lambda one: one.__name__)
def test_docstrings_say_where_auto_takes_the_kernel(documented, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton_search, "is_installed", lambda: True)
    said = re.search(r"\n +implementation: (.+?)\n +(?:\w+: |\n)", documented.__doc__ + "\n\n", re.DOTALL)[1]
    assert all(f'"{word}": ' in said for word in get_args(Implementation))
    capabilities = {int(number) for number in re.findall(r"compute\s+capability\s+(\d+)", said)}
    cuda = torch.device("cuda")

    def taken(dtype=torch.float32, device=cuda):
        return choose_search("auto", device, dtype) is triton_search.search

    for major in range(6, 14):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, major=major: (major, 0))
        assert taken() == (major in capabilities)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (min(capabilities), 0))
    assert taken()
    assert not taken(device=torch.device("cpu"))
    assert ("float64" in said) == (not taken(torch.float64))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert ("torch.compile" in said) == (not taken())


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


# --- errors ----------------------------------------------------------------------------------------------------------


def test_every_exception_is_named():
    named = (DOCS / "errors.md").read_text(encoding="utf-8")
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, BaseException)]
    assert errors.InputError in classes
    assert not [one.__name__ for one in classes if f"`{one.__name__}`" not in named]


# --- the build -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="sphinx is not installed (extra docs)")
def test_the_pages_build_without_a_warning(tmp_path, monkeypatch, capsys):
    from sphinx.cmd.build import build_main

    words = ["-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "tree", DOCS, tmp_path / "html"]
    monkeypatch.setattr(sys, "path", [*sys.path])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of Sphinx itself
        assert build_main([*map(str, words)]) == 0
    assert capsys.readouterr() == ("", "")
    equations = (tmp_path / "html" / "equations.html").read_text(encoding="utf-8")
    assert equations.count("<math") > 20
    assert "$$" not in equations
    linked = set(re.findall(r'href="api/\w+\.html#(adaptssr_plugin[\w.]+)"', equations))
    assert {name for _, name in ROLES} <= linked
    assert not re.search(r'<(script|link)[^>]+(src|href)="https?:', equations), "a page needs another server"
    commands = (tmp_path / "html" / "commands.html").read_text(encoding="utf-8")
    assert all(f"Usage: adaptssr {name}" in commands for name in cli.commands)
