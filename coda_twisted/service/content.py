"""A request's content, from the client's connection to wherever it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from coda_twisted.client.pace import LARGE, SMALL, buffer
from coda_twisted.client.upload import Upload
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.pieces import keep

__all__ = ["READ_AHEAD", "RequestContent"]

READ_AHEAD = SMALL
"""
Octets taken from a client before anybody wants them.

As long as we read we see it when the client goes away.
"""


class _Way(Protocol):
    """What moves the rest of the content past us."""

    def stop(self) -> None:
        """Move nothing more."""


class _Source(Protocol):
    """The client's connection, of which nothing but its flow is our business."""

    @property
    def transport(self) -> Any:
        """What it comes by."""

    def pauseProducing(self) -> None:
        """Send nothing more for now."""

    def resumeProducing(self) -> None:
        """Send on."""


@implementer(IBodyProducer)
class RequestContent:
    """
    Pass a request's content on as it comes.

    :param length: In octets; ``None`` if it comes in chunks.
    :param source: Is paused while nobody wants what it sends.
    :param asked: Called when the content is first asked for.
    :param bypass: Finds another way for the rest of the content, past us, if there is
        one.  It has the source and the transport until it calls :meth:`passed`.
    :ivar trailers: Of a chunked request, once it is complete.
    :ivar complete: Whether all of it has come from the client.
    """

    def __init__(
        self,
        length: int | None,
        source: _Source,
        asked: Callable[[], None],
        bypass: Callable[[RequestContent, Upload], _Way | None] | None = None,
    ) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self.trailers: Fields | None = None
        self.complete = False
        self._source = source
        self._asked: Callable[[], None] | None = asked
        self._bypass = bypass
        self._way: _Way | None = None
        self._consumer: IConsumer | None = None
        self._sent: Deferred[None] | None = None
        self._held: list[bytes] = []
        self._size = 0
        self._paused = False
        self._unwanted = False

    # The client's side

    def received(self, data: bytes) -> None:
        """Take a piece from the client."""
        if self._unwanted:
            return
        if self._consumer is not None and not self._paused:
            self._consumer.write(data)
            return
        keep(self._held, data)
        self._size += len(data)
        if self._size >= READ_AHEAD:
            self._source.pauseProducing()

    def ended(self, trailers: Fields) -> None:
        """Take note that the client has sent all of it: its flow is ours no more."""
        self.complete = True
        self.trailers = trailers
        buffer(self._source.transport, SMALL)
        self._source.resumeProducing()
        self._settle()

    # The upstream's side (IBodyProducer)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Let the content flow to *consumer*."""
        self._consumer = consumer
        sent = self._sent = Deferred()
        asked, self._asked = self._asked, None
        if not self.complete:
            buffer(self._source.transport, LARGE)
            if asked is not None:
                asked()
        self._flow()
        return sent

    def pauseProducing(self) -> None:
        """Let nothing more come for now."""
        self._paused = True
        if not self.complete:
            self._source.pauseProducing()

    def passed(self) -> None:
        """Go on behind what was moved past us."""
        way, self._way = self._way, None
        assert way is not None
        self._paused = False
        way.stop()
        self._flow()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._flow()

    def stopProducing(self) -> None:
        """Throw away what still comes: nobody wants it."""
        self._unwanted = True
        way, self._way, self._bypass = self._way, None, None
        if way is not None:
            way.stop()
        self._consumer = self._sent = self._asked = None
        self._held.clear()
        if not self.complete:
            self._source.resumeProducing()

    def _flow(self) -> None:
        """Pass on what is held, then let more come."""
        consumer = self._consumer
        if consumer is None or self._way is not None:
            return
        held, self._held, self._size = self._held, [], 0
        if held:
            consumer.write(b"".join(held))
        if self._paused:
            return
        if not self.complete:
            bypass, self._bypass = self._bypass, None
            if bypass is not None and isinstance(consumer, Upload):
                self._way = bypass(self, consumer)
                if self._way is not None:
                    return
            self._source.resumeProducing()
        self._settle()

    def _settle(self) -> None:
        """Tell the upload once everything was passed on."""
        sent = self._sent
        if sent is not None and self.complete and not self._held:
            self._sent = self._consumer = None
            sent.callback(None)
