"""Tests of :mod:`coda_twisted.oauth.agent`: a token with each request."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.web.client import BrowserLikeRedirectAgent, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from coda_twisted.client.upload import REPLAY_LIMIT, BytesBody
from coda_twisted.errors import AuthenticationFailed
from coda_twisted.interfaces import IRewindableBody
from coda_twisted.oauth import OAuth2Agent, OAuthError, Token, Tokens
from coda_twisted.oauth.contents import Repeatable
from tests.oauth import OAuthCase
from tests.test_client_upload import Source

INVALID = (
    b"WWW-Authenticate",
    b'Bearer realm="api", error="invalid_token", error_description="expired"',
)


class AgentCase(OAuthCase):
    """An API at http://api/ that wants a token of http://as/."""

    def setUp(self) -> None:
        super().setUp()
        self.tokens = Tokens(
            self.oauth2(), token=Token("old", "r", 100.0), now=self.clock.seconds
        )
        self.oauth = self.over(self.tokens)

    def over(self, tokens: Tokens) -> OAuth2Agent:
        return OAuth2Agent(
            self.agent, tokens, origins="http://api", allow_cleartext=True
        )

    def ask(
        self,
        uri: bytes = b"http://api/things",
        method: bytes = b"GET",
        headers: Headers | None = None,
        body: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return self.oauth.request(method, uri, headers, body)

    def sent(self, host: str = "api") -> list[bytes | None]:
        """The Authorization field of each request to a host."""
        return [
            head.fields.get(b"Authorization")
            for peer in self.wire.peers
            if peer.host == host
            for head in peer.read().requests
        ]


class SendTests(AgentCase):
    """Who gets the token."""

    def test_interface(self) -> None:
        """It is an IAgent."""
        verifyObject(IAgent, self.oauth)

    def test_sent(self) -> None:
        """RFC 6750 2.1: in the Authorization field; the caller's object stays."""
        headers = Headers({b"X-A": [b"1"]})
        answer = self.ask(headers=headers)
        self.to("api").answer(200, body=b"things")
        response = self.successResultOf(answer)
        self.assertEqual(self.successResultOf(readBody(response)), b"things")
        self.assertEqual(self.sent(), [b"Bearer old"])
        self.assertEqual(headers, Headers({b"X-A": [b"1"]}))

    def test_others(self) -> None:
        """Other servers do not get it, nor does a caller's own field suffer."""
        self.ask(b"http://other/")
        self.ask(b"http://api:8080/")
        self.assertEqual(self.sent("other"), [None])
        self.assertIsNone(self.to("api").request.fields.get(b"Authorization"))
        self.ask(headers=Headers({b"authorization": [b"Basic b3du"]}))
        self.assertEqual(self.sent()[-1], b"Basic b3du")

    def test_redirected(self) -> None:
        """Under a RedirectAgent the token goes to no other server."""
        agent = BrowserLikeRedirectAgent(self.oauth)
        agent.request(b"GET", b"http://api/a", None, None)
        self.to("api").answer(302, (b"Location", b"http://api/b"))
        self.to("api").answer(302, (b"Location", b"http://evil/"))
        self.assertEqual(self.sent(), [b"Bearer old", b"Bearer old"])
        self.assertEqual(self.sent("evil"), [None])

    def test_cleartext(self) -> None:
        """RFC 6750 5.3: http origins are refused unless that is asked for."""
        self.assertRaises(
            ValueError, OAuth2Agent, self.agent, self.tokens, origins="http://api"
        )

    def test_refreshed_first(self) -> None:
        """A token that is about to end is refreshed before the request."""
        self.clock.advance(80)
        answer = self.ask(method=b"POST", body=BytesBody(b"x"))
        self.assertEqual([peer.host for peer in self.wire.peers], ["as"])
        self.tell(access_token="new")
        self.to("api").answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)
        self.assertEqual(self.sent(), [b"Bearer new"])

    def test_no_token(self) -> None:
        """Without a token nothing is sent."""
        self.oauth = self.over(Tokens())
        body = Source()
        self.failureResultOf(self.ask(body=body), AuthenticationFailed)
        self.failureResultOf(self.ask(), AuthenticationFailed)
        self.assertEqual(self.wire.peers, [])

    def test_cancelled(self) -> None:
        """Whoever no longer wants the answer drops the request."""
        answer = self.ask()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertTrue(self.to("api").dropped)


