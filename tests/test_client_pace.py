"""Tests for :mod:`coda_twisted.client.pace`."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.client.dial import Dialled
from coda_twisted.client.pace import LARGE, SMALL, buffer, has_room, write
from tests.front import Loop, Socket
from tests.test_client_upload import Source


class WriteTests(SynchronousTestCase):
    """Large pieces and small ones, to a peer that takes some or none of them."""

    def setUp(self) -> None:
        self.loop = Loop()
        self.socket = cast(Any, Socket())
        protocol = Protocol()
        self.transport: Any = Dialled(self.socket, protocol, self.loop)
        protocol.makeConnection(self.transport)
        self.source = Source()
        buffer(self.transport, SMALL)
        self.transport.registerProducer(self.source, True)

    def held(self) -> int:
        """Octets that wait in the process."""
        unsent = len(self.transport.dataBuffer) - self.transport.offset
        return int(unsent + self.transport._tempDataLen)

    def test_large(self) -> None:
        """A large piece is with the kernel when this returns; nothing is paused."""
        write(self.transport, b"a" * LARGE)
        self.assertEqual(self.socket.sent, b"a" * LARGE)
        self.assertNotIn(self.transport, self.loop.writers)
        self.assertEqual(self.source.calls, [])

    def test_in_order(self) -> None:
        """What was written before is sent before."""
        self.transport.write(b"head")
        write(self.transport, b"a" * LARGE)
        self.assertEqual(self.socket.sent, b"")
        self.loop.turn()
        self.assertEqual(self.socket.sent, b"head" + b"a" * LARGE)
        self.assertEqual(self.source.calls, ["pause", "resume"])

    def test_partly_taken(self) -> None:
        """The rest of a piece is sent as soon as it can be."""
        self.socket.room = LARGE - 1
        write(self.transport, b"a" * LARGE)
        self.assertEqual(self.held(), 1)
        self.socket.room = None
        self.loop.turn()
        self.assertEqual(self.socket.sent, b"a" * LARGE)

    def test_not_taken(self) -> None:
        """A second piece in spite of that waits behind the first."""
        self.socket.room = 0
        write(self.transport, b"a" * LARGE)
        write(self.transport, b"b" * LARGE)
        self.assertEqual(self.held(), 2 * LARGE)
        self.socket.room = None
        self.loop.turn()
        self.assertEqual(self.socket.sent, b"a" * LARGE + b"b" * LARGE)

    def test_no_producer(self) -> None:
        """Without a producer there is nobody to be paused."""
        self.transport.unregisterProducer()
        self.socket.room = 0
        write(self.transport, b"a" * LARGE)
        self.assertEqual(self.held(), LARGE)

    def test_pull_producer(self) -> None:
        """A producer that gives when it is asked is not told to wait."""
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.source, False)
        self.socket.room = 5
        write(self.transport, b"a" * LARGE)
        self.assertEqual(self.source.calls, ["resume"])

    def test_closing(self) -> None:
        """What is written to a connection that is closing comes before the end."""
        self.transport.unregisterProducer()
        write(self.transport, b"a")
        self.transport.loseConnection()
        write(self.transport, b"b" * LARGE)
        self.loop.turn()
        self.assertTrue(self.socket.closed)
        self.assertEqual(self.socket.sent, b"a" + b"b" * LARGE)

    def test_encrypted(self) -> None:
        """A connection that encrypts by itself is left to do so."""
        self.transport.TLS = True
        wire = StringTransport()
        self.transport.protocol.write = wire.write
        buffer(self.transport, LARGE)
        write(self.transport, b"a" * LARGE)
        self.assertEqual((self.socket.sent, wire.value()), (b"", b"a" * LARGE))
        self.assertEqual(self.transport.bufferSize, SMALL)
        self.assertTrue(has_room(self.transport))

    def test_gone(self) -> None:
        """What is written to a connection that is gone is thrown away."""
        self.socket.gone = True
        self.loop.turn()
        write(self.transport, b"a" * LARGE)
        self.assertEqual(self.socket.sent, b"")

    def test_error(self) -> None:
        """An error of the socket is left for the reactor to find."""
        self.socket.send = _broken
        write(self.transport, b"a" * LARGE)
        self.assertFalse(self.socket.closed)
        self.loop.turn()
        self.assertTrue(self.socket.closed)


class OtherTransportTests(SynchronousTestCase):
    """Transports that are no sockets of Twisted's."""

    def test_as_ever(self) -> None:
        """They are written to, and always have room."""
        transport = StringTransport()
        buffer(transport, SMALL)
        write(transport, b"a" * LARGE)
        self.assertEqual(len(transport.value()), LARGE)
        self.assertTrue(has_room(transport))


def _broken(data: memoryview) -> int:
    raise ConnectionResetError("reset by peer")
