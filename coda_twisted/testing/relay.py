"""The inside of a tunnel: what comes from one side goes to the other."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["TunnelEnd", "join"]


@implementer(IHalfCloseableProtocol)
class TunnelEnd(Protocol):
    """
    One end; until it is joined to another it keeps what comes.

    :ivar ended: Whether nothing more will come here.
    """

    def __init__(self) -> None:
        self._other: TunnelEnd | None = None
        self._early: list[bytes] = []
        self.ended = False
        self._lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        if self._other is None:
            self._early.append(data)
        else:
            self._other.transport.write(data)  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:
        """End the half of the other side that this one feeds."""
        self.ended = True
        if self._other is not None:
            self._pass_on_end()

    def writeConnectionLost(self) -> None:
        """Our half is shut down, as we wanted."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let the other side go, too: in good order, or as abruptly."""
        self._lost = reason
        if self._other is not None:
            self._pass_on_loss()

    def join(self, other: TunnelEnd) -> None:
        """Begin to pass on what comes to *other*, and what has come."""
        self._other = other
        transport: Any = other.transport
        transport.registerProducer(self.transport, True)
        early, self._early = self._early, []
        if early:
            transport.write(b"".join(early))
        if self._lost is not None:
            self._pass_on_loss()
        elif self.ended:
            self._pass_on_end()

    def _pass_on_end(self) -> None:
        assert self._other is not None
        transport: Any = self._other.transport
        if not self._other.ended and _half_closes(transport):
            transport.loseWriteConnection()
            return
        for end in (self, self._other):
            end.transport.loseConnection()  # type: ignore[union-attr]

    def _pass_on_loss(self) -> None:
        assert self._other is not None and self._lost is not None
        transport: Any = self._other.transport
        transport.unregisterProducer()
        if self._lost.check(ConnectionDone):
            transport.loseConnection()
        else:
            transport.abortConnection()


def join(one: TunnelEnd, other: TunnelEnd) -> None:
    """Make two connected ends a tunnel."""
    one.join(other)
    other.join(one)


def _half_closes(transport: Any) -> bool:
    """Say whether half of it can be ended: TCP's can, that of TLS cannot."""
    return ITCPTransport.providedBy(transport) and not isinstance(
        transport, ProtocolWrapper
    )
