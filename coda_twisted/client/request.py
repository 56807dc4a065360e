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


@dataclass(frozen=True, slots=True)
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
        fields = self.fields.copy()
        if b"Host" in fields:
            host = fields.get(b"Host")
            fields.remove(b"Host")
        else:
            host = authority
        target = self.path
        if through_proxy:
            # RFC 9112 3.2.4: the last proxy turns an empty path of OPTIONS to "*".
            path = b"" if self.path == b"*" else self.path
            target = self.scheme.encode("ascii") + b"://" + authority + path
        content = self.body.content if isinstance(self.body, BytesBody) else None
        return Outgoing(
            method=self.method,
            target=target,
            auth=AuthRequest(
                method=self.method,
                target=target,
                path=self.path,
                content=b"" if self.body is None else content,
                content_type=fields.get(b"Content-Type") or b"",
                host=host or b"",
            ),
            fields=Fields([(b"Host", host or authority), *fields]),
            body=(
                ReplayableBody(self.body)
                if self.body is not None and replayable
                else self.body
            ),
            on_interim=self.on_interim,
            upgrade=self.upgrade,
            expect_continue=self.expect_continue,
            close=self.close,
        )


@dataclass(slots=True)
class Outgoing:
    """
    What goes out on a connection; each leg has a head of its own.

    :ivar target: The request-target as on the request line.
    :ivar auth: The request, as conversations need to know it.
    """

    method: bytes
    target: bytes
    auth: AuthRequest
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
        self, replies: Sequence[tuple[Role, Reply]], *, expect: bool
    ) -> RequestHead:
        """
        Make the head of one leg.

        :param replies: What the layers say, and to whom.
        :param expect: Ask for a 100 (Continue).
        """
        fields = self.fields.copy()
        options = []
        for role, reply in replies:
            fields.add(role.credentials_field, reply.value)
            if role is Role.PROXY:
                # Proxies of HTTP/1.0 descent close between the legs without it.
                fields.add(b"Proxy-Connection", b"keep-alive")
        if b"TE" in fields:
            options.append(b"TE")
        if self.upgrade is not None:
            options.append(b"Upgrade")
            fields.add(b"Upgrade", self.upgrade)
        if self.close:
            options.append(b"close")
        if options:
            fields.add(b"Connection", b", ".join(options))
        self._frame(fields, with_body=all(reply.send_body for _, reply in replies))
        if expect:
            fields.add(b"Expect", b"100-continue")
        return RequestHead(self.method, self.target, (1, 1), fields)

    def _frame(self, fields: Fields, *, with_body: bool) -> None:
        """Add the framing that fits the leg's content (RFC 9112 6)."""
        if self.body is None or not with_body:
            if self.body is not None or self.method in CONTENT_METHODS:
                fields.add(b"Content-Length", b"0")
        elif self.body.length == UNKNOWN_LENGTH:
            fields.add(b"Transfer-Encoding", b"chunked")
        else:
            fields.add(b"Content-Length", b"%d" % self.body.length)
