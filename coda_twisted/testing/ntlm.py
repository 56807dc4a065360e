"""The verifying side of NTLM, version 2 (MS-NLMP 3.2.5.1)."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Literal

from coda_twisted.testing.ntlm_hashes import bindings_hash
from coda_twisted.testing.ntlm_messages import (
    Authenticate,
    challenge_message,
    message_type,
    read_authenticate,
)
from coda_twisted.testing.verdicts import (
    Accepted,
    Challenged,
    Received,
    Refused,
    Site,
    Verdict,
)

__all__ = ["NTLM", "Bindings", "Handshake", "token_of"]

Bindings = Literal["off", "check", "require"]
"""As the Extended Protection of IIS: off, when supported, required."""


@dataclass(frozen=True, slots=True)
class NTLM:
    """
    NTLM; NTLMv1 is refused.

    :ivar bindings: Whether a logon over TLS may be bound to another server's
        certificate (``off``), may not (``check``), or has to be bound to this one's
        (``require``).
    :ivar per_request: Forget each logon with its answer, as IIS does with
        ``authPersistSingleRequest``.
    :ivar name: What the server calls itself.
    """

    bindings: Bindings = "check"
    per_request: bool = False
    name: str = "fake"

    def at(self, site: Site) -> NTLMVerifiers:
        """Set it up at one server."""
        return NTLMVerifiers(site, self)


class NTLMVerifiers:
    """NTLM at one server."""

    name = b"NTLM"

    def __init__(self, site: Site, settings: NTLM) -> None:
        self._site = site
        self._settings = settings

    def challenges(self) -> list[bytes]:
        """Offer it."""
        return [b"NTLM"]

    def connected(self) -> NTLMVerifier:
        """Make what judges a new connection."""
        return NTLMVerifier(self._site, self._settings)


class NTLMVerifier:
    """Judges the handshakes of one connection, which is the user's afterwards."""

    def __init__(self, site: Site, settings: NTLM) -> None:
        self.user: str | None = None
        self._settings = settings
        self._handshake = Handshake(site, settings)

    def verify(self, request: Received, credentials: bytes) -> Verdict:
        """Judge one message."""
        self.user = None
        token = token_of(credentials)
        if token is None:
            return Refused("the token is not Base64")
        step = self._handshake.step(token, request.bindings)
        if isinstance(step, bytes):
            return Challenged(
                "an AUTHENTICATE_MESSAGE is awaited", (b"NTLM " + b64encode(step),)
            )
        if isinstance(step, Accepted) and not self._settings.per_request:
            self.user = step.user
        return step


class Handshake:
    """
    The server's half of handshakes on one connection, one after another.

    :param scheme: Under which auth-scheme logons are counted.
    """

    def __init__(self, site: Site, settings: NTLM, scheme: str = "NTLM") -> None:
        self._site = site
        self._settings = settings
        self._scheme = scheme
        self._server_challenge = b""
        # NEGOTIATE_MESSAGE and CHALLENGE_MESSAGE, between the legs.
        self._earlier: tuple[bytes, bytes] | None = None

    def step(
        self, message: bytes, bindings: bytes | None
    ) -> bytes | Accepted | Refused:
        """
        Take the client's next message.

        :param bindings: Those of this connection.
        :returns: The CHALLENGE_MESSAGE, or the verdict.
        """
        earlier, self._earlier = self._earlier, None
        match message_type(message):
            case 1:
                return self._challenge(message)
            case 3 if earlier is not None:
                try:
                    authenticate = read_authenticate(message)
                except ValueError as error:
                    return Refused(str(error))
                return self._judge(authenticate, earlier, bindings)
            case 3:
                return Refused(
                    "an AUTHENTICATE_MESSAGE for no challenge of this connection"
                )
        return Refused("the token is no message of NTLM")

    def _challenge(self, negotiate: bytes) -> bytes:
        self._server_challenge = self._site.entropy(8)
        challenge = challenge_message(
            negotiate,
            self._server_challenge,
            self._settings.name,
            self._site.seconds(),
        )
        self._earlier = negotiate, challenge
        return challenge

    def _judge(
        self,
        message: Authenticate,
        earlier: tuple[bytes, bytes],
        bindings: bytes | None,
    ) -> Accepted | Refused:
        user = message.user
        if message.domain:
            user = f"{message.domain}\\{user}"
        accounts = self._site.accounts
        if not self._is_bound(message, bindings):
            accounts.unbound(user, self._scheme)
            return Refused(f"{user!r} is bound to another certificate, or to none")

        def proof(password: str) -> bool:
            return message.proves(password, self._server_challenge, *earlier)

        if accounts.judge(user, self._scheme, proof):
            return Accepted(accounts.name(user))
        return Refused(f"{user!r} was refused")

    def _is_bound(self, message: Authenticate, bindings: bytes | None) -> bool:
        demand = self._settings.bindings
        if bindings is None or demand == "off":
            return True
        if not message.bindings:
            return demand == "check"
        return message.bindings == bindings_hash(bindings)


def token_of(credentials: bytes) -> bytes | None:
    """Decode a token68; ``None`` where it is none."""
    try:
        return b64decode(credentials, validate=True)
    except binascii.Error:
        return None
