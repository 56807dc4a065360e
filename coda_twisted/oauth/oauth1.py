"""An agent that signs what it sends, and the dance that gets it a user's token."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl, quote

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from coda_twisted.auth.oauth1_signing import FORM, Message, Placement, is_form
from coda_twisted.client.upload import BytesBody
from coda_twisted.client.workers import RunsWork
from coda_twisted.oauth.answers import exchange
from coda_twisted.oauth.contents import at_hand
from coda_twisted.oauth.errors import OAuthError, error_code, without_secrets
from coda_twisted.oauth.origins import Origins, check_endpoint, shown
from coda_twisted.oauth.signing import OAuth1Credentials, Signer

__all__ = ["OAuth1Agent", "OAuth1Dance"]


@implementer(IAgent)
class OAuth1Agent:
    """
    Sign requests to some origin servers, unasked (RFC 5849 3).

    Requests to others, and those that have an Authorization field, pass as they
    are.  Forms are read to memory, up to 1 MiB, because their content is signed.
    Belongs under ``RedirectAgent``, so that each hop is signed by itself.

    A request has one nonce, also where the agent below sends it again on its own
    because a connection was lost; as credentials of a connection
    (:class:`OAuth1Credentials`) it would be signed anew.

    :param agent: Carries the requests.
    :param origins: ``https://api.example.com``, one or several: who may see
        signatures.  http is allowed: that is what signatures are for.
    :param placement: Where the parameters travel.  ``BODY`` is for forms, and for
        POST and the like without content; other requests have them in the field.
    :param workers: Runs signing with RSA, which takes milliseconds; by default
        threads of the global reactor.
    :param entropy: Source of nonces.
    :raises ValueError: An origin cannot be read.
    """

    def __init__(
        self,
        agent: IAgent,
        credentials: OAuth1Credentials,
        *,
        origins: str | Iterable[str],
        placement: Placement = Placement.HEADER,
        workers: RunsWork | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._agent = agent
        self._signer = Signer(credentials, workers=workers, entropy=entropy)
        self._origins = Origins(origins, allow_cleartext=True)
        self._placement = placement

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Issue a request (IAgent).

        :returns: Fails with :class:`LocalProtocolError` where it cannot be signed:
            a form that is too long, or with GET.
        """
        headers = Headers() if headers is None else headers.copy()
        if uri not in self._origins or headers.hasHeader(b"Authorization"):
            return self._agent.request(method, uri, headers, bodyProducer)
        return Deferred.fromCoroutine(self._issue(method, uri, headers, bodyProducer))

    async def _issue(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> IResponse:
        [content_type] = headers.getRawHeaders(b"Content-Type", [b""])[:1]
        [host] = headers.getRawHeaders(b"Host", [b""])[:1]
        content: bytes | None = b""
        if body is not None:
            content = None
            if is_form(content_type) or self._signer.credentials.keys.body_hash:
                content = await at_hand(body)
                body = BytesBody(content)
        signed = await self._signer.sign(
            Message(method, uri, host, content_type, content),
            self._placement_for(method, content_type, body),
        )
        if signed.authorization is not None:
            headers.setRawHeaders(b"Authorization", [signed.authorization])
        if signed.content is not None:
            headers.setRawHeaders(b"Content-Type", [FORM])
            headers.removeHeader(b"Content-Length")
            body = BytesBody(signed.content)
        return await self._agent.request(method, signed.uri, headers, body)

    def _placement_for(
        self, method: bytes, content_type: bytes, body: IBodyProducer | None
    ) -> Placement:
        if self._placement is not Placement.BODY or is_form(content_type):
            return self._placement
        empty = body is None and not content_type and method in (b"POST", b"PUT")
        return Placement.BODY if empty else Placement.HEADER


class OAuth1Dance:
    """
    Get a user's token in three steps (RFC 5849 2).

    :meth:`begin` gives a URL, at which the user agrees; what the server tells them,
    or their browser, goes to :meth:`finish`.

    :param reactor: Reactor or clock.
    :param agent: Carries the requests; they are signed here.
    :param credentials: The client's, without a token.
    :param request_url: Temporary Credential Request endpoint.
    :param authorize_url: Resource Owner Authorization endpoint.
    :param access_url: Token Request endpoint.
    :param allow_cleartext: Let the endpoints be without TLS, though they give out
        secrets.
    :param workers: As for :class:`OAuth1Agent`.
    :raises ValueError: A URL cannot be read, or is http.
    """

    def __init__(
        self,
        reactor: Any,
        agent: IAgent,
        credentials: OAuth1Credentials,
        *,
        request_url: str,
        authorize_url: str,
        access_url: str,
        allow_cleartext: bool = False,
        workers: RunsWork | None = None,
    ) -> None:
        for url in (request_url, authorize_url, access_url):
            check_endpoint(url, allow_cleartext=allow_cleartext)
        self._reactor = reactor
        self._agent = agent
        self._credentials = credentials
        self._temporary: OAuth1Credentials | None = None
        self._request_url = request_url
        self._authorize_url = authorize_url
        self._access_url = access_url
        self._workers = workers

    def begin(self, callback: str = "oob") -> Deferred[str]:
        """
        Get temporary credentials.

        :param callback: Where the user's browser shall be sent; ``oob`` where they
            are told a code instead.
        :returns: The URL to show to the user; fails with :class:`OAuthError`.
        """
        return Deferred.fromCoroutine(self._begin(callback))

    def finish(self, verifier: str, token: str | None = None) -> Deferred[Any]:
        """
        Change the temporary credentials for the token's; can be done once.

        :param verifier: The code, ``oauth_verifier`` in a callback.
        :param token: ``oauth_token`` in the callback, to be compared with what was
            begun; ``None`` where there was no callback.
        :returns: Fires with :class:`OAuth1Credentials`; fails with
            :class:`OAuthError`.
        """
        return Deferred.fromCoroutine(self._finish(verifier, token))

    async def _begin(self, callback: str) -> str:
        answer, temporary = await self._ask(
            self._request_url, self._credentials, callback=callback
        )
        if answer.get("oauth_callback_confirmed", "").lower() != "true":
            # RFC 5849 2.1: it "MUST be present and set to "true"", or the server
            # would take a callback from whoever has the URL.
            raise self._error(self._request_url, "it does not speak OAuth 1.0a")
        self._temporary = temporary
        separator = "&" if "?" in self._authorize_url else "?"
        token = quote(temporary.keys.token, safe="")
        return f"{self._authorize_url}{separator}oauth_token={token}"

    async def _finish(self, verifier: str, token: str | None) -> OAuth1Credentials:
        temporary = self._temporary
        if temporary is None:
            raise self._error(self._access_url, "there is nothing to be finished")
        if token is not None and token != temporary.keys.token:
            raise self._error(self._access_url, "the callback is about another token")
        self._temporary = None
        _, credentials = await self._ask(self._access_url, temporary, verifier=verifier)
        return credentials

    async def _ask(
        self,
        url: str,
        credentials: OAuth1Credentials,
        *,
        callback: str | None = None,
        verifier: str | None = None,
    ) -> tuple[dict[str, str], OAuth1Credentials]:
        uri = url.encode("ascii")
        signer = Signer(credentials, workers=self._workers)
        signed = await signer.sign(
            Message(b"POST", uri), callback=callback, verifier=verifier
        )
        assert signed.authorization is not None
        headers = Headers({b"Authorization": [signed.authorization]})
        status, content = await exchange(self._reactor, self._agent, uri, headers)
        text = content.decode("utf-8", "replace")
        answer = dict(parse_qsl(text, keep_blank_values=True))
        if status != 200:
            raise self._refusal(url, credentials, status, answer)
        token, secret = answer.get("oauth_token"), answer.get("oauth_token_secret")
        if not token or secret is None:
            raise self._error(url, "it gave no token")
        return answer, credentials.with_token(token, secret)

    def _refusal(
        self,
        url: str,
        credentials: OAuth1Credentials,
        status: int,
        answer: dict[str, str],
    ) -> OAuthError:
        """Say what a server said, in one of the ways in which they say it."""
        keys = credentials.keys
        secrets = (keys.client_secret, keys.token, keys.token_secret)
        code = answer.get("oauth_problem") or answer.get("error")
        told = without_secrets(answer.get("error_description", code or ""), secrets)
        reason = f"it answered {status}" + (f": {told}" if told else "")
        return OAuthError(
            reason,
            peer=f"authorization server {shown(url)}",
            error=error_code(code, secrets),
            status=status,
        )

    def _error(self, url: str, reason: str) -> OAuthError:
        return OAuthError(reason, peer=f"authorization server {shown(url)}")
