"""What is installed, what importing it needs, and which room may import which."""

import ast
import doctest
import functools
import graphlib
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import torch
from core_only import EXTRA, ROOT, run_python, run_with_core_only
from document_cases import CORE_ROOMS, ROOMS, SETUP
from packaging.requirements import Requirement
from packaging.version import Version
from wheel_cases import build_wheel

import adaptssr_plugin
from adaptssr_plugin.cli.main import cli
from adaptssr_plugin.errors import INSTALL

PACKAGE = ROOT / "adaptssr_plugin"
DOCS = PACKAGE / "docs"  # pages, and what builds them: no part of the package

FOR_ALL = {"devices", "errors", "seeding", "progress"}  # modules beside the rooms; none imports a room
THIRD_PARTIES = {
    "functional": {"torch", "triton"},
    "distributed": {"torch"},
    "losses": {"torch"},
    "augment": {"torch", "numpy"},
    "encoders": {"torch", "numpy"},
    "corpus": {"torch", "numpy", "pyarrow", "scipy", "safetensors"},
    "training": {"torch", "numpy", "safetensors"},
    "methods": {"torch", "numpy", "yaml"},
    "downstream": {"torch", "numpy", "scipy", "sklearn", "threadpoolctl"},
    "recbole": {"torch", "numpy", "recbole", "pandas", "safetensors", "yaml"},
    "experiments": {"torch", "numpy", "matplotlib"},
    "cli": {"click"},
    "devices": {"torch"},
    "errors": set(),
    "seeding": {"torch"},
    "progress": {"tqdm"},
    "__init__": set(),
    "__main__": set(),
}


def modules():
    """Every module of the package by its dotted name."""
    found = ["adaptssr_plugin"]
    found += [module.name for module in pkgutil.walk_packages([str(PACKAGE)], "adaptssr_plugin.")]
    return [name for name in found if not name.endswith("__main__")]


# --- imports -----------------------------------------------------------------------------------------------


def statements(tree, run_only):
    """Every node of a file; ``run_only``: without what stands there for type checkers alone."""
    yield tree
    for node in ast.iter_child_nodes(tree):
        if not (run_only and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from statements(node, run_only)


def imports_of(path, run_only=False):
    """Full dotted names that a file imports, anywhere in it, in functions too; relative ones made absolute."""
    package = ("adaptssr_plugin", *path.relative_to(PACKAGE).parts[:-1])
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), run_only):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join(filter(None, (*above, node.module)))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def module_files():
    return sorted({*PACKAGE.rglob("*.py")} - {*DOCS.rglob("*.py")})


@functools.cache
def rooms():
    """(room or module beside the rooms, names imported in it) for every file."""
    place_of = {path: path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in module_files()}
    return [(place, sorted(set(imports_of(path)))) for path, place in place_of.items()]


@pytest.mark.parametrize("room", THIRD_PARTIES)
def test_a_room_imports_only_the_third_parties_that_it_may(room):
    imported = {name.partition(".")[0] for place, names in rooms() for name in names if place == room}
    assert imported or room == "errors"
    assert imported - sys.stdlib_module_names - {"adaptssr_plugin"} <= THIRD_PARTIES[room]


def test_every_room_is_listed():
    assert {place for place, _ in rooms()} == THIRD_PARTIES.keys() == {*ROOMS, *FOR_ALL, "__init__", "__main__"}


@pytest.mark.parametrize(("only", "room"), [("recbole", "recbole"), ("matplotlib", "experiments"), ("click", "cli")])
def test_imported_in_one_room_only(only, room):
    assert {place for place, names in rooms() if any(name.partition(".")[0] == only for name in names)} == {room}


@pytest.mark.parametrize("room", [*ROOMS, *sorted(FOR_ALL)])
def test_arrows_between_rooms_point_one_way(room):
    before = set(ROOMS[: ROOMS.index(room)]) | {room} if room in ROOMS else set()
    own = {name.split(".")[1] for place, names in rooms() for name in names if place == room and is_own(name)}
    assert own <= before | FOR_ALL | {"__version__"}


