"""The example of docs/testing.rst, run as a user would run it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "testing_ntlm.py"


class ExampleTests(SynchronousTestCase):
    """A trial suite of somebody else's."""

    def test_passes(self) -> None:
        """It stands up a proxy in memory, and its one test passes."""
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [sys.executable, "-m", "twisted.trial", str(EXAMPLE)],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        self.assertIn("PASSED (successes=1)", done.stdout, done.stderr)
