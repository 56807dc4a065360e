"""
For whom a secret is meant: protection spaces, and patterns of them (RFC 9110 11.5).

A space is a role, a scheme, a host and a port.  A secret that is meant for one is
never given to another: not to a server to which it redirects, not to the same host
without TLS, not to another port.

======================================= ==========================================
``https://intranet.example``            the website at port 443
``http://intranet.example:8080``        the website at that port, without TLS
``https://*.corp.example``              every host below ``corp.example``, not itself
``https://*``                           every website; almost never what is meant
``proxy http://proxy.example:3128``     the proxy; port 3128, or 443 for ``https``
``proxy *``                             every proxy that a route leads to
======================================= ==========================================

Websites are anybody's, so that those with a ``*`` need an opt-in; even then NTLM and
Negotiate are not spoken to them but in domains that are named for it.  A server that
gets an NTLM or Negotiate answer can pass it on to another one and be us there, while
the answer lasts; and who may add a host to a domain may be such a server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from coda_twisted.auth.steps import Peer, Role
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.errors import AuthenticationFailed, RemoteProtocolError
from coda_twisted.http1.targets import parse_authority
from coda_twisted.interfaces import IAuthConversation, ICredentials, ICredentialSource

__all__ = ["ANY_PROXY", "Found", "PatternCredentials", "Space", "Spaces"]

Found = ICredentials | Deferred[ICredentials | None] | None

_PORTS = {
    (Role.ORIGIN, "http"): 80,
    (Role.ORIGIN, "https"): 443,
    (Role.PROXY, "http"): 3128,
    (Role.PROXY, "https"): 443,
}

RELAYABLE = frozenset(["negotiate", "ntlm"])
"""
Schemes whose answer is of use to somebody else.