def is_own(name):
    return name.startswith("adaptssr_plugin.")


def imports_between_modules():
    """The modules of the package that each of them imports, by dotted names."""
    dotted = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in module_files()}
    names = {path: name.removesuffix(".__init__") for path, name in dotted.items()}
    known = set(names.values())
    imported = {}
    for path, name in names.items():
        found = {own if own in known else own.rpartition(".")[0] for own in imports_of(path, run_only=True)}
        imported[name] = found & known
    return imported


def test_no_modules_import_one_another():
    imported = imports_between_modules()
    assert "adaptssr_plugin.recbole.user_model.warm_start" in imported["adaptssr_plugin.recbole.user_model.pretrain"]
    assert "adaptssr_plugin.cli.run" in imported["adaptssr_plugin.cli.main"]  # in a function
    graphlib.TopologicalSorter(imported).prepare()  # which names a circle if there is one


IMPORT_EVERYTHING = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(name, *blocker.asked)
try:
    import scipy.stats
except ImportError as error:
    print(error)
from adaptssr_plugin.__main__ import main
main()
"""


def test_the_core_needs_torch_and_numpy_alone():
    """Nothing of the extra is even asked for, until a function that needs it is called; the command says what to do."""
    core = ["adaptssr_plugin", *(f"adaptssr_plugin.{room}" for room in [*CORE_ROOMS, "experiments"])]
    done = run_with_core_only(IMPORT_EVERYTHING, *core)
    assert done.stdout.splitlines() == [*core, "No module named 'scipy'"], done.stderr
    assert done.returncode == 2
    assert done.stderr == f"adaptssr: the commands need click, which is not installed; {INSTALL}\n"


def requirement_lines(text):
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def test_the_blocker_covers_the_extra():
    named = {Requirement(line).name for line in requirement_lines(SETUP["options.extras_require"]["recbole"])}
    assert (named - {"setuptools"}) | {"recbole"} == EXTRA.keys()


def test_the_extra_has_what_recbole_requires_but_ray():
    """With RecBole's own bounds, or narrower ones: pip sees to neither after ``--no-deps``."""
    options = [SETUP["options.extras_require"]["recbole"], SETUP["options"]["install_requires"]]
    ours = {one.name: one.specifier for text in options for one in map(Requirement, requirement_lines(text))}
    theirs = [one for one in map(Requirement, importlib.metadata.requires("recbole")) if not one.marker]
    assert {one.name for one in theirs} - ours.keys() == {"ray"}
    for one in theirs:
        if one.name != "ray":
            lowest = min((bound.version for bound in ours[one.name] if bound.operator in (">=", "==")), key=Version)
            assert lowest in one.specifier, one


def test_classifiers_name_the_tested_pythons():
    named = re.findall(r"Python :: (3\.\d+)$", SETUP["metadata"]["classifiers"], re.MULTILINE)
    assert named == [f"3.{minor}" for minor in range(10, 15)]
    assert SETUP["options"]["python_requires"] == f">={named[0]}"
    for page in (ROOT / "README.md", DOCS / "guide.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert f"Python from {named[0]} to {named[-1]}" in text


def test_the_import_takes_no_time_beside_that_of_torch():
    limit, shares = 0.15, []
    while len(shares) < 3 and min(shares, default=1) > limit:  # the machine may be doing other things
        done = run_python("-X", "importtime", "-c", "import adaptssr_plugin")
        own = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+adaptssr_plugin", done.stderr, re.MULTILINE)
        (torch_s,) = re.findall(r"^import time:\s+\d+ \|\s+(\d+) \|\s+torch$", done.stderr, re.MULTILINE)
        assert len(own) > 20, done.stderr
        shares.append(sum(map(int, own)) / int(torch_s))
    assert min(shares) < limit, shares


# --- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", modules())
def test_public_names_exist_and_are_described(name):
    module = importlib.import_module(name)
    assert inspect.getdoc(module)
    public = getattr(module, "__all__", ())
    assert len(set(public)) == len(public)
    for exported in public:
        described = getattr(module, exported)
        text = inspect.getdoc(described) or ""
        assert text, exported
        assert not text.startswith(f"{exported}("), f"{exported}: only what Python writes by itself"


def test_every_room_but_the_commands_exports_something():
    for room in set(ROOMS) - {"cli"}:
        assert importlib.import_module(f"adaptssr_plugin.{room}").__all__, room


def test_examples_in_docstrings_run():
    """In a namespace of the public names, torch, and a small batch."""
    names = {name: getattr(adaptssr_plugin, name) for name in adaptssr_plugin.__all__} | {
        "torch": torch,
        "n_items": 20,
        "item_seq": torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]]),
        "item_seq_len": torch.tensor([4, 2]),
        "generator": torch.Generator().manual_seed(0),
    }
    ran = {}
    for name in modules():
        results = doctest.testmod(importlib.import_module(name), extraglobs=names)
        assert results.failed == 0, name
        ran[name] = results.attempted
    assert ran["adaptssr_plugin.losses.adaptssr"] > 0


