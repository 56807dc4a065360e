"""
A tunnel whose sockets the reactor watches for us, not for their transports.

Theory of operation.  A reactor knows one object for each descriptor, so both ways of
a socket are taken over together, when its transport has nothing left to write and has
stopped reading.  Until then, and from when a socket is given back, it is the
transport's: closing is left to it, and ``connectionLost`` comes as always.

A source is read only while its flow is empty, and where a target takes no more, its
source is not watched until it has taken all.  So the end of a source always comes
behind everything that it sent.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.client.sending import has_nothing_to_write
from coda_twisted.service.pipes import Flow, Pipes
from coda_twisted.service.sockets import Flushed

if TYPE_CHECKING:
    from coda_twisted.service.relay import End

__all__ = ["Side", "take_over"]


def take_over(reactor: Any, pipes: Pipes, one: End, other: End) -> None:
    """
    Relay between two ends past their transports, as soon as that can be.

    :param reactor: Has their raw transports, as
        :func:`~coda_twisted.service.sockets.are_raw` says.
    """
    _Handover(reactor, pipes, one, other)


class _Handover:
    """Waits for two transports to be done."""

    __slots__ = ("_ends", "_pipes", "_reactor", "_waiting")

    def __init__(self, reactor: Any, pipes: Pipes, one: End, other: End) -> None:
        self._ends = (one, other)
        self._pipes = pipes
        self._reactor = reactor
        self._waiting = 2
        for end in self._ends:
            end.transport.stopReading()
        for end in self._ends:
            if has_nothing_to_write(end.transport):
                self._flushed()
            else:
                Flushed(end.transport, self._flushed)

    def _flushed(self) -> None:
        self._waiting -= 1
        if self._waiting:
            return
        one, other = (Side(self._reactor, end) for end in self._ends)
        one.meet(other, self._pipes)
        other.meet(one, self._pipes)
        one.begin()
        other.begin()


@implementer(IReadWriteDescriptor)
class Side:
    """
    One end's socket.

    :ivar fd: Its descriptor; -1 once that was given back.
    :ivar other: The other side.
    :ivar inward: What comes in here, to the other side.
    """

    __slots__ = ("_closing", "_end", "_reactor", "fd", "inward", "other")

    inward: Flow
    other: Side

    def __init__(self, reactor: Any, end: End) -> None:
        self._reactor = reactor
        self._end = end
        self.fd: int = end.transport.fileno()
        self._closing = False
        end.side = self

    def meet(self, other: Side, pipes: Pipes) -> None:
        """Come to know the other side."""
        self.other = other
        self.inward = Flow(self.fd, other.fd, pipes, self._end.take_early())

    def begin(self) -> None:
        """Pass on what came early, then what comes."""
        if not self.inward.empty:
            self.other.push()
        if self.inward.empty and self.fd >= 0 and self.other.fd >= 0:
            self._reactor.addReader(self)

    def fileno(self) -> int:
        """Name the socket."""
        return self.fd

    def logPrefix(self) -> str:
        """Name us in the log."""
        return "tunnel"

    # What the reactor has seen

    def doRead(self) -> None:
        """Take what is there, and pass it on."""
        try:
            taken = self.inward.fill()
        except BlockingIOError:
            return
        except OSError:
            self._broken()
            return
        if taken:
            self._end.took(taken)
            self.other.push()
        else:
            self._reactor.removeReader(self)
            self._end.readConnectionLost()

    def push(self) -> None:
        """Write what is there for us; wait where that is not possible."""
        try:
            if not self.other.inward.drain():
                self._reactor.removeReader(self.other)
                self._reactor.addWriter(self)
        except OSError:
            self._broken()

    def doWrite(self) -> None:
        """Write on."""
        if self.fd < 0:
            return  # what was read just now has ended it all
        try:
            if not self.other.inward.drain():
                return
        except OSError:
            self._broken()
            return
        self._reactor.removeWriter(self)
        if self._closing:
            self._lose()
        elif self.other.fd >= 0:
            self._reactor.addReader(self.other)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take note that the connection is gone, as the reactor has found."""
        self._broken()

    def _broken(self) -> None:
        """Have the transport drop it; that tells the ends."""
        self._end.abort()

    # What the end wants

    def end_writing(self) -> None:
        """End our half in good order: everything has been passed on."""
        try:
            self._end.transport.getHandle().shutdown(socket.SHUT_WR)
        except OSError:
            self._broken()

    def close(self) -> None:
        """Close once the peer has everything that is there for it."""
        if self.other.inward.empty:
            self._lose()
        else:
            self._closing = True
            self._reactor.removeReader(self)

    def _lose(self) -> None:
        transport = self._end.transport
        self.give_back()
        # As a reactor says it.  loseConnection would ask one first whether nothing can
        # be written.
        transport.connectionLost(connectionDone)

    def give_back(self) -> None:
        """Leave the socket to its transport, and throw away what is there for it."""
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self.other.fd >= 0:
            self._reactor.removeReader(self.other)  # nobody takes it any more
        self.fd = -1
        self.other.inward.close()
        self._end.side = None
        if self.other.fd < 0:
            # Neither is needed any more: not for the collector to find out.
            del self.other.other, self.other
