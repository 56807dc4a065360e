"""The documentation's examples of tests, run as they stand."""

from __future__ import annotations

import ast
import re
import runpy
import unittest
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import coda_twisted.testing
from coda_twisted.testing.checkpoint import SCHEMES

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = DOCS / "examples"


class ExampleTests(SynchronousTestCase):
    """Whoever copies an example has a test that passes."""

    def passes(self, name: str, tests: int) -> None:
        """Run the tests of one file; there are so many."""
        classes = [
            each
            for each in runpy.run_path(str(EXAMPLES / name)).values()
            if isinstance(each, type)
            and issubclass(each, SynchronousTestCase)
            and each is not SynchronousTestCase
        ]
        suite = unittest.TestSuite(
            map(unittest.defaultTestLoader.loadTestsFromTestCase, classes)
        )
        result = unittest.TestResult()
        suite.run(result)
        self.assertEqual(result.errors + result.failures, [])
        self.assertEqual(result.testsRun, tests)

    def test_ntlm(self) -> None:
        """The first one a reader sees."""
        self.passes("testing_ntlm.py", 1)

    def test_quirks(self) -> None:
        """The one about all the rest."""
        self.passes("testing_quirks.py", 3)

    def test_short(self) -> None:
        """An NTLM proxy is there within three lines, a test of it in five."""
        tree = ast.parse((EXAMPLES / "testing_ntlm.py").read_text("utf-8"))
        functions = {
            each.name: len(each.body)
            for each in ast.walk(tree)
            if isinstance(each, ast.FunctionDef)
        }
        self.assertEqual(functions, {"setUp": 3, "test_gets_through": 5})

    def test_shown(self) -> None:
        """The page shows every example, and names every scheme and class."""
        page = (DOCS / "testing.rst").read_text("utf-8")
        shown = set(re.findall(r"literalinclude:: examples/(\S+)", page))
        self.assertEqual(shown, {path.name for path in EXAMPLES.glob("testing_*.py")})
        for name in (*SCHEMES, *coda_twisted.testing.__all__):
            self.assertIn(name, page)
