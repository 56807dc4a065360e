"""Which part of the package may import which, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import coda_twisted

ROOT = Path(coda_twisted.__file__).parent

PURE = ("auth", "http1")

# Clocks, randomness, the world outside, and logging.  A lock is none of them: work
# that is returned to be run in threads may hold one.
IMPURE = frozenset(
    (
        "asyncio",
        "datetime",
        "logging",
        "os",
        "random",
        "secrets",
        "select",
        "selectors",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "time",
        "twisted",
        "uuid",
    )
)

# From the ground up: a part imports what is below it, and itself.
STOREYS = (
    ("errors", "_version"),
    ("interfaces",),
    ("auth", "http1"),
    ("credentials", "routing"),
    ("sources",),
    ("client",),
    ("oauth",),
    ("adapters", "download", "service"),
    ("commands", "testing"),
    ("__main__",),
)
STOREY = {part: height for height, parts in enumerate(STOREYS) for part in parts}


def is_type_checking(node: ast.AST) -> bool:
    """Tell ``if TYPE_CHECKING:``; what is in it is never run."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Find every module that is imported, at any depth, and where."""
    if is_type_checking(node):
        assert isinstance(node, ast.If)
        for otherwise in node.orelse:
            yield from imports(otherwise)
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield node.lineno, alias.name
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            yield node.lineno, f"{node.module}.{alias.name}"
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


def impurities(source: str) -> list[str]:
    """Find the imports that a pure module may not have."""
    return [
        f"line {line} imports {name}"
        for line, name in imports(ast.parse(source))
        if name.partition(".")[0] in IMPURE
    ]


def part_of(name: str) -> str | None:
    """Name the part of the package in which a module is; ``None`` outside."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "coda_twisted" else None


def upward(part: str, source: str) -> list[str]:
    """Find the imports that point up, or sideways, from a part of the package."""
    return [
        f"line {line} imports {name}"
        for line, name in imports(ast.parse(source))
        if (other := part_of(name)) is not None
        and other != part
        and STOREY.get(other, len(STOREYS)) >= STOREY[part]
    ]


def modules(*parts: str) -> Iterator[tuple[str, Path]]:
    """Find the source files of these parts, packages or modules."""
    for part in parts:
        if (ROOT / part).is_dir():
            for path in sorted((ROOT / part).rglob("*.py")):
                yield part, path
        elif (ROOT / f"{part}.py").exists():
            yield part, ROOT / f"{part}.py"


class PurityTests(SynchronousTestCase):
    """``auth`` and ``http1`` are given all they know of the world."""

    def test_pure(self) -> None:
        """They import no Twisted, clock, randomness, sockets or logging."""
        found = {
            str(path.relative_to(ROOT)): impurities(path.read_text("utf-8"))
            for _, path in modules(*PURE)
        }
        self.assertGreater(len(found), 8)
        self.assertEqual({name: faults for name, faults in found.items() if faults}, {})

    def test_would_be_found(self) -> None:
        """An import is found in any spelling and at any depth; names are not."""
        for source in (
            "import time",
            "import re, os.path",
            "from twisted.internet.defer import Deferred",
            "from os import urandom",
            "def f():\n    import secrets as s",
            "try:\n    pass\nexcept E:\n    from random import random",
            "if TYPE_CHECKING:\n    pass\nelse:\n    import socket",
        ):
            self.assertEqual(len(impurities(source)), 1, source)
        for source in (
            "import re",
            "from coda_twisted.errors import time",
            "import timeit",
            "if TYPE_CHECKING:\n    import twisted",
        ):
            self.assertEqual(impurities(source), [], source)


class DirectionTests(SynchronousTestCase):
    """Imports point one way: from faces to the engine to the ground."""

    def test_downward(self) -> None:
        """No part imports one above or beside it, or the package's own face."""
        found = {
            str(path.relative_to(ROOT)): upward(part, path.read_text("utf-8"))
            for part, path in modules(*STOREY)
        }
        self.assertGreater(len(found), 12)
        self.assertEqual({name: faults for name, faults in found.items() if faults}, {})

    def test_every_part_has_its_storey(self) -> None:
        """A new part of the package must say where it stands."""
        parts = {
            path.stem
            for path in ROOT.iterdir()
            if path.suffix == ".py" or (path / "__init__.py").exists()
        }
        self.assertEqual(parts - {"__init__"} - set(STOREY), set())

    def test_would_be_found(self) -> None:
        """Imports of higher parts, neighbours and the face are found."""
        for part, source in (
            ("errors", "from coda_twisted.interfaces import ICredentials"),
            ("http1", "from coda_twisted.auth.steps import Reply"),
            ("auth", "import coda_twisted.client.pool"),
            ("routing", "from coda_twisted import client"),
            ("client", "from coda_twisted import Agent"),
            (
                "client",
                "def f():\n    from coda_twisted.service.options import Options",
            ),
        ):
            self.assertEqual(len(upward(part, source)), 1, source)
        for part, source in (
            ("client", "from coda_twisted.http1.fields import Fields"),
            ("client", "from coda_twisted.client.pool import Pool"),
            ("http1", "from coda_twisted import errors"),
            ("interfaces", "if TYPE_CHECKING:\n    from coda_twisted.auth import x"),
            ("http1", "from twisted.web import client"),
        ):
            self.assertEqual(upward(part, source), [], source)
