"""
Sygnal: a ``ProxyAgent`` that authenticates to the proxy, whatever it asks for.

Takes the parameters of ``sygnal.helper.proxy.proxyagent_twisted.ProxyAgent``, by
position as well.
"""

from __future__ import annotations

from typing import Any

from twisted.web.iweb import IPolicyForHTTPS

from coda_twisted.adapters.matrix import (
    RoutedAgent,
    direct_client,
    proxy_client,
    timeouts_like,
)
from coda_twisted.adapters.proxies import Credentials

__all__ = ["ProxyAgent"]


class ProxyAgent(RoutedAgent):
    r"""
    Issue requests through a proxy if there is one.

    :param contextFactory: Verifies servers, and a proxy at an ``https://`` URL.
    :param connectTimeout: Seconds until a connection must be made.
    :param bindAddress: The local address of our sockets.
    :param pool: Lends its ``cachedConnectionTimeout``; the connections are our own.
    :param proxy_url_str: The proxy, with user and password if you like,
        percent-encoded: ``http://CORP%5Cpush:secret@proxy.example:3128``.  Without
        a port it is at 80.
    :param credentials: Who we are to the proxy, if its URL does not say: name and
        password, ``"ticket"``, or credentials.
    :raises ValueError: The proxy's URL cannot be read.
    """

    def __init__(
        self,
        reactor: Any,
        contextFactory: IPolicyForHTTPS | None = None,
        connectTimeout: float | None = None,
        bindAddress: Any = None,
        pool: Any = None,
        proxy_url_str: str | None = None,
        *,
        credentials: Credentials = None,
    ) -> None:
        timeouts = timeouts_like(connectTimeout, pool)
        proxied = {}
        if proxy_url_str is not None:
            client = proxy_client(
                reactor,
                proxy_url_str,
                credentials,
                contextFactory,
                timeouts,
                bindAddress,
                port=80,
            )
            proxied = {b"http": client, b"https": client}
        super().__init__(
            direct_client(reactor, contextFactory, timeouts, bindAddress), proxied
        )
