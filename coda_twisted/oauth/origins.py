"""Which servers may see what is ours."""

from __future__ import annotations

from collections.abc import Iterable

from coda_twisted.errors import RemoteProtocolError
from coda_twisted.http1.targets import Form, parse_target

__all__ = ["Origins", "check_endpoint", "origin_of", "shown"]

Origin = tuple[bytes, str, int]
"""Scheme, host and port."""


def origin_of(uri: bytes) -> Origin | None:
    """Find the origin server of a URI; ``None`` if it is not one of http or https."""
    try:
        target = parse_target(b"GET", uri.partition(b"#")[0])
    except RemoteProtocolError:
        return None
    if target.form is not Form.ABSOLUTE or target.scheme not in (b"http", b"https"):
        return None
    assert target.port is not None
    return target.scheme, target.host, target.port


class Origins:
    """
    The origin servers that were named, and no other.

    :param urls: ``https://api.example.com``, with a port where it is not the
        scheme's own; one, or several.
    :param allow_cleartext: Let there be http URLs among them.
    :raises ValueError: A URL names no origin server, or names more than that.
    """

    def __init__(
        self, urls: str | Iterable[str], *, allow_cleartext: bool = False
    ) -> None:
        names = [urls] if isinstance(urls, str) else list(urls)
        self._known = frozenset(_named(url, allow_cleartext) for url in names)

    def __contains__(self, uri: bytes) -> bool:
        return origin_of(uri) in self._known


def _named(url: str, allow_cleartext: bool) -> Origin:
    found = origin_of(url.encode("utf-8"))
    if found is None or parse_target(b"GET", url.encode("utf-8")).path != b"/":
        raise ValueError("an origin is written https://host or https://host:port")
    if found[0] != b"https" and not allow_cleartext:
        raise ValueError("an http origin needs allow_cleartext=True")
    return found


def check_endpoint(url: str, *, allow_cleartext: bool) -> str:
    """
    Check the URL of an authorization server (RFC 6749 3.1, 3.2: TLS is a must).

    :returns: The URL.
    :raises ValueError: It is no URL, or secrets would be sent there in clear.
    """
    found = origin_of(url.encode("utf-8"))
    if found is None or "#" in url:
        raise ValueError("the endpoint must be an http or https URL")
    if found[0] != b"https" and not allow_cleartext:
        raise ValueError("an http endpoint needs allow_cleartext=True")
    return url


def shown(url: str) -> str:
    """Name the server of a URL for people, without path and query."""
    scheme, slashes, rest = url.partition("://")
    return scheme + slashes + rest.partition("/")[0].partition("?")[0]
