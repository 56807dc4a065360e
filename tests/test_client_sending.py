"""Tests for :mod:`coda_twisted.client.sending`."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.client.dial import Dialled
from coda_twisted.client.sending import send_now
from tests.front import Loop


class Witness(Protocol):
    """Notes how its connection ended."""

    reason: Failure | None = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class SendNowTests(SynchronousTestCase):
    """What is sent without asking the reactor, over sockets of the kernel's."""

    def setUp(self) -> None:
        self.loop = Loop()
        near, self.far = socket.socketpair()
        self.addCleanup(self.far.close)
        self.addCleanup(near.close)
        near.setblocking(False)
        self.protocol = Witness()
        self.transport: Any = Dialled(near, self.protocol, self.loop)
        self.protocol.makeConnection(self.transport)

    def test_at_once(self) -> None:
        """It is on its way before the reactor has had a turn."""
        send_now(self.transport, b"hello")
        self.assertEqual(self.far.recv(9), b"hello")

    def test_failure(self) -> None:
        """A connection that failed under it did not end in good order."""
        self.far.close()
        send_now(self.transport, b"hello")
        if self.transport in self.loop.readers:  # the reactor reads first
            why = self.transport.doRead()
            self.loop._disconnectSelectable(self.transport, why, True)
        self.loop.advance(0)
        assert self.protocol.reason is not None
        self.assertIsNone(self.protocol.reason.check(ConnectionDone))
