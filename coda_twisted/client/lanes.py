"""What makes two connections interchangeable: the keys of the pool."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

from coda_twisted.auth.steps import Peer, Role
from coda_twisted.routing.routes import HTTPProxy, Route

if TYPE_CHECKING:
    from coda_twisted.client.request import Request
    from coda_twisted.interfaces import ICredentials

__all__ = ["Lane", "lane_for", "proxy_peer", "who"]


class Lane(NamedTuple):
    """
    What makes connections interchangeable.

    :ivar route: The way.
    :ivar origin: The only origin server whose requests it carries; ``None`` where
        it ends at a proxy and may carry any.
    :ivar borrower: Whose connection it is to the proxy.
    :ivar user: Whose connection it is to the origin server.
    :ivar pin: Who has it alone.
    """

    route: Route
    origin: Peer | None
    borrower: Hashable = None
    user: Hashable = None
    pin: Hashable = None


def lane_for(
    route: Route,
    request: Request,
    origin: Peer,
    user: ICredentials | None,
    borrower: ICredentials | None,
    *,
    forwards: bool,
) -> Lane:
    """
    Name the connections that may carry a request.

    One on which an origin server may take us for somebody is for that server alone,
    also where it leads to a proxy.

    :param user: Who we are to the origin server.
    :param borrower: Who we are to the proxy.
    :param forwards: Whether a proxy gets the request itself, not a tunnel.
    """
    shared = forwards and user is None and request.pin is None
    return Lane(
        route, None if shared else origin, who(borrower), who(user), request.pin
    )


def who(credentials: ICredentials | None) -> Hashable:
    """Name somebody; with another secret somebody else, who proves it anew."""
    if credentials is None:
        return None
    return (credentials.identity, credentials.fingerprint)


def proxy_peer(proxy: HTTPProxy) -> Peer:
    """Name a proxy as credentials are chosen for it."""
    return Peer(Role.PROXY, proxy.scheme, proxy.host, proxy.port)
