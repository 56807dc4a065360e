"""A request's content on its way out: framed, counted, sent again if need be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from coda_twisted.client.pace import LARGE, SMALL, buffer, has_room, write
from coda_twisted.errors import BodyNotReplayable, LocalProtocolError
from coda_twisted.http1.bodies import encode_chunk, last_chunk
from coda_twisted.http1.pieces import keep
from coda_twisted.interfaces import IRewindableBody

__all__ = ["REPLAY_LIMIT", "BytesBody", "ReplayableBody", "Upload"]

REPLAY_LIMIT = 256 * 1024
"""
Octets of a body kept for another leg.

Most API calls and forms fit; winfoom spools to disk, alpaca keeps everything
in memory, squid keeps 64 KiB.
"""


@implementer(IRewindableBody)
class BytesBody:
    """Content that is at hand as a whole; it can be sent any number of times."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write it all at once."""
        if self.content:
            consumer.write(self.content)
        return succeed(None)

    def rewind(self) -> None:
        """Nothing is consumed by sending it."""

    def pauseProducing(self) -> None:
        """All has been written already."""

    def resumeProducing(self) -> None:
        """All has been written already."""

    def stopProducing(self) -> None:
        """All has been written already."""


def _nobody_asks(flowing: bool) -> None:
    """Take the place of who would be told of the flow."""


def _nobody_cares() -> None:
    """Take the place of who would be told of the failure."""


