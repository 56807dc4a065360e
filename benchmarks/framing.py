"""Enough of HTTP/1.1 to count the octets of a content, at the pace of a large one."""

from __future__ import annotations

__all__ = ["Content", "parse_head"]


def parse_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """
    Read a response's head, without its empty line.

    :returns: The status code, and the fields by their names in small letters.
    """
    first, *lines = head.split(b"\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    return int(first.split(b" ", 2)[1]), fields


class Content:
    """
    Counts a content.

    :param expected: How many octets it should have.
    :ivar octets: How many have come; the framing does not count.
    :ivar complete: Whether it has come to its end.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.octets = 0
        self.complete = False
        self._chunked = False
        self._length: int | None = expected
        self._in_chunk = 0
        self._line = b""

    def frame(self, fields: dict[bytes, bytes]) -> None:
        """Learn from the fields where the end is (RFC 9112 section 6.3)."""
        self._chunked = b"chunked" in fields.get(b"transfer-encoding", b"").lower()
        length = fields.get(b"content-length")
        self._length = None if length is None else int(length)

    def take(self, data: bytes | memoryview) -> None:
        """Count what has come."""
        if self._chunked:
            self._take_chunked(data)
            return
        self.octets += len(data)
        self.complete = self._length is not None and self.octets >= self._length

    def end(self) -> None:
        """Take note that the connection has ended."""
        if not self._chunked and self._length is None:
            self.complete = True

    def _take_chunked(self, data: bytes | memoryview) -> None:
        position = 0
        while position < len(data) and not self.complete:
            if self._in_chunk:
                count = min(self._in_chunk, len(data) - position)
                self.octets += count
                self._in_chunk -= count
                position += count
                continue
            # What stands between two chunks is short: CRLF, the size, CRLF.
            piece = bytes(data[position : position + 32])
            line = self._line + piece
            end = line.find(b"\r\n", 2 if line.startswith(b"\r\n") else 0)
            if end < 0:
                self._line = line
                position += len(piece)
                continue
            position += end + 2 - len(self._line)
            self._line = b""
            self._in_chunk = int(line[:end].strip().split(b";")[0], 16)
            self.complete = self._in_chunk == 0
