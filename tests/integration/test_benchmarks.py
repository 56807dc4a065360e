"""The benchmarks' command, in its shortest form; no figure is looked at."""

from __future__ import annotations

import json
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.measures import MEASURES
from tests.integration.servers import CHECKOUT, python_environment, workspace


class BenchmarkTests(SynchronousTestCase):
    def test_runs(self) -> None:
        """Each measure of the service gives a figure, and nothing goes wrong."""
        file = workspace() / "benchmarks.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks", "--quick", "--rounds=1"),
                *("--peers=coda", f"--measures={','.join(MEASURES)}", "--rst"),
                f"--json={file}",
            ],
            cwd=CHECKOUT,
            env=python_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )

        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(".. list-table::", done.stdout)
        written = json.loads(file.read_text())
        self.assertEqual(written["faults"], {})
        self.assertEqual(written["rows"], ["no proxy", "coda"])
        columns = {"get_us", "get1_us", "connect_us", "p50_us"}
        columns |= {"tunnel_cpu", "length_cpu", "chunked_cpu"}
        self.assertLessEqual(columns, set(written["figures"]["coda"]))
