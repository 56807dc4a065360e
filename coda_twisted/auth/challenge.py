"""
Challenges, and how they are read (RFC 9110 11.2 to 11.6.1).

The grammar is ambiguous by itself: a comma separates challenges from each other as
well as the parameters of one challenge, and ``abc=`` is a token68 or a parameter
without a value.  What decides is

* a name followed by ``=`` is a parameter of the challenge before it;
* any other token at the start of a list member begins a challenge;
* what follows the scheme is a token68 if nothing else follows up to the comma.
  Basic, Digest, Bearer and OAuth are defined with parameters only and never have
  one.

Nothing a peer sends is an error here.  What a peer may have meant is read, what it
cannot have meant is skipped, and a challenge that had to be guessed at says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Challenge", "parse_challenges", "parse_info"]

_TCHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SEPARATORS = re.compile(r"[ \t,]*")
_WHITESPACE = re.compile(r"[ \t]*")
_RUN = re.compile(r"[^ \t,]*")
_PARAMETER = re.compile(rf"({_TCHARS})[ \t]*=[ \t]*")
_SCHEME = re.compile(rf"({_TCHARS})(?=[ \t,]|\Z)")
_TOKEN68 = re.compile(r"([A-Za-z0-9\-._~+/]+=*)(?=[ \t]*(?:,|\Z))")
_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_DOUBLE_QUOTED = re.compile(r'"([^"\\]*)"')
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_CLEAR = re.compile(r'(?:[^ \t,"=][^ \t,"]*)?')
_QOP = re.compile(r"(auth(?:-int|-conf)?)(?=[ \t,]|\Z)", re.IGNORECASE)

# A quote behind which the list goes on: with a parameter, with a challenge that has
# parameters or none, or not at all.
_CLOSING_QUOTE = re.compile(
    rf'"(?=[ \t]*(?:\Z|,[ \t,]*{_TCHARS}'
    rf"(?:[ \t]*(?:[=,]|\Z)|[ \t]+{_TCHARS}[ \t]*=)))"
)

_NEVER_TOKEN68 = frozenset({"basic", "bearer", "digest", "oauth"})
_NOT_SHOWN = frozenset({"cnonce", "nextnonce", "nonce", "opaque", "rspauth"})


@dataclass(frozen=True, slots=True, repr=False)
class Challenge:
    """
    One challenge of a 401 or 407 answer (RFC 9110 11.3).

    Octets are decoded as ISO 8859-1, so that encoding a value as that gives back
    what the peer sent, whatever the peer took it for.

    :ivar scheme: The auth-scheme as written; compare :attr:`key`.
    :ivar token68: The token of schemes that talk in tokens; ``None`` without one.
    :ivar params: The parameters: names in lower case, quoting undone; of a
        parameter given twice, the first.
    :ivar malformed: Whether something in it was skipped, contradicted or guessed at.
        Slips that leave its meaning clear, such as a missing comma between two
        parameters, do not count.
    :ivar guessed: The names of the parameters whose values may not be what the peer
        meant.
    """

    scheme: str
    token68: str | None = None
    params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    malformed: bool = False
    guessed: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """The auth-scheme in lower case, for comparing."""
        return self.scheme.lower()

    @property
    def realm(self) -> str | None:
        """The realm, if there is one (RFC 9110 11.5)."""
        return self.params.get("realm")

    def __repr__(self) -> str:
        """Tell everything but tokens and nonces."""
        parts = [self.scheme]
        if self.token68 is not None:
            parts.append(f"[{len(self.token68)} characters]")
        parts += [
            f"{name}=..." if name in _NOT_SHOWN else f"{name}={value!r}"
            for name, value in self.params.items()
        ]
        if self.malformed:
            parts.append("(malformed)")
        return f"Challenge({' '.join(parts)})"


def parse_challenges(values: Iterable[bytes]) -> list[Challenge]:
    """
    Read the challenges of an answer, in the order in which the peer lists them.

    :param values: The values of the field lines named (WWW|Proxy)-Authenticate;
        how the list is divided into lines makes no difference (RFC 9110 5.3).
    :returns: What could be read; never an exception.
    """
    reader = _Reader()
    for value in values:
        reader.read(value.decode("latin-1"))
    return [draft.challenge() for draft in reader.drafts]


def parse_info(value: bytes) -> Mapping[str, str]:
    """
    Read the value of an (Proxy-)Authentication-Info field (RFC 9110 11.6.3).

    :returns: The parameters, as those of a challenge; never an exception.
    """
    reader = _Reader()
    reader.read(value.decode("latin-1"))
    return MappingProxyType(reader.unclaimed.params)


@dataclass(slots=True)
class _Draft:
    """A challenge that is being read."""

    scheme: str
    token68: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    malformed: bool = False
    guessed: set[str] = field(default_factory=set)
    in_bare_qop: bool = False

    def add(self, name: str, value: str, *, clear: bool, bare: bool) -> None:
        first = self.params.setdefault(name, value)
        if not clear or first != value:
            self.guessed.add(name)
        self.in_bare_qop = bare and name == "qop"

    def challenge(self) -> Challenge:
        mixed = self.token68 is not None and bool(self.params)
        return Challenge(
            self.scheme,
            self.token68,
            MappingProxyType(self.params),
            self.malformed or mixed or bool(self.guessed),
            frozenset(self.guessed),
        )


class _Reader:
    """
    Reads field values, in time linear in their lengths.

    Every pattern either consumes what it looked at, or is tried once for each
    thing that is consumed.

    :ivar drafts: The challenges read so far.
    :ivar unclaimed: Holds the parameters that came before any scheme.
    """

    def __init__(self) -> None:
        self.drafts: list[_Draft] = []
        self.unclaimed = self._current = _Draft("")
        self._text = ""
        self._at = 0
        self._may_resume = True

    def read(self, text: str) -> None:
        """Read one field line; it goes on where the one before ended."""
        self._text = text
        self._at = 0
        self._may_resume = True
        starts_member = True
        while True:
            starts_member |= "," in self._skip(_SEPARATORS)
            if self._at == len(text):
                return
            self._read_part(starts_member)
            starts_member = False

    def _read_part(self, starts_member: bool) -> None:
        if parameter := self._take(_PARAMETER):
            self._read_value(parameter.lower())
        elif (
            starts_member and self._current.in_bare_qop and (option := self._take(_QOP))
        ):
            # "qop=auth,auth-int": were auth-int the next challenge's scheme, the
            # parameters behind it, and so the nonce, would go to it.
            self._current.params["qop"] += f",{option}"
        elif starts_member and (scheme := self._take(_SCHEME)):
            self._begin(scheme)
        else:
            self._skip(_RUN)
            self._current.malformed = True

    def _begin(self, scheme: str) -> None:
        self._current = _Draft(scheme)
        self.drafts.append(self._current)
        self._skip(_WHITESPACE)
        if scheme.lower() not in _NEVER_TOKEN68:
            self._current.token68 = self._take(_TOKEN68)

    def _read_value(self, name: str) -> None:
        bare = not self._text.startswith('"', self._at)
        value, clear = self._bare() if bare else self._quoted()
        self._current.add(name, value, clear=clear, bare=bare)

    def _bare(self) -> tuple[str, bool]:
        """Read a value without quotes: up to the comma or the next parameter."""
        start = self._at
        while True:
            self._skip(_RUN)
            end = self._at
            self._skip(_WHITESPACE)
            if self._ends_member() or _PARAMETER.match(self._text, self._at):
                break
        value = self._text[start:end]
        return value, bool(_CLEAR.fullmatch(value))

    def _quoted(self) -> tuple[str, bool]:
        """Read a quoted-string (RFC 9110 5.6.4)."""
        text = self._text
        quoted = _QUOTED.match(text, self._at)
        if quoted and text[quoted.end() : quoted.end() + 1] in ("", " ", "\t", ","):
            self._at = quoted.end()
            return _unescape(quoted[1]), True
        start = self._at + 1
        closing = _CLOSING_QUOTE.search(text, start) if self._may_resume else None
        if closing:
            self._at = closing.end()
            return _unquote_twice(text[start : closing.start()])
        self._may_resume = False
        self._at = quoted.end() if quoted else len(text)
        return _unescape(quoted[1] if quoted else text[start:]), False

    def _ends_member(self) -> bool:
        return self._at == len(self._text) or self._text[self._at] == ","

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[1]

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None  # these patterns match nothing, too
        self._at = match.end()
        return match[0]


def _unquote_twice(text: str) -> tuple[str, bool]:
    """
    Read what somebody has put between quotes without escaping those inside.

    Squid does so with the realm of its configuration.  Configured with quotes around
    it, it comes as ``""Our, realm""``, and means what is inside all of them.  With
    further quotes inside, Squid 5.7 takes no answer at all.
    """
    inside = _DOUBLE_QUOTED.fullmatch(text)
    return (inside[1], True) if inside else (text, False)


def _unescape(text: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", text)
