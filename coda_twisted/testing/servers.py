"""The servers: a proxy and an origin server that verify what they are sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IProtocolNegotiationFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from coda_twisted.auth.steps import Role
from coda_twisted.client.connector import EndpointMaker
from coda_twisted.client.exchange import Client
from coda_twisted.client.request import Request
from coda_twisted.client.response import collect
from coda_twisted.client.upload import BytesBody
from coda_twisted.http1.fields import Fields, add_via, without_hop_by_hop
from coda_twisted.http1.targets import Form, parse_target
from coda_twisted.routing.routes import Direct, StaticRouter
from coda_twisted.testing.accounts import Accounts
from coda_twisted.testing.checkpoint import Checkpoint
from coda_twisted.testing.connection import ServerConnection
from coda_twisted.testing.exchanges import (
    Answer,
    Exchange,
    Handler,
    answer_of,
    hello,
)
from coda_twisted.testing.quirks import Quirks
from coda_twisted.testing.relay import TunnelEnd
from coda_twisted.testing.verdicts import Received, Scheme, Site
from coda_twisted.testing.workers import InlineWorkers

__all__ = ["FakeOrigin", "FakeProxy", "FakeServer"]

MEMORY = 10_000
"""Exchanges that a server remembers, so that one started by hand may run on."""

BODY_LIMIT = 1 << 30
"""Octets of an answer that the proxy passes on; it holds them in memory."""

PATIENCE = 3600.0
"""Seconds for the content of such an answer."""


@implementer(IProtocolNegotiationFactory)
class FakeServer(Factory):
    r"""
    What proxy and origin server have in common.

    It is a protocol factory: ``reactor.listenTCP(0, server)``, or
    :meth:`FakeNetwork.listen <coda_twisted.testing.network.FakeNetwork.listen>`.

    :param clock: Reactor or clock, for the delays among the quirks and, on a proxy,
        for its own connections.
    :param schemes: What is demanded, by name - see
        :data:`~coda_twisted.testing.checkpoint.SCHEMES` - or with settings of your own:
        ``Digest(qop="auth-int")``; nothing at all lets everybody in.
    :param users: From names to passwords: ``{"CORP\\alice": "secret"}``.
    :param accounts: Instead of *users*, with a threshold for locking them out, or to
        be shared among servers.
    :ivar accounts: Counts the logons.
    :ivar quirks: May be changed at any time.
    :ivar requests: The exchanges so far; the last 10,000.
    :ivar connections: The open ones.
    :ivar connected: How many there were.
    :ivar url: Where it is in a :class:`~coda_twisted.testing.network.FakeNetwork`.
    """

    noisy = False
    role: Role
    url = ""

    def __init__(
        self,
        clock: Any,
        *schemes: str | Scheme,
        users: Mapping[str, str] | None = None,
        accounts: Accounts | None = None,
        realm: str = "fake",
        quirks: Quirks | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.clock = clock
        self.accounts = Accounts(users) if accounts is None else accounts
        self.quirks = quirks or Quirks()
        self.requests: list[Exchange] = []
        self.connections: list[ServerConnection] = []
        self.connected = 0
        self._dropped = 0
        site = Site(
            self.role,
            self.accounts,
            realm,
            self.quirks.quoted_realm,
            entropy,
            clock.seconds,
        )
        self.checkpoint = Checkpoint(site, schemes)

    def __repr__(self) -> str:
        """Tell what is demanded of whom."""
        names = ", ".join(each.name.decode() for each in self.checkpoint.schemes)
        return f"<{type(self).__name__} {names or 'open to all'}, {self.accounts}>"

    def buildProtocol(self, addr: IAddress | None) -> ServerConnection:
        """Make the protocol of one connection."""
        self.connected += 1
        return ServerConnection(self)

    def close(self) -> Deferred[None]:
        """
        Reset all connections.

        :returns: Fires when those of the server's own are closed, too.
        """
        for connection in list(self.connections):
            connection.abort()
        return succeed(None)

    def acceptableProtocols(self) -> list[bytes]:
        """Name what we speak over TLS (IProtocolNegotiationFactory)."""
        return [b"http/1.1"]

    def statuses(self) -> list[int | None]:
        """List the answers' status codes, in the order of the requests."""
        return [each.status for each in self.requests]

    # What connections ask

    def remember(self, exchange: Exchange) -> Exchange:
        """Keep an exchange for the test."""
        self.requests.append(exchange)
        del self.requests[:-MEMORY]
        return exchange

    def forget(self, connection: ServerConnection) -> None:
        """Take note that a connection is gone."""
        if connection in self.connections:
            self.connections.remove(connection)

    def drops(self, leg: int) -> bool:
        """Say whether to drop the connection on this leg."""
        limit = self.quirks.drop_times
        if leg != self.quirks.drops or not leg:
            return False
        if limit is not None and self._dropped >= limit:
            return False
        self._dropped += 1
        return True

    async def respond(
        self, request: Received, connection: ServerConnection
    ) -> Answer | TunnelEnd:
        """Answer a request that was let through."""
        raise NotImplementedError


