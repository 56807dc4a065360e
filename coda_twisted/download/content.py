"""Take a response's content, as far as it comes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from coda_twisted.client.timeouts import Watchdog

__all__ = ["EndedEarly", "discard", "drop", "receive"]

DISCARD_LIMIT = 64 * 1024
"""Octets of an unwanted content that are read, so that the connection can stay."""

DISCARD_SECONDS = 5.0
"""How long that may take."""


class EndedEarly(Exception):
    """The content was cut off; ``__cause__`` is what the agent said."""


class _Receiver(Protocol):
    """
    Passes content on, until it ends, is cut off, or is not wanted any more.

    :ivar done: Fires with whether the end is certain.
    """

    def __init__(
        self,
        consume: Callable[[bytes], None],
        clock: IReactorTime,
        limit: float | None,
    ) -> None:
        self._consume = consume
        self._watchdog = Watchdog(clock, lambda error: self.stop(Failure(error)))
        self._watchdog.start("body", limit)
        self.done: Deferred[bool] = Deferred(
            lambda _: self.stop(Failure(CancelledError()))
        )

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._watchdog.touch()
        try:
            self._consume(data)
        except Exception:
            self.stop(Failure())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone, PotentialDataLoss):
            self._settle(reason.check(ResponseDone) is not None)
        else:
            error = EndedEarly()
            error.__cause__ = reason.value
            self._settle(Failure(error))

    def stop(self, reason: Failure) -> None:
        """Want nothing more."""
        self._settle(reason)
        transport: Any = self.transport
        if transport is not None:
            # Twisted's own transport of content cannot abort (twisted#8929).
            getattr(transport, "abortConnection", transport.stopProducing)()

    def _settle(self, result: Any) -> None:
        self._watchdog.close()
        if not self.done.called:
            self.done.callback(result)


def receive(
    response: IResponse,
    consume: Callable[[bytes], None],
    clock: IReactorTime,
    limit: float | None = None,
) -> Deferred[bool]:
    """
    Read a response's content.

    Cancelling the Deferred drops the connection; so does an exception of *consume*,
    with which it then fails.

    :param limit: Seconds that may pass between two pieces.
    :returns: Fires with whether it is certain that the content is whole; fails with
        :class:`EndedEarly` when it is not, and ``PhaseTimeout``.
    """
    receiver = _Receiver(consume, clock, limit)
    response.deliverBody(receiver)
    return receiver.done


def drop(response: IResponse, clock: IReactorTime) -> None:
    """Let a response go, and its connection."""
    reading = receive(response, lambda _: None, clock)
    reading.addErrback(lambda _: None)
    reading.cancel()


async def discard(response: IResponse, clock: IReactorTime) -> None:
    """Read away a content that nobody wants, if it is short; otherwise drop it."""
    if response.length is UNKNOWN_LENGTH or response.length > DISCARD_LIMIT:
        drop(response, clock)
        return
    reading = receive(response, lambda _: None, clock)
    reading.addTimeout(DISCARD_SECONDS, clock)
    with contextlib.suppress(EndedEarly, DeferredTimeout):
        await reading
