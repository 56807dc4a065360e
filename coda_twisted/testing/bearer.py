"""The verifying side of Bearer tokens (RFC 6750)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coda_twisted.testing.verdicts import Accepted, Received, Refused, Site, Verdict

__all__ = ["Bearer"]


@dataclass(frozen=True, slots=True)
class Bearer:
    """
    Bearer tokens.

    The mapping may be changed while the server runs: a token that is taken out of it
    has expired.

    :ivar tokens: From tokens to users.
    """

    tokens: Mapping[str, str] = field(repr=False)

    def at(self, site: Site) -> BearerVerifier:
        """Set it up at one server."""
        return BearerVerifier(site, self.tokens)


class BearerVerifier:
    """Knows tokens; every request has to bring one."""

    name = b"Bearer"
    user = None

    def __init__(self, site: Site, tokens: Mapping[str, str]) -> None:
        self._site = site
        self._tokens = tokens

    def challenges(self) -> list[bytes]:
        """Make the challenge for a request without a token (RFC 6750 3)."""
        return [b"Bearer " + self._site.realm_param()]

    def connected(self) -> BearerVerifier:
        """Say that connections make no difference."""
        return self

    def verify(self, request: Received, credentials: bytes) -> Verdict:
        """Judge one request."""
        user = self._tokens.get(credentials.decode("latin-1"))
        if user is not None and self._site.accounts.vouched(user, "Bearer"):
            return Accepted(user)
        if user is None:
            self._site.accounts.unknown("", "Bearer")
        [challenge] = self.challenges()
        return Refused(
            "the token is not known, or its user is locked out",
            (challenge + b', error="invalid_token"',),
        )
