"""
Routes from the environment, as curl reads it.

========= ==========================================================
For       the first of these that is set and not empty
========= ==========================================================
http      ``http_proxy``, ``all_proxy``, ``ALL_PROXY``
https     ``https_proxy``, ``HTTPS_PROXY``, ``all_proxy``, ``ALL_PROXY``
tunnel    the same as https
any       ``no_proxy``, ``NO_PROXY``: see :mod:`coda_twisted.routing.noproxy`
========= ==========================================================

``HTTP_PROXY`` is not read: in a CGI program it holds the ``Proxy`` field of the
request, that is, whatever the client wants (https://httpoxy.org, CVE-2016-5385).

An ``https_proxy`` is the proxy for https URLs; whether it is itself spoken to over
TLS is a matter of its own URL's scheme.

Loopback hosts are not exempt unless ``no_proxy`` lists them.  curl does the same;
browsers do not.

Differences from curl: an ``http`` proxy without a port is at 3128, not 1080; a
proxy's URL has no path (curl ignores one); white space around a value does not
count; and a value that cannot be used is an error at once, not when the first
request needs it.  A value that is never used, such as an ``all_proxy`` behind both
others, may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from zope.interface import implementer

from coda_twisted.interfaces import IRouter
from coda_twisted.routing.noproxy import NoProxy
from coda_twisted.routing.routes import Direct, HTTPProxy, Route, Userinfo

__all__ = ["EnvironmentRouter"]

_ALL = ("all_proxy", "ALL_PROXY")
_CLEARTEXT = ("http_proxy", *_ALL)
_TUNNELLED = ("https_proxy", "HTTPS_PROXY", *_ALL)
_EXEMPT = ("no_proxy", "NO_PROXY")


@implementer(IRouter)
class EnvironmentRouter:
    """
    Go the way that the environment's proxy variables name.

    The variables are read once, when it is made.  There is one route for a request:
    a proxy that cannot be reached is not gone round, for it may be there for a
    reason.

    :param environ: The variables: ``os.environ``, or any mapping like it.
    :raises ValueError: A variable in use holds no proxy's URL, or a kind of proxy
        that is not supported; the text names the variable and never its value.

    :ivar no_proxy: The hosts that are reached directly.
    :ivar userinfo: User name and password of each proxy whose URL has them.  They
        are one identity per proxy: where ``http_proxy`` and ``https_proxy`` name
        the same proxy as different users, the user of ``http_proxy`` counts.
    """

    no_proxy: NoProxy
    userinfo: Mapping[HTTPProxy, Userinfo]

    def __init__(self, environ: Mapping[str, str]) -> None:
        found: dict[HTTPProxy, Userinfo] = {}
        self._cleartext = _route(environ, _CLEARTEXT, found)
        self._tunnelled = _route(environ, _TUNNELLED, found)
        self.userinfo = MappingProxyType(found)
        self.no_proxy = NoProxy(_first(environ, _EXEMPT)[1])

    def __repr__(self) -> str:
        return (
            f"EnvironmentRouter(http: {self._cleartext}, https: {self._tunnelled}, "
            f"no_proxy={self.no_proxy})"
        )

    def routes(self, scheme: str, host: str, port: int) -> Sequence[Route]:
        """Name the one way to *host*."""
        if self.no_proxy.match(host):
            return (Direct(),)
        return (self._cleartext if scheme == "http" else self._tunnelled,)


def _route(
    environ: Mapping[str, str],
    names: Sequence[str],
    found: dict[HTTPProxy, Userinfo],
) -> Route:
    """Read the proxy that the first of *names* holds; note its user in *found*."""
    name, value = _first(environ, names)
    if not value:
        return Direct()
    try:
        proxy, userinfo = HTTPProxy.from_url(value)
    except ValueError as error:
        raise ValueError(f"environment variable {name}: {error}") from None
    if userinfo is not None:
        found.setdefault(proxy, userinfo)
    return proxy


def _first(environ: Mapping[str, str], names: Sequence[str]) -> tuple[str, str]:
    """Find the first variable that is set and not empty: its name and its value."""
    for name in names:
        value = environ.get(name, "").strip()
        if value:
            return name, value
    return "", ""
