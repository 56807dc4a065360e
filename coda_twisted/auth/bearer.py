"""The Bearer scheme: whoever has the token is let in (RFC 6750)."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from coda_twisted.auth.steps import (
    AuthRequest,
    GiveUp,
    Peer,
    Proceed,
    Reply,
    Role,
    Step,
    Work,
)
from coda_twisted.errors import AuthenticationFailed, LocalProtocolError
from coda_twisted.interfaces import IAuthConversation

if TYPE_CHECKING:
    from coda_twisted.auth.challenge import Challenge
    from coda_twisted.auth.layer import Context

__all__ = ["INVALID_TOKEN", "BearerConversation", "bearer_value"]

INVALID_TOKEN = "invalid_token"  # noqa: S105 - the name of an error
"""What a peer says of a token that is expired, revoked or malformed (3.1)."""

# RFC 6750 2.1 has a token68 here.  Some servers give out others, such as "7|secret".
_SENDABLE = re.compile(r"[!-~]+")


def bearer_value(token: str) -> bytes:
    """
    Write the credentials field's value (RFC 6750 2.1).

    :raises ValueError: The token cannot stand in a field; the text does not say it.
    """
    if not _SENDABLE.fullmatch(token):
        raise ValueError("the token is empty, or holds what no field can")
    return b"Bearer " + token.encode("ascii")


class State(Enum):
    """Where a conversation stands."""

    IDLE = auto()
    RENEWING = auto()
    ANSWERED = auto()
    OVER = auto()


@implementer(IAuthConversation)
class BearerConversation:
    """
    Sends a token with each request.

    A refused token is not sent again.  Where another can be had, and the peer has
    said that it was the token, one is fetched and sent, once.

    :param token: Looked at when it is first sent.
    :param renew: Gets a token in place of the one that was refused.  It may block,
        and runs in another thread.
    :param allow_cleartext: Send the token to an origin server without TLS.  Proxies
        get it in any case: most are reached no other way.
    :raises AuthenticationFailed: The token would cross the network in clear, or
        cannot stand in a field.
    """

    scheme = "Bearer"
    connection_bound = False

    def __init__(
        self,
        token: str,
        peer: Peer,
        context: Context,
        *,
        renew: Callable[[], str] | None = None,
        allow_cleartext: bool = False,
    ) -> None:
        self._peer = peer
        if peer.role is Role.ORIGIN and peer.scheme != "https" and not allow_cleartext:
            raise self._cannot("the token would cross the network in clear")
        try:
            self._value = bearer_value(token)
        except ValueError as error:
            raise self._cannot(str(error)) from None
        self._renew = renew
        self._state = State.IDLE

    def __repr__(self) -> str:
        return f"<BearerConversation with {self._peer}, {self._state.name}>"

    def first(self, request: AuthRequest) -> Step:
        """
        Send the token unasked: OAuth servers expect it so.

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        return self._reply()

    def challenged(self, challenge: Challenge, request: AuthRequest) -> Step:
        """
        Send the token where none was sent; another where it was refused.

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        if self._state is not State.ANSWERED:
            return self._reply()
        error = challenge.params.get("error", INVALID_TOKEN)
        if error == INVALID_TOKEN and self._renew is not None:
            renew, self._renew = self._renew, None
            self._state = State.RENEWING
            return Work(renew, logon=False)
        return self._give_up("the token was not accepted", error, challenge.realm)

    def worked(self, result: Any) -> Step:
        """Send the new token."""
        self._must_be_renewing()
        try:
            self._value = bearer_value(result)
        except ValueError as error:
            return self.failed(error)
        return self._reply()

    def failed(self, error: Exception) -> Step:
        """Give up: there is no other token."""
        self._must_be_renewing()
        told = isinstance(error, AuthenticationFailed)
        why = str(error) if told else type(error).__name__
        return self._give_up(f"the token was not accepted, nor renewed: {why}")

    def accepted(self, challenge: Challenge | None, info: bytes | None) -> Step:
        """
        Take note that the token was good; the peer proves nothing in turn.

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        self._state = State.IDLE
        return Proceed()

    def lost(self) -> None:
        """Forget the answer that is under way, if any."""
        if self._state is not State.OVER:
            self._state = State.IDLE

    def _reply(self) -> Reply:
        self._state = State.ANSWERED
        return Reply(self._value)

    def _give_up(
        self, reason: str, error: str = INVALID_TOKEN, realm: str | None = None
    ) -> GiveUp:
        self._state = State.OVER
        # insufficient_scope, invalid_request: the token itself is good.
        rejected = error == INVALID_TOKEN
        if not rejected and re.fullmatch("[a-z_]{1,40}", error):
            reason = f"{reason}: {error}"
        return GiveUp(reason, rejected=rejected, scheme=self.scheme, realm=realm)

    def _cannot(self, reason: str) -> AuthenticationFailed:
        return AuthenticationFailed(reason, peer=str(self._peer), scheme=self.scheme)

    def _must_go_on(self) -> None:
        if self._state is State.OVER:
            raise LocalProtocolError("the Bearer conversation is over")

    def _must_be_renewing(self) -> None:
        if self._state is not State.RENEWING:
            raise LocalProtocolError("Bearer has asked for no work")
