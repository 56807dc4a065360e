"""
NTLM and Negotiate: the schemes that talk in tokens (MS-NLMP, RFC 4559).

pyspnego makes the tokens.  Every call of it is a :class:`Work`, for it may ask a
KDC, read files and take its time to be imported or to derive keys; the context it
works on belongs to one conversation, which never asks for two works at once.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from coda_twisted.auth.steps import (
    AuthRequest,
    GiveUp,
    Peer,
    Proceed,
    Reply,
    Step,
    Work,
)
from coda_twisted.auth.tickets import (
    Began,
    GSSContext,
    Tickets,
    gss_bindings,
    in_words,
)
from coda_twisted.errors import ChallengeError, MutualAuthenticationFailed
from coda_twisted.interfaces import IAuthConversation

if TYPE_CHECKING:
    from coda_twisted.auth.challenge import Challenge
    from coda_twisted.auth.layer import Context

__all__ = [
    "KerberosConversation",
    "NTLMAccount",
    "NTLMConversation",
    "NegotiateConversation",
]

MAX_TEMPLATES = 64
"""Peers for which an account keeps derived keys; a few kilobytes each."""


class State(Enum):
    """How far a conversation has come."""

    IDLE = auto()
    BEGINNING = auto()
    """The first token is being made."""
    SENT = auto()
    """The first token was sent: NEGOTIATE_MESSAGE, or a ticket."""
    ANSWERING = auto()
    """An answer to the peer's token is being made."""
    ANSWERED = auto()
    """The last token was sent: AUTHENTICATE_MESSAGE."""
    VERIFYING = auto()
    """The peer's final token is being checked."""


class NTLMAccount:
    r"""
    An account, as NTLM's messages are made for it; shared by its conversations.

    pyspnego derives keys from a password for each context that is made from one.
    The LM hash is one of them, by DES in Python: 2 ms, several times what the rest
    of a handshake takes, and of no use to NTLMv2.  A context that is made from
    another takes its keys over, so the first one for each peer is kept.

    :param username: ``DOMAIN\user``, ``user@domain.example`` or ``user``; not
        empty, for then pyspnego would look for one in ``NTLM_USER_FILE``.
    """

    def __init__(self, username: str, password: str) -> None:
        self.username = username
        self._password = password
        self._templates: dict[str, GSSContext] = {}

    def __repr__(self) -> str:
        return f"<NTLMAccount of {self.username}>"

    def is_ready(self, hostname: str) -> bool:
        """Say whether a context for a peer takes less than a tenth of a ms."""
        return hostname in self._templates

    def context(self, hostname: str) -> GSSContext:
        """Make a context for one connection to a peer."""
        template = self._templates.get(hostname)
        if template is None:
            import spnego

            template = spnego.client(
                spnego.Password(self.username, self._password),
                hostname=hostname,
                service="HTTP",
                protocol="ntlm",
            )
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            self._templates[hostname] = template
        return template.new_context()


