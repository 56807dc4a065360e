"""Raw streams through an authenticated CONNECT (RFC 9110 9.3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from coda_twisted.http1.fields import Fields
from coda_twisted.routing.routes import Route

if TYPE_CHECKING:
    from coda_twisted.client.exchange import Client

__all__ = ["TunnelEndpoint"]


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """
    Reach a TCP port by the client's route: through a proxy, or directly.

    The endpoint may be used any number of times; each ``connect`` is a tunnel of
    its own.  TLS inside is the user's: ``wrapClientTLS(creator, endpoint)``.

    :param client: Decides the route and authenticates.
    :param host: Name or address of the server, IPv6 without brackets; a proxy
        resolves the name.
    :param port: Its TCP port.
    :param fields: To be sent with CONNECT, beside Host.
    :param route: The only way to try; by default what the client's router says.
    """

    def __init__(
        self,
        client: Client,
        host: str,
        port: int,
        *,
        fields: Fields | None = None,
        route: Route | None = None,
    ) -> None:
        self._client = client
        self._host = host
        self._port = port
        self._fields = fields
        self._route = route

    def __repr__(self) -> str:
        return f"TunnelEndpoint({self._host!r}, {self._port})"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a tunnel and connect a protocol to its end.

        :returns: Fires with the protocol; cancelling it drops what was begun.
            Fails with :class:`~coda_twisted.errors.TunnelRefused`,
            :class:`~coda_twisted.errors.AuthenticationFailed`,
            :class:`~coda_twisted.errors.ProxyUnreachable`,
            :class:`~coda_twisted.errors.PhaseTimeout`,
            :class:`~coda_twisted.errors.ConnectionEnded`, or without a proxy
            with what the socket failed with.
        """
        return self._client.tunnel(
            self._host,
            self._port,
            protocolFactory,
            fields=self._fields,
            route=self._route,
        )
