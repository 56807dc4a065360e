"""
Magic-wormhole: through a proxy, in the place it has for Tor.

``wormhole.create(appid, relay_url, reactor, tor=ThroughProxy(client))``
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS
from wormhole._interfaces import ITorManager
from zope.interface import implementer

from coda_twisted.client.exchange import Client

__all__ = ["ThroughProxy"]


@implementer(ITorManager)
class ThroughProxy:
    """
    Reach the mailbox server, transit relays and peers by tunnels.

    Mailbox servers at ``wss://`` URLs are verified.

    :param client: Decides the route and authenticates.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def stream_via(
        self, host: str, port: int, tls: bool = False
    ) -> IStreamClientEndpoint:
        """Make the endpoint for a host; magic-wormhole calls it."""
        endpoint: Any = self._client.endpoint(host, port)
        if tls:
            endpoint = wrapClientTLS(optionsForClientTLS(host), endpoint)
        return endpoint  # type: ignore[no-any-return]
