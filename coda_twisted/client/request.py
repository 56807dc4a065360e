"""A request as a caller has it, and as it goes out on a connection."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from coda_twisted.auth.steps import AuthRequest, Reply, Role
from coda_twisted.client.upload import BytesBody, ReplayableBody
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead, ResponseHead
from coda_twisted.http1.targets import format_authority

__all__ = ["DEFAULT_PORTS", "IDEMPOTENT", "Outgoing", "Request"]

DEFAULT_PORTS = {"http": 80, "https": 443}

IDEMPOTENT = frozenset([b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
"""RFC 9110 9.2.2: what may be sent again when a connection failed under it."""

CONTENT_METHODS = frozenset([b"POST", b"PUT", b"PATCH"])
"""RFC 9110 8.6: methods that anticipate content say so even when there is none."""

_HOST = frozenset((b"host",))


@dataclass(slots=True)
class Request:
    """
    One request to an origin server.

    :ivar method: Any token; case matters (RFC 9110 9.1).
    :ivar scheme: ``http`` or ``https``.
    :ivar host: The origin's name or address, IPv6 without brackets.
    :ivar port: The origin's port.
    :ivar path: The origin-form of the target, query included, or ``*``.
    :ivar fields: End-to-end fields and, if wanted, ``TE``.  ``Host`` is added
        where it is missing; framing fields are made from *body*.
    :ivar body: The content, or ``None``.  It may have an attribute ``trailers``,
        read when it has finished.
    :ivar on_interim: Called with the head of each 1xx response but 101.
    :ivar upgrade: Protocols for an ``Upgrade`` field (RFC 9110 7.8).
    :ivar expect_continue: Ask for a 100 (Continue) before the content, and hold
        it for a second at most.
    :ivar close: Do not use the connection again.
    :ivar pin: Names whoever must have connections of its own, because what it sends
        authenticates them; see :meth:`coda_twisted.client.exchange.Client.release`.
    """

    method: bytes
    scheme: str
    host: str
    port: int
    path: bytes
    fields: Fields = field(default_factory=Fields)
    body: IBodyProducer | None = None
    on_interim: Callable[[ResponseHead], None] | None = None
    upgrade: bytes | None = None
    expect_continue: bool = False
    close: bool = False
    pin: Hashable = None

    @property
    def authority(self) -> bytes:
        """``host`` or ``host:port``, as the Host field has it."""
        return format_authority(self.host, self.port, DEFAULT_PORTS.get(self.scheme))

    def outgoing(self, *, through_proxy: bool, replayable: bool) -> Outgoing:
        """
        Make ready what goes out.

        :param through_proxy: Use the absolute-form (RFC 9112 3.2.2).
        :param replayable: Keep the content for another leg.
        """
        authority = self.authority
        fields = self.fields
        host = fields.get(b"Host")
        if host is not None:
            fields = fields.without(_HOST)
        target = self.path
        if through_proxy:
            # RFC 9112 3.2.4: the last proxy turns an empty path of OPTIONS to "*".
            path = b"" if target == b"*" else target
            target = b"%b://%b%b" % (self.scheme.encode("ascii"), authority, path)
        body = self.body
        return Outgoing(
            self.method,
            target,
            fields.led_by(b"Host", host or authority),
            ReplayableBody(body) if body is not None and replayable else body,
            self.on_interim,
            self.upgrade,
            self.expect_continue,
            self.close,
        )

    def asked(self, outgoing: Outgoing) -> AuthRequest:
        """
        Tell what conversations need to know of it.

        :param outgoing: As it goes out.
        """
        content = self.body.content if isinstance(self.body, BytesBody) else None
        return AuthRequest(
            method=self.method,
            target=outgoing.target,
            path=self.path,
            content=b"" if self.body is None else content,
            content_type=self.fields.get(b"Content-Type") or b"",
            host=self.fields.get(b"Host", self.authority) or b"",
        )


@dataclass(slots=True)
class Outgoing:
    """
    What goes out on a connection; each leg has a head of its own.

    :ivar target: The request-target as on the request line.
    """

    method: bytes
    target: bytes
    fields: Fields
    body: IBodyProducer | ReplayableBody | None = None
    on_interim: Callable[[ResponseHead], None] | None = None
    upgrade: bytes | None = None
    expect_continue: bool = False
    close: bool = False

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again after a connection failed under it."""
        return (self.method in IDEMPOTENT or self.method == b"CONNECT") and (
            self.body is None
            or (isinstance(self.body, ReplayableBody) and self.body.replayable)
        )

    def head(
        self,
        replies: Sequence[tuple[Role, Reply]],
        *,
        expect: bool,
        keep: bool = False,
    ) -> RequestHead:
        """
        Make the head of one leg; it is not to be changed.

        :param replies: What the layers say, and to whom.
        :param expect: Ask for a 100 (Continue).
        :param keep: Ask the proxy to keep the connection, which is authenticated.
        """
        more: list[tuple[bytes, bytes]] = []
        with_body = self.body is not None
        for role, reply in replies:
            with_body = with_body and reply.send_body
            more.append((role.credentials_field, reply.value))
            keep = keep or role is Role.PROXY
        if keep:
            # Proxies of HTTP/1.0 descent close without it: between the legs, and
            # later, with the logon that the connection is worth.
            more.append((b"Proxy-Connection", b"keep-alive"))
        options = []
        if b"TE" in self.fields:
            options.append(b"TE")
        if self.upgrade is not None:
            options.append(b"Upgrade")
            more.append((b"Upgrade", self.upgrade))
        if self.close:
            options.append(b"close")
        if options:
            more.append((b"Connection", b", ".join(options)))
        if self.body is not None or self.method in CONTENT_METHODS:
            more.append(self._framing(with_body=with_body))
        if expect:
            more.append((b"Expect", b"100-continue"))
        fields = Fields([*self.fields, *more]) if more else self.fields
        return RequestHead(self.method, self.target, (1, 1), fields)

    def _framing(self, *, with_body: bool) -> tuple[bytes, bytes]:
        """Say how the leg's content is framed (RFC 9112 6)."""
        if self.body is None or not with_body:
            return b"Content-Length", b"0"
        if self.body.length == UNKNOWN_LENGTH:
            return b"Transfer-Encoding", b"chunked"
        return b"Content-Length", b"%d" % self.body.length
