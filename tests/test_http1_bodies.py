"""Tests for :mod:`coda_twisted.http1.bodies`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.errors import RemoteProtocolError
from coda_twisted.http1.bodies import (
    MAX_CHUNK_LINE,
    ChunkedDecoder,
    CloseDecoder,
    Decoder,
    Framing,
    LengthDecoder,
    decoder_for,
    encode_chunk,
    last_chunk,
    request_framing,
    response_framing,
)
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead, ResponseHead
from tests.test_http1_heads import CountingBuffer

V10, V11 = (1, 0), (1, 1)
NONE = (Framing.NONE, 0)
CHUNKED = (Framing.CHUNKED, 0)
UNTIL_CLOSE = (Framing.UNTIL_CLOSE, 0)

# Lengths that are not a single number of octets (RFC 9110 8.6).
BAD_LENGTHS = (
    b"",
    b"+5",
    b"-5",
    b"5.0",
    b"0x5",
    b"5 5",
    b"5_0",
    b"5;5",
    b"5,5",
    b"5,",
    b"five",
    b"\xb2",
    b"9" * 19,
    b"0" * 20,
    b"%d" % 2**63,
)

# Transfer-Encodings that are not exactly ``chunked`` once, and the status that
# RFC 9112 6.1 and 6.3 suggest for a request.
BAD_CODINGS = (
    (b"", 400),
    (b"identity", 400),
    (b"gzip", 400),
    (b"xchunked", 400),
    (b"chunkedx", 400),
    (b"chunked;q=1", 400),
    (b'"chunked"', 400),
    (b"chu nked", 400),
    (b"chunked, identity", 400),
    (b"chunked, gzip", 400),
    (b"chunked,", 400),
    (b",chunked", 400),
    (b"chunked, chunked", 400),
    (b"chunked, gzip, chunked", 400),
    (b"gzip, chunked", 501),
    (b"identity, chunked", 501),
)


def length(value: bytes) -> tuple[bytes, bytes]:
    return b"Content-Length", value


def coding(value: bytes) -> tuple[bytes, bytes]:
    return b"Transfer-Encoding", value


class RequestFramingTests(SynchronousTestCase):
    """Where a request ends."""

    def framing(
        self,
        *lines: tuple[bytes, bytes],
        version: tuple[int, int] = V11,
        method: bytes = b"POST",
    ) -> tuple[Framing, int]:
        return request_framing(RequestHead(method, b"/", version, Fields(lines)))

    def refused(
        self,
        *lines: tuple[bytes, bytes],
        status: int = 400,
        version: tuple[int, int] = V11,
        method: bytes = b"POST",
    ) -> None:
        with self.assertRaises(RemoteProtocolError) as raised:
            self.framing(*lines, version=version, method=method)
        self.assertEqual(raised.exception.status_hint, status, lines)

    def test_none(self) -> None:
        """Without a framing field there is no content (RFC 9112 6.3, rule 7)."""
        self.assertEqual(self.framing(), NONE)

    def test_length(self) -> None:
        """A length is a length, in any version, zero included."""
        self.assertEqual(self.framing(length(b"5")), (Framing.LENGTH, 5))
        self.assertEqual(self.framing(length(b"0")), (Framing.LENGTH, 0))
        self.assertEqual(self.framing(length(b"05"), version=V10), (Framing.LENGTH, 5))
        self.assertEqual(
            self.framing(length(b"9223372036854775807")), (Framing.LENGTH, 2**63 - 1)
        )

    def test_malformed_length(self) -> None:
        """Whatever is not one number is refused (rule 5)."""
        for value in BAD_LENGTHS:
            self.refused(length(value))

    def test_repeated_length(self) -> None:
        """
        Two are refused though they be equal.

        RFC 9112 6.3 lets a recipient take equal ones for one.  No client sends
        them, but for attempts to find out which of two servers reads which.
        """
        self.refused(length(b"5"), length(b"5"))
        self.refused(length(b"5"), length(b"6"))

    def test_chunked(self) -> None:
        """Names of codings have no case (RFC 9112 7)."""
        for value in (b"chunked", b"Chunked", b"CHUNKED"):
            self.assertEqual(self.framing(coding(value)), CHUNKED)

    def test_other_codings(self) -> None:
        """What is not exactly chunked, once, is refused, obfuscated or not."""
        for value, status in BAD_CODINGS:
            self.refused(coding(value), status=status)
        self.refused(coding(b"chunked"), coding(b"chunked"))
        self.refused(coding(b"chunked"), coding(b"identity"))
        self.refused(coding(b"gzip"), coding(b"chunked"), status=501)

    def test_both(self) -> None:
        """Both framings in one request are an attack or a broken client (rule 3)."""
        self.refused(coding(b"chunked"), length(b"5"))
        self.refused(length(b"0"), coding(b"chunked"))
        self.refused(coding(b"identity"), length(b"5"))

    def test_coding_in_http10(self) -> None:
        """HTTP/1.0 does not know Transfer-Encoding (RFC 9112 6.1)."""
        self.refused(coding(b"chunked"), version=V10)
        self.refused(coding(b"identity"), version=V10)

    def test_connect(self) -> None:
        """What follows a CONNECT is the tunnel's, so it has no content."""
        self.assertEqual(self.framing(method=b"CONNECT"), NONE)
        self.assertEqual(
            self.framing(length(b"0"), method=b"CONNECT"), (Framing.LENGTH, 0)
        )
        self.refused(length(b"5"), method=b"CONNECT")
        self.refused(coding(b"chunked"), method=b"CONNECT")


