"""What an authorization server may refuse."""

from __future__ import annotations

import re
from collections.abc import Iterable

from coda_twisted.errors import AuthenticationFailed

__all__ = ["OAuthError", "error_code", "without_secrets"]

MAX_DESCRIPTION = 200
"""Characters of a server's description that are shown."""

CODES = frozenset(
    (
        "access_denied",
        "authorization_pending",
        "expired_token",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "server_error",
        "slow_down",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
    )
)
"""Of RFC 6749 4.1.2.1 and 5.2, and RFC 8628 3.5."""

_UNSHOWABLE = re.compile(r"[^ -~]+")


class OAuthError(AuthenticationFailed):
    """
    An authorization server gave no token.

    :ivar error: Its code, such as ``invalid_grant`` (RFC 6749 5.2); ``None`` where
        it gave none, or where we refuse what it said.
    :ivar status: The answer's status code; ``None`` where there was no answer.
    """

    def __init__(
        self,
        reason: str,
        *,
        peer: str = "",
        error: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(reason, peer=peer, scheme="OAuth")
        self.error = error
        self.status = status


def error_code(code: object, secrets: Iterable[str]) -> str | None:
    """
    Read a server's error code.

    One that is known stays as it is, whatever the user's password may be.
    """
    if code is None:
        return None
    return (
        code
        if isinstance(code, str) and code in CODES
        else without_secrets(code, secrets)
    )


def without_secrets(text: object, secrets: Iterable[str]) -> str:
    """
    Make what a server says fit to be shown: short, printable, without our secrets.

    :param secrets: What was sent to it, which it may repeat.
    """
    shown = str(text)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        shown = shown.replace(secret, "...")
    return _UNSHOWABLE.sub(" ", shown)[:MAX_DESCRIPTION]
