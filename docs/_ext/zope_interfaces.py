"""
What autodoc does not know of zope's interfaces.

``.. autointerface:: module.IName`` documents one, with its own methods and
attributes; and in signatures an interface is written as its name.
"""

from __future__ import annotations

import re
from importlib import import_module
from inspect import cleandoc
from typing import Any

from docutils.nodes import Element, Node
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from zope.interface import Interface
from zope.interface.interface import Method

# How a signature shows an interface; "~" makes Sphinx print the last name only.
_REPR = re.compile(r"<InterfaceClass ([\w.]+)>")


class AutoInterface(SphinxDirective):
    """``.. autointerface:: module.IName``."""

    required_arguments = 1

    def run(self) -> list[Node]:
        """Write the interface down as a class, and let Sphinx read that."""
        module, _, name = self.arguments[0].rpartition(".")
        text = StringList(
            _described(getattr(import_module(module), name), module, name),
            source=self.arguments[0],
        )
        # A docstring's file is a dependency: the page is made anew when it changes.
        self.env.note_dependency(str(import_module(module).__file__))
        container = Element()
        container.document = self.state.document
        self.state.nested_parse(text, self.content_offset, container)
        return list(container.children)


def _described(interface: Any, module: str, name: str) -> list[str]:
    bases = [base.__name__ for base in interface.__bases__ if base is not Interface]
    lines = [f".. py:class:: {name}", f"   :module: {module}", ""]
    if bases:
        lines += [f"   Bases: {', '.join(f'``{base}``' for base in bases)}", ""]
    lines += _indented(interface.__doc__, 3)
    for member, description in interface.namesAndDescriptions():
        if isinstance(description, Method):
            lines.append(
                f"   .. py:method:: {member}{description.getSignatureString()}"
            )
        else:
            lines.append(f"   .. py:attribute:: {member}")
        lines += ["", *_indented(description.__doc__, 6)]
    return lines


def _indented(docstring: str, width: int) -> list[str]:
    text = cleandoc(docstring).splitlines()
    return [f"{' ' * width}{line}".rstrip() for line in text] + [""]


def name_interfaces(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Replace the ``repr`` of interfaces in a signature by their names."""
    return (
        signature and _REPR.sub(r"~\1", signature),
        returns and _REPR.sub(r"~\1", returns),
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive and the correction."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("autointerface", AutoInterface)
    app.connect("autodoc-process-signature", name_interfaces)
    return {"parallel_read_safe": True}
