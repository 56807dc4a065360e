"""One request, from its route to its response: what every face calls."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar

from OpenSSL import SSL
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    DNSLookupError,
)
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS

from coda_twisted.auth.layer import AuthLayer, Context
from coda_twisted.auth.memory import Memories
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import AuthRequest, Peer, Role
from coda_twisted.client.connection import HTTPConnection
from coda_twisted.client.connector import Connector, EndpointMaker
from coda_twisted.client.guard import LogonGuard
from coda_twisted.client.lanes import Lane, lane_for, proxy_peer, who
from coda_twisted.client.legs import Lease, Legs, Party, send_plain
from coda_twisted.client.logon import Logon
from coda_twisted.client.pool import Pool
from coda_twisted.client.request import Outgoing, Request
from coda_twisted.client.response import Response, collect
from coda_twisted.client.timeouts import KeepAlive, Timeouts
from coda_twisted.client.tls import TLSPolicy, channel_bindings
from coda_twisted.client.tunnel import TunnelEndpoint
from coda_twisted.client.workers import RunsWork, ThreadWorkers
from coda_twisted.credentials import NoCredentials
from coda_twisted.errors import (
    ConnectionEnded,
    PhaseTimeout,
    ProxyUnreachable,
    SessionsNotKept,
    TunnelRefused,
)
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.targets import format_authority
from coda_twisted.interfaces import ICredentials, ICredentialSource, IRouter
from coda_twisted.routing.routes import Direct, HTTPProxy, Route

__all__ = ["Client"]

REFUSAL_LIMIT = 4096
"""Octets of a refused CONNECT's content that are kept to be shown."""


_Found = ICredentials | Deferred[ICredentials | None] | None


_Result = TypeVar("_Result")


class _Who(NamedTuple):
    """
    Who we are on one way.

    :ivar user: To the origin server.
    :ivar borrower: To the proxy.
    """

    origin: Peer
    user: Any
    borrower: Any


