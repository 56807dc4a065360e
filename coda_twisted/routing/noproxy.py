"""
Which hosts are reached without the proxy: the ``no_proxy`` variable.

There is no standard for it; curl's rules are the ones most people have met.  An
entry is one of

- a domain name, which stands for itself and for every name below it, on any
  port.  Case does not count, nor one leading dot, nor one trailing dot;
- an IPv4 or IPv6 address;
- a network in CIDR notation: ``10.0.0.0/8``, ``fd00::/8``.

The single character ``*`` as the whole value stands for every host.  As in curl a
name is never resolved to be compared with an address, loopback addresses and
``localhost`` are not exempt unless listed, an address needs all its parts
(``10.`` and ``192.168.*`` match nothing), and an entry with a port or a pattern in
it (``example.com:8080``, ``*.example.com``, ``*`` among others) matches nothing.

This differs from curl (7.88.1 was tried, a later 8.x read) as follows.

- Entries are separated by commas, white space or both.  curl stopped accepting
  white space alone in 8.9: it ignores what follows, which no writer of such a list
  can have meant.
- White space around a lone ``*`` does not count.
- IPv6 entries are compared as addresses, and may stand in brackets.  curl 7.88
  compares text, so that ``::/64`` and ``0:0:0:0:0:0:0:1`` do not match ``::1``;
  later versions compare addresses, and know no brackets.
- A prefix length of 0 matches every address of its family.  curl takes it for a
  single address.
- A network with a prefix length that is no number, or is too long, matches
  nothing.  curl 7.88 reads ``10.0.0.1/x`` as ``10.0.0.1``.
- A host is taken as it is written: ``127.1`` is a name.  curl makes it
  ``127.0.0.1`` first.

Python's ``urllib.request``, which many Python programs use, knows no networks, and
compares an entry that has a port with the host and the port.
"""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

__all__ = ["NoProxy"]

_SEPARATORS = re.compile(r"[,\s]+")


class NoProxy:
    """
    A list of hosts that are reached directly.

    Nothing in it is an error: an entry that cannot match is harmless, and other
    programs that read the same variable may understand it.

    :param value: The value of a ``no_proxy`` variable.
    """

    def __init__(self, value: str) -> None:
        self._value = value
        self._everything = value.strip() == "*"
        self._domains: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in _SEPARATORS.split(value):
            network = _parse_network(entry)
            if network is not None:
                self._networks.append(network)
            elif name := entry.removesuffix(".").removeprefix(".").lower():
                self._domains.add(name)

    def __repr__(self) -> str:
        return f"NoProxy({self._value!r})"

    def match(self, host: str) -> bool:
        """
        Tell whether to reach *host* directly.

        :param host: A name or an address; IPv6 with or without brackets.
        """
        if self._everything:
            return True
        if not (self._domains or self._networks):
            return False
        name = host.removesuffix(".").lower()
        address = _parse_address(name)
        if address is not None:
            return any(address in network for network in self._networks)
        while name:
            if name in self._domains:
                return True
            name = name.partition(".")[2]
        return False


def _parse_network(entry: str) -> IPv4Network | IPv6Network | None:
    """Read an address or a network; ``None`` when it is neither."""
    address, slash, length = entry.partition("/")
    if slash and not length.isdecimal():
        return None  # ip_network would take a netmask, which curl does not
    try:
        return ip_network(_unbracketed(address) + slash + length, strict=False)
    except ValueError:
        return None


def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """Read a host that is an address, without the zone it may name (RFC 4007)."""
    try:
        return ip_address(_unbracketed(host).partition("%")[0])
    except ValueError:
        return None


def _unbracketed(host: str) -> str:
    """Take an IPv6 address out of its brackets."""
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1]
    return host
