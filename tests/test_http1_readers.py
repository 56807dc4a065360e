"""Tests for :mod:`coda_twisted.http1.readers`."""

from __future__ import annotations

import contextlib  # trial takes a module's ``suppress`` for its own
import gc
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.errors import (
    ConnectionEnded,
    LocalProtocolError,
    RemoteProtocolError,
)
from coda_twisted.http1.bodies import Framing, encode_chunk, last_chunk
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead, ResponseHead
from coda_twisted.http1.readers import Data, End, RequestReader, ResponseReader
from tests.test_http1_fields import ITEMS, NAMES
from tests.test_http1_heads import TARGETS, CountingBuffer

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3;x\r\nllo\r\n0\r\nA: 1\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

Messages = list[tuple[Any, bytes, Fields | None]]


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut data at these places, as far as there are such."""
    ends = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[begin:end] for begin, end in pairwise(ends)]


def collect(messages: Messages, events: Sequence[object]) -> None:
    """Put what was read together; ``None`` for trailers stands for no end yet."""
    for event in events:
        if isinstance(event, Data):
            head, content, trailers = messages[-1]
            assert trailers is None and event.data
            messages[-1] = (head, content + event.data, None)
        elif isinstance(event, End):
            head, content, trailers = messages[-1]
            assert trailers is None
            messages[-1] = (head, content, event.trailers)
        else:
            messages.append((event, b"", None))


def read_requests(segments: Iterable[bytes], **limits: int) -> Messages:
    """Read requests as a server does that answers at once."""
    reader = RequestReader(**limits)
    messages: Messages = []
    for segment in segments:
        events = reader.receive(segment)
        collect(messages, events)
        while events and isinstance(events[-1], End):
            events = reader.next_message()
            collect(messages, events)
    return messages


def read_response(
    segments: Iterable[bytes], method: bytes = b"GET", max_head: int = 65536
) -> tuple[ResponseReader, Messages]:
    reader = ResponseReader(max_head)
    reader.expect(method)
    messages: Messages = []
    for segment in segments:
        collect(messages, reader.receive(segment))
    return reader, messages


class RequestTests(SynchronousTestCase):
    """Requests, whole and octet by octet."""

    def both(self, data: bytes, **limits: int) -> Messages:
        messages = read_requests([data], **limits)
        self.assertEqual(read_requests(octets(data), **limits), messages)
        return messages

    def refused(self, data: bytes, status: int = 400, **limits: int) -> None:
        for segments in ([data], octets(data)):
            with self.assertRaises(RemoteProtocolError) as raised:
                read_requests(segments, **limits)
            self.assertEqual(raised.exception.status_hint, status)
            self.assertNotIn("s3cret", str(raised.exception))

    def test_without_content(self) -> None:
        """A request without framing fields ends with its head."""
        [(head, content, trailers)] = self.both(GET)
        self.assertEqual(
            head, RequestHead(b"GET", b"/", (1, 1), Fields([(b"Host", b"a")]))
        )
        self.assertEqual((content, trailers), (b"", Fields()))

    def test_with_length(self) -> None:
        """Content of known length is read to its end."""
        [(_, content, trailers)] = self.both(POST)
        self.assertEqual((content, trailers), (b"hello", Fields()))

    def test_empty_content(self) -> None:
        """A length of zero ends the message at once."""
        data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        [(_, content, trailers)] = self.both(data)
        self.assertEqual((content, trailers), (b"", Fields()))

    def test_chunked(self) -> None:
        """Chunked content comes decoded, its trailers with the end."""
        [(head, content, trailers)] = self.both(CHUNKED)
        self.assertEqual((content, trailers), (b"hello", Fields([(b"A", b"1")])))
        self.assertNotIn(b"A", head.fields)

    def test_pipelined(self) -> None:
        """Requests behind one another are read one after the other."""
        messages = self.both(POST + GET + CHUNKED + GET)
        self.assertEqual(
            [(head.method, content) for head, content, _ in messages],
            [(b"POST", b"hello"), (b"GET", b""), (b"PUT", b"hello"), (b"GET", b"")],
        )

    def test_empty_lines_before_a_request(self) -> None:
        """A few empty lines are skipped (RFC 9112 2.2), many are not."""
        self.assertEqual(len(self.both(b"\r\n" + GET + b"\r\n\r\n" + GET)), 2)
        self.assertEqual(len(self.both(b"\r\n" * 8 + GET + b"\r\n" * 8 + GET)), 2)
        self.refused(b"\r\n" * 9)

    def test_lone_cr_before_a_request(self) -> None:
        """Half an empty line is none."""
        self.refused(b"\r" + GET)
        self.refused(b"\r\r\n" + GET)

    def test_malformed(self) -> None:
        """Whatever the head, the framing or the content breaks is told."""
        self.refused(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.refused(b"GET / HTTP/1.1\r\nX: s3cret\x00\r\n\r\n")
        self.refused(b"GET / HTTP/1.1\r\nX: s3cret\r\n y\r\n\r\n")
        self.refused(b"GET / HTTP/3.0\r\n\r\n", 505)
        self.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)
        self.refused(b"GET /\r\n\r\n")
        self.refused(
            b"GET / HTTP/1.1\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        self.refused(b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501)
        self.refused(
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ns3cret\r\n"
        )

    def test_told_at_once(self) -> None:
        """What will never be a head is refused before its end, which may never come."""
        for data, reason in [
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
            (b"\x00", "malformed"),
            (b" GET / HTTP/1.1", "malformed"),
            (b"\r\nGET / HTTP/1.1\nHost: a\n\n", "bare LF"),
            (b"GET / HTTP/1.1\r\nHost: a\n", "bare LF"),
            (b"\n", "bare LF"),
        ]:
            for segments in ([data], octets(data)):
                with self.assertRaises(RemoteProtocolError) as raised:
                    read_requests(segments)
                self.assertEqual(raised.exception.status_hint, 400)
                self.assertIn(reason, str(raised.exception))

    def test_limits(self) -> None:
        """Heads are limited in octets and lines, targets in octets."""
        size = len(GET)
        self.assertEqual(len(self.both(GET + GET, max_head=size)), 2)
        self.refused(GET, 431, max_head=size - 1)
        self.refused(GET[:-2] + b"A: 1\r\n\r\n", 431, max_fields=1)
        self.refused(b"GET / HTTP/1.1\r\nA: " + b"x" * 65536 + b"\r\n\r\n", 431)
        self.refused(b"GET / HTTP/1.1\r\n" + b"A: 1\r\n" * 101 + b"\r\n", 431)
        self.refused(b"GET /" + b"x" * 16384 + b" HTTP/1.1\r\n\r\n", 414)
        self.refused(b"GET /" + b"x" * 70000, 414)
        self.refused(CHUNKED, 431, max_head=70, max_fields=0)
        data = CHUNKED.replace(b"A: 1", b"A: " + b"x" * 100)
        self.refused(data, 431, max_head=90)

    def test_a_head_of_64_kib(self) -> None:
        """A Kerberos token of the greatest size fits (MaxTokenSize, in Base64)."""
        token = b"x" * 64000
        data = b"GET / HTTP/1.1\r\nAuthorization: Negotiate " + token + b"\r\n\r\n"
        [(head, _, _)] = read_requests([data])
        self.assertIn(token, head.fields.get(b"Authorization"))

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(NAMES, TARGETS, ITEMS, st.binary(max_size=20)), max_size=3),
        st.lists(st.integers(0, 400), max_size=8),
    )
    def test_what_is_written_is_read(
        self,
        requests: list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]],
        places: list[int],
    ) -> None:
        """Any requests come out as they went in, however they are cut on the way."""
        expected: Messages = []
        data = b""
        for number, (method, target, items, content) in enumerate(requests):
            fields = Fields(items)
            for name in (b"Content-Length", b"Transfer-Encoding"):
                fields.remove(name)
            trailers = Fields()
            body = content
            if number % 2 and method != b"CONNECT":
                fields.add(b"Transfer-Encoding", b"chunked")
                trailers.add(b"Digest", b"x")
                body = (encode_chunk(content) if content else b"") + last_chunk(
                    trailers
                )
            elif content:
                method = b"POST"
                fields.add(b"Content-Length", b"%d" % len(content))
            head = RequestHead(method, target, (1, 1), fields)
            data += head.serialise() + body
            expected.append((head, content, trailers))
        self.assertEqual(read_requests(cut(data, places)), expected)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\n",
                    b"Host: a\r\n",
                    b"Content-Length: 2\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"\r\n",
                    b"2\r\nab\r\n",
                    b"0\r\n",
                    b"ab",
                    b"\r",
                    b"\n",
                    b" ",
                    b"\0",
                ]
            ),
            max_size=12,
        ).map(b"".join)
    )
    def test_cuts_make_no_difference(self, data: bytes) -> None:
        """Sound or not, a stream means the same whole and octet by octet."""
        outcomes = []
        for segments in ([data], octets(data)):
            reader = RequestReader()
            messages: Messages = []
            error = False
            try:
                for segment in segments:
                    events = reader.receive(segment)
                    collect(messages, events)
                    while events and isinstance(events[-1], End):
                        events = reader.next_message()
                        collect(messages, events)
            except RemoteProtocolError:
                error = True
            # What was read before an error may be lost with it.
            whole = [message for message in messages if message[2] is not None]
            outcomes.append((error, whole, None if error else messages))
        self.assertEqual(outcomes[0], outcomes[1])


class RequestReaderTests(SynchronousTestCase):
    """What a server is told besides, and what it may ask."""

    def setUp(self) -> None:
        self.reader = RequestReader()

    def test_new(self) -> None:
        """Nothing has come, nothing is known."""
        self.assertTrue(self.reader.idle)
        self.assertIsNone(self.reader.head)
        self.assertEqual(self.reader.pending, b"")
        self.assertEqual(self.reader.receive(b""), [])
        self.assertEqual(self.reader.next_message(), [])
        self.reader.eof()

    def test_skip(self) -> None:
        """Content may be taken past the reader, in part or to its end."""
        self.reader.receive(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab")
        self.assertEqual(self.reader.outstanding, 7)
        self.assertEqual(self.reader.skip(3), [])
        self.assertEqual(self.reader.skip(0), [])
        self.assertEqual(self.reader.outstanding, 4)
        self.assertEqual(self.reader.receive(b"c"), [Data(b"c")])
        self.assertEqual(self.reader.skip(3), [End(Fields())])
        self.assertEqual(self.reader.outstanding, 0)
        self.assertEqual(self.reader.receive(GET), [])
        self.assertEqual(self.reader.pending, GET)
        self.assertIsInstance(self.reader.next_message()[0], RequestHead)

    def test_skip_too_much(self) -> None:
        """More than the content cannot have been content, nor what has no length."""
        self.assertRaises(LocalProtocolError, self.reader.skip, 0)
        self.reader.receive(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
        self.assertRaises(LocalProtocolError, self.reader.skip, 10)
        self.assertRaises(LocalProtocolError, self.reader.skip, -1)
        self.assertEqual(self.reader.outstanding, 9)

    def test_head_and_framing(self) -> None:
        """Those of the current message can be asked for until the next is there."""
        for data, framing in [
            (POST, Framing.LENGTH),
            (GET, Framing.NONE),
            (CHUNKED, Framing.CHUNKED),
        ]:
            head = self.reader.receive(data)[0]
            self.assertIs(self.reader.head, head)
            self.assertEqual(self.reader.framing, framing)
            self.reader.next_message()
            self.assertIs(self.reader.head, head)

    def test_stops_after_a_message(self) -> None:
        """What follows a message is kept, unread, until it is asked for."""
        self.assertEqual(len(self.reader.receive(POST + GET[:5])), 3)
        self.assertEqual(self.reader.pending, GET[:5])
        self.assertEqual(self.reader.receive(GET[5:]), [])
        self.assertEqual(self.reader.receive(b""), [])
        self.assertEqual(self.reader.receive(b"\x00rubbish"), [])
        self.assertEqual(self.reader.pending, GET + b"\x00rubbish")
        head, end = self.reader.next_message()
        assert isinstance(head, RequestHead)
        self.assertEqual((head.method, end), (b"GET", End(Fields())))
        self.assertEqual(self.reader.pending, b"\x00rubbish")
        self.assertRaises(RemoteProtocolError, self.reader.next_message)

    def test_tunnel(self) -> None:
        """What follows CONNECT is kept for the tunnel, whatever it looks like."""
        self.reader.receive(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        self.reader.receive(b"\x16\x03\x01")
        self.assertEqual(self.reader.pending, GET + b"\x16\x03\x01")

    def test_next_message_in_mid_message(self) -> None:
        """A message must be read to its end."""
        self.reader.receive(POST[:-1])
        self.assertRaises(LocalProtocolError, self.reader.next_message)
        self.assertEqual(self.reader.receive(POST[-1:]), [Data(b"o"), End(Fields())])

    def test_idle(self) -> None:
        """It is idle between two messages, when nothing of the second has come."""
        self.reader.receive(b"G")
        self.assertFalse(self.reader.idle)
        self.reader.receive(GET[1:])
        self.assertTrue(self.reader.idle)
        self.reader.receive(b"\r\n")
        self.assertFalse(self.reader.idle)
        self.assertEqual(self.reader.next_message(), [])
        self.assertTrue(self.reader.idle)
        self.reader.receive(POST[:-1])
        self.assertFalse(self.reader.idle)
        self.reader.receive(POST[-1:] + GET)
        self.assertFalse(self.reader.idle)
        self.reader.next_message()
        self.assertTrue(self.reader.idle)

    def test_end_of_the_connection(self) -> None:
        """It may come between messages, and cuts short whatever is under way."""
        self.reader.receive(POST)
        self.reader.eof()
        for data in (GET[:-1], POST[:-1], CHUNKED[:-1], b"\r"):
            reader = RequestReader()
            reader.receive(data)
            self.assertRaises(RemoteProtocolError, reader.eof)
            self.assertFalse(reader.idle)
            self.assertRaises(RemoteProtocolError, reader.receive, b"x")

    def test_end_of_the_connection_behind_pending_messages(self) -> None:
        """Whole messages are still read; the one that was cut short is told."""
        self.reader.receive(GET + GET + GET[:9])
        self.reader.eof()
        self.assertEqual(len(self.reader.next_message()), 2)
        self.assertRaises(RemoteProtocolError, self.reader.next_message)

    def test_dead(self) -> None:
        """After an error nothing is read any more, and the error is told again."""
        with self.assertRaises(RemoteProtocolError) as raised:
            self.reader.receive(b"GET / HTTP/2.0\r\n\r\n")
        self.assertFalse(self.reader.idle)
        for again in (
            lambda: self.reader.receive(GET),
            self.reader.next_message,
            self.reader.eof,
        ):
            with self.assertRaises(RemoteProtocolError) as repeated:
                again()
            self.assertEqual(str(repeated.exception), str(raised.exception))
            self.assertEqual(repeated.exception.status_hint, 505)

    def test_error_behind_a_message(self) -> None:
        """A sound request is not spoilt by what comes behind it."""
        self.assertEqual(len(self.reader.receive(GET + b"\x00")), 2)
        self.assertRaises(RemoteProtocolError, self.reader.next_message)

    def test_segments_are_not_copied(self) -> None:
        """A segment that is all content is passed on as the object it is."""
        self.reader.receive(b"PUT / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n")
        segment = b"x" * 65536
        [event] = self.reader.receive(segment)
        assert isinstance(event, Data)
        self.assertIs(event.data, segment)

    def test_pipelined_requests_are_not_copied(self) -> None:
        """A segment full of small requests is read where it is."""
        segment = GET * 1000
        self.reader.receive(segment)
        for _ in range(998):
            self.reader.next_message()
            self.assertIs(self.reader._data, segment)
        self.assertEqual(self.reader.pending, GET)

    def test_each_octet_is_looked_at_once(self) -> None:
        """A head fed octet by octet costs what its length is, not the square."""
        for size in (1000, 60000):
            reader = RequestReader()
            reader._block.held = held = CountingBuffer()
            data = b"\r\nGET / HTTP/1.1\r\nA: " + b"x" * size + b"\r\n\r\n"
            self.assertEqual(len(read_all(reader, data)), 2)
            self.assertGreater(held.work, size)
            self.assertLess(held.work, 6 * len(data))

    def test_no_garbage(self) -> None:
        """Neither a message nor an error leaves anything to the cycle collector."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for data in (
            POST,
            POST[:-1],
            CHUNKED,
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET / HTTP/1.1\n",
        ):
            with contextlib.suppress(RemoteProtocolError):
                reader = RequestReader()
                reader.receive(data)
                reader.eof()
        self.assertEqual(gc.collect(), 0)


