"""Every message of an exception of this package's own, read from the source text: nothing is imported or run."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1]


class Message(NamedTuple):
    """What an exception says."""

    error: str
    """Class of the exception."""
    template: str
    """The message; ``‹name›`` and … stand for what is filled in."""
    where: str
    """File, from the package on."""
    line: int


def error_classes() -> dict[str, str]:
    """Read the exceptions of ``errors.py``, and what each is for."""
    tree = ast.parse((PACKAGE / "errors.py").read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: ast.get_docstring(node) or "" for node in classes}


def messages(package: Path = PACKAGE) -> list[Message]:
    """Read all messages in the files of a folder, in their order."""
    classes = error_classes().keys()
    found: list[Message] = []
    paths = [path for path in sorted(package.rglob("*.py")) if not path.is_relative_to(PACKAGE / "docs")]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    constants = {name: value for tree in trees.values() for name, value in _constants(tree)}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) in classes and node.args:
                where = path.relative_to(package).as_posix()
                found.append(Message(_name(node.func), _template(node.args[0], constants), where, node.lineno))
    return found


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _template(node: ast.expr, constants: dict[str, ast.expr]) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(value, constants) for value in node.values)
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.BinOp):
        return _template(node.left, constants) + _template(node.right, constants)
    if isinstance(node, ast.FormattedValue):
        return f"‹{node.value.id}›" if isinstance(node.value, ast.Name) else "…"
    if _name(node) in constants:
        return _template(constants[_name(node)], {})
    return "…"
