"""
The words in which a verifier and the server around it speak.

A verifier is told what arrived and says what is to be done about it.  It touches no
socket, clock or source of randomness: those are in the :class:`Site`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coda_twisted.auth.steps import Role
from coda_twisted.http1.fields import Fields
from coda_twisted.testing.accounts import Accounts

__all__ = [
    "Accepted",
    "Challenged",
    "Received",
    "Refused",
    "Scheme",
    "Site",
    "Verdict",
    "Verifier",
    "Verifiers",
    "quoted",
]


@dataclass(frozen=True, slots=True)
class Received:
    """
    One request, complete.

    :ivar target: The request-target as on the request line.
    :ivar url: The absolute URI; for CONNECT ``host:port``.
    :ivar path: The origin-form of the target; for CONNECT ``host:port``.
    :ivar user: Who sent it, once that is known.
    :ivar bindings: The ``tls-server-end-point`` channel binding of the server's
        certificate; ``None`` without TLS.
    """

    method: bytes
    target: bytes
    url: bytes
    path: bytes
    fields: Fields
    content: bytes = b""
    user: str | None = None
    bindings: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """
    The request is from *user*.

    :ivar fields: To be added to the answer.
    """

    user: str
    fields: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Challenged:
    """
    Nobody is refused, but something more is wanted.

    :ivar values: The challenges, and no others.
    """

    reason: str
    values: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """
    The request proves nothing, and the logon is over.

    :ivar values: The challenges of this scheme to send, in place of its usual ones.
    """

    reason: str
    values: tuple[bytes, ...] | None = field(default=None, repr=False)


Verdict = Accepted | Challenged | Refused


@dataclass(frozen=True, slots=True)
class Site:
    """
    What the verifiers of one server share.

    :ivar role: Proxy or origin server; the names of fields follow from it.
    :ivar realm: The protection space.
    :ivar quoted_realm: Write the realm as Squid does whose administrator has put it
        between quotes.
    :ivar entropy: Makes so many random octets.
    :ivar seconds: Tells the time.
    """

    role: Role
    accounts: Accounts
    realm: str
    quoted_realm: bool
    entropy: Callable[[int], bytes]
    seconds: Callable[[], float]

    def realm_param(self) -> bytes:
        """Write the realm as a challenge has it."""
        octets = self.realm.encode("utf-8")
        if self.quoted_realm:
            return b'realm=""%b""' % octets
        return b"realm=" + quoted(octets)


class Verifier(Protocol):
    """Judges the credentials on one connection."""

    @property
    def user(self) -> str | None:
        """Whose connection it is; ``None`` where each request is on its own."""

    def verify(self, request: Received, credentials: bytes) -> Verdict:
        """
        Judge a request.

        :param credentials: What follows the auth-scheme.
        """


class Verifiers(Protocol):
    """
    One scheme at one server.

    :ivar name: The auth-scheme.
    """

    name: bytes

    def challenges(self) -> Sequence[bytes]:
        """Make the challenges for one who has said nothing, or was refused."""

    def connected(self) -> Verifier:
        """Make what judges a new connection."""


class Scheme(Protocol):
    """How a scheme is to be spoken: settings that any number of servers can share."""

    def at(self, site: Site) -> Verifiers:
        """Set it up at one server."""


def quoted(octets: bytes) -> bytes:
    """Make a quoted-string (RFC 9110 5.6.4)."""
    return b'"' + octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
