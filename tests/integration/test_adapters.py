"""
What takes an agent or an endpoint as it is: treq, Twisted's Agent, Autobahn.

Each proxy verifies whom it serves, and each server behind it says what it got.
"""

from __future__ import annotations

import hashlib
import warnings
from io import BytesIO
from typing import Any, ClassVar

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent as TwistedAgent
from twisted.web.client import (
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseFailed,
    readBody,
)
from twisted.web.resource import Resource
from twisted.web.server import Site

from coda_twisted import (
    PasswordCredentials,
    TunnelEndpointFactory,
    TunnelRefused,
    make_client,
)
from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.guard import LogonGuard
from coda_twisted.errors import ProxyUnreachable
from tests.integration import adapters_servers, origin, squid, tools
from tests.integration.people import ALICE
from tests.integration.test_library import MIB, trust


class Elsewhere(Resource):
    """Says once that what is wanted is elsewhere."""

    isLeaf = True

    def __init__(self, url: bytes) -> None:
        super().__init__()
        self.url = url

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"Connection", b"close")
        request.redirect(self.url)
        return b""


class AdapterCase(TestCase):
    """A proxy, an origin, and a client between them."""

    timeout = 60
    scheme: ClassVar[str] = "ntlm"
    user: ClassVar[str] = ALICE.down_level

    def setUp(self) -> None:
        tools.require("squid")
        self.proxy = squid.proxy(self.scheme)
        self.proxy.reset()
        self.origin = origin.origin()
        self.origin.reset()
        self.client = make_client(
            reactor,
            proxy=self.proxy.url,
            credentials=PasswordCredentials(self.user, ALICE.password),
            tls=trust(),
            guard=LogonGuard(reactor),
        )
        self.addCleanup(self.client.close)

    def urls(self, path: str) -> tuple[str, str]:
        """Where the origin is, in clear and over TLS."""
        return self.origin.url(path), self.origin.tls_url(path)

    async def start(self, server: Any) -> Any:
        """Start a server of the tests'."""
        await server.start()
        self.addCleanup(server.stop)
        return server

    def assert_complete(self, *hashes: str) -> None:
        """These contents, and no others, reached the origin whole, once each."""
        complete = [each.sha256 for each in self.origin.requests() if each.complete]
        nothing = hashlib.sha256().hexdigest()
        self.assertEqual([each for each in complete if each != nothing], list(hashes))


class TreqTests(AdapterCase):
    """``treq.client.HTTPClient(agent)``."""

    def setUp(self) -> None:
        super().setUp()
        self.http = HTTPClient(ClientAgent(self.client))

    async def test_json(self) -> None:
        """``json=`` goes, ``json()`` comes."""
        for url in self.urls("/echo"):
            response = await self.http.post(url, json={"a": [1, 2]})
            self.assertEqual((await response.json())["length"], len(b'{"a":[1,2]}'))

    async def test_file(self) -> None:
        """A file is streamed; treq's producer cannot be rewound, and need not be."""
        content = origin.content(3 * MIB)
        for url in self.urls("/echo"):
            self.origin.reset()
            response = await self.http.put(url, data=BytesIO(content))
            self.assertEqual(response.code, 200)
            await response.content()
            self.assert_complete(hashlib.sha256(content).hexdigest())
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_files(self) -> None:
        """A multipart form with a file and a field."""
        for url in self.urls("/mirror"):
            content = FileBodyProducer(BytesIO(origin.content(MIB)))
            response = await self.http.post(
                url,
                data={"title": "a form"},
                files={"file": ("name.bin", "application/x-coda", content)},
            )
            sent = await response.content()
            self.assertIn(b'name="title"', sent)
            self.assertIn(b'filename="name.bin"', sent)
            self.assertIn(origin.content(MIB), sent)

    async def test_unbuffered(self) -> None:
        """A download is streamed to a collector."""
        for url in self.urls(f"/octets/{4 * MIB}"):
            response = await self.http.get(url, unbuffered=True)
            digest = hashlib.sha256()
            await treq.collect(response, digest.update)
            self.assertEqual(digest.hexdigest(), origin.sha256_of(4 * MIB))

    async def test_cookies(self) -> None:
        """The client's cookies are kept and sent; a request may have more."""
        for url in self.urls("/fields"):
            self.origin.reset()
            await (await self.http.get(url)).content()
            response = await self.http.get(url, cookies={"mine": "1"})
            await response.content()
            _, second = self.origin.requests()
            sent = set((second.get("Cookie") or "").split("; "))
            self.assertLessEqual({"a=1", "mine=1"}, sent)

    async def test_redirects(self) -> None:
        """A redirection from http to https goes through a tunnel of its own."""
        there = Elsewhere(self.origin.tls_url("/echo").encode())
        server = await self.start(adapters_servers.Listening(Site(there)))
        url = f"http://localhost:{server.port}/"
        response = await self.http.get(url)
        self.assertEqual(response.code, 200)
        await response.content()
        self.assertEqual([each.code for each in response.history()], [302])
        [received] = self.origin.requests()
        self.assertIsNotNone(received.tls)
        response = await self.http.get(url, allow_redirects=False)
        self.assertEqual(response.code, 302)
        await response.content()

    async def test_timeout(self) -> None:
        """``timeout=`` ends a request; the next one is served."""
        for url in self.urls("/silence/20"):
            # treq's timeout cancels.
            with self.assertRaises((CancelledError, ResponseFailed)):
                await self.http.get(url, timeout=0.5)
        for url in self.urls("/octets/10"):
            response = await self.http.get(url)
            self.assertEqual(await response.content(), origin.content(10))

    async def test_cancel(self) -> None:
        """A request is cancelled at any stage; the next one is served."""
        for delay in (0, 0.005, 0.05, 0.3):
            for url in self.urls("/silence/20"):
                asked = self.http.get(url)
                await deferLater(reactor, delay)
                asked.cancel()
                # Twisted's HostnameEndpoint tells of a name that was not found.
                with self.assertRaises(
                    (
                        CancelledError,
                        ConnectingCancelledError,
                        ResponseFailed,
                        ProxyUnreachable,
                    )
                ):
                    await asked
        for url in self.urls("/octets/10"):
            response = await self.http.get(url)
            self.assertEqual(await response.content(), origin.content(10))
        self.assertEqual(self.proxy.failed_logons(), 0)