class FakeOrigin(FakeServer):
    """
    An origin server.

    :param handler: Answers what is let through.
    """

    role = Role.ORIGIN

    def __init__(
        self,
        clock: Any,
        handler: Handler = hello,
        *schemes: str | Scheme,
        **settings: Any,
    ) -> None:
        super().__init__(clock, *schemes, **settings)
        self.handler = handler

    async def respond(self, request: Received, connection: ServerConnection) -> Answer:
        """Ask the handler; what it raises is a 500 that says so."""
        try:
            return await answer_of(self.handler, request)
        except Exception as error:
            text = f"the handler failed: {type(error).__name__}: {error}\n"
            return Answer(500, [], text.encode())


class FakeProxy(FakeServer):
    """
    A proxy: requests in absolute-form are forwarded, CONNECT opens tunnels.

    :param endpoint_for: Reaches what is behind it; by default real servers.
    :param tls: Verifies origin servers, for requests in absolute-form that begin with
        ``https``.
    """

    role = Role.PROXY

    def __init__(
        self,
        clock: Any,
        *schemes: str | Scheme,
        endpoint_for: EndpointMaker | None = None,
        tls: IPolicyForHTTPS | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(clock, *schemes, **settings)
        self._endpoint_for = endpoint_for or self._hostname_endpoint
        self._client = Client(
            clock,
            router=StaticRouter(Direct()),
            endpoint_for=self._endpoint_for,
            tls=tls,
            workers=InlineWorkers(),
        )

    def _hostname_endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self.clock, host, port)
        return endpoint

    def close(self) -> Deferred[None]:
        """Reset all clients' connections, close those to origin servers."""
        super().close()
        return self._client.close()

    def forget(self, connection: ServerConnection) -> None:
        """Let go of what was open for that client alone."""
        super().forget(connection)
        self._client.release(connection.pin)

    async def respond(
        self, request: Received, connection: ServerConnection
    ) -> Answer | TunnelEnd:
        """Forward a request; or connect, for a tunnel."""
        target = parse_target(request.method, request.target)
        if target.form not in (Form.ABSOLUTE, Form.AUTHORITY):
            return Answer(400, [], b"this is a proxy\n")
        try:
            if target.form is Form.AUTHORITY:
                assert target.port is not None
                endpoint = self._endpoint_for(target.host, target.port)
                far: Any = await endpoint.connect(_Tunnels())
                return far  # type: ignore[no-any-return]
            return await self._forward(request, connection)
        except Exception as error:
            text = f"{target.host} cannot be reached: {error or type(error).__name__}\n"
            return Answer(502, [], text.encode())

    async def _forward(self, request: Received, connection: ServerConnection) -> Answer:
        target = parse_target(request.method, request.target)
        assert target.port is not None
        fields = without_hop_by_hop(request.fields)
        for name in (b"Content-Length", b"Expect", b"Host"):
            fields.remove(name)
        add_via(fields, (1, 1), b"fake-proxy")
        has_content = request.content or b"Content-Length" in request.fields
        response = await self._client.request(
            Request(
                method=request.method,
                scheme=target.scheme.decode("ascii"),
                host=target.host,
                port=target.port,
                path=target.path,
                fields=fields,
                body=BytesBody(request.content) if has_content else None,
                pin=connection.pin,
            )
        )
        body, whole = await collect(response, BODY_LIMIT, PATIENCE, self.clock)
        if not whole:
            return Answer(502, [], b"the origin server's answer was cut short\n")
        head = response.head
        answer = without_hop_by_hop(head.fields)
        if request.method != b"HEAD":
            answer.remove(b"Content-Length")
        if _binds_connections(answer):
            answer.add(b"Proxy-Support", b"Session-Based-Authentication")
        add_via(answer, head.version, b"fake-proxy")
        return Answer(head.status, list(answer), body, head.reason)


class _Tunnels(Factory):
    """Makes the far ends of tunnels."""

    noisy = False
    protocol = TunnelEnd


def _binds_connections(fields: Fields) -> bool:
    """Say whether an answer challenges to what authenticates connections."""
    return any(
        value[:9].lower() == b"negotiate" or value[:4].lower() == b"ntlm"
        for value in fields.get_all(b"WWW-Authenticate")
    )
