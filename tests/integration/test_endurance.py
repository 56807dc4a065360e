"""The short forms of the measurements of endurance, and what they rest on."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.client.dial import Dialled
from coda_twisted.client.pace import LARGE, SMALL, UNSENT, buffer, write
from tests.integration.servers import CHECKOUT, python_environment
from tests.integration.tools import require_files


class ShortFormTests(SynchronousTestCase):
    """Each is run as its documentation says, but for less long."""

    def setUp(self) -> None:
        require_files(Path("/proc/self/smaps_rollup"), Path("/proc/self/schedstat"))

    def run_it(self, *command: str) -> str:
        """Run a measurement; all of its bounds are kept."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=CHECKOUT,
            env=python_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        said = f"{done.stdout}\n{done.stderr[-4000:]}"
        self.assertEqual(done.returncode, 0, said)
        self.assertNotIn("Traceback", done.stderr)
        return done.stdout

    def test_bounded(self) -> None:
        """What stalls, and what never ends, is held in little memory."""
        shown = self.run_it("benchmarks.bounded", "--transfers", "50", "--growth", "4")
        self.assertIn("interim responses", shown)

    def test_slowloris(self) -> None:
        """Slow clients are given up on, and cost next to nothing until then."""
        # The bound is not for machines on which much else goes on.
        options = ("--slow", "200", "--turns", "12", "--ratio", "1.5")
        shown = self.run_it("benchmarks.slowloris", *options)
        self.assertIn("with 200 slow", shown)

    def test_idle(self) -> None:
        """Idle tunnels cost no processor time."""
        options = ("--tunnels", "500", "--seconds", "3", "--each", "12")
        shown = self.run_it("benchmarks.idle", *options)
        self.assertIn("timers with them", shown)

    def test_soak(self) -> None:
        """Mixed traffic leaves nothing behind, and gets the right answers."""
        shown = self.run_it("benchmarks.soak", "--minutes", "0.5")
        found = re.search(r"^(\d+) exchanges in", shown, re.MULTILINE)
        assert found is not None
        self.assertGreater(int(found[1]), 200)


class Source:
    """Counts what a transport tells its producer."""

    def __init__(self) -> None:
        self.paused = 0
        self.resumed = 0

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None:
        """Nothing is left to stop."""


class KernelTests(SynchronousTestCase):
    """The kernel's buffers, and Twisted's connection over them."""

    def setUp(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listening:
            self.near = socket.create_connection(listening.getsockname())
            self.far, _ = listening.accept()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.loop = MemoryReactorClock()
        protocol = Protocol()
        reactor: Any = self.loop
        self.transport: Any = Dialled(self.near, protocol, reactor)
        protocol.makeConnection(self.transport)
        buffer(self.transport, SMALL)
        self.source = Source()
        self.transport.registerProducer(self.source, True)

    def fill(self) -> int:
        """Write until the producer is paused; how many octets."""
        written = 0
        while not self.source.paused:
            write(self.transport, bytes(LARGE))
            written += LARGE
            self.assertLess(written, 64 * UNSENT)
        return written

    def test_full(self) -> None:
        """The producer is paused before anything has to be held for the peer."""
        self.fill()
        self.assertFalse(self.transport.dataBuffer or self.transport._tempDataLen)
        self.assertIn(self.transport, self.loop.writers)
        self.assertEqual(self.source.resumed, 0)

    def test_emptied(self) -> None:
        """It goes on when the peer has made room, told once."""
        written = self.fill()
        self.far.settimeout(5)
        while written:
            written -= len(self.far.recv(1 << 20))
        self.transport.doWrite()
        self.assertEqual((self.source.paused, self.source.resumed), (1, 1))
        self.assertNotIn(self.transport, self.loop.writers)
