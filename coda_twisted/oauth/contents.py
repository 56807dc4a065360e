"""Contents of requests: all at hand, or to be sent twice."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import alsoProvides, implementer

from coda_twisted.client.upload import BytesBody, ReplayableBody
from coda_twisted.errors import LocalProtocolError
from coda_twisted.interfaces import IRewindableBody

__all__ = ["Repeatable", "at_hand"]

LIMIT = 1024 * 1024
"""Octets of content that are read to memory to be signed; forms have some KiB."""


@implementer(IConsumer)
class _Collector:
    """Keeps what a body produces; one that was told to stop may never say so."""

    def __init__(self, body: IBodyProducer) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: body.stopProducing())
        self._body = body
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Keep a piece (IConsumer)."""
        if self.done.called:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > LIMIT:
            self._body.stopProducing()
            self.failed(
                LocalProtocolError(
                    f"content of more than {LIMIT // 1024} KiB cannot be signed"
                )
            )

    def finished(self, _: object) -> None:
        """Take note that this was all."""
        if not self.done.called:
            self.done.callback(b"".join(self._pieces))

    def failed(self, reason: Failure | Exception) -> None:
        """Take note that the rest will not come."""
        if not self.done.called:
            self.done.errback(reason)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Do nothing: a body produces by itself (IBodyProducer)."""

    def unregisterProducer(self) -> None:
        """Do nothing, as :meth:`registerProducer`."""


async def at_hand(body: IBodyProducer) -> bytes:
    """
    Read a body as a whole.

    :raises LocalProtocolError: It has more than 1 MiB.
    """
    if isinstance(body, BytesBody):
        return body.content
    collector = _Collector(body)
    body.startProducing(collector).addCallbacks(collector.finished, collector.failed)
    return await collector.done


class Repeatable(ReplayableBody):
    """
    A body that may have to be sent once more.

    :ivar complete: Whether the last leg took all of it.
    """

    def __init__(self, source: IBodyProducer) -> None:
        super().__init__(source)
        self.complete = False
        if IRewindableBody.providedBy(source):
            alsoProvides(self, IRewindableBody)

    def rewind(self) -> None:
        """Do nothing: each leg begins at the start (IRewindableBody)."""

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin a leg."""
        self.complete = False

        def finished(result: None) -> None:
            self.complete = True

        return super().startProducing(consumer).addCallback(finished)
