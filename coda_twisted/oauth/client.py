"""A client of OAuth 2: how it gets its tokens (RFC 6749 4)."""

from __future__ import annotations

import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Hashable,
    Iterable,
    Mapping,
)
from functools import partial
from typing import Any

from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient
from twisted.internet.defer import Deferred
from twisted.web.iweb import IAgent

from coda_twisted.client.guard import LogonGuard
from coda_twisted.errors import CredentialsRejected
from coda_twisted.oauth.authorization import Authorization, authorize
from coda_twisted.oauth.device import DeviceAuthorization, begin
from coda_twisted.oauth.endpoint import Endpoint
from coda_twisted.oauth.errors import OAuthError
from coda_twisted.oauth.fingerprints import fingerprint
from coda_twisted.oauth.origins import shown
from coda_twisted.oauth.token import Token

__all__ = ["OAuth2Client"]

_REJECTIONS = ("invalid_client", "unauthorized_client")
"""RFC 6749 5.2: what the same client secret would meet again."""

_WRONG_PASSWORD = (*_REJECTIONS, "invalid_grant", "invalid_request")
"""
What the same password would meet again.

The last is not the RFC's word for it; it is Authlib's.
"""


class OAuth2Client:
    """
    Ask one authorization server for tokens.

    Every method returns a Deferred that fails with :class:`OAuthError` where the
    server gives no token, and with :class:`CredentialsRejected` where it refuses a
    secret: that is not sent again for 30 minutes, as with any other logon.

    :param reactor: Reactor or clock.
    :param agent: Carries the requests, through a proxy if it does so; not one that
        needs a token of this client's.
    :param token_url: The token endpoint; https.
    :param client_secret: ``None`` for a public client.
    :param scope: What to ask for.
    :param client_auth: Where the secret travels: ``basic``, in the Authorization
        field, or ``body``.
    :param extra: Parameters for every token request: ``audience``, ``resource``.
    :param allow_cleartext: Let the server's URLs be http.
    :param guard: As for :class:`~coda_twisted.client.exchange.Client`.
    :param now: Tells the seconds since the epoch.
    :raises ValueError: A URL cannot be read or is http; *client_auth* is unknown.
    """

    def __init__(
        self,
        reactor: Any,
        agent: IAgent,
        *,
        token_url: str,
        client_id: str,
        client_secret: str | None = None,
        scope: Iterable[str] = (),
        client_auth: str = "basic",
        extra: Mapping[str, str] | None = None,
        allow_cleartext: bool = False,
        guard: LogonGuard | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = Endpoint(
            reactor,
            agent,
            token_url,
            client_id,
            client_secret,
            client_auth,
            extra or {},
            allow_cleartext=allow_cleartext,
            now=now,
        )
        self._scope = (scope,) if isinstance(scope, str) else tuple(scope)
        self._guard = guard or LogonGuard.of(reactor)

    def __repr__(self) -> str:
        return f"OAuth2Client({self.client_id!r} of {shown(self._endpoint.url)})"

    @property
    def client_id(self) -> str:
        """Who we are to the authorization server."""
        return self._endpoint.client_id

    def client_credentials(self) -> Deferred[Token]:
        """Get a token for the client itself (RFC 6749 4.4)."""
        endpoint = self._endpoint
        form = BackendApplicationClient(self.client_id).prepare_request_body(
            body=endpoint.extra,
            scope=self._scope or None,
            **_for_oauthlib(endpoint),
        )
        return self._logon(form, self.client_id, endpoint.client_secret or "")

    def password(self, username: str, password: str) -> Deferred[Token]:
        """
        Get a token for a user whose password we have (RFC 6749 4.3).

        The grant is obsolete (RFC 9700 2.4), and all that some servers have.
        """
        endpoint = self._endpoint
        form = LegacyApplicationClient(self.client_id).prepare_request_body(
            username,
            password,
            body=endpoint.extra,
            scope=self._scope or None,
            **_for_oauthlib(endpoint),
        )
        return self._logon(form, username, password, _WRONG_PASSWORD)

    def refresh(self, token: Token) -> Deferred[Token]:
        """Change a refresh token for a new token (RFC 6749 6)."""
        endpoint = self._endpoint
        if token.refresh_token is None:
            raise ValueError("the token has no refresh token")
        form = BackendApplicationClient(self.client_id).prepare_refresh_body(
            body=endpoint.extra,
            refresh_token=token.refresh_token,
            **endpoint.in_form(),
        )
        return Deferred.fromCoroutine(
            endpoint.token(
                form,
                secrets=(token.refresh_token,),
                scope=token.scope,
                refresh_token=token.refresh_token,
            )
        )

    def authorization(self, authorization_url: str, redirect_uri: str) -> Authorization:
        """
        Begin to get a token for a user with a browser (RFC 6749 4.1, RFC 7636).

        For programs with a web server of their own; others see :meth:`authorize`.

        :param authorization_url: The authorization endpoint.
        :param redirect_uri: Where the server shall send the browser.
        """
        return Authorization(
            self._endpoint, authorization_url, redirect_uri, self._scope
        )

    def authorize(
        self,
        authorization_url: str,
        show: Callable[[str], Any],
        *,
        timeout: float = 300.0,
    ) -> Deferred[Token]:
        """
        Get a token for the user in front of this machine (RFC 8252 7.3).

        Listens on a free port of 127.0.0.1 until their browser comes back.

        :param show: Shows a URL to the user: ``webbrowser.open``.
        :param timeout: Seconds for which to wait; fails with :class:`PhaseTimeout`
            then.
        """
        return Deferred.fromCoroutine(
            authorize(self._endpoint, authorization_url, self._scope, show, timeout)
        )

    def device(self, device_url: str) -> Deferred[DeviceAuthorization]:
        """
        Begin to get a token for a user with a browser elsewhere (RFC 8628).

        :param device_url: The device authorization endpoint.
        :returns: Fires with what to show to the user, and then to wait for.
        """
        return Deferred.fromCoroutine(begin(self._endpoint, device_url, self._scope))

    def _logon(
        self,
        form: str,
        name: str,
        secret: str,
        rejections: Collection[str] = _REJECTIONS,
    ) -> Deferred[Token]:
        request = partial(
            self._endpoint.token, form, secrets=(secret,), scope=self._scope
        )
        if not secret:
            return Deferred.fromCoroutine(request())
        key = ("oauth2", self._endpoint.url, name, fingerprint(secret))
        return Deferred.fromCoroutine(self._guarded(key, name, request, rejections))

    async def _guarded(
        self,
        key: tuple[Hashable, ...],
        name: str,
        request: Callable[[], Awaitable[Token]],
        rejections: Collection[str],
    ) -> Token:
        """Send a secret as the guard lets us, and tell it what came of that."""
        ticket = self._guard.enter_now(key) or await self._guard.enter(key)
        try:
            token = await request()
        except OAuthError as error:
            if error.error not in rejections:
                ticket.dropped()
                raise
            rejected = CredentialsRejected(
                error.reason, identity=name, peer=error.peer, scheme="OAuth"
            )
            ticket.refused(rejected)
            raise rejected from error
        except Exception:
            ticket.dropped()
            raise
        ticket.accepted()
        return token


def _for_oauthlib(endpoint: Endpoint) -> dict[str, Any]:
    """Say who we are as oauthlib's grants take it: the identifier is theirs."""
    ours = endpoint.in_form()
    include = ours.pop("client_id", None) is not None
    return {"include_client_id": include, **ours}
