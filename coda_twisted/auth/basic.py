"""The Basic scheme: a name and a password, as they are (RFC 7617)."""

from __future__ import annotations

import re
from base64 import b64encode
from enum import Enum, auto
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from zope.interface import implementer

from coda_twisted.auth.steps import AuthRequest, GiveUp, Peer, Proceed, Reply, Step
from coda_twisted.errors import AuthenticationFailed, LocalProtocolError
from coda_twisted.interfaces import IAuthConversation

if TYPE_CHECKING:
    from coda_twisted.auth.challenge import Challenge
    from coda_twisted.auth.layer import Context

__all__ = ["BasicConversation", "encode_text"]

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")

# Half a character, but for the halves by which Python keeps octets that it could
# not decode (PEP 383).
_UNPAIRED = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")


class State(Enum):
    """Where a conversation stands."""

    IDLE = auto()
    ANSWERED = auto()
    OVER = auto()


@implementer(IAuthConversation)
class BasicConversation:
    """
    Speaks Basic, which every request does by itself.

    There is nothing to compute and nothing to prove: the peer either takes the
    password or refuses it, and a refused one is not sent again.  UTF-8 is what
    RFC 7617 lets a server ask for; nothing else is tried in its place, because the
    second attempt would be a second failed logon.

    :param username: The user-id; it cannot hold a colon.
    :raises AuthenticationFailed: Name or password cannot be said in Basic.
    """

    scheme = "Basic"
    connection_bound = False

    def __init__(
        self, username: str, password: str, peer: Peer, context: Context
    ) -> None:
        refuse_unsendable(self.scheme, peer, username=username, password=password)
        if _CONTROLS.search(password):
            raise AuthenticationFailed(
                "a password with control characters cannot be sent",
                peer=str(peer),
                scheme=self.scheme,
            )
        if ":" in username:
            # RFC 7617 2: "a user-id containing a colon character is invalid, as
            # the first colon in a user-pass string separates user-id and password
            # from one another"
            raise AuthenticationFailed(
                "a user name with a colon cannot be sent",
                peer=str(peer),
                scheme=self.scheme,
            )
        self._username = username
        self._password = password
        self._peer = peer
        self._memory = context.memory
        self._realm: str | None = None
        self._state = State.IDLE

    def __repr__(self) -> str:
        return f"<BasicConversation with {self._peer}, {self._state.name}>"

    def first(self, request: AuthRequest) -> Step:
        """
        Send the password unasked, where it was accepted before (RFC 7617 2.2).

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        self._realm = self._memory.realm
        return self._reply()

    def challenged(self, challenge: Challenge, request: AuthRequest) -> Step:
        """
        Answer the first challenge; a second one is the refusal of the answer.

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        self._realm = challenge.realm
        if self._state is State.ANSWERED:
            self._state = State.OVER
            return GiveUp(
                "the user name or the password was not accepted",
                rejected=True,
                scheme=self.scheme,
                realm=challenge.realm,
            )
        return self._reply()

    def worked(self, result: Any) -> Step:
        """Refuse: Basic never asks for work."""
        raise LocalProtocolError("Basic has asked for no work")

    def failed(self, error: Exception) -> Step:
        """Refuse: Basic never asks for work."""
        raise LocalProtocolError("Basic has asked for no work")

    def accepted(self, challenge: Challenge | None, info: bytes | None) -> Step:
        """
        Remember the realm; the peer has nothing by which to prove itself.

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        if self._state is State.ANSWERED:
            self._memory.realm = self._realm
            self._state = State.IDLE
        return Proceed()

    def lost(self) -> None:
        """Forget the answer that is under way, if any."""
        if self._state is State.ANSWERED:
            self._state = State.IDLE

    def _must_go_on(self) -> None:
        if self._state is State.OVER:
            raise LocalProtocolError("the Basic conversation is over")

    def _reply(self) -> Reply:
        user_pass = encode_text(f"{self._username}:{self._password}")
        self._state = State.ANSWERED
        return Reply(b"Basic " + b64encode(user_pass))


def encode_text(text: str) -> bytes:
    """
    Encode a name or a password as RFC 7616 and RFC 7617 do where they say UTF-8.

    That is in Normalization Form C: what the user typed and what the server keeps
    may have come from keyboards that compose differently.
    """
    return normalize("NFC", text).encode("utf-8", "surrogateescape")


def refuse_unsendable(scheme: str, peer: Peer, *, username: str, password: str) -> None:
    """
    Check what cannot be said in any scheme that is made of text.

    :raises AuthenticationFailed: The user name has control characters, or one of
        the two has characters that no encoding has.
    """
    if _CONTROLS.search(username):
        reason = "a user name with control characters cannot be sent"
    elif _UNPAIRED.search(username) or _UNPAIRED.search(password):
        reason = "the user name or the password holds half a character"
    else:
        return
    raise AuthenticationFailed(reason, peer=str(peer), scheme=scheme)
