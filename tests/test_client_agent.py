"""Tests for :mod:`coda_twisted.client.agent`."""

from __future__ import annotations

import zlib
from http.cookiejar import CookieJar
from io import BytesIO
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import (
    URI,
    ContentDecoderAgent,
    CookieAgent,
    FileBodyProducer,
    GzipDecoder,
    PartialDownloadError,
    RedirectAgent,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
    readBody,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IAgentEndpointFactory, IResponse
from zope.interface.verify import verifyObject

from coda_twisted.client.agent import ClientAgent, TunnelEndpointFactory
from coda_twisted.client.exchange import Client
from coda_twisted.errors import LocalProtocolError, RemoteProtocolError
from coda_twisted.routing.routes import Direct, StaticRouter
from tests.wire import Peer, Wire


class AgentCase(SynchronousTestCase):
    """An agent without a proxy, and the test in place of the server."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.client = Client(
            self.clock,
            router=StaticRouter(Direct()),
            endpoint_for=self.wire.endpoint_for,
        )
        self.agent = ClientAgent(self.client)

    @property
    def peer(self) -> Peer:
        return self.wire.peers[-1]

    def get(
        self, uri: bytes = b"http://site/", headers: Headers | None = None
    ) -> Deferred[IResponse]:
        return self.agent.request(b"GET", uri, headers)


class RequestTests(AgentCase):
    """What an agent's caller asks, and what goes out."""

    def test_interface(self) -> None:
        """It is an IAgent, keywords included."""
        verifyObject(IAgent, self.agent)
        self.agent.request(
            method=b"GET", uri=b"http://site/", headers=None, bodyProducer=None
        )
        self.assertEqual(self.peer.request.method, b"GET")

    def test_fields(self) -> None:
        """The caller's fields go out; the caller's object is left alone."""
        headers = Headers(
            {b"X-A": [b"1", b"2"], b"Connection": [b"x-b"], b"X-B": [b"3"]}
        )
        before = headers.copy()
        self.get(b"http://site/p#fragment", headers)
        self.assertEqual(headers, before)
        sent = self.peer.request
        self.assertEqual(sent.target, b"/p")
        self.assertEqual(
            list(sent.fields), [(b"Host", b"site"), (b"X-A", b"1"), (b"X-A", b"2")]
        )

    def test_close(self) -> None:
        """A caller that says close gets a connection of its own."""
        self.get(headers=Headers({b"Connection": [b"close"]}))
        self.assertEqual(self.peer.request.fields.get(b"Connection"), b"close")

    def test_host(self) -> None:
        """The host's case is no part of its name."""
        self.get(b"HTTP://SITE:80/")
        self.assertEqual(self.peer.host, "site")
        self.assertEqual(self.peer.request.fields.get(b"Host"), b"site")

    def test_body(self) -> None:
        """Framing is made from the producer, whatever the caller's fields say."""
        body = FileBodyProducer(BytesIO(b"hello"), _Now())
        self.agent.request(
            b"POST",
            b"http://site/",
            Headers({b"Content-Length": [b"999"], b"Transfer-Encoding": [b"x"]}),
            body,
        )
        self.assertEqual(self.peer.request.fields.get(b"Content-Length"), b"5")
        self.assertNotIn(b"Transfer-Encoding", self.peer.request.fields)
        self.assertEqual(self.peer.bodies, [b"hello"])

    def test_bad_requests(self) -> None:
        """What cannot be sent fails before anything is sent."""
        bad: list[tuple[Any, ...]] = [
            (b"GET", b"/relative"),
            (b"GET", b"ftp://site/"),
            (b"G T", b"http://site/"),
            (b"GET", b"http://site/\r\nX: y"),
            (b"GET", b"http://user:secret@site/"),
            (b"GET", b"http://site:99999/"),
        ]
        for arguments in bad:
            with self.subTest(arguments):
                reason = self.failureResultOf(self.agent.request(*arguments))
                reason.trap(LocalProtocolError, RemoteProtocolError)
                self.assertNotIn("secret", str(reason.value))
        self.failureResultOf(
            self.agent.request("GET", "http://site/"),  # type: ignore[arg-type]
            TypeError,
        )
        self.assertEqual(self.wire.peers, [])


class _Now:
    """A cooperator that does all at once."""

    def cooperate(self, steps: Any) -> Any:
        for _ in steps:
            pass
        return self

    def whenDone(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done


class Body(Protocol):
    """Remembers what came, and how it ended."""

    def __init__(self) -> None:
        self.data = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class ResponseTests(AgentCase):
    """What an agent's caller gets."""

    def respond(self, raw: bytes, method: bytes = b"GET") -> Any:
        answer = self.agent.request(method, b"http://site/")
        self.peer.send(raw)
        return self.successResultOf(answer)

    def test_response(self) -> None:
        """Everything of IResponse is there, hop-by-hop fields are not."""
        response = self.respond(
            b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: x-b\r\n"
            b"X-A: 1\r\nX-B: 2\r\n\r\nok"
        )
        verifyObject(IResponse, response)
        self.assertEqual(
            (response.version, response.code, response.phrase, response.length),
            ((b"HTTP", 1, 1), 200, b"Fine", 2),
        )
        self.assertEqual(list(response.headers.getAllRawHeaders()), [(b"X-A", [b"1"])])
        self.assertEqual(response.request.absoluteURI, b"http://site/")
        self.assertEqual(response.request.method, b"GET")
        self.assertEqual(response.request.headers, Headers())
        self.assertIn("200", repr(response))
        response.setPreviousResponse(response)
        self.assertIs(response.previousResponse, response)
        response.setPreviousResponse(None)
        self.assertEqual(self.successResultOf(readBody(response)), b"ok")

    def test_head(self) -> None:
        """HEAD tells the length of what GET would give."""
        response = self.respond(
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b"HEAD"
        )
        self.assertEqual(response.length, 0)
        self.assertEqual(response.headers.getRawHeaders(b"content-length"), [b"7"])
        self.assertEqual(self.successResultOf(readBody(response)), b"")

    def test_reasons(self) -> None:
        """The body's end is told in the words that Twisted's readers know."""
        for raw, close, expected in (
            (b"Content-Length: 1\r\n\r\nx", False, ResponseDone),
            (b"Connection: close\r\n\r\nx", True, PotentialDataLoss),
            (b"Content-Length: 9\r\n\r\nx", True, ResponseFailed),
        ):
            response = self.respond(b"HTTP/1.1 200 OK\r\n" + raw)
            body = Body()
            response.deliverBody(body)
            if close:
                self.peer.close()
            self.assertEqual(body.data, b"x")
            assert body.reason is not None
            body.reason.trap(expected)
        self.assertEqual(response.length, 9)

    def test_unknown_length(self) -> None:
        """Chunked content has no length, and is whole at its end."""
        response = self.respond(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
        )
        self.assertEqual(response.length, UNKNOWN_LENGTH)
        reading = readBody(response)
        self.peer.send(b"0\r\n\r\n")
        self.assertEqual(self.successResultOf(reading), b"x")

    def test_no_answer(self) -> None:
        """A connection that ends without an answer is what Twisted calls it."""
        answer = self.get()
        self.peer.close()
        self.failureResultOf(answer, ResponseNeverReceived)

    def test_flow(self) -> None:
        """A body's protocol may pause its source."""
        response = self.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        body = Body()
        response.deliverBody(body)
        transport: Any = body.transport
        transport.pauseProducing()
        self.assertEqual(self.peer.transport.producerState, "paused")
        transport.resumeProducing()
        self.assertEqual(self.peer.transport.producerState, "producing")
        transport.stopProducing()
        self.assertTrue(self.peer.dropped)
        transport.loseConnection()

    def test_cancelled_read(self) -> None:
        """Cancelling readBody drops the connection, without a warning."""
        response = self.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        reading = readBody(response)
        reading.cancel()
        self.failureResultOf(reading)
        self.assertTrue(self.peer.dropped)
        self.assertEqual(self.flushWarnings(), [])


class DecoratorTests(AgentCase):
    """Twisted's own decorators, and treq, around it."""

    def test_redirect(self) -> None:
        """RedirectAgent follows, by our agent."""
        answer = RedirectAgent(self.agent).request(b"GET", b"http://site/a")
        self.peer.answer(302, (b"Location", b"http://other/b"))
        self.assertEqual((self.peer.host, self.peer.request.target), ("other", b"/b"))
        self.peer.answer(200, body=b"there")
        response = self.successResultOf(answer)
        self.assertEqual(response.previousResponse.code, 302)
        self.assertEqual(self.successResultOf(readBody(response)), b"there")

    def test_cookies(self) -> None:
        """CookieAgent keeps cookies."""
        agent = CookieAgent(self.agent, CookieJar())
        answer = agent.request(b"GET", b"http://site.example/")
        self.peer.answer(200, (b"Set-Cookie", b"a=b"))
        self.successResultOf(readBody(self.successResultOf(answer)))
        agent.request(b"GET", b"http://site.example/")
        self.assertEqual(self.peer.request.fields.get(b"Cookie"), b"a=b")

    def test_decoder(self) -> None:
        """ContentDecoderAgent decodes."""
        packer = zlib.compressobj(wbits=31)
        packed = packer.compress(b"hello") + packer.flush()
        agent = ContentDecoderAgent(self.agent, [(b"gzip", GzipDecoder)])
        answer = agent.request(b"GET", b"http://site/")
        self.assertIn(b"gzip", self.peer.request.fields.tokens(b"Accept-Encoding"))
        self.peer.answer(200, (b"Content-Encoding", b"gzip"), body=packed)
        self.assertEqual(
            self.successResultOf(readBody(self.successResultOf(answer))), b"hello"
        )

    def test_treq(self) -> None:
        """Through treq one gets, posts, decodes and keeps the history."""
        client = HTTPClient(self.agent)
        clock: Any = self.clock
        answer = client.post("http://site/a?x=1", data={"k": "v"}, reactor=clock)
        self.assertEqual(self.peer.request.target, b"/a?x=1")
        self.clock.advance(0)
        self.flush_uploads()
        self.peer.answer(303, (b"Location", b"/b"))
        self.peer.answer(200, (b"Content-Type", b"application/json"), body=b'{"a": 1}')
        response = self.successResultOf(answer)
        self.assertEqual(self.successResultOf(response.json()), {"a": 1})
        self.assertEqual([each.code for each in response.history()], [303])

    def flush_uploads(self) -> None:
        """Let treq's cooperative producer, which has the real reactor, be ignored."""

    def test_treq_cancel(self) -> None:
        """Cancelling a treq request drops its connection."""
        answer = HTTPClient(self.agent).get("http://site/")
        answer.cancel()
        self.failureResultOf(answer)
        self.assertTrue(self.peer.dropped)

    def test_until_close_under_read_body(self) -> None:
        """To readBody it is told what it could not be sure of."""
        answer = self.get()
        self.peer.send(b"HTTP/1.0 200 OK\r\n\r\nx")
        reading = readBody(self.successResultOf(answer))
        self.peer.close()
        error = self.failureResultOf(reading, PartialDownloadError).value
        assert isinstance(error, PartialDownloadError)
        self.assertEqual(error.response, b"x")


class FactoryTests(AgentCase):
    """Tunnels for Twisted's own Agent."""

    def test_endpoints(self) -> None:
        """Each URI gets an endpoint, TLS where its scheme says so."""
        factory = TunnelEndpointFactory(self.client)
        verifyObject(IAgentEndpointFactory, factory)
        for uri in (b"http://site/", b"https://site/"):
            endpoint = factory.endpointForURI(URI.fromBytes(uri))
            verifyObject(IStreamClientEndpoint, endpoint)
