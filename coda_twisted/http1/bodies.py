"""
How content is framed (RFC 9112 6 and 7): decided, decoded, encoded.

Where two readers could disagree about the end of a message, it is an error: that
disagreement is what request smuggling and response splitting live on.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Protocol

from coda_twisted.errors import RemoteProtocolError
from coda_twisted.http1.fields import MAX_FIELDS, Fields, parse_fields
from coda_twisted.http1.heads import (
    MAX_HEAD,
    BlockCollector,
    RequestHead,
    ResponseHead,
)

__all__ = [
    "MAX_CHUNK_LINE",
    "NO_TRAILERS",
    "ChunkedDecoder",
    "CloseDecoder",
    "Decoder",
    "Framing",
    "LengthDecoder",
    "decoder_for",
    "encode_chunk",
    "last_chunk",
    "request_framing",
    "response_framing",
]

MAX_CHUNK_LINE = 4096
"""Octets of a chunk's first line, extensions included; Go's limit is the same."""

# Fields that would change how a message is framed, routed, authenticated or
# processed if somebody merged a trailer section into them (RFC 9110 6.5.1).
_NOT_IN_TRAILERS = (
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"keep-alive",
    b"max-forwards",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"www-authenticate",
)

NO_TRAILERS = Fields()
"""What most messages have; it is shared, and not to be changed."""

_FRAMING = frozenset((b"content-length", b"transfer-encoding"))

# Nineteen digits hold 2**63 - 1: what others can count to.
_LENGTH = re.compile(rb"[0-9]{1,19}")
_MAX_LENGTH = 2**63 - 1


class Framing(Enum):
    """How the end of a message's content is known."""

    NONE = auto()
    """There is no content."""
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    """The content ends with the connection; only responses' does."""


def request_framing(head: RequestHead) -> tuple[Framing, int]:
    """
    Decide how a request's content is framed (RFC 9112 6.1 to 6.3).

    :returns: The framing, and the length where that is what frames it.
    :raises RemoteProtocolError: It is ambiguous or malformed (400), or uses a
        transfer coding besides chunked (501).  The connection must be closed.
    """
    if head.fields.lack(_FRAMING):
        return Framing.NONE, 0
    length = _content_length(head.fields)
    codings = head.fields.get_all(b"Transfer-Encoding")
    if codings:
        if length is not None:
            raise RemoteProtocolError("both Content-Length and Transfer-Encoding")
        _require_chunked(codings, head.version)
    if head.method == b"CONNECT" and (codings or length):
        # RFC 9110 9.3.6: "does not have content"; what came as content here
        # would be tunnelled by whoever reads the sentence so.
        raise RemoteProtocolError("CONNECT has no content")
    if length is None:
        return Framing.CHUNKED, 0
    return Framing.LENGTH, length


def response_framing(head: ResponseHead, method: bytes) -> tuple[Framing, int]:
    """
    Decide how a response's content is framed (RFC 9112 6.3).

    :param method: Of the request that it answers.
    :returns: The framing, and the length where that is what frames it.  After 101,
        and after 2xx to CONNECT, what follows is no content.
    :raises RemoteProtocolError: It cannot be known for certain (502).
    """
    status = head.status
    try:
        length = _content_length(head.fields)
        if method == b"CONNECT" and 200 <= status < 300:
            return Framing.NONE, 0
        codings = head.fields.get_all(b"Transfer-Encoding")
        if status < 200 or status in (204, 304) or method == b"HEAD":
            if codings:  # malformed ones are refused even so, as lengths are
                _require_chunked(codings, (1, 1))
            return Framing.NONE, 0
        if codings:
            _require_chunked(codings, head.version)
            return Framing.CHUNKED, 0
    except RemoteProtocolError as error:
        error.status_hint = 502
        raise
    if length is None:
        return Framing.UNTIL_CLOSE, 0
    return Framing.LENGTH, length


def _content_length(fields: Fields) -> int | None:
    values = fields.get_all(b"Content-Length")
    if not values:
        return None
    if len(values) > 1:
        raise RemoteProtocolError("more than one Content-Length")
    if not _LENGTH.fullmatch(values[0]) or int(values[0]) > _MAX_LENGTH:
        raise RemoteProtocolError("Content-Length is not a number of octets")
    return int(values[0])


def _require_chunked(codings: list[bytes], version: tuple[int, int]) -> None:
    """Accept ``chunked``, once, and nothing that merely resembles it."""
    if version < (1, 1):
        # RFC 9112 6.1: "MUST treat the message as if the framing is faulty".
        raise RemoteProtocolError("Transfer-Encoding in a message of HTTP/1.0")
    names = [name.strip(b" \t").lower() for name in b",".join(codings).split(b",")]
    if names[-1] != b"chunked" or b"" in names:
        raise RemoteProtocolError("Transfer-Encoding does not end in chunked")
    if names.count(b"chunked") > 1:
        raise RemoteProtocolError("Transfer-Encoding names chunked more than once")
    if len(names) > 1:
        raise RemoteProtocolError("a Transfer-Encoding that is not known here", 501)


def encode_chunk(data: bytes) -> bytes:
    """
    Write one chunk (RFC 9112 7.1).

    :raises ValueError: There is no data: such a chunk would end the content.
    """
    if not data:
        raise ValueError("an empty chunk ends the content; use last_chunk")
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Fields | None = None) -> bytes:
    """Write what ends a chunked message (RFC 9112 7.1.2)."""
    return b"0\r\n%b\r\n" % (b"" if trailers is None else trailers.serialise())


