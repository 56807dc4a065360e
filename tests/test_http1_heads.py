"""Tests for :mod:`coda_twisted.http1.heads`."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.errors import RemoteProtocolError
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import (
    MAX_TARGET,
    BlockCollector,
    RequestHead,
    ResponseHead,
    oversized_request_head,
    parse_request_head,
    parse_response_head,
)
from tests.test_http1_fields import ITEMS, NAMES, VALUES, VISIBLE

TARGETS = st.lists(
    st.sampled_from(VISIBLE[: 0x7F - 0x21]), min_size=1, max_size=12
).map(bytes)


class RequestHeadTests(SynchronousTestCase):
    """Heads of requests (RFC 9112 3)."""

    def refused(self, block: bytes, status: int = 400) -> None:
        with self.assertRaises(RemoteProtocolError) as raised:
            parse_request_head(block)
        self.assertEqual(raised.exception.status_hint, status, block)
        self.assertNotIn("s3cret", str(raised.exception))

    def test_example(self) -> None:
        """The first request of RFC 9112 3.2.1."""
        self.assertEqual(
            parse_request_head(
                b"GET /where?q=now HTTP/1.1\r\nHost: www.example.org\r\n\r\n"
            ),
            RequestHead(
                b"GET", b"/where?q=now", (1, 1), Fields([(b"Host", b"www.example.org")])
            ),
        )

    def test_any_method(self) -> None:
        """A method is any token, and has a case (RFC 9110 9.1)."""
        for method in (b"get", b"M-SEARCH", b"!#$%&'*+-.^_`|~0Aa"):
            head = parse_request_head(method + b" / HTTP/1.1\r\n\r\n")
            self.assertEqual(head.method, method)

    def test_versions(self) -> None:
        """HTTP/1.x is spoken, later ones as 1.1 (RFC 9110 2.5); others are not."""
        for line, version in [
            (b"HTTP/1.0", (1, 0)),
            (b"HTTP/1.1", (1, 1)),
            (b"HTTP/1.2", (1, 1)),
            (b"HTTP/1.9", (1, 1)),
        ]:
            head = parse_request_head(b"GET / " + line + b"\r\n\r\n")
            self.assertEqual(head.version, version)
        for line in (b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.0", b"HTTP/9.1"):
            self.refused(b"GET / " + line + b"\r\n\r\n", 505)

    def test_http2_preface(self) -> None:
        """A client that speaks HTTP/2 without asking is told the version."""
        self.refused(b"PRI * HTTP/2.0\r\n\r\n", 505)

    def test_http09(self) -> None:
        """A simple request has no version: it is malformed."""
        self.refused(b"GET /\r\n\r\n")

    def test_malformed_lines(self) -> None:
        """Single spaces, a token, visible octets, a version, CRLF; nothing else."""
        for line in (
            b"",
            b"GET",
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET /  HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b" GET / HTTP/1.1",
            b"GET\t/ HTTP/1.1",
            b"GET / s3cret HTTP/1.1",
            b"GET /\x00 HTTP/1.1",
            b"GET /\x7f HTTP/1.1",
            b"GET /\xff HTTP/1.1",
            b"GET  HTTP/1.1",
            b"G(T / HTTP/1.1",
            b"G\xc9T / HTTP/1.1",
            b"GET / http/1.1",
            b"GET / HTTP/1.10",
            b"GET / HTTP/11",
            b"GET / HTTP/1",
            b"GET / HTTP/1,1",
            b"GET / HTTP/a.b",
            b"GET / HTTP/1.1\r",
            b"GET /\rHTTP/1.1",
            b"\r\nGET / HTTP/1.1",
        ):
            self.refused(line + b"\r\nHost: a\r\n\r\n")

    def test_bare_lf(self) -> None:
        """A lone LF ends no line, though RFC 9112 2.2 lets recipients accept it."""
        self.refused(b"GET / HTTP/1.1\nHost: a\r\n\r\n")
        self.refused(b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n")

    def test_malformed_fields(self) -> None:
        """A malformed field line spoils the head; folding is one."""
        self.refused(b"GET / HTTP/1.1\r\nHost : s3cret\r\n\r\n")
        self.refused(b"GET / HTTP/1.1\r\nHost: a\r\n s3cret\r\n\r\n")

    def test_limits(self) -> None:
        """Long targets are 414, many fields 431."""
        longest = b"/" + b"x" * (MAX_TARGET - 1)
        head = parse_request_head(b"GET " + longest + b" HTTP/1.1\r\n\r\n")
        self.assertEqual(head.target, longest)
        self.refused(b"GET " + longest + b"x HTTP/1.1\r\n\r\n", 414)
        self.refused(b"GET / HTTP/1.1\r\n" + b"A: 1\r\n" * 101 + b"\r\n", 431)
        with self.assertRaises(RemoteProtocolError):
            parse_request_head(b"GET / HTTP/1.1\r\nA: 1\r\nA: 1\r\n\r\n", 1)

    def test_serialise(self) -> None:
        """Whatever the version was, it is sent as HTTP/1.1."""
        head = RequestHead(b"PUT", b"/a", (1, 0), Fields([(b"host", b"a")]))
        self.assertEqual(head.serialise(), b"PUT /a HTTP/1.1\r\nhost: a\r\n\r\n")

    @settings(max_examples=100, deadline=None)
    @given(NAMES, TARGETS, ITEMS)
    def test_what_is_written_is_read(
        self, method: bytes, target: bytes, items: list[tuple[bytes, bytes]]
    ) -> None:
        """Serialising and parsing are each other's opposite."""
        head = RequestHead(method, target, (1, 1), Fields(items))
        again = parse_request_head(head.serialise())
        self.assertEqual(again, head)
        self.assertEqual(list(again.fields), items)

    def test_repr(self) -> None:
        """It names the request without query, user name or password."""
        for target in (b"http://u:s3cret@a/b?s3cret", b"/b?s3cret", b"u:s3cret@a/b"):
            shown = repr(RequestHead(b"GET", target, (1, 1), Fields()))
            self.assertIn("GET", shown)
            self.assertIn("/b", shown)
            self.assertNotIn("s3cret", shown)


