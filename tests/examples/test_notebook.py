"""The notebook: its cells run from top to bottom, and the outputs that stand in it are theirs."""

import ast
import contextlib
import importlib
import io
import json
import re

import pytest
from core_only import ROOT

NOTEBOOK = ROOT / "examples" / "user_vectors.ipynb"
CONTENT = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CODE = [cell for cell in CONTENT["cells"] if cell["cell_type"] == "code"]
SETTINGS = next(place for place, cell in enumerate(CODE) if "parameters" in cell["metadata"].get("tags", ()))
# In the place of the values that the cell tagged "parameters" gives.
QUICK = {"max_len": 6, "mlm_epochs": 1, "epochs": 1, "splits": 2}


def printed(cell):
    """What a committed cell has written."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def displayed(cell):
    """The value of a committed cell by kind, such as text/html."""
    found = [output["data"] for output in cell["outputs"] if output["output_type"] == "execute_result"]
    return {kind: "".join(text) for data in found for kind, text in data.items()}


def run(cell, namespace):
    """Run a cell as Jupyter does: what it prints, and the value of an expression in its last line."""
    tree = ast.parse("".join(cell["source"]))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(tree, NOTEBOOK.name, "exec"), namespace)
        value = None if last is None else eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), namespace)
    return said.getvalue(), value


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What every cell prints and gives, with settings that take seconds."""
    namespace, results = {"__name__": "notebook"}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        for place, cell in enumerate(CODE):
            results.append(run(cell, namespace))
            if place == SETTINGS:
                assert namespace.keys() >= QUICK.keys()
                namespace.update(QUICK)
    return results


def test_cells_run_and_show_what_is_committed(ran):
    """Before the settings to the letter, after them the same kinds of outputs with the same columns."""
    for place, ((said, value), cell) in enumerate(zip(ran, CODE, strict=True)):
        committed = displayed(cell)
        html = value._repr_html_() if "text/html" in committed else ""
        assert bool(said) == bool(printed(cell)), place
        assert (value is None) == (committed == {}), place
        assert re.findall("<thead>.*?</thead>", html, re.DOTALL) == re.findall(
            "<thead>.*?</thead>", committed.get("text/html", ""), re.DOTALL
        )
        if "image/png" in committed:
            assert value._repr_png_().startswith(b"\x89PNG")
        if place < SETTINGS:
            assert said == printed(cell)


def test_the_committed_outputs_are_those_of_one_run_without_an_error():
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} == {"stdout"}
    kinds = [kind for cell in CODE for kind in displayed(cell)]
    assert kinds.count("text/html") > 4
    assert kinds.count("image/png") == 1


def test_the_notebook_is_small_and_names_no_path_of_a_machine():
    assert NOTEBOOK.stat().st_size < 400_000
    shown = [printed(cell) + displayed(cell).get("text/html", "") for cell in CODE]
    for text in [*shown, *("".join(cell["source"]) for cell in CONTENT["cells"])]:
        assert not re.search(r"(?<![\w.<*/}])/\w[\w.-]*/|[A-Z]:\\", text)


def test_the_notebook_takes_public_names_alone():
    """From modules that list their names, the listed ones."""
    imports = [
        node for cell in CODE for node in ast.parse("".join(cell["source"])).body if isinstance(node, ast.ImportFrom)
    ]
    own = [node for node in imports if node.module.startswith("adaptssr_plugin")]
    assert len(own) > 5
    for node in own:
        module = importlib.import_module(node.module)
        names = {alias.name for alias in node.names}
        assert names <= set(getattr(module, "__all__", names))
        assert not [name for name in names if name.startswith("_") or not hasattr(module, name)]
