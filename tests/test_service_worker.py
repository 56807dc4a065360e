"""Tests for :mod:`coda_twisted.service.worker`."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, LogLevel
from twisted.python import threadable

from coda_twisted.service import Options
from coda_twisted.service.control import write
from coda_twisted.service.worker import LOG_DELAY, Report, Worker
from tests.front import Caller, LoggedCase, Loop

GET = b"GET http://site/ HTTP/1.1\r\nHost: site\r\n\r\n"


class Adopted:
    """A port that was adopted."""

    def __init__(self) -> None:
        self.listening = True

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8088)

    def stopListening(self) -> None:
        self.listening = False


class WorkerLoop(Loop):
    """A reactor that adopts sockets, and runs until it is told to stop."""

    running = True

    def adoptStreamPort(self, descriptor: int, family: int, factory: Any) -> Adopted:
        self.adopted = os.fstat(descriptor).st_ino, family, factory
        self.port = Adopted()
        return self.port

    def stop(self) -> None:
        self.running = False


class WorkerCase(LoggedCase):
    """A worker, and the test in place of its main process."""

    def setUp(self) -> None:
        super().setUp()
        self.loop = WorkerLoop()
        options = Options()
        options.parseOptions(["--quiet"])
        self.listening = socket.socket()
        settings = {
            "options": dict(options),
            "name": b"coda-0badcafe",
            "number": 7,
            "word": "word",
        }
        descriptor = os.dup(self.listening.fileno())
        self.addCleanup(self.listening.close)
        self.worker = Worker(self.loop, settings, descriptor)
        self.transport = StringTransport()
        self.worker.makeConnection(self.transport)
        self.proxy = self.loop.adopted[2]

    def said(self) -> list[Any]:
        """What the worker has said since last asked."""
        said = [json.loads(line) for line in self.transport.value().splitlines()]
        self.transport.clear()
        return said

    def order(self, **message: Any) -> None:
        self.worker.dataReceived(write(message))
        self.loop.turn()


class OrderTests(WorkerCase):
    """It does as it is told."""

    def test_begins(self) -> None:
        """It serves the socket that it was given, under the name that all have."""
        inode, family, proxy = self.loop.adopted
        self.assertEqual(inode, os.fstat(self.listening.fileno()).st_ino)
        self.assertEqual(family, socket.AF_INET)
        self.assertEqual(self.said(), [{"say": "ready"}])
        self.assertEqual((proxy.name, proxy.id_of(1)), (b"coda-0badcafe", "r7-1"))
        caller = Caller(self.loop, proxy)
        caller.send(GET.replace(b"//site", b"//127.0.0.1:8088"))
        self.assertEqual(caller.statuses, [508])

    def test_drains(self) -> None:
        """Told to end, it listens no more, finishes, and hangs up."""
        caller = Caller(self.loop, self.proxy).send(GET)
        self.order(say="drain", seconds=None, idle=1)
        self.assertFalse(self.loop.port.listening)
        self.loop.pass_time(15)
        self.assertFalse(self.transport.disconnecting)
        caller.vanish()
        self.assertTrue(self.transport.disconnecting)
        self.worker.connectionLost()
        self.assertFalse(self.loop.running)

    def test_in_a_hurry(self) -> None:
        """Told so again, it can be made to stop at once."""
        caller = Caller(self.loop, self.proxy).send(GET)
        self.order(say="drain", seconds=30, idle=1)
        self.order(say="drain", seconds=0, idle=0)
        self.assertTrue(caller.socket.reset)
        self.assertTrue(self.transport.disconnecting)

    def test_orphan(self) -> None:
        """Without a main process there is nobody to serve for."""
        Caller(self.loop, self.proxy).send(GET)
        self.worker.connectionLost()
        self.assertFalse(self.loop.running)

    def test_logon(self) -> None:
        """What is said of logons is for its guard."""
        self.order(say="barred", secret="unknown", error={})
        self.order(say="go", number=1)


class ReportTests(LoggedCase):
    """Its log."""

    def setUp(self) -> None:
        super().setUp()
        self.loop = Loop()
        self.told: list[Any] = []
        self.report = Report(self.loop, self.told.append)
        self.patch(threadable, "ioThread", threadable.getThreadID())
        self.logger = Logger(observer=self.report)

    def test_together(self) -> None:
        """Lines that come together are sent together."""
        self.logger.info("{n} and {m}", n=1, m=2)
        self.logger.warn("three\nfour")
        self.assertEqual(self.told, [])
        self.loop.pass_time(LOG_DELAY)
        [message] = self.told
        lines = [("info", "1 and 2"), ("warn", "three\nfour")]
        self.assertEqual(message, {"say": "log", "lines": lines})
        self.logger.info("five")
        self.loop.pass_time(LOG_DELAY)
        self.assertEqual(len(self.told), 2)

    def test_failure(self) -> None:
        """A failure comes with its traceback; what has no level is for information."""
        try:
            raise ValueError("unforeseen")
        except ValueError:
            self.logger.failure("it failed")
        self.report({"log_format": "plain"})
        self.report.flush()
        [(level, text), plain] = self.told[0]["lines"]
        self.assertEqual(level, LogLevel.critical.name)
        self.assertRegex(text, r"it failed\nTraceback .*\n(.*\n)*.*unforeseen")
        self.assertEqual(plain, ("info", "plain"))

    def test_flush(self) -> None:
        """At the end nothing is kept back."""
        self.report.flush()
        self.assertEqual(self.told, [])
        self.logger.info("last words")
        self.report.flush()
        self.assertEqual(len(self.told), 1)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_threads(self) -> None:
        """Lines from other threads are handed to the reactor's."""
        called: list[Any] = []
        loop: Any = self.loop
        loop.callFromThread = lambda *call: called.append(call)
        self.patch(threadable, "ioThread", -1)
        self.logger.info("from elsewhere")
        self.report.flush()
        self.assertEqual(self.told, [])
        [(note, *arguments)] = called
        self.patch(threadable, "ioThread", threadable.getThreadID())
        note(*arguments)
        self.report.flush()
        self.assertEqual(self.told[0]["lines"], [("info", "from elsewhere")])
