"""
Connections in memory, which behave as those of TCP do.

Nothing is delivered while somebody writes: what is written waits until the pump comes
round, as it would wait for the reactor.  What is delivered in one go is all that was
written since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["MemoryTransport", "Pump", "connect"]

HIGH_WATER = 1 << 16
"""Octets that wait to be delivered before a producer is paused; TCP's is the same."""

MAX_ROUNDS = 1_000_000
"""Deliveries in one go, after which two protocols talk for ever."""


class Pump:
    """
    Delivers what waits, on request.

    :param clock: Reactor or clock, that asks for it when nobody else does.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._waiting: dict[Callable[[], None], None] = {}
        self._scheduled: Any = None
        self._running = False

    def schedule(self, act: Callable[[], None]) -> None:
        """Do something when the pump comes round; once, however often asked."""
        self._waiting[act] = None
        if not self._running and self._scheduled is None:
            self._scheduled = self._clock.callLater(0, self._fire)

    def cancel(self, act: Callable[[], None]) -> None:
        """Do not do it."""
        self._waiting.pop(act, None)

    def _fire(self) -> None:
        self._scheduled = None
        self.run()

    def run(self) -> None:
        """
        Deliver until nothing waits any more.

        :raises RuntimeError: That does not come to an end.
        """
        if self._running:
            return
        if self._scheduled is not None:
            scheduled, self._scheduled = self._scheduled, None
            scheduled.cancel()
        self._running = True
        try:
            for _ in range(MAX_ROUNDS):
                if not self._waiting:
                    return
                act = next(iter(self._waiting))
                del self._waiting[act]
                act()
            raise RuntimeError("the connections do not come to rest")
        finally:
            self._running = False


@implementer(ITCPTransport, IPushProducer, IConsumer)
class MemoryTransport:
    """
    One end of a connection.

    :ivar other: The other end.
    :ivar disconnecting: Whether it is closing, or closed.
    :ivar reading: Whether what comes is wanted.
    :ivar end_coming: Whether the other end has ended its half, unheard so far.
    :ivar gone: Whether it is closed.
    """

    other: MemoryTransport

    def __init__(self, pump: Pump, host: IPv4Address, peer: IPv4Address) -> None:
        self.protocol: IProtocol | None = None
        self.disconnecting = False
        self._pump = pump
        self._host = host
        self._peer = peer
        self.reading = True
        self._outgoing: list[bytes] = []
        self._size = 0
        self._producer: Any = None
        self._streaming = False
        self._paused = False
        self._write_ending = False
        self._write_ended = False
        self.end_coming = False
        self._reset: Exception | None = None
        self.gone = False

    def __repr__(self) -> str:
        return f"<MemoryTransport from {self._host.host} to {self._peer.host}>"

    # ITransport

    def write(self, data: bytes) -> None:
        """Send."""
        if not isinstance(data, bytes):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if self.disconnecting or self._write_ending or not data:
            return
        self._outgoing.append(data)
        self._size += len(data)
        self.wake()
        if self._size > HIGH_WATER and self._streaming and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send all of these."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """
        Close after all is sent; what comes meanwhile is not looked at.

        As with TCP, a producer is waited for if it is paused, or a pull producer.
        """
        self.disconnecting = True
        self.wake()

    def abortConnection(self) -> None:
        """Reset: what is not delivered yet never is."""
        self.disconnecting = True
        self.be_reset(ConnectionAborted())
        self.other.be_reset(ConnectionLost())

    def loseWriteConnection(self) -> None:
        """End our half after all is sent."""
        self._write_ending = True
        self.wake()

    def getHost(self) -> IPv4Address:
        """Tell our address."""
        return self._host

    def getPeer(self) -> IPv4Address:
        """Tell the other side's address."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """Say that nothing waits for more."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Change nothing: nothing waits for more."""

    def getTcpKeepAlive(self) -> bool:
        """Say that nobody looks whether the other side lives."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Change nothing: the other side cannot die unseen."""

    # IPushProducer

    def pauseProducing(self) -> None:
        """Read no more for now."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Read on."""
        self.reading = True
        self.wake()
        self.other.wake()

    def stopProducing(self) -> None:
        """Close (IProducer)."""
        self.loseConnection()

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let *producer* know when there is room."""
        if self._producer is not None:
            raise RuntimeError("there is a producer already")
        if self.gone:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._paused = False
        self.wake()

    def unregisterProducer(self) -> None:
        """Let go of the producer; closing may go on."""
        self._producer = None
        self._streaming = False
        self.wake()

    # What the other end does

    def wake(self) -> None:
        """Look when the pump comes round whether there is anything to do."""
        if not self.gone:
            self._pump.schedule(self._advance)

    def be_reset(self, reason: Exception) -> None:
        """Be gone when the pump comes round."""
        if self._reset is None:
            self._reset = reason
            self.wake()

    # What the pump does

    def _advance(self) -> None:
        """Do the next thing that is to be done at this end."""
        if self.gone:
            return
        if self._reset is not None:
            self._go(self._reset)
        elif self.end_coming and self.reading and not self.disconnecting:
            self.end_coming = False
            self.wake()
            self._hear_end()
        elif self._outgoing:
            self._deliver()
        elif self._producer is not None and (self._paused or not self._streaming):
            self._produce()
        elif self.disconnecting:
            self._go(ConnectionDone())
        elif self._write_ending and not self._write_ended:
            self._end_writing()

    def _deliver(self) -> None:
        other = self.other
        if other.gone:
            # Nobody is there any more: TCP would answer by a reset.
            self._go(ConnectionDone() if self.disconnecting else ConnectionLost())
        elif other.reading or other.disconnecting:
            data = b"".join(self._outgoing)
            self._outgoing.clear()
            self._size = 0
            self.wake()
            if not other.disconnecting:
                assert other.protocol is not None
                other.protocol.dataReceived(data)

    def _produce(self) -> None:
        self._paused = False
        self.wake()
        self._producer.resumeProducing()

    def _end_writing(self) -> None:
        self._tell_end()
        protocol = self.protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            protocol.writeConnectionLost()

    def _tell_end(self) -> None:
        if not self._write_ended:
            self._write_ended = True
            self.other.end_coming = True
            self.other.wake()

    def _hear_end(self) -> None:
        protocol = self.protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            protocol.readConnectionLost()
        else:
            self._go(ConnectionDone())

    def _go(self, reason: Exception) -> None:
        self.gone = self.disconnecting = True
        self._outgoing.clear()
        self._tell_end()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self.protocol = self.protocol, None
        assert protocol is not None
        protocol.connectionLost(Failure(reason))


def connect(
    pump: Pump,
    client: IProtocol,
    server: IProtocol,
    addresses: tuple[IPv4Address, IPv4Address],
) -> None:
    """
    Connect two protocols.

    :param addresses: The client's and the server's.
    """
    near = MemoryTransport(pump, *addresses)
    far = MemoryTransport(pump, *reversed(addresses))
    near.other, far.other = far, near
    near.protocol, far.protocol = client, server
    server.makeConnection(far)
    client.makeConnection(near)
