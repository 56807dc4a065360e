"""One request, from its route to its response: what every face calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.web.iweb import IPolicyForHTTPS

from coda_twisted.auth.layer import AuthLayer, Context
from coda_twisted.auth.memory import Memories
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import AuthRequest, Peer, Role
from coda_twisted.client.connection import HTTPConnection
from coda_twisted.client.connector import Connector, EndpointMaker
from coda_twisted.client.guard import LogonGuard
from coda_twisted.client.legs import Legs, send_plain
from coda_twisted.client.logon import Logon
from coda_twisted.client.pool import Pool
from coda_twisted.client.request import Outgoing, Request
from coda_twisted.client.response import Response, collect
from coda_twisted.client.timeouts import KeepAlive, Timeouts
from coda_twisted.client.tls import TLSPolicy, channel_bindings
from coda_twisted.client.tunnel import TunnelEndpoint
from coda_twisted.client.workers import RunsWork, ThreadWorkers
from coda_twisted.credentials import NoCredentials
from coda_twisted.errors import PhaseTimeout, ProxyUnreachable, TunnelRefused
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.targets import format_authority
from coda_twisted.interfaces import ICredentials, ICredentialSource, IRouter
from coda_twisted.routing.routes import Direct, HTTPProxy, Route

__all__ = ["Client"]

REFUSAL_LIMIT = 4096
"""Octets of a refused CONNECT's content that are kept to be shown."""


@dataclass(frozen=True, slots=True)
class _Lane:
    """
    What makes connections interchangeable.

    :ivar route: The way.
    :ivar origin: Scheme, host and port of the origin server, where the connection
        ends there; ``None`` where it ends at a proxy.
    :ivar identity: Whose connection it is to the proxy.
    :ivar pin: Who has it alone.
    """

    route: Route
    origin: tuple[str, str, int] | None
    identity: Hashable = None
    pin: Hashable = None


