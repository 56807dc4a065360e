"""Start the load generator, and have it begin when everybody is ready."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

from tests.integration.servers import CHECKOUT, ServerError, python_environment

__all__ = ["Loader"]


class Loader:
    """
    One run of the load generator.

    :param arguments: As :mod:`benchmarks.load` takes them.
    :param patience: Seconds for all of it.
    """

    def __init__(self, *arguments: object, patience: float = 60.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", *map(str, arguments)],
            cwd=CHECKOUT,
            env=python_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._timer = threading.Timer(patience, self._process.kill)
        self._timer.daemon = True
        self._timer.start()

    def await_ready(self) -> None:
        """
        Wait until it is connected and warm, or has what it is to hold.

        :raises ServerError: It has failed; the text is its last line.
        """
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._fail()

    def go(self) -> None:
        """Let it work."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """
        Wait for what it has done.

        :raises ServerError: As :meth:`await_ready`.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("{"):
            self._fail()
        self.close()
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        self._timer.cancel()
        self._process.kill()
        self._process.communicate()

    def _fail(self) -> None:
        _, errors = self._process.communicate()
        self._timer.cancel()
        lines = errors.strip().splitlines()
        raise ServerError(lines[-1] if lines else "the load generator was too slow")