@implementer(IAuthConversation)
class NTLMConversation:
    r"""
    The client half of NTLM on one connection (MS-NLMP 3.1.5.1).

    Three messages: NEGOTIATE, the peer's CHALLENGE, AUTHENTICATE.  All of them
    travel on one connection, which belongs to the user afterwards.

    :param account: Has a user name.
    :param scheme: Under which name to speak: some peers want it as ``Negotiate``.
    """

    connection_bound = True

    def __init__(
        self,
        account: NTLMAccount,
        peer: Peer,
        context: Context,
        scheme: str = "NTLM",
    ) -> None:
        if not account.username:
            raise ValueError("NTLM needs a user name")
        self.scheme = scheme
        self._account = account
        self._peer = peer
        self._context = context
        self._state = State.IDLE
        self._messages: GSSContext | None = None

    def first(self, request: AuthRequest) -> Step:
        """Begin before a challenge, where the peer is known to speak NTLM."""
        self._state = State.BEGINNING
        return Work(self._negotiate, blocks=not self._account.is_ready(self._peer.host))

    def challenged(self, challenge: Challenge, request: AuthRequest) -> Step:
        """Answer the peer; what follows from it depends on how far we are."""
        match self._state, challenge.token68:
            case State.IDLE, None:
                step = self.first(request)
            case State.SENT, str(token68):
                message = challenge_message(token68)
                step = Work(lambda: self._authenticate(message), blocks=False)
                self._state = State.ANSWERING
            case State.SENT, None:
                return GiveUp(
                    "the peer did not answer the NEGOTIATE_MESSAGE; a device in "
                    "between may spread the messages over several connections",
                    scheme=self.scheme,
                )
            case State.ANSWERED, _:
                return GiveUp(self._refusal(), rejected=True, scheme=self.scheme)
            case _:
                raise ChallengeError("a CHALLENGE_MESSAGE that was not asked for")
        self.scheme = challenge.scheme
        return step

    def worked(self, result: bytes) -> Step:
        """Send the message that was made."""
        last = self._state is State.ANSWERING
        self._state = State.ANSWERED if last else State.SENT
        return Reply(_value(self.scheme, result), send_body=last, bound=not last)

    def failed(self, error: Exception) -> Step:
        """Give up: the message could not be made, and none was judged."""
        if isinstance(error, ChallengeError):
            reason = str(error)
        elif self._state is State.ANSWERING:
            reason = f"the CHALLENGE_MESSAGE is malformed ({type(error).__name__})"
        else:
            reason = f"NTLM cannot be begun ({type(error).__name__})"
        return GiveUp(reason, scheme=self.scheme)

    def accepted(self, challenge: Challenge | None, info: bytes | None) -> Step:
        """Take note; the peer proves nothing of itself in NTLM."""
        self.lost()
        return Proceed()

    def lost(self) -> None:
        """Forget the messages: they are of no use on another connection."""
        self._state = State.IDLE
        self._messages = None

    def _negotiate(self) -> bytes:
        self._messages = self._account.context(self._peer.host)
        return self._messages.step() or b""

    def _authenticate(self, message: bytes) -> bytes:
        messages = self._messages
        assert messages is not None
        bindings = gss_bindings(self._context.channel_bindings)
        answer = messages.step(message, channel_bindings=bindings) or b""
        if not is_ntlmv2(answer):
            raise ChallengeError(
                "NTLMv1 is not spoken: is LM_COMPAT_LEVEL set below 3?"
            )
        return answer

    def _refusal(self) -> str:
        reason = "the user name or the password was refused"
        username = self._account.username
        if "\\" in username or "@" in username:
            return reason
        return f"{reason}; a domain may be missing: DOMAIN\\{username}"


def challenge_message(token68: str) -> bytes:
    """
    Decode a CHALLENGE_MESSAGE, far enough to know that it is one.

    MS-NLMP 2.2.1.2: signature, type 2, and 20 octets more before the payload.

    :raises ChallengeError: It is something else.
    """
    message = _decode(token68)
    if not message.startswith(b"NTLMSSP\0\x02\0\0\0") or len(message) < 32:
        raise ChallengeError("the token is no CHALLENGE_MESSAGE")
    return message


def is_ntlmv2(message: bytes) -> bool:
    """
    Say whether an AUTHENTICATE_MESSAGE holds an NTLMv2 response.

    MS-NLMP 2.2.1.3: NtChallengeResponseFields begin at octet 20 with the length,
    which is 24 for NTLMv1 (2.2.2.6) and always more for NTLMv2 (2.2.2.8).
    """
    return int.from_bytes(message[20:22], "little") > 24