class MendTests(AgentCase):
    """A token that a server calls invalid (RFC 6750 3.1)."""

    def test_renewed(self) -> None:
        """It is refreshed, and the request sent once more."""
        answer = self.ask()
        self.to("api").answer(401, INVALID, body=b"{}")
        self.assertEqual(self.form()["refresh_token"], "r")
        self.tell(access_token="new", refresh_token="s")
        self.assertNoResult(answer)
        self.to("api").answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)
        self.assertEqual(self.sent(), [b"Bearer old", b"Bearer new"])
        apis = [peer for peer in self.wire.peers if peer.host == "api"]
        self.assertEqual(len(apis), 1, "the connection is used again")

    def test_once(self) -> None:
        """A second refusal is the caller's."""
        answer = self.ask()
        self.to("api").answer(401, INVALID)
        self.tell(access_token="new", refresh_token="s")
        self.to("api").answer(401, INVALID)
        self.assertEqual(self.successResultOf(answer).code, 401)
        self.assertEqual(self.asked(), 1)

    def test_burst(self) -> None:
        """Many requests with the same refused token cost one refresh."""
        answers = [self.ask() for _ in range(3)]
        apis = list(self.wire.peers)
        for peer in apis:
            peer.answer(401, INVALID)
        self.tell(access_token="new", refresh_token="s")
        for peer in apis:
            peer.answer(200)
        for answer in answers:
            self.assertEqual(self.successResultOf(answer).code, 200)
        self.assertEqual(self.asked(), 1)

    def test_late(self) -> None:
        """A refusal of a token that was replaced meanwhile costs none."""
        first, second = self.ask(), self.ask()
        apis = list(self.wire.peers)
        apis[0].answer(401, INVALID)
        self.tell(access_token="new", refresh_token="s")
        apis[0].answer(200)
        apis[1].answer(401, INVALID)
        apis[1].answer(200)
        self.assertEqual(self.successResultOf(first).code, 200)
        self.assertEqual(self.successResultOf(second).code, 200)
        self.assertEqual(self.asked(), 1)

    def test_other_refusals(self) -> None:
        """Only that error is about the token; all others are the caller's."""
        for status, field in (
            (401, (b"WWW-Authenticate", b'Bearer realm="api"')),
            (401, (b"WWW-Authenticate", b'Bearer error="invalid_request"')),
            (401, (b"WWW-Authenticate", b'Basic realm="api", error="invalid_token"')),
            (401, (b"X-Nothing", b"1")),
            (403, INVALID),
        ):
            answer = self.ask()
            self.to("api").answer(status, field)
            self.assertEqual(self.successResultOf(answer).code, status)
        self.assertEqual([p.host for p in self.wire.peers], ["api"])

    def test_cannot_renew(self) -> None:
        """Where there is no other token the 401 is the caller's, content and all."""
        self.oauth = self.over(Tokens(token=Token("only")))
        answer = self.ask()
        self.to("api").answer(401, INVALID, body=b"why")
        response = self.successResultOf(answer)
        self.assertEqual(self.successResultOf(readBody(response)), b"why")

    def test_not_renewed(self) -> None:
        """If it cannot be refreshed, the error says why."""
        for body in (None, BytesBody(b"x")):
            answer = self.ask(method=b"POST", body=body)
            self.to("api").answer(401, INVALID)
            self.tell(503)
            error = self.failureResultOf(answer, OAuthError).value
            self.assertEqual(error.status, 503)

    def test_long_refusal(self) -> None:
        """A refusal without end does not hold up the request."""
        answer = self.ask()
        api = self.to("api")
        api.send(b"HTTP/1.1 401 No\r\nContent-Length: 9999999\r\n")
        api.send(b": ".join(INVALID) + b"\r\n\r\n" + b"x" * 70000)
        self.assertTrue(api.dropped)
        self.tell(access_token="new")
        self.to("api").answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)


@implementer(IRewindableBody)
class Twice:
    """A body that can be sent again."""

    length = 2

    def __init__(self) -> None:
        self.rewound = 0

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(b"ab")
        return succeed(None)

    def rewind(self) -> None:
        self.rewound += 1

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class ContentTests(AgentCase):
    """Content that is needed again."""

    def mend(self, body: Any) -> list[bytes]:
        """Have a request with a body refused, and sent again; what came."""
        answer = self.ask(method=b"POST", body=body)
        self.to("api").answer(401, INVALID)
        self.tell(access_token="new", refresh_token="s")
        self.to("api").answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)
        return self.to("api").bodies

    def test_rewound(self) -> None:
        """Content that can be had again is sent again, however long it is."""
        long = b"x" * (REPLAY_LIMIT + 1)
        self.assertEqual(self.mend(BytesBody(long)), [long, long])

    def test_rewound_by_the_caller(self) -> None:
        """So is a body of the caller's that can go back to its start."""
        body = Twice()
        self.assertEqual(self.mend(body), [b"ab", b"ab"])
        self.assertEqual(body.rewound, 1)
        repeatable = Repeatable(body)
        verifyObject(IRewindableBody, repeatable)
        repeatable.rewind()
        self.assertFalse(IRewindableBody.providedBy(Repeatable(Source())))

    def test_kept(self) -> None:
        """Content that is not too long is kept."""
        source = Source()
        answer = self.ask(method=b"POST", body=source)
        source.consumer.write(b"hello")
        source.done.callback(None)
        self.to("api").answer(401, INVALID)
        self.tell(access_token="new", refresh_token="s")
        self.to("api").answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)
        self.assertEqual(self.to("api").bodies, [b"hello", b"hello"])

    def test_gone(self) -> None:
        """Content that is gone is not: the 401 is the caller's."""
        source = Source()
        answer = self.ask(method=b"POST", body=source)
        source.consumer.write(b"x" * (REPLAY_LIMIT + 1))
        source.done.callback(None)
        self.to("api").answer(401, INVALID)
        self.assertEqual(self.successResultOf(answer).code, 401)

    def test_on_its_way(self) -> None:
        """So it is where content was still being sent."""
        source = Source()
        answer = self.ask(method=b"POST", body=source)
        source.consumer.write(b"x")
        self.to("api").answer(401, INVALID)
        self.assertEqual(self.successResultOf(answer).code, 401)
        self.assertEqual([p.host for p in self.wire.peers], ["api"])
