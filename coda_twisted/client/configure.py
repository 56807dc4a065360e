"""From what people write - URLs, names, passwords - to a client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from twisted.web.iweb import IPolicyForHTTPS

from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.exchange import Client
from coda_twisted.client.timeouts import KeepAlive, Timeouts
from coda_twisted.client.tunnel import TunnelEndpoint
from coda_twisted.credentials import (
    MappedCredentials,
    PasswordCredentials,
    StaticCredentials,
    TicketCredentials,
)
from coda_twisted.interfaces import ICredentials, ICredentialSource, IRouter
from coda_twisted.routing.environment import EnvironmentRouter
from coda_twisted.routing.noproxy import NoProxy
from coda_twisted.routing.routes import Direct, HTTPProxy, StaticRouter
from coda_twisted.sources.chain import SourceChain
from coda_twisted.sources.spaces import PatternCredentials

__all__ = ["Agent", "make_client", "tunnel"]

FROM_ENVIRONMENT = "environment"
"""Take the proxy from ``http_proxy`` and its kin, as curl does."""


def make_client(
    reactor: Any,
    *,
    proxy: str | None = FROM_ENVIRONMENT,
    credentials: ICredentials | ICredentialSource | tuple[str, str] | None = None,
    origins: (
        Mapping[str, ICredentials | tuple[str, str]] | ICredentialSource | None
    ) = None,
    no_proxy: str = "",
    policy: AuthPolicy | None = None,
    timeouts: Timeouts | None = None,
    keep_alive: KeepAlive | None = None,
    tls: IPolicyForHTTPS | None = None,
    proxy_tls: IPolicyForHTTPS | None = None,
    environ: Mapping[str, str] | None = None,
    **rest: Any,
) -> Client:
    r"""
    Make a client from what people write.

    :param proxy: A URL, ``http://user:password@proxy.example:3128``; ``None`` to
        go directly; ``"environment"`` for ``http_proxy``, ``https_proxy``,
        ``all_proxy`` and ``no_proxy``.
    :param credentials: Name and password, credentials, or a source of them.
        They win over those in a URL.  A name may be ``DOMAIN\user``.
    :param origins: Who we are to websites: name and password, or credentials, by
        pattern (``https://wiki.example``, see
        :class:`~coda_twisted.sources.spaces.Space`); or a source.
    :param no_proxy: Hosts to reach directly, as in curl's ``no_proxy``; for a
        proxy that is named here.
    :param environ: Instead of the process's environment.
    :param rest: For :class:`~coda_twisted.client.exchange.Client`.
    :raises ValueError: A URL cannot be read; the text repeats no part of it.
    """
    router: IRouter
    users: dict[HTTPProxy, ICredentials] = {}
    if proxy is None:
        router = StaticRouter(Direct())
    elif proxy == FROM_ENVIRONMENT:
        router = EnvironmentRouter(os.environ if environ is None else environ)
        for known, userinfo in router.userinfo.items():
            users[known] = _user(*userinfo)
    else:
        named, given = HTTPProxy.from_url(proxy)
        router = StaticRouter(named, NoProxy(no_proxy) if no_proxy else None)
        if given is not None:
            users[named] = _user(*given)
    return Client(
        reactor,
        router=router,
        credentials=_with_origins(origins, _source(credentials, users)),
        policy=policy,
        timeouts=timeouts,
        keep_alive=keep_alive,
        tls=tls,
        proxy_tls=proxy_tls,
        **rest,
    )


def _user(username: str, password: str) -> ICredentials:
    """Read a URL's user; an empty one is the system's ticket, as for curl."""
    if not username and not password:
        return TicketCredentials()
    return PasswordCredentials(username, password)


def _source(
    credentials: ICredentials | ICredentialSource | tuple[str, str] | None,
    users: Mapping[HTTPProxy, ICredentials],
) -> ICredentialSource:
    if credentials is None:
        return MappedCredentials(
            {(proxy.host, proxy.port): user for proxy, user in users.items()}
        )
    if isinstance(credentials, tuple):
        return StaticCredentials(PasswordCredentials(*credentials))
    if ICredentialSource.providedBy(credentials):
        source: ICredentialSource = credentials
        return source
    return StaticCredentials(credentials)


def _with_origins(
    origins: Mapping[str, ICredentials | tuple[str, str]] | ICredentialSource | None,
    others: ICredentialSource,
) -> ICredentialSource:
    if origins is None:
        return others
    if isinstance(origins, Mapping):
        origins = PatternCredentials(origins)
    return SourceChain(origins, others)


class Agent(ClientAgent):
    """
    An ``IAgent`` that goes through a proxy and authenticates, to it and to websites.

    ``Agent(reactor, proxy="http://proxy.example:3128", credentials=("me", "secret"))``
    is all that most programs need; the parameters are :func:`make_client`'s.
    """

    def __init__(self, reactor: Any, **settings: Any) -> None:
        super().__init__(make_client(reactor, **settings))


def tunnel(reactor: Any, host: str, port: int, **settings: Any) -> TunnelEndpoint:
    """
    Make an endpoint that reaches *host* and *port* through a proxy.

    :param settings: As :func:`make_client` takes them.
    """
    return make_client(reactor, **settings).endpoint(host, port)
