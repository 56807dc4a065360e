"""Tests for :mod:`coda_twisted.http1.persistence` (RFC 9112 9.3)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.http1.bodies import Framing
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead, ResponseHead
from coda_twisted.http1.persistence import request_persists, response_persists

V10, V11 = (1, 0), (1, 1)
LENGTH = (b"Content-Length", b"3")
CHUNKED = (b"Transfer-Encoding", b"chunked")


def connection(value: bytes) -> tuple[bytes, bytes]:
    return b"Connection", value


def proxy_connection(value: bytes) -> tuple[bytes, bytes]:
    return b"Proxy-Connection", value


class RequestTests(SynchronousTestCase):
    """Whether the client may go on."""

    def persists(
        self,
        version: tuple[int, int],
        *lines: tuple[bytes, bytes],
        proxy: bool = True,
    ) -> bool:
        head = RequestHead(b"GET", b"/", version, Fields(lines))
        return request_persists(head, proxy=proxy)

    def test_http11(self) -> None:
        """HTTP/1.1 goes on unless somebody says close, anywhere in a list."""
        for lines, expected in [
            ([], True),
            ([connection(b"keep-alive")], True),
            ([connection(b"closed, enclose")], True),
            ([connection(b"close")], False),
            ([connection(b"Foo, CLOSE")], False),
            ([connection(b"foo"), connection(b"Close")], False),
            ([connection(b"keep-alive, close")], False),
            ([proxy_connection(b"keep-alive")], True),
            ([proxy_connection(b"Close")], False),
            ([connection(b"keep-alive"), proxy_connection(b"close")], False),
        ]:
            self.assertIs(self.persists(V11, *lines), expected, lines)

    def test_http10_at_a_proxy(self) -> None:
        """A proxy "MUST NOT maintain a persistent connection" with HTTP/1.0."""
        self.assertFalse(self.persists(V10))
        self.assertFalse(self.persists(V10, connection(b"keep-alive")))
        self.assertFalse(self.persists(V10, proxy_connection(b"keep-alive")))

    def test_http10_at_a_server(self) -> None:
        """HTTP/1.0 goes on with a server when the client asks for that."""
        for lines, expected in [
            ([], False),
            ([connection(b"Keep-Alive")], True),
            ([connection(b"keep-alive, close")], False),
        ]:
            self.assertIs(self.persists(V10, *lines, proxy=False), expected, lines)


class ResponseTests(SynchronousTestCase):
    """Whether the server goes on."""

    def persists(
        self,
        version: tuple[int, int],
        *lines: tuple[bytes, bytes],
        framing: Framing = Framing.LENGTH,
    ) -> bool:
        head = ResponseHead(200, b"OK", version, Fields(lines))
        return response_persists(head, framing)

    def test_http11(self) -> None:
        """HTTP/1.1 goes on unless either field says close."""
        for lines, expected in [
            ([LENGTH], True),
            ([CHUNKED], True),
            ([LENGTH, connection(b"x, Close")], False),
            ([LENGTH, proxy_connection(b"close")], False),
            ([LENGTH, connection(b"keep-alive"), proxy_connection(b"CLOSE")], False),
        ]:
            self.assertIs(self.persists(V11, *lines), expected, lines)

    def test_http10(self) -> None:
        """HTTP/1.0 goes on only if either field says keep-alive, and none close."""
        for lines, expected in [
            ([LENGTH], False),
            ([LENGTH, connection(b"Keep-Alive")], True),
            ([LENGTH, proxy_connection(b"keep-alive")], True),
            ([LENGTH, connection(b"keep-alive"), proxy_connection(b"close")], False),
        ]:
            self.assertIs(self.persists(V10, *lines), expected, lines)

    def test_content_that_ends_with_the_connection(self) -> None:
        """There is nothing after such content, whatever the fields say."""
        self.assertFalse(
            self.persists(V11, connection(b"keep-alive"), framing=Framing.UNTIL_CLOSE)
        )

    def test_no_content(self) -> None:
        """A message without content is as good as any."""
        self.assertTrue(self.persists(V11, framing=Framing.NONE))

    def test_doubtful_framing(self) -> None:
        """Two framings, or one that its version does not know, are the last message."""
        self.assertFalse(self.persists(V11, LENGTH, CHUNKED, framing=Framing.CHUNKED))
        self.assertFalse(
            self.persists(V10, CHUNKED, connection(b"keep-alive"), framing=Framing.NONE)
        )
