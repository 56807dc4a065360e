r"""
Synapse: its ``ProxyAgent`` and federation tunnels, with every auth-scheme.

In ``homeserver.yaml``, beside Synapse's own ``http_proxy`` and ``https_proxy``::

    modules:
      - module: coda_twisted.adapters.synapse.Module
        config:
          user: CORP\synapse
          password_path: /etc/matrix-synapse/proxy-password

With ``ticket: true`` it is the system's Kerberos ticket instead.  Without either, the
users of the proxies' URLs are used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse

from coda_twisted.adapters.matrix import (
    RoutedAgent,
    direct_client,
    proxy_client,
    timeouts_like,
)
from coda_twisted.adapters.proxies import Credentials, as_credentials
from coda_twisted.client.exchange import Client
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.routing.noproxy import NoProxy

__all__ = ["Module", "ProxyAgent", "install"]

PROXY_PORT = 1080
"""Where a proxy is whose URL has no port, to Synapse."""


class ProxyAgent(RoutedAgent):
    """
    Issue requests through Synapse's proxies.

    The parameters are those of ``synapse.http.proxyagent.ProxyAgent``, and one more.

    :param reactor: Makes direct connections; it may refuse addresses.
    :param proxy_reactor: Makes those to the proxies; *reactor* by default.
    :param contextFactory: Verifies servers, and proxies at ``https://`` URLs.
    :param connectTimeout: Seconds until a connection must be made.
    :param bindAddress: The local address of our sockets.
    :param pool: Lends its ``cachedConnectionTimeout``; the connections are our own.
    :param proxy_config: Synapse's ``ProxyConfig``.  User and password in a URL are
        percent-decoded.
    :param federation_proxy_locations: Workers that federate for this one; Synapse's
        own agent talks to them.
    :param federation_proxy_credentials: What they want to see.
    :param credentials: Who we are to the proxies, instead of their URLs' users: name
        and password, ``"ticket"``, or credentials.
    :raises ValueError: A proxy's URL cannot be read.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        proxy_reactor: Any = None,
        contextFactory: IPolicyForHTTPS | None = None,
        connectTimeout: float | None = None,
        bindAddress: Any = None,
        pool: Any = None,
        proxy_config: Any = None,
        federation_proxy_locations: Collection[Any] = (),
        federation_proxy_credentials: Any = None,
        credentials: Credentials = None,
    ) -> None:
        timeouts = timeouts_like(connectTimeout, pool)
        urls = {}
        no_proxy = None
        if proxy_config is not None:
            urls = {
                b"http": proxy_config.http_proxy,
                b"https": proxy_config.https_proxy,
            }
            no_proxy = NoProxy(",".join(proxy_config.no_proxy_hosts or ()))
        clients: dict[str, Client] = {}
        for url in filter(None, urls.values()):
            if url not in clients:
                clients[url] = proxy_client(
                    proxy_reactor or reactor,
                    url,
                    credentials,
                    contextFactory,
                    timeouts,
                    bindAddress,
                    PROXY_PORT,
                )
        super().__init__(
            direct_client(reactor, contextFactory, timeouts, bindAddress),
            {scheme: clients[url] for scheme, url in urls.items() if url},
            no_proxy,
        )
        self._workers: IAgent | None = None
        if federation_proxy_locations:
            from synapse.http.proxyagent import ProxyAgent as SynapsesOwn

            self._workers = SynapsesOwn(
                reactor=reactor,
                proxy_reactor=proxy_reactor,
                contextFactory=contextFactory,
                connectTimeout=connectTimeout,
                bindAddress=bindAddress,
                pool=pool,
                federation_proxy_locations=federation_proxy_locations,
                federation_proxy_credentials=federation_proxy_credentials,
            )

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Issue a request (IAgent); *headers* is not changed."""
        if self._workers is not None and uri.startswith(b"matrix-federation://"):
            return self._workers.request(method, uri, headers, bodyProducer)
        return super().request(method, uri, headers, bodyProducer)


class _FederationTunnels:
    """
    Stand in for what Synapse's federation reaches other servers by.

    It makes an endpoint for every request: the clients are kept here.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._clients: dict[Hashable, Client] = {}

    def http_proxy_endpoint(
        self,
        proxy: bytes | None,
        reactor: Any,
        tls_options_factory: IPolicyForHTTPS | None,
        timeout: float = 30,
        bindAddress: Any = None,
        attemptDelay: float | None = None,
    ) -> tuple[Client | None, None]:
        """Make what stands for a proxy (``synapse.http.proxyagent``)."""
        if proxy is None:
            return None, None
        key = (proxy, reactor, tls_options_factory, timeout, bindAddress)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = proxy_client(
                reactor,
                proxy.decode("utf-8"),
                self._credentials,
                tls_options_factory,
                Timeouts(connect=timeout),
                bindAddress,
                PROXY_PORT,
            )
        return client, None

    def connect_endpoint(
        self,
        reactor: Any,
        proxy_endpoint: Client,
        host: bytes,
        port: int,
        proxy_creds: None = None,
    ) -> IStreamClientEndpoint:
        """Make a tunnel (``HTTPConnectProxyEndpoint``)."""
        return proxy_endpoint.endpoint(host.decode("ascii"), port)


def install(credentials: Credentials = None) -> Callable[[], None]:
    """
    Let the Synapse of this process use these agents and tunnels.

    Before it makes its first client: those that exist stay as they are.

    :param credentials: As :class:`ProxyAgent` takes them.
    :returns: Undoes it.
    """
    from synapse.http import client, matrixfederationclient
    from synapse.http.federation import matrix_federation_agent

    user = as_credentials(credentials)

    def agent(**settings: Any) -> ProxyAgent:
        return ProxyAgent(credentials=user, **settings)

    tunnels = _FederationTunnels(user)
    places: list[tuple[Any, str, Any]] = [
        (client, "ProxyAgent", agent),
        (matrixfederationclient, "ProxyAgent", agent),
        (matrix_federation_agent, "ProxyAgent", agent),
        (matrix_federation_agent, "HTTPConnectProxyEndpoint", tunnels.connect_endpoint),
        (matrix_federation_agent, "proxyagent", tunnels),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in places]

    def undo() -> None:
        for module, name, value in before:
            setattr(module, name, value)

    for module, name, value in places:
        setattr(module, name, value)
    return undo


class Module:
    """
    A Synapse module that does :func:`install`.

    Synapse reads the configuration of modules before it makes any client.
    """

    def __init__(self, config: dict[str, Any], api: Any) -> None:
        self.config = config

    @staticmethod
    def parse_config(config: dict[str, Any]) -> dict[str, Any]:
        """
        Read the module's configuration, and install.

        :raises ValueError: It cannot be meant; Synapse says where it is.
        :raises OSError: The password's file cannot be read.
        """
        unknown = set(config) - {"user", "password_path", "ticket"}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        if config.get("ticket"):
            install("ticket")
        elif "user" in config:
            if "password_path" not in config:
                raise ValueError("user needs password_path")
            with open(config["password_path"], encoding="utf-8") as file:
                install((config["user"], file.readline().rstrip("\r\n")))
        else:
            install()
        return config
