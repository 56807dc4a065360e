"""
Two streams joined: what comes from one goes to the other, each way by itself.

One side may end its half while the other goes on (RFC 9112 9.6 knows of it, and
rsync, ssh and git rely on it).  A tunnel with one half ended does not wait for the
other for ever.  What was written is never thrown away for that: only silence counts,
and only from when the end has been told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.client.timeouts import Watchdog
from coda_twisted.errors import PhaseTimeout

__all__ = ["HALF_CLOSED_LIMIT", "End", "join"]

HALF_CLOSED_LIMIT = 60.0
"""Seconds of silence after which a half-closed tunnel is dropped; Squid's is 0."""


@implementer(IHalfCloseableProtocol)
class End(Protocol):
    """
    One end of a tunnel.

    Until it is joined to another it keeps what comes: what stood behind the head
    that opened the tunnel.

    :ivar received: Octets that came in here.
    :ivar early: What came before it was joined.
    :ivar other: The end it is joined to.
    :ivar tunnel: What it shares with that one.
    :ivar read_ended: Whether nothing more will come in here.
    """

    def __init__(self) -> None:
        self.received = 0
        self.other: End | None = None
        self.tunnel: _Tunnel | None = None
        self.early: list[bytes] = []
        self.read_ended = False

    def connectionMade(self) -> None:
        """Delay no small pieces, and find out when the peer is dead."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes) -> None:
        """Pass it to the other end."""
        self.received += len(data)
        if self.other is None or self.tunnel is None:
            self.early.append(data)
            return
        self.other.transport.write(data)  # type: ignore[union-attr]
        self.tunnel.watchdog.touch()

    def readConnectionLost(self) -> None:
        """Nothing more will come in here: end the other's other half."""
        self.read_ended = True
        other, tunnel = self.other, self.tunnel
        assert other is not None and tunnel is not None
        transport: Any = other.transport
        transport.unregisterProducer()  # it would be waited for
        if other.read_ended:
            tunnel.close()
        elif half_closes(transport):
            transport.loseWriteConnection()
        else:
            # TLS: close_notify goes out, and what the peer sends until it closes
            # still comes in.
            transport.loseConnection()
            tunnel.watch()

    def writeConnectionLost(self) -> None:
        """All that the other end has said is written, and so is its end."""
        assert self.tunnel is not None
        self.tunnel.watch()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let the other end go too: in good order, or as abruptly."""
        if self.tunnel is not None:
            self.tunnel.lost(self, reason)


class _Tunnel:
    """
    What the two ends of a tunnel share.

    :ivar watchdog: Watches what has only one half left; nothing else costs a timer.
    """

    __slots__ = ("_done", "ends", "watchdog")

    def __init__(
        self, one: End, other: End, clock: IReactorTime, done: Callable[[], None]
    ) -> None:
        self.ends = (one, other)
        self.watchdog = Watchdog(clock, self._expired)
        self._done: Callable[[], None] | None = done

    def watch(self) -> None:
        self.watchdog.start("half-closed", HALF_CLOSED_LIMIT)

    def _expired(self, _: PhaseTimeout) -> None:
        self.close()
        for end in self.ends:
            transport: Any = end.transport
            if not half_closes(transport):
                transport.abortConnection()  # TLS waits for its peer

    def close(self) -> None:
        """Both have ended: what is still to be written is, and that is all."""
        for end in self.ends:
            transport: Any = end.transport
            transport.unregisterProducer()
            transport.loseConnection()

    def lost(self, end: End, reason: Failure) -> None:
        done, self._done = self._done, None
        if done is None:  # the other was lost before
            self.watchdog.close()
            for each in self.ends:
                each.other = each.tunnel = None
            return
        one, other = self.ends
        left: Any = (other if end is one else one).transport
        left.unregisterProducer()
        if end.read_ended or reason.check(ConnectionDone):
            left.loseConnection()
        else:
            left.abortConnection()
        done()


def join(one: End, other: End, clock: IReactorTime, done: Callable[[], None]) -> None:
    """
    Make two connected ends a tunnel.

    :param done: Called once, when either connection is lost.
    """
    tunnel = _Tunnel(one, other, clock, done)
    for end, opposite in ((one, other), (other, one)):
        end.tunnel = tunnel
        end.other = opposite
    for end, opposite in ((one, other), (other, one)):
        transport: Any = opposite.transport
        transport.registerProducer(end.transport, True)
        if end.early:
            transport.write(b"".join(end.early))
            end.early.clear()


def half_closes(transport: Any) -> bool:
    """Say whether half of it can be ended: TCP's can, that of TLS cannot."""
    return ITCPTransport.providedBy(transport) and not isinstance(
        transport, ProtocolWrapper
    )