class _Attempt(NamedTuple):
    """
    One way of sending a request.

    :ivar forwards: Whether a proxy gets the request itself, not a tunnel.
    :ivar fresh: Take no idle connection.
    :ivar begun: A leg that was sent already, and its answer.
    """

    route: Route
    request: Request
    us: _Who
    forwards: bool
    fresh: bool
    begun: tuple[HTTPConnection, Response] | None


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
        :raises AuthenticationFailed: A challenge cannot be answered.
        :raises ProxyUnreachable: No proxy of the route can be reached.
        :raises TunnelRefused: A proxy refused the tunnel that https needs.
        :raises PhaseTimeout: A phase took too long.
        :raises ConnectionEnded: The peer closed before it answered.
        """
        try:
            routes = self._routes(request.scheme, request.host, request.port)
            us = self._who_are_we(routes[0], request)
        except Exception:  # a router's or a source's, of whatever kind
            return fail()
        response = None
        if request.body is None:
            response = self._at_once(routes, request, us)
        if response is None:
            response = Deferred.fromCoroutine(self._request(routes, request, us))
        total = self._timeouts.total
        if total is not None:
            response.addTimeout(
                total, self._reactor, lambda _, limit: _too_long("total", limit)
            )
        return response

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
        self._pool.close_idle(lambda lane: isinstance(lane, Lane) and lane.pin is pin)

    def close_idle(self) -> None:
        """Close the connections that wait for their next request."""
        self._pool.close_idle()

    def retire(self) -> Deferred[None]:
        """
        Close what is idle now, and what is in use as soon as it is idle.

        What was asked for goes on; nothing new should be.

        :returns: Fires when every connection is closed.
        """
        return self._pool.retire().addCallback(lambda _: self._workers.stop())

    def close(self) -> Deferred[None]:
        """
        Close what is idle, abort what is in use; tunnels belong to their users.

        :returns: Fires when every connection is closed.
        """
        self._workers.stop()
        return self._pool.close()

    # Requests

    def _routes(self, scheme: str, host: str, port: int) -> Sequence[Route]:
        routes = self._router.routes(scheme, host, port)
        if not routes:
            raise ValueError("the router names no route")
        return routes

    def _who_are_we(self, route: Route, request: Request) -> _Who:
        """Find out who we are to everybody on the way, if need be later."""
        user = None
        origin = Peer(Role.ORIGIN, request.scheme, request.host, request.port)
        if b"Authorization" not in request.fields:  # the caller's own wins
            user = self._credentials.credentials_for(origin)
        return _Who(origin, user, self._borrower(route))

    def _borrower(self, route: Route) -> _Found:
        """Find out who we are to a route's proxy."""
        if isinstance(route, HTTPProxy):
            return self._credentials.credentials_for(proxy_peer(route))
        return None

    def _at_once(
        self, routes: Sequence[Route], request: Request, us: _Who
    ) -> Deferred[Response] | None:
        """
        Send a request on an idle connection where nobody needs a word of ours.

        That is what most requests find, and it costs no coroutine.  Whatever else
        comes of it is left to those that do.

        :returns: ``None`` where there is no such connection.
        """
        route, (origin, user, borrower) = routes[0], us
        if user is not None:
            return None
        if borrower is not None and isinstance(borrower, Deferred):
            return None
        forwards = request.scheme == "http" and isinstance(route, HTTPProxy)
        lane = lane_for(route, request, origin, None, borrower, forwards=forwards)
        connection = self._pool.take(lane)
        if connection is None:
            return None
        challenges = forwards and borrower is not None
        if challenges and not _passes(connection):
            self._pool.give_back(connection)
            return None
        outgoing = request.outgoing(through_proxy=forwards, replayable=False)
        # Where a challenge may come the next leg is this connection's.
        connection.claimed = challenges
        response = connection.send(
            outgoing.head((), expect=False, keep=challenges and connection.old),
            on_interim=outgoing.on_interim,
        )

        def answered(response: Response) -> Response | Deferred[Response]:
            response.route = route
            if challenges:
                if response.head.status == Role.PROXY.status:
                    return Deferred.fromCoroutine(
                        self._by(route, request, us, begun=(connection, response))
                    )
                connection.release()
            return response

        def failed(reason: Failure) -> Failure | Deferred[Response]:
            # RFC 9112 9.3.1: it may have been closed before the request came.
            if reason.check(ConnectionEnded) and outgoing.may_repeat:
                return Deferred.fromCoroutine(
                    self._request(routes, request, us, fresh=True)
                )
            return reason

        return response.addCallbacks(answered, failed)

    async def _request(
        self,
        routes: Sequence[Route],
        request: Request,
        us: _Who,
        *,
        fresh: bool = False,
    ) -> Response:
        """
        Send a request by the first route that leads anywhere.

        :param us: Who we are on the first.
        :param fresh: Take no idle connection.
        """
        origin, user, borrower = us
        user = await _settled(user)

        async def by(route: Route) -> Response:
            found = borrower if route is routes[0] else self._borrower(route)
            known = _Who(origin, user, await _settled(found))
            return await self._by(route, request, known, fresh=fresh)

        return await _first(routes, by)

    async def _by(
        self,
        route: Route,
        request: Request,
        us: _Who,
        *,
        fresh: bool = False,
        begun: tuple[HTTPConnection, Response] | None = None,
    ) -> Response:
        """
        Send a request by one route.

        :param us: Who we are; nobody has to be asked any more.
        :param begun: A leg without credentials, and its answer.
        """
        forwards = isinstance(route, HTTPProxy) and request.scheme == "http"
        if forwards and us.user is not None:
            user: Any = us.user
            memory = self._memories.of(us.origin, user.identity, user.fingerprint)
            if memory.needs_tunnel:
                forwards = False
        attempt = _Attempt(route, request, us, forwards, fresh, begun)
        try:
            response = await self._send(attempt)
        except SessionsNotKept:
            # Not before the next request, where content has begun to go out.
            if not self._policy.tunnel_cleartext or request.body is not None:
                raise
            response = await self._send(attempt._replace(forwards=False, begun=None))
        response.route = route
        return response

    async def _send(self, attempt: _Attempt) -> Response:
        """Send a request by one way."""
        route, request, (origin, user, borrower), forwards, fresh, begun = attempt
        connect: Callable[[], Awaitable[HTTPConnection]]
        if forwards:
            assert isinstance(route, HTTPProxy)
            connect = partial(self._open_proxy, route)
        else:
            fields = _for_connect(request.fields)
            connect = partial(self._to_origin, route, origin, fields)
        outgoing = request.outgoing(
            through_proxy=forwards,
            replayable=user is not None or (forwards and borrower is not None),
        )
        parties = []
        if forwards and borrower is not None:
            assert isinstance(route, HTTPProxy)
            parties.append(
                self._party(proxy_peer(route), borrower, request.asked(outgoing))
            )
        if user is not None:
            asked = replace(request.asked(outgoing), target=request.path)
            via = route if forwards else None
            parties.append(self._party(origin, user, asked, via=via))
        lane = lane_for(route, request, origin, user, borrower, forwards=forwards)
        return await self._through(
            parties, self._leaser(lane, connect), outgoing, fresh=fresh, begun=begun
        )

    async def _through(
        self,
        parties: Sequence[Party],
        lease: Lease,
        outgoing: Outgoing,
        *,
        fresh: bool = False,
        begun: tuple[HTTPConnection, Response] | None = None,
    ) -> Response:
        """Send what is ready, answering the challenges of *parties*."""
        if not parties:
            return await send_plain(lease, outgoing, self._timeouts.expect, fresh=fresh)
        legs = Legs(outgoing, parties, lease, self._reactor, self._timeouts.expect)
        try:
            response = await legs.run(fresh=fresh, begun=begun)
        except Exception:
            for party in parties:
                party.logon.dropped()
            raise
        for party in parties:
            party.logon.dropped()
        return response

    def _leaser(
        self, lane: Lane, connect: Callable[[], Awaitable[HTTPConnection]]
    ) -> Lease:
        async def lease(fresh: bool) -> HTTPConnection:
            return await self._pool.lease(lane, connect, fresh=fresh)

        return lease

    async def _to_origin(
        self, route: Route, origin: Peer, fields: Fields
    ) -> HTTPConnection:
        host, port = origin.host, origin.port
        if isinstance(route, Direct):
            endpoint = self._connector.tcp(host, port)
        else:
            endpoint = TunnelEndpoint(self, host, port, fields=fields, route=route)
        tls = (self._tls, host, port) if origin.scheme == "https" else None
        return await self._connector.open(endpoint, tls)

    # Who we are

    def _party(
        self,
        peer: Peer,
        credentials: ICredentials,
        request: AuthRequest,
        *,
        via: Route | None = None,
    ) -> Party:
        """
        Make a party to a request.

        :param via: The proxy that forwards what is said to *peer*, if one does.
        """
        at_origin = peer.role is Role.ORIGIN

        def new_layer() -> AuthLayer:
            context = Context(
                policy=self._policy,
                memory=self._memories.of(
                    peer, credentials.identity, credentials.fingerprint
                ),
                channel_bindings=None,
                entropy=self._entropy,
                via=via,
            )
            return AuthLayer(peer, credentials, context)

        return Party(
            peer.role,
            request,
            Logon(peer, credentials, self._guard, self._workers),
            new_layer,
            _no_bindings if peer.scheme == "http" and at_origin else _bindings,
        )

    async def _open_proxy(self, proxy: HTTPProxy) -> HTTPConnection:
        tls = None
        if proxy.scheme == "https":
            tls = (self._proxy_tls, proxy.host, proxy.port)
        try:
            return await self._connector.open(
                self._connector.tcp(proxy.host, proxy.port), tls
            )
        except (PhaseTimeout, CancelledError, ConnectingCancelledError):
            raise  # of the last two nobody but our caller is the cause
        except Exception as error:
            raise ProxyUnreachable(str(proxy), _in_words(error)) from error

    # Tunnels

    def tunnel(
        self,
        host: str,
        port: int,
        factory: IProtocolFactory,
        *,
        fields: Fields | None = None,
        route: Route | None = None,
    ) -> Deferred[IProtocol]:
        """
        Connect a protocol to a TCP port, through CONNECT where the route says so.

        :param route: The only way to try; by default what the router says.
        :returns: Fires with what *factory* built, connected.
        """

        def begin() -> Any:
            routes = [route] if route else self._routes("tunnel", host, port)
            if len(routes) == 1 and isinstance(routes[0], Direct):
                return self._connector.tcp(host, port).connect(factory)
            return _first(
                routes, lambda way: self._tunnel_by(way, host, port, factory, fields)
            )

        return maybeDeferred(begin)

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
        outgoing = Outgoing(
            method=b"CONNECT",
            target=authority,
            fields=Fields([(b"Host", authority), *(fields or ())]),
        )
        parties = []
        borrower = await _settled(self._borrower(route))
        if borrower is not None:
            asked = AuthRequest(b"CONNECT", authority, authority)
            parties.append(self._party(proxy_peer(route), borrower, asked))
        lane = Lane(route, None, who(borrower))
        lease = self._leaser(lane, partial(self._open_proxy, route))
        response = await self._through(parties, lease, outgoing)
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


async def _first(
    routes: Sequence[Route], attempt: Callable[[Route], Awaitable[_Result]]
) -> _Result:
    """Try one route after the other, until one leads anywhere."""
    for route in routes[:-1]:
        try:
            return await attempt(route)
        except (ProxyUnreachable, ConnectError, DNSLookupError) as error:
            if isinstance(error, TunnelRefused):
                raise
    return await attempt(routes[-1])


def _passes(connection: HTTPConnection) -> bool:
    """Tell whether the proxy at its end knows already who we are."""
    layer: AuthLayer | None = connection.layers.get(Role.PROXY)
    return layer is not None and layer.passes


async def _settled(found: _Found) -> ICredentials | None:
    """Wait for credentials that are still being looked for."""
    return await found if isinstance(found, Deferred) else found


def _bindings(connection: HTTPConnection) -> bytes | None:
    return channel_bindings(connection.transport)


def _no_bindings(_: HTTPConnection) -> None:
    return None


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