class Client:
    """
    Carry requests and tunnels along their routes, and authenticate on the way.

    :param reactor: Reactor or clock; every timer and endpoint is made with it.
    :param router: Decides the way.
    :param credentials: Finds who we are to each proxy; nobody by default.
    :param policy: Which schemes are acceptable.
    :param tls: Verifies origin servers.
    :param proxy_tls: Verifies proxies; *tls* by default.
    :param guard: Shared by all clients that use the same passwords; by default
        one for all that use the reactor.
    :param workers: Runs blocking work; a thread pool by default.
    :param endpoint_for: See :class:`~coda_twisted.client.connector.Connector`.
    :param entropy: Source of client nonces.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        router: IRouter,
        credentials: ICredentialSource | None = None,
        policy: AuthPolicy | None = None,
        timeouts: Timeouts | None = None,
        keep_alive: KeepAlive | None = None,
        tls: IPolicyForHTTPS | None = None,
        proxy_tls: IPolicyForHTTPS | None = None,
        guard: LogonGuard | None = None,
        workers: RunsWork | None = None,
        endpoint_for: EndpointMaker | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._reactor = reactor
        self._router = router
        self._credentials = credentials or NoCredentials()
        self._policy = policy or AuthPolicy()
        self._timeouts = timeouts or Timeouts()
        self._tls = tls or TLSPolicy()
        self._proxy_tls = proxy_tls or self._tls
        self._guard = guard or LogonGuard.of(reactor)
        self._workers = workers or ThreadWorkers(reactor)
        self._entropy = entropy
        self._memories = Memories()
        self._connector = Connector(
            reactor, self._timeouts, keep_alive or KeepAlive(), endpoint_for
        )
        self._pool = Pool(reactor, idle=self._timeouts.idle)

    def request(self, request: Request) -> Deferred[Response]:
        """
        Send one request.

        :returns: Fires with the final response's head; cancelling it drops the
            request.
        :raises AuthenticationFailed: A proxy's challenge cannot be answered.
        :raises ProxyUnreachable: No proxy of the route can be reached.
        :raises TunnelRefused: A proxy refused the tunnel that https needs.
        :raises PhaseTimeout: A phase took too long.
        :raises ConnectionEnded: The peer closed before it answered.
        """
        return self._limited(Deferred.fromCoroutine(self._request(request)))

    def endpoint(
        self, host: str, port: int, *, fields: Fields | None = None
    ) -> TunnelEndpoint:
        """
        Make an endpoint that reaches a TCP port by way of the route.

        :param fields: To be sent with CONNECT: a User-Agent.
        """
        return TunnelEndpoint(self, host, port, fields=fields)

    def release(self, pin: Hashable) -> None:
        """Close the idle connections that were kept for one alone, who is gone."""
        self._pool.close_idle(lambda lane: isinstance(lane, _Lane) and lane.pin is pin)

    def close(self) -> Deferred[None]:
        """
        Close what is idle, abort what is in use; tunnels belong to their users.

        :returns: Fires when every connection is closed.
        """
        self._workers.stop()
        return self._pool.close()

    # Requests

    def _limited(self, response: Deferred[Any]) -> Deferred[Any]:
        total = self._timeouts.total
        if total is not None:
            response.addTimeout(
                total, self._reactor, lambda _, limit: _too_long("total", limit)
            )
        return response

    async def _request(self, request: Request) -> Response:
        routes = self._router.routes(request.scheme, request.host, request.port)
        for route in routes[:-1]:
            try:
                return await self._by(route, request)
            except (ProxyUnreachable, ConnectError, DNSLookupError) as error:
                if isinstance(error, TunnelRefused):
                    raise
        return await self._by(routes[-1], request)

    async def _by(self, route: Route, request: Request) -> Response:
        forwards = isinstance(route, HTTPProxy) and request.scheme == "http"
        if isinstance(route, HTTPProxy) and forwards:
            credentials = await self._credentials_for(route)
            outgoing = request.outgoing(
                through_proxy=True, replayable=credentials is not None
            )
            response = await self._to_proxy(
                route, credentials, outgoing, pin=request.pin
            )
        else:
            identity = None
            if isinstance(route, HTTPProxy):
                credentials = await self._credentials_for(route)
                identity = credentials and credentials.identity
            origin = (request.scheme, request.host, request.port)
            lane = _Lane(route, origin, identity, request.pin)
            fields = _for_connect(request.fields)
            response = await send_plain(
                self._leaser(lane, partial(self._to_origin, route, origin, fields)),
                request.outgoing(through_proxy=False, replayable=False),
                self._timeouts.expect,
            )
        response.route = route
        return response

    def _leaser(self, lane: _Lane, connect: Any) -> Any:
        async def lease(fresh: bool) -> HTTPConnection:
            return await self._pool.lease(lane, connect, fresh=fresh)

        return lease

    async def _to_origin(
        self, route: Route, origin: tuple[str, str, int], fields: Fields
    ) -> HTTPConnection:
        scheme, host, port = origin
        if isinstance(route, Direct):
            endpoint = self._connector.tcp(host, port)
        else:
            endpoint = TunnelEndpoint(self, host, port, fields=fields, route=route)
        tls = (self._tls, host, port) if scheme == "https" else None
        return await self._connector.open(endpoint, tls)

    # Proxies

    async def _credentials_for(self, proxy: HTTPProxy) -> ICredentials | None:
        found = self._credentials.credentials_for(_peer(proxy))
        return await found if isinstance(found, Deferred) else found

    async def _to_proxy(
        self,
        proxy: HTTPProxy,
        credentials: ICredentials | None,
        outgoing: Outgoing,
        *,
        pin: Hashable = None,
    ) -> Response:
        """Send a request to a proxy, answering its challenges."""
        identity = None if credentials is None else credentials.identity
        lease = self._leaser(
            _Lane(proxy, None, identity, pin), partial(self._open_proxy, proxy)
        )
        if credentials is None:
            return await send_plain(lease, outgoing, self._timeouts.expect)
        peer = _peer(proxy)
        logon = Logon(peer, credentials, self._guard, self._workers)
        legs = Legs(
            outgoing,
            Role.PROXY,
            logon,
            lease,
            partial(self._layer, peer, credentials),
            self._reactor,
            self._timeouts.expect,
        )
        try:
            response = await legs.run()
        except Exception:
            logon.dropped()
            raise
        logon.dropped()
        return response

    def _layer(
        self, peer: Peer, credentials: ICredentials, connection: HTTPConnection
    ) -> AuthLayer:
        context = Context(
            policy=self._policy,
            memory=self._memories.of(peer, credentials.identity),
            channel_bindings=channel_bindings(connection.transport),
            entropy=self._entropy,
        )
        return AuthLayer(peer, credentials, context)

    async def _open_proxy(self, proxy: HTTPProxy) -> HTTPConnection:
        tls = None
        if proxy.scheme == "https":
            tls = (self._proxy_tls, proxy.host, proxy.port)
        try:
            return await self._connector.open(
                self._connector.tcp(proxy.host, proxy.port), tls
            )
        except PhaseTimeout:
            raise
        except Exception as error:
            raise ProxyUnreachable(str(proxy), _in_words(error)) from error

    # Tunnels

    async def tunnel(
        self,
        host: str,
        port: int,
        factory: IProtocolFactory,
        *,
        fields: Fields | None = None,
        route: Route | None = None,
    ) -> IProtocol:
        """
        Connect a protocol to a TCP port, through CONNECT where the route says so.

        :param route: The only way to try; by default what the router says.
        :returns: What *factory* built, connected.
        """
        routes = [route] if route else self._router.routes("tunnel", host, port)
        for candidate in routes[:-1]:
            try:
                return await self._tunnel_by(candidate, host, port, factory, fields)
            except (ProxyUnreachable, ConnectError, DNSLookupError) as error:
                if isinstance(error, TunnelRefused):
                    raise
        return await self._tunnel_by(routes[-1], host, port, factory, fields)

    async def _tunnel_by(
        self,
        route: Route,
        host: str,
        port: int,
        factory: IProtocolFactory,
        fields: Fields | None,
    ) -> IProtocol:
        if isinstance(route, Direct):
            return await self._connector.tcp(host, port).connect(factory)
        authority = format_authority(host, port)
        response = await self._to_proxy(
            route,
            await self._credentials_for(route),
            Outgoing(
                method=b"CONNECT",
                target=authority,
                auth=AuthRequest(b"CONNECT", authority, authority),
                fields=Fields([(b"Host", authority), *(fields or ())]),
            ),
        )
        if not response.takes_over:
            raise await self._refusal(response)
        protocol = factory.buildProtocol(_address(host, port))
        if protocol is None:
            response.abort()
            raise ConnectError(string="the factory built no protocol")
        response.detach(protocol)
        return protocol

    async def _refusal(self, response: Response) -> TunnelRefused:
        head = response.head
        body, _ = await collect(response, REFUSAL_LIMIT, 5.0, self._reactor)
        return TunnelRefused(
            head.status, head.reason.decode("latin-1"), head.fields, body
        )


def _peer(proxy: HTTPProxy) -> Peer:
    return Peer(Role.PROXY, proxy.scheme, proxy.host, proxy.port)


def _address(host: str, port: int) -> Any:
    """Name the tunnel's end as Twisted names addresses."""
    try:
        version = ip_address(host).version
    except ValueError:
        return HostnameAddress(host.encode("ascii"), port)
    return (IPv4Address if version == 4 else IPv6Address)("TCP", host, port)


def _for_connect(fields: Fields) -> Fields:
    """Choose what a proxy may see of a request that travels inside its tunnel."""
    agent = fields.get(b"User-Agent")
    return Fields() if agent is None else Fields([(b"User-Agent", agent)])


def _in_words(error: Exception) -> str:
    """Say why a connection failed, for people."""
    if isinstance(error, SSL.Error):
        details = [entry[-1] for entry in error.args[0] if entry] if error.args else []
        return "TLS failed: " + (", ".join(map(str, details)) or "no reason given")
    return str(error) or type(error).__name__


def _too_long(phase: str, limit: float) -> Any:
    raise PhaseTimeout(phase, limit)