# --- the wheel ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the sources, in which files lie about that do not belong into it."""
    strays = ("adaptssr_plugin/notes.txt", "adaptssr_plugin/corpus/data.inter", "setup_notes.py")
    return build_wheel(tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel"), strays)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("target")
    done = run_python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    assert done.returncode == 0, done.stderr
    return target


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    patterns = ("*.py", "*.yaml", "py.typed")
    inside = {path for pattern in patterns for path in PACKAGE.rglob(pattern)} - {*DOCS.rglob("*")}
    expected = {path.relative_to(ROOT).as_posix() for path in inside}
    about = f"adaptssr_plugin-{adaptssr_plugin.__version__}.dist-info"
    expected |= {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt")}
    expected |= {f"{about}/licenses/LICENSE"}
    assert wheel.name == f"adaptssr_plugin-{adaptssr_plugin.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert sorted(archive.namelist()) == sorted(expected)
        assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        metadata = Parser().parsestr(archive.read(f"{about}/METADATA").decode())
        assert archive.read(f"{about}/top_level.txt").decode().split() == ["adaptssr_plugin"]
    assert metadata["Version"] == adaptssr_plugin.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    core = [requirement for requirement in metadata.get_all("Requires-Dist") if "extra" not in requirement]
    assert sorted(re.split(r"[<>=]", requirement)[0] for requirement in core) == ["numpy", "torch"]
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_version_is_written_once():
    """Read by the build from the source text, without importing torch."""
    assert SETUP["metadata"]["version"] == "attr: adaptssr_plugin.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", adaptssr_plugin.__version__)


def test_the_changelog_has_the_version_and_every_command():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *others = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert first == "Unreleased"
    newest = text.partition("## [Unreleased]")[2].partition("\n## ")[0]
    assert adaptssr_plugin.__version__ in (others[0] if others else newest)
    (listed,) = re.findall(r"^- The command `adaptssr`: (.+)\.$", text, re.MULTILINE)
    assert set(listed.replace("`", "").split(", ")) == cli.commands.keys()


FROM_THE_WHEEL = """
import runpy, sys
from pathlib import Path
import torch
import adaptssr_plugin
from adaptssr_plugin import AdaptSSRLoss, methods
print(Path(adaptssr_plugin.__file__).parent)
loss = AdaptSSRLoss()(*torch.randn(4, 8, 16).unbind())
print(0 < float(loss) < 5)
print(methods.available(), methods.recipe("adaptssr").mask_ratio)
sys.argv = ["adaptssr", "--version"]
runpy.run_module("adaptssr_plugin", run_name="__main__")
"""


def test_the_wheel_works_outside_the_checkout(installed, tmp_path):
    done = run_python("-c", FROM_THE_WHEEL, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    place, plausible, recipe, version = done.stdout.splitlines()
    assert Path(place) == installed / "adaptssr_plugin"
    assert plausible == "True"
    assert recipe == f"{adaptssr_plugin.methods.available()} 0.6"
    assert version == f"adaptssr, version {adaptssr_plugin.__version__}"
    assert (installed / "bin" / "adaptssr").exists() or (installed / "Scripts").exists()
