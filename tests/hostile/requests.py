"""Requests made to be read differently by two servers."""

from __future__ import annotations

from tests.hostile.cases import OK, Asked, Request, asked

__all__ = ["REQUESTS"]

NEXT = b"GET http://SITE/next HTTP/1.1\r\nHost: SITE\r\n\r\n"
ASKED_NEXT = asked(b"GET /next")
EVIL = b"GET http://evil/ HTTP/1.1\r\nHost: evil\r\n\r\n"
EVIL_LENGTH = b"Content-Length: %d" % len(EVIL)
ABC = b"3\r\nabc\r\n0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


def post(
    *lines: bytes,
    content: bytes = b"",
    line: bytes = b"POST http://SITE/ HTTP/1.1",
    host: tuple[bytes, ...] = (b"Host: SITE",),
) -> bytes:
    """Write a request, and another that is the next for whoever reads it as we do."""
    return b"\r\n".join([line, *host, *lines, b"", content]) + NEXT


def get(*lines: bytes, content: bytes = b"", target: bytes = b"http://SITE/") -> bytes:
    return post(*lines, content=content, line=b"GET %b HTTP/1.1" % target)


def refused(
    name: str, sent: bytes, why: str, status: int = 400, does: str = ""
) -> Request:
    """Nothing reaches the next server, and nothing behind it is read."""
    return Request(name, sent, (status,), why, does=does, closes=True)


def answered(name: str, sent: bytes, why: str, status: int = 400) -> Request:
    """It is refused for what it asks, its framing is sound: the next one is read."""
    return Request(
        name, sent, (status, 200), why, (ASKED_NEXT,), f"{status}; the next is read"
    )


def passed(
    name: str, sent: bytes, why: str, *reached: Asked, does: str = ""
) -> Request:
    """It reaches the next server as *reached*, and so does the one behind it."""
    return Request(
        name, sent, (200,) * (len(reached) + 1), why, (*reached, ASKED_NEXT), does
    )


POSTED = asked(b"POST /", b"Content-Length: 3", content=b"abc")
POSTED_CHUNKS = asked(b"POST /", CHUNKED, content=b"abc")
NO_CONTENT = asked(b"GET /")


def coded(name: str, coding: bytes, why: str, status: int = 400) -> Request:
    """Make a row for a Transfer-Encoding in disguise."""
    return refused(
        name, post(b"Transfer-Encoding: " + coding, content=ABC), why, status
    )


def long(name: str, length: bytes, why: str = "9110 8.6, 9112 6.3") -> Request:
    """Make a row for an odd Content-Length."""
    return refused(name, post(b"Content-Length: " + length, content=b"abc"), why)


def chunk(name: str, content: bytes, why: str = "9112 7.1") -> Request:
    """Make a row for an odd chunk."""
    return refused(name, post(CHUNKED, content=content), why)


def trailer(name: str, line: bytes) -> Request:
    """Make a row for a trailer that may not be one."""
    return passed(
        name,
        post(CHUNKED, content=b"3\r\nabc\r\n0\r\nX: y\r\n%b\r\n\r\n" % line),
        "9110 6.5.1",
        asked(b"POST /", CHUNKED, content=b"abc", trailers=(b"X: y",)),
        does="passed on without that trailer",
    )


def field(name: str, line: bytes, why: str = "9112 5") -> Request:
    """Make a row for a malformed field line."""
    return refused(name, post(line), why)


def line(name: str, start: bytes, why: str = "9112 3", status: int = 400) -> Request:
    """Make a row for a malformed request line."""
    return refused(name, post(line=start), why, status)


def target(name: str, value: bytes, why: str, status: int = 400) -> Request:
    """Make a row for a request-target that cannot be served."""
    return answered(name, get(target=value), why, status)


