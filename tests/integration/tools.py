"""
Where the programs are that these tests need.

One that is not installed makes a test skip itself; with ``CODA_REQUIRE_TOOLS=1``
in the environment the test fails.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
from collections.abc import Sequence
from pathlib import Path
from unittest import SkipTest

__all__ = [
    "SEARCHED",
    "MissingToolError",
    "drop_to",
    "find",
    "require",
    "require_files",
    "require_modules",
]

# Daemons and their helpers are not on an ordinary user's PATH.
SEARCHED = (
    *os.environ.get("PATH", os.defpath).split(os.pathsep),
    "/usr/sbin",
    "/sbin",
    "/usr/lib/squid",
    "/usr/lib64/squid",
    "/usr/libexec/squid",
    "/usr/lib/git-core",
    "/usr/libexec/git-core",
)


class MissingToolError(Exception):
    """A program or module is not installed, and ``CODA_REQUIRE_TOOLS`` is set."""


def find(tool: str) -> str | None:
    """Where the program *tool* is, or ``None``."""
    return shutil.which(tool, path=os.pathsep.join(SEARCHED))


def require(*tools: str) -> list[str]:
    """
    Find all of *tools*.

    :returns: Their paths, in order.
    :raises SkipTest: Some are not installed.
    :raises MissingToolError: The same, under ``CODA_REQUIRE_TOOLS=1``.
    """
    found = {tool: find(tool) for tool in tools}
    _refuse([tool for tool, path in found.items() if path is None])
    return [path for path in found.values() if path is not None]


def require_files(*paths: Path) -> None:
    """Skip or fail, as :func:`require`, unless all of *paths* exist."""
    _refuse([str(path) for path in paths if not path.exists()])


def require_modules(*names: str) -> None:
    """Skip or fail, as :func:`require`, unless all modules *names* are there."""
    _refuse([name for name in names if importlib.util.find_spec(name) is None])


def _refuse(missing: Sequence[str]) -> None:
    if not missing:
        return
    message = f"not installed: {', '.join(missing)}"
    if os.environ.get("CODA_REQUIRE_TOOLS") == "1":
        raise MissingToolError(message)
    raise SkipTest(message)


def drop_to(*users: str) -> str | None:
    """
    The first of *users* that exists, if we are root and a server must drop to one.

    :returns: ``None`` when we are not root: then servers run as ourselves.
    """
    if os.geteuid() == 0:
        for user in (*users, "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(user).pw_name
    return None
