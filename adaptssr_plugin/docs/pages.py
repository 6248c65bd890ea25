"""What the pages take from the code: the help of the commands, and formulas as MathML."""

import inspect
from collections.abc import Sequence
from typing import Any

import click
from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from adaptssr_plugin.cli.main import cli
from adaptssr_plugin.cli.options import help_of_all_options


class Commands(SphinxDirective):
    """``adaptssr-commands``: the help of every command."""

    def run(self) -> Sequence[nodes.Node]:
        """Write the sections."""
        return self.parse_text_to_nodes(commands_text(), allow_section_headings=True)


def commands_text() -> str:
    """Write the page's Markdown."""
    parts = []
    for name, command in sorted(cli.commands.items()):
        context = click.Context(command, info_name=f"adaptssr {name}", max_content_width=110, terminal_width=110)
        parts.append(f"## {name}\n\n```text\n{help_of_all_options(context)}\n```")
    return "\n\n".join(parts)


def mathml(formula: str, block: bool) -> str:
    """Turn a formula of LaTeX into MathML, which browsers draw by themselves.

    Raises:
        SyntaxError: a formula that docutils does not understand.
    """
    takes = inspect.signature(latex2mathml.tex2mathml).parameters
    shape = {"as_block": block} if "as_block" in takes else {"inline": not block}  # by the version of docutils
    try:
        text: str = latex2mathml.tex2mathml(formula, **shape)
    except SyntaxError as error:
        raise SyntaxError(f"{error} in {formula!r}") from None
    return text


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{mathml(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def _find_by_last_name(app: Sphinx, env: Any, node: Any, text: nodes.Element) -> nodes.Element | None:
    """Resolve a reference such as ``:class:`UserEncoder``` to its object in another package, if the name is unique."""
    if node.get("refdomain") != "py":
        return None
    last = node["reftarget"].rpartition(".")[2]
    objects = env.get_domain("py").objects
    found = [entry for name, entry in objects.items() if name.rpartition(".")[2] == last and entry.objtype != "method"]
    if len(found) != 1:
        return None
    return make_refnode(app.builder, node["refdoc"], found[0].docname, found[0].node_id, text)


class _Attributes:
    """Keeps napoleon from taking what stands before a colon in the text of an attribute for its type."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}

    def keep(self, _app: Sphinx, what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
        if what in ("attribute", "property") and not any(line.rstrip().endswith(":") for line in lines):
            self.texts[name] = list(lines)

    def put_back(self, _app: Sphinx, what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
        if what in ("attribute", "property") and name in self.texts:
            lines[:] = self.texts[name]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of it."""
    app.add_directive("adaptssr-commands", Commands)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("missing-reference", _find_by_last_name)
    attributes = _Attributes()
    app.connect("autodoc-process-docstring", attributes.keep, priority=100)  # napoleon comes at 500
    app.connect("autodoc-process-docstring", attributes.put_back, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
