"""
Who we are to a peer: credentials, and where they come from.

Nothing here shows a secret: not ``repr``, not ``str``, not an exception, and not
the fingerprints, which are keyed with octets that live as long as the process.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from coda_twisted.auth.basic import BasicConversation
from coda_twisted.auth.digest import DigestConversation
from coda_twisted.auth.negotiate import (
    KerberosConversation,
    NegotiateConversation,
    NTLMAccount,
    NTLMConversation,
)
from coda_twisted.auth.steps import Peer, Role
from coda_twisted.auth.tickets import Tickets
from coda_twisted.errors import AuthenticationFailed
from coda_twisted.interfaces import IAuthConversation, ICredentials, ICredentialSource

if TYPE_CHECKING:
    from coda_twisted.auth.layer import Context

__all__ = [
    "CredentialChain",
    "MappedCredentials",
    "NoCredentials",
    "PasswordCredentials",
    "StaticCredentials",
    "TicketCredentials",
]

_FINGERPRINT_KEY = os.urandom(32)

_UNTYPABLE = re.compile(r"[\0\r\n]")

PROXIES = frozenset([Role.PROXY])


@implementer(ICredentials)
class PasswordCredentials:
    r"""
    A user name and a password: Negotiate, Digest, NTLM and Basic.

    An empty name is for Basic alone, where some services take a token for a
    password.

    :param username: ``user``, ``DOMAIN\user`` or ``user@domain.example``.  Basic and
        Digest send it as it is.  For Kerberos, ``user@REALM`` is a principal; what
        is in lower case there, or a domain with a dot, is taken for a realm in upper
        case; otherwise the machine's default realm is used.
    :param domain: For NTLM and Negotiate, where the name has none.
    :param realm: The realm that a Digest challenge must have; any by default.
    :raises ValueError: Name or password cannot have been meant: the name has a
        domain and nothing else, or one of them a line end, or NUL.
    """

    def __init__(
        self,
        username: str,
        password: str,
        *,
        domain: str = "",
        realm: str | None = None,
    ) -> None:
        if _UNTYPABLE.search(username) or _UNTYPABLE.search(domain):
            raise ValueError("a user name or domain holds a line end or NUL")
        if _UNTYPABLE.search(password):
            raise ValueError("the password holds a line end or NUL")
        named, user = split_username(username)
        if not user and (username or domain):
            raise ValueError("a domain without a user name")
        self._username = username
        self._password = password
        self._realm = realm
        self._account = username if named or not domain else f"{domain}\\{username}"
        self._tickets = tickets_for(username, domain, password)
        self._ntlm = NTLMAccount(self._account, password)
        self.identity: Hashable = self._account or "(no name)"
        self.fingerprint: Hashable = hmac.digest(
            _FINGERPRINT_KEY, password.encode("utf-8", "surrogatepass"), "sha256"
        )

    def __repr__(self) -> str:
        return f"PasswordCredentials({self._account!r})"

    def schemes(self) -> Sequence[str]:
        """Name what can be spoken with a password."""
        return (
            ("negotiate", "digest", "ntlm", "basic") if self._username else ("basic",)
        )

    def conversation(
        self, scheme: str, peer: Peer, context: Context
    ) -> IAuthConversation:
        """Begin to speak *scheme*."""
        name, password = self._username, self._password
        if scheme not in self.schemes():
            raise cannot_speak(scheme, peer)
        if scheme == "basic":
            return BasicConversation(name, password, peer, context)
        if scheme == "digest":
            return DigestConversation(name, password, self._realm, peer, context)
        if scheme == "ntlm":
            return NTLMConversation(self._ntlm, peer, context)
        if not password:
            raise AuthenticationFailed(
                "Kerberos takes no empty password", peer=str(peer), scheme="Negotiate"
            )
        if context.policy.allow_ntlm_in_negotiate:
            return NegotiateConversation(self._tickets, self._ntlm, peer, context)
        return KerberosConversation(self._tickets, peer, context)


@implementer(ICredentials)
class TicketCredentials:
    """
    A Kerberos ticket of the system's cache: Negotiate.

    Whoever runs the program has got it by logging on, or by ``kinit``.

    :param principal: Whose ticket, if the cache has several.
    """

    fingerprint: Hashable = "ticket"

    def __init__(self, principal: str | None = None) -> None:
        self._tickets = Tickets(principal)
        self.identity: Hashable = f"ticket:{principal or 'default'}"

    def __repr__(self) -> str:
        return f"TicketCredentials({self._tickets.principal!r})"

    def schemes(self) -> Sequence[str]:
        """Name what can be spoken with a ticket."""
        return ("negotiate",)

    def conversation(
        self, scheme: str, peer: Peer, context: Context
    ) -> IAuthConversation:
        """Begin to speak *scheme*."""
        if scheme != "negotiate":
            raise cannot_speak(scheme, peer)
        return KerberosConversation(self._tickets, peer, context)


@implementer(ICredentials)
class CredentialChain:
    """
    Several credentials of one person: each scheme with the first that can speak it.

    A ticket for Negotiate and a password for the rest, for one.

    :raises ValueError: There are none.
    """

    def __init__(self, *members: ICredentials) -> None:
        if not members:
            raise ValueError("a chain of no credentials")
        self._members = members
        self.identity: Hashable = " + ".join(str(each.identity) for each in members)

    def __repr__(self) -> str:
        return f"CredentialChain({', '.join(map(repr, self._members))})"

    @property
    def fingerprint(self) -> Hashable:
        """Changes whenever one member's does."""
        return tuple(each.fingerprint for each in self._members)

    def schemes(self) -> Sequence[str]:
        """Name what any member can speak, each scheme once."""
        names = (name for each in self._members for name in each.schemes())
        return tuple(dict.fromkeys(names))

    def conversation(self, scheme: str, peer: Peer, context: Any) -> IAuthConversation:
        """Begin to speak *scheme*."""
        for each in self._members:
            if scheme in each.schemes():
                return each.conversation(scheme, peer, context)
        raise cannot_speak(scheme, peer)


