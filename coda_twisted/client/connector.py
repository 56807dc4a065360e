"""Open connections: TCP, TLS over it, and TLS over a tunnel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import TimeoutError as TwistedTimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from coda_twisted.client.connection import HTTPConnection
from coda_twisted.client.dial import AddressEndpoint, can_dial
from coda_twisted.client.timeouts import KeepAlive, Timeouts
from coda_twisted.errors import PhaseTimeout

__all__ = ["Connector", "EndpointMaker", "tcp_endpoint"]

EndpointMaker = Callable[[str, int], IStreamClientEndpoint]
"""Makes the endpoint for a host and a port."""


def tcp_endpoint(
    reactor: Any, host: str, port: int, *, timeout: float
) -> IStreamClientEndpoint:
    """
    Make the endpoint of a TCP port.

    An address needs nobody to resolve it, and no race between several: that costs a
    thread's turn and more than the connection itself.  Names with ``_``, as containers
    have them, are not for ``HostnameEndpoint``, for IDNA has none.
    """
    if can_dial(reactor, host):
        return AddressEndpoint(reactor, host, port, timeout)
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout)
    if "_" in host or isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, timeout)
    return HostnameEndpoint(reactor, host, port, timeout)


class Connector:
    """
    Open what a request travels on.

    :param reactor: The reactor, as ``HostnameEndpoint`` needs it.
    :param endpoint_for: Replaces ``HostnameEndpoint``, for tests and for those
        who bind their sockets themselves.
    """

    def __init__(
        self,
        reactor: Any,
        timeouts: Timeouts,
        keep_alive: KeepAlive,
        endpoint_for: EndpointMaker | None = None,
    ) -> None:
        self._reactor = reactor
        self._timeouts = timeouts
        self._keep_alive = keep_alive
        self._endpoint_for = endpoint_for or partial(
            tcp_endpoint, reactor, timeout=timeouts.connect
        )

    def tcp(self, host: str, port: int) -> IStreamClientEndpoint:
        """Make the endpoint of a server reached without a proxy."""
        endpoint = self._endpoint_for(host, port)
        return _Limited(endpoint, self._timeouts.connect, self._reactor)

    async def open(
        self,
        endpoint: IStreamClientEndpoint,
        tls: tuple[IPolicyForHTTPS, str, int] | None,
    ) -> HTTPConnection:
        """
        Open an HTTP connection over an endpoint.

        A tunnel's phases have limits of their own; only a socket's is set here.

        :param endpoint: Reaches the server's TCP port, or a tunnel's end.
        :param tls: Policy, name and port of the TLS server to find there.
        :returns: A connection that may be sent to; TLS is verified.
        :raises PhaseTimeout: It took too long.
        :raises Exception: What the endpoint failed with, or why TLS did not
            verify.
        """
        if tls is not None:
            policy, host, port = tls
            creator = policy.creatorForNetloc(host.encode("ascii"), port)
            endpoint = wrapClientTLS(creator, endpoint)
        factory = _Connections(
            self._reactor, self._timeouts, self._keep_alive, tls is not None
        )
        connection = cast("HTTPConnection", await endpoint.connect(factory))
        try:
            await connection.secured()
        except Exception:
            connection.abort()
            raise
        return connection


@implementer(IStreamClientEndpoint)
class _Limited:
    """
    An endpoint that fails with :class:`PhaseTimeout`.

    ``HostnameEndpoint`` limits each address; name resolution can take as long.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, limit: float, clock: Any
    ) -> None:
        self._endpoint = endpoint
        self._limit = limit
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = self._endpoint.connect(protocolFactory)
        connecting.addTimeout(self._limit, self._clock, self._late)
        return connecting.addErrback(self._explain)

    def _late(self, result: Any, limit: float) -> Any:
        """Say so whatever a cancelled name resolution says, which is "not found"."""
        if isinstance(result, Failure):
            raise PhaseTimeout("connect", limit) from result.value
        return result

    def _explain(self, reason: Failure) -> NoReturn:
        if reason.check(TwistedTimeoutError, DeferredTimeoutError):
            raise PhaseTimeout("connect", self._limit) from reason.value
        reason.raiseException()


class _Connections(Factory):
    """
    Make a connection for each address that answers.

    ``HostnameEndpoint`` may race several and keep one.
    """

    noisy = False

    def __init__(
        self, reactor: Any, timeouts: Timeouts, keep_alive: KeepAlive, tls: bool
    ) -> None:
        self._reactor = reactor
        self._timeouts = timeouts
        self._keep_alive = keep_alive
        self._tls = tls

    def buildProtocol(self, addr: IAddress | None) -> HTTPConnection:
        return HTTPConnection(
            self._reactor, self._timeouts, tls=self._tls, keep_alive=self._keep_alive
        )
