"""The verifying side of Basic (RFC 7617)."""

from __future__ import annotations

import hmac
from base64 import b64decode
from dataclasses import dataclass
from unicodedata import normalize

from coda_twisted.testing.verdicts import Accepted, Received, Refused, Site, Verdict

__all__ = ["Basic"]


@dataclass(frozen=True, slots=True)
class Basic:
    """
    Basic, in UTF-8.

    :ivar charset: Whether the challenge says so.
    """

    charset: bool = False

    def at(self, site: Site) -> BasicVerifier:
        """Set it up at one server."""
        return BasicVerifier(site, self.charset)


class BasicVerifier:
    """Compares passwords; every request has to bring one."""

    name = b"Basic"
    user = None

    def __init__(self, site: Site, charset: bool) -> None:
        self._site = site
        self._charset = b', charset="UTF-8"' if charset else b""

    def challenges(self) -> list[bytes]:
        """Make the one challenge."""
        return [b"Basic " + self._site.realm_param() + self._charset]

    def connected(self) -> BasicVerifier:
        """Say that connections make no difference."""
        return self

    def verify(self, request: Received, credentials: bytes) -> Verdict:
        """Judge one request."""
        try:
            user_pass = b64decode(credentials, validate=True).decode("utf-8")
        except ValueError:
            return Refused("the credentials are not Base64 of UTF-8")
        user, colon, password = user_pass.partition(":")
        if not colon:
            return Refused("the credentials have no colon")

        def proof(known: str) -> bool:
            return hmac.compare_digest(_octets(password), _octets(known))

        if self._site.accounts.judge(user, "Basic", proof):
            return Accepted(self._site.accounts.name(user))
        return Refused(f"{user!r} was refused")


def _octets(password: str) -> bytes:
    # RFC 7617 2.1: both sides prepare what they compare, for which NFC is enough.
    return normalize("NFC", password).encode("utf-8")