class ResponseHeadTests(SynchronousTestCase):
    """Heads of responses (RFC 9112 4)."""

    def refused(self, block: bytes) -> None:
        with self.assertRaises(RemoteProtocolError) as raised:
            parse_response_head(block)
        self.assertEqual(raised.exception.status_hint, 502, block)
        self.assertNotIn("s3cret", str(raised.exception))

    def test_example(self) -> None:
        """A status line, its reason, its fields."""
        self.assertEqual(
            parse_response_head(b"HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n"),
            ResponseHead(404, b"Not Found", (1, 1), Fields([(b"Server", b"x")])),
        )

    def test_reasons(self) -> None:
        """A reason may be anything visible, or missing, even without its space."""
        for rest, reason in [
            (b" OK", b"OK"),
            (b" ", b""),
            (b"", b""),
            (b" \xc3\xa9t\xe9\t!", b"\xc3\xa9t\xe9\t!"),
            (b"  OK \t", b"OK"),
        ]:
            head = parse_response_head(b"HTTP/1.1 200" + rest + b"\r\n\r\n")
            self.assertEqual((head.status, head.reason), (200, reason))

    def test_statuses(self) -> None:
        """Three digits from 100 on: unknown ones are the client's business."""
        for status in (100, 199, 226, 451, 599, 600, 999):
            head = parse_response_head(b"HTTP/1.1 %d X\r\n\r\n" % status)
            self.assertEqual(head.status, status)

    def test_versions(self) -> None:
        """HTTP/1.0 stays what it is, and later minor versions are read as 1.1."""
        for line, version in [
            (b"HTTP/1.0", (1, 0)),
            (b"HTTP/1.1", (1, 1)),
            (b"HTTP/1.3", (1, 1)),
        ]:
            head = parse_response_head(line + b" 200 OK\r\n\r\n")
            self.assertEqual(head.version, version)
        self.refused(b"HTTP/2.0 200 OK\r\n\r\n")
        self.refused(b"HTTP/0.9 200 OK\r\n\r\n")

    def test_interim_response_of_http10(self) -> None:
        """HTTP/1.0 has no 1xx (RFC 9110 15.2)."""
        self.refused(b"HTTP/1.0 100 Continue\r\n\r\n")

    def test_malformed_lines(self) -> None:
        """A version, single spaces, three digits, a visible reason, CRLF."""
        for line in (
            b"",
            b"s3cret",
            b"HTTP/1.1",
            b"HTTP/1.1 ",
            b"HTTP/1.1 20",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 20x OK",
            b"HTTP/1.1 -20 OK",
            b"HTTP/1.1 200OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 200\tOK",
            b" HTTP/1.1 200 OK",
            b"http/1.1 200 OK",
            b"HTTP/1 200 OK",
            b"HTTP/1.10 200 OK",
            b"ICY 200 OK",
            b"HTTP/1.1 200 s3cret\x00",
            b"HTTP/1.1 200 s3cret\x1b",
            b"HTTP/1.1 200 s3cret\x7f",
            b"HTTP/1.1 200 s3cret\r",
            b"\r\nHTTP/1.1 200 OK",
        ):
            self.refused(line + b"\r\nServer: x\r\n\r\n")

    def test_bare_lf(self) -> None:
        """A lone LF ends no line: readers that differ in that see different ends."""
        self.refused(b"HTTP/1.1 200 OK\nServer: s3cret\n\n")
        self.refused(b"HTTP/1.1 200 OK\r\nServer: s3cret\n\r\n\r\n")

    def test_folds(self) -> None:
        """Folded lines are unfolded (RFC 9112 5.2)."""
        head = parse_response_head(b"HTTP/1.1 200 OK\r\nA: 1\r\n\t2\r\n\r\n")
        self.assertEqual(list(head.fields), [(b"A", b"1 2")])
        self.refused(b"HTTP/1.1 200 OK\r\n s3cret: 2\r\n\r\n")

    def test_equal_lengths(self) -> None:
        """Lengths that all say the same become one (RFC 9110 8.6)."""
        for lines in (
            b"Content-Length: 5\r\nContent-Length: 5\r\n",
            b"Content-Length: 5, 5\r\n",
            b"content-length: 5,5\r\nContent-Length: 5\r\n",
        ):
            head = parse_response_head(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n")
            self.assertEqual(list(head.fields), [(b"Content-Length", b"5")])

    def test_unequal_lengths(self) -> None:
        """Others are left as they are, for framing to refuse."""
        for lines in (
            [(b"Content-Length", b"5"), (b"Content-Length", b"6")],
            [(b"Content-Length", b"5, 05")],
            [(b"Content-Length", b"5,")],
        ):
            block = b"HTTP/1.1 200 OK\r\n" + Fields(lines).serialise() + b"\r\n"
            self.assertEqual(list(parse_response_head(block).fields), lines)

    def test_limits(self) -> None:
        """Too many fields are the server's fault."""
        self.refused(b"HTTP/1.1 200 OK\r\n" + b"A: 1\r\n" * 101 + b"\r\n")

    def test_serialise(self) -> None:
        """It is sent as HTTP/1.1, with the space that RFC 9112 4 requires."""
        head = ResponseHead(200, b"", (1, 0), Fields([(b"A", b"1")]))
        self.assertEqual(head.serialise(), b"HTTP/1.1 200 \r\nA: 1\r\n\r\n")

    @settings(max_examples=100, deadline=None)
    @given(st.integers(100, 999), VALUES, ITEMS)
    def test_what_is_written_is_read(
        self, status: int, reason: bytes, items: list[tuple[bytes, bytes]]
    ) -> None:
        """Serialising and parsing are each other's opposite."""
        head = ResponseHead(status, reason, (1, 1), Fields(items))
        again = parse_response_head(head.serialise())
        self.assertEqual(again, head)
        self.assertEqual(list(again.fields), items)


class CountingBuffer(bytearray):
    """Counts the octets that are looked at, moved or copied."""

    work = 0

    def find(self, *args: Any) -> int:
        place = super().find(*args)
        self.work += (len(self) if place < 0 else place) - args[1]
        return place

    def __iadd__(self, other: Any) -> Any:  # type: ignore[misc]
        self.work += len(other)
        return super().__iadd__(other)

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self.work += len(found)
        return found


class BlockCollectorTests(SynchronousTestCase):
    """Sections, from segments of any size."""

    def setUp(self) -> None:
        self.block = BlockCollector(40, oversized_request_head)

    def test_whole(self) -> None:
        """A section in one segment is taken as it is."""
        data = b"A: 1\r\nB: 2\r\n\r\n"
        block, end = self.block.take(data, 0)
        self.assertIs(block, data)
        self.assertEqual(end, len(data))

    def test_surplus(self) -> None:
        """What follows the section is left, whatever it is."""
        data = b"xxA: 1\r\n\r\n\nrest\r\n\r\n"
        self.assertEqual(self.block.take(data, 2), (b"A: 1\r\n\r\n", 10))

    def test_pieces(self) -> None:
        """A section cut anywhere is the same section."""
        data = b"A: 1\r\n\r\nrest"
        for cut in range(8):
            self.assertEqual(self.block.take(data[:cut], 0), (b"", cut))
            self.assertEqual(
                self.block.take(b"__" + data[cut:], 2), (data[:8], 2 + 8 - cut)
            )
            self.assertEqual(self.block.held, b"")

    def test_bare_lf_in_pieces(self) -> None:
        """A line that ends wrongly is told at once: the right end may never come."""
        for pieces in ([b"\n"], [b"A\n"], [b"A: 1", b"\n"], [b"A: 1\r\n", b"\n"]):
            block = BlockCollector(40, oversized_request_head)
            for piece in pieces[:-1]:
                block.take(piece, 0)
            self.assertRaises(RemoteProtocolError, block.take, pieces[-1], 0)

    def test_limit(self) -> None:
        """One octet beyond the limit is too much, however it comes."""
        fits = b"A: " + b"x" * 33 + b"\r\n\r\n"
        self.assertEqual(self.block.take(fits, 0), (fits, 40))
        for cut in (0, 20, 41):
            block = BlockCollector(40, oversized_request_head)
            data = b"x" + fits
            with self.assertRaises(RemoteProtocolError):
                block.take(data[:cut], 0)
                block.take(data[cut:], 0)
        self.assertRaises(RemoteProtocolError, self.block.take, b"x" * 41, 0)

    def test_what_is_too_long(self) -> None:
        """The request-target is blamed when it fills the head, else the fields."""
        for beginning, status in [
            (b"GET /" + b"x" * 60000, 414),
            (b"GET /" + b"x" * MAX_TARGET + b" HTTP/1.1\r\nA: ", 414),
            (b"GET /" + b"x" * (MAX_TARGET - 1) + b" HTTP/1.1\r\nA: ", 431),
            (b"GET / HTTP/1.1\r\nA: ", 431),
            (b"", 414),
        ]:
            self.assertEqual(oversized_request_head(beginning).status_hint, status)

    def test_each_octet_is_looked_at_once(self) -> None:
        """Feeding a section octet by octet costs what its length is, not the square."""
        for size in (1000, 16000):
            block = BlockCollector(20000, oversized_request_head)
            block.held = held = CountingBuffer()
            section = b"A: 1\r\n" * (size // 6) + b"\r\n"
            for octet in section[:-1]:
                self.assertEqual(block.take(bytes([octet]), 0)[0], b"")
            self.assertEqual(block.take(section[-1:], 0), (section, 1))
            self.assertLess(held.work, 5 * len(section))
