"""An agent that sends a token with what it sends (RFC 6750)."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.web.http import UNAUTHORIZED
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from coda_twisted.auth.bearer import INVALID_TOKEN, bearer_value
from coda_twisted.auth.challenge import parse_challenges
from coda_twisted.client.upload import BytesBody
from coda_twisted.oauth.answers import discard
from coda_twisted.oauth.contents import Repeatable
from coda_twisted.oauth.origins import Origins
from coda_twisted.oauth.token import Token
from coda_twisted.oauth.tokens import Tokens

__all__ = ["OAuth2Agent"]


@implementer(IAgent)
class OAuth2Agent:
    """
    Send a token with requests to some origin servers, unasked.

    Requests to others, and those that have an Authorization field, pass as they
    are.  A token that a server calls invalid is replaced, and the request sent once
    more, if its content can be: had it been sent whole, and is it rewindable or no
    longer than 256 KiB.  Otherwise the caller gets the 401.

    Belongs under ``RedirectAgent``, so that the token goes to no other server.

    :param agent: Carries the requests.
    :param tokens: Has the token.
    :param origins: ``https://api.example.com``, one or several: who may see it.
    :param allow_cleartext: Let there be http origins, which everybody on the way
        sees the token with.
    :raises ValueError: An origin cannot be read, or is http.
    """

    def __init__(
        self,
        agent: IAgent,
        tokens: Tokens,
        *,
        origins: str | Iterable[str],
        allow_cleartext: bool = False,
    ) -> None:
        self._agent = agent
        self._tokens = tokens
        self._origins = Origins(origins, allow_cleartext=allow_cleartext)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Issue a request (IAgent).

        :returns: Fails with :class:`AuthenticationFailed` where there is no token.
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
        producer: IBodyProducer | None,
    ) -> IResponse:
        body = producer
        if producer is not None and not isinstance(producer, BytesBody):
            body = Repeatable(producer)

        async def send(token: Token) -> IResponse:
            headers.setRawHeaders(b"Authorization", [bearer_value(token.access_token)])
            return await self._agent.request(method, uri, headers.copy(), body)

        try:
            token = await self._tokens.get()
            response = await send(token)
            if self._may_mend(response, body):
                await discard(response)
                response = await send(await self._tokens.renew(token))
        except Exception:
            if isinstance(body, Repeatable):
                body.discard()
            raise
        if isinstance(body, Repeatable):
            body.last_leg()
        return response

    def _may_mend(self, response: IResponse, body: IBodyProducer | None) -> bool:
        """Whether another token would help, and the request can be sent again."""
        if response.code != UNAUTHORIZED or not self._tokens.can_renew:
            return False
        if isinstance(body, Repeatable) and not (body.complete and body.replayable):
            return False
        values = response.headers.getRawHeaders(b"WWW-Authenticate", [])
        return any(
            challenge.key == "bearer" and challenge.params.get("error") == INVALID_TOKEN
            for challenge in parse_challenges(values)
        )
