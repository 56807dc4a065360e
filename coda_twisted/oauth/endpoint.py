"""How an authorization server is asked, and what it answers (RFC 6749 3.2, 5)."""

from __future__ import annotations

import json
import math
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from coda_twisted.auth.oauth1_signing import FORM
from coda_twisted.oauth.answers import exchange
from coda_twisted.oauth.errors import OAuthError, error_code, without_secrets
from coda_twisted.oauth.origins import check_endpoint, shown
from coda_twisted.oauth.token import Token

__all__ = ["Endpoint", "read_token"]

CLIENT_AUTH = ("basic", "body")


class Endpoint:
    """
    The token endpoint, as one client sees it.

    :param extra: Parameters of every request: ``audience``, ``resource``.
    :param now: Tells the seconds since the epoch.
    """

    def __init__(
        self,
        reactor: Any,
        agent: IAgent,
        token_url: str,
        client_id: str,
        client_secret: str | None,
        client_auth: str,
        extra: Mapping[str, str],
        *,
        allow_cleartext: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        if client_auth not in CLIENT_AUTH:
            raise ValueError(f"client_auth: one of {', '.join(CLIENT_AUTH)} is needed")
        self.reactor = reactor
        self.client_id = client_id
        self.client_secret = client_secret
        self.allow_cleartext = allow_cleartext
        self.now = now
        self.url = self.checked(token_url)
        self.extra = urlencode(extra)
        self._agent = agent
        self._in_field = client_secret is not None and client_auth == "basic"

    def __repr__(self) -> str:
        return f"<Endpoint {shown(self.url)} for {self.client_id!r}>"

    def checked(self, url: str) -> str:
        """Check a URL of the server's; see :func:`check_endpoint`."""
        return check_endpoint(url, allow_cleartext=self.allow_cleartext)

    def in_form(self) -> dict[str, str]:
        """
        Say who we are in a form, where that is not in the Authorization field.

        A public client names itself there (RFC 6749 3.2.1); one with a secret says
        it in one place only (2.3).
        """
        if self._in_field:
            return {}
        if self.client_secret is None:
            return {"client_id": self.client_id}
        return {"client_id": self.client_id, "client_secret": self.client_secret}

    async def token(
        self,
        form: str,
        *,
        secrets: Iterable[str] = (),
        scope: tuple[str, ...] = (),
        refresh_token: str | None = None,
    ) -> Token:
        """
        Ask for a token.

        :param secrets: What is in *form* and may not be shown.
        :param scope: What is granted if the answer does not say.
        :param refresh_token: Stays in use if there is none in the answer (6).
        :raises OAuthError: There is none.
        :raises PhaseTimeout: There was no answer.
        """
        # Counted from here, because nobody knows how old an answer is.
        asked_at = self.now()
        answer = await self.ask(self.url, form, secrets)
        try:
            return read_token(answer, asked_at, scope, refresh_token)
        except ValueError as error:
            raise self.error(str(error)) from None

    async def ask(
        self, url: str, form: str, secrets: Iterable[str] = ()
    ) -> Mapping[str, Any]:
        """
        Send a form, as this client.

        :returns: The members of the answer.
        :raises OAuthError: The server refuses, or what it says is none.
        """
        status, content = await exchange(
            self.reactor,
            self._agent,
            url.encode("ascii"),
            self._fields(),
            form.encode("ascii"),
        )
        answer = _members(content)
        known = (*secrets, self.client_secret or "")
        if answer is None or "error" in answer or not 200 <= status < 300:
            raise self._refusal(status, answer or {}, known)
        return answer

    def error(self, reason: str) -> OAuthError:
        """Say what is wrong with this server."""
        return OAuthError(reason, peer=f"authorization server {shown(self.url)}")

    def _fields(self) -> Headers:
        headers = Headers({b"Content-Type": [FORM], b"Accept": [b"application/json"]})
        if self._in_field:
            # RFC 6749 2.3.1: both are form-encoded before they are joined.
            user = f"{quote(self.client_id, safe='')}:"
            user += quote(self.client_secret or "", safe="")
            value = b"Basic " + b64encode(user.encode("ascii"))
            headers.setRawHeaders(b"Authorization", [value])
        return headers

    def _refusal(
        self, status: int, answer: Mapping[str, Any], secrets: Iterable[str]
    ) -> OAuthError:
        code = answer.get("error")
        told = without_secrets(answer.get("error_description") or code or "", secrets)
        return OAuthError(
            f"it answered {status}" + (f": {told}" if told else ", and no token"),
            peer=f"authorization server {shown(self.url)}",
            error=error_code(code, secrets),
            status=status,
        )


def read_token(
    answer: Mapping[str, Any],
    asked_at: float,
    scope: tuple[str, ...] = (),
    refresh_token: str | None = None,
) -> Token:
    """
    Read the answer to a token request (RFC 6749 5.1), as servers write it.

    A scope other than the one asked for is no error: it is what was granted.

    :param asked_at: When the request was made, in seconds since the epoch.
    :raises ValueError: There is no token that we could use; without saying it.
    """
    access_token = answer.get("access_token")
    kind = answer.get("token_type", "Bearer")
    if not isinstance(access_token, str) or not access_token:
        raise ValueError("it gave no access token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        # RFC 6749 7.1: not to be used by who does not understand the type.
        raise ValueError("it gave a token that is not a bearer token")
    lifetime = _seconds(answer.get("expires_in"))
    granted = answer.get("scope")
    if isinstance(granted, list):
        granted = " ".join(map(str, granted))
    fresh = answer.get("refresh_token")
    named = ("access_token", "token_type", "refresh_token", "expires_in", "scope")
    return Token(
        access_token,
        fresh if isinstance(fresh, str) and fresh else refresh_token,
        None if lifetime is None else asked_at + lifetime,
        tuple(granted.split()) if isinstance(granted, str) and granted else scope,
        {name: value for name, value in answer.items() if name not in named},
    )


def _seconds(lifetime: object) -> float | None:
    """Read ``expires_in``: a number, or one in quotes; else nobody knows."""
    try:
        seconds = float(lifetime)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) else None


def _members(content: bytes) -> Mapping[str, Any] | None:
    """Read JSON, or a form as some old servers send; ``None`` if it is neither."""
    text = content.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return dict(parse_qsl(text)) or None
    return answer if isinstance(answer, dict) else None
