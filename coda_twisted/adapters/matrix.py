"""The agent that Synapse's and Sygnal's ``ProxyAgent`` have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import TimeoutError as TwistedTimeoutError
from twisted.web.client import URI
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from coda_twisted.adapters.proxies import (
    Credentials,
    as_credentials,
    bound_endpoints,
    read_proxy,
)
from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.configure import make_client
from coda_twisted.client.exchange import Client
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.errors import PhaseTimeout
from coda_twisted.routing.noproxy import NoProxy

__all__ = ["RoutedAgent", "direct_client", "proxy_client", "timeouts_like"]

_URI = re.compile(rb"[\x21-\x7e]+")


@implementer(IAgent)
class RoutedAgent:
    """
    One agent for what goes directly, and one for each scheme that has a proxy.

    :param direct: For hosts that are reached without a proxy.
    :param proxied: By the URI's scheme.
    :param no_proxy: Hosts that are reached directly all the same.
    """

    def __init__(
        self,
        direct: Client,
        proxied: Mapping[bytes, Client],
        no_proxy: NoProxy | None = None,
    ) -> None:
        self._direct = ClientAgent(direct)
        self._proxied = {
            scheme: ClientAgent(client) for scheme, client in proxied.items()
        }
        self._no_proxy = no_proxy

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Issue a request (IAgent).

        :returns: Fails as :meth:`ClientAgent.request`, with
            ``twisted.internet.error.TimeoutError`` when no connection was made in
            time, and with ``SchemeNotSupported``.
        :raises ValueError: The URI has white space or other octets that no URI has.
        """
        uri = uri.strip()
        if _URI.fullmatch(uri) is None:
            raise ValueError(f"Invalid URI {uri!r}")
        parsed = URI.fromBytes(uri)
        if parsed.scheme not in (b"http", b"https"):
            return fail(SchemeNotSupported(f"Unsupported scheme: {parsed.scheme!r}"))
        agent = self._proxied.get(parsed.scheme)
        host = parsed.host.decode("ascii")
        if agent is None or (self._no_proxy is not None and self._no_proxy.match(host)):
            agent = self._direct
        response = agent.request(method, uri, headers, bodyProducer)
        return response.addErrback(_as_twisted_says)

    async def close(self) -> None:
        """Close all connections."""
        for agent in {self._direct, *self._proxied.values()}:
            await agent.client.close()


def _as_twisted_says(failure: Any) -> Any:
    error = failure.value
    if isinstance(error, PhaseTimeout) and error.phase in ("connect", "tls"):
        raise TwistedTimeoutError(string=str(error)) from error
    return failure


def timeouts_like(connect: float | None, pool: Any) -> Timeouts:
    """
    Keep the limits that an ``Agent`` was to have.

    Nothing but the caller limits a response.

    :param pool: An ``HTTPConnectionPool``, or ``None``.
    """
    limits: dict[str, float] = {}
    if connect is not None:
        limits["connect"] = connect
    if pool is not None:
        limits["idle"] = pool.cachedConnectionTimeout
    return Timeouts(head=None, **limits)


def direct_client(
    reactor: Any, tls: IPolicyForHTTPS | None, timeouts: Timeouts, address: Any
) -> Client:
    """Make the client for what goes directly."""
    return make_client(
        reactor,
        proxy=None,
        tls=tls,
        timeouts=timeouts,
        endpoint_for=bound_endpoints(reactor, timeouts, address),
    )


def proxy_client(
    reactor: Any,
    url: str,
    credentials: Credentials,
    tls: IPolicyForHTTPS | None,
    timeouts: Timeouts,
    address: Any,
    port: int,
) -> Client:
    """
    Make the client for one proxy.

    :param credentials: Who we are to it; they win over the URL's user.
    :param port: Where a URL without a port means.
    :raises ValueError: The URL cannot be read.
    """
    proxy, user = read_proxy(url, {"http": port, "https": port})
    return make_client(
        reactor,
        proxy=str(proxy),
        credentials=as_credentials(credentials) or user,
        tls=tls,
        timeouts=timeouts,
        endpoint_for=bound_endpoints(reactor, timeouts, address),
    )
