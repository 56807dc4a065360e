"""Responses made to be read differently by two clients."""

from __future__ import annotations

from tests.hostile.cases import OK, Response

__all__ = ["RESPONSES"]

POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
"""A response that nobody has asked for."""
CHUNKED = b"Transfer-Encoding: chunked"
HINT = b"HTTP/1.1 103 E\r\nLink: a\r\n\r\n"


def answer(
    *lines: bytes, content: bytes = b"", line: bytes = b"HTTP/1.1 200 OK"
) -> bytes:
    """Write a response."""
    return b"\r\n".join([line, *lines, b"", content])


def refused(name: str, sent: bytes, why: str) -> Response:
    """Nothing of it reaches the client."""
    return Response(name, sent, why)


def cut(name: str, content: bytes, why: str = "9112 7.1") -> Response:
    """The client sees that something is missing."""
    return Response(name, answer(CHUNKED, content=content), why, content=None)


def length(name: str, value: bytes) -> Response:
    """Make a row for an odd Content-Length."""
    sent = answer(b"Content-Length: " + value, content=b"ok")
    return refused(name, sent, "9110 8.6, 9112 6.3")


def coded(name: str, coding: bytes, why: str = "9112 6.3") -> Response:
    """Make a row for an odd Transfer-Encoding."""
    sent = answer(b"Transfer-Encoding: " + coding, content=b"2\r\nok\r\n0\r\n\r\n")
    return refused(name, sent, why)


def head(name: str, line: bytes, why: str = "9112 4") -> Response:
    """Make a row for an odd status line."""
    return refused(name, answer(b"Content-Length: 2", content=b"ok", line=line), why)


def field(name: str, line: bytes, why: str = "9112 5") -> Response:
    """Make a row for a malformed field line."""
    return refused(name, answer(line, b"Content-Length: 2", content=b"ok"), why)


def passed(
    name: str,
    sent: bytes,
    why: str,
    *,
    fields: tuple[bytes, ...] = (),
    absent: tuple[bytes, ...] = (),
    reused: bool = True,
    does: str = "",
    interim: int = 0,
    lines: tuple[bytes, ...] = (),
    ends: bool = False,
) -> Response:
    """The client gets its content, which is ``ok``."""
    return Response(
        name,
        sent,
        why,
        status=200,
        content=b"ok",
        fields=fields,
        absent=absent,
        reused=reused,
        does=does,
        interim=interim,
        lines=lines,
        ends=ends,
    )


