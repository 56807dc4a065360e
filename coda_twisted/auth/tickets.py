"""
Kerberos tokens: who makes them, and what it means when they cannot be made.

The libraries block: a KDC that is asked may take milliseconds or, if nothing
answers at its address, 25 seconds.  So claims are run in threads, and those who
want a ticket for the same host wait for the first of them and share what came of
it, be it good or bad.

Failures are values here.  An exception of these libraries carries frames that hold
the password, so it is read where it is caught and goes no further.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple, Protocol

from coda_twisted.auth.steps import GiveUp

__all__ = [
    "Began",
    "Claim",
    "GSSContext",
    "MakeContext",
    "Tickets",
    "gss_bindings",
    "in_words",
]


class GSSContext(Protocol):
    """What is used of pyspnego's contexts."""

    @property
    def complete(self) -> bool:
        """Whether no further token is awaited."""

    def step(
        self, in_token: bytes | None = None, *, channel_bindings: Any = None
    ) -> bytes | None:
        """Take the peer's token, make ours."""

    def new_context(self) -> GSSContext:
        """Make another one with the same tickets."""


MakeContext = Callable[[str | None, str | None, str], GSSContext]
"""From principal, password and host name; asks a KDC when there is a password."""


class Began(NamedTuple):
    """A context and the first token it made."""

    context: GSSContext
    token: bytes


def kerberos_context(
    principal: str | None, password: str | None, hostname: str
) -> GSSContext:
    """
    Make a Kerberos context for ``HTTP/hostname``; it never becomes one of NTLM.

    :param principal: ``None`` for the ticket cache's own choice.
    :param password: ``None`` for a ticket from the system's cache.
    """
    import spnego

    return spnego.client(
        spnego.CredentialCache(principal)
        if password is None
        else spnego.Password(principal or "", password),
        hostname=hostname,
        service="HTTP",
        protocol="kerberos",
        context_req=spnego.ContextReq.mutual_auth
        | spnego.ContextReq.replay_detect
        | spnego.ContextReq.sequence_detect,
    )


def gss_bindings(data: bytes | None) -> Any:
    """Wrap a channel binding's application data for pyspnego (RFC 5929 4)."""
    if data is None:
        return None
    from spnego.channel_bindings import GssChannelBindings

    return GssChannelBindings(application_data=data)


class Tickets:
    """
    What one identity has, or can get, of Kerberos; shared by its conversations.

    With a password, one ticket-granting ticket is got for each host and used until
    it expires.  It is kept in memory, apart from the system's cache.

    :param principal: ``user@REALM``, or ``user`` in the default realm; ``None`` for
        the system's default.
    :param password: ``None`` to use the system's ticket cache.
    :param make_context: Makes the contexts; pyspnego by default.
    :param certain: Whether the realm was given with the name, and not guessed.
    """

    def __init__(
        self,
        principal: str | None = None,
        password: str | None = None,
        make_context: MakeContext = kerberos_context,
        *,
        certain: bool = False,
    ) -> None:
        self.principal = principal
        self.by_password = password is not None
        self.certain = certain
        self._password = password
        self._make_context = make_context
        self._claims: dict[str, Claim] = {}

    def __repr__(self) -> str:
        kind = "password" if self.by_password else "ticket cache"
        return f"<Tickets of {self.principal or 'the default principal'}, by {kind}>"

    def claim(self, hostname: str) -> Claim:
        """
        Get what will be asked for a token, without asking anything yet.

        Claims made before an attempt failed share its failure; one that is made
        afterwards tries again.
        """
        claim = self._claims.get(hostname)
        if claim is None or claim.failure is not None:
            claim = self._claims[hostname] = Claim(self, hostname)
        return claim

    def failed(self, hostname: str) -> bool:
        """Say whether the last attempt for a host came to nothing."""
        claim = self._claims.get(hostname)
        return claim is not None and claim.failure is not None

    def forget(self, hostname: str) -> None:
        """Let the next claim get new tickets: a peer did not take these."""
        self._claims.pop(hostname, None)

    def context(self, hostname: str) -> GSSContext:
        """Make a context from nothing; blocks."""
        return self._make_context(self.principal, self._password, hostname)


class Claim:
    """
    A ticket for one host that several conversations may wait for.

    :ivar failure: Why it cannot be had, once that is known.
    """

    __slots__ = ("_hostname", "_lock", "_template", "_tickets", "failure")

    def __init__(self, tickets: Tickets, hostname: str) -> None:
        self.failure: GiveUp | None = None
        self._hostname = hostname
        self._lock = Lock()
        self._template: GSSContext | None = None
        self._tickets = tickets

    def begin(self, bindings: bytes | None) -> Began | GiveUp:
        """
        Make a context and its first token; blocks.

        :param bindings: The application data of the channel binding, if any.
        """
        with self._lock:
            if self.failure is not None:
                return self.failure
            template = self._template
            if template is None:
                return self._lead(bindings)
        began = self._attempt(template, bindings)
        if isinstance(began, Began):
            return began
        if not (began.expired and self._tickets.by_password):
            return began.step
        with self._lock:
            if self._template is template:
                self._template = None
        return self.begin(bindings)

    def _lead(self, bindings: bytes | None) -> Began | GiveUp:
        """Get the first ticket, while the others wait for the lock."""
        began = self._attempt(None, bindings)
        if isinstance(began, Began):
            self._template = began.context
            return began
        self.failure = began.step
        return began.step

    def _attempt(
        self, template: GSSContext | None, bindings: bytes | None
    ) -> Began | _Failure:
        try:
            if template is not None and self._tickets.by_password:
                context = template.new_context()
            else:
                context = self._tickets.context(self._hostname)
            token = context.step(channel_bindings=gss_bindings(bindings))
        except Exception as error:  # pyspnego lets many kinds through
            return explain(error, self._tickets, self._hostname)
        if not token:
            return _Failure(GiveUp("the Kerberos library made no token"))
        return Began(context, token)


