"""
What twistd, twist and ``clientFromString`` learn of us.

Every ``twistd --help`` imports this file: it imports nothing of ours, and
nothing heavy of Twisted's, before it is asked to.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor
from twisted.plugin import IPlugin
from zope.interface import implementer

proxy = ServiceMaker(
    "coda-proxy",
    "coda_twisted.service",
    "A local forward proxy that authenticates to the proxies above it.",
    "coda-proxy",
)

fake_proxy = ServiceMaker(
    "coda-fake-proxy",
    "coda_twisted.testing.service",
    "A proxy for tests: verifies NTLM, Digest and others, and misbehaves on demand.",
    "coda-fake-proxy",
)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class _TunnelParser:
    r"""``coda:host=db.example:port=5432:proxy=http\://proxy.example\:3128``."""

    prefix = "coda"

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> Any:
        """Make the endpoint that a description asks for."""
        from coda_twisted.client.strings import endpoint_from_string

        return endpoint_from_string(reactor, *args, **kwargs)


tunnel = _TunnelParser()