@implementer(ICredentialSource)
class NoCredentials:
    """Nobody to anybody."""

    def credentials_for(self, peer: Peer) -> ICredentials | None:
        """Find nothing."""
        return None


@implementer(ICredentialSource)
class StaticCredentials:
    """
    The same credentials for many peers.

    :param hosts: The names of the peers' hosts; all by default.
    :param roles: To proxies only by default, because any website may ask.  For
        websites :class:`coda_twisted.sources.spaces.PatternCredentials` looks at
        scheme and port as well.
    """

    def __init__(
        self,
        credentials: ICredentials,
        *,
        hosts: Collection[str] | None = None,
        roles: Collection[Role] = PROXIES,
    ) -> None:
        self._credentials = credentials
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._roles = frozenset(roles)

    def __repr__(self) -> str:
        return f"StaticCredentials({self._credentials!r})"

    def credentials_for(self, peer: Peer) -> ICredentials | None:
        """Find the credentials, if they are for *peer*."""
        if peer.role not in self._roles:
            return None
        if self._hosts is not None and peer.host not in self._hosts:
            return None
        return self._credentials


@implementer(ICredentialSource)
class MappedCredentials:
    """
    Credentials of their own for each peer.

    :param users: From host, in lower case, and port; nothing for all others.
    :param roles: To proxies only by default.
    """

    def __init__(
        self,
        users: Mapping[tuple[str, int], ICredentials],
        *,
        roles: Collection[Role] = PROXIES,
    ) -> None:
        self._users = dict(users)
        self._roles = frozenset(roles)

    def __repr__(self) -> str:
        return f"MappedCredentials({self._users!r})"

    def credentials_for(self, peer: Peer) -> ICredentials | None:
        """Find what was mapped to the peer's host and port."""
        if peer.role not in self._roles:
            return None
        return self._users.get((peer.host, peer.port))


def split_username(username: str) -> tuple[str, str]:
    r"""
    Take ``DOMAIN\user`` and ``user@domain`` apart.

    :returns: Domain and user; an empty domain where the name has none.
    """
    domain, backslash, user = username.partition("\\")
    if backslash:
        return domain, user
    user, at, domain = username.rpartition("@")
    return (domain, user) if at else ("", username)


def tickets_for(username: str, domain: str, password: str) -> Tickets:
    """
    Find the Kerberos principal that belongs to a name.

    Realms are in upper case by convention (RFC 4120 6.1), domain names often typed in
    lower case.  A domain without a dot is a NetBIOS name, which Kerberos does not
    know: the default realm is the best guess.
    """
    named, user = split_username(username)
    principal = user.replace("\\", "\\\\").replace("@", "\\@")
    domain = named or domain
    written_as_realm = "\\" not in username and bool(named)
    if written_as_realm or "." in domain:
        principal += f"@{domain.upper() if domain.islower() else domain}"
    return Tickets(
        principal, password, certain=written_as_realm and not domain.islower()
    )


def cannot_speak(scheme: str, peer: Peer) -> AuthenticationFailed:
    """Make the error for a scheme that credentials do not know."""
    return AuthenticationFailed(
        "the credentials cannot speak it", peer=str(peer), scheme=scheme
    )