RESPONSES: dict[str, list[Response]] = {
    "Content-Length and Transfer-Encoding": [
        passed(
            "both",
            answer(b"Content-Length: 5", CHUNKED, content=b"2\r\nok\r\n0\r\n\r\n"),
            "9112 6.3",
            absent=(b"Content-Length",),
            reused=False,
            does="read in chunks, passed on without the length; closed behind it",
        ),
        passed(
            "the length twice, the same",
            answer(b"Content-Length: 2", b"Content-Length: 2", content=b"ok"),
            "9110 8.6",
            fields=(b"Content-Length: 2",),
            does="passed on with one",
        ),
        passed(
            "the length as a list of the same",
            answer(b"Content-Length: 2, 2", content=b"ok"),
            "9110 8.6",
            fields=(b"Content-Length: 2",),
            does="passed on with one",
        ),
        passed(
            "the length named in Connection",
            answer(b"Connection: Content-Length", b"Content-Length: 2", content=b"ok"),
            "9110 7.6.1",
            fields=(b"Content-Length: 2",),
            does="passed on with the length it had",
        ),
        passed(
            "the coding named in Connection",
            answer(
                b"Connection: Transfer-Encoding",
                CHUNKED,
                content=b"2\r\nok\r\n0\r\n\r\n",
            ),
            "9110 7.6.1",
            does="passed on, in chunks of ours",
        ),
        length("different lengths", b"2\r\nContent-Length: 5"),
        length("a list of different ones", b"2, 5"),
        length("a comma behind it", b"2,"),
        length("plus sign", b"+2"),
        length("minus sign", b"-2"),
        length("hexadecimal", b"0x2"),
        length("two numbers", b"2 2"),
        length("empty", b""),
        length("64 bits, and 2 more", b"18446744073709551618"),
        field("space before the colon", b"Content-Length : 2", "9112 5.1"),
        coded("xchunked", b"xchunked"),
        coded("identity", b"identity"),
        coded("gzip, chunked", b"gzip, chunked", "9112 6.1"),
        coded("chunked, identity", b"chunked, identity"),
        coded("chunked, chunked", b"chunked, chunked", "9112 6.1"),
        coded("vertical tab before it", b"\x0bchunked", "9110 5.5"),
        refused(
            "the coding in HTTP/1.0",
            answer(CHUNKED, content=b"0\r\n\r\n", line=b"HTTP/1.0 200 OK"),
            "9112 6.1",
        ),
    ],
    "Chunks": [
        cut("0x before the size", b"0x2\r\nok\r\n0\r\n\r\n"),
        cut("plus sign", b"+2\r\nok\r\n0\r\n\r\n"),
        cut("space behind the size", b"2 \r\nok\r\n0\r\n\r\n"),
        cut("64 bits, and 2 more", b"10000000000000002\r\nok\r\n0\r\n\r\n"),
        cut("bare LF behind the size", b"2\nok\r\n0\r\n\r\n"),
        cut("nothing behind the data", b"2\r\nok0\r\n\r\n"),
        cut("more data than said", b"2\r\nokay\r\n0\r\n\r\n"),
        cut("bare LF in an extension", b"2;\n\r\nok\r\n0\r\n\r\n", "9112 7.1.1"),
        cut(
            "an extension of 5000 octets",
            b"2;" + b"x" * 5000 + b"\r\nok\r\n0\r\n\r\n",
            "9112 7.1.1",
        ),
        cut("a trailer with a space before the colon", b"0\r\nX : y\r\n\r\n"),
        passed(
            "a Content-Length and a Set-Cookie as trailers",
            answer(
                CHUNKED,
                content=b"2\r\nok\r\n0\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\n\r\n",
            ),
            "9110 6.5.1",
            lines=(b"TE: trailers", b"Connection: TE"),
            does="passed on without them",
        ),
    ],
    "No content, and some all the same": [
        Response(
            "behind 204",
            answer(b"Content-Length: 6", content=POISON, line=b"HTTP/1.1 204 No"),
            "9112 6.3",
            status=204,
            absent=(b"Content-Length",),
            does="passed on without it and its length; the connection is closed",
        ),
        Response(
            "behind 304",
            answer(b"Content-Length: 6", content=POISON, line=b"HTTP/1.1 304 Same"),
            "9112 6.3",
            status=304,
            does="passed on without it; the connection is closed",
        ),
        Response(
            "behind the answer to HEAD",
            answer(b"Content-Length: 6", content=b"poison"),
            "9112 6.3",
            status=200,
            method=b"HEAD",
            does="passed on without it; the connection is closed",
        ),
        Response(
            "chunks behind the answer to HEAD",
            answer(CHUNKED, content=b"2\r\nok\r\n0\r\n\r\n"),
            "9112 6.3",
            status=200,
            method=b"HEAD",
            does="passed on without it; the connection is closed",
        ),
    ],
    "Responses that nobody asked for": [
        passed(
            "behind the one that was",
            answer(b"Content-Length: 2", content=b"ok" + POISON),
            "9112 9.2",
            reused=False,
            does="never passed on; the connection is closed",
        ),
        passed(
            "octets behind it",
            answer(b"Content-Length: 2", content=b"ok\r\n"),
            "9112 9.2",
            reused=False,
            does="never passed on; the connection is closed",
        ),
        passed(
            "behind the last chunk",
            answer(CHUNKED, content=b"2\r\nok\r\n0\r\n\r\n" + POISON),
            "9112 9.2",
            reused=False,
            does="never passed on; the connection is closed",
        ),
        refused(
            "101, not asked for",
            answer(b"Upgrade: x", content=POISON, line=b"HTTP/1.1 101 S"),
            "9110 15.2.2",
        ),
        passed(
            "100, not asked for",
            b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
            "9110 15.2.1",
            does="the 100 is dropped",
        ),
        passed(
            "103, several",
            HINT * 5 + OK,
            "9110 15.2",
            interim=5,
        ),
        passed(
            "103 with a Content-Length",
            b"HTTP/1.1 103 E\r\nContent-Length: 6\r\n\r\n" + OK,
            "9110 8.6, 15.2",
            interim=1,
            does="passed on without it",
        ),
        Response(
            "103 without end",
            HINT.replace(b": a", b": " + b"a" * 60000) * 5 + OK,
            "9110 15.2",
            interim=-1,
            does="502 once they have as many octets as four heads may",
        ),
        refused("100 from HTTP/1.0", b"HTTP/1.0 100 C\r\n\r\n" + OK, "9110 15.2"),
        Response(
            "407 from an origin server",
            answer(
                b'Proxy-Authenticate: Basic realm="a"',
                b"Content-Length: 0",
                line=b"HTTP/1.1 407 P",
            ),
            "9110 15.5.8",
            absent=(b"Proxy-Authenticate",),
            reused=True,
            does="502; the connection is kept",
        ),
    ],
    "The status line": [
        head("HTTP/2", b"HTTP/2 200 OK"),
        head("HTTP/0.9", b"HTTP/0.9 200 OK"),
        head("ICY", b"ICY 200 OK"),
        head("two digits", b"HTTP/1.1 20 OK"),
        head("four digits", b"HTTP/1.1 2000 OK"),
        head("a leading zero", b"HTTP/1.1 099 OK"),
        head("plus sign", b"HTTP/1.1 +20 OK"),
        head("tab behind the version", b"HTTP/1.1\t200 OK"),
        head("NUL in the reason", b"HTTP/1.1 200 O\0K"),
        head("bare CR in the reason", b"HTTP/1.1 200 OK\rSet-Cookie: a=b", "9112 2.2"),
        head("bare LF in the reason", b"HTTP/1.1 200 OK\nSet-Cookie: a=b", "9112 2.2"),
        head("an empty line before it", b"\r\nHTTP/1.1 200 OK"),
        refused("no HTTP at all", b"<html>poison</html>\r\n\r\n", "9112 4"),
        passed(
            "no reason and no space before it",
            answer(b"Content-Length: 2", content=b"ok", line=b"HTTP/1.1 200"),
            "9112 4",
        ),
        passed(
            "HTTP/1.2",
            answer(b"Content-Length: 2", content=b"ok", line=b"HTTP/1.2 200 OK"),
            "9110 2.5",
            does="passed on as HTTP/1.1",
        ),
        Response(
            "status 999",
            answer(b"Content-Length: 2", content=b"ok", line=b"HTTP/1.1 999 No"),
            "9110 15",
            status=999,
            content=b"ok",
            reused=True,
        ),
    ],
    "Field lines": [
        field("bare LF in a value", b"X: y\nSet-Cookie: a=b", "9112 2.2"),
        field("bare CR in a value", b"X: y\rSet-Cookie: a=b", "9112 2.2"),
        field("NUL in a value", b"X: y\0", "9110 5.5"),
        field("space before the colon", b"X : y", "9112 5.1"),
        field("no colon", b"X"),
        field("space in the name", b"X Y: z"),
        field("space before the first", b" X: y"),
        field("a fold of nothing", b"X: y\r\n ", "9112 5.2"),
        passed(
            "folded",
            answer(b"X: y\r\n \t z", b"Content-Length: 2", content=b"ok"),
            "9112 5.2",
            fields=(b"X: y z",),
            does="passed on in one line",
        ),
        passed(
            "a field in the fold",
            answer(b"X: y\r\n Content-Length: 9", b"Content-Length: 2", content=b"ok"),
            "9112 5.2",
            fields=(b"X: y Content-Length: 9", b"Content-Length: 2"),
            does="passed on in one line",
        ),
        refused(
            "LF for CRLF",
            answer(b"Content-Length: 2", content=b"ok").replace(b"\r\n", b"\n"),
            "9112 2.2",
        ),
        refused(
            "101 fields",
            answer(*[b"X: y"] * 101, b"Content-Length: 2", content=b"ok"),
            "9110 5.4",
        ),
        refused("65536 octets", answer(b"X: " + b"y" * 65536), "9110 5.4"),
        passed(
            "Connection names a Set-Cookie",
            answer(
                b"Connection: Set-Cookie",
                b"Set-Cookie: a=b",
                b"Content-Length: 2",
                content=b"ok",
            ),
            "9110 7.6.1",
            absent=(b"Set-Cookie",),
            does="passed on without it",
        ),
    ],
    "The end of the connection": [
        passed(
            "where it ends the content",
            answer(content=b"ok"),
            "9112 6.3",
            reused=False,
            ends=True,
        ),
        Response(
            "before the content is complete",
            answer(b"Content-Length: 9", content=b"ok"),
            "9112 8",
            content=None,
            ends=True,
            does="cut short; the client can tell",
        ),
        Response(
            "within a chunk",
            answer(CHUNKED, content=b"9\r\nok"),
            "9112 8",
            content=None,
            ends=True,
            does="cut short; the client can tell",
        ),
        Response(
            "before the last chunk",
            answer(CHUNKED, content=b"2\r\nok\r\n"),
            "9112 8",
            content=None,
            ends=True,
            does="cut short; the client can tell",
        ),
        Response(
            "within the head",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
            "9112 8",
            method=b"POST",  # a GET may be sent again
            ends=True,
        ),
    ],
}
