"""Tokens as credentials: for proxies, and wherever credentials are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread
from zope.interface import implementer

from coda_twisted.auth.bearer import BearerConversation
from coda_twisted.auth.steps import Peer, Role
from coda_twisted.credentials import PROXIES, cannot_speak
from coda_twisted.interfaces import IAuthConversation, ICredentials, ICredentialSource
from coda_twisted.oauth.fingerprints import fingerprint, short
from coda_twisted.oauth.token import Token
from coda_twisted.oauth.tokens import Tokens

if TYPE_CHECKING:
    from coda_twisted.auth.layer import Context

__all__ = ["BearerCredentials", "TokenSource"]


@implementer(ICredentials)
class BearerCredentials:
    """
    A token: Bearer.

    :param name: Whose it is, for people and pools; by default a short hash.
    :param renew: Gets a token in place of one that was refused; it may block, and
        runs in another thread.
    :param allow_cleartext: Send the token to origin servers without TLS.
    :raises ValueError: The token cannot stand in a field.
    """

    unasked = "bearer"

    def __init__(
        self,
        token: str,
        *,
        name: str = "",
        renew: Callable[[], str] | None = None,
        allow_cleartext: bool = False,
    ) -> None:
        self._token = Token(token).access_token
        self._renew = renew
        self._allow_cleartext = allow_cleartext
        self.identity: Hashable = f"bearer:{name or short(token)}"
        self.fingerprint: Hashable = fingerprint(token)

    def __repr__(self) -> str:
        return f"BearerCredentials({self.identity!r})"

    def schemes(self) -> Sequence[str]:
        """Name what can be spoken with a token."""
        return ("bearer",)

    def conversation(
        self, scheme: str, peer: Peer, context: Context
    ) -> IAuthConversation:
        """Begin to speak *scheme*."""
        if scheme != "bearer":
            raise cannot_speak(scheme, peer)
        return BearerConversation(
            self._token,
            peer,
            context,
            renew=self._renew,
            allow_cleartext=self._allow_cleartext,
        )


@implementer(ICredentialSource)
class TokenSource:
    """
    A token, fetched or refreshed first where that is needed.

    :param reactor: For tokens that are refused, and replaced from other threads.
    :param tokens: Has the token.  What asks for it must not go through a proxy that
        wants it.
    :param hosts: The names of the peers' hosts; all proxies by default.
    :param roles: To proxies only by default.
    :param allow_cleartext: Send the token to origin servers without TLS.
    :raises ValueError: Origin servers are to get it, and none is named.
    """

    def __init__(
        self,
        reactor: Any,
        tokens: Tokens,
        *,
        hosts: Collection[str] | None = None,
        roles: Collection[Role] = PROXIES,
        allow_cleartext: bool = False,
    ) -> None:
        if hosts is None and Role.ORIGIN in roles:
            raise ValueError("hosts: any website could ask for the token")
        self._reactor = reactor
        self._tokens = tokens
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._roles = frozenset(roles)
        self._allow_cleartext = allow_cleartext

    def __repr__(self) -> str:
        return f"TokenSource({self._tokens!r})"

    def credentials_for(
        self, peer: Peer
    ) -> ICredentials | Deferred[ICredentials | None] | None:
        """Find the token, if it is for *peer*."""
        if peer.role not in self._roles:
            return None
        if self._hosts is not None and peer.host not in self._hosts:
            return None
        return self._tokens.get().addCallback(self._credentials)

    def _credentials(self, token: Token) -> ICredentials | None:
        renew = partial(self._renew, token) if self._tokens.can_renew else None
        credentials: ICredentials = BearerCredentials(
            token.access_token,
            name=self._tokens.name,
            renew=renew,
            allow_cleartext=self._allow_cleartext,
        )
        return credentials

    def _renew(self, refused: Token) -> str:
        """Replace a token; runs in another thread."""
        call: Any = blockingCallFromThread
        renewed: Token = call(self._reactor, self._tokens.renew, refused)
        return renewed.access_token
