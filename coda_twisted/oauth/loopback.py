"""A web server for one answer: the browser that comes back (RFC 8252 7.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from coda_twisted.errors import PhaseTimeout

__all__ = ["LoopbackReceiver"]

IDLE = 10.0
"""Seconds for which a browser may keep a connection open without asking."""


class LoopbackReceiver:
    """
    Listen on a free port of 127.0.0.1 for a browser's answer.

    Whatever else asks - another page, a port scan, a request for an icon - gets an
    error and changes nothing.  Neither answer nor anything else is logged: there is
    a code in it.

    :param reactor: Listens at once.
    :ivar redirect_uri: Where the server shall send the browser.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._concerns: Callable[[Mapping[str, str]], bool] | None = None
        self._answer: Deferred[str] | None = None
        site = _Silent(_Page(self._received), timeout=IDLE, reactor=reactor)
        self._port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.redirect_uri = f"http://127.0.0.1:{self._port.getHost().port}/"

    def wait(
        self, concerns: Callable[[Mapping[str, str]], bool], timeout: float = 300.0
    ) -> Deferred[str]:
        """
        Wait for the answer.

        :param concerns: Says by its parameters whether it is the one: it must look
            at ``state``, or any web page could answer in the user's place.
        :param timeout: Seconds after which to give up.
        :returns: Fires with the whole URI that the browser asked for; fails with
            :class:`PhaseTimeout`.
        """
        answer: Deferred[str] = Deferred(self._forget)
        self._concerns = concerns
        self._answer = answer
        return answer.addTimeout(timeout, self._reactor, _too_long)

    def stop(self) -> Deferred[Any]:
        """Listen no more."""
        return maybeDeferred(self._port.stopListening)

    def _forget(self, _: Deferred[str]) -> None:
        self._answer = None

    def _received(self, query: str) -> bool:
        if self._answer is None or self._concerns is None:
            return False
        if not self._concerns(dict(parse_qsl(query))):
            return False
        answer, self._answer = self._answer, None
        answer.callback(f"{self.redirect_uri}?{query}")
        return True


class _Silent(Site):
    """A site that logs nothing."""

    noisy = False

    def log(self, request: Any) -> None:
        """Keep the code to ourselves."""


class _Page(Resource):
    """The only page."""

    isLeaf = True

    def __init__(self, received: Callable[[str], bool]) -> None:
        super().__init__()
        self._received = received

    def render(self, request: Request) -> int:
        """Take the answer, and tell the user what to do."""
        status, text = self._judge(request)
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        request.setHeader(b"Content-Length", b"%d" % len(text))
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"Referrer-Policy", b"no-referrer")
        request.write(text)
        channel: Any = request.channel
        request.finish()
        channel.loseConnection()
        return NOT_DONE_YET

    def _judge(self, request: Request) -> tuple[int, bytes]:
        path, _, query = request.uri.partition(b"?")
        if path != b"/":
            return 404, b"There is nothing here.\n"
        if request.method != b"GET":
            return 405, b"Only GET is answered.\n"
        if not self._received(query.decode("ascii", "replace")):
            return 400, b"This is not the answer that the program waits for.\n"
        return 200, b"Done. You may close this window and go back to the program.\n"


def _too_long(_: object, limit: float) -> Any:
    raise PhaseTimeout("authentication", limit)