REQUESTS: dict[str, list[Request]] = {
    "Two framings at once": [
        refused(
            "CL.TE: the length covers a part of the chunks",
            post(b"Content-Length: 6", CHUNKED, content=b"0\r\n\r\nG"),
            "9112 6.1, 6.3",
        ),
        refused(
            "TE.CL: the length ends within a chunk",
            post(b"Content-Length: 4", CHUNKED, content=b"5c\r\nGPOST / ..."),
            "9112 6.1, 6.3",
        ),
        refused(
            "both, the coding first",
            post(CHUNKED, b"Content-Length: 3", content=ABC),
            "9112 6.1, 6.3",
        ),
        refused(
            "both, and they agree",
            post(b"Content-Length: 13", CHUNKED, content=ABC),
            "9112 6.1, 6.3",
        ),
        refused(
            "both, the length being 0",
            post(b"Content-Length: 0", CHUNKED, content=ABC),
            "9112 6.1, 6.3",
        ),
        refused(
            "both, the length named in Connection",
            post(b"Connection: Content-Length", b"Content-Length: 3", CHUNKED),
            "9112 6.1, 6.3",
        ),
        refused(
            "both, the coding named in Connection",
            post(b"Connection: Transfer-Encoding", b"Content-Length: 3", CHUNKED),
            "9112 6.1, 6.3",
        ),
        refused(
            "Transfer-Encoding in HTTP/1.0",
            post(CHUNKED, content=ABC, line=b"POST http://SITE/ HTTP/1.0"),
            "9112 6.1",
        ),
        refused(
            "both, in HTTP/1.0",
            post(
                b"Content-Length: 3",
                CHUNKED,
                content=ABC,
                line=b"POST http://SITE/ HTTP/1.0",
            ),
            "9112 6.1",
        ),
    ],
    "Transfer-Encoding in disguise": [
        passed(
            "odd case",
            post(b"tRANSFER-eNCODING: CHUNKED", content=ABC),
            "9110 5.1, 9112 7",
            POSTED_CHUNKS,
        ),
        passed(
            "whitespace around the value",
            post(b"Transfer-Encoding:\t chunked \t", content=ABC),
            "9112 5.1",
            POSTED_CHUNKS,
        ),
        field("space before the colon", b"Transfer-Encoding : chunked", "9112 5.1"),
        field("tab before the colon", b"Transfer-Encoding\t: chunked", "9112 5.1"),
        field("space before the name", b" Transfer-Encoding: chunked", "9112 5.2"),
        field("on a folded line", b"Transfer-Encoding:\r\n chunked", "9112 5.2"),
        field("on a line folded by LF", b"Transfer-Encoding:\n chunked", "9112 2.2"),
        field("behind a bare CR", b"X: y\rTransfer-Encoding: chunked", "9112 2.2"),
        field("behind a bare LF", b"X: y\nTransfer-Encoding: chunked", "9112 2.2"),
        field("behind NUL", b"X: y\0Transfer-Encoding: chunked", "9110 5.5"),
        coded("vertical tab before it", b"\x0bchunked", "9110 5.5"),
        coded("vertical tab behind it", b"chunked\x0b", "9110 5.5"),
        coded("form feed before it", b"\x0cchunked", "9110 5.5"),
        coded("NUL before it", b"\0chunked", "9110 5.5"),
        coded("NUL behind it", b"chunked\0", "9110 5.5"),
        coded("bare CR before it", b"\rchunked", "9112 2.2"),
        coded("an octet FF before it", b"\xffchunked", "9112 6.3"),
        coded("a no-break space behind it", b"chunked\xa0", "9112 6.3"),
        coded("xchunked", b"xchunked", "9112 6.3"),
        coded("chunkedx", b"chunkedx", "9112 6.3"),
        coded("chu nked", b"chu nked", "9112 6.3"),
        coded("in quotes", b'"chunked"', "9112 6.3"),
        coded("in single quotes", b"'chunked'", "9112 6.3"),
        coded("with a parameter", b"chunked;q=1", "9112 7"),
        coded("with a semicolon", b"chunked;", "9112 7"),
        coded("empty", b"", "9112 6.3"),
        coded("chunked, identity", b"chunked, identity", "9112 6.3"),
        coded("identity, chunked", b"identity, chunked", "9112 6.1", 501),
        coded("identity", b"identity", "9112 6.3"),
        coded("chunked, chunked", b"chunked, chunked", "9112 6.1"),
        coded("chunked, gzip", b"chunked, gzip", "9112 6.3"),
        coded("gzip, chunked", b"gzip, chunked", "9112 6.1", 501),
        coded("a comma behind it", b"chunked,", "9112 6.3"),
        coded("a comma before it", b",chunked", "9112 6.3"),
        coded("twice", b"chunked\r\n" + CHUNKED, "9112 6.1"),
        coded(
            "chunked, then identity in a second line",
            b"chunked\r\nTransfer-Encoding: identity",
            "9112 6.3",
        ),
        coded(
            "identity, then chunked in a second line",
            b"identity\r\n" + CHUNKED,
            "9112 6.1",
            501,
        ),
        coded(
            "a second line of another case",
            b"chunked\r\nTRANSFER-ENCODING: x",
            "9112 6.3",
        ),
        refused(
            "empty, beside a Content-Length",
            post(b"Transfer-Encoding:", b"Content-Length: 3", content=b"abc"),
            "9112 6.3",
        ),
        refused(
            "xchunked, beside a Content-Length",
            post(b"Transfer-Encoding: xchunked", b"Content-Length: 3", content=b"abc"),
            "9112 6.3",
        ),
        passed(
            "Transfer_Encoding, beside a Content-Length",
            post(b"Transfer_Encoding: chunked", b"Content-Length: 3", content=b"abc"),
            "9110 5.1",
            asked(
                b"POST /",
                b"Transfer_Encoding: chunked",
                b"Content-Length: 3",
                content=b"abc",
            ),
            does="another field: passed on, the content as long as said",
        ),
        passed(
            "as a Content-Encoding",
            post(b"Content-Encoding: chunked", b"Content-Length: 3", content=b"abc"),
            "9110 8.4",
            asked(
                b"POST /",
                b"Content-Encoding: chunked",
                b"Content-Length: 3",
                content=b"abc",
            ),
            does="no framing: passed on, the content as long as said",
        ),
        passed(
            "as a TE",
            get(b"TE: chunked"),
            "9110 10.1.4",
            NO_CONTENT,
            does="passed on without TE",
        ),
    ],
    "Content-Length": [
        passed(
            "leading zero",
            post(b"Content-Length: 03", content=b"abc"),
            "9110 8.6",
            POSTED,
            does="passed on as 3",
        ),
        passed(
            "whitespace around the value",
            post(b"Content-Length:\t 3 \t", content=b"abc"),
            "9112 5.1",
            POSTED,
        ),
        long("twice, the same", b"3\r\nContent-Length: 3"),
        long("twice, different", b"3\r\nContent-Length: 5"),
        long("twice, in odd case", b"5\r\ncontent-length: 3"),
        long("a list of the same", b"3, 3"),
        long("a list", b"3, 5"),
        long("a comma behind it", b"3,"),
        long("plus sign", b"+3"),
        long("minus sign", b"-3"),
        long("minus zero", b"-0"),
        long("hexadecimal", b"0x3"),
        long("hexadecimal digit", b"3a"),
        long("two numbers", b"3 3"),
        long("tab between digits", b"1\t3"),
        long("underscore", b"1_3"),
        long("decimal point", b"3.0"),
        long("exponent", b"3e0"),
        long("in quotes", b'"3"'),
        long("empty", b""),
        long("NUL behind it", b"3\0"),
        long("vertical tab before it", b"\x0b3"),
        long("Arabic digit", "٣".encode()),
        long("superscript digit", b"\xb3"),
        long("64 bits, and 3 more", b"18446744073709551619"),
        long("32 zeros before it", b"0" * 32 + b"3"),
        long("2 to the 63rd", b"9223372036854775808"),
        field("space before the colon", b"Content-Length : 3", "9112 5.1"),
        field("on a folded line", b"Content-Length:\r\n 3", "9112 5.2"),
        passed(
            "CL.0: a request as the content of a GET",
            get(EVIL_LENGTH, content=EVIL),
            "9110 9.3.1",
            asked(
                b"GET /",
                EVIL_LENGTH,
                content=EVIL,
            ),
            does="passed on as content",
        ),
        passed(
            "0.CL: no content, and a request behind it",
            get(b"Content-Length: 0"),
            "9112 9.3.2",
            NO_CONTENT,
            does="two requests, passed on one after another",
        ),
        passed(
            "a request as the content of a HEAD-like method",
            post(
                EVIL_LENGTH,
                content=EVIL,
                line=b"OPTIONS http://SITE/ HTTP/1.1",
            ),
            "9110 9.3.7",
            asked(
                b"OPTIONS /",
                EVIL_LENGTH,
                content=EVIL,
            ),
            does="passed on as content",
        ),
        passed(
            "named in Connection",
            post(b"Connection: Content-Length", b"Content-Length: 3", content=b"abc"),
            "9110 7.6.1",
            POSTED,
            does="passed on with the length it had",
        ),
        passed(
            "Content_Length",
            get(b"Content_Length: 100"),
            "9110 5.1",
            asked(b"GET /", b"Content_Length: 100"),
            does="another field: no content",
        ),
        Request(
            "more than ever comes",
            post(b"Content-Length: 9223372036854775807", content=b"abc"),
            (),
            "9112 6.3",
            does="content, for as long as the client goes on",
        ),
    ],
    "Chunks": [
        passed(
            "leading zeros, 16 digits",
            post(CHUNKED, content=b"0000000000000003\r\nabc\r\n00\r\n\r\n"),
            "9112 7.1",
            POSTED_CHUNKS,
        ),
        passed(
            "extensions",
            post(CHUNKED, content=b'3;a;b="c; d"\r\nabc\r\n0;e\r\n\r\n'),
            "9112 7.1.1",
            POSTED_CHUNKS,
            does="passed on without them",
        ),
        passed(
            "an empty extension",
            post(CHUNKED, content=b"3;\r\nabc\r\n0\r\n\r\n"),
            "9112 7.1.1",
            POSTED_CHUNKS,
            does="passed on without it",
        ),
        chunk("leading zeros, 17 digits", b"00000000000000003\r\nabc\r\n0\r\n\r\n"),
        chunk("64 bits, and 3 more", b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
        chunk("0x before the size", b"0x3\r\nabc\r\n0\r\n\r\n"),
        chunk("plus sign", b"+3\r\nabc\r\n0\r\n\r\n"),
        chunk("minus sign", b"-3\r\nabc\r\n0\r\n\r\n"),
        chunk("minus zero", b"-0\r\n\r\n"),
        chunk("underscore", b"0_3\r\nabc\r\n0\r\n\r\n"),
        chunk("space before the size", b" 3\r\nabc\r\n0\r\n\r\n"),
        chunk("space behind the size", b"3 \r\nabc\r\n0\r\n\r\n"),
        chunk("tab behind the size", b"3\t\r\nabc\r\n0\r\n\r\n"),
        chunk("space before an extension", b"3 ;a\r\nabc\r\n0\r\n\r\n"),
        chunk("garbage behind the size", b"3x\r\nabc\r\n0\r\n\r\n"),
        chunk("a comma behind the size", b"3,4\r\nabc\r\n0\r\n\r\n"),
        chunk("NUL behind the size", b"3\0\r\nabc\r\n0\r\n\r\n"),
        chunk("vertical tab behind the size", b"3\x0b\r\nabc\r\n0\r\n\r\n"),
        chunk("no size", b"\r\nabc\r\n0\r\n\r\n"),
        chunk("an empty line before the size", b"\r\n3\r\nabc\r\n0\r\n\r\n"),
        chunk("bare LF behind the size", b"3\nabc\r\n0\r\n\r\n"),
        chunk("bare CR behind the size", b"3\rabc\r\n0\r\n\r\n"),
        chunk("CR CR LF behind the size", b"3\r\r\nabc\r\n0\r\n\r\n"),
        chunk("bare LF behind the data", b"3\r\nabc\n0\r\n\r\n"),
        chunk("bare CR behind the data", b"3\r\nabc\r0\r\n\r\n"),
        chunk("nothing behind the data", b"3\r\nabc0\r\n\r\n"),
        chunk("two octets that are no CRLF behind it", b"3\r\nabcxx0\r\n\r\n"),
        chunk("more data than said", b"3\r\nabcdef\r\n0\r\n\r\n"),
        chunk("bare LF in an extension", b"3;\n\r\nabc\r\n0\r\n\r\n", "9112 7.1.1"),
        chunk("bare CR in an extension", b"3;\r\r\nabc\r\n0\r\n\r\n", "9112 7.1.1"),
        chunk("NUL in an extension", b"3;a=\0\r\nabc\r\n0\r\n\r\n", "9112 7.1.1"),
        chunk(
            "CRLF in a quoted extension",
            b'3;a="\r\n"\r\nabc\r\n0\r\n\r\n',
            "9112 7.1.1",
        ),
        chunk(
            "bare LF in a quoted extension",
            b'3;a="\n"\r\nabc\r\n0\r\n\r\n',
            "9112 7.1.1",
        ),
        chunk(
            "an extension of 5000 octets",
            b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
            "9112 7.1.1",
        ),
        chunk("bare LF behind the last chunk", b"3\r\nabc\r\n0\n\r\n"),
        chunk("bare LF at the end", b"3\r\nabc\r\n0\r\n\n"),
        chunk("no end, but a request", b"3\r\nabc\r\n0\r\n"),
        passed(
            "a request in a chunk",
            post(CHUNKED, content=b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVIL), EVIL)),
            "9112 7.1",
            asked(b"POST /", CHUNKED, content=EVIL),
            does="passed on as content",
        ),
        passed(
            "named in Connection",
            post(b"Connection: Transfer-Encoding", CHUNKED, content=ABC),
            "9110 7.6.1",
            POSTED_CHUNKS,
            does="passed on, in chunks of ours",
        ),
        Request(
            "32 bits, and 3 more",
            post(CHUNKED, content=b"100000003\r\nabc\r\n0\r\n\r\n"),
            (),
            "9112 7.1",
            does="content, for as long as the client goes on",
        ),
        Request(
            "64 bits, all set",
            post(CHUNKED, content=b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
            (),
            "9112 7.1",
            does="content, for as long as the client goes on",
        ),
    ],
    "Trailers": [
        passed(
            "an honest one",
            post(CHUNKED, content=b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"),
            "9112 7.1.2",
            asked(b"POST /", CHUNKED, content=b"abc", trailers=(b"X: y",)),
        ),
        trailer("Content-Length", b"Content-Length: 100"),
        trailer("Transfer-Encoding", b"Transfer-Encoding: chunked"),
        trailer("Host", b"Host: evil"),
        trailer("Authorization", b"Authorization: Basic eDp5"),
        trailer("Proxy-Authorization", b"Proxy-Authorization: Basic eDp5"),
        trailer("Connection", b"Connection: close"),
        trailer("Cookie", b"Cookie: a=b"),
        trailer("Content-Length in odd case", b"cONTENT-lENGTH: 100"),
        chunk("space before the colon", b"0\r\nX : y\r\n\r\n", "9112 5.1"),
        chunk("folded", b"0\r\nX: y\r\n z\r\n\r\n", "9112 5.2"),
        chunk("bare LF in one", b"0\r\nX: y\nHost: evil\r\n\r\n", "9112 2.2"),
        chunk("NUL in one", b"0\r\nX: \0\r\n\r\n", "9110 5.5"),
        refused(
            "101 of them",
            post(CHUNKED, content=b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n"),
            "9110 5.4",
            431,
        ),
    ],
    "Line ends, whitespace and control octets": [
        refused("LF for CRLF", post().replace(b"\r\n", b"\n"), "9112 2.2"),
        refused(
            "CR for CRLF",
            post().replace(b"\r\n", b"\r"),
            "9112 2.2",
            408,
            "no line at all: 408 in the end, and the connection is closed",
        ),
        refused(
            "LF LF as the end of the head",
            b"GET http://SITE/ HTTP/1.1\r\nHost: SITE\n\n" + NEXT,
            "9112 2.2",
        ),
        refused(
            "LF CRLF as the end of the head",
            b"GET http://SITE/ HTTP/1.1\r\nHost: SITE\n\r\n" + NEXT,
            "9112 2.2",
        ),
        refused(
            "CRLF LF as the end of the head",
            b"GET http://SITE/ HTTP/1.1\r\nHost: SITE\r\n\n" + NEXT,
            "9112 2.2",
        ),
        refused(
            "CR CRLF as the end of a line",
            b"GET http://SITE/ HTTP/1.1\r\nHost: SITE\r\r\n\r\n" + NEXT,
            "9112 2.2",
        ),
        refused("LF before the request", b"\n" + post(), "9112 2.2"),
        passed(
            "an empty line before the request", b"\r\n" + get(), "9112 2.2", NO_CONTENT
        ),
        refused("nine of them", b"\r\n" * 9 + post(), "9112 2.2"),
        refused("space before the request", b" " + post(), "9112 3"),
        refused("NUL before the request", b"\0" + post(), "9112 3"),
        refused("a byte order mark before it", b"\xef\xbb\xbf" + post(), "9112 3"),
        line("tabs in the request line", b"GET\thttp://SITE/\tHTTP/1.1"),
        line("two spaces", b"GET  http://SITE/ HTTP/1.1"),
        line("two spaces before the version", b"GET http://SITE/  HTTP/1.1"),
        line("space at its end", b"GET http://SITE/ HTTP/1.1 "),
        line("vertical tab in it", b"GET\x0bhttp://SITE/ HTTP/1.1"),
        line("a word behind the version", b"GET http://SITE/ HTTP/1.1 x"),
        line("space in the request-target", b"GET http://SITE/a b HTTP/1.1"),
        line(
            "a request in the request-target",
            b"GET http://SITE/ HTTP/1.1\rX: y\rGET http://SITE/ HTTP/1.1",
            "9112 2.2",
        ),
        line("NUL in the request-target", b"GET http://SITE/\0 HTTP/1.1"),
        line("an octet FF in the request-target", b"GET http://SITE/\xff HTTP/1.1"),
        line("a method that is no token", b"G(ET http://SITE/ HTTP/1.1"),
        line("no method", b" http://SITE/ HTTP/1.1"),
        passed(
            "an unknown method",
            post(line=b"SMUGGLE http://SITE/ HTTP/1.1"),
            "9110 9.1",
            asked(b"SMUGGLE /"),
        ),
        passed(
            "a method in lower case",
            post(line=b"get http://SITE/ HTTP/1.1"),
            "9110 9.1",
            asked(b"get /"),
        ),
    ],
    "Field lines": [
        field("folded", b"X: y\r\n z", "9112 5.2"),
        field("folded by a tab", b"X: y\r\n\tz", "9112 5.2"),
        field("a field in the fold", b"X: y\r\n Content-Length: 3", "9112 5.2"),
        field("a fold of nothing", b"X: y\r\n ", "9112 5.2"),
        refused(
            "whitespace before the first",
            b"GET http://SITE/ HTTP/1.1\r\n Host: SITE\r\n\r\n" + NEXT,
            "9112 2.2",
        ),
        field("space before the colon", b"X : y", "9112 5.1"),
        field("empty name", b": y"),
        field("no colon", b"X"),
        field("space in the name", b"X Y: z"),
        field("NUL in the name", b"X\0: y"),
        field("an octet A0 in the name", b"X\xa0: y"),
        field("a parenthesis in the name", b"X(: y"),
        field("bare CR in the value", b"X: y\rz", "9110 5.5"),
        field("bare LF in the value", b"X: y\nz", "9110 5.5"),
        field("NUL in the value", b"X: y\0z", "9110 5.5"),
        field("another control octet in the value", b"X: y\x01z", "9110 5.5"),
        field("DEL in the value", b"X: y\x7fz", "9110 5.5"),
        passed(
            "octets above 7F in the value",
            get(b"X: \x80\xff"),
            "9110 5.5",
            asked(b"GET /", b"X: \x80\xff"),
        ),
        passed(
            "no value",
            get(b"X:", b"Y: \t"),
            "9110 5.5",
            asked(b"GET /", b"X: ", b"Y: "),
        ),
        refused("101 fields", post(*[b"X: y"] * 100), "9110 5.4", 431),
        refused("65536 octets", post(b"X: " + b"y" * 65536), "9110 5.4", 431),
        refused(
            "17000 octets of request-target",
            get(target=b"http://SITE/" + b"y" * 17000),
            "9112 3",
            414,
        ),
    ],
    "Request-target and Host": [
        passed(
            "Host names another site",
            post(line=b"GET http://SITE/ HTTP/1.1", host=(b"Host: evil",)),
            "9112 3.2.2",
            NO_CONTENT,
            does="passed on with the target's own",
        ),
        passed(
            "Host is empty",
            post(line=b"GET http://SITE/ HTTP/1.1", host=(b"Host:",)),
            "9112 3.2.2",
            NO_CONTENT,
            does="passed on with the target's own",
        ),
        passed(
            "Host is named in Connection",
            get(b"Connection: Host"),
            "9110 7.6.1",
            NO_CONTENT,
            does="passed on with the target's own",
        ),
        answered(
            "no Host", post(host=(), line=b"GET http://SITE/ HTTP/1.1"), "9112 3.2"
        ),
        answered("two Hosts", get(b"Host: evil"), "9112 3.2"),
        answered("two Hosts, the same", get(b"Host: SITE"), "9112 3.2"),
        answered("a second Host in odd case", get(b"hOST: evil"), "9112 3.2"),
        field("Host behind a space", b" Host: evil", "9112 5.2"),
        field("Host with a space behind", b"Host : evil", "9112 5.1"),
        *(
            answered(
                f"Host: {value.decode()}",
                post(line=b"GET http://SITE/ HTTP/1.1", host=(b"Host: " + value,)),
                "9112 3.2",
            )
            for value in (b"a, b", b"a b", b"u@evil", b"a/b", b"a:b", b"a:80:80")
        ),
        target("origin-form", b"/", "9112 3.2.2"),
        target("origin-form with two slashes", b"//SITE/", "9112 3.2.2"),
        target("asterisk-form of GET", b"*", "9112 3.2.4"),
        target("authority-form of GET", b"SITE", "9112 3.2.3"),
        target("userinfo", b"http://u:p@SITE/", "9110 4.2.4"),
        target("another host as userinfo", b"http://SITE@evil/", "9110 4.2.4"),
        target("a backslash in the authority", b"http://SITE\\@evil/", "9110 4.2.1"),
        target("a percent sign in the authority", b"http://%53ITE/", "9110 4.2.1"),
        target("no authority", b"http:///path", "9110 4.2.1"),
        target("one slash", b"http:/SITE/", "9112 3.2.2"),
        target("a fragment", b"http://SITE/#x", "9112 3.2"),
        target("port 0", b"http://evil:0/", "9110 4.2.1"),
        target("port 65616", b"http://evil:65616/", "9110 4.2.1"),
        target("a port of letters", b"http://evil:a/", "9110 4.2.1"),
        target("javascript:", b"javascript:alert(1)", "9112 3.2.2"),
        target("file:", b"file:///etc/passwd", "9112 3.2.2"),
        target("ftp:", b"ftp://SITE/", "9110 15.6.2", 501),
        target("gopher:", b"gopher://SITE/", "9110 15.6.2", 501),
        target("ws:", b"ws://SITE/", "9110 15.6.2", 501),
        passed(
            "a scheme in capitals",
            get(target=b"HTTP://SITE/"),
            "9110 4.2.3",
            NO_CONTENT,
        ),
        passed("no path", get(target=b"http://SITE"), "9110 4.2.3", NO_CONTENT),
        passed(
            "no path, but a query",
            get(target=b"http://SITE?x"),
            "9112 3.2.1",
            asked(b"GET /?x"),
        ),
        passed(
            "CR LF in percent-encoding",
            get(target=b"http://SITE/%0d%0aX:%20y"),
            "9110 4.2.3",
            asked(b"GET /%0d%0aX:%20y"),
            does="passed on as it is",
        ),
        passed(
            "another authority as the path",
            get(target=b"http://SITE//evil/"),
            "9112 3.2.1",
            asked(b"GET //evil/"),
            does="passed on as it is",
        ),
        passed(
            "another site in X-Forwarded-Host",
            get(b"X-Forwarded-Host: evil"),
            "9110 7.6",
            asked(b"GET /", b"X-Forwarded-Host: evil"),
            does="passed on as it is",
        ),
    ],
    "Hop-by-hop fields": [
        passed(
            "Connection names a Cookie",
            get(b"Connection: Cookie", b"Cookie: a"),
            "9110 7.6.1",
            NO_CONTENT,
            does="passed on without it",
        ),
        passed(
            "Connection names what is not there",
            get(b"Connection: X, , Y"),
            "9110 7.6.1",
            NO_CONTENT,
        ),
        passed(
            "Connection names our Via",
            get(b"Connection: Via"),
            "9110 7.6.1, 7.6.3",
            NO_CONTENT,
            does="passed on, with a Via of ours",
        ),
        passed(
            "Keep-Alive, Proxy-Connection, Trailer",
            get(b"Keep-Alive: 5", b"Proxy-Connection: keep-alive", b"Trailer: X"),
            "9110 7.6.1",
            NO_CONTENT,
            does="passed on without them",
        ),
        passed(
            "Proxy-Authorization",
            get(b"Proxy-Authorization: Basic eDp5"),
            "9110 11.7.2",
            NO_CONTENT,
            does="passed on without it",
        ),
        passed(
            "HTTP2-Settings and Upgrade: h2c",
            get(
                b"Connection: Upgrade, HTTP2-Settings",
                b"Upgrade: h2c",
                b"HTTP2-Settings: AAMAAABk",
            ),
            "9110 7.8",
            NO_CONTENT,
            does="passed on without them",
        ),
    ],
    "Expect": [
        passed(
            "a request behind the content, at once",
            post(b"Expect: 100-continue", b"Content-Length: 3", content=b"abc"),
            "9110 10.1.1",
            asked(
                b"POST /",
                b"Content-Length: 3",
                b"Expect: 100-continue",
                content=b"abc",
            ),
            does="passed on one after another",
        ),
        passed(
            "without content",
            get(b"Expect: 100-continue"),
            "9110 10.1.1",
            NO_CONTENT,
            does="passed on without it",
        ),
        answered("something else", get(b"Expect: x"), "9110 10.1.1", 417),
        answered("y 100-continue", get(b"Expect: y 100-continue"), "9110 10.1.1", 417),
        answered(
            "twice", get(b"Expect: 100-continue, 100-continue"), "9110 10.1.1", 417
        ),
        answered("in quotes", get(b'Expect: "100-continue"'), "9110 10.1.1", 417),
        field("vertical tab behind it", b"Expect: 100-continue\x0b", "9110 5.5"),
        field("folded", b"Expect:\r\n 100-continue", "9112 5.2"),
        Request(
            "from HTTP/1.0",
            post(
                b"Expect: 100-continue",
                b"Content-Length: 3",
                content=b"abc",
                line=b"POST http://SITE/ HTTP/1.0",
            ),
            (200,),
            "9110 10.1.1",
            (POSTED,),
            does="passed on without it; nothing behind it is read",
            closes=True,
        ),
    ],
    "Upgrade": [
        Request(
            "offered and declined, a request behind it",
            get(b"Connection: Upgrade", b"Upgrade: websocket"),
            (426, 200),
            "9110 7.8",
            (
                asked(b"GET /", b"Upgrade: websocket", b"Connection: Upgrade"),
                ASKED_NEXT,
            ),
            does="passed on, the other one once the first is answered",
            answers=(
                b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\n"
                b"Content-Length: 0\r\n\r\n",
            ),
        ),
        passed(
            "offered with content",
            post(
                b"Connection: Upgrade",
                b"Upgrade: websocket",
                b"Content-Length: 3",
                content=b"abc",
            ),
            "9110 7.8",
            POSTED,
            does="passed on without the offer",
        ),
        passed(
            "not named in Connection",
            get(b"Upgrade: websocket"),
            "9110 7.8",
            NO_CONTENT,
            does="passed on without it",
        ),
        Request(
            "agreed to, octets behind it",
            get(b"Connection: Upgrade", b"Upgrade: websocket"),
            (101,),
            "9110 7.8, 15.2.2",
            (asked(b"GET /", b"Upgrade: websocket", b"Connection: Upgrade"),),
            does="the octets belong to the other protocol",
            answers=(
                b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            ),
            raw=NEXT,
        ),
    ],
    "CONNECT": [
        refused(
            "with a Content-Length",
            post(b"Content-Length: 3", content=b"abc", line=b"CONNECT SITE HTTP/1.1"),
            "9110 9.3.6",
        ),
        refused(
            "with chunks",
            post(CHUNKED, content=ABC, line=b"CONNECT SITE HTTP/1.1"),
            "9110 9.3.6",
        ),
        *(
            Request(
                f"CONNECT {value.decode()}",
                post(line=b"CONNECT %b HTTP/1.1" % value),
                (400,),
                "9110 9.3.6",
                closes=True,
            )
            for value in (
                b"evil",
                b"evil:",
                b"evil:0",
                b"evil:65616",
                b"u@evil:443",
                b"http://SITE/",
                b"/",
                b"*",
                b"evil:443/x",
                b"[::g]:443",
            )
        ),
        Request(
            "refused by a proxy above, a request behind it",
            post(line=b"CONNECT SITE HTTP/1.1"),
            (403,),
            "9110 9.3.6",
            (asked(b"CONNECT SITE"),),
            does="what is behind it is neither tunnelled nor read",
            closes=True,
            answers=(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",),
            above=True,
        ),
        Request(
            "opened by a proxy above, a request behind it",
            post(line=b"CONNECT SITE HTTP/1.1"),
            (200,),
            "9110 9.3.6",
            (asked(b"CONNECT SITE"),),
            does="what is behind it goes into the tunnel",
            answers=(b"HTTP/1.1 200 OK\r\n\r\n",),
            above=True,
            raw=NEXT,
        ),
    ],
    "Versions": [
        refused(
            "the preface of HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NEXT,
            "9112 2.3",
            505,
        ),
        line("HTTP/2.0", b"GET http://SITE/ HTTP/2.0", "9110 15.6.6", 505),
        line("HTTP/0.9", b"GET http://SITE/ HTTP/0.9", "9110 15.6.6", 505),
        refused("no version", b"GET http://SITE/\r\n" + NEXT, "9112 2.3"),
        line("HTTP/1", b"GET http://SITE/ HTTP/1", "9112 2.3"),
        line("HTTP/1.10", b"GET http://SITE/ HTTP/1.10", "9112 2.3"),
        line("HTTP/01.1", b"GET http://SITE/ HTTP/01.1", "9112 2.3"),
        line("http/1.1", b"GET http://SITE/ http/1.1", "9112 2.3"),
        line("HTTPS/1.1", b"GET http://SITE/ HTTPS/1.1", "9112 2.3"),
        line("HTTP/1,1", b"GET http://SITE/ HTTP/1,1", "9112 2.3"),
        passed(
            "HTTP/1.2",
            post(line=b"GET http://SITE/ HTTP/1.2"),
            "9110 2.5",
            NO_CONTENT,
            does="passed on as HTTP/1.1",
        ),
        Request(
            "HTTP/1.0, a request behind it",
            post(line=b"GET http://SITE/ HTTP/1.0"),
            (200,),
            "9112 9.3, C.2.2",
            (NO_CONTENT,),
            does="passed on as HTTP/1.1; nothing behind it is read",
            closes=True,
        ),
        refused("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "9112 3"),
    ],
    "Answered before it was complete": [
        Request(
            "a request as the rest of the content",
            b"POST http://SITE/ HTTP/1.1\r\nHost: SITE\r\nContent-Length: 1000\r\n\r\n"
            + NEXT,
            (200,),
            "9112 9.3, 9.6",
            does="the rest is read away, and the connection is closed",
            closes=True,
            answers=(OK,),
            early=True,
        ),
        Request(
            "a request within a chunk that is not complete",
            b"POST http://SITE/ HTTP/1.1\r\nHost: SITE\r\n%b\r\n\r\n3e8\r\n%b"
            % (CHUNKED, NEXT),
            (413,),
            "9112 9.3, 9.6",
            does="the rest is read away, and the connection is closed",
            closes=True,
            answers=(b"HTTP/1.1 413 Big\r\nContent-Length: 0\r\n\r\n",),
            early=True,
        ),
    ],
}
