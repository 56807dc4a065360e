"""The chunked coding once more (RFC 9112 7.1), slowly, to compare with."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from coda_twisted.http1.bodies import MAX_CHUNK_LINE

__all__ = ["Outcome", "Reading", "read_chunks"]

_DIGITS = b"0123456789abcdefABCDEF"


class Outcome(Enum):
    """What became of it."""

    COMPLETE = auto()
    INCOMPLETE = auto()
    MALFORMED = auto()


class Reading(NamedTuple):
    """
    What was read.

    :ivar content: All of it, unless it is malformed.
    :ivar trailers: The trailer section as it stands there.
    :ivar end: Where the message ends.
    """

    outcome: Outcome
    content: bytes = b""
    trailers: bytes = b""
    end: int = -1


_MALFORMED = Reading(Outcome.MALFORMED)


def read_chunks(data: bytes) -> Reading:
    """Read a chunked body from its beginning."""
    content, position = b"", 0
    while True:
        line, newline, _ = data[position:].partition(b"\n")
        if len(line) + len(newline) > MAX_CHUNK_LINE:
            return _MALFORMED
        if not newline:
            return Reading(Outcome.INCOMPLETE, content)
        size = _size(line)
        if size is None:
            return _MALFORMED
        position += len(line) + 1
        if size == 0:
            return _trailers(data, position, content)
        content += data[position : position + size]
        position += size
        following = data[position : position + 2]
        if not b"\r\n".startswith(following):
            return _MALFORMED
        if len(following) < 2:
            return Reading(Outcome.INCOMPLETE, content)
        position += 2


def _size(line: bytes) -> int | None:
    """Read ``chunk-size [ chunk-ext ] CR``."""
    if line[-1:] != b"\r":
        return None
    digits, _, extension = line[:-1].partition(b";")
    if not 1 <= len(digits) <= 16 or any(each not in _DIGITS for each in digits):
        return None
    if any((each < 0x20 and each != 0x09) or each == 0x7F for each in extension):
        return None
    return int(digits, 16)


def _trailers(data: bytes, position: int, content: bytes) -> Reading:
    start = position
    while True:
        line, newline, _ = data[position:].partition(b"\n")
        if not newline:
            return Reading(Outcome.INCOMPLETE, content)
        if line[-1:] != b"\r":
            return _MALFORMED
        position += len(line) + 1
        if line == b"\r":
            return Reading(Outcome.COMPLETE, content, data[start:position], position)
