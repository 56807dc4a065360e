"""
File descriptors: as many as may be had, and what happens when they run out.

A port of Twisted's that runs out accepts what waits, to close it at once.  Ours
leaves it waiting: in the kernel's queue a connection costs no descriptor, and most
clients are patient for the moment that it takes until others have ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from errno import EMFILE, ENFILE
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["SHORTAGES", "Gate", "raise_limit", "short_now"]

SHORTAGES = frozenset((EMFILE, ENFILE))
"""What the system says when this process, or the machine, has none left."""

SPARE = 32
"""
Descriptors that must be free when a connection is accepted.

Those who are served already need some: to connect upstream, to resolve a name.
"""

TIGHT_BURST = 4
"""Connections accepted at once where descriptors are scarce."""

BURST = 100
"""Connections accepted at once elsewhere; Twisted's own begins with as many."""

PAUSE = 0.25
"""Seconds for which nothing is accepted once descriptors have run out."""

CALM = 10.0
"""Seconds without a pause after which the shortage is told to be over."""


def raise_limit() -> int:
    """
    Raise the soft limit of open descriptors to the hard one (RLIMIT_NOFILE).

    :returns: The limit as it is now; 0 where there is none to be known.
    """
    try:
        import resource
    except ImportError:  # Windows
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS refuses what it says is allowed, and keeps what it had.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            Logger().debug(
                "the limit of open files was raised from {soft} to {hard}",
                soft=soft,
                hard=hard,
            )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft > 0 else 0


def short_now() -> bool:
    """Say whether not even one descriptor can be had."""
    return lowest_free() is None


def lowest_free() -> int | None:
    """
    Find the descriptor that the next socket would get.

    :returns: ``None`` if it would get none.
    """
    try:
        descriptor = os.open(os.sep, os.O_RDONLY)
    except OSError as error:
        return None if error.errno in SHORTAGES else 0
    os.close(descriptor)
    return descriptor


def are_free(count: int) -> bool:
    """Say whether so many descriptors can be had at once."""
    taken: list[int] = []
    try:
        # The machine's table is looked at as well: dup needs no place there.
        taken.append(os.open(os.sep, os.O_RDONLY))
        while len(taken) < count:
            taken.append(os.dup(taken[0]))
    except OSError as error:
        return error.errno not in SHORTAGES
    finally:
        for each in taken:
            os.close(each)
    return True


@implementer(IReadDescriptor)
class Gate:
    """
    Stands in a listening port's place before the reactor.

    It lets the port accept while there are descriptors, no more connections at once
    than there is room for.  Without room it looks again after a moment, and has said
    so once.

    :param port: A port of Twisted's that listens.
    :param backlog: How many connections can be queued at it.
    :param limit: How many descriptors there can be; 0 where that is not known.
    :param connections: Counts the clients that are served; each needs two descriptors.
    :param make_room: Closes what can be spared.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        port: Any,
        backlog: int,
        limit: int,
        connections: Callable[[], int],
        make_room: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._port = port
        self._backlog = backlog
        self._limit = limit
        self._connections = connections
        self._make_room = make_room
        self._highest = 0
        self._spare = min(SPARE, limit // 4)
        self._pause: Any = None
        self._last: float | None = None
        port.stopReading()
        reactor.addReader(self)

    def fileno(self) -> int:
        """Get the listening socket's descriptor."""
        return self._port.fileno()  # type: ignore[no-any-return]

    def logPrefix(self) -> str:
        """Name it in the log, as the port is named."""
        return self._port.logPrefix()  # type: ignore[no-any-return]

    def connectionLost(self, reason: Failure) -> None:
        """The reactor lets go of everything; the port is closed by whoever made it."""

    def doRead(self) -> None:
        """Have the port accept what waits, if there is room."""
        burst = self._room()
        if not burst:
            self._wait()
            return
        if self._last is not None:
            self._told_over()
        # The port's own measure of how many to accept before it returns.
        self._port.numberAccepts = min(self._port.numberAccepts, burst)
        self._port.doRead()

    def _room(self) -> int:
        """Say how many connections may be accepted now."""
        free = lowest_free()
        if free is None:
            return 0
        if not self._limit:
            return BURST
        left = self._limit - self._spare - 2 * self._connections()
        if left <= 0:
            return 0
        # Below the lowest all are taken.  Once half of them were, there may be few
        # above a low one that has become free.
        self._highest = max(self._highest, free)
        if self._highest < self._limit // 2:
            return max(1, min(BURST, self._limit // 8, left // 2))
        if are_free(TIGHT_BURST + self._spare):
            return max(1, min(TIGHT_BURST, left // 2))
        return 0

    def _wait(self) -> None:
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(PAUSE, self._resume)
        if self._last is None:
            self.log.warn(
                "no file descriptors left (the limit is {limit}): new connections "
                "wait until others have ended. Raise it: LimitNOFILE= of systemd, or "
                "ulimit -n.",
                limit=self._limit or "not known",
            )
        self._last = self._reactor.seconds()
        self._make_room()

    def _resume(self) -> None:
        self._pause = None
        self._reactor.addReader(self)

    def _told_over(self) -> None:
        assert self._last is not None
        if self._reactor.seconds() - self._last > CALM:
            self._last = None
            self.log.info("there are file descriptors again")

    def close(self, *, last: bool = True) -> Any:
        """
        Stop listening.

        :param last: Whether nobody else has the socket: what is queued there would be
            reset with it, and is accepted before.
        :returns: As ``IListeningPort.stopListening``.
        """
        if self._pause is None:
            self._reactor.removeReader(self)
            if last:
                self._port.numberAccepts = self._backlog
                self._port.doRead()
        else:
            self._pause.cancel()
            self._pause = None
        return self._port.stopListening()
