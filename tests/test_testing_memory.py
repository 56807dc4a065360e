"""Tests for :mod:`coda_twisted.testing.memory`: connections that behave as TCP's."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from coda_twisted.testing import memory
from coda_twisted.testing.memory import HIGH_WATER, MemoryTransport, Pump, connect

ADDRESSES = (
    IPv4Address("TCP", "198.51.100.1", 1),
    IPv4Address("TCP", "203.0.113.1", 80),
)


class Side(Protocol):
    """Remembers what it hears."""

    transport: Any

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.heard.append(reason.type)


@implementer(IHalfCloseableProtocol)
class HalfSide(Side):
    """Goes on when the other side has ended its half."""

    def readConnectionLost(self) -> None:
        self.heard.append("read")

    def writeConnectionLost(self) -> None:
        self.heard.append("write")


class Source:
    """A producer that says what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class MemoryCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pump = Pump(self.clock)
        self.join(Side(), Side())

    def join(self, near: Any, far: Any) -> None:
        self.near, self.far = near, far
        connect(self.pump, near, far, ADDRESSES)


class DeliveryTests(MemoryCase):
    """What is written arrives: later, in order, and once."""

    def test_interfaces(self) -> None:
        """It is a TCP transport to those who ask."""
        for interface in (ITCPTransport, IPushProducer, IConsumer):
            verifyObject(interface, self.near.transport)

    def test_addresses(self) -> None:
        """Both sides agree on who is who."""
        near, far = self.near.transport, self.far.transport
        self.assertEqual((near.getHost(), near.getPeer()), ADDRESSES)
        self.assertEqual((far.getPeer(), far.getHost()), ADDRESSES)
        self.assertIn("198.51.100.1 to 203.0.113.1", repr(near))
        near.setTcpNoDelay(True)
        near.setTcpKeepAlive(True)
        self.assertEqual((near.getTcpNoDelay(), near.getTcpKeepAlive()), (True, False))

    def test_later(self) -> None:
        """Nobody hears anything while somebody writes; then all in one piece."""
        self.near.transport.write(b"a")
        self.near.transport.writeSequence([b"b", b"c"])
        self.near.transport.write(b"")
        self.assertEqual(self.far.heard, [])
        self.pump.run()
        self.assertEqual(self.far.heard, [b"abc"])

    def test_by_the_clock(self) -> None:
        """Nobody has to ask: the clock's next turn delivers, too."""
        self.near.transport.write(b"a")
        self.clock.advance(0)
        self.assertEqual(self.far.heard, [b"a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bytes_only(self) -> None:
        """Text is no data."""
        self.assertRaises(TypeError, self.near.transport.write, "a")

    def test_paused(self) -> None:
        """Who does not read hears neither data nor the end."""
        self.far.transport.pauseProducing()
        self.near.transport.write(b"a")
        self.near.transport.loseWriteConnection()
        self.pump.run()
        self.assertEqual(self.far.heard, [])
        self.far.transport.resumeProducing()
        self.pump.run()
        self.assertEqual(self.far.heard, [b"a", ConnectionDone])

    def test_endless(self) -> None:
        """Two that never stop talking are stopped."""
        for side in (self.near, self.far):
            side.dataReceived = lambda data, side=side: side.transport.write(data)
        self.patch(memory, "MAX_ROUNDS", 1000)
        self.near.transport.write(b"a")
        self.assertRaises(RuntimeError, self.pump.run)

    def test_within(self) -> None:
        """A pump that is asked while it runs goes on by itself."""

        def answer(data: bytes) -> None:
            self.far.transport.write(b"re" + data)
            self.pump.run()

        self.far.dataReceived = answer
        self.near.transport.write(b"a")
        self.pump.run()
        self.assertEqual(self.near.heard, [b"rea"])


class EndTests(MemoryCase):
    """Connections end as those of TCP do."""

    def test_close(self) -> None:
        """What was written before arrives, then the end; both sides are told."""
        self.near.transport.write(b"a")
        self.near.transport.loseConnection()
        self.near.transport.write(b"b")
        self.assertEqual(self.near.heard, [])
        self.pump.run()
        self.assertEqual(self.far.heard, [b"a", ConnectionDone])
        self.assertEqual(self.near.heard, [ConnectionDone])
        for side in (self.near, self.far):
            side.transport.loseConnection()
            side.transport.write(b"x")
            side.transport.abortConnection()
        self.pump.run()
        self.assertEqual((len(self.near.heard), len(self.far.heard)), (1, 2))

    def test_closed_by_both(self) -> None:
        """Both may close at once, and while neither reads."""
        for side in (self.near, self.far):
            side.transport.pauseProducing()
            side.transport.write(b"a")
            side.transport.loseConnection()
        self.pump.run()
        self.assertEqual(self.near.heard, [ConnectionDone])
        self.assertEqual(self.far.heard, [ConnectionDone])

    def test_reset(self) -> None:
        """What was not delivered never is."""
        self.near.transport.write(b"a")
        self.far.transport.write(b"b")
        self.near.transport.abortConnection()
        self.assertEqual(self.near.heard, [])
        self.pump.run()
        self.assertEqual(self.near.heard, [ConnectionAborted])
        self.assertEqual(self.far.heard, [ConnectionLost])

    def test_reset_while_paused(self) -> None:
        """A reset is heard by those who do not read, too."""
        self.far.transport.pauseProducing()
        self.near.transport.abortConnection()
        self.pump.run()
        self.assertEqual(self.far.heard, [ConnectionLost])

    def test_half_close(self) -> None:
        """A half may end, and the other go on."""
        self.join(HalfSide(), HalfSide())
        self.near.transport.write(b"a")
        self.near.transport.loseWriteConnection()
        self.near.transport.write(b"b")
        self.pump.run()
        self.assertEqual(self.far.heard, [b"a", "read"])
        self.assertEqual(self.near.heard, ["write"])
        self.far.transport.write(b"c")
        self.far.transport.loseConnection()
        self.pump.run()
        self.assertEqual(self.near.heard, ["write", b"c", "read"])
        self.assertEqual(self.far.heard[2:], [ConnectionDone])
        self.near.transport.loseConnection()
        self.pump.run()
        self.assertEqual(self.near.heard[3:], [ConnectionDone])

    def test_written_to_nobody(self) -> None:
        """Who writes to one that has gone loses the connection."""
        self.join(HalfSide(), Side())
        self.far.transport.loseConnection()
        self.pump.run()
        self.assertEqual(self.near.heard, ["read"])
        self.near.transport.write(b"a")
        self.pump.run()
        self.assertEqual(self.near.heard, ["read", ConnectionLost])

    def test_stop(self) -> None:
        """A producer that is stopped closes."""
        self.near.transport.stopProducing()
        self.pump.run()
        self.assertEqual(self.far.heard, [ConnectionDone])


class ProducerTests(MemoryCase):
    """Who writes too much is told to wait."""

    def setUp(self) -> None:
        super().setUp()
        self.source = Source()
        self.transport: MemoryTransport = self.near.transport

    def test_push(self) -> None:
        """A push producer is paused, and resumed once there is room."""
        self.transport.registerProducer(self.source, True)
        self.far.transport.pauseProducing()
        self.transport.write(bytes(HIGH_WATER))
        self.assertEqual(self.source.told, [])
        self.transport.write(b"a")
        self.transport.write(b"b")
        self.pump.run()
        self.assertEqual(self.source.told, ["pause"])
        self.far.transport.resumeProducing()
        self.pump.run()
        self.assertEqual(self.source.told, ["pause", "resume"])

    def test_pull(self) -> None:
        """A pull producer is asked whenever there is room."""
        pieces = [b"a", b"b", b"c"]

        def resume() -> None:
            if pieces:
                self.transport.write(pieces.pop(0))
            else:
                self.transport.unregisterProducer()

        self.source.resumeProducing = resume  # type: ignore[method-assign]
        self.transport.registerProducer(self.source, False)
        self.pump.run()
        self.assertEqual(b"".join(self.far.heard), b"abc")

    def test_close(self) -> None:
        """Closing waits for a producer that is paused, as TCP does."""
        self.transport.registerProducer(self.source, True)
        self.far.transport.pauseProducing()
        self.transport.write(bytes(HIGH_WATER + 1))
        self.transport.loseConnection()
        self.pump.run()
        self.assertEqual(self.source.told, ["pause"])
        self.far.transport.resumeProducing()
        self.pump.run()
        self.assertEqual(self.source.told, ["pause", "resume", "stop"])
        self.assertEqual(self.far.heard[1:], [ConnectionDone])

    def test_close_pull(self) -> None:
        """Closing waits for a pull producer to say that it has finished."""
        self.source.resumeProducing = (  # type: ignore[method-assign]
            self.transport.unregisterProducer
        )
        self.transport.registerProducer(self.source, False)
        self.transport.loseConnection()
        self.pump.run()
        self.assertEqual((self.source.told, self.far.heard), ([], [ConnectionDone]))

    def test_lost(self) -> None:
        """A producer is stopped when the connection is gone, or was before."""
        self.transport.registerProducer(self.source, True)
        self.assertRaises(
            RuntimeError, self.transport.registerProducer, self.source, True
        )
        self.far.transport.abortConnection()
        self.pump.run()
        self.assertEqual(self.source.told, ["stop"])
        self.transport.registerProducer(self.source, True)
        self.assertEqual(self.source.told, ["stop", "stop"])
