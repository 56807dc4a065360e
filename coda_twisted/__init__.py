"""
HTTP proxy authentication for Twisted, and a local proxy for everything else.

The names a program needs; each is documented where it is defined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coda_twisted._version import __version__

if TYPE_CHECKING:
    from coda_twisted.auth.policy import AuthPolicy
    from coda_twisted.client.agent import ClientAgent, TunnelEndpointFactory
    from coda_twisted.client.configure import Agent, make_client, tunnel
    from coda_twisted.client.exchange import Client
    from coda_twisted.client.timeouts import KeepAlive, Timeouts
    from coda_twisted.client.tls import TLSPolicy
    from coda_twisted.client.tunnel import TunnelEndpoint
    from coda_twisted.credentials import (
        CredentialChain,
        PasswordCredentials,
        TicketCredentials,
    )
    from coda_twisted.errors import (
        AuthenticationFailed,
        CodaError,
        CredentialsRejected,
        TunnelRefused,
    )

__all__ = [
    "Agent",
    "AuthPolicy",
    "AuthenticationFailed",
    "Client",
    "ClientAgent",
    "CodaError",
    "CredentialChain",
    "CredentialsRejected",
    "KeepAlive",
    "PasswordCredentials",
    "TLSPolicy",
    "TicketCredentials",
    "Timeouts",
    "TunnelEndpoint",
    "TunnelEndpointFactory",
    "TunnelRefused",
    "__version__",
    "make_client",
    "tunnel",
]

_HOMES = {
    "Agent": "client.configure",
    "AuthPolicy": "auth.policy",
    "AuthenticationFailed": "errors",
    "Client": "client.exchange",
    "ClientAgent": "client.agent",
    "CodaError": "errors",
    "CredentialChain": "credentials",
    "CredentialsRejected": "errors",
    "KeepAlive": "client.timeouts",
    "PasswordCredentials": "credentials",
    "TLSPolicy": "client.tls",
    "TicketCredentials": "credentials",
    "Timeouts": "client.timeouts",
    "TunnelEndpoint": "client.tunnel",
    "TunnelEndpointFactory": "client.agent",
    "TunnelRefused": "errors",
    "make_client": "client.configure",
    "tunnel": "client.configure",
}


def __getattr__(name: str) -> Any:
    """
    Import a public name when it is first used (PEP 562).

    The service's options and the endpoint plugin live in this package too; they
    must not pay for TLS and HTTP before something is asked of them.
    """
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
