"""The other end of a client's connections, in memory, played by the test."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.http1.heads import RequestHead
from coda_twisted.http1.readers import Data, End, RequestReader


class PeerTransport(StringTransport):
    """A transport that tells its protocol when it is gone, as TCP does."""

    protocol: Any = None
    certificate: Any = None
    gone = False
    aborted = False

    def getPeerCertificate(self) -> Any:
        """Show what a TLS server would have shown (ITLSTransport)."""
        return self.certificate

    def abortConnection(self) -> None:
        """Drop it: nothing that was written is sure to arrive."""
        super().abortConnection()
        self.aborted = True
        self.lose(ConnectionLost())

    def unregisterProducer(self) -> None:
        """Let the producer go, if there is one, as TCP does."""
        self.producer = self.streaming = None

    def lose(self, reason: Exception) -> None:
        """Say once that it is gone."""
        if not self.gone:
            self.gone = True
            protocol, self.protocol = self.protocol, None
            protocol.connectionLost(Failure(reason))


class Peer:
    """
    One accepted connection, seen from the server's side.

    :ivar requests: What was asked on it, as heads, complete or not.
    :ivar bodies: The content of each.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.transport = PeerTransport()
        self.requests: list[RequestHead] = []
        self.bodies: list[bytes] = []
        self.complete = 0
        self._reader = RequestReader()
        self.tunnel: bytes | None = None

    def read(self) -> Peer:
        """Read what the client has sent since, strictly."""
        data = self.transport.value()
        self.transport.clear()
        if self.tunnel is not None:
            self.tunnel += data
            return self
        events = self._reader.receive(data)
        while events or self._reader.pending:
            for event in events:
                if isinstance(event, RequestHead):
                    self.requests.append(event)
                    self.bodies.append(b"")
                elif isinstance(event, Data):
                    self.bodies[-1] += event.data
                elif isinstance(event, End):
                    self.complete += 1
            events = self._reader.next_message() if self._reader.pending else []
        return self

    @property
    def request(self) -> RequestHead:
        """The latest request."""
        return self.read().requests[-1]

    def send(self, data: bytes) -> None:
        """Send octets to the client."""
        if not self.transport.gone:
            self.transport.protocol.dataReceived(data)

    def answer(
        self, status: int, *fields: tuple[bytes, bytes], body: bytes = b""
    ) -> None:
        """Answer with a whole response."""
        self.read()
        lines = b"".join(b"%s: %s\r\n" % field for field in fields)
        length = (
            b""
            if status < 200 or status in (204, 304)
            else (b"Content-Length: %d\r\n" % len(body))
        )
        self.send(b"HTTP/1.1 %d Any\r\n%s%s\r\n%s" % (status, lines, length, body))

    def open_tunnel(self, extra: bytes = b"") -> None:
        """Answer a CONNECT with 200; what follows is raw."""
        self.read()
        self.tunnel = b""
        self.send(b"HTTP/1.1 200 Connection established\r\n\r\n" + extra)

    def close(self) -> None:
        """Close in good order."""
        self.transport.lose(ConnectionDone())

    def reset(self) -> None:
        """Reset the connection."""
        self.transport.lose(ConnectionLost())

    @property
    def dropped(self) -> bool:
        """Whether the client has let the connection go."""
        return self.transport.gone or self.transport.disconnecting


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, wire: Wire, host: str, port: int) -> None:
        self._wire = wire
        self._host = host
        self._port = port

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return self._wire._connect(self._host, self._port, protocolFactory)


class Wire:
    """
    Every connection that a client opens, in the order of their opening.

    :ivar refusals: What connecting to a host fails with.
    :ivar hold: Let connections wait until the test opens them.
    :ivar certificates: What the next connections show, as if they were TLS.
    """

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.refusals: dict[str, Exception] = {}
        self.held: list[tuple[Deferred[Any], Any]] = []
        self.hold = False
        self.certificates: list[Any] = []
        self.cancelled = 0

    def endpoint_for(self, host: str, port: int) -> IStreamClientEndpoint:
        """Stand in for ``HostnameEndpoint``."""
        endpoint: IStreamClientEndpoint = _Endpoint(self, host, port)
        return endpoint

    def _connect(
        self, host: str, port: int, factory: IProtocolFactory
    ) -> Deferred[Any]:
        if host in self.refusals:
            return fail(self.refusals[host])
        opened: Deferred[Any] = Deferred(self._cancel)

        def open_it() -> None:
            peer = Peer(host, port)
            if self.certificates:
                peer.transport.certificate = self.certificates.pop(0)
            protocol = factory.buildProtocol(None)  # type: ignore[arg-type]
            peer.transport.protocol = protocol
            self.peers.append(peer)
            assert protocol is not None
            protocol.makeConnection(peer.transport)
            opened.callback(protocol)

        if self.hold:
            self.held.append((opened, open_it))
        else:
            open_it()
        return opened

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1


class Sink:
    """Takes a response's content and remembers it."""

    def __init__(self) -> None:
        self.data = b""
        self.pieces = 0
        self.trailers: Any = None
        self.failure: Failure | None = None

    def received(self, data: bytes) -> None:
        self.data += data
        self.pieces += 1

    def finished(self, trailers: Any) -> None:
        assert self.trailers is None and self.failure is None
        self.trailers = trailers

    def failed(self, reason: Failure) -> None:
        assert self.trailers is None and self.failure is None
        self.failure = reason


__all__ = ["Clock", "Peer", "Sink", "Wire"]