Digest binds its answer to the server's own nonce and realm; Basic gives the password
itself, which policy allows over TLS only.
"""


@dataclass(frozen=True, slots=True)
class Space:
    """
    One protection space, or a pattern of several.

    :ivar role: What its servers are to us.
    :ivar scheme: ``http`` or ``https``; ``None`` for either.
    :ivar host: In lower case, IPv6 without brackets; ``*.`` and a domain for the
        hosts below it, ``*`` for all hosts.
    :ivar port: ``None`` for every port.
    """

    role: Role
    scheme: str | None
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Space:
        """
        Read a pattern as people write it.

        The word ``origin`` or ``proxy`` may stand before it; without one it is a
        website's.

        :raises ValueError: It is not a pattern; the text repeats no part of it, for
            people write passwords into URLs.
        """
        role, pattern = _split_role(text.strip())
        if role is Role.PROXY and pattern == "*":
            return cls(role, None, "*", None)
        scheme, separator, authority = pattern.partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in ("http", "https"):
            raise ValueError(
                "a protection space begins with http:// or https://, after the word "
                "'proxy' where a proxy is meant"
            )
        host, port = _split(authority.removesuffix("/"), _PORTS[role, scheme])
        return cls(role, scheme, host, port)

    def __str__(self) -> str:
        """Write it as :meth:`parse` reads it."""
        if self.scheme is None:
            return f"{self.role.name.lower()} {self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.role.name.lower()} {self.scheme}://{host}:{self.port}"

    @property
    def wild(self) -> bool:
        """Whether it stands for more than one host."""
        return self.host.startswith("*")

    def matches(self, peer: Peer) -> bool:
        """Tell whether *peer* is in it."""
        return (
            peer.role is self.role
            and self.scheme in (None, peer.scheme)
            and self.port in (None, peer.port)
            and self._names(peer.host)
        )

    def _names(self, host: str) -> bool:
        if not self.wild:
            return host == self.host
        # What follows the asterisk has a leading dot, or is empty.
        return host.endswith(self.host[1:]) and not (self.host[1:] and _is_ip(host))


def _split_role(text: str) -> tuple[Role, str]:
    word, space, rest = text.partition(" ")
    if space and word.lower() in ("origin", "proxy"):
        return Role[word.upper()], rest.strip()
    return Role.ORIGIN, text


def _split(authority: str, default_port: int) -> tuple[str, int]:
    """Read ``host[:port]``, where the host may begin with, or be, an asterisk."""
    asterisk = ""
    if authority == "*" or authority.startswith("*:"):
        # Some host, so that the port is read as with any other.
        authority, asterisk = "any" + authority[1:], "*"
    elif authority.startswith("*."):
        authority, asterisk = authority[2:], "*."
    try:
        host, port = parse_authority(authority.encode("ascii"), default_port)
    except UnicodeEncodeError:
        raise ValueError(
            "a protection space's host is ASCII: write xn--... for other names"
        ) from None
    except RemoteProtocolError as error:
        raise ValueError(f"a protection space cannot be read: {error}") from None
    if asterisk == "*":
        return "*", port
    if asterisk and (host.startswith(".") or _is_ip(host)):
        raise ValueError("a domain name is needed behind the asterisk")
    return asterisk + host, port


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class Spaces:
    """
    The protection spaces for which a source's secrets are meant.

    :param patterns: As :meth:`Space.parse` reads them.
    :param wildcards: Allow patterns of websites with an asterisk.
    :param integrated: Domains within which, themselves included, NTLM and Negotiate
        may be spoken to a website that only an asterisk names.
    :raises ValueError: A pattern cannot be read, has an asterisk that was not
        allowed, or there is none.
    """

    def __init__(
        self,
        *patterns: str,
        wildcards: bool = False,
        integrated: Collection[str] = (),
    ) -> None:
        if isinstance(integrated, str):
            raise ValueError("integrated: a collection of domains is needed")
        self._spaces = tuple(map(Space.parse, patterns))
        self._integrated = tuple(
            "." + domain.lower().removeprefix("*").removeprefix(".")
            for domain in integrated
        )
        if not self._spaces:
            raise ValueError("no protection space")
        if "." in self._integrated:
            raise ValueError("integrated: a domain is empty")
        for space in self._spaces:
            if space.wild and space.role is Role.ORIGIN and not wildcards:
                raise ValueError(
                    f"{space} stands for servers that nobody has named: allow it by "
                    "wildcards=True if it is meant"
                )

    def __repr__(self) -> str:
        return f"Spaces({', '.join(map(repr, map(str, self._spaces)))})"

    def __contains__(self, peer: Peer) -> bool:
        return self.match(peer) is not None

    def match(self, peer: Peer) -> Space | None:
        """Find the space of *peer*; of several the one that says most."""
        found = [space for space in self._spaces if space.matches(peer)]
        return max(found, key=_how_specific, default=None)

    def give(self, peer: Peer, find: Callable[[Peer], Found]) -> Found:
        """
        Let *find* look for credentials, if they may be given to *peer*.

        :returns: What it found, without NTLM and Negotiate where only an asterisk
            names the peer.
        """
        space = self.match(peer)
        if space is None:
            return None
        found = find(peer)
        if not space.wild or peer.role is Role.PROXY or self._trusts(peer.host):
            return found
        if isinstance(found, Deferred):
            return found.addCallback(_limited)
        return _limited(found)

    def _trusts(self, host: str) -> bool:
        return not _is_ip(host) and f".{host}".endswith(self._integrated)


ANY_PROXY = Spaces("proxy *")
"""Whom sources serve by default: proxies, which somebody has configured."""


def as_spaces(spaces: Spaces | Iterable[str]) -> Spaces:
    """Let callers write patterns where they need no more."""
    if isinstance(spaces, str):
        raise ValueError("spaces: several patterns are needed, in a list")
    return spaces if isinstance(spaces, Spaces) else Spaces(*spaces)


def _how_specific(space: Space) -> tuple[bool, int, bool]:
    return not space.wild, len(space.host), space.scheme is not None


@implementer(ICredentials)
class _Limited:
    """Credentials that speak nothing which another server could use."""

    def __init__(self, credentials: ICredentials) -> None:
        self._credentials = credentials

    def __repr__(self) -> str:
        return repr(self._credentials)

    @property
    def identity(self) -> Hashable:
        return self._credentials.identity

    @property
    def fingerprint(self) -> Hashable:
        return self._credentials.fingerprint

    def schemes(self) -> Sequence[str]:
        return tuple(
            each for each in self._credentials.schemes() if each not in RELAYABLE
        )

    def conversation(self, scheme: str, peer: Peer, context: Any) -> IAuthConversation:
        if scheme in RELAYABLE:
            raise AuthenticationFailed(
                "not spoken to a server that only a wildcard names (see 'integrated')",
                peer=str(peer),
                scheme=scheme,
            )
        return self._credentials.conversation(scheme, peer, context)


def _limited(credentials: ICredentials | None) -> ICredentials | None:
    """Take NTLM and Negotiate away; who can speak nothing else is nobody."""
    if credentials is None:
        return None
    limited = _Limited(credentials)
    return limited if limited.schemes() else None


@implementer(ICredentialSource)
class PatternCredentials:
    """
    Credentials of their own for each protection space.

    The space that says most about a peer counts, in whichever order they are given:
    a host before a domain, a longer domain before a shorter one.

    :param users: Credentials, or name and password, by pattern: see
        :meth:`Space.parse`.
    :param wildcards: See :class:`Spaces`.
    :param integrated: See :class:`Spaces`.
    :raises ValueError: As :class:`Spaces`; or two patterns mean the same.
    """

    def __init__(
        self,
        users: Mapping[str, ICredentials | tuple[str, str]],
        *,
        wildcards: bool = False,
        integrated: Collection[str] = (),
    ) -> None:
        self._spaces = Spaces(*users, wildcards=wildcards, integrated=integrated)
        self._users = {
            Space.parse(pattern): as_credentials(user)
            for pattern, user in users.items()
        }
        if len(self._users) < len(users):
            raise ValueError("two patterns mean the same protection space")

    def __repr__(self) -> str:
        users = {str(space): user for space, user in self._users.items()}
        return f"PatternCredentials({users!r})"

    def credentials_for(self, peer: Peer) -> Found:
        """Find the credentials of the peer's protection space."""
        return self._spaces.give(peer, self._find)

    def _find(self, peer: Peer) -> ICredentials:
        space = self._spaces.match(peer)
        assert space is not None
        return self._users[space]


def as_credentials(user: ICredentials | tuple[str, str]) -> ICredentials:
    """Make credentials of a name and a password; leave others alone."""
    return PasswordCredentials(*user) if isinstance(user, tuple) else user