@implementer(IConsumer, IPushProducer)
class Upload:
    """
    Write one body to one transport, framed by its length or in chunks.

    It is the transport's producer from :meth:`start` to :meth:`stop`, also when
    everything is written: a transport that fails says so to its producer before it
    closes the socket, in which the answer may be.

    :param flows: Told whether the transport takes more.
    :param failing: Called when the transport fails, while its socket is open.
    :ivar transport: Where it is written.
    :ivar started: Whether the body was asked for anything yet.
    :ivar done: Whether no more will be written.
    :ivar complete: Whether the whole message is on the wire.
    :ivar sent: Octets of content written.
    """

    def __init__(
        self,
        body: IBodyProducer,
        transport: ITransport,
        flows: Callable[[bool], None] = _nobody_asks,
        failing: Callable[[], None] = _nobody_cares,
    ) -> None:
        self._body = body
        self.transport: Any = transport
        self._flows = flows
        self._failing = failing
        self._left: int | None = None if body.length == UNKNOWN_LENGTH else body.length
        self._finished: Deferred[None] | None = None
        self._registered = False
        self.started = False
        self.done = False
        self.complete = False
        self.sent = 0

    def start(self) -> Deferred[None]:
        """
        Ask the body for its content.

        :returns: Fires when the message is complete; fails with what the body
            failed with, or :class:`LocalProtocolError` when it is not as long as
            it said.  Never fires after :meth:`stop`.
        """
        self.started = self._registered = True
        finished = self._finished = Deferred()
        buffer(self.transport, SMALL)
        self.transport.registerProducer(self, True)
        self._body.startProducing(self).addCallbacks(self._produced, self._end)
        return finished

    def write(self, data: bytes) -> None:
        """Frame a piece of content."""
        if self.done or not data:
            return
        if self._left is None:
            write(self.transport, encode_chunk(data))
        elif len(data) > self._left:
            # Octets beyond Content-Length would be read as another request.
            self._body.stopProducing()
            self._end(LocalProtocolError("the body is longer than it said"))
            return
        else:
            self._left -= len(data)
            write(self.transport, data)
        self.sent += len(data)

    def skip(self, octets: int) -> None:
        """Take note that so much content was written past us, as it is."""
        if self._left is not None:
            self._left -= octets
        self.sent += octets

    def flows(self, flowing: bool) -> None:
        """Say whether the transport takes more, while others write to its socket."""
        if not self.done:
            self._flows(flowing)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Do nothing: the body's flow is the transport's, by way of us."""

    def unregisterProducer(self) -> None:
        """Do nothing, as :meth:`registerProducer`."""

    def stop(self) -> None:
        """Stop asking for content; what is not on the wire by now never will be."""
        if self._registered:
            self._registered = False
            self.transport.unregisterProducer()
        self._flows, self._failing = _nobody_asks, _nobody_cares
        if self.done:
            return
        self._finished = None
        self._end(None)
        if self.started:
            self._body.stopProducing()

    # The transport's side (IPushProducer)

    def pauseProducing(self) -> None:
        """Let no more content come: the peer does not keep up."""
        if not self.done:
            self._flows(False)
            self._body.pauseProducing()

    def resumeProducing(self) -> None:
        """Let it come."""
        if not self.done and has_room(self.transport):
            self._flows(True)
            self._body.resumeProducing()

    def stopProducing(self) -> None:
        """Say that the transport fails; whoever owns it stops us."""
        self._failing()

    def _produced(self, _: object) -> None:
        if self.done:
            return
        if self._left:
            self._end(LocalProtocolError("the body is shorter than it said"))
            return
        if self._left is None:
            self.transport.write(last_chunk(getattr(self._body, "trailers", None)))
        self.complete = True
        self._end(None)

    def _end(self, reason: Failure | Exception | None) -> None:
        if self.done:
            return
        self.done = True
        if self.started:
            buffer(self.transport, LARGE)
        finished, self._finished = self._finished, None
        if finished is None:
            return
        if reason is None:
            finished.callback(None)
        else:
            finished.errback(reason)


@implementer(IBodyProducer)
class ReplayableBody:
    """
    A body that may be needed on more than one leg of an authentication.

    Its first :data:`REPLAY_LIMIT` octets are kept while they go out.  A body that
    can rewind is rewound instead.  Stopping a leg only pauses the source, until
    :meth:`last_leg` or :meth:`discard` is called.

    :ivar sent: Octets given to the latest leg.
    """

    def __init__(self, source: IBodyProducer) -> None:
        self._source = source
        self._rewindable = source if IRewindableBody.providedBy(source) else None
        self._kept: list[bytes] | None = [] if self._rewindable is None else None
        self._size = 0
        self._consumer: IConsumer | None = None
        self._leg: Deferred[None] | None = None
        self._started = False
        self._last = False
        self._outcome: bool | Failure | None = None
        self.length = source.length
        self.sent = 0

    @property
    def trailers(self) -> Any:
        """The source's trailers, once it has finished."""
        return getattr(self._source, "trailers", None)

    @property
    def replayable(self) -> bool:
        """Whether another leg can send all of the content."""
        return (
            self._rewindable is not None or not self._started or self._kept is not None
        )

    @property
    def small(self) -> bool:
        """Whether all of it is sure to be replayable after it was sent."""
        return self._rewindable is not None or (
            self.length != UNKNOWN_LENGTH and self.length <= REPLAY_LIMIT
        )

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        Begin a leg.

        :raises BodyNotReplayable: An earlier leg took more than is kept.
        """
        if not self.replayable:
            raise BodyNotReplayable(
                "the content was partly sent before the request was challenged, "
                f"and only its first {REPLAY_LIMIT // 1024} KiB are kept; "
                "send the request again"
            )
        self._consumer = consumer
        self.sent = 0
        leg = self._leg = Deferred()
        if not self._started:
            self._started = True
            self._begin()
        elif self._rewindable is not None:
            if self._outcome is None:
                self._source.stopProducing()
            self._rewindable.rewind()
            self._begin()
        else:
            self._replay()
        return leg

    def _begin(self) -> None:
        self._outcome = None
        self._source.startProducing(self).addCallbacks(self._finished, self._failed)

    def _replay(self) -> None:
        assert self._kept is not None and self._consumer is not None
        for piece in self._kept:
            self.sent += len(piece)
            self._consumer.write(piece)
        if self._outcome is None:
            self._source.resumeProducing()
        else:
            self._settle(self._outcome)

    def write(self, data: bytes) -> None:
        """Keep a piece, and pass it to the leg under way."""
        self.sent += len(data)
        if self._kept is not None:
            self._size += len(data)
            if self._size > REPLAY_LIMIT:
                self._kept = None
            else:
                keep(self._kept, data)
        if self._consumer is not None:
            self._consumer.write(data)

    def _finished(self, _: object) -> None:
        self._settle(True)

    def _failed(self, reason: Failure) -> None:
        self._settle(reason)

    def _settle(self, outcome: bool | Failure) -> None:
        self._outcome = outcome
        leg, self._leg = self._leg, None
        if leg is None:
            return
        self._consumer = None
        if isinstance(outcome, Failure):
            leg.errback(outcome)
        else:
            leg.callback(None)

    def pauseProducing(self) -> None:
        """Pause the source."""
        if self._outcome is None:
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """Resume the source."""
        if self._outcome is None:
            self._source.resumeProducing()

    def stopProducing(self) -> None:
        """End this leg; the source waits for the next, if one may come."""
        if self._last:
            self.discard()
            return
        self._consumer = None
        self._leg = None
        if self._started and self._outcome is None:
            self._source.pauseProducing()

    def last_leg(self) -> None:
        """Take note that the leg under way, or the one before, was the last."""
        self._last = True
        self._kept = None
        if self._consumer is None:
            self.discard()

    def discard(self) -> None:
        """Stop the source for good: no further leg will come."""
        self._consumer = None
        self._leg = None
        if self._started and self._outcome is None:
            self._outcome = True
            self._source.stopProducing()
