"""Request-targets, authorities, and the Host field (RFC 9112 3.2)."""

from __future__ import annotations

import re
from enum import Enum, auto
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from coda_twisted.errors import RemoteProtocolError

if TYPE_CHECKING:
    from coda_twisted.http1.heads import RequestHead

__all__ = [
    "DEFAULT_PORTS",
    "Form",
    "Target",
    "check_host",
    "format_authority",
    "parse_authority",
    "parse_target",
]

DEFAULT_PORTS = {b"http": 80, b"https": 443, b"ws": 80, b"wss": 443}
"""The port of a URI that names none, by scheme."""

# RFC 3986 lets a reg-name hold "%" and sub-delims too.  No resolver knows such a
# name, and what cannot be resolved is better refused than passed on.
_AUTHORITY = re.compile(
    rb"(?:(?P<name>[0-9A-Za-z._-]{1,255})|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])"
    rb"(?P<colon>:(?P<port>[0-9]{0,5}))?"
)
# VCHAR but "#": browsers leave "|", "{" and others as they are.
_VISIBLE = re.compile(rb"[!\"$-~]+")
_ABSOLUTE = re.compile(
    rb"(?P<scheme>[A-Za-z][0-9A-Za-z+.-]*)://(?P<authority>"
    + _AUTHORITY.pattern
    + rb")(?P<path>(?:[/?](?:"
    + _VISIBLE.pattern
    + rb")?)?)"
)
_FAULTY = re.compile(rb"[A-Za-z][0-9A-Za-z+.-]*://([^/?#]*)", re.DOTALL)


class Form(Enum):
    """The four forms of a request-target (RFC 9112 3.2.1 to 3.2.4)."""

    ORIGIN = auto()
    ABSOLUTE = auto()
    AUTHORITY = auto()
    ASTERISK = auto()


class Target(NamedTuple):
    """
    What a request is about.

    :ivar form: How it was written.
    :ivar scheme: In lower case; empty but for the absolute-form.
    :ivar host: In lower case, IPv6 compressed and without brackets; empty for
        origin- and asterisk-form.
    :ivar port: As written, or the scheme's own; ``None`` where there is neither.
    :ivar path: The path and query as the origin-form has them, ``*``, or for
        CONNECT ``host:port``.
    :ivar authority: Host and port as they were written.
    """

    form: Form
    scheme: bytes
    host: str
    port: int | None
    path: bytes
    authority: bytes = b""


def parse_target(method: bytes, raw: bytes) -> Target:
    """
    Parse a request-target; percent-encoding is left as it is.

    :param method: Decides which forms are possible.
    :raises RemoteProtocolError: It has another form, or is malformed (400).  A
        userinfo, which no http URI may have (RFC 9110 4.2.4), is not quoted.
    """
    absolute = _ABSOLUTE.fullmatch(raw)
    if absolute is not None and method != b"CONNECT":
        scheme = absolute["scheme"].lower()
        host, port = _host_and_port(absolute)
        path = absolute["path"]
        if not path:
            # RFC 9112 3.2.4: OPTIONS without a path is about the server as a whole.
            path = b"*" if method == b"OPTIONS" else b"/"
        elif path[0] != 0x2F:
            path = b"/" + path
        port = port or DEFAULT_PORTS.get(scheme)
        authority = absolute["authority"]
        return Target(Form.ABSOLUTE, scheme, host, port, path, authority)
    if not _VISIBLE.fullmatch(raw):
        raise RemoteProtocolError(
            "the request-target is empty, or holds a fragment, whitespace, or an "
            "octet that is not ASCII"
        )
    if method == b"CONNECT":
        host, port = parse_authority(raw)
        path = format_authority(host, port)
        return Target(Form.AUTHORITY, b"", host, port, path, raw)
    if raw.startswith(b"/"):
        return Target(Form.ORIGIN, b"", "", None, raw)
    if raw == b"*" and method == b"OPTIONS":
        return Target(Form.ASTERISK, b"", "", None, raw)
    faulty = _FAULTY.match(raw)
    if faulty is not None:
        _split(faulty[1])
    raise RemoteProtocolError("the request-target fits no form of this method")


def parse_authority(raw: bytes, default_port: int | None = None) -> tuple[str, int]:
    """
    Parse ``host:port`` or ``[v6]:port``.

    :param default_port: What no port, or an empty one, means; without it they are
        errors, as they are for CONNECT (RFC 9110 9.3.6).
    :returns: The host in lower case, IPv6 compressed and without brackets.
    :raises RemoteProtocolError: It is anything else (400).
    """
    host, given = _split(raw)
    port = given or default_port
    if port is None:
        raise RemoteProtocolError("the authority has no port")
    return host, port


def _split(raw: bytes) -> tuple[str, int | None]:
    """Take an authority apart; the port is ``None`` where it is empty or absent."""
    match = _AUTHORITY.fullmatch(raw)
    if match is None:
        if b"@" in raw:
            raise RemoteProtocolError("the authority holds a user name")
        raise RemoteProtocolError("the authority is not a host and a port")
    return _host_and_port(match)


def _host_and_port(match: re.Match[bytes]) -> tuple[str, int | None]:
    if match["v6"] is None:
        host = match["name"].decode("ascii").lower()
    else:
        try:
            host = str(IPv6Address(match["v6"].decode("ascii")))
        except AddressValueError:
            raise RemoteProtocolError("the authority is no IPv6 address") from None
    if not match["port"]:
        return host, None
    port = int(match["port"])
    if not 0 < port < 65536:
        raise RemoteProtocolError("the port is not between 1 and 65535")
    return host, port


def format_authority(host: str, port: int, default_port: int | None = None) -> bytes:
    """
    Write ``host:port``, an IPv6 address in brackets.

    :param default_port: The port that is left out.
    """
    name = f"[{host}]" if ":" in host else host
    return (name if port == default_port else f"{name}:{port}").encode("ascii")


def check_host(head: RequestHead, target: Target) -> None:
    """
    Enforce the rules for Host (RFC 9112 3.2).

    That it names the same server as *target* is not checked: a proxy ignores what
    it says beside an absolute-form and writes it anew (RFC 9112 3.2.2).

    :raises RemoteProtocolError: There is none though the version is 1.1, more than
        one, or one that is malformed (400).  An empty one is malformed beside an
        origin-form: nothing else says the host, and http URIs have one (RFC 9110
        4.2.1).
    """
    values = head.fields.get_all(b"Host")
    if not values:
        if head.version >= (1, 1):
            raise RemoteProtocolError("no Host field")
    elif len(values) > 1:
        raise RemoteProtocolError("more than one Host field")
    elif values[0] and values[0] == target.authority:
        pass  # has been looked at
    elif values[0] or target.form is Form.ORIGIN:
        _split(values[0])
