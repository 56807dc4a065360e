"""
The rest of a message's content, from one connection's socket to another's.

Theory of operation.  Both transports stay what they are: the message's head was
written by one, and the next message will be read by the other.  In between the content
passes by duplicates of their descriptors, which the reactor watches for us: so a
transport may go on reading while we write to its socket, and the other way round.
The source's transport is paused meanwhile, and nobody writes to the target's.

A duplicate keeps a connection open.  Whoever drops a connection must stop what passes
through it first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.service.pipes import Flow, Pipes

__all__ = ["PASS_FROM", "Passage", "Passenger"]

PASS_FROM = 256 * 1024
"""Octets from which on it is worth while: below, the two ways cost about the same."""


class Passenger(Protocol):
    """Who is told how it goes; after all but the first two, no more."""

    def took(self, octets: int) -> None:
        """Take note that so much has left the source."""

    def stalled(self) -> None:
        """Take note that the target does not keep up; ``took`` says that it does."""

    def arrived(self) -> None:
        """Take note that all has reached the target's socket."""

    def source_ended(self) -> None:
        """Take note that the source ended before; what it sent was passed on."""

    def source_broke(self) -> None:
        """Take note that the source broke off."""

    def target_broke(self) -> None:
        """Take note that the target is gone."""


class Passage:
    """
    Move octets from one raw transport's socket to another's.

    :param reactor: Provides ``IReactorFDSet``.
    :param source: Is paused.
    :param target: Has written all that it was given.
    :param octets: How many are to be moved; what follows stays where it is.
    :ivar moved: Octets that have left the source.
    :raises OSError: There are no more descriptors; nothing was moved.
    """

    def __init__(
        self,
        reactor: Any,
        pipes: Pipes,
        source: Any,
        target: Any,
        octets: int,
        passenger: Passenger,
    ) -> None:
        self.moved = 0
        self._reactor = reactor
        self._left = octets
        self._passenger = passenger
        reading = os.dup(source.fileno())
        try:
            writing = os.dup(target.fileno())
        except OSError:
            os.close(reading)
            raise
        self._fds: tuple[int, ...] = (reading, writing)
        self._flow = Flow(reading, writing, pipes)
        self._source = _Watched(reading, self._read, self._source_broke)
        self._target = _Watched(writing, self._write, self._target_broke)
        reactor.addReader(self._source)

    def _read(self) -> None:
        try:
            taken = self._flow.fill(self._left)
        except BlockingIOError:
            return
        except OSError:
            self._source_broke()
            return
        if not taken:
            self.stop()
            self._passenger.source_ended()
            return
        self.moved += taken
        self._left -= taken
        self._passenger.took(taken)
        try:
            drained = self._flow.drain()
        except OSError:
            self._target_broke()
            return
        if drained:
            self._check_arrival()
        else:
            self._reactor.removeReader(self._source)
            self._reactor.addWriter(self._target)
            self._passenger.stalled()

    def _write(self) -> None:
        try:
            if not self._flow.drain():
                return
        except OSError:
            self._target_broke()
            return
        self._reactor.removeWriter(self._target)
        if not self._check_arrival():
            self._passenger.took(0)
            self._reactor.addReader(self._source)

    def _check_arrival(self) -> bool:
        if self._left:
            return False
        self.stop()
        self._passenger.arrived()
        return True

    def _source_broke(self) -> None:
        self.stop()
        self._passenger.source_broke()

    def _target_broke(self) -> None:
        self.stop()
        self._passenger.target_broke()

    def stop(self) -> None:
        """Move nothing more, and throw away what is on its way; may be called again."""
        fds, self._fds = self._fds, ()
        if fds:
            self._reactor.removeReader(self._source)
            self._reactor.removeWriter(self._target)
            self._flow.close()
            for fd in fds:
                os.close(fd)
            # They refer to us: not for the collector to find out.
            del self._source, self._target


@implementer(IReadWriteDescriptor)
class _Watched:
    """A descriptor as the reactor has it."""

    __slots__ = ("_fd", "_lost", "_ready")

    def __init__(
        self, fd: int, ready: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self._fd = fd
        self._ready = ready
        self._lost = lost

    def fileno(self) -> int:
        """Name the descriptor."""
        return self._fd

    def logPrefix(self) -> str:
        """Name us in the log."""
        return "passage"

    def doRead(self) -> None:
        """There is something to read."""
        self._ready()

    def doWrite(self) -> None:
        """There is room to write."""
        self._ready()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The reactor has found it broken."""
        self._lost()