class ResponseFramingTests(SynchronousTestCase):
    """Where a response ends (RFC 9112 6.3)."""

    def framing(
        self,
        status: int,
        *lines: tuple[bytes, bytes],
        method: bytes = b"GET",
        version: tuple[int, int] = V11,
    ) -> tuple[Framing, int]:
        head = ResponseHead(status, b"", version, Fields(lines))
        return response_framing(head, method)

    def refused(
        self,
        status: int,
        *lines: tuple[bytes, bytes],
        method: bytes = b"GET",
        version: tuple[int, int] = V11,
    ) -> None:
        with self.assertRaises(RemoteProtocolError) as raised:
            self.framing(status, *lines, method=method, version=version)
        self.assertEqual(raised.exception.status_hint, 502, lines)

    def test_never_any_content(self) -> None:
        """Rule 1: HEAD, 1xx, 204 and 304 have none, whatever the fields say."""
        for lines in ([], [length(b"5")], [coding(b"chunked")]):
            for status in (100, 101, 103, 204, 304):
                self.assertEqual(self.framing(status, *lines), NONE)
            for status in (200, 404, 500):
                self.assertEqual(self.framing(status, *lines, method=b"HEAD"), NONE)

    def test_tunnel(self) -> None:
        """Rule 2: 2xx to CONNECT has none either; a refusal has."""
        for lines in ([], [length(b"5")], [coding(b"chunked")], [coding(b"x")]):
            for status in (200, 201, 299):
                self.assertEqual(self.framing(status, *lines, method=b"CONNECT"), NONE)
        self.assertEqual(
            self.framing(407, length(b"5"), method=b"CONNECT"), (Framing.LENGTH, 5)
        )
        self.assertEqual(self.framing(502, method=b"CONNECT"), UNTIL_CLOSE)

    def test_chunked(self) -> None:
        """Rules 3 and 4: Transfer-Encoding wins over Content-Length."""
        self.assertEqual(self.framing(200, coding(b"Chunked")), CHUNKED)
        self.assertEqual(self.framing(200, length(b"5"), coding(b"chunked")), CHUNKED)

    def test_other_codings(self) -> None:
        """
        What cannot be decoded is refused.

        Rule 4 would read it until the connection closes; what it is we would not
        know, and pass on as something else.
        """
        for value, _ in BAD_CODINGS:
            self.refused(200, coding(value))
            self.refused(304, coding(value))
            self.refused(200, coding(value), method=b"HEAD")
        self.refused(200, coding(b"chunked"), coding(b"chunked"))

    def test_coding_in_http10(self) -> None:
        """Some read it, some do not (RFC 9112 6.1): nobody can know its end."""
        self.refused(200, coding(b"chunked"), version=V10)
        self.assertEqual(self.framing(304, coding(b"chunked"), version=V10), NONE)

    def test_length(self) -> None:
        """Rule 6: one length is the length."""
        self.assertEqual(self.framing(200, length(b"5")), (Framing.LENGTH, 5))
        self.assertEqual(
            self.framing(200, length(b"0"), version=V10), (Framing.LENGTH, 0)
        )

    def test_malformed_length(self) -> None:
        """Rule 5: it is refused even where no length is needed."""
        for value in BAD_LENGTHS:
            self.refused(200, length(value))
        self.refused(200, length(b"5"), length(b"6"))
        self.refused(204, length(b"x"))
        self.refused(200, length(b"x"), method=b"HEAD")
        self.refused(200, length(b"x"), method=b"CONNECT")
        self.refused(200, length(b"x"), coding(b"chunked"))

    def test_until_close(self) -> None:
        """Rule 8: without either, the end is the connection's."""
        self.assertEqual(self.framing(200), UNTIL_CLOSE)
        self.assertEqual(self.framing(404, version=V10), UNTIL_CLOSE)


