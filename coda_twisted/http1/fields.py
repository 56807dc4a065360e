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
    "HOP_BY_HOP",
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

HOP_BY_HOP = frozenset(
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
"""Fields for one connection only, in lower case (RFC 9110 7.6.1)."""

_FRAMING = frozenset((b"content-length",))
_CHANGING = frozenset((b"connection", b"transfer-encoding"))

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

    __slots__ = ("_index", "_items")

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._items = list(items)
        # The values by names in lower case, made when something is first looked up.
        self._index: dict[bytes, list[bytes]] | None = None

    def _indexed(self) -> dict[bytes, list[bytes]]:
        index = self._index
        if index is None:
            index = self._index = {}
            for name, value in self._items:
                key = name.lower()
                if key in index:
                    index[key].append(value)
                else:
                    index[key] = [value]
        return index

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: bytes) -> bool:
        return name.lower() in (self._index or self._indexed())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fields):
            return NotImplemented
        return len(self) == len(other) and all(
            mine[0].lower() == theirs[0].lower() and mine[1] == theirs[1]
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

    def lack(self, names: frozenset[bytes]) -> bool:
        """
        Tell whether there are no lines of any of these names.

        :param names: In lower case.
        """
        return names.isdisjoint(self._index or self._indexed())

    def get(self, name: bytes, default: bytes | None = None) -> bytes | None:
        """Find the value of the first line of that name."""
        values = (self._index or self._indexed()).get(name.lower())
        return values[0] if values else default

    def get_all(self, name: bytes) -> list[bytes]:
        """Find the values of all lines of that name, in order."""
        values = (self._index or self._indexed()).get(name.lower())
        return values.copy() if values else []

    def tokens(self, name: bytes) -> list[bytes]:
        """
        Split lines that hold a list of tokens (RFC 9110 5.6.1.2).

        :returns: The members of all lines of that name, in lower case, empty ones
            left out.  Not for lists whose members may hold quoted strings.
        """
        values = (self._index or self._indexed()).get(name.lower())
        if not values:
            return []
        members = b",".join(values).lower().split(b",")
        return [token for member in members if (token := member.strip(b" \t"))]

    def add(self, name: bytes, value: bytes) -> None:
        """Append a line."""
        self._items.append((name, value))
        index = self._index
        if index is not None:
            # Copies may share the list.
            key = name.lower()
            known = index.get(key)
            index[key] = [value] if known is None else [*known, value]

    def set(self, name: bytes, value: bytes) -> None:
        """Replace all lines of that name by one, where the first of them was."""
        key = name.lower()
        if key not in self._indexed():
            self.add(name, value)
            return
        keys = [known.lower() for known, _ in self._items]
        place = keys.index(key)
        self.remove(name)
        self._items.insert(place, (name, value))
        self._index = None

    def remove(self, name: bytes) -> None:
        """Drop all lines of that name, if there are any."""
        key = name.lower()
        if self._indexed().pop(key, None) is not None:
            self._items = [item for item in self._items if item[0].lower() != key]

    def copy(self) -> Fields:
        """Make another with the same lines."""
        twin = Fields(self._items)
        if self._index is not None:
            twin._index = self._index.copy()
        return twin

    def led_by(self, name: bytes, value: bytes) -> Fields:
        """Make another with one more line, before all others."""
        twin = Fields([(name, value), *self._items])
        if self._index is not None:
            key = name.lower()
            twin._index = index = self._index.copy()
            index[key] = [value, *index.get(key, ())]
        return twin

    def without(self, names: frozenset[bytes]) -> Fields:
        """
        Leave lines out.

        :param names: The names, in lower case.
        :returns: New fields; these stay as they are.
        """
        index = self._index or self._indexed()
        items = []
        kept = {}
        for item in self._items:
            key = item[0].lower()
            if key not in names:
                items.append(item)
                kept[key] = index[key]
        twin = Fields(items)
        twin._index = kept
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


def without_hop_by_hop(fields: Fields, names: frozenset[bytes] = HOP_BY_HOP) -> Fields:
    """
    Leave out what concerns one connection only (RFC 9110 7.6.1).

    A Content-Length beside a Transfer-Encoding goes too: an intermediary "MUST
    first remove the received Content-Length field" (RFC 9112 6.3).  Otherwise it
    stays, even if ``Connection`` should name it: it is not for one connection, and a
    message without it would end elsewhere.

    :param names: What to leave out beside what ``Connection`` names, in lower case:
        :data:`HOP_BY_HOP` and perhaps more.
    :returns: New fields; the ones given stay as they are.
    """
    if fields.lack(names):
        return fields.copy()
    if not fields.lack(_CHANGING):
        options = fields.tokens(b"Connection")
        if not names.issuperset(options):
            names = names.union(options) - (_FRAMING - names)
        if b"Transfer-Encoding" in fields:
            names |= _FRAMING
    return fields.without(names)


def add_via(fields: Fields, version: tuple[int, int], pseudonym: bytes) -> None:
    """
    Take note that a message passed through us (RFC 9110 7.6.3).

    :param version: The HTTP version in which the message was received.
    :param pseudonym: Who we are: a token.
    """
    received = b"1.1 " if version == (1, 1) else b"%d.%d " % version
    fields.add(b"Via", received + pseudonym)


_COMMENT = re.compile(rb"\\.|[()]", re.DOTALL)


def via_pseudonyms(fields: Fields) -> list[bytes]:
    """Name all by whom a message was received before, the first one first."""
    names: list[bytes] = []
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
