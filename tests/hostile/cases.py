"""What a row of the tables says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Asked", "Request", "Response", "asked", "placed"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Asked(NamedTuple):
    """
    A request as a server understands it.

    :ivar line: The request line.
    :ivar fields: The field lines in their order, without our own in ``Via``.
    :ivar content: Taken out of its framing.
    :ivar trailers: As *fields*.
    """

    line: bytes
    fields: tuple[bytes, ...]
    content: bytes = b""
    trailers: tuple[bytes, ...] = ()


def asked(
    line: bytes,
    *fields: bytes,
    content: bytes = b"",
    trailers: tuple[bytes, ...] = (),
) -> Asked:
    """Write down a request to the origin server."""
    return Asked(line + b" HTTP/1.1", (b"Host: SITE", *fields), content, trailers)


@dataclass(frozen=True)
class Request:
    """
    Octets that a client sends on one connection.

    ``SITE`` in any of them stands for the origin server's host and port.

    :ivar name: What they are, for people.
    :ivar sent: The octets.
    :ivar statuses: Of the final responses to the client, in their order.
    :ivar why: The sections that have it so.
    :ivar reached: The requests that reach the next server: exactly these, complete.
    :ivar does: What we do, for people, where that is not clear from the rest.
    :ivar closes: Whether we end the connection behind the last response.
    :ivar answers: What the next server answers to each; 200 to all further ones.
    :ivar early: Whether it answers as soon as it has seen a head.
    :ivar above: Whether the next server is a proxy.
    :ivar raw: What reaches it behind the requests, in a tunnel.
    """

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    why: str
    reached: tuple[Asked, ...] = ()
    does: str = ""
    closes: bool = False
    answers: tuple[bytes, ...] = ()
    early: bool = False
    above: bool = False
    raw: bytes = b""

    def outcome(self) -> str:
        """Tell what we do, in words."""
        if self.does:
            return self.does
        if self.reached:
            return "passed on, written anew"
        statuses = ", ".join(map(str, self.statuses))
        return f"{statuses}, and the connection is closed" if self.closes else statuses


@dataclass(frozen=True)
class Response:
    """
    Octets with which a server answers a request; the next one it answers with 200.

    :ivar name: What they are, for people.
    :ivar sent: The octets.
    :ivar why: The sections that have it so.
    :ivar status: Of the response that the client sees.
    :ivar content: Its content; ``None`` where the client sees that it is cut short,
        or, if it all came at once, 502.
    :ivar fields: Field lines that must be in it.
    :ivar absent: Names of fields that must not.
    :ivar interim: How many 1xx come before it.
    :ivar reused: Whether the next request goes out on the same connection.
    :ivar method: Of the request.
    :ivar lines: Further field lines of the request.
    :ivar does: As of :class:`Request`.
    :ivar ends: Whether the server ends the connection behind the octets.
    """

    name: str
    sent: bytes
    why: str
    status: int = 502
    content: bytes | None = b""
    fields: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = field(default=())
    interim: int = 0
    reused: bool = False
    method: bytes = b"GET"
    lines: tuple[bytes, ...] = ()
    does: str = ""
    ends: bool = False

    def outcome(self) -> str:
        """Tell what we do, in words."""
        if self.does:
            return self.does
        if self.content is None:
            return "502, or cut short if it has begun; the connection is closed"
        if self.status == 502:
            return "502; the connection is closed"
        kept = "kept" if self.reused else "closed"
        return f"passed on, written anew; the connection is {kept}"


def placed(octets: bytes, site: bytes) -> bytes:
    """Put the origin server's authority in its place."""
    return octets.replace(b"SITE", site)
