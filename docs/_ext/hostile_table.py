"""
The tables of ``tests/hostile``, as the documentation shows them.

``.. hostile:: requests`` and ``.. hostile:: responses`` become a section with a table
for each family: what is sent, what we do, and the sections of RFC 9110 and 9112 that
have it so.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_HEADS = ("What is sent", "What coda does", "RFC")
_WIDTHS = (40, 40, 20)


class Hostile(SphinxDirective):
    """``.. hostile:: requests``, or ``responses``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the tables."""
        name = self.arguments[0]
        module = import_module(f"tests.hostile.{name}")
        self.env.note_dependency(str(module.__file__))
        table: dict[str, list[Any]] = getattr(module, name.upper())
        return [self._section(name, family, rows) for family, rows in table.items()]

    def _section(self, name: str, family: str, rows: list[Any]) -> nodes.Node:
        section = nodes.section(ids=[nodes.make_id(f"{name}-{family}")])
        section += nodes.title(text=family)
        group = nodes.tgroup(cols=len(_HEADS))
        group += [nodes.colspec(colwidth=width) for width in _WIDTHS]
        group += nodes.thead("", _row(_HEADS))
        body = nodes.tbody()
        body += [_row((row.name, row.outcome(), row.why)) for row in rows]
        group += body
        table = nodes.table("", group)
        section += table
        return section


def _row(texts: tuple[str, ...]) -> nodes.row:
    entries = [nodes.entry("", nodes.paragraph(text=text)) for text in texts]
    return nodes.row("", *entries)


def setup(app: Sphinx) -> dict[str, bool]:
    """Teach Sphinx the directive."""
    app.add_directive("hostile", Hostile)
    return {"parallel_read_safe": True}