class BasicTreqTests(TreqTests):
    """The same with Basic."""

    scheme = "basic"
    user = ALICE.name


class DigestTreqTests(TreqTests):
    """The same with Digest."""

    scheme = "digest"
    user = ALICE.name


class StockAgentTests(AdapterCase):
    """``twisted.web.client.Agent.usingEndpointFactory``."""

    def setUp(self) -> None:
        super().setUp()
        self.pool = HTTPConnectionPool(reactor)
        self.addCleanup(self.pool.closeCachedConnections)
        factory = TunnelEndpointFactory(self.client, trust())
        self.agent = TwistedAgent.usingEndpointFactory(reactor, factory, self.pool)

    async def test_both_schemes(self) -> None:
        """Both http and https go through tunnels, which its pool keeps."""
        for url in self.urls("/octets/10"):
            self.origin.reset()
            for _ in range(3):
                response = await self.agent.request(b"GET", url.encode())
                with warnings.catch_warnings():
                    # Its own transport cannot abort (twisted#8929).
                    warnings.simplefilter("ignore", DeprecationWarning)
                    reading = readBody(response)
                self.assertEqual(await reading, origin.content(10))
            connections = {each.connection for each in self.origin.requests()}
            self.assertEqual(len(connections), 1)
        methods = {each.method for each in self.proxy.requests()}
        self.assertLessEqual(methods, {"CONNECT"})
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_refused(self) -> None:
        """A refused tunnel fails the request as it is."""
        proxy = squid.SquidProxy("none", settings=["http_access deny CONNECT"])
        proxy.start()
        self.addCleanup(proxy.stop)
        client = make_client(reactor, proxy=proxy.url)
        self.addCleanup(client.close)
        agent = TwistedAgent.usingEndpointFactory(
            reactor, TunnelEndpointFactory(client, trust()), self.pool
        )
        with self.assertRaises(TunnelRefused):
            await agent.request(b"GET", self.origin.tls_url().encode())


class AutobahnTests(AdapterCase):
    """A WebSocket client over ``TunnelEndpoint``."""

    def setUp(self) -> None:
        tools.require_modules("autobahn")
        super().setUp()

    async def echo(self, *, tls: bool) -> None:
        """Say things of all sizes, and hear them."""
        from autobahn.twisted.websocket import (
            WebSocketClientFactory,
            WebSocketClientProtocol,
        )

        server = await self.start(adapters_servers.websocket_server(tls=tls))
        heard: list[bytes] = []
        said = [b"x" * size for size in (0, 1, 125, 126, 65535, 65536, 3 * MIB)]
        done: Deferred[None] = Deferred()

        def hear(payload: bytes, isBinary: bool) -> None:
            heard.append(payload)
            if len(heard) == len(said) + 1:
                done.callback(None)

        factory = WebSocketClientFactory(
            f"{'wss' if tls else 'ws'}://localhost:{server.port}"
        )
        factory.protocol = WebSocketClientProtocol
        endpoint: Any = self.client.endpoint("localhost", server.port)
        if tls:
            creator = trust().creatorForNetloc(b"localhost", server.port)
            endpoint = wrapClientTLS(creator, endpoint)
        client = await endpoint.connect(factory)
        client.onMessage = hear
        await client.is_open
        for each in said:
            client.sendMessage(each, isBinary=True)
        await done
        self.assertEqual(heard, [b"hello", *said])
        client.sendClose()
        await client.is_closed

    def test_ws(self) -> Deferred[None]:
        """In clear."""
        return Deferred.fromCoroutine(self.echo(tls=False))

    def test_wss(self) -> Deferred[None]:
        """Over TLS."""
        return Deferred.fromCoroutine(self.echo(tls=True))
