"""
One connection of a fake server: requests, in their order.

Content is kept in memory, whole, both ways: a fake is for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.auth.bindings import tls_server_end_point
from coda_twisted.auth.steps import Role
from coda_twisted.errors import RemoteProtocolError
from coda_twisted.http1.bodies import Framing, encode_chunk, last_chunk
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead, ResponseHead
from coda_twisted.http1.persistence import request_persists
from coda_twisted.http1.readers import Data, RequestEvent, RequestReader
from coda_twisted.http1.targets import (
    DEFAULT_PORTS,
    Form,
    Target,
    check_host,
    format_authority,
    parse_target,
)
from coda_twisted.testing.exchanges import Answer, Exchange
from coda_twisted.testing.relay import TunnelEnd, join
from coda_twisted.testing.verdicts import Accepted, Received, Refused

if TYPE_CHECKING:
    from coda_twisted.testing.servers import FakeServer

__all__ = ["ServerConnection"]

_log = Logger("coda_twisted.testing")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@implementer(IHalfCloseableProtocol)
class ServerConnection(Protocol):
    """
    Reads requests, has them judged, and answers them.

    :ivar pin: Names this client where an upstream connection is to be its own.
    """

    def __init__(self, server: FakeServer) -> None:
        self.pin = object()
        self._server = server
        self._reader = RequestReader()
        self._guard = server.checkpoint.connected()
        self._legs = 0
        self._tunnel: TunnelEnd | None = None
        self._working: Deferred[None] | None = None
        self._delayed: Any = None
        self._closing = False
        # Of the request under way.
        self._head: RequestHead | None = None
        self._received: Received | None = None
        self._content: list[bytes] = []
        self._complete = False
        self._exchange: Exchange | None = None
        self._accepted: Accepted | None = None
        self._answered = False

    # The connection's life

    def connectionMade(self) -> None:
        """Take note of it."""
        self._server.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        """Read what came."""
        if self._tunnel is not None:
            self._tunnel.dataReceived(data)
        elif not self._closing:
            self._read(self._reader.receive, data)

    def readConnectionLost(self) -> None:
        """Take the end of one half for the end of all, but in tunnels."""
        if self._tunnel is not None:
            self._tunnel.readConnectionLost()
        else:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        """Our half is shut down, as we wanted."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop what is under way."""
        self._closing = True
        self._server.forget(self)
        if self._tunnel is not None:
            self._tunnel.connectionLost(reason)
        if self._delayed is not None and self._delayed.active():
            self._delayed.cancel()
        if self._working is not None:
            self._working.cancel()

    def abort(self) -> None:
        """Reset the connection, as a server does that is killed."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    # Reading

    def _read(self, read: Callable[..., list[RequestEvent]], *data: bytes) -> None:
        try:
            for event in read(*data):
                if self._closing:
                    return
                if isinstance(event, RequestHead):
                    self._begin(event)
                elif isinstance(event, Data):
                    self._content.append(event.data)
                else:
                    self._end()
        except RemoteProtocolError as error:
            self._closing = True
            text = f"{error}\n".encode()
            self._write(Answer(error.status_hint, [], text), keep=False)

    def _begin(self, head: RequestHead) -> None:
        target = parse_target(head.method, head.target)
        check_host(head, target)
        self._head = head
        self._content = []
        self._complete = self._answered = False
        self._exchange = self._accepted = None
        self._received = Received(
            method=head.method,
            target=head.target,
            url=self._url(head, target),
            path=target.path,
            fields=head.fields,
            bindings=_bindings(self.transport),
        )
        if self._reader.framing is Framing.NONE:
            return
        expects = b"100-continue" in head.fields.tokens(b"Expect")
        if (expects or self._server.quirks.early) and not self._needs_content():
            self._judge()
        if expects and not self._closing and not self._is_refused():
            self.transport.write(_CONTINUE)  # type: ignore[union-attr]

    def _url(self, head: RequestHead, target: Target) -> bytes:
        if target.form is Form.AUTHORITY:
            return target.path
        if target.form is Form.ABSOLUTE:
            assert target.port is not None
            default = DEFAULT_PORTS.get(target.scheme)
            authority = format_authority(target.host, target.port, default)
            return target.scheme + b"://" + authority + target.path
        scheme = b"http" if _bindings(self.transport) is None else b"https"
        host = head.fields.get(b"Host") or b""
        return scheme + b"://" + host + target.path

    def _needs_content(self) -> bool:
        """Say whether the credentials are about the content, too."""
        assert self._received is not None
        role = self._server.checkpoint.site.role
        value = self._received.fields.get(role.credentials_field) or b""
        return b"auth-int" in value or b"oauth_body_hash" in value

    def _is_refused(self) -> bool:
        return self._exchange is not None and self._accepted is None

    def _end(self) -> None:
        self._complete = True
        assert self._received is not None
        self._received = replace(self._received, content=b"".join(self._content))
        if self._exchange is None:
            self._judge()
        if self._accepted is not None and not self._closing:
            self._later(self._respond)
        elif self._answered:
            self._next()

    def _next(self) -> None:
        """Go on to what is here of the next request."""
        if not self._closing and self._tunnel is None:
            self._head = None
            self._read(self._reader.next_message)

    # Judging

    def _judge(self) -> None:
        assert self._received is not None
        server, request = self._server, self._received
        exchange = self._exchange = server.remember(Exchange(request))
        role = server.checkpoint.site.role
        if role.credentials_field in request.fields:
            self._legs = max(self._legs + 1, 2)
        elif self._guard.user is None:
            self._legs += 1
        if server.drops(self._legs):
            exchange.why = f"dropped on leg {self._legs}"
            self._closing = True
            self.transport.loseConnection()  # type: ignore[union-attr]
            return
        judged = self._guard.judge(request)
        exchange.scheme = judged.scheme
        if isinstance(judged.verdict, Accepted):
            self._legs = 0
            self._accepted = judged.verdict
            exchange.user = judged.verdict.user
        else:
            exchange.why = why = judged.verdict.reason
            ends = isinstance(judged.verdict, Refused)
            self._later(lambda: self._challenge(why, judged.challenges, ends))

    def _later(self, act: Callable[[], None]) -> None:
        slow = self._server.quirks.slow
        if slow:
            self._delayed = self._server.clock.callLater(slow, act)
        else:
            act()

    def _challenge(self, why: str, values: Sequence[bytes], ends: bool) -> None:
        """
        Challenge.

        :param ends: Whether it begins a logon, or ends one, and is not in its midst.
        """
        quirks = self._server.quirks
        role = self._server.checkpoint.site.role
        closes = quirks.closes_midway or (quirks.closes and ends)
        body = b"%b\n" % why.encode("utf-8") if quirks.body else b""
        answer = Answer(
            role.status,
            [(role.challenge_field, value) for value in values],
            body.ljust(quirks.body, b"."),
            quirks.reason,
        )
        self._answer(answer, keep=not closes, chunked=quirks.chunked)

    # Answering

    def _respond(self) -> None:
        assert self._received is not None and self._accepted is not None
        request = replace(self._received, user=self._accepted.user)
        self._working = Deferred.fromCoroutine(self._work(request))
        self._working.addErrback(self._broken)

    def _broken(self, reason: Failure) -> None:
        """Tell of an answer that cannot be written: text for octets, most likely."""
        _log.failure("an answer cannot be sent", reason)
        self.abort()

    async def _work(self, request: Received) -> None:
        try:
            answer = await self._server.respond(request, self)
        finally:
            self._working = None
        if isinstance(answer, Answer):
            self._answer(answer)
        else:
            self._open_tunnel(answer)

    def _answer(
        self, answer: Answer, *, keep: bool = True, chunked: bool = False
    ) -> None:
        """Answer the request, and go on."""
        head = self._head
        assert head is not None and self._exchange is not None
        if self._closing:
            return
        self._settled(answer.status)
        self._answered = True
        added = self._accepted.fields if self._accepted is not None else ()
        answer = replace(answer, fields=[*answer.fields, *added])
        self._write(answer, keep=keep and self._persists(head), chunked=chunked)
        if self._complete:
            self._next()

    def _settled(self, status: int) -> None:
        """Take note of the answer, for the test and for people."""
        exchange = self._exchange
        assert exchange is not None
        exchange.status = status
        request = exchange.request
        _log.info(
            "{method} {target}: {status}, {what}",
            method=request.method.decode("ascii"),
            target=request.target.partition(b"?")[0].decode("ascii"),
            status=status,
            what=exchange.why or exchange.user,
        )

    def _persists(self, head: RequestHead) -> bool:
        if self._server.quirks.http10:
            return self._is_asked_to_keep(head)
        return request_persists(head, proxy=False)

    @staticmethod
    def _is_asked_to_keep(head: RequestHead) -> bool:
        options = head.fields.tokens(b"Connection")
        options += head.fields.tokens(b"Proxy-Connection")
        return b"keep-alive" in options and b"close" not in options

    def _write(self, answer: Answer, *, keep: bool, chunked: bool = False) -> None:
        fields = Fields(answer.fields)
        body = answer.body
        is_head = self._head is not None and self._head.method == b"HEAD"
        if answer.status >= 200 and answer.status not in (204, 304):
            if chunked and body and not self._server.quirks.http10:
                fields.set(b"Transfer-Encoding", b"chunked")
                body = encode_chunk(body) + last_chunk()
            elif not (is_head and b"Content-Length" in fields):
                fields.set(b"Content-Length", b"%d" % len(body))
        if is_head or answer.status < 200 or answer.status in (204, 304):
            body = b""
        self._add_connection(fields, keep)
        reason = _phrase(answer.status) if answer.reason is None else answer.reason
        head = ResponseHead(answer.status, reason, (1, 1), fields)
        self.transport.write(self._serialise(head) + body)  # type: ignore[union-attr]
        if not keep:
            self._closing = True
            self.transport.loseConnection()  # type: ignore[union-attr]

    def _add_connection(self, fields: Fields, keep: bool) -> None:
        if not keep:
            fields.add(b"Connection", b"close")
            return
        head = self._head
        if self._server.quirks.http10 or (head and head.version < (1, 1)):
            proxy = self._server.checkpoint.site.role is Role.PROXY
            name = b"Proxy-Connection" if proxy else b"Connection"
            fields.add(name, b"keep-alive")

    def _serialise(self, head: ResponseHead) -> bytes:
        block = head.serialise()
        if self._server.quirks.http10:
            return block.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        return block

    def _open_tunnel(self, far: TunnelEnd) -> None:
        """Answer CONNECT with 200; the stream is no HTTP from there on."""
        if self._closing:
            far.transport.loseConnection()  # type: ignore[union-attr]
            return
        assert self._exchange is not None and self._accepted is not None
        self._settled(200)
        head = ResponseHead(
            200, b"Connection established", (1, 1), Fields(self._accepted.fields)
        )
        self.transport.write(self._serialise(head))  # type: ignore[union-attr]
        near = self._tunnel = TunnelEnd()
        near.makeConnection(self.transport)
        pending = self._reader.pending
        if pending:
            near.dataReceived(pending)
        join(near, far)


def _bindings(transport: Any) -> bytes | None:
    """Make the channel binding of our own certificate, where we speak TLS."""
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    certificate = getattr(handle, "get_certificate", lambda: None)()
    if certificate is None:
        return None
    from twisted.internet.ssl import Certificate

    return tls_server_end_point(bytes(Certificate(certificate).dump()))


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""
