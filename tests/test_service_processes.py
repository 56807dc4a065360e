"""Tests for :mod:`coda_twisted.service.processes`."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.python.failure import Failure

from coda_twisted.service import Options, processes
from coda_twisted.service.control import ORDERS, REPORTS, SOCKET, read_settings, write
from coda_twisted.service.lifecycle import CannotServe, make_service
from coda_twisted.service.options import PASSWORD_VARIABLE
from coda_twisted.service.processes import WorkersService
from tests.front import LoggedCase, Loop


class Listening:
    """A listening socket, which nothing connects to."""

    closed = False

    def __init__(self, number: int) -> None:
        self.number = number

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 54321

    def fileno(self) -> int:
        return self.number

    def close(self) -> None:
        self.closed = True


class Process:
    """A process that does nothing by itself."""

    pid = 4711

    def __init__(self, protocol: Any, arguments: Any) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.written = b""
        self.signals: list[str] = []
        protocol.makeConnection(self)

    def writeToChild(self, childFD: int, data: bytes) -> None:
        assert childFD == ORDERS
        self.written += data

    def signalProcess(self, signalID: str) -> None:
        self.signals.append(signalID)

    def say(self, **message: Any) -> None:
        self.protocol.childDataReceived(REPORTS, write(message))

    def end(self, reason: Exception) -> None:
        self.protocol.childConnectionLost(ORDERS)
        self.protocol.processEnded(Failure(reason))


class ProcessLoop(Loop):
    """A reactor that starts processes."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.error: OSError | None = None

    def callWhenRunning(self, callable: Any, *args: Any, **kw: Any) -> None:  # noqa: A002
        callable(*args, **kw)

    def spawnProcess(self, *arguments: Any, **more: Any) -> None:
        if self.error is not None:
            raise self.error
        protocol, *rest = arguments
        self.processes.append(Process(protocol, (rest, more)))


