"""Tests for :mod:`coda_twisted.client.workers`."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

PROGRAM = """
from twisted.internet.task import react
from coda_twisted.auth.steps import Work
from coda_twisted.client.workers import ThreadWorkers

async def main(reactor):
    print(await ThreadWorkers(reactor).run(Work(lambda: "done")))

react(main, ())
"""


class ShutdownTests(SynchronousTestCase):
    """Workers that nobody has stopped when the program ends."""

    def test_quiet(self) -> None:
        """They end with the reactor, and nothing is complained of."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), ("done\n", ""))
        self.assertEqual(done.returncode, 0)
