"""OAuth 1.0a on one connection: each request signed with a nonce of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from coda_twisted.auth.oauth1_signing import Keys, Message, sign
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
    from coda_twisted.auth.oauth1_signing import Signed

__all__ = ["NONCE_OCTETS", "OAuth1Conversation"]

NONCE_OCTETS = 16


class State(Enum):
    """Where a conversation stands."""

    IDLE = auto()
    SIGNING = auto()
    ANSWERED = auto()
    OVER = auto()


_REJECTIONS = frozenset(
    (
        "consumer_key_rejected",
        "consumer_key_unknown",
        "token_expired",
        "token_rejected",
        "token_revoked",
    )
)
"""Of the OAuth Problem Reporting extension: what no other signature would mend."""


@implementer(IAuthConversation)
class OAuth1Conversation:
    """
    Signs each request to one origin server, in the Authorization field.

    OAuth is no scheme that answers challenges: a challenge says only that a request
    was not signed, or not well.  Every signature has a nonce of its own.  A refused
    one says nothing of the secrets, unless the server says so by ``oauth_problem``.

    :param now: Tells the seconds since the epoch.
    :param allow_cleartext: Let the secrets themselves, which is what PLAINTEXT
        sends, travel without TLS.
    :raises AuthenticationFailed: *peer* is a proxy, or it would see the secrets in
        clear.
    """

    scheme = "OAuth"
    connection_bound = False

    def __init__(
        self,
        keys: Keys,
        peer: Peer,
        context: Context,
        now: Callable[[], float],
        *,
        allow_cleartext: bool = False,
    ) -> None:
        if peer.role is not Role.ORIGIN:
            raise self._cannot("it is for origin servers", peer)
        if keys.is_secret_sent and peer.scheme != "https" and not allow_cleartext:
            raise self._cannot("PLAINTEXT would send the secrets in clear", peer)
        self._keys = keys
        self._peer = peer
        self._entropy = context.entropy
        self._now = now
        self._state = State.IDLE
        self._message = Message(b"", b"")
        self._resigned = False

    def __repr__(self) -> str:
        return f"<OAuth1Conversation with {self._peer}, {self._state.name}>"

    def first(self, request: AuthRequest) -> Step:
        """
        Sign a request that nobody has challenged.

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        self._resigned = False
        self._message = self._signable(request)
        return self._sign()

    def challenged(self, challenge: Challenge, request: AuthRequest) -> Step:
        """
        Sign a request that was sent without a signature; a signed one was refused.

        One that was refused because the server had seen its nonce is signed once
        more: the connection may have been lost under the first attempt.

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        if self._state is not State.ANSWERED:
            return self.first(request)
        problem = challenge.params.get("oauth_problem", "")
        if problem == "nonce_used" and not self._resigned:
            self._resigned = True
            return self._sign()
        self._state = State.OVER
        known = f" ({problem})" if re.fullmatch("[a-z_]{1,40}", problem) else ""
        return GiveUp(
            f"the signature was not accepted{known}",
            rejected=problem in _REJECTIONS,
            scheme=self.scheme,
            realm=challenge.realm,
        )

    def worked(self, result: Any) -> Step:
        """Send a signature that was made elsewhere."""
        self._must_be_signing()
        return self._send(result)

    def failed(self, error: Exception) -> Step:
        """Give up: the request cannot be signed."""
        self._must_be_signing()
        self._state = State.OVER
        told = isinstance(error, LocalProtocolError)
        reason = str(error) if told else type(error).__name__
        return GiveUp(f"the request cannot be signed: {reason}", scheme=self.scheme)

    def accepted(self, challenge: Challenge | None, info: bytes | None) -> Step:
        """
        Take note that the signature was good; the peer proves nothing in turn.

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        self._state = State.IDLE
        return Proceed()

    def lost(self) -> None:
        """Forget the signature that is under way, if any."""
        if self._state is not State.OVER:
            self._state = State.IDLE

    def _signable(self, request: AuthRequest) -> Message:
        peer = self._peer
        host = f"[{peer.host}]" if ":" in peer.host else peer.host
        path = b"" if request.path == b"*" else request.path
        return Message(
            method=request.method,
            # A default port is left out of what is signed (RFC 5849 3.4.1.2).
            uri=f"{peer.scheme}://{host}:{peer.port}".encode("ascii") + path,
            host=request.host,
            content_type=request.content_type,
            content=request.content,
        )

    def _sign(self) -> Step:
        make = partial(
            sign,
            self._keys,
            self._message,
            nonce=self._entropy(NONCE_OCTETS).hex(),
            timestamp=int(self._now()),
        )
        self._state = State.SIGNING
        if self._keys.is_slow:
            return Work(make, logon=False)
        try:
            return self._send(make())
        except LocalProtocolError as error:
            return self.failed(error)

    def _send(self, signed: Signed) -> Step:
        assert signed.authorization is not None
        self._state = State.ANSWERED
        return Reply(signed.authorization)

    def _cannot(self, reason: str, peer: Peer) -> AuthenticationFailed:
        return AuthenticationFailed(reason, peer=str(peer), scheme=self.scheme)

    def _must_go_on(self) -> None:
        if self._state is State.OVER:
            raise LocalProtocolError("the OAuth conversation is over")

    def _must_be_signing(self) -> None:
        if self._state is not State.SIGNING:
            raise LocalProtocolError("OAuth has asked for no work")
