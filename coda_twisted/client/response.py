"""A response whose content flows when its owner wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.errors import ConnectionEnded, LocalProtocolError
from coda_twisted.http1.bodies import Framing
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import ResponseHead

if TYPE_CHECKING:
    from coda_twisted.client.connection import HTTPConnection
    from coda_twisted.routing.routes import Route

__all__ = ["DRAIN_LIMIT", "BodySink", "Response", "collect", "drain"]

DRAIN_LIMIT = 64 * 1024
"""Octets of a challenge's content that are read away; Squid's pages are of 4 KiB."""


class BodySink(Protocol):
    """Who takes a response's content; after ``finished`` or ``failed``, no more."""

    def received(self, data: bytes) -> None:
        """Take a piece of content."""

    def finished(self, trailers: Fields) -> None:
        """Take note that the content is complete."""

    def failed(self, reason: Failure) -> None:
        """Take note that the rest of the content will not come."""


@implementer(IPushProducer)
class Response:
    """
    One final response.

    Nothing is read from the connection between the head and :meth:`deliver` but
    what came with the head.  A response that is not wanted must be aborted, or
    delivered to a sink that throws it away.

    :ivar head: As received, hop-by-hop fields included.
    :ivar framing: How the end of the content is known.
    :ivar takes_over: Whether the stream changes hands: 101, or 2xx to CONNECT.
    :ivar route: The way by which it came; set by the exchange.
    """

    __slots__ = (
        "_connection",
        "_delivered",
        "_failure",
        "_held",
        "_paused",
        "_sink",
        "_trailers",
        "framing",
        "head",
        "route",
        "takes_over",
    )

    def __init__(
        self,
        head: ResponseHead,
        framing: Framing,
        connection: HTTPConnection,
        *,
        takes_over: bool = False,
    ) -> None:
        self.head = head
        self.framing = framing
        self.takes_over = takes_over
        self.route: Route | None = None
        self._connection: HTTPConnection | None = connection
        self._sink: BodySink | None = None
        self._delivered = False
        self._held: list[bytes] = []
        self._trailers: Fields | None = None
        self._failure: Failure | None = None
        self._paused = False

    # The owner's side

    def deliver(self, sink: BodySink) -> None:
        """
        Let the content flow to *sink*; may be called once.

        What is here already is delivered before this returns.
        """
        if self._delivered:
            raise LocalProtocolError("the response is being delivered already")
        self._delivered = True
        held, self._held = self._held, []
        for data in held:
            sink.received(data)
        if self._trailers is not None:
            sink.finished(self._trailers)
        elif self._failure is not None:
            sink.failed(self._failure)
        else:
            self._sink = sink
            if self._paused:
                self.resumeProducing()

    def pauseProducing(self) -> None:
        """Let nothing more come for now."""
        if self._connection is not None:
            self._paused = True
            self._connection.pause()

    def resumeProducing(self) -> None:
        """Let the content flow again."""
        if self._connection is not None:
            self._paused = False
            self._connection.resume()

    @property
    def outstanding(self) -> int:
        """Octets of content that have still to come, if a length says how many."""
        return 0 if self._connection is None else self._connection.outstanding

    @property
    def transport(self) -> Any:
        """What the content comes by; ``None`` when nothing more will come."""
        return None if self._connection is None else self._connection.transport

    def lend(self, *, waiting: bool) -> None:
        """
        Leave the content to somebody who takes it from the socket.

        :meth:`skip` says how much that was; :meth:`resumeProducing` ends it.

        :param waiting: Whether the server is waited for, and its patience watched.
        """
        if self._connection is not None:
            self._paused = True
            self._connection.lend(waiting=waiting)

    def skip(self, octets: int) -> None:
        """Take note that so much content was taken; the last of it ends it."""
        if self._connection is not None:
            self._connection.skip(octets)

    def stopProducing(self) -> None:
        """Drop the connection: nobody wants the rest (IProducer)."""
        self.abort()

    def abort(self) -> None:
        """Drop the connection, unless the content is complete."""
        if self._connection is not None:
            self._connection.abort()

    def detach(self, successor: IProtocol) -> None:
        """
        Hand the stream over to another protocol.

        :param successor: Is connected to the transport, gets the octets that
            came behind the head, then all that follows.
        :raises ConnectionEnded: The connection is gone already.
        """
        if not self.takes_over:
            raise LocalProtocolError("only 101 and 2xx to CONNECT hand over a stream")
        connection, self._connection = self._connection, None
        if connection is None:
            raise ConnectionEnded("the connection is gone", answered=True)
        connection.detach(successor)

    # The connection's side

    @property
    def wanted(self) -> bool:
        """Whether somebody takes the content."""
        return self._delivered

    def receive(self, data: bytes) -> None:
        """Pass a piece on, or hold it until somebody wants it."""
        if self._sink is not None:
            self._sink.received(data)
        else:
            self._held.append(data)

    def finish(self, trailers: Fields) -> None:
        """Take note that the content is complete."""
        self._connection = None
        self._trailers = trailers
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.finished(trailers)

    def fail(self, reason: Failure) -> None:
        """Take note that the content will not be complete."""
        self._connection = None
        self._failure = reason
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.failed(reason)


class _Collector:
    """Keeps the first *limit* octets; what follows ends the collecting."""

    def __init__(self, response: Response, limit: int) -> None:
        self.done: Deferred[tuple[bytes, bool]] = Deferred(self._cancelled)
        self._response: Response | None = response
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def received(self, data: bytes) -> None:
        if self._response is None:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self.give_up()

    def finished(self, trailers: Fields) -> None:
        self._settle(complete=True)

    def failed(self, reason: Failure) -> None:
        self._settle(complete=False)

    def give_up(self) -> None:
        response = self._response
        if response is not None:
            self._settle(complete=False)
            response.abort()

    def _cancelled(self, _: object) -> None:
        response, self._response = self._response, None
        assert response is not None
        response.abort()

    def _settle(self, *, complete: bool) -> None:
        if self._response is not None:
            self._response = None
            self.done.callback((b"".join(self._pieces)[: self._limit], complete))


async def collect(
    response: Response, limit: int, seconds: float, clock: IReactorTime
) -> tuple[bytes, bool]:
    """
    Read up to *limit* octets of content, for at most *seconds*.

    :returns: The octets, and whether that was all; if not, or if it is cancelled,
        the connection is dropped.
    """
    collector = _Collector(response, limit)
    timer: Any = clock.callLater(seconds, collector.give_up)
    response.deliver(collector)
    try:
        return await collector.done
    finally:
        if timer.active():
            timer.cancel()


async def drain(response: Response, clock: IReactorTime) -> bool:
    """
    Read a challenge's content away, so that its connection can carry the next leg.

    :returns: Whether it ended within 64 KiB and 5 s; if not, the connection is
        dropped.
    """
    return (await collect(response, DRAIN_LIMIT, 5.0, clock))[1]
