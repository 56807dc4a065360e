"""What servers do that clients do not expect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Quirks", "read_quirks"]


@dataclass(frozen=True, slots=True)
class Quirks:
    """
    How a server misbehaves; not at all by default.

    Challenges are its 401 and 407 answers.  The *legs* of a logon are counted as in
    NTLM: the first is the request without credentials, the third holds the
    AUTHENTICATE_MESSAGE; a client that knows what is wanted may begin with the
    second.

    :ivar closes: Say ``Connection: close`` and close after a challenge that begins a
        logon, as proxies of old do; the one within NTLM's handshake leaves the
        connection open.
    :ivar closes_midway: Do so after every challenge, so that NTLM cannot succeed.
    :ivar body: Octets of content with each challenge.
    :ivar chunked: Send that content in chunks.
    :ivar reason: The reason phrase of challenges.
    :ivar http10: Answer in HTTP/1.0, and keep connections open only for those who ask
        for that by ``Connection`` or ``Proxy-Connection``.
    :ivar slow: Seconds before each answer.
    :ivar drops: Close the connection in place of an answer to this leg.
    :ivar drop_times: How often, over all connections; always by default.
    :ivar early: Challenge as soon as a request's head is there, while its content is
        still on its way.  Not for Digest with auth-int.
    :ivar quoted_realm: Write the realm as Squid does where ``squid.conf`` has it
        between quotes: ``realm=""Our realm""``.
    """

    closes: bool = False
    closes_midway: bool = False
    body: int = 0
    chunked: bool = False
    reason: bytes | None = None
    http10: bool = False
    slow: float = 0.0
    drops: int = 0
    drop_times: int | None = None
    early: bool = False
    quoted_realm: bool = False


def read_quirks(words: str) -> Quirks:
    """
    Read quirks as people write them: ``closes,body=100000,drops=3``.

    :raises ValueError: There is no such quirk, or its value cannot be read.
    """
    changes: dict[str, Any] = {}
    for word in filter(None, words.replace(" ", "").split(",")):
        name, equals, value = word.partition("=")
        key = name.replace("-", "_")
        read = _READERS.get(key)
        if read is None and key not in _SWITCHES:
            known = sorted((*_SWITCHES, *_READERS))
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
        if (read is None) == bool(equals):
            raise ValueError(f"{name!r} takes {'no' if read is None else 'a'} value")
        changes[key] = True if read is None else read(value)
    return replace(Quirks(), **changes)


_SWITCHES = (
    "closes",
    "closes_midway",
    "chunked",
    "http10",
    "early",
    "quoted_realm",
)
_READERS: dict[str, Callable[[str], Any]] = {
    "body": int,
    "slow": float,
    "drops": int,
    "drop_times": int,
    "reason": lambda text: text.replace("_", " ").encode("latin-1"),
}