class Decoder(Protocol):
    """Finds the end of a message's content; no two messages share one."""

    trailers: Fields

    def feed(self, data: bytes, start: int) -> tuple[bytes, int]:
        """
        Read on.

        :param data: A segment, to be read from *start*.
        :returns: The content in it, and where in *data* the message ends; -1 if it
            goes on.
        """
        ...


class LengthDecoder:
    """
    Content of known length (RFC 9112 6.2).

    :param length: In octets, at least one.
    :ivar left: Octets that have not come yet.
    """

    __slots__ = ("left",)

    trailers = NO_TRAILERS

    def __init__(self, length: int) -> None:
        self.left = length

    def feed(self, data: bytes, start: int) -> tuple[bytes, int]:
        """Read on; see :class:`Decoder`.  Whole segments are not copied."""
        end = start + self.left
        if end > len(data):
            self.left = end - len(data)
            return data[start:], -1
        return data[start:end], end


class CloseDecoder:
    """Content that the end of the connection ends (RFC 9112 6.3, rule 8)."""

    __slots__ = ()

    trailers = NO_TRAILERS

    def feed(self, data: bytes, start: int) -> tuple[bytes, int]:
        """Read on; see :class:`Decoder`.  Whole segments are not copied."""
        return data[start:], -1


# Extensions are dropped, so any octet of a quoted-string will do: no CR, LF or other
# control.  Whitespace before them, or instead of them, has been used to hide a size
# from one reader of two; only servers of the 1990s sent it.
_EXTENSIONS = rb"(?:;[\t -~\x80-\xff]*)?"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})" + _EXTENSIONS + rb"\r\n")
_NEXT_SIZE_LINE = re.compile(rb"\r\n" + _SIZE_LINE.pattern)


class _At(Enum):
    """What a chunked decoder expects next."""

    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()


class ChunkedDecoder:
    """
    Content in chunks (RFC 9112 7.1).

    Extensions are dropped.  Trailers are kept apart, and without those that may
    not be sent as trailers.  All content of one segment comes as one piece.

    :param folds: Whether folded trailer lines are unfolded, as in responses.
    """

    __slots__ = (
        "_at",
        "_block",
        "_folds",
        "_held",
        "_left",
        "_max_fields",
        "trailers",
    )

    def __init__(
        self,
        *,
        max_trailers: int = MAX_HEAD,
        max_fields: int = MAX_FIELDS,
        folds: bool = False,
    ) -> None:
        self.trailers = NO_TRAILERS
        self._at = _At.SIZE
        self._left = 0
        self._held = bytearray()  # an incomplete line between two chunks
        self._block = BlockCollector(max_trailers, _oversized_trailers)
        self._max_fields = max_fields
        self._folds = folds

    def feed(self, data: bytes, start: int) -> tuple[bytes, int]:
        """
        Read on; see :class:`Decoder`.

        :raises RemoteProtocolError: A chunk or a trailer is malformed (400), or a
            limit is passed (400, 431).
        """
        pieces: list[bytes] = []
        position, size = start, len(data)
        while position < size:
            if self._at is _At.DATA:
                end = position + self._left
                pieces.append(data[position:end])
                self._left = max(end - size, 0)
                if self._left:
                    break
                position = end
                self._at = _At.DATA_END
            elif self._at is _At.TRAILERS:
                end = self._trailers(data, position)
                return b"".join(pieces), end
            else:
                position = self._line(data, position)
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), -1

    def _line(self, data: bytes, position: int) -> int:
        """Read what stands between two chunks, at once if it is all there."""
        if not self._held:
            expected = _SIZE_LINE if self._at is _At.SIZE else _NEXT_SIZE_LINE
            match = expected.match(data, position)
            if match is not None and match.end() - position <= MAX_CHUNK_LINE:
                self._begin(match[1])
                return match.end()
        held = self._held
        end = data.find(b"\n", position, position + MAX_CHUNK_LINE) + 1
        held += data[position : end or len(data)]
        if len(held) > MAX_CHUNK_LINE:
            raise RemoteProtocolError("the first line of a chunk is too long")
        if not end:
            return len(data)
        line = bytes(held)
        held.clear()
        if self._at is _At.DATA_END:
            if line != b"\r\n":
                raise RemoteProtocolError("a chunk is longer than its size")
            self._at = _At.SIZE
            return end
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise RemoteProtocolError("the first line of a chunk is malformed")
        self._begin(match[1])
        return end

    def _begin(self, digits: bytes) -> None:
        self._left = int(digits, 16)
        if self._left:
            self._at = _At.DATA
        else:
            self._at = _At.TRAILERS
            # As if behind a field line: then an empty line always ends it.
            self._block.held += b"\r\n"

    def _trailers(self, data: bytes, position: int) -> int:
        block, end = self._block.take(data, position)
        if not block:
            return -1
        if len(block) > 4:
            trailers = parse_fields(
                block, 2, max_fields=self._max_fields, folds=self._folds
            )
            for name in _NOT_IN_TRAILERS:
                trailers.remove(name)
            self.trailers = trailers
        return end


def decoder_for(
    framing: Framing, length: int, *, max_trailers: int, max_fields: int, folds: bool
) -> Decoder | None:
    """Make what finds the end of content; ``None`` where there is no content."""
    if framing is Framing.CHUNKED:
        return ChunkedDecoder(
            max_trailers=max_trailers, max_fields=max_fields, folds=folds
        )
    if framing is Framing.UNTIL_CLOSE:
        return CloseDecoder()
    return LengthDecoder(length) if length else None


def _oversized_trailers(beginning: bytes) -> RemoteProtocolError:
    del beginning
    return RemoteProtocolError("the trailers are too long", 431)
