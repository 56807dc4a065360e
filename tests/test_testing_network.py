"""Tests for :class:`coda_twisted.testing.FakeNetwork`, as other people use it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent, HTTPConnectionPool, RedirectAgent, readBody
from twisted.web.iweb import IAgent, IResponse
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from coda_twisted.auth.steps import Work
from coda_twisted.client.agent import TunnelEndpointFactory
from coda_twisted.client.configure import Agent as CodaAgent
from coda_twisted.errors import PhaseTimeout, ProxyUnreachable, TunnelRefused
from coda_twisted.testing import Answer, FakeNetwork, InlineWorkers, Quirks, Received
from coda_twisted.testing.exchanges import Handler


class Ear(Protocol):
    """Says what it is told to, and remembers what it hears."""

    transport: Any

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Shout(Factory):
    """A server that answers in upper case."""

    noisy = False

    def __init__(self) -> None:
        self.protocols: list[Any] = []

    def buildProtocol(self, addr: Any) -> Protocol:
        ear = Ear()
        ear.dataReceived = (  # type: ignore[method-assign]
            lambda data: ear.transport.write(data.upper())
        )
        self.protocols.append(ear)
        return ear


class NetworkCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = FakeNetwork()

    def get(self, agent: IAgent, url: bytes) -> tuple[int, bytes]:
        response = self.successResultOf(agent.request(b"GET", url))
        return response.code, self.successResultOf(readBody(response))


class DirectTests(NetworkCase):
    """A network without a proxy."""

    def test_origin(self) -> None:
        """An agent without settings reaches what listens."""
        origin = self.network.add_origin("http://site.test:8080")
        agent = self.network.agent()
        verifyObject(IAgent, agent)
        self.assertEqual(
            self.get(agent, b"http://site.test:8080/p?q"), (200, b"hello anybody\n")
        )
        [exchange] = origin.requests
        request = exchange.request
        self.assertEqual(request.url, b"http://site.test:8080/p?q")
        self.assertEqual((request.target, request.path), (b"/p?q", b"/p?q"))
        self.assertEqual((exchange.status, exchange.user), (200, "anybody"))

    def test_response(self) -> None:
        """A response is one in every respect."""
        self.network.add_origin(
            "https://site.test", lambda _: (404, [(b"X-A", b"b")], b"no")
        )
        agent = self.network.agent()
        pending = agent.request(b"GET", b"https://site.test/")
        response = self.successResultOf(pending)
        verifyObject(IResponse, response)
        self.assertEqual((response.code, response.phrase), (404, b"Not Found"))
        self.assertEqual(response.headers.getRawHeaders(b"x-a"), [b"b"])
        self.assertEqual(response.length, 2)
        self.assertEqual(response.request.absoluteURI, b"https://site.test/")
        response.setPreviousResponse(response)
        self.assertIs(response.previousResponse, response)

    def test_handlers(self) -> None:
        """Handlers answer with a tuple or an answer, now or later, or fail."""
        later: Deferred[Answer] = Deferred()

        async def slowly(request: Received) -> Answer:
            return await later

        def fails(request: Received) -> Answer:
            raise ValueError("on purpose")

        handlers: list[Handler] = [
            lambda request: (200, [], request.path),
            lambda request: Answer(200, body=request.path, reason=b"Fine"),
            lambda request: succeed((200, [], request.path)),
        ]
        for port, handler in enumerate(handlers, 81):
            self.network.add_origin(f"http://site.test:{port}", handler)
            url = b"http://site.test:%d/p" % port
            self.assertEqual(self.get(self.network.agent(), url), (200, b"/p"))
        self.network.add_origin("http://site.test:90", slowly)
        pending = self.network.agent().request(b"GET", b"http://site.test:90/")
        self.assertNoResult(pending)
        later.callback(Answer(204))
        self.network.pump()
        self.assertEqual(self.successResultOf(pending).code, 204)
        self.network.add_origin("http://site.test:91", fails)
        code, body = self.get(self.network.agent(), b"http://site.test:91/")
        self.assertEqual(code, 500)
        self.assertIn(b"ValueError: on purpose", body)

    def test_text_for_octets(self) -> None:
        """An answer that cannot be written is told of, and fails the test."""
        wrong: Any = lambda request: (200, [], "text")  # noqa: E731
        self.network.add_origin("http://site.test", wrong)
        pending = self.network.agent().request(b"GET", b"http://site.test/")
        self.failureResultOf(pending)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_nobody(self) -> None:
        """Hosts that nobody has, and ports on which nobody listens."""
        self.network.add_origin("http://site.test")
        agent = self.network.agent()
        for url, error in (
            (b"http://site.test:81/", ConnectionRefusedError),
            (b"http://other.test/", DNSLookupError),
        ):
            self.failureResultOf(agent.request(b"GET", url), error)
        self.network.refuse("site.test", 80)
        pending = agent.request(b"GET", b"http://site.test/")
        self.failureResultOf(pending, ConnectionRefusedError)

    def test_no_protocol(self) -> None:
        """A server that builds no protocol refuses."""
        factory = Factory()
        factory.buildProtocol = lambda addr: None  # type: ignore[method-assign]
        self.network.listen("site.test", 1, factory)
        endpoint = self.network.endpoint_for("site.test", 1)
        pending = connectProtocol(endpoint, Ear())
        self.network.pump()
        self.failureResultOf(pending, ConnectionRefusedError)

    def test_cancel(self) -> None:
        """Who gives up before the connection is there has none."""
        shout = Shout()
        self.network.listen("site.test", 1, shout)
        pending = connectProtocol(self.network.endpoint_for("site.test", 1), Ear())
        pending.cancel()
        self.network.pump()
        self.failureResultOf(pending)
        self.assertEqual(shout.protocols, [])

    def test_raw(self) -> None:
        """Any protocol may be at either end, in TLS or not."""
        for tls in (False, True):
            shout = Shout()
            self.network.listen("site.test", 7, shout, tls=tls)
            endpoint = self.network.endpoint_for("site.test", 7, tls=tls)
            pending: Deferred[Any] = connectProtocol(endpoint, Ear())
            self.network.pump()
            ear = self.successResultOf(pending)
            ear.transport.write(b"hey")
            self.network.clock.advance(0)
            self.assertEqual(ear.heard, b"HEY")
            shout.protocols[0].transport.loseConnection()
            self.network.pump()
            self.assertTrue(ear.lost.check(ConnectionDone))

    def test_other_servers(self) -> None:
        """What listens may be twisted.web's."""
        root = Resource()
        root.putChild(b"a", Resource())
        page = Resource()
        page.render_GET = lambda request: b"a page"  # type: ignore[attr-defined]
        root.putChild(b"page", page)
        site = Site(root, reactor=self.network.clock)
        self.network.listen("web.test", 80, site)
        self.assertEqual(
            self.get(self.network.agent(), b"http://web.test/page"), (200, b"a page")
        )

    def test_trust(self) -> None:
        """A server shows a certificate of its own name."""
        self.network.add_origin("https://site.test")
        self.network.add_origin("https://[2001:db8::1]:444")
        agent = self.network.agent()
        self.assertEqual(self.get(agent, b"https://site.test/")[0], 200)
        self.assertEqual(self.get(agent, b"https://[2001:db8::1]:444/")[0], 200)
        other = FakeNetwork()
        agent = self.network.agent(tls=other.tls())
        self.failureResultOf(agent.request(b"GET", b"https://site.test/"))

    def test_own_agent(self) -> None:
        """A program may make its agent itself."""
        self.network.add_origin("https://site.test")
        agent = CodaAgent(self.network.clock, proxy=None, **self.network.settings())
        pending = agent.request(b"GET", b"https://site.test/")
        self.assertNoResult(pending)
        self.network.pump()
        self.assertEqual(self.successResultOf(pending).code, 200)

    def test_under_decorators(self) -> None:
        """Twisted's own decorators go on top of it."""

        def redirect(request: Received) -> Answer:
            if request.path == b"/old":
                return Answer(302, [(b"Location", b"/new")])
            return Answer(200, body=request.path)

        self.network.add_origin("http://site.test", redirect)
        agent = RedirectAgent(self.network.agent())
        self.assertEqual(self.get(agent, b"http://site.test/old"), (200, b"/new"))

    def test_own_clock(self) -> None:
        """The time may be somebody else's."""
        network = FakeNetwork(self.network.clock)
        self.assertIs(network.clock, self.network.clock)
        network.add_origin("http://site.test", quirks=Quirks(slow=1.0))
        pending = network.agent().request(b"GET", b"http://site.test/")
        self.assertNoResult(pending)
        self.network.clock.advance(1)
        self.assertEqual(self.successResultOf(pending).code, 200)


