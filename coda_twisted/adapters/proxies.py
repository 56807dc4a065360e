"""What the adapters share: proxies as their programs write them, and sockets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from coda_twisted.client.connector import EndpointMaker
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.credentials import PasswordCredentials, TicketCredentials
from coda_twisted.interfaces import ICredentials
from coda_twisted.routing.routes import HTTPProxy

__all__ = ["Credentials", "as_credentials", "bound_endpoints", "read_proxy"]

Credentials = ICredentials | tuple[str, str] | str | None
"""Who we are, as settings say it: see :func:`as_credentials`."""

_PORT = re.compile(r":[0-9]+/?\Z")


def read_proxy(
    url: str, ports: Mapping[str, int]
) -> tuple[HTTPProxy, ICredentials | None]:
    """
    Read a proxy's URL for a program that has other default ports than we.

    :param ports: The port for each scheme where the URL has none.
    :returns: The proxy, and the user of the URL if it names one.
    :raises ValueError: It cannot be read; the text repeats no part of it.
    """
    proxy, userinfo = HTTPProxy.from_url(url)
    if _PORT.search(url.strip()) is None:
        proxy = replace(proxy, port=ports[proxy.scheme])
    if userinfo is None:
        return proxy, None
    if not any(userinfo):
        return proxy, TicketCredentials()
    return proxy, PasswordCredentials(*userinfo)


def as_credentials(given: Any) -> ICredentials | None:
    """
    Read credentials from a setting.

    :param given: A name and a password; ``"ticket"`` for the Kerberos ticket of
        the system's cache; credentials, which are returned as they are; ``None``.
    :raises ValueError: It is none of these; the text does not repeat it.
    """
    if given is None or ICredentials.providedBy(given):
        return given
    if given == "ticket":
        return TicketCredentials()
    if isinstance(given, tuple | list) and len(given) == 2:
        name, password = given
        if isinstance(name, str) and isinstance(password, str):
            return PasswordCredentials(name, password)
    raise ValueError('credentials are (name, password), or "ticket"')


def bound_endpoints(
    reactor: Any, timeouts: Timeouts, address: Any
) -> EndpointMaker | None:
    """
    Make sockets that are bound to a local address.

    :param address: As ``HostnameEndpoint`` takes it; ``None`` for any address.
    """
    if address is None:
        return None

    def endpoint_for(host: str, port: int) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            reactor, host, port, timeout=timeouts.connect, bindAddress=address
        )
        return endpoint

    return endpoint_for