class _Failure(NamedTuple):
    """What follows from an error, and whether a new ticket would help."""

    step: GiveUp
    expired: bool = False


_KRB5 = -1765328384
"""MIT's and Heimdal's error codes are this plus the number of RFC 4120 7.5.9."""

_UNKNOWN_CLIENT, _EXPIRED = 6, 32

_REFUSED = {
    1: "the account has expired",
    18: "the account is locked or disabled",
    23: "the password has expired and must be changed",
    24: "wrong password",
    31: "wrong password",  # the KDC's reply could not be decrypted with it
}
"""What a KDC, or the library with the KDC's reply, finds wrong with a secret."""

_ADVICE = {
    _UNKNOWN_CLIENT: "the KDC does not know this user",
    7: "there is no Kerberos service of this name: use the name that the peer was "
    "registered with, not an alias or an address",
    27: "this is the name of a user, not of a service: use the name that the peer was "
    "registered with",
    _EXPIRED: "the Kerberos ticket has expired: run kinit",
    33: "the ticket is not valid yet: set this machine's clock",
    37: "this machine's clock differs too much from the KDC's: set it",
    134: "Kerberos cannot read this user name",
    154: "no KDC is known for the realm: is it spelled right, is it in krb5.conf?",
    156: "no KDC can be reached",
}

_GSS_NO_CRED, _GSS_EXPIRED = 7, 11  # RFC 2744 3.9.1, routine errors
_SEC_E_LOGON_DENIED = -2146893044


def explain(error: Exception, tickets: Tickets, hostname: str) -> _Failure:
    """
    Say what follows from an exception of pyspnego, gssapi or krb5.

    A password is refused only where a KDC was asked for a ticket with it, which is
    not by way of GSSAPI; what goes wrong afterwards says nothing about it.  A user
    whom the KDC does not know is refused where the realm was given with the name.  A
    guessed realm may not be the user's, and no failed logon is counted against an
    account that nobody has.
    """
    native = _native(error)
    code = _krb5_code(native)
    if tickets.by_password and _routine(native) == 0:
        if getattr(native, "winerror", None) == _SEC_E_LOGON_DENIED:
            return _Failure(GiveUp("wrong user name or password", rejected=True))
        if code in _REFUSED or (code == _UNKNOWN_CLIENT and tickets.certain):
            return _Failure(GiveUp(in_words(error), rejected=True))
    service = f"HTTP/{hostname}: " if _routine(native) else ""
    return _Failure(
        GiveUp(service + in_words(error)),
        expired=code == _EXPIRED or _routine(native) == _GSS_EXPIRED,
    )


def in_words(error: Exception) -> str:
    """Say what an exception of a Kerberos library means, and what to do."""
    if isinstance(error, ImportError):
        return "Kerberos needs python-gssapi: install coda_twisted[kerberos]"
    native = _native(error)
    code, routine = _krb5_code(native), _routine(native)
    if routine == _GSS_EXPIRED:
        code = _EXPIRED
    advice = _REFUSED.get(code) or _ADVICE.get(code)
    if advice is None and routine == _GSS_NO_CRED:
        advice = "there is no Kerberos ticket: run kinit"
    return (advice or "Kerberos failed") + _details(native)


def _native(error: Exception) -> Exception:
    """Get at what pyspnego has wrapped."""
    return getattr(error, "base_error", None) or error


def _routine(error: Exception) -> int:
    """Read GSSAPI's routine error (RFC 2744 3.9.1); 0 if it has none."""
    major: int = getattr(error, "maj_code", 0)
    return major >> 16 & 0xFF


def _krb5_code(error: Exception) -> int:
    """Read the number of RFC 4120 7.5.9 out of an error; -1 if it has none."""
    code: int = getattr(error, "err_code", getattr(error, "min_code", 0))
    number = (code - _KRB5) % 2**32  # gssapi has it unsigned
    return number if number < 256 else -1


_MINOR = re.compile(r"Minor \(\d+\): (.*)", re.DOTALL)


def _details(error: Exception) -> str:
    """Quote what a Kerberos library says; of others no more than the kind."""
    text = str(error)
    if hasattr(error, "err_code"):
        text = text.removesuffix(str(error.err_code)).strip()
    elif hasattr(error, "maj_code"):
        minor = _MINOR.search(text)
        text = minor[1] if minor else text
    else:
        text = type(error).__name__
    return "" if text in ("", "Success") else f" ({text})"
