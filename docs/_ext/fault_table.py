"""``.. fault-table::``: the faults that the tests inject, as a table."""

from __future__ import annotations

from docutils.nodes import Element, Node
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tests.integration import faults

_HEAD = """\
.. list-table::
   :header-rows: 1
   :widths: 18 44 38

   * - Step
     - Fault
     - The client sees
"""


class FaultTable(SphinxDirective):
    """The table, in the order in which its rows are played."""

    def run(self) -> list[Node]:
        """Write it as text, and have that read."""
        self.env.note_dependency(faults.__file__)
        lines, last = _HEAD.splitlines(), ""
        for fault in faults.FAULTS:
            step = "" if fault.step == last else fault.step
            last = fault.step
            lines += [f"   * - {step}", f"     - {fault.what}", f"     - {fault.seen}"]
        container = Element()
        self.state.nested_parse(StringList(lines, source=faults.__file__), 0, container)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known."""
    app.add_directive("fault-table", FaultTable)
    return {"parallel_read_safe": True}
