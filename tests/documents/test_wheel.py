"""The wheel in an empty environment, away from the checkout: first with torch alone, then with the recbole extra.

One environment for both, since torch takes longest to install: the tests of the core come first, in the order of the
file. It needs the package index that pip is set up for.
"""

import json
import re
import shutil

import pytest
import torch
from core_only import EXTRA, ROOT
from document_cases import (
    GUIDE,
    GUIDE_CORE,
    README,
    README_CORE,
    SHORT_RUN,
    blocks,
    documented_commands,
    shell_commands,
    shortened,
    write_what_the_guide_has,
)
from example_cases import SHARES
from wheel_cases import Environment, build_wheel

import adaptssr_plugin
from adaptssr_plugin.errors import INSTALL
from adaptssr_plugin.experiments.compare.plan import packaged_plans
from adaptssr_plugin.methods import available, presets
from adaptssr_plugin.recbole.requirements import RECBOLE_VERSION

pytestmark = [pytest.mark.slow, pytest.mark.wheel]  # .ci/run asks for the second

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
# What an error says, and README and guide do: in a clone. Here the wheel stands in the clone's place.
STEPS = list(shell_commands(INSTALL.split("`")[1]))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Working directory with a copy of the examples and the reader's own files."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    write_what_the_guide_has(folder)
    lines = [f"user{row} " + " ".join(str(1 + (row + 3 * step) % 40) for step in range(6)) for row in range(61)]
    (folder / "users.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def core(wheel, place, tmp_path_factory):
    """Torch, of the version that runs here, and the wheel."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    environment.pip_install(f"torch=={torch.__version__.partition('+')[0]}", cwd=place)
    environment.pip_install(wheel, cwd=place)
    return environment


@pytest.fixture(scope="module")
def full(core, wheel, place):
    """The README's way to all that the commands use, the wheel in the place of the clone."""
    for words in STEPS:
        kept = [word for word in words[2:] if word != "-e"]
        core.pip_install(*(word.replace(".[", f"{wheel}[", 1) for word in kept), cwd=place)
    return core


def script(place, name, codes):
    """A file of blocks of code, which may write to ``folder``."""
    (place / f"{name}-files").mkdir(exist_ok=True)
    first = f"from pathlib import Path\n\nimport torch\n\nfolder = Path('{name}-files')\ntorch.manual_seed(0)"
    (place / f"{name}.py").write_text("\n\n".join([first, *codes]), encoding="utf-8")
    return f"{name}.py"


# --- the core: torch, numpy and the wheel ----------------------------------------------------------------------------

WHERE = "import adaptssr_plugin; print(adaptssr_plugin.__version__, adaptssr_plugin.__file__)"
MISSING = f"""
from importlib.util import find_spec
print([name for name in {sorted(EXTRA.values())} if find_spec(name)])
"""


def test_the_package_is_that_of_the_wheel(core, place):
    version, file = core.succeed("python", "-c", WHERE, cwd=place).split(maxsplit=1)
    assert version == adaptssr_plugin.__version__
    assert file.startswith(str(core.folder))
    assert "site-packages" in file


def test_nothing_of_the_extra_comes_with_the_core(core, place):
    """Otherwise the tests below would show nothing; and they have to come before those of the extra."""
    assert core.succeed("python", "-c", MISSING, cwd=place) == "[]\n"


def test_own_trainer_runs_with_the_core(core, place):
    said = core.succeed("python", "examples/own_trainer.py", "users.txt", "--epochs", 1, "--device", "cpu", cwd=place)
    assert [line.partition(":")[0] for line in said.splitlines()] == ["before", "epoch 1", "after"]


@pytest.mark.parametrize(("page", "text"), [("readme", README_CORE), ("guide", GUIDE_CORE)])
def test_snippets_of_the_loss_run_with_the_core(core, place, page, text):
    codes = blocks("python", text)
    assert codes
    core.succeed("python", script(place, f"{page}-core", codes), cwd=place)


@pytest.mark.parametrize("words", [["adaptssr", "--help"], ["python", "-m", "adaptssr_plugin", "quickstart"]])
def test_a_command_says_in_one_line_what_to_install(core, place, words):
    done = core.run(*words, cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"adaptssr: the commands need click, which is not installed; {INSTALL}\n"


EACH = """
import runpy, sys, traceback
names = sys.argv[1:]
for name in names:
    sys.argv = [name]
    try:
        runpy.run_path(f"examples/{name}", run_name="__main__")
    except SystemExit as leaving:
        assert leaving.code
    except ImportError:
        traceback.print_exc()
    print("--- end", file=sys.stderr)
"""


def test_examples_end_with_what_they_lack(core, place):
    done = core.run("python", "-c", EACH, *EXAMPLES, cwd=place)
    said = done.stderr.split("--- end\n")[:-1]
    assert (done.returncode, len(said)) == (0, len(EXAMPLES)), done.stderr
    for name, text in zip(EXAMPLES, said, strict=True):
        assert ("lightning" if name == "lightning_module.py" else "recbole") in text.splitlines()[-1].lower()


# --- with the extra --------------------------------------------------------------------------------------------------

LISTS = """
from adaptssr_plugin.experiments.compare.plan import packaged_plans, read_plan
from adaptssr_plugin.experiments.compare_losses import packaged_loss_plans, read_loss_plan
from adaptssr_plugin.methods import available, presets, recipe
print(available(), presets(), packaged_plans())
for method in available():
    recipe(method)
for preset in presets():
    recipe("cl4srec", preset)
for plan in packaged_plans():
    read_plan(plan)
for plan in packaged_loss_plans():
    read_loss_plan(plan)
"""


def test_the_commands_introduce_themselves(full, place):
    assert full.succeed("adaptssr", "--help", cwd=place).startswith("Usage: adaptssr")
    assert full.succeed("adaptssr", "--version", cwd=place) == f"adaptssr, version {adaptssr_plugin.__version__}\n"
    checked = full.run("python", "-m", "pip", "check", cwd=place).stdout
    assert checked == f"recbole {RECBOLE_VERSION} requires ray, which is not installed.\n"  # and nothing else


def test_methods_presets_and_plans_are_found(full, place):
    said = full.succeed("python", "-c", LISTS, cwd=place)
    assert said == f"{available()} {presets()} {packaged_plans()}\n"


@pytest.mark.parametrize(("page", "text"), [("readme", README), ("guide", GUIDE)])
def test_all_snippets_run(full, place, page, text):
    full.succeed(
        "python", script(place, page, blocks("python", text)), *(SHORT_RUN if page == "readme" else []), cwd=place
    )


ONE_AFTER_ANOTHER = """
import json, sys
from adaptssr_plugin.cli.main import main
commands = json.loads(sys.argv.pop())
for words in commands:
    print("$ adaptssr", *words, file=sys.stderr, flush=True)
    main(words)
"""


def test_the_commands_of_the_pages_run(full, place):
    """In the pages' order, in one folder: a command needs what those before it have written. In one process."""
    commands = [shortened(words) for words in documented_commands()]
    done = full.run("python", "-c", ONE_AFTER_ANOTHER, json.dumps(commands), cwd=place)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("$ adaptssr ") == len(commands)


# --- the examples ----------------------------------------------------------------------------------------------------

WORDS = {
    "own_trainer.py": "--epochs 1 --max-len 5",
    "own_method.py": "--epochs 1",
    "embed_and_search.py": "adaptssr-search --epochs 1",
    "recbole_swap_cl.py": "--sequences users.txt --users 30 --epochs 1 --seeds 1 --max-len 5",
}


@pytest.mark.parametrize("name", WORDS)
def test_an_example_runs(full, place, name):
    assert full.succeed("python", f"examples/{name}", *WORDS[name].split(), cwd=place)


def test_what_needs_more_runs_with_it(full, place):
    """Lightning for its module, and faiss for the search, which finds whom the search in torch finds."""
    words = ["examples/embed_and_search.py", "adaptssr-search", "--users", "9"]
    by_torch = full.succeed("python", *words, cwd=place)
    full.pip_install("lightning", "faiss-cpu", cwd=place)
    by_faiss = full.succeed("python", *words, cwd=place)
    assert by_faiss == by_torch.replace("searched by torch", "searched by faiss") != by_torch
    said = full.succeed(
        "python", "examples/lightning_module.py", "--epochs", 1, "--max-len", 5, "--accelerator", "cpu", cwd=place
    )
    for when in ("before", "after"):
        assert re.search(SHARES.format(when), said, re.MULTILINE), said


def test_every_example_is_run():
    assert {*WORDS, "lightning_module.py"} == {*EXAMPLES}
