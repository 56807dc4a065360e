"""Responses, read as far as they are wanted."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from coda_twisted.client.upload import BytesBody
from coda_twisted.errors import PhaseTimeout, RemoteProtocolError

__all__ = ["LIMIT", "TIMEOUT", "discard", "exchange"]

LIMIT = 256 * 1024
"""Octets of an answer that holds a token; tokens full of claims have tens of KiB."""

TIMEOUT = 30.0
"""Seconds for one answer; others wait for the same token meanwhile."""

DRAIN_LIMIT = 64 * 1024
"""Octets of a refusal's content that are read to keep its connection."""


class _Reader(Protocol):
    """Keeps the first *limit* octets; more than that ends the reading."""

    def __init__(self, limit: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self.abort())
        self._limit = limit
        self._data = b""
        self._over = False

    def dataReceived(self, data: bytes) -> None:
        """Keep it (IProtocol)."""
        self._data += data
        if len(self._data) > self._limit:
            self._end(RemoteProtocolError("the answer is too long", 502))
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take note of the end (IProtocol)."""
        whole = reason.check(ResponseDone, PotentialDataLoss)
        self._end(self._data if whole else reason)

    def abort(self) -> None:
        """Drop the connection."""
        transport: Any = self.transport
        # What Twisted's own responses are connected to has no abortConnection.
        drop = getattr(transport, "abortConnection", None) or transport.stopProducing
        drop()

    def _end(self, outcome: bytes | Failure | Exception) -> None:
        if self._over or self.done.called:
            return
        self._over = True
        if isinstance(outcome, bytes):
            self.done.callback(outcome)
        else:
            self.done.errback(outcome)


async def exchange(
    clock: IReactorTime,
    agent: IAgent,
    uri: bytes,
    headers: Headers,
    content: bytes | None = None,
) -> tuple[int, bytes]:
    """
    Post something to an authorization server.

    :returns: The answer's status code and content.
    :raises RemoteProtocolError: It is longer than 256 KiB.
    :raises PhaseTimeout: It is not complete after 30 s.
    """
    body = None if content is None else BytesBody(content)

    async def ask() -> tuple[int, bytes]:
        response = await agent.request(b"POST", uri, headers, body)
        reader = _Reader(LIMIT)
        response.deliverBody(reader)
        return response.code, await reader.done

    answer = Deferred.fromCoroutine(ask())
    return await answer.addTimeout(TIMEOUT, clock, _too_long)


async def discard(response: IResponse) -> None:
    """Read a response away, so that its connection can carry the next request."""
    reader = _Reader(DRAIN_LIMIT)
    # How it ends is of no interest: all that it decides is the connection's fate.
    reader.done.addErrback(lambda _: b"")
    response.deliverBody(reader)
    await reader.done


def _too_long(_: object, limit: float) -> Any:
    raise PhaseTimeout("authentication", limit)