class ProxyTests(NetworkCase):
    """A network with a proxy."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.network.add_proxy("digest", users={"me": "secret"})
        self.settings: dict[str, Any] = {
            "proxy": "http://proxy.test:3128",
            "credentials": ("me", "secret"),
        }

    def test_forwards(self) -> None:
        """Requests in absolute-form arrive in origin-form, and say by whom."""
        origin = self.network.add_origin(
            "http://site.test:8080", lambda request: (200, [(b"X", b"y")], b"hello")
        )
        agent = self.network.agent(**self.settings)
        pending = agent.request(b"GET", b"http://site.test:8080/p")
        response = self.successResultOf(pending)
        self.assertEqual(response.headers.getRawHeaders(b"X"), [b"y"])
        self.assertEqual(response.headers.getRawHeaders(b"Via"), [b"1.1 fake-proxy"])
        [exchange] = origin.requests
        self.assertEqual(exchange.request.target, b"/p")
        fields = exchange.request.fields
        self.assertEqual(fields.get(b"Host"), b"site.test:8080")
        self.assertEqual(fields.get(b"Via"), b"1.1 fake-proxy")
        self.assertNotIn(b"Proxy-Authorization", fields)
        self.assertEqual(self.proxy.requests[-1].user, "me")

    def test_unreachable(self) -> None:
        """What the proxy cannot reach is a 502; a proxy that is not there is none."""
        agent = self.network.agent(**self.settings)
        code, body = self.get(agent, b"http://nowhere.test/")
        self.assertEqual(code, 502)
        self.assertIn(b"nowhere.test cannot be reached", body)
        pending = agent.request(b"GET", b"https://nowhere.test/")
        error = self.failureResultOf(pending, TunnelRefused).value
        self.assertEqual(error.status, 502)
        self.network.refuse("proxy.test", 3128)
        self.failureResultOf(
            self.network.agent(**self.settings).request(b"GET", b"http://site.test/"),
            ProxyUnreachable,
        )

    def test_tunnel(self) -> None:
        """Any protocol goes through a tunnel, both ways, to its end."""
        shout = Shout()
        self.network.listen("shout.test", 7, shout)
        client = self.network.client(**self.settings)
        ear = self.connected(client.endpoint("shout.test", 7))
        ear.transport.write(b"hey")
        self.network.pump()
        self.assertEqual(ear.heard, b"HEY")
        self.assertEqual(self.proxy.requests[-1].request.url, b"shout.test:7")
        shout.protocols[0].transport.loseConnection()
        self.network.pump()
        self.assertTrue(ear.lost.check(ConnectionDone))

    def connected(self, endpoint: Any) -> Any:
        pending = connectProtocol(endpoint, Ear())
        self.network.pump()
        return self.successResultOf(pending)

    def test_tunnel_reset(self) -> None:
        """What is reset on one side is reset on the other."""
        shout = Shout()
        self.network.listen("shout.test", 7, shout)
        client = self.network.client(**self.settings)
        for reset in ("near", "far"):
            ear = self.connected(client.endpoint("shout.test", 7))
            side, other = shout.protocols[-1], ear
            if reset == "near":
                side, other = other, side
            side.transport.abortConnection()
            self.network.pump()
            self.assertTrue(other.lost.check(ConnectionLost), reset)

    def test_killed(self) -> None:
        """A test may kill the proxy in the middle of everything."""
        shout = Shout()
        self.network.listen("shout.test", 7, shout)
        client = self.network.client(**self.settings)
        ear = self.connected(client.endpoint("shout.test", 7))
        self.assertEqual(len(self.proxy.connections), 1)
        self.proxy.close()
        self.network.pump()
        self.assertTrue(ear.lost.check(ConnectionLost))
        self.assertTrue(shout.protocols[0].lost.check(ConnectionLost))
        self.assertEqual(self.proxy.connections, [])

    def test_stock_agent(self) -> None:
        """Twisted's own agent goes through our tunnels."""
        self.network.add_origin("https://site.test")
        self.network.add_origin("http://site.test")
        factory = TunnelEndpointFactory(
            self.network.client(**self.settings), self.network.tls()
        )
        clock = self.network.clock
        agent = Agent.usingEndpointFactory(
            clock, factory, HTTPConnectionPool(clock, persistent=False)
        )
        for url in (b"http://site.test/", b"https://site.test/"):
            pending = agent.request(b"GET", url)
            self.network.pump()
            response = self.successResultOf(pending)
            self.assertEqual(response.code, 200)

    def test_changes_while_it_runs(self) -> None:
        """Quirks come and go; times out who waits for a slow one."""
        self.network.add_origin("http://site.test")
        agent = self.network.agent(**self.settings)
        self.assertEqual(self.get(agent, b"http://site.test/")[0], 200)
        self.proxy.quirks = Quirks(slow=1000.0)
        pending = agent.request(b"GET", b"http://site.test/")
        self.network.advance(121)
        self.failureResultOf(pending, PhaseTimeout)
        self.proxy.quirks = Quirks()
        self.assertEqual(self.get(agent, b"http://site.test/")[0], 200)

    def test_two_proxies(self) -> None:
        """A proxy may be behind another; each counts for itself."""
        self.network.add_origin("http://site.test")
        far = self.network.add_proxy(
            "ntlm", url="http://far.test:8080", users={"me": "other"}
        )
        client = self.network.client(**self.settings)
        agent = self.network.agent(
            proxy="http://far.test:8080",
            credentials=("me", "other"),
            endpoint_for=client.endpoint,
        )
        self.assertEqual(self.get(agent, b"http://site.test/")[0], 200)
        self.assertEqual((far.accounts.logons(), self.proxy.accounts.logons()), (1, 1))

    def test_repr(self) -> None:
        """A server shows no password."""
        self.assertEqual(repr(self.proxy), "<FakeProxy Digest, Accounts(['me'])>")
        self.assertEqual(
            repr(FakeNetwork().add_proxy()), "<FakeProxy open to all, Accounts([])>"
        )

    def test_no_timers_left(self) -> None:
        """A client that is closed leaves nothing on the clock."""
        self.network.add_origin("https://site.test")
        agent = self.network.agent(**self.settings)
        self.get(agent, b"https://site.test/")
        closed = agent.client.close()
        self.proxy.close()
        self.network.advance(60)
        self.successResultOf(closed)
        self.assertEqual(self.network.clock.getDelayedCalls(), [])


class WorkerTests(SynchronousTestCase):
    """Work that is done at once."""

    def test_run(self) -> None:
        """It returns, or raises, before anybody waits."""
        workers = InlineWorkers()
        self.assertEqual(self.successResultOf(workers.run(Work(lambda: 7))), 7)
        self.failureResultOf(workers.run(Work(lambda: 1 // 0)), ZeroDivisionError)
        workers.stop()
