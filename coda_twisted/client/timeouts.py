"""How long each phase of an exchange may take, and one timer that watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from coda_twisted.errors import PhaseTimeout

__all__ = ["KeepAlive", "Timeouts", "Watchdog"]


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """
    TCP keep-alive, which finds dead peers behind long polls and idle tunnels.

    :ivar enabled: Whether probes are sent at all.
    :ivar idle: Seconds of silence before the first probe.
    :ivar interval: Seconds between probes.
    :ivar count: Unanswered probes before the connection is given up.
    """

    enabled: bool = True
    idle: int = 60
    interval: int = 15
    count: int = 4


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    Limits in seconds; ``None`` waits for ever.

    :ivar connect: For name resolution and TCP together.
    :ivar tls: For a TLS handshake.
    :ivar head: For a response's head, counted from the last octet of the request
        that went out.
    :ivar send: Without an octet of a request's content taken while some of it waits
        to be written; where the kernel tells what it still holds, between one and
        two times that.
    :ivar body: Between two pieces of a response's content.  Not by default: event
        streams are silent for hours, and keep-alive finds dead peers.
    :ivar idle: For how long an unused connection is kept.
    :ivar expect: For how long content is held back for a 100 (Continue).
    :ivar total: For everything up to the response's head.
    """

    connect: float = 20.0
    tls: float = 20.0
    head: float | None = 120.0
    send: float | None = 300.0
    body: float | None = None
    idle: float = 60.0
    expect: float = 1.0
    total: float | None = None


class Watchdog:
    """
    One timer for the phases of a connection's life.

    Progress costs an attribute, not a timer: when the timer fires early it is
    set anew for what is left.
    """

    __slots__ = ("_call", "_clock", "_due", "_expired", "_limit", "_phase", "_since")

    def __init__(
        self, clock: IReactorTime, expired: Callable[[PhaseTimeout], None]
    ) -> None:
        self._clock = clock
        self._expired = expired
        self._call: IDelayedCall | None = None
        self._limit: float | None = None
        self._phase = ""
        self._since = 0.0
        self._due = 0.0  # when the timer fires

    def start(self, phase: str, limit: float | None) -> None:
        """Watch *phase*: call back unless :meth:`touch` comes within *limit*."""
        self._phase = phase
        self._limit = limit
        if limit is None:
            return
        since = self._since = self._clock.seconds()
        if self._call is not None:
            if self._due <= since + limit:
                return
            self._call.cancel()
        self._set(since, limit)

    def _set(self, now: float, seconds: float) -> None:
        self._due = now + seconds
        self._call = self._clock.callLater(seconds, self._look)

    def touch(self) -> None:
        """Note progress."""
        if self._limit is not None:
            self._since = self._clock.seconds()

    def rest(self) -> None:
        """Watch nothing for now; the timer may stay for the next phase."""
        self._limit = None

    def close(self) -> None:
        """Watch nothing any more, and let go of the owner."""
        self._limit = None
        self._expired = _ignore
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        if self._limit is None:
            return
        now = self._clock.seconds()
        left = self._since + self._limit - now
        if left > 0:
            self._set(now, left)
            return
        limit, self._limit = self._limit, None
        self._expired(PhaseTimeout(self._phase, limit))


def _ignore(error: PhaseTimeout) -> None:
    """Take the place of an owner that is gone."""