@implementer(IAuthConversation)
class KerberosConversation:
    """
    Negotiate with Kerberos on one connection (RFC 4559).

    The token is a bare Kerberos one, without SPNEGO around it: every acceptor takes
    it, and there is nothing in it that could be negotiated down.
    """

    connection_bound = True

    def __init__(self, tickets: Tickets, peer: Peer, context: Context) -> None:
        self.scheme = "Negotiate"
        self._tickets = tickets
        self._peer = peer
        self._context = context
        self._state = State.IDLE
        self._gss: GSSContext | None = None

    @property
    def said_nothing(self) -> bool:
        """Whether no token has been sent yet."""
        return self._state in (State.IDLE, State.BEGINNING)

    def first(self, request: AuthRequest) -> Step:
        """Begin before a challenge, where the peer is known to take tickets."""
        self._state = State.BEGINNING
        claim = self._tickets.claim(self._peer.host)
        return Work(
            lambda: claim.begin(self._context.channel_bindings),
            logon=self._tickets.by_password,
        )

    def challenged(self, challenge: Challenge, request: AuthRequest) -> Step:
        """Begin, or take the peer's token; without one it has refused ours."""
        match self._state, challenge.token68:
            case State.IDLE, None:
                step = self.first(request)
            case State.SENT, str(token68):
                token = _decode(token68)
                step = Work(lambda: self._step(token), logon=False)
                self._state = State.ANSWERING
            case State.SENT, None:
                return self._refused()
            case _:
                raise ChallengeError("a Negotiate token that was not asked for")
        self.scheme = challenge.scheme
        return step

    def worked(self, result: Began | GiveUp | bytes | None) -> Step:
        """Send the token that was made; or see that the peer's was good."""
        if isinstance(result, GiveUp):
            return result
        if self._state is State.VERIFYING:
            return self._verified()
        if isinstance(result, Began):
            self._gss, result = result
        if not result:
            return self._refused()
        self._state = State.SENT
        # The peer judges a ticket; the password was the KDC's to judge.
        return Reply(_value(self.scheme, result), logon=False)

    def failed(self, error: Exception) -> Step:
        """Give up; or see that the peer's token was not good."""
        if self._state is State.VERIFYING:
            raise self._unproven("its final token is wrong")
        if self._state is State.ANSWERING:
            # What came was no token but a Kerberos error message, most likely.
            return self._refused(in_words(error))
        if isinstance(error, TimeoutError):
            return GiveUp("the KDC did not answer in time", scheme=self.scheme)
        return GiveUp(f"Kerberos failed ({type(error).__name__})", scheme=self.scheme)

    def accepted(self, challenge: Challenge | None, info: bytes | None) -> Step:
        """
        Check the token by which the peer proves itself, if it sent one.

        Squid sends none, so by default that is taken for an answer.
        """
        mutual = self._context.policy.mutual
        token68 = challenge and challenge.token68
        if self._gss is None or self._gss.complete or mutual == "off":
            return Proceed()
        if token68:
            try:
                token = _decode(token68)
            except ChallengeError as error:
                raise self._unproven(str(error)) from error
            self._state = State.VERIFYING
            return Work(lambda: self._step(token), logon=False)
        if mutual == "require":
            raise self._unproven("it sent no token (policy: mutual)")
        return Proceed()

    def lost(self) -> None:
        """Forget the context."""
        self._state = State.IDLE
        self._gss = None

    def _step(self, token: bytes) -> bytes | None:
        assert self._gss is not None
        return self._gss.step(token)

    def _verified(self) -> Step:
        assert self._gss is not None
        if not self._gss.complete:
            raise self._unproven("its final token does not complete the exchange")
        return Proceed()

    def _refused(self, why: str = "") -> GiveUp:
        self._tickets.forget(self._peer.host)
        reason = f"the peer refused the Kerberos ticket for HTTP/{self._peer.host}"
        return GiveUp(f"{reason}: {why}" if why else reason, scheme=self.scheme)

    def _unproven(self, reason: str) -> MutualAuthenticationFailed:
        return MutualAuthenticationFailed(
            f"the peer did not prove that it is {self._peer.host}: {reason}",
            peer=str(self._peer),
            scheme=self.scheme,
        )


@implementer(IAuthConversation)
class NegotiateConversation:
    """
    Negotiate with Kerberos, or with NTLM where there is no Kerberos.

    Only where policy allows: one who can make Kerberos fail gets NTLM.  Its messages
    go without SPNEGO around them, as browsers on Windows send them.  NTLM is not
    begun once a ticket was sent, or once a KDC has refused the password.
    """

    connection_bound = True

    def __init__(
        self,
        tickets: Tickets,
        account: NTLMAccount,
        peer: Peer,
        context: Context,
    ) -> None:
        self._hopeless = tickets.failed(peer.host)
        self._kerberos = KerberosConversation(tickets, peer, context)
        self._ntlm = NTLMConversation(account, peer, context, "Negotiate")
        self._current: KerberosConversation | NTLMConversation = self._kerberos
        self._request: AuthRequest | None = None

    @property
    def scheme(self) -> str:
        """As in the challenge."""
        return self._current.scheme

    def first(self, request: AuthRequest) -> Step:
        """Begin with what worked before."""
        self._request = request
        if self._hopeless:
            self._current = self._ntlm
        return self._or_ntlm(self._current.first(request))

    def challenged(self, challenge: Challenge, request: AuthRequest) -> Step:
        """Answer the peer."""
        self._request = request
        return self._or_ntlm(self._current.challenged(challenge, request))

    def worked(self, result: Any) -> Step:
        """Go on with what was made."""
        return self._or_ntlm(self._current.worked(result))

    def failed(self, error: Exception) -> Step:
        """Go on without what could not be made."""
        return self._or_ntlm(self._current.failed(error))

    def accepted(self, challenge: Challenge | None, info: bytes | None) -> Step:
        """Check what the peer sent to prove itself."""
        return self._current.accepted(challenge, info)

    def lost(self) -> None:
        """Forget everything; the next time begins with Kerberos."""
        self._kerberos.lost()
        self._ntlm.lost()
        self._current = self._kerberos

    def _or_ntlm(self, step: Step) -> Step:
        if (
            self._current is not self._kerberos
            or not self._kerberos.said_nothing
            or not isinstance(step, GiveUp)
            or step.rejected
        ):
            return step
        assert self._request is not None
        self._current = self._ntlm
        return self._ntlm.first(self._request)


def _decode(token68: str) -> bytes:
    try:
        return b64decode(token68, validate=True)
    except ValueError as error:
        raise ChallengeError("the token is not base64") from error


def _value(scheme: str, token: bytes) -> bytes:
    return scheme.encode("ascii") + b" " + b64encode(token)