def read_all(reader: RequestReader, data: bytes) -> list[object]:
    events: list[object] = []
    for octet in octets(data):
        events += reader.receive(octet)
    return events


class ResponseTests(SynchronousTestCase):
    """Responses, whole and octet by octet."""

    def both(
        self, data: bytes, method: bytes = b"GET"
    ) -> tuple[ResponseReader, Messages]:
        reader, messages = read_response([data], method)
        other, again = read_response(octets(data), method)
        self.assertEqual(messages, again)
        for name in ("surplus", "persists", "pending", "idle", "framing", "head"):
            self.assertEqual(getattr(reader, name), getattr(other, name), name)
        return reader, messages

    def refused(self, data: bytes, max_head: int = 65536) -> None:
        for segments in ([data], octets(data)):
            with self.assertRaises(RemoteProtocolError) as raised:
                read_response(segments, max_head=max_head)
            self.assertEqual(raised.exception.status_hint, 502)
            self.assertNotIn("s3cret", str(raised.exception))

    def test_with_length(self) -> None:
        """Content of known length is read, and the connection is free again."""
        reader, [(head, content, trailers)] = self.both(OK)
        self.assertEqual((head.status, content, trailers), (200, b"hello", Fields()))
        self.assertEqual(reader.framing, Framing.LENGTH)
        self.assertTrue(reader.persists)
        self.assertTrue(reader.idle)
        self.assertEqual(reader.eof(), [])

    def test_chunked(self) -> None:
        """Chunked content comes decoded, its trailers with the end."""
        reader, [(_, content, trailers)] = self.both(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\nA: 1\r\n 2\r\n\r\n"
        )
        self.assertEqual((content, trailers), (b"hello", Fields([(b"A", b"1 2")])))
        self.assertEqual(reader.framing, Framing.CHUNKED)
        self.assertTrue(reader.persists)

    def test_coding_and_length(self) -> None:
        """Transfer-Encoding wins, and the connection is not used again."""
        reader, [(_, content, _)] = self.both(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Length: 5\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        )
        self.assertEqual(content, b"x")
        self.assertFalse(reader.persists)
        self.assertFalse(reader.surplus)

    def test_until_close(self) -> None:
        """Content without framing ends with the connection."""
        for data in (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200\r\n\r\nhello"):
            reader, messages = self.both(data)
            self.assertIsNone(messages[0][2])
            self.assertEqual(reader.framing, Framing.UNTIL_CLOSE)
            self.assertFalse(reader.persists)
            self.assertEqual(reader.eof(), [End(Fields())])
            self.assertFalse(reader.persists)
            self.assertEqual(reader.eof(), [])

    def test_never_any_content(self) -> None:
        """What follows HEAD, 204 and 304 is not theirs."""
        for method, status in [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)]:
            data = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status
            reader, [(_, content, trailers)] = self.both(data, method)
            self.assertEqual((content, trailers), (b"", Fields()))
            self.assertEqual(reader.framing, Framing.NONE)
            self.assertTrue(reader.persists)
            reader, _ = self.both(data + b"hello", method)
            self.assertTrue(reader.surplus)
            self.assertFalse(reader.persists)

    def test_interim(self) -> None:
        """Interim responses come as heads, in front of the final one."""
        reader, messages = self.both(
            b"HTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n" + OK
        )
        self.assertEqual([head.status for head, _, _ in messages], [100, 103, 200])
        self.assertEqual([trailers for _, _, trailers in messages[:2]], [None, None])
        self.assertEqual(messages[2][1], b"hello")
        self.assertTrue(reader.persists)

    def test_interim_without_end(self) -> None:
        """Interim responses may have as many octets as four heads."""
        hint = b"HTTP/1.1 103 E\r\nLink: a\r\n\r\n"
        reader = ResponseReader(max_head=2 * len(hint))
        reader.expect(b"GET")
        self.assertEqual(len(reader.receive(hint * 8)), 8)
        self.assertRaises(RemoteProtocolError, reader.receive, hint)
        reader = ResponseReader(max_head=2 * len(hint))
        reader.expect(b"GET")
        reader.receive(hint * 8 + OK)
        reader.expect(b"GET")
        self.assertEqual(len(reader.receive(hint * 8)), 8)

    def test_upgrade(self) -> None:
        """After 101 the stream is something else, from the first octet."""
        reader, [(head, content, trailers)] = self.both(
            b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 3\r\n\r\n\x81\x05"
        )
        self.assertEqual((head.status, content, trailers), (101, b"", Fields()))
        self.assertEqual(reader.pending, b"\x81\x05")
        self.assertFalse(reader.surplus)
        self.assertFalse(reader.persists)
        self.assertEqual(reader.receive(b"\x00"), [])
        self.assertEqual(reader.pending, b"\x81\x05\x00")
        self.assertEqual(reader.eof(), [])
        self.assertRaises(LocalProtocolError, reader.expect, b"GET")

    def test_tunnel(self) -> None:
        """After 2xx to CONNECT the stream is the tunnel's; a refusal is a response."""
        head = b"HTTP/1.0 200 Connection established\r\n\r\n"
        reader, [(_, content, trailers)] = self.both(head + b"SSH-2.0-x", b"CONNECT")
        self.assertEqual((content, trailers), (b"", Fields()))
        self.assertEqual(reader.pending, b"SSH-2.0-x")
        self.assertFalse(reader.idle)
        refusal = OK.replace(b"200 OK", b"407 X")
        reader, [(_, content, _)] = self.both(refusal, b"CONNECT")
        self.assertEqual((content, reader.pending), (b"hello", b""))
        self.assertTrue(reader.persists)

    def test_persistence(self) -> None:
        """The rules of RFC 9112 9.3 decide after the end."""
        for lines, persists in [
            (b"Connection: Foo, Close\r\n", False),
            (b"Proxy-Connection: close\r\n", False),
            (b"Connection: keep-alive\r\n", True),
        ]:
            data = OK.replace(b"\r\n\r\n", b"\r\n" + lines + b"\r\n")
            self.assertIs(self.both(data)[0].persists, persists)
        self.assertFalse(self.both(OK.replace(b"1.1", b"1.0"))[0].persists)

    def test_surplus(self) -> None:
        """What nobody asked for is no response, and spoils the connection."""
        reader, messages = self.both(OK + OK)
        self.assertEqual(len(messages), 1)
        self.assertTrue(reader.surplus)
        self.assertFalse(reader.persists)
        self.assertEqual(reader.pending, b"")
        self.assertRaises(LocalProtocolError, reader.expect, b"GET")

    def test_malformed(self) -> None:
        """Whatever cannot be read for certain is an error."""
        self.refused(b"HTTP/1.1 200 OK\r\nX : s3cret\r\n\r\n")
        self.refused(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab")
        self.refused(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x-s3cret\r\n\r\n")
        self.refused(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
        )
        self.refused(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ns3cret\r\n"
        )
        self.refused(b"HTTP/1.0 100 Continue\r\n\r\n" + OK)
        self.refused(b"HTTP/1.1 103 X\r\nContent-Length: s3cret\r\n\r\n" + OK)
        self.refused(b"\r\n" + OK)

    def test_told_at_once(self) -> None:
        """What is no HTTP is refused before the end of a head, which may never come."""
        for data in (
            b"SSH-2.0-OpenSSH_9.2p1 Debian",
            b"\x15\x03\x01\x00\x02",
            b"<html>",
            b"ICY 200 OK",
            b"HTTP/2",
            b"HTTP/1.1 200 OK\nServer",
        ):
            self.refused(data)

    def test_limits(self) -> None:
        """Heads and trailers are limited."""
        self.refused(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 65536 + b"\r\n\r\n")
        self.refused(b"HTTP/1.1 200 OK\r\n" + b"A: 1\r\n" * 101 + b"\r\n")
        self.refused(OK, max_head=20)
        self.refused(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: "
            + b"x" * 99,
            max_head=60,
        )

    @settings(max_examples=100, deadline=None)
    @given(
        st.integers(200, 999).filter(lambda status: status not in (204, 304)),
        ITEMS,
        st.lists(st.binary(min_size=1, max_size=9), max_size=4),
        st.sampled_from([Framing.LENGTH, Framing.CHUNKED, Framing.UNTIL_CLOSE]),
        st.lists(st.integers(0, 200), max_size=6),
    )
    def test_what_is_written_is_read(
        self,
        status: int,
        items: list[tuple[bytes, bytes]],
        pieces: list[bytes],
        framing: Framing,
        places: list[int],
    ) -> None:
        """Any response comes out as it went in, however it is cut on the way."""
        fields = Fields(items)
        fields.remove(b"Content-Length")
        fields.remove(b"Transfer-Encoding")
        content = body = b"".join(pieces)
        if framing is Framing.LENGTH:
            fields.add(b"Content-Length", b"%d" % len(content))
        elif framing is Framing.CHUNKED:
            fields.add(b"Transfer-Encoding", b"chunked")
            body = b"".join(map(encode_chunk, pieces)) + last_chunk()
        head = ResponseHead(status, b"X", (1, 1), fields)
        reader, messages = read_response(cut(head.serialise() + body, places))
        collect(messages, reader.eof())
        self.assertEqual(messages, [(head, content, Fields())])
        self.assertEqual(reader.framing, framing)
        self.assertFalse(reader.surplus)


class ResponseReaderTests(SynchronousTestCase):
    """What a client is told besides, and what it may ask."""

    def setUp(self) -> None:
        self.reader = ResponseReader()

    def test_new(self) -> None:
        """A fresh connection is free."""
        self.assertTrue(self.reader.idle)
        self.assertTrue(self.reader.persists)
        self.assertFalse(self.reader.surplus)
        self.assertEqual(self.reader.pending, b"")
        self.assertIsNone(self.reader.head)
        self.assertEqual(self.reader.eof(), [])

    def test_skip(self) -> None:
        """Content may be taken past the reader, in part or to its end."""
        self.reader.expect(b"GET")
        self.reader.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        self.assertEqual(self.reader.outstanding, 7)
        self.assertEqual(self.reader.skip(3), [])
        self.assertRaises(LocalProtocolError, self.reader.skip, 5)
        self.assertEqual(self.reader.skip(4), [End(Fields())])
        self.assertTrue(self.reader.persists)
        self.assertEqual(self.reader.receive(b"more"), [])
        self.assertTrue(self.reader.surplus)

    def test_outstanding(self) -> None:
        """Only where a length frames the content it is known."""
        self.reader.expect(b"GET")
        self.reader.receive(b"HTTP/1.1 200 OK\r\n\r\nab")
        self.assertEqual(self.reader.outstanding, 0)
        self.assertRaises(LocalProtocolError, self.reader.skip, 0)

    def test_unasked(self) -> None:
        """What comes before any request is surplus; nothing at all is not."""
        self.assertEqual(self.reader.receive(b""), [])
        self.assertFalse(self.reader.surplus)
        self.assertEqual(self.reader.receive(OK), [])
        self.assertTrue(self.reader.surplus)
        self.assertFalse(self.reader.idle)

    def test_one_at_a_time(self) -> None:
        """A request is answered before the next is sent."""
        self.reader.expect(b"GET")
        self.assertFalse(self.reader.idle)
        self.assertFalse(self.reader.persists)
        self.assertRaises(LocalProtocolError, self.reader.expect, b"GET")

    def test_again(self) -> None:
        """One connection carries one response after another."""
        for _ in range(3):
            self.reader.expect(b"GET")
            self.assertIsNone(self.reader.head)
            self.assertEqual(self.reader.framing, Framing.NONE)
            head, data, end = self.reader.receive(OK)
            self.assertIs(self.reader.head, head)
            self.assertEqual((data, end), (Data(b"hello"), End(Fields())))
            self.assertEqual(self.reader.framing, Framing.LENGTH)
            self.assertTrue(self.reader.persists)

    def test_each_answers_its_own_request(self) -> None:
        """A HEAD does not leave its mark on the GET behind it."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        self.reader.expect(b"HEAD")
        self.assertEqual(len(self.reader.receive(head)), 2)
        self.reader.expect(b"GET")
        self.assertEqual(len(self.reader.receive(head)), 1)
        self.assertFalse(self.reader.persists)

    def test_cut_short(self) -> None:
        """A response that ends too early says so, and whether it had begun."""
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        for data, answered in [
            (b"", False),
            (b"H", True),
            (b"HTTP/1.1 100 Continue\r\n\r\n", True),
            (OK[:-6], True),
            (OK[:-1], True),
            (chunked, True),
            (chunked + b"0\r\n", True),
        ]:
            reader, _ = read_response([data])
            with self.assertRaises(ConnectionEnded) as raised:
                reader.eof()
            self.assertIs(raised.exception.answered, answered)
            self.assertFalse(reader.idle)
            self.assertRaises(RemoteProtocolError, reader.receive, b"x")

    def test_dead(self) -> None:
        """After an error nothing is read any more, and the error is told again."""
        self.reader.expect(b"GET")
        with self.assertRaises(RemoteProtocolError) as raised:
            self.reader.receive(b"HTTP/9.9 200 OK\r\n\r\n")
        self.assertFalse(self.reader.idle)
        self.assertFalse(self.reader.persists)
        for again in (lambda: self.reader.receive(OK), self.reader.eof):
            with self.assertRaises(RemoteProtocolError) as repeated:
                again()
            self.assertEqual(str(repeated.exception), str(raised.exception))
            self.assertEqual(repeated.exception.status_hint, 502)
        self.assertRaises(LocalProtocolError, self.reader.expect, b"GET")

    def test_segments_are_not_copied(self) -> None:
        """A segment that is all content is passed on as the object it is."""
        segment = b"x" * 65536
        for lines in (b"Content-Length: 99999\r\n", b""):
            reader, _ = read_response([b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n"])
            [event] = reader.receive(segment)
            assert isinstance(event, Data)
            self.assertIs(event.data, segment)

    def test_no_garbage(self) -> None:
        """Neither a message nor an error leaves anything to the cycle collector."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for data in (OK, OK[:-1], b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/2 200\r\n\r\n"):
            with contextlib.suppress(RemoteProtocolError):
                read_response([data])[0].eof()
        self.assertEqual(gc.collect(), 0)
