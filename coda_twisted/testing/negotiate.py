"""The verifying side of Negotiate: NTLM, and Kerberos with a keytab (RFC 4559)."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

from coda_twisted.testing.ntlm import NTLM, Handshake, token_of
from coda_twisted.testing.ntlm_messages import NTLM_SIGNATURE
from coda_twisted.testing.spnego_tokens import (
    NTLM_MECHANISM,
    accept_completed,
    accept_incomplete,
    unwrap,
)
from coda_twisted.testing.verdicts import (
    Accepted,
    Challenged,
    Received,
    Refused,
    Site,
    Verdict,
)

__all__ = ["Negotiate"]


@dataclass(frozen=True, slots=True)
class Negotiate:
    """
    Negotiate.

    :ivar keytab: A file with the server's keys: Kerberos, which needs python-gssapi.
        Tickets say who somebody is, so those of users that are not among the accounts
        are good, too.
    :ivar ntlm: How NTLM is to be spoken, bare or in SPNEGO; ``None`` to refuse it.
    :ivar per_request: Ask for a token with each request, as Apache does.
    :ivar final_token: Prove to the client that we are the server; Squid does not.
    """

    keytab: str | None = None
    ntlm: NTLM | None = field(default_factory=NTLM)
    per_request: bool = False
    final_token: bool = True

    def at(self, site: Site) -> NegotiateVerifiers:
        """
        Set it up at one server.

        :raises ImportError: There is a keytab, and no python-gssapi.
        """
        acceptor = None
        if self.keytab is not None:
            acceptor = _credentials(self.keytab)
        return NegotiateVerifiers(site, self, acceptor)


class NegotiateVerifiers:
    """Negotiate at one server."""

    name = b"Negotiate"

    def __init__(self, site: Site, settings: Negotiate, acceptor: Any) -> None:
        self._site = site
        self._settings = settings
        self._acceptor = acceptor

    def challenges(self) -> list[bytes]:
        """Offer it."""
        return [b"Negotiate"]

    def connected(self) -> NegotiateVerifier:
        """Make what judges a new connection."""
        return NegotiateVerifier(self._site, self._settings, self._acceptor)


class NegotiateVerifier:
    """Judges the exchanges of one connection."""

    def __init__(self, site: Site, settings: Negotiate, acceptor: Any) -> None:
        self.user: str | None = None
        self._site = site
        self._settings = settings
        self._acceptor = acceptor
        self._ntlm: Handshake | None = None
        if settings.ntlm is not None:
            self._ntlm = Handshake(site, settings.ntlm, "Negotiate")
        self._context: Any = None

    def verify(self, request: Received, credentials: bytes) -> Verdict:
        """Judge one token."""
        self.user = None
        token = token_of(credentials)
        if not token:
            return Refused("the token is not Base64, or there is none")
        verdict = self._step(token, request.bindings)
        if isinstance(verdict, Accepted) and not self._settings.per_request:
            self.user = verdict.user
        return verdict

    def _step(self, token: bytes, bindings: bytes | None) -> Verdict:
        if token.startswith(NTLM_SIGNATURE):
            return self._by_ntlm(token, bindings, wrapped=False)
        inside = unwrap(token)
        if inside is not None and (
            inside.mechanism == NTLM_MECHANISM
            or inside.token.startswith(NTLM_SIGNATURE)
        ):
            return self._by_ntlm(inside.token, bindings, wrapped=True)
        if self._acceptor is None:
            return Refused("a token for Kerberos, and there is no keytab")
        return self._by_kerberos(token, bindings)

    def _by_ntlm(self, token: bytes, bindings: bytes | None, wrapped: bool) -> Verdict:
        if self._ntlm is None:
            return Refused("NTLM is not spoken here")
        step = self._ntlm.step(token, bindings)
        if isinstance(step, bytes):
            return self._challenged(accept_incomplete(step) if wrapped else step)
        if isinstance(step, Accepted) and wrapped:
            return self._accepted(step.user, accept_completed())
        return step

    def _by_kerberos(self, token: bytes, bindings: bytes | None) -> Verdict:
        from gssapi.raw import GSSError

        context, self._context = self._context, None
        if context is None:
            context = _context(self._acceptor, bindings)
        try:
            answer = context.step(token)
        except GSSError as error:
            self._site.accounts.unknown("", "Negotiate")
            return Refused(f"the token was refused: {error.gen_message()}")
        if not context.complete:
            self._context = context
            return self._challenged(answer or b"")
        user = str(context.initiator_name)
        if not self._site.accounts.vouched(user, "Negotiate"):
            return Refused(f"{user!r} was refused")
        return self._accepted(self._site.accounts.name(user), answer)

    def _challenged(self, token: bytes) -> Challenged:
        value = b"Negotiate " + b64encode(token)
        return Challenged("the exchange goes on", (value,))

    def _accepted(self, user: str, token: bytes | None) -> Accepted:
        if not token or not self._settings.final_token:
            return Accepted(user)
        value = b"Negotiate " + b64encode(token)
        return Accepted(user, ((self._site.role.challenge_field, value),))


def _credentials(keytab: str) -> Any:
    import gssapi

    return gssapi.Credentials(usage="accept", store={"keytab": keytab})


def _context(credentials: Any, bindings: bytes | None) -> Any:
    import gssapi
    from gssapi.raw import ChannelBindings

    channel = None
    if bindings is not None:
        channel = ChannelBindings(application_data=bindings)
    return gssapi.SecurityContext(
        creds=credentials, usage="accept", channel_bindings=channel
    )
