"""A token, as an authorization server gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coda_twisted.auth.bearer import bearer_value

__all__ = ["Token"]

_NAMED = frozenset(
    (
        "access_token",
        "token_type",
        "refresh_token",
        "expires_at",
        "expires_in",
        "scope",
    )
)


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """
    An access token and what belongs to it (RFC 6749 5.1).

    :ivar refresh_token: Gets the next one; ``None`` where the server gave none.
    :ivar expires_at: Seconds since the epoch; ``None`` where the server did not say.
    :ivar scope: What was granted, which may be less than was asked for.
    :ivar extra: Whatever else the server said: an ``id_token``.
    :raises ValueError: The access token cannot be sent; the text does not say it.
    """

    access_token: str
    refresh_token: str | None = None
    expires_at: float | None = None
    scope: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Refuse what no field can hold, before it is stored."""
        bearer_value(self.access_token)

    def __repr__(self) -> str:
        """Tell everything but the tokens."""
        return (
            f"Token(expires_at={self.expires_at!r}, scope={self.scope!r}, "
            f"refreshable={self.refresh_token is not None})"
        )

    def expires_by(self, moment: float) -> bool:
        """Say whether it is known to be of no use at *moment*."""
        return self.expires_at is not None and self.expires_at <= moment

    def to_mapping(self) -> dict[str, Any]:
        """Write it down for a store, as JSON can; with its secrets."""
        return {
            **self.extra,
            "access_token": self.access_token,
            "token_type": "Bearer",
            "refresh_token": self.refresh_token,
            "expires_at": self.expires_at,
            "scope": " ".join(self.scope),
        }

    @classmethod
    def from_mapping(cls, known: Mapping[str, Any]) -> Token:
        """
        Read what :meth:`to_mapping` wrote, or oauthlib.

        :raises KeyError: There is no access token.
        :raises ValueError: It cannot be sent.
        """
        scope = known.get("scope") or ()
        return cls(
            known["access_token"],
            known.get("refresh_token") or None,
            known.get("expires_at"),
            tuple(scope.split()) if isinstance(scope, str) else tuple(scope),
            {name: value for name, value in known.items() if name not in _NAMED},
        )
