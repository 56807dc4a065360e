"""What clients in memory need to speak TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from coda_twisted.client.tls import TLSPolicy
from coda_twisted.testing.certificates import Authority

__all__ = ["Immediately", "Trust"]


@implementer(IPolicyForHTTPS)
class Trust:
    """
    Trust one authority.

    :param authority: Makes it; called when it is first needed.
    """

    def __init__(self, authority: Callable[[], Authority]) -> None:
        self._authority = authority
        self._policy: TLSPolicy | None = None

    def creatorForNetloc(
        self, hostname: bytes, port: int
    ) -> IOpenSSLClientConnectionCreator:
        """Make what ``wrapClientTLS`` needs for one host (IPolicyForHTTPS)."""
        if self._policy is None:
            self._policy = TLSPolicy(self._authority().trust_root())
        return self._policy.creatorForNetloc(hostname, port)


@implementer(IPolicyForHTTPS)
class Immediately:
    """
    Keep TLS from gathering small writes.

    Twisted's does so until the next turn of the global reactor, which does not turn.

    :param policy: Verifies the servers.
    """

    def __init__(self, policy: IPolicyForHTTPS) -> None:
        self._policy = policy

    def creatorForNetloc(
        self, hostname: bytes, port: int
    ) -> IOpenSSLClientConnectionCreator:
        """Make what ``wrapClientTLS`` needs for one host (IPolicyForHTTPS)."""
        creator: IOpenSSLClientConnectionCreator = _ImmediateCreator(
            self._policy.creatorForNetloc(hostname, port)
        )
        return creator


@implementer(IOpenSSLClientConnectionCreator)
class _ImmediateCreator:
    def __init__(self, creator: IOpenSSLClientConnectionCreator) -> None:
        self._creator = creator

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Any:
        def write(data: bytes) -> None:
            TLSMemoryBIOProtocol.write(tlsProtocol, data)

        protocol: Any = tlsProtocol
        protocol.write = write
        protocol.writeSequence = lambda pieces: write(b"".join(pieces))
        return self._creator.clientConnectionForTLS(tlsProtocol)