class EncodeTests(SynchronousTestCase):
    """Chunks, written."""

    def test_chunks(self) -> None:
        """RFC 9112 7.1: size in hexadecimal, CRLF, data, CRLF."""
        self.assertEqual(encode_chunk(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")

    def test_empty(self) -> None:
        """An empty piece must not end the content."""
        self.assertRaises(ValueError, encode_chunk, b"")

    def test_last(self) -> None:
        """The last chunk is followed by the trailers, if any, and an empty line."""
        self.assertEqual(last_chunk(), b"0\r\n\r\n")
        self.assertEqual(last_chunk(Fields()), b"0\r\n\r\n")
        self.assertEqual(
            last_chunk(Fields([(b"A", b"1"), (b"B", b"2")])),
            b"0\r\nA: 1\r\nB: 2\r\n\r\n",
        )


def decode(decoder: Decoder, segments: Iterable[bytes]) -> tuple[bytes, bytes | None]:
    """Feed segments; return the content, and what is behind the end, if it came."""
    content, rest = b"", None
    for segment in segments:
        if rest is not None:
            rest += segment
            continue
        piece, end = decoder.feed(b"__" + segment, 2)
        content += piece
        if end >= 0:
            rest = (b"__" + segment)[end:]
    return content, rest


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


class LengthDecoderTests(SynchronousTestCase):
    """Content of known length."""

    def test_whole_and_in_octets(self) -> None:
        """It ends where it should, and leaves the rest."""
        for segments in ([b"hello", b"rest"], [b"hellorest"], octets(b"hellorest")):
            self.assertEqual(decode(LengthDecoder(5), segments), (b"hello", b"rest"))

    def test_unfinished(self) -> None:
        """It goes on until its length is there."""
        self.assertEqual(decode(LengthDecoder(6), [b"hello"]), (b"hello", None))

    def test_segments_are_not_copied(self) -> None:
        """A segment that is all content is passed on as the object it is."""
        segment = b"x" * 65536
        decoder = LengthDecoder(2 * 65536)
        self.assertIs(decoder.feed(segment, 0)[0], segment)
        self.assertIs(decoder.feed(segment, 0)[0], segment)


class CloseDecoderTests(SynchronousTestCase):
    """Content without an end of its own."""

    def test_all_is_content(self) -> None:
        """Nothing ends it, and nothing is copied."""
        self.assertEqual(decode(CloseDecoder(), octets(b"hello")), (b"hello", None))
        segment = b"x" * 65536
        self.assertIs(CloseDecoder().feed(segment, 0)[0], segment)


class ChunkedDecoderTests(SynchronousTestCase):
    """Content in chunks (RFC 9112 7.1)."""

    def both(self, data: bytes) -> tuple[bytes, bytes | None, Fields]:
        """Decode whole and in octets, which must be the same."""
        decoder = ChunkedDecoder(folds=True)
        whole = decode(decoder, [data])
        again = ChunkedDecoder(folds=True)
        self.assertEqual(decode(again, octets(data)), whole)
        self.assertEqual(decoder.trailers, again.trailers)
        return *whole, decoder.trailers

    def refused(self, data: bytes, status: int = 400, *, folds: bool = False) -> None:
        for segments in ([data], octets(data)):
            with self.assertRaises(RemoteProtocolError) as raised:
                decode(ChunkedDecoder(folds=folds), segments)
            self.assertEqual(raised.exception.status_hint, status, data)
            self.assertNotIn("s3cret", str(raised.exception))

    def test_chunks(self) -> None:
        """Content is put together, and what follows is left."""
        for data in (
            b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nrest",
            b"00B\r\nhello world\r\n000\r\n\r\nrest",
            b"000000000000000b\r\nhello world\r\n0\r\n\r\nrest",
        ):
            self.assertEqual(self.both(data), (b"hello world", b"rest", Fields()))
        self.assertEqual(self.both(b"0\r\n\r\n"), (b"", b"", Fields()))

    def test_hexadecimal(self) -> None:
        """Sizes are hexadecimal, in either case."""
        for size in (b"1a", b"1A"):
            data = size + b"\r\n" + b"\n" * 26 + b"\r\n0\r\n\r\n"
            self.assertEqual(self.both(data), (b"\n" * 26, b"", Fields()))

    def test_unfinished(self) -> None:
        """Anything short of the last octet is not the end."""
        data = b"5\r\nhello\r\n0\r\nA: 1\r\n\r\n"
        for cut in range(len(data)):
            self.assertIsNone(self.both(data[:cut])[1])

    def test_extensions_are_dropped(self) -> None:
        """Extensions have no meaning here (RFC 9112 7.1.1)."""
        data = b'5;a;b=c;d="e;\\" f"\r\nhello\r\n0;x=y\r\n\r\n'
        self.assertEqual(self.both(data), (b"hello", b"", Fields()))

    def test_malformed_sizes(self) -> None:
        """Digits, an extension perhaps, CRLF: nothing that could hide a chunk."""
        for line in (
            b"",
            b"g",
            b"0x5",
            b"+5",
            b"-5",
            b" 5",
            b"5 ",
            b"5\t",
            b"5 ;a",
            b"5,5",
            b"5_0",
            b"5\n",
            b"\n5",
            b"5\r",
            b"5;a\rb",
            b"5;a\nb",
            b'5;"\n"',
            b"5;\x00",
            b"5;\x7f",
            b"0" * 16 + b"5",
            b"f" * 17,
        ):
            self.refused(line + b"\r\nhello\r\n0\r\n\r\n")
            self.refused(b"1\r\nx\r\n" + line + b"\r\nhello\r\n0\r\n\r\n")

    def test_bare_lf(self) -> None:
        """A lone LF ends no line, wherever it stands."""
        self.refused(b"5\nhello\r\n0\r\n\r\n")
        self.refused(b"5\r\nhello\n0\r\n\r\n")
        self.refused(b"5\r\nhello\r\n0\n\r\n")
        self.refused(b"0\r\n\nrest")
        self.refused(b"0\r\nA: 1\n\r\n\r\n")
        self.refused(b"0\r\nA: 1\r\n\n")

    def test_wrong_sizes(self) -> None:
        """Data longer or shorter than its size is not guessed at."""
        self.refused(b"4\r\nhello\r\n0\r\n\r\n")
        self.refused(b"6\r\nhello\r\n0\r\n\r\n")
        self.refused(b"5\r\nhello0\r\n\r\n")

    def test_long_line(self) -> None:
        """Extensions have a limit, whether or not their line ever ends."""
        line = b"5;" + b"x" * (MAX_CHUNK_LINE - 4)
        self.assertEqual(
            self.both(line + b"\r\nhello\r\n" + line + b"\r\nhello")[0], b"hellohello"
        )
        self.refused(line + b"x\r\nhello\r\n0\r\n\r\n")
        self.refused(line + b"xxx")
        self.refused(b"1\r\nx\r\n" + line + b"x\r\nhello\r\n0\r\n\r\n")

    def test_trailers(self) -> None:
        """Trailers are fields, kept apart; folded ones are unfolded in responses."""
        self.assertEqual(
            self.both(b"1\r\nx\r\n0\r\nA: 1\r\nb:2\r\n 3\r\n\r\nrest"),
            (b"x", b"rest", Fields([(b"A", b"1"), (b"b", b"2 3")])),
        )

    def test_malformed_trailers(self) -> None:
        """Trailers are as strict as fields are."""
        for line in (
            b"s3cret",
            b"A : s3cret",
            b" A: s3cret",
            b"A: s3cret\x00",
            b"A: s3cret\r",
        ):
            self.refused(b"0\r\n" + line + b"\r\n\r\n", folds=True)
        self.refused(b"0\r\nA: 1\r\n s3cret\r\n\r\n")

    def test_trailers_that_are_none(self) -> None:
        """What would frame, route or authenticate is dropped (RFC 9110 6.5.1)."""
        harmful = [
            b"Content-Length: 5",
            b"TRANSFER-encoding: chunked",
            b"Host: b",
            b"Connection: close",
            b"Authorization: Basic eA==",
            b"Proxy-Authorization: Basic eA==",
            b"Set-Cookie: a=b",
            b"Cookie: a=b",
            b"Trailer: x",
            b"TE: x",
            b"Upgrade: x",
            b"Expect: 100-continue",
            b"Max-Forwards: 9",
            b"Content-Type: x",
            b"Content-Encoding: x",
            b"Content-Range: x",
            b"Cache-Control: x",
            b"Keep-Alive: x",
            b"Proxy-Connection: x",
            b"WWW-Authenticate: x",
            b"Proxy-Authenticate: x",
        ]
        data = b"0\r\n" + b"\r\n".join([*harmful, b"Digest: y"]) + b"\r\n\r\n"
        self.assertEqual(self.both(data)[2], Fields([(b"Digest", b"y")]))

    def test_limits_of_trailers(self) -> None:
        """Trailers have the limits of fields."""
        self.refused(b"0\r\n" + b"A: 1\r\n" * 101 + b"\r\n", 431)
        for segments in ([b"0\r\nA: " + b"x" * 100], octets(b"0\r\nA: " + b"x" * 100)):
            with self.assertRaises(RemoteProtocolError) as raised:
                decode(ChunkedDecoder(max_trailers=80), segments)
            self.assertEqual(raised.exception.status_hint, 431)
        self.assertRaises(
            RemoteProtocolError,
            decode,
            ChunkedDecoder(max_fields=1),
            [b"0\r\nA: 1\r\nB: 2\r\n\r\n"],
        )

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.binary(min_size=1, max_size=20), max_size=5),
        st.lists(st.integers(0, 150), max_size=6),
    )
    def test_what_is_written_is_read(
        self, pieces: list[bytes], cuts: list[int]
    ) -> None:
        """Chunks come out as they went in, however they are cut on the way."""
        trailers = Fields([(b"A", b"1")] if len(pieces) % 2 else [])
        data = b"".join(map(encode_chunk, pieces)) + last_chunk(trailers) + b"rest"
        places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        segments = [data[begin:end] for begin, end in pairwise(places)]
        decoder = ChunkedDecoder()
        self.assertEqual(decode(decoder, segments), (b"".join(pieces), b"rest"))
        self.assertEqual(decoder.trailers, trailers)

    def test_segments_are_not_copied(self) -> None:
        """A segment in the middle of a chunk is passed on as the object it is."""
        decoder = ChunkedDecoder()
        decoder.feed(b"20000\r\n", 0)
        segment = b"x" * 65536
        self.assertIs(decoder.feed(segment, 0)[0], segment)

    def test_one_piece_for_a_segment(self) -> None:
        """Many small chunks in a segment come as one piece."""
        content, end = ChunkedDecoder().feed(encode_chunk(b"ab") * 1000, 0)
        self.assertEqual((content, end), (b"ab" * 1000, -1))

    def test_each_octet_is_looked_at_once(self) -> None:
        """Lines fed octet by octet cost what their length is, not the square."""
        for size in (250, 4000):
            decoder = ChunkedDecoder()
            decoder._held = lines = CountingBuffer()
            decoder._block.held = trailers = CountingBuffer()
            line = b"1;" + b"x" * size + b"\r\n"
            data = line + b"x\r\n0\r\nA: " + b"y" * size + b"\r\n\r\n"
            self.assertEqual(decode(decoder, octets(data)), (b"x", b""))
            self.assertGreater(lines.work, size)
            self.assertLess(lines.work + trailers.work, 6 * len(data))


class DecoderForTests(SynchronousTestCase):
    """The decoder that fits a framing."""

    def decoder(self, framing: Framing, octets: int = 0) -> Decoder | None:
        return decoder_for(framing, octets, max_trailers=99, max_fields=9, folds=False)

    def test_kinds(self) -> None:
        """Each framing with content has one; no content needs none."""
        self.assertIsInstance(self.decoder(Framing.CHUNKED), ChunkedDecoder)
        self.assertIsInstance(self.decoder(Framing.UNTIL_CLOSE), CloseDecoder)
        self.assertIsInstance(self.decoder(Framing.LENGTH, 1), LengthDecoder)
        self.assertIsNone(self.decoder(Framing.LENGTH, 0))
        self.assertIsNone(self.decoder(Framing.NONE))
