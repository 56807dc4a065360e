"""The ways a request may go, and how people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import unquote

from zope.interface import implementer

from coda_twisted.interfaces import IRouter

if TYPE_CHECKING:
    from coda_twisted.routing.noproxy import NoProxy

__all__ = ["Direct", "HTTPProxy", "Route", "StaticRouter", "Userinfo"]

# curl takes 1080, the port of SOCKS, for an http proxy without a port.  3128 is
# Squid's, and where cntlm and px listen.
_DEFAULT_PORTS = {"http": 3128, "https": 443}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SERVER = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[^:]*))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Userinfo(NamedTuple):
    """
    The user name and password of a proxy's URL, percent-decoded.

    Both may be empty: ``http://:@proxy.example`` is how users of curl ask for
    their Kerberos ticket to be used.
    """

    username: str
    password: str

    def __repr__(self) -> str:
        """Tell the name; a password is never shown."""
        return f"Userinfo({self.username!r}, ...)"


@dataclass(frozen=True, slots=True)
class Direct:
    """Connect to the origin server itself."""

    def __str__(self) -> str:
        """Name it for people."""
        return "direct"


@dataclass(frozen=True, slots=True)
class HTTPProxy:
    """
    Send requests to an HTTP proxy (RFC 9110 3.7), tunnels by CONNECT.

    :ivar scheme: ``http``, or ``https`` for a proxy that is spoken to over TLS.
    :ivar host: Its name or address, lower case, IPv6 without brackets.
    :ivar port: Its TCP port.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int

    def __str__(self) -> str:
        """Write it as a URL, always with its port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @classmethod
    def from_url(cls, url: str) -> tuple[HTTPProxy, Userinfo | None]:
        """
        Read a proxy as people write it: ``[scheme://][user[:password]@]host[:port]``.

        Without a scheme it is an ``http`` proxy; without a port it is at 3128
        (``http``) or 443 (``https``).  What is special in a URL is
        percent-encoded in the user name and the password, as UTF-8.

        :returns: The proxy, and the user name and password where there are any.
        :raises ValueError: It cannot be read, or is a kind of proxy not supported.
            The text repeats no part of *url*, for a misplaced ``/`` or ``@`` makes
            any part of it part of a password.
        """
        scheme, rest = _split_scheme(url.strip())
        authority = rest.removesuffix("/")
        if set(authority) & set("/?#"):
            raise ValueError(
                "a proxy's URL ends after the port: "
                "percent-encode '/', '?' and '#' in a user name or password"
            )
        userinfo, at, server = authority.rpartition("@")
        host, port = _split_server(server)
        proxy = cls(scheme, host, port or _DEFAULT_PORTS[scheme])
        return proxy, _decode_userinfo(userinfo) if at else None


Route = Direct | HTTPProxy


@implementer(IRouter)
class StaticRouter:
    """
    One way for everything.

    :ivar route: The way.
    :ivar no_proxy: The hosts that are reached directly all the same.
    """

    def __init__(self, route: Route, no_proxy: NoProxy | None = None) -> None:
        self.route = route
        self.no_proxy = no_proxy

    def __repr__(self) -> str:
        return f"StaticRouter({self.route}, no_proxy={self.no_proxy})"

    def routes(self, scheme: str, host: str, port: int) -> Sequence[Route]:
        """Name the way, which depends on *host* at most."""
        if self.no_proxy is not None and self.no_proxy.match(host):
            return (Direct(),)
        return (self.route,)


def _split_scheme(url: str) -> tuple[Literal["http", "https"], str]:
    """Take the scheme off a proxy's URL."""
    written = _SCHEME.match(url)
    if written is None:
        return "http", url
    scheme, rest = written[1].lower(), url[written.end() :]
    if scheme == "http":
        return "http", rest
    if scheme == "https":
        return "https", rest
    if scheme.startswith("socks"):
        raise ValueError("SOCKS proxies are not supported yet, only http and https")
    raise ValueError("the scheme of a proxy's URL is http or https")


def _split_server(server: str) -> tuple[str, int | None]:
    """Read ``host[:port]``; the port is ``None`` when it is absent or empty."""
    parts = _SERVER.fullmatch(server)
    if parts is None:
        raise ValueError(
            "a proxy is written host:port, an IPv6 address in brackets: [::1]:3128"
        )
    return _check_host(parts["host"]), _check_port(parts["port"])


def _check_host(host: str) -> str:
    """Normalise a host's spelling, so that equal proxies compare equal."""
    if host.startswith("["):
        try:
            if "%" in host:  # IPv6Address would keep it as a scope
                raise ValueError
            return str(IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError("a proxy's bracketed host is an IPv6 address") from None
    if _NAME.fullmatch(host) is None:
        raise ValueError(
            "a proxy's host is missing, or has a character that no name has"
        )
    return host.lower()


def _check_port(port: str | None) -> int | None:
    """Read a port; RFC 3986 3.2.3 lets it be empty."""
    if not port:
        return None
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise ValueError("a proxy's port is a number")
    if not 1 <= int(port) <= 65535:
        raise ValueError("a proxy's port is a number from 1 to 65535")
    return int(port)


def _decode_userinfo(userinfo: str) -> Userinfo:
    """Undo the percent-encoding of ``user[:password]``."""
    username, _, password = userinfo.partition(":")
    try:
        decoded = Userinfo(
            unquote(username, errors="strict"), unquote(password, errors="strict")
        )
    except UnicodeDecodeError:
        # The cause carries the octets of the password.
        raise ValueError(
            "a proxy's user name and password are percent-encoded UTF-8"
        ) from None
    if any(map(_CONTROL.search, decoded)):
        raise ValueError("a proxy's user name or password has a control character")
    return decoded