class ProcessesCase(LoggedCase):
    """A main process, and the test in place of the system."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "environ", {"PATH": "/bin", PASSWORD_VARIABLE: "sesame"})
        self.patch(processes, "shared_sockets", self.share)
        self.loop = ProcessLoop()
        self.sockets: list[Listening] = []

    def share(self, *arguments: Any) -> list[Listening]:
        self.asked = arguments
        self.sockets = [Listening(10 + number) for number in range(arguments[2])]
        return self.sockets

    def make(self, *arguments: str) -> WorkersService:
        options = Options()
        options.parseOptions(["--workers=2", *arguments])
        service = make_service(options, self.loop)
        assert isinstance(service, WorkersService)
        return service

    def settings(self, process: Process) -> Any:
        """What a worker is told first."""
        reading, writing = os.pipe()
        os.write(writing, process.written)
        os.close(writing)
        self.addCleanup(os.close, reading)
        return read_settings(reading)


class StartTests(ProcessesCase):
    """How workers begin."""

    def test_twistd(self) -> None:
        """The sockets are made before privileges are dropped, processes after."""
        service = self.make("--port=80")
        service.privilegedStartService()
        self.assertEqual(self.asked[:3], ("127.0.0.1", 80, 2))
        self.assertEqual(self.loop.processes, [])
        service.startService()
        given = [each.arguments[1]["childFDs"] for each in self.loop.processes]
        self.assertEqual([each[SOCKET] for each in given], [10, 11])
        self.assertIn(
            "coda-proxy serves http://127.0.0.1:54321, upstream: direct, workers: 2",
            self.lines,
        )

    def test_twist(self) -> None:
        """Who knows no such moment makes both at the start."""
        self.make().startService()
        self.assertEqual(len(self.loop.processes), 2)

    def test_secrets(self) -> None:
        """The password goes through the pipe, and nowhere else."""
        self.make("--proxy=http://above:3128", "--user=me").startService()
        one, two = self.loop.processes
        self.assertNotIn("sesame", repr(one.arguments))
        settings = [self.settings(each) for each in (one, two)]
        self.assertEqual({each["options"]["password"] for each in settings}, {"sesame"})
        self.assertEqual([each["number"] for each in settings], [1, 2])
        for name in ("name", "word"):
            self.assertEqual(settings[0][name], settings[1][name])
        self.assertNotIn("sesame", settings[0]["word"])

    def test_taken(self) -> None:
        """A port that cannot be had ends the program in one line."""

        def share(*_: Any) -> None:
            raise OSError(errno.EADDRINUSE, "Address already in use")

        self.patch(processes, "shared_sockets", share)
        with self.assertRaises(CannotServe) as caught:
            self.make().startService()
        self.assertEqual(
            str(caught.exception),
            "coda-proxy cannot listen on http://127.0.0.1:8088: Address already in "
            "use. Is it running already? Choose another port by --port.",
        )

    def test_cannot_begin(self) -> None:
        """A process that cannot be made is tried again."""
        self.loop.error = OSError(errno.EAGAIN, "try later")
        self.make().startService()
        self.loop.pass_time(0)
        self.assertIn("could not be started ([Errno 11] try later)", self.lines[-1])
        self.loop.error = None
        self.loop.pass_time(1)
        self.assertEqual(len(self.loop.processes), 2)


class LifeTests(ProcessesCase):
    """What becomes of them."""

    def setUp(self) -> None:
        super().setUp()
        self.service = self.make()
        self.service.startService()
        for process in self.loop.processes:
            process.say(say="ready")

    def test_log(self) -> None:
        """Their lines are ours, with their number; one event for each level."""
        before = len(self._events)
        process = self.loop.processes[1]
        process.say(
            say="log",
            lines=[("info", "a {b}"), ("info", "c"), ("warn", "d\ne"), ("info", "f")],
        )
        process.protocol.childDataReceived(2, b"Fatal Python error\nhal")
        events = self._events[before:]
        self.assertEqual(
            self.lines[-4:],
            [
                "worker 2: a {b}\nworker 2: c",
                "worker 2: d\ne",
                "worker 2: f",
                "worker 2: Fatal Python error",
            ],
        )
        self.assertEqual(
            [each["log_level"].name for each in events],
            ["info", "warn", "info", "warn"],
        )

    def test_ends(self) -> None:
        """How one ended is told, and another has its socket."""
        for reason, words in (
            (ProcessTerminated(signal=9), "was killed by signal 9"),
            (ProcessTerminated(exitCode=3), "failed with status 3"),
            (ProcessDone(0), "ended"),
        ):
            self.loop.processes[-1].end(reason)
            self.assertIn(words, self.lines[-1])
            self.loop.pass_time(1)
            given = self.loop.processes[-1].arguments[1]["childFDs"]
            self.assertEqual(given[SOCKET], 11)

    def test_asked_to_end(self) -> None:
        """One that wants a successor gets it."""
        self.loop.processes[0].say(say="leave")
        self.assertEqual(len(self.loop.processes), 3)

    def test_logons(self) -> None:
        """They share the guard: what one was refused, the others are told."""
        one, two = self.loop.processes
        one.say(say="ask", number=1, secret="s")
        self.assertIn(b'{"say": "go", "number": 1}\n', one.written)
        two.say(say="ask", number=1, secret="s")
        self.assertNotIn(b'"number": 1}\n', two.written)
        error = {
            "reason": "wrong",
            "identity": "me",
            "peer": "p",
            "scheme": None,
            "realm": None,
        }
        one.say(say="refused", secret="s", error=error)
        self.assertIn(b'"say": "no"', two.written)
        self.assertIn(b'"say": "barred"', two.written)
        self.assertNotIn(b'"say": "barred"', one.written)

    def test_reload(self) -> None:
        """New ones have what was read anew; the old ones are told to leave."""
        self.service.reload()
        old, new = self.loop.processes[:2], self.loop.processes[2:]
        self.assertEqual(len(new), 2)
        for process in new:
            process.say(say="ready")
        for process in old:
            self.assertIn(b'{"say": "drain", "seconds": null', process.written)

    def test_stop(self) -> None:
        """They are told, waited for, and not spoken to when they are gone."""
        stopped = self.service.stopService()
        self.assertTrue(all(each.closed for each in self.sockets))
        for process in self.loop.processes:
            self.assertIn(b'{"say": "drain", "seconds": 30.0', process.written)
        self.loop.processes[0].end(ProcessDone(0))
        self.service.cut()
        self.assertNotIn(b'"seconds": 0,', self.loop.processes[0].written)
        self.assertIn(b'"seconds": 0,', self.loop.processes[1].written)
        self.loop.pass_time(10)
        self.assertEqual([p.signals for p in self.loop.processes], [[], ["KILL"]])
        self.assertNoResult(stopped)
        self.loop.processes[1].end(ProcessTerminated(signal=9))
        self.successResultOf(stopped)
