"""A network in memory: servers that listen there, and clients that reach them."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet import error as errors
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.components import proxyForInterface
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.configure import make_client
from coda_twisted.client.exchange import Client
from coda_twisted.testing.certificates import Authority
from coda_twisted.testing.exchanges import Handler, hello
from coda_twisted.testing.memory import Pump, connect
from coda_twisted.testing.servers import FakeOrigin, FakeProxy, FakeServer
from coda_twisted.testing.trust import Immediately, Trust
from coda_twisted.testing.verdicts import Scheme
from coda_twisted.testing.workers import InlineWorkers

__all__ = ["FakeNetwork"]


class FakeNetwork:
    """
    Connects clients and servers in memory, without a reactor.

    Nothing travels by itself: the agents that it makes see to that after each request,
    and otherwise :meth:`pump` does, or the clock when it is advanced.

    :param clock: Tells the time to all; a reactor will do, too.
    :ivar clock: A :class:`~twisted.internet.task.Clock`, unless given.
    """

    def __init__(self, clock: Any = None) -> None:
        self.clock: Any = Clock() if clock is None else clock
        self._pump = Pump(self.clock)
        self._authority: Authority | None = None
        self._listening: dict[tuple[str, int], IProtocolFactory] = {}
        self._hosts: dict[str, str] = {}

    # What listens

    def listen(
        self, host: str, port: int, factory: IProtocolFactory, *, tls: bool = False
    ) -> None:
        """
        Let a server listen, any server.

        :param tls: Let it speak TLS, with a certificate that the network's agents
            trust.
        """
        if tls:
            server = self._authorities().server(host)
            wrapped = TLSMemoryBIOFactory(server, False, factory, self.clock)
            wrapped.protocol = TLSMemoryBIOProtocol
            factory = wrapped
        self._listening[host.lower(), port] = factory
        self._address(host)

    def refuse(self, host: str, port: int) -> None:
        """Let nobody listen there any more; open connections stay."""
        self._listening.pop((host.lower(), port), None)

    def add_proxy(
        self,
        *schemes: str | Scheme,
        url: str = "http://proxy.test:3128",
        **settings: Any,
    ) -> FakeProxy:
        """
        Let a proxy listen; origin servers of the network are behind it.

        :param schemes: What it demands: ``"ntlm"``, ``"digest"``, ``Digest(...)``.
        :param url: Where; TLS if it begins with ``https``.
        :param settings: As :class:`~coda_twisted.testing.servers.FakeProxy` takes them:
            *users*, *accounts*, *quirks*.
        """
        settings.setdefault("endpoint_for", self.endpoint_for)
        settings.setdefault("tls", self.tls())
        proxy = FakeProxy(self.clock, *schemes, **settings)
        self._listen_at(url, proxy)
        return proxy

    def add_origin(
        self,
        url: str,
        handler: Handler = hello,
        *schemes: str | Scheme,
        **settings: Any,
    ) -> FakeOrigin:
        """
        Let an origin server listen.

        :param url: Its root: ``https://site.test``.
        :param handler: Answers requests with status, fields and body.
        :param schemes: What it demands; nothing by default.
        :param settings: As :class:`~coda_twisted.testing.servers.FakeOrigin` takes
            them.
        """
        origin = FakeOrigin(self.clock, handler, *schemes, **settings)
        self._listen_at(url, origin)
        return origin

    def _listen_at(self, url: str, server: FakeServer) -> None:
        uri = URI.fromBytes(url.encode("ascii"))
        host = uri.host.decode("ascii").strip("[]")
        self.listen(host, uri.port, server, tls=uri.scheme == b"https")
        server.url = url

    # Who connects

    def endpoint_for(
        self, host: str, port: int, *, tls: bool = False
    ) -> IStreamClientEndpoint:
        """
        Make the endpoint that reaches a server of this network.

        Its ``connect`` fails with ``DNSLookupError`` for a host that nobody has, and
        with ``ConnectionRefusedError`` where nobody listens.

        :param tls: Speak TLS, and verify the server.
        """
        endpoint: IStreamClientEndpoint = _Endpoint(self, host, port)
        if tls:
            name = host.encode("ascii")
            creator = self.tls().creatorForNetloc(name, port)
            endpoint = wrapClientTLS(creator, endpoint)
        return endpoint

    def settings(self) -> dict[str, Any]:
        """
        Say how a client is tied to this network.

        For programs that make their own:
        ``Agent(network.clock, proxy=..., **network.settings())``.
        """
        return {
            "endpoint_for": self.endpoint_for,
            "tls": self.tls(),
            "workers": InlineWorkers(),
        }

    def client(self, **settings: Any) -> Client:
        """
        Make a client in this network, which :meth:`pump` keeps going.

        :param settings: As :func:`~coda_twisted.client.configure.make_client` takes
            them: *proxy*, *credentials*, *policy*.  Without *proxy* it goes directly.
        """
        settings = {"proxy": None, **self.settings(), **settings}
        for name in ("tls", "proxy_tls"):
            if settings.get(name) is not None:
                settings[name] = Immediately(settings[name])
        return make_client(self.clock, **settings)

    def agent(self, **settings: Any) -> ClientAgent:
        """
        Make an agent in this network.

        By the time ``request`` returns, all has happened that can without the clock:
        the Deferred has fired, unless a server is slow.

        :param settings: As :meth:`client` takes them.
        """
        return _Agent(self, self.client(**settings))

    def tls(self) -> IPolicyForHTTPS:
        """
        Make what verifies the network's TLS servers.

        Fit for clients of :func:`twisted.internet.endpoints.wrapClientTLS`, too:
        what they write is not held back until the reactor turns.
        """
        policy: IPolicyForHTTPS = Immediately(Trust(self._authorities))
        return policy

    # Time

    def pump(self) -> None:
        """Let all travel that is under way."""
        self._pump.run()

    def advance(self, seconds: float) -> None:
        """
        Let time pass, and all travel that is under way then.

        Unlike the clock's own ``advance`` it stops at every moment at which something
        is due, so that what follows from that is due in its turn.
        """
        end = self.clock.seconds() + seconds
        self._pump.run()
        while moments := [
            call.getTime()
            for call in self.clock.getDelayedCalls()
            if call.getTime() <= end
        ]:
            self.clock.advance(max(min(moments) - self.clock.seconds(), 0.0))
            self._pump.run()
        self.clock.advance(max(end - self.clock.seconds(), 0.0))

    # For endpoints

    def connect(
        self, host: str, port: int, factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        """Connect to a server when the pump comes round; for endpoints to call."""
        connected: Deferred[IProtocol] = Deferred(lambda _: self._pump.cancel(attempt))

        def attempt() -> None:
            server = self._listening.get((host.lower(), port))
            if server is None:
                known = host.lower() in self._hosts
                error = (
                    errors.ConnectionRefusedError if known else errors.DNSLookupError
                )
                connected.errback(error(f"{host}:{port} in memory"))
                return
            client_address = IPv4Address("TCP", "198.51.100.1", 49152)
            server_address = IPv4Address("TCP", self._address(host), port)
            accepting = server.buildProtocol(client_address)
            connecting = factory.buildProtocol(server_address)
            if accepting is None or connecting is None:
                connected.errback(
                    errors.ConnectionRefusedError("no protocol was built")
                )
                return
            connect(self._pump, connecting, accepting, (client_address, server_address))
            connected.callback(connecting)

        self._pump.schedule(attempt)
        return connected

    def _nobody(self, host: str, port: int) -> Exception:
        where = f"{host}:{port} in memory"
        if host.lower() in self._hosts:
            return errors.ConnectionRefusedError(where)
        return errors.DNSLookupError(where)

    def _address(self, host: str) -> str:
        """Give each host an address of its own, from RFC 5737's."""
        number = len(self._hosts)
        first = int(ipaddress.IPv4Address("203.0.113.1"))
        default = str(ipaddress.IPv4Address(first + number % 250))
        return self._hosts.setdefault(host.lower(), default)

    def _authorities(self) -> Authority:
        if self._authority is None:
            self._authority = Authority()
        return self._authority


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, network: FakeNetwork, host: str, port: int) -> None:
        self._network = network
        self._host = host
        self._port = port

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._network.connect(self._host, self._port, protocolFactory)


class _Agent(ClientAgent):
    """An agent that lets the network go on whenever it is used."""

    def __init__(self, network: FakeNetwork, client: Client) -> None:
        super().__init__(client)
        self._network = network

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Issue a request, and see it through as far as possible."""
        response = super().request(method, uri, headers, bodyProducer)
        response.addCallback(_Response, self._network)
        self._network.pump()
        return response


class _Response(proxyForInterface(IResponse)):  # type: ignore[misc]
    """A response that lets the network go on when it is read."""

    def __init__(self, response: IResponse, network: FakeNetwork) -> None:
        super().__init__(response)
        self._network = network

    def deliverBody(self, protocol: IProtocol) -> None:
        self.original.deliverBody(protocol)
        self._network.pump()
