"""Heads: the start-line and the fields of a message (RFC 9112 2 to 5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from coda_twisted.errors import RemoteProtocolError
from coda_twisted.http1.fields import (
    EMPTY_LINE,
    MAX_FIELDS,
    TOKEN,
    Fields,
    parse_fields,
)

__all__ = [
    "MAX_HEAD",
    "MAX_TARGET",
    "BlockCollector",
    "RequestHead",
    "ResponseHead",
    "oversized_request_head",
    "oversized_response_head",
    "parse_request_head",
    "parse_response_head",
]

MAX_HEAD = 65536
"""
Octets of a head.  Kerberos tokens of Active Directory may have 48,000 octets,
which are 64,000 in Base64; Squid's limit is the same.
"""

MAX_TARGET = 16384
"""Octets of a request-target.  RFC 9112 3 wants 8,000 at least."""

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
# RFC 9110 15 knows 100 to 599 and has a client treat others as 5xx; a proxy
# relays them (LinkedIn's 999).  RFC 9112 4: the reason phrase may be empty; many
# servers then leave out the space before it too.
_STATUS_LINE = re.compile(
    rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?\r\n"
)


@dataclass(slots=True, repr=False)
class RequestHead:
    """
    The head of a request.

    :ivar target: The request-target as written; see
        :func:`~coda_twisted.http1.targets.parse_target`.
    :ivar version: ``(1, 0)`` or ``(1, 1)``.
    """

    method: bytes
    target: bytes
    version: tuple[int, int]
    fields: Fields

    def __repr__(self) -> str:
        """Show it without what may be secret: query and userinfo."""
        place = self.target.partition(b"?")[0].rpartition(b"@")[2]
        return f"<{type(self).__name__} {self.method!r} {place!r} {self.fields!r}>"

    def serialise(self) -> bytes:
        """Write it, always as HTTP/1.1: the version is ours, not the sender's."""
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (
            self.method,
            self.target,
            self.fields.serialise(),
        )


@dataclass(slots=True)
class ResponseHead:
    """
    The head of a response.

    :ivar reason: The reason phrase; may be empty.
    :ivar version: ``(1, 0)`` or ``(1, 1)``.
    """

    status: int
    reason: bytes
    version: tuple[int, int]
    fields: Fields

    def serialise(self) -> bytes:
        """Write it, always as HTTP/1.1: the version is ours, not the sender's."""
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (
            self.status,
            self.reason,
            self.fields.serialise(),
        )


def parse_request_head(block: bytes, max_fields: int = MAX_FIELDS) -> RequestHead:
    """
    Parse a request's head (RFC 9112 3).

    :param block: The request line and all up to and including the empty line.
    :raises RemoteProtocolError: It is malformed (400), the request-target (414) or
        the number of fields (431) is too big, the version is not ours (505).
    """
    line = _REQUEST_LINE.match(block)
    if line is None:
        raise RemoteProtocolError("the request line is malformed")
    method, target, major, minor = line.groups()
    if major != b"1":
        raise RemoteProtocolError("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
    if len(target) > MAX_TARGET:
        raise RemoteProtocolError("the request-target is too long", 414)
    fields = parse_fields(block, line.end(), max_fields=max_fields)
    # RFC 9110 2.5: a higher minor version is read as the highest one known.
    return RequestHead(method, target, (1, 0) if minor == b"0" else (1, 1), fields)


def parse_response_head(block: bytes, max_fields: int = MAX_FIELDS) -> ResponseHead:
    """
    Parse a response's head (RFC 9112 4).

    Folded lines are unfolded.  Several Content-Lengths that all say the same
    become one (RFC 9110 8.6).

    :param block: The status line and all up to and including the empty line.
    :raises RemoteProtocolError: It is malformed or too big (502).
    """
    line = _STATUS_LINE.match(block)
    if line is None:
        raise RemoteProtocolError("the status line is malformed", 502)
    major, minor, status, reason = line.groups()
    if major != b"1":
        raise RemoteProtocolError("the response is not HTTP/1.0 or HTTP/1.1", 502)
    if minor == b"0" and status[:1] == b"1":
        # RFC 9110 15.2: "HTTP/1.0 did not define any 1xx status codes".
        raise RemoteProtocolError("a 1xx response of HTTP/1.0", 502)
    try:
        fields = parse_fields(block, line.end(), max_fields=max_fields, folds=True)
    except RemoteProtocolError as error:
        error.status_hint = 502
        raise
    _settle_length(fields)
    return ResponseHead(
        int(status),
        (reason or b"").strip(b" \t"),
        (1, 0) if minor == b"0" else (1, 1),
        fields,
    )


def _settle_length(fields: Fields) -> None:
    """Replace repeated equal lengths by one; leave others for framing to refuse."""
    values = fields.get_all(b"Content-Length")
    if len(values) > 1 or (values and b"," in values[0]):
        lengths = {value.strip(b" \t") for value in b",".join(values).split(b",")}
        if len(lengths) == 1:
            fields.set(b"Content-Length", lengths.pop())


class BlockCollector:
    """
    Gathers a section that ends with an empty line from segments of any size.

    A section that comes in one segment is not copied.  Of one that comes in
    pieces each octet is looked at once.

    :ivar held: What has come of an incomplete section.
    :param limit: Octets of a section.
    :param oversized: Makes the error for one that is longer, from its beginning.
    """

    __slots__ = ("_limit", "_oversized", "held")

    def __init__(
        self, limit: int, oversized: Callable[[bytes], RemoteProtocolError]
    ) -> None:
        self.held = bytearray()
        self._limit = limit
        self._oversized = oversized

    def take(self, data: bytes, start: int) -> tuple[bytes, int]:
        """
        Take what belongs to the section.

        :param data: A segment; the section begins, or goes on, at *start*.
        :returns: The section, and where in *data* it ends; the section is empty as
            long as it is incomplete.
        :raises RemoteProtocolError: It is too long, or one of its lines ends with a
            bare LF, so that its end might never come.
        """
        held = self.held
        if not held:
            end = data.find(EMPTY_LINE, start) + 4
            if end > 3:
                if end - start > self._limit:
                    self._check(data, start, end)
                return data[start:end], end
        known = len(held)
        held += data[start:]
        end = self._scan(known)
        if not end:
            self._check(held, 0, len(held))
            return b"", len(data)
        self._check(held, 0, end)
        block = bytes(held[:end])
        surplus = len(held) - end
        held.clear()
        return block, len(data) - surplus

    def _check(self, source: bytes | bytearray, start: int, end: int) -> None:
        if end - start > self._limit:
            raise self._oversized(bytes(source[start : start + self._limit]))

    def _scan(self, start: int) -> int:
        """Look for the end among what is new; 0 if it is not there."""
        held = self.held
        position = held.find(b"\n", start)
        while position >= 0:
            if held[position - 1 : position] != b"\r":
                raise RemoteProtocolError("a line ends with a bare LF")
            if held[position - 2 : position - 1] == b"\n":
                return position + 1
            position = held.find(b"\n", position + 1)
        return 0


def oversized_request_head(beginning: bytes) -> RemoteProtocolError:
    """Make the error for a request's head that is too big: 414 or 431."""
    line, end, _ = beginning.partition(b"\r\n")
    if not end or len(line.partition(b" ")[2].partition(b" ")[0]) > MAX_TARGET:
        return RemoteProtocolError("the request-target is too long", 414)
    return RemoteProtocolError("the fields are too long", 431)


def oversized_response_head(beginning: bytes) -> RemoteProtocolError:
    """Make the error for a response's head that is too big."""
    del beginning
    return RemoteProtocolError("the response's fields are too long", 502)
