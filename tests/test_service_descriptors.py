"""Tests for :mod:`coda_twisted.service.descriptors`."""

from __future__ import annotations

import errno
import os
import resource
from typing import Any

from twisted.internet.error import ConnectBindError, DNSLookupError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.errors import ProxyUnreachable
from coda_twisted.service import descriptors
from coda_twisted.service.descriptors import (
    BURST,
    CALM,
    PAUSE,
    SPARE,
    TIGHT_BURST,
    Gate,
    raise_limit,
)
from coda_twisted.service.pages import problem_of
from tests.front import LoggedCase


class Port:
    """
    A listening port that notes when it accepts, and how many at most.

    :ivar numberAccepts: As Twisted's own.
    """

    def __init__(self) -> None:
        self.numberAccepts = 1000
        self.accepted: list[int] = []
        self.reading = self.listening = True

    def stopReading(self) -> None:
        self.reading = False

    def fileno(self) -> int:
        return 3

    def logPrefix(self) -> str:
        return "Proxy"

    def doRead(self) -> None:
        self.accepted.append(self.numberAccepts)
        self.numberAccepts = 1000

    def stopListening(self) -> None:
        self.listening = False


class GateTests(LoggedCase):
    """A port accepts while there are descriptors."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = MemoryReactorClock()
        self.port = Port()
        self.clients = 0
        self.made_room = 0
        self.lowest: int | None = 10
        self.free = 1000
        self.patch(descriptors, "lowest_free", lambda: self.lowest)
        self.patch(descriptors, "are_free", lambda count: count <= self.free)
        self.gate = self.make(1024)

    def make(self, limit: int) -> Gate:
        return Gate(
            self.reactor, self.port, 512, limit, lambda: self.clients, self.make_room
        )

    def make_room(self) -> None:
        self.made_room += 1

    def turn(self, seconds: float = 0) -> None:
        """Have the reactor go round once, with somebody at the door."""
        self.reactor.advance(seconds)
        if self.gate in self.reactor.readers:
            self.gate.doRead()

    def test_stands_before(self) -> None:
        """The reactor sees the gate in place of the port."""
        verifyObject(IReadDescriptor, self.gate)
        self.assertFalse(self.port.reading)
        self.assertEqual(self.reactor.getReaders(), [self.gate])
        self.assertEqual((self.gate.fileno(), self.gate.logPrefix()), (3, "Proxy"))

    def test_plenty(self) -> None:
        """With descriptors in plenty many are accepted at once, and not too many."""
        self.turn()
        self.gate = self.make(0)
        self.turn()
        self.assertEqual(self.port.accepted, [BURST, BURST])

    def test_few(self) -> None:
        """Where half are taken few are accepted, and it stays so."""
        self.lowest = 600
        self.turn()
        self.lowest = 10
        self.turn()
        self.assertEqual(self.port.accepted, [TIGHT_BURST] * 2)
        self.free = TIGHT_BURST + SPARE - 1
        self.turn()
        self.assertEqual(len(self.port.accepted), 2)

    def test_clients(self) -> None:
        """Each client needs a second one, for the next server."""
        self.clients = (1024 - SPARE) // 2 - 1
        self.turn()
        self.assertEqual(self.port.accepted, [1])
        self.clients += 1
        self.turn()
        self.assertEqual(self.port.accepted, [1])

    def test_shortage(self) -> None:
        """Without any it waits, says so once, makes room, and goes on by itself."""
        self.lowest = None
        for _ in range(20):
            self.turn(PAUSE)
        self.assertEqual(self.port.accepted, [])
        self.assertEqual(self.made_room, 20)
        [line] = self.lines
        self.assertIn("no file descriptors left (the limit is 1024)", line)
        self.lowest = 10
        self.turn(PAUSE)
        self.assertEqual(len(self.port.accepted), 1)
        self.lowest = None
        self.turn(1)
        self.assertEqual(len(self.lines), 1)
        self.lowest = 10
        self.turn(PAUSE)
        self.turn(CALM)
        self.assertEqual(self.lines[1:], ["there are file descriptors again"])

    def test_does_not_spin(self) -> None:
        """While it waits the reactor is not to look at it."""
        self.lowest = None
        self.turn()
        self.assertEqual(self.reactor.getReaders(), [])
        self.reactor.advance(PAUSE)
        self.assertEqual(self.reactor.getReaders(), [self.gate])

    def test_close(self) -> None:
        """It is closed with the port, waiting or not; what is queued is accepted."""
        for lowest, last, accepted in (
            (10, True, [BURST, 512]),
            (10, False, [BURST]),
            (None, True, []),
        ):
            self.lowest = lowest
            self.turn()
            self.gate.close(last=last)
            self.assertFalse(self.port.listening)
            self.assertEqual(self.port.accepted, accepted)
            self.assertEqual(self.reactor.getReaders(), [])
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            self.port = Port()
            self.gate = self.make(1024)


class LimitTests(SynchronousTestCase):
    """What the system says."""

    def test_raised(self) -> None:
        """The soft limit becomes the hard one."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1] - 1, limits[1]))
        self.assertEqual(raise_limit(), limits[1])
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE)[0], limits[1])

    def test_lowest(self) -> None:
        """The lowest free one is the next one, and is not kept."""
        lowest = descriptors.lowest_free()
        self.assertEqual(descriptors.lowest_free(), lowest)
        taken = os.open(os.devnull, os.O_RDONLY)
        os.close(taken)
        self.assertEqual(taken, lowest)

    def test_none(self) -> None:
        """Where the system has none left that is found, and nothing is kept."""
        self.assertTrue(descriptors.are_free(3))
        self.assertFalse(descriptors.short_now())

        def none(*_: Any) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        before = descriptors.lowest_free()
        with_dup = os.dup
        self.patch(os, "dup", none)
        self.assertFalse(descriptors.are_free(3))
        self.patch(os, "dup", with_dup)
        self.assertEqual(descriptors.lowest_free(), before)
        self.patch(os, "open", none)
        self.assertTrue(descriptors.short_now())
        self.assertFalse(descriptors.are_free(3))


class PageTests(SynchronousTestCase):
    """What a client is told that we cannot connect for."""

    def test_connect(self) -> None:
        """503, which says whose fault it is, directly and through a proxy."""
        wrapped = ProxyUnreachable("http://above:3128", "no")
        wrapped.__cause__ = ConnectBindError(errno.EMFILE, "Too many open files")
        for error in (
            ConnectBindError(errno.EMFILE, "Too many open files"),
            ConnectBindError(errno.ENFILE, "Too many open files in system"),
            wrapped,
        ):
            problem = problem_of(error)
            assert problem is not None
            self.assertEqual(problem.status, 503)
            self.assertIn("no file descriptors left", problem.what)

    def test_resolve(self) -> None:
        """A resolver that failed for want of descriptors is not taken at its word."""
        found = []
        for lowest in (10, None):
            self.patch(descriptors, "lowest_free", lambda value=lowest: value)
            problem = problem_of(DNSLookupError())
            assert problem is not None
            found.append(problem.status)
        self.assertEqual(found, [502, 503])
