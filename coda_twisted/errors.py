"""
What may go wrong, by whose fault it is.

Facts are attributes; a message is written from them once, for people.  No error
carries a password, a token or the value of a credential field.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.error import ConnectError

__all__ = [
    "AuthenticationFailed",
    "BodyNotReplayable",
    "ChallengeError",
    "CodaError",
    "ConnectionEnded",
    "CredentialsRejected",
    "LocalProtocolError",
    "MutualAuthenticationFailed",
    "NoAcceptableScheme",
    "PhaseTimeout",
    "ProxyUnreachable",
    "RemoteProtocolError",
    "SessionsNotKept",
    "TunnelRefused",
]


class CodaError(Exception):
    """The root of every error of this package."""


class LocalProtocolError(CodaError):
    """We, or our caller, tried to say what HTTP does not allow."""


class RemoteProtocolError(CodaError):
    """
    The peer said what HTTP does not allow.

    :ivar status_hint: The status code with which a server should answer.
    """

    def __init__(self, message: str, status_hint: int = 400) -> None:
        super().__init__(message)
        self.status_hint = status_hint


class ConnectionEnded(RemoteProtocolError):
    """
    The connection ended before the peer had answered, or before all of its answer.

    :ivar answered: Whether any part of an answer had come.
    """

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message, status_hint=502)
        self.answered = answered


class ChallengeError(RemoteProtocolError):
    """A challenge, or a token in one, is malformed or out of turn."""


class AuthenticationFailed(CodaError):
    """
    A peer did not get, or did not accept, proof of who we are.

    :ivar peer: Who asked, for people: ``proxy http://proxy.example:3128``.
    :ivar scheme: The auth-scheme concerned, or ``None`` when none was begun.
    :ivar realm: The challenge's realm, where it had one.
    :ivar reason: What went wrong, in words that say what to do.
    """

    def __init__(
        self,
        reason: str,
        *,
        peer: str = "",
        scheme: str | None = None,
        realm: str | None = None,
    ) -> None:
        super().__init__(f"{peer}: {reason}" if peer else reason)
        self.reason = reason
        self.peer = peer
        self.scheme = scheme
        self.realm = realm


class CredentialsRejected(AuthenticationFailed):
    """
    The peer refused these credentials; the same secret will not be sent again.

    :ivar identity: Who we said we were; never the secret.
    """

    def __init__(
        self,
        reason: str,
        *,
        identity: str,
        peer: str = "",
        scheme: str | None = None,
        realm: str | None = None,
    ) -> None:
        super().__init__(reason, peer=peer, scheme=scheme, realm=realm)
        self.identity = identity


class NoAcceptableScheme(AuthenticationFailed):
    """
    None of the schemes on offer can or may be used.

    :ivar refusals: Scheme and reason, for each one offered.
    """

    def __init__(self, refusals: Iterable[tuple[str, str]], *, peer: str = "") -> None:
        self.refusals = tuple(refusals)
        offers = "; ".join(f"{scheme}: {reason}" for scheme, reason in self.refusals)
        super().__init__(f"no usable authentication scheme ({offers})", peer=peer)


class SessionsNotKept(AuthenticationFailed):
    """
    An origin server wants a connection authenticated that leads to a proxy.

    The proxy does not say that it keeps connections apart (``Proxy-Support``, RFC 4559
    6); without that, what is authenticated may serve others.
    """


class MutualAuthenticationFailed(AuthenticationFailed):
    """The peer accepted us but did not prove that it is who it should be."""


class BodyNotReplayable(CodaError):
    """
    A request's content was partly sent, is needed again, and cannot be had again.

    Give the request a body that implements
    :class:`~coda_twisted.interfaces.IRewindableBody`, or repeat it: the proxy's
    scheme is known by now and the content will be sent once.
    """


class PhaseTimeout(CodaError, TimeoutError):
    """
    One phase of an exchange took too long.

    :ivar phase: ``connect``, ``tls``, ``send``, ``head``, ``body``,
        ``authentication`` or ``total``.
    :ivar seconds: The limit that passed.
    """

    def __init__(self, phase: str, seconds: float) -> None:
        super().__init__(f"no progress within {seconds:g} s ({phase})")
        self.phase = phase
        self.seconds = seconds


class ProxyUnreachable(CodaError, ConnectError):
    """
    No connection to a proxy could be made; ``__cause__`` says what happened.

    :ivar proxy: The proxy's URL, without credentials.
    """

    def __init__(self, proxy: str, why: str) -> None:
        self.proxy = proxy
        super().__init__(string=f"the proxy {proxy} cannot be reached: {why}")

    def __str__(self) -> str:
        """Say which proxy; ConnectError would hide it behind its own text."""
        return str(self.args[0])


class TunnelRefused(CodaError, ConnectError):
    """
    A proxy answered CONNECT with something other than 2xx (RFC 9110 9.3.6).

    :ivar status: The status code.
    :ivar reason: The reason phrase, decoded for people.
    :ivar fields: The answer's fields, as name and value.
    :ivar body: The first 4 KiB of the answer's content.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        fields: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
    ) -> None:
        self.status = status
        self.reason = reason
        self.fields = tuple(fields)
        self.body = body
        message = f"the proxy refused the tunnel: {status} {reason}"
        super().__init__(string=message.rstrip())

    def __str__(self) -> str:
        """Say what the proxy said; ConnectError would hide it behind its own text."""
        return str(self.args[0])
