r"""
Endpoint descriptions: tunnels for every program that uses ``clientFromString``.

``coda:host=db.example:port=5432`` goes by the environment's proxy;
``proxy=http\://proxy.example\:3128`` names one.  ``user`` and ``password-file``
say who we are; a password does not belong in a description, for those are
printed.  ``tls=yes`` speaks TLS inside the tunnel and verifies *host*.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from coda_twisted.client.configure import FROM_ENVIRONMENT, make_client
from coda_twisted.credentials import PasswordCredentials

__all__ = ["endpoint_from_string"]

_KEYS = frozenset(["host", "port", "proxy", "user", "password-file", "realm", "tls"])


def endpoint_from_string(
    reactor: Any, *args: str, **kwargs: str
) -> IStreamClientEndpoint:
    """
    Make the endpoint of a ``coda:`` description.

    :param args: Host and port, where they are not named.
    :param kwargs: The named parts.
    :raises ValueError: A part is missing, unknown or malformed.
    :raises OSError: The password file cannot be read.
    """
    # Twisted's parser turns no "-" into "_": both spellings arrive here.
    parts = {key.replace("_", "-"): value for key, value in kwargs.items()}
    parts.update(zip(("host", "port"), args, strict=False))
    if len(args) > 2 or set(parts) - _KEYS:
        unknown = ", ".join(sorted(set(parts) - _KEYS)) or "more than host and port"
        raise ValueError(
            f"coda: does not know {unknown}; it takes {', '.join(sorted(_KEYS))}"
        )
    host, port = parts.get("host", ""), parts.get("port", "")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("coda: needs host=... and port=1...65535")
    client = make_client(
        reactor,
        proxy=parts.get("proxy", FROM_ENVIRONMENT),
        credentials=_credentials(parts),
    )
    endpoint: IStreamClientEndpoint = client.endpoint(host, int(port))
    if parts.get("tls", "no") not in ("no", "0", "false"):
        # Not TLSPolicy, which offers HTTP by ALPN: the protocol inside may be any.
        endpoint = wrapClientTLS(optionsForClientTLS(host), endpoint)
    return endpoint


def _credentials(parts: dict[str, str]) -> PasswordCredentials | None:
    if "user" not in parts:
        return None
    if "password-file" not in parts:
        raise ValueError("coda: user=... needs password-file=...")
    with open(parts["password-file"], encoding="utf-8") as file:
        password = file.readline().rstrip("\r\n")
    return PasswordCredentials(parts["user"], password, realm=parts.get("realm"))
