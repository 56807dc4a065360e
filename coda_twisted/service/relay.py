"""
Two streams joined: what comes from one goes to the other, each way by itself.

One side may end its half while the other goes on (RFC 9112 9.6 knows of it, and
rsync, ssh and git rely on it).  A tunnel with one half ended does not wait for the
other for ever.  What was written is never thrown away for that: only silence counts,
and only from when the end has been told.

Between two raw sockets octets pass by :mod:`coda_twisted.service.splice`; elsewhere,
through TLS or without descriptors, from transport to transport.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.client.connection import FAREWELL
from coda_twisted.client.progress import Progress
from coda_twisted.client.timeouts import Watchdog
from coda_twisted.errors import PhaseTimeout
from coda_twisted.service.limits import Limits
from coda_twisted.service.pipes import Pipes
from coda_twisted.service.sockets import are_raw
from coda_twisted.service.splice import Side, take_over

__all__ = ["End", "Ends", "join"]


@implementer(IProtocol, IHalfCloseableProtocol)
class End:
    """
    One end of a tunnel.

    Until it is joined to another it keeps what comes: what stood behind the head
    that opened the tunnel.

    :ivar received: Octets that came in here.
    :ivar other: The end it is joined to.
    :ivar tunnel: What it shares with that one.
    :ivar read_ended: Whether nothing more will come in here.
    :ivar side: What relays past its transport, while it does.
    """

    # There may be ten thousand, each of which lives for days and does nothing.
    __slots__ = (
        "_early",
        "other",
        "read_ended",
        "received",
        "side",
        "transport",
        "tunnel",
    )

    transport: Any

    def __init__(self) -> None:
        self.received = 0
        self.other: End | None = None
        self.tunnel: _Tunnel | None = None
        self.side: Side | None = None
        self.read_ended = False
        self._early: list[bytes] | None = None

    def makeConnection(self, transport: Any) -> None:
        """Take the place of whatever protocol the transport has had."""
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        """Delay no small pieces, and find out when the peer is dead."""
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes) -> None:
        """Pass it to the other end."""
        if self.other is None or self.tunnel is None:
            self.received += len(data)
            if self._early is None:
                self._early = []
            self._early.append(data)
            return
        self.took(len(data))
        self.other.transport.write(data)

    def took(self, octets: int) -> None:
        """Count what came in."""
        self.received += octets
        watchdog = self.tunnel and self.tunnel.watchdog
        if watchdog:
            watchdog.touch()

    def take_early(self) -> bytes:
        """Take what came before it was joined."""
        early, self._early = self._early, None
        return b"".join(early or ())

    def readConnectionLost(self) -> None:
        """Nothing more will come in here: end the other's other half."""
        self.read_ended = True
        other, tunnel = self.other, self.tunnel
        assert other is not None and tunnel is not None
        if other.read_ended:
            tunnel.close()
        elif other.side is not None:
            other.side.end_writing()
            tunnel.watch()
        else:
            transport = other.transport
            transport.unregisterProducer()  # it would be waited for
            if half_closes(transport):
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
        if self.side is not None:
            self.side.give_back()
        if self.tunnel is not None:
            self.tunnel.lost(self, reason)

    def close(self) -> None:
        """Close once the peer has all that was said to it."""
        if self.side is not None:
            self.side.close()
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Drop the connection."""
        if self.side is not None:
            self.side.give_back()
        self.transport.unregisterProducer()
        self.transport.abortConnection()


class Ends(Factory):
    """Makes the far ends of tunnels."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make one."""
        return End()


class _Tunnel:
    """
    What the two ends of a tunnel share.

    :ivar watchdog: Watches what has only one half left, and what is silent where
        that has a limit; nothing else costs a timer.
    """

    __slots__ = (
        "_clock",
        "_closing",
        "_done",
        "_limits",
        "_progress",
        "ends",
        "watchdog",
    )

    def __init__(
        self,
        one: End,
        other: End,
        clock: IReactorTime,
        done: Callable[[], None],
        limits: Limits,
    ) -> None:
        self.ends = (one, other)
        self.watchdog: Watchdog | None = None
        self._clock = clock
        self._limits = limits
        self._progress: tuple[Progress, Progress] | None = None
        self._done: Callable[[], None] | None = done
        self._closing = False
        if limits.tunnel is not None:
            self._watch("idle", limits.tunnel)

    def watch(self) -> None:
        if self._done is not None:  # none of them is gone
            self._watch("half-closed", self._limits.half_closed)

    def _watch(self, phase: str, limit: float | None) -> None:
        if self.watchdog is None:
            self.watchdog = Watchdog(self._clock, self._expired)
        self.watchdog.start(phase, limit)

    def _expired(self, error: PhaseTimeout) -> None:
        if error.phase == "idle" and self._flows():
            self._watch("idle", error.seconds)
            return
        if error.phase == "farewell":
            for end in self.ends:
                end.abort()
            return
        if error.phase == "idle":
            # What is not written by now may never be: it counts as silence.
            self._watch("farewell", FAREWELL)
        self.close()
        for end in self.ends:
            if not half_closes(end.transport):
                end.transport.abortConnection()  # TLS waits for its peer

    def _flows(self) -> bool:
        """Say whether a side is merely slow to take what the other has sent."""
        if self._progress is None:
            one, other = self.ends
            self._progress = Progress(one.transport), Progress(other.transport)
        return any(each.made() for each in self._progress)

    def close(self) -> None:
        """Both have ended: what is still to be written is, and that is all."""
        self._closing = True
        for end in self.ends:
            end.close()

    def lost(self, end: End, reason: Failure) -> None:
        done, self._done = self._done, None
        if done is None:  # the other was lost before
            if self.watchdog is not None:
                self.watchdog.close()
            for each in self.ends:
                each.other = each.tunnel = None
            return
        done()
        one, other = self.ends
        left = other if end is one else one
        if self._closing or end.read_ended or reason.check(ConnectionDone):
            left.close()
        else:
            left.abort()


def join(
    one: End,
    other: End,
    clock: IReactorTime,
    done: Callable[[], None],
    pipes: Pipes | None = None,
    limits: Limits | None = None,
) -> None:
    """
    Make two connected ends a tunnel.

    :param clock: The reactor.
    :param done: Called once, when either connection is lost.
    :param pipes: Lends what splicing needs.
    :param limits: How long it may be silent.
    """
    tunnel = _Tunnel(one, other, clock, done, limits or Limits())
    for end, opposite in ((one, other), (other, one)):
        end.tunnel = tunnel
        end.other = opposite
        if isinstance(end.transport, Connection):
            # What led here was in between; it has done its part, and may go.
            end.transport.protocol = end
    if pipes is not None and are_raw(clock, one.transport, other.transport):
        take_over(clock, pipes, one, other)
        return
    for end, opposite in ((one, other), (other, one)):
        transport = opposite.transport
        transport.registerProducer(end.transport, True)
        early = end.take_early()
        if early:
            transport.write(early)


def half_closes(transport: Any) -> bool:
    """Say whether half of it can be ended: TCP's can, that of TLS cannot."""
    return ITCPTransport.providedBy(transport) and not isinstance(
        transport, ProtocolWrapper
    )
