"""
Whom the service serves, and where to.

Whoever can connect borrows its user's identity at the proxy above.  On loopback
those are the users of the machine; elsewhere only the networks that were named, and
they reach less.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from coda_twisted.errors import CodaError

__all__ = [
    "METADATA",
    "SAFE_PORTS",
    "Access",
    "DestinationProhibited",
    "GuardedEndpoint",
    "LoopDetected",
    "Network",
    "Prohibited",
]

SAFE_PORTS = frozenset((443, 563))
"""Where CONNECT may go for others: https and nntps, as in Squid's SSL_ports."""

METADATA = frozenset(
    map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200"))
)
"""
Where clouds keep their machines' credentials, beside 169.254.169.254.

Those of Amazon and Google in IPv6, and that of Alibaba; none is link-local.
"""

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


class Prohibited(CodaError):
    """The service's own rules forbid what was asked; the text says which rule."""


class DestinationProhibited(Prohibited):
    """The rules forbid an address; a name may have turned out to be it."""


class LoopDetected(CodaError):
    """A request would come, or has come, back to us."""


class Access:
    """
    The rules.

    :param networks: Clients that are served; loopback always is.  ``None`` where
        nothing but loopback can connect.
    :param connect_ports: Where CONNECT may go; ``None`` for the default: anywhere
        when only loopback is served, :data:`SAFE_PORTS` otherwise.
    :param loopback: Whether loopback may be reached although others are served; not
        by default, as in Squid 6 (``to_localhost``): what listens there trusts the
        users of the machine, and they need no proxy for it.
    :ivar listening: Our own addresses and ports, once they are known.
    """

    def __init__(
        self,
        networks: Collection[Network] | None = None,
        connect_ports: Collection[int] | None = None,
        *,
        loopback: bool = False,
    ) -> None:
        self._networks = networks
        self._loopback = loopback
        if connect_ports is None and networks is not None:
            connect_ports = SAFE_PORTS
        self._connect_ports = None if connect_ports is None else {*connect_ports}
        self.listening = ()

    @property
    def listening(self) -> Sequence[tuple[Address, int]]:
        """Where we listen ourselves."""
        return self._listening

    @listening.setter
    def listening(self, where: Sequence[tuple[Address, int]]) -> None:
        self._listening = where
        self._own_ports = frozenset(port for _, port in where)

    def check_client(self, host: str) -> None:
        """
        Refuse strangers.

        :param host: The client's address.
        :raises Prohibited: It is in none of the networks.
        """
        if self._networks is None:
            return
        address = _address(host)
        if address is None or not (
            address.is_loopback or any(address in network for network in self._networks)
        ):
            raise Prohibited(
                f"{host} is not among the networks that are served (--allow)"
            )

    def check_connect(self, host: str, port: int) -> None:
        """
        Refuse tunnels to where none should go.

        :raises Prohibited: The port is not one of those for CONNECT.
        :raises DestinationProhibited: As :meth:`check_destination`.
        """
        if self._connect_ports is not None and port not in self._connect_ports:
            raise Prohibited(
                f"CONNECT to port {port} is not allowed here (--connect-ports)"
            )
        self.check_destination(host, port)

    def is_open(self, port: int) -> bool:
        """Say whether this port may be reached wherever it is."""
        return self._networks is None and port not in self._own_ports

    def check_destination(self, host: str, port: int, local: str = "") -> None:
        """
        Refuse addresses that nobody should reach through us.

        :param host: An address; names are looked at once they are resolved.
        :param local: Our end of the connection, if there is one already.
        :raises LoopDetected: It is where we listen.
        :raises DestinationProhibited: It is link-local (RFC 3927, RFC 4291 2.5.6),
            or another of those where clouds keep their machines' credentials, or
            loopback, or no address at all, and others than loopback are served.
        """
        if self.is_open(port):
            return
        ours = [own for own, own_port in self.listening if port == own_port]
        address = _address(host)
        if address is None:
            return
        for own in ours:
            if (
                address == own
                or address.is_unspecified  # connects to loopback
                or (own.is_unspecified and (address.is_loopback or host == local))
            ):
                raise LoopDetected("the destination is this proxy itself")
        if self._networks is None:
            return
        if address.is_link_local or address.is_unspecified or address in METADATA:
            raise DestinationProhibited(
                f"{host} is link-local, or no address, or has a cloud's secrets"
            )
        if address.is_loopback and not self._loopback:
            raise DestinationProhibited(
                f"{host} is this machine's own, which others do not reach from here "
                "(--allow-loopback)"
            )

    def guard(
        self, endpoint_for: Callable[[str, int], IStreamClientEndpoint], *exempt: Any
    ) -> Callable[[str, int], IStreamClientEndpoint]:
        """
        Have every connection's other end looked at before anything is sent.

        :param exempt: Hosts and ports of the proxies above.
        """

        def guarded(host: str, port: int) -> IStreamClientEndpoint:
            endpoint = endpoint_for(host, port)
            if (host, port) in exempt:
                return endpoint
            return GuardedEndpoint(endpoint, port, self)

        return guarded


@implementer(IStreamClientEndpoint)
class GuardedEndpoint:
    """Drop connections to addresses that the rules forbid, whatever name led there."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, port: int, access: Access
    ) -> None:
        self._endpoint = endpoint
        self._port = port
        self._access = access

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, look where to, and only then pass the connection on."""
        return self._endpoint.connect(protocolFactory).addCallback(self._check)

    def _check(self, protocol: Any) -> IProtocol:
        transport = protocol.transport
        if self._access.is_open(self._port):
            return protocol  # type: ignore[no-any-return]
        peer, own = transport.getPeer(), transport.getHost()
        try:
            self._access.check_destination(
                getattr(peer, "host", ""),
                getattr(peer, "port", 0),
                getattr(own, "host", ""),
            )
        except CodaError:
            transport.abortConnection()
            raise
        return protocol  # type: ignore[no-any-return]


def _address(host: str) -> Address | None:
    """Read an address; one of IPv4 that comes in IPv6's clothes is of IPv4."""
    if not (host[-1:].isdigit() or ":" in host):
        return None  # a name, as most are; to find out by trying costs much more
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
