"""The authorization code grant, with PKCE (RFC 6749 4.1, RFC 7636, RFC 8252)."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any

from oauthlib.oauth2 import OAuth2Error, WebApplicationClient
from twisted.internet.defer import Deferred, maybeDeferred

from coda_twisted.oauth.endpoint import Endpoint
from coda_twisted.oauth.errors import OAuthError, error_code, without_secrets
from coda_twisted.oauth.loopback import LoopbackReceiver
from coda_twisted.oauth.origins import shown
from coda_twisted.oauth.token import Token

__all__ = ["Authorization", "authorize"]

VERIFIER_LENGTH = 64
"""Characters; RFC 7636 4.1 allows 43 to 128."""


class Authorization:
    """
    One user's way to the authorization server and back.

    :ivar url: Where to send the user's browser.
    :ivar redirect_uri: Where it comes back.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        authorization_url: str,
        redirect_uri: str,
        scope: tuple[str, ...],
    ) -> None:
        self.redirect_uri = redirect_uri
        self._endpoint = endpoint
        self._scope = scope
        self._oauth = WebApplicationClient(endpoint.client_id)
        self._verifier = self._oauth.create_code_verifier(VERIFIER_LENGTH)
        challenge = self._oauth.create_code_challenge(self._verifier, "S256")
        secured = _secured(endpoint.checked(authorization_url))
        url, _, _ = self._oauth.prepare_authorization_request(
            secured,
            redirect_url=redirect_uri,
            scope=scope or None,
            code_challenge=challenge,
            code_challenge_method="S256",
        )
        scheme = authorization_url.partition(":")[0]
        self.url = f"{scheme}:{url.partition(':')[2]}"
        self._used = False

    def __repr__(self) -> str:
        return f"<Authorization at {shown(self.url)}>"

    def concerns(self, params: Mapping[str, str]) -> bool:
        """
        Say whether an answer is to this authorization.

        :param params: The query of the URI to which the browser was sent.
        """
        state = params.get("state", "")
        expected = str(self._oauth.state)
        return hmac.compare_digest(state.encode(), expected.encode())

    def finish(self, redirected_to: str) -> Deferred[Token]:
        """
        Change the code for a token; can be done once.

        :param redirected_to: The whole URI to which the browser was sent.
        :returns: Fails with :class:`OAuthError` where the user has not agreed, or
            the answer is to another authorization, and if the server gives no token.
        """
        return Deferred.fromCoroutine(self._finish(redirected_to))

    async def _finish(self, redirected_to: str) -> Token:
        endpoint = self._endpoint
        if self._used:
            raise endpoint.error("the authorization was finished before")
        try:
            # oauthlib takes https only, though RFC 8252 7.3 has browsers come back
            # by http to loopback.  Nothing is sent to this URI.
            answer = self._oauth.parse_request_uri_response(
                _secured(redirected_to), state=self._oauth.state
            )
        except OAuth2Error as error:
            told = without_secrets(error.description or error.error, ())
            raise OAuthError(
                f"the user's browser came back without a code: {told}",
                peer=f"authorization server {shown(endpoint.url)}",
                error=error_code(error.error, ()),
            ) from None
        self._used = True
        code = answer["code"]
        ours = endpoint.in_form()
        include = ours.pop("client_id", None) is not None
        form = self._oauth.prepare_request_body(
            code=code,
            redirect_uri=self.redirect_uri,
            code_verifier=self._verifier,
            body=endpoint.extra,
            include_client_id=include,
            **ours,
        )
        return await endpoint.token(
            form, secrets=(code, self._verifier), scope=self._scope
        )


async def authorize(
    endpoint: Endpoint,
    authorization_url: str,
    scope: tuple[str, ...],
    show: Callable[[str], Any],
    timeout: float,
) -> Token:
    """Send the user to the server, and wait for them to come back to loopback."""
    receiver = LoopbackReceiver(endpoint.reactor)
    try:
        authorization = Authorization(
            endpoint, authorization_url, receiver.redirect_uri, scope
        )
        answer = receiver.wait(authorization.concerns, timeout)
        # Whatever happens to it, somebody looks: here, or nobody any more.
        try:
            await maybeDeferred(show, authorization.url)
            redirected_to = await answer
        except Exception:
            answer.addErrback(lambda _: None)
            answer.cancel()
            raise
    finally:
        await receiver.stop()
    return await authorization.finish(redirected_to)


def _secured(url: str) -> str:
    """Write https for http, so that oauthlib reads it; never to be connected to."""
    scheme, colon, rest = url.partition(":")
    return f"https:{rest}" if scheme.lower() == "http" else scheme + colon + rest
