"""
Field lines: parsed strictly, kept in order, found without regard to case.

The whole block is matched by one regular expression.  It cannot backtrack more
than once over any octet, whatever it is fed: neighbouring repetitions never match
the same octet, or are kept apart by a lookahead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from coda_twisted.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "EMPTY_LINE",
    "MAX_FIELDS",
    "TCHAR",
    "TOKEN",
    "Fields",
    "add_via",
    "check_field",
    "max_forwards",
    "parse_fields",
    "via_pseudonyms",
    "without_hop_by_hop",
]

MAX_FIELDS = 100
"""Field lines in one section, as Apache's LimitRequestFields."""

EMPTY_LINE = b"\r\n\r\n"
"""What ends a section: the end of its last line, and the line that is empty."""

TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TOKEN = TCHAR + rb"+"
"""A token, as a regular expression (RFC 9110 5.6.2)."""

# RFC 9110 5.5: VCHAR, obs-text, SP and HTAB.  Other control octets "are also
# invalid", though recipients MAY keep them; none has an honest use.
_VALUE = rb"[\t -~\x80-\xff]*"

_LINE = re.compile(rb"(?m)^(" + TOKEN + rb"):[ \t]*(?![ \t])(" + _VALUE + rb")\r\n")
_FOLD = re.compile(rb"\r\n[ \t]+(?=[^ \t\r\n])")
_NAME = re.compile(TOKEN)
_SENDABLE = re.compile(rb"(?![ \t])" + _VALUE + rb"(?<![ \t])")

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        # RFC 9110 11.7.3: "only applies to the next outbound client".
        b"proxy-authentication-info",
    )
)

_SECRET = re.compile(
    rb"(?:proxy-)?authorization|(?:set-)?cookie2?|.*-authenticate|.*authentication-info",
    re.IGNORECASE,
)


class Fields:
    """
    An ordered multimap of field lines (RFC 9110 5.1 to 5.3).

    Names are compared without regard to case and kept as written.  What is put in
    is trusted: see :func:`check_field`.

    :param items: Names and values, in order.
    """

    __slots__ = ("_items", "_keys")

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._items = list(items)
        # The names in lower case, made when something is first looked up.
        self._keys: list[bytes] | None = None

    def _lowered(self) -> list[bytes]:
        keys = self._keys
        if keys is None:
            keys = self._keys = [name.lower() for name, _ in self._items]
        return keys

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: bytes) -> bool:
        return name.lower() in (self._keys or self._lowered())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fields):
            return NotImplemented
        return self._lowered() == other._lowered() and all(
            mine[1] == theirs[1]
            for mine, theirs in zip(self._items, other._items, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the lines, but not the values that hold credentials."""
        lines = ", ".join(
            f"({name!r}, <{len(value)} octets>)"
            if _SECRET.fullmatch(name)
            else repr((name, value))
            for name, value in self._items
        )
        return f"Fields([{lines}])"

    def get(self, name: bytes, default: bytes | None = None) -> bytes | None:
        """Find the value of the first line of that name."""
        keys = self._keys or self._lowered()
        key = name.lower()
        return self._items[keys.index(key)][1] if key in keys else default

    def get_all(self, name: bytes) -> list[bytes]:
        """Find the values of all lines of that name, in order."""
        keys = self._keys or self._lowered()
        key = name.lower()
        if key not in keys:
            return []
        place = keys.index(key)
        if keys.count(key) == 1:
            return [self._items[place][1]]
        kept = zip(keys, self._items, strict=True)
        return [item[1] for known, item in kept if known == key]

    def tokens(self, name: bytes) -> list[bytes]:
        """
        Split lines that hold a list of tokens (RFC 9110 5.6.1.2).

        :returns: The members of all lines of that name, in lower case, empty ones
            left out.  Not for lists whose members may hold quoted strings.
        """
        values = self.get_all(name)
        if not values:
            return []
        members = b",".join(values).lower().split(b",")
        return [token for member in members if (token := member.strip(b" \t"))]

    def add(self, name: bytes, value: bytes) -> None:
        """Append a line."""
        self._items.append((name, value))
        if self._keys is not None:
            self._keys.append(name.lower())

    def set(self, name: bytes, value: bytes) -> None:
        """Replace all lines of that name by one, where the first of them was."""
        keys = self._lowered()
        key = name.lower()
        if key not in keys:
            self.add(name, value)
            return
        place = keys.index(key)
        self.remove(name)
        self._items.insert(place, (name, value))
        self._keys = None

    def remove(self, name: bytes) -> None:
        """Drop all lines of that name, if there are any."""
        keys = self._lowered()
        key = name.lower()
        if key in keys:
            kept = zip(keys, self._items, strict=True)
            self._items = [item for known, item in kept if known != key]
            self._keys = [known for known in keys if known != key]

    def copy(self) -> Fields:
        """Make another with the same lines."""
        twin = Fields(self._items)
        if self._keys is not None:
            twin._keys = self._keys.copy()
        return twin

    def serialise(self) -> bytes:
        """Write the lines, without the empty one that ends a section."""
        if not self._items:
            return b""
        return b"\r\n".join(map(b": ".join, self._items)) + b"\r\n"


def check_field(name: bytes, value: bytes) -> None:
    """
    Refuse what may not be sent as a field line (RFC 9110 5.1, 5.5).

    :raises LocalProtocolError: The name is no token, or the value holds a control
        octet or begins or ends with whitespace.  The value is not quoted.
    """
    if not _NAME.fullmatch(name):
        raise LocalProtocolError(f"{name!r} cannot be the name of a field")
    if not _SENDABLE.fullmatch(value):
        raise LocalProtocolError(
            f"the value of {name.decode('ascii')} holds a control character, or "
            "begins or ends with whitespace"
        )


def parse_fields(
    block: bytes,
    start: int = 0,
    *,
    max_fields: int = MAX_FIELDS,
    folds: bool = False,
) -> Fields:
    """
    Parse a section of field lines (RFC 9112 5).

    :param block: Ends with the empty line that ends the section.
    :param start: Where the first line begins; behind a CRLF where there may be none.
    :param max_fields: How many lines are accepted.
    :param folds: Whether an obsolete line folding is replaced by a space, as
        RFC 9112 5.2 has it for responses; it is an error otherwise.
    :raises RemoteProtocolError: A line is malformed (400), or there are too many
        (431).
    """
    if folds and (b"\r\n " in block or b"\r\n\t" in block):
        block, start = _FOLD.sub(b" ", block[start:]), 0
    items = _LINE.findall(block, start)
    # Each match begins behind an LF and holds one: that all LFs but the last
    # are accounted for means that there is nothing between the matches.
    if block.count(b"\n", start) != len(items) + 1 or not block.endswith(EMPTY_LINE):
        raise RemoteProtocolError(_blame(block, start))
    if len(items) > max_fields:
        raise RemoteProtocolError(f"more than {max_fields} fields", 431)
    if b" \r\n" in block or b"\t\r\n" in block:
        items = [(name, value.rstrip(b" \t")) for name, value in items]
    return Fields(items)


def _blame(block: bytes, start: int) -> str:
    """Say which line is malformed and how, without quoting any value."""
    lines = block[start:].split(b"\r\n")
    for number, line in enumerate(lines[:-2], 1):
        if _LINE.fullmatch(line + b"\r\n"):
            continue
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            return f"field line {number} begins with whitespace (folding is obsolete)"
        if not line or not colon:
            return f"field line {number} has no colon"
        if name[-1:] in (b" ", b"\t"):
            return f"field line {number} has whitespace before its colon"
        if not _NAME.fullmatch(name):
            return f"the name in field line {number} is not a token"
        if b"\r" in value or b"\n" in value:
            return f"the value of {name.decode('ascii')} holds a bare CR or LF"
        return f"the value of {name.decode('ascii')} holds a control character"
    return "the fields do not end with one empty line"


def without_hop_by_hop(fields: Fields) -> Fields:
    """
    Leave out what concerns one connection only (RFC 9110 7.6.1).

    A Content-Length beside a Transfer-Encoding goes too: an intermediary "MUST
    first remove the received Content-Length field" (RFC 9112 6.3).

    :returns: New fields; the ones given stay as they are.
    """
    names = _HOP_BY_HOP.union(fields.tokens(b"Connection"))
    if b"Transfer-Encoding" in fields:
        names |= {b"content-length"}
    return Fields(item for item in fields if item[0].lower() not in names)


def add_via(fields: Fields, version: tuple[int, int], pseudonym: bytes) -> None:
    """
    Take note that a message passed through us (RFC 9110 7.6.3).

    :param version: The HTTP version in which the message was received.
    :param pseudonym: Who we are: a token.
    """
    fields.add(b"Via", b"%d.%d %b" % (*version, pseudonym))


_COMMENT = re.compile(rb"\\.|[()]", re.DOTALL)


def via_pseudonyms(fields: Fields) -> list[bytes]:
    """Name all by whom a message was received before, the first one first."""
    names = []
    for value in fields.get_all(b"Via"):
        for member in _without_comments(value).split(b","):
            words = member.split()
            if len(words) > 1:
                names.append(words[1])
    return names


def _without_comments(value: bytes) -> bytes:
    """Drop comments, which nest and may hold commas (RFC 9110 5.6.5)."""
    if b"(" not in value:
        return value
    depth = end = 0
    outside = []
    for mark in _COMMENT.finditer(value):
        if mark[0] == b"(":
            if depth == 0:
                outside.append(value[end : mark.start()])
            depth += 1
        elif mark[0] == b")" and depth:
            depth -= 1
            end = mark.end()
    if depth == 0:
        outside.append(value[end:])
    return b" ".join(outside)


_HOPS = re.compile(rb"[0-9]{1,10}")


def max_forwards(fields: Fields) -> int | None:
    """
    Read how often a request may still be forwarded (RFC 9110 7.6.2).

    :returns: ``None`` when there is no single field with a number.
    """
    values = fields.get_all(b"Max-Forwards")
    if len(values) != 1 or not _HOPS.fullmatch(values[0]):
        return None
    return int(values[0])
