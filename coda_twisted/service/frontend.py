"""
The client's side of the service: connections that bring requests.

Requests of one connection are carried one after another, in their order.  What comes
behind the one under way is read ahead a little, so that we see it when the client
goes away, and is not looked at before its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.client.pace import LARGE, SMALL, buffer, has_room, write
from coda_twisted.client.progress import Progress
from coda_twisted.client.timeouts import Watchdog
from coda_twisted.errors import PhaseTimeout, RemoteProtocolError
from coda_twisted.http1.heads import RequestHead
from coda_twisted.http1.readers import Data, RequestEvent, RequestReader
from coda_twisted.service.content import READ_AHEAD
from coda_twisted.service.forward import Forwarding
from coda_twisted.service.pages import Problem, malformed, page
from coda_twisted.service.relay import End, join
from coda_twisted.service.sockets import Flushed

if TYPE_CHECKING:
    from coda_twisted.service.accesslog import Entry
    from coda_twisted.service.proxy import Proxy

__all__ = ["ClientConnection", "NearEnd"]


@implementer(IHalfCloseableProtocol, IPushProducer)
class ClientConnection(Protocol):
    """
    One client's connection.

    It is its transport's producer, from beginning to end: a client that does not
    read what it is answered is not answered more.

    :ivar host: The client's address.
    :ivar name: Its address and port, for the log.
    :ivar full: Whether it does not keep up with what it is answered.
    :ivar pin: Names this client where a server's connection is to be its own.
    :ivar pins: Hosts and ports of such servers.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.host = ""
        self.name = "-"
        self.full = False
        self.pin = object()
        self.pins: set[tuple[str, int]] = set()
        self._proxy = proxy
        self._limits = proxy.limits
        self._reader = RequestReader()
        self._watchdog = Watchdog(proxy.clock, self._expired)
        self._writing: Watchdog | None = None
        self._progress: Progress | None = None
        self._forwarding: Forwarding | None = None
        self._receiving = True  # a request, its first octet perhaps not yet
        self._ahead = 0
        self._end: End | None = None
        self._closing = False
        self._resuming = False

    @property
    def flow(self) -> _Inflow:
        """What a request's content pauses and resumes."""
        return _Inflow(self)

    # The connection's life

    def connectionMade(self) -> None:
        """Look who it is."""
        self._proxy.connections.add(self)
        transport: Any = self.transport
        peer = transport.getPeer()
        self.host, self.name = peer.host, f"{peer.host}:{peer.port}"
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        buffer(transport, SMALL)
        transport.registerProducer(self, True)
        self._watchdog.start("keep-alive", self._proxy.keep_alive)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Drop what was under way for it."""
        self._closing = True
        end, self._end = self._end, None
        if end is not None:
            end.connectionLost(reason)
            return
        if self._forwarding is not None:
            self._forwarding.abort("the client went away")
        self._rest()
        if self.pins:
            self._proxy.client.release(self.pin)
        self._proxy.forget(self)

    def wind_down(self) -> None:
        """If it waits for a request, let it not wait for long any more."""
        waits = self._receiving and self._reader.idle and self._forwarding is None
        if waits and self._end is None and not self._closing:
            self._watchdog.start("keep-alive", self._proxy.keep_alive)

    def drop(self) -> None:
        """End it now."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:
        """
        The client will send no more.

        In a tunnel that is passed on.  Elsewhere it is taken for the end: a client
        that only wanted to say that this was its last request cannot be told from
        one that was killed, whose request must not go on.  nginx and Go do the same.
        """
        if self._end is not None:
            self._end.readConnectionLost()
        elif self._forwarding is not None:
            self._forwarding.abort("the client went away")
        else:
            self._close()

    def writeConnectionLost(self) -> None:
        """Our half is shut down, with all that was to be said before."""
        if self._end is not None:
            self._end.writeConnectionLost()
        else:
            self._watchdog.start("linger", self._limits.linger)

    # Requests

    def dataReceived(self, data: bytes) -> None:
        """Read what the client sends."""
        if self._end is not None:
            self._end.dataReceived(data)
            return
        if self._closing:
            return  # read away
        if self._receiving:
            if self._forwarding is not None:
                self._watchdog.touch()
                self._read(self._reader.receive, data)
                return
            waiting = self._reader.idle
            if not self._read(self._reader.receive, data) and waiting:
                self._watchdog.start("head", self._limits.head)
            return
        self._reader.receive(data)  # keeps it
        self._ahead += len(data)
        if self._ahead > READ_AHEAD:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def _read(self, read: Callable[..., list[RequestEvent]], *data: Any) -> bool:
        """Read on; whether anything came of it."""
        try:
            events = read(*data)
        except RemoteProtocolError as error:
            self._malformed(error)
            return True
        for event in events:
            if self._closing or self._end is not None:
                break
            self._play(event)
        return bool(events)

    def _play(self, event: RequestEvent) -> None:
        if isinstance(event, RequestHead):
            self._watchdog.rest()
            proxy, reader = self._proxy, self._reader
            forwarding = self._forwarding = Forwarding(
                self, proxy, event, next(proxy.numbers)
            )
            forwarding.begin(reader.framing, reader.length)
        elif isinstance(event, Data):
            assert self._forwarding is not None
            assert self._forwarding.content is not None
            self._forwarding.content.received(event.data)
        else:
            self._receiving = False
            self._watchdog.rest()
            if self._forwarding is not None and self._forwarding.content is not None:
                self._forwarding.content.ended(event.trailers)
            self._resume()

    def _malformed(self, error: RemoteProtocolError) -> None:
        """Answer what cannot be read; what follows it cannot be trusted."""
        if self._forwarding is not None:
            self._forwarding.answer(malformed(error))
        else:
            self._refuse(malformed(error))

    def _refuse(self, problem: Problem) -> None:
        """Answer what never became a request."""
        name = self._proxy.name.decode("ascii")
        request_id = self._proxy.id_of(next(self._proxy.numbers))
        head, content = page(problem, None, name, request_id)
        head.fields.add(b"Date", self._proxy.date())
        head.fields.add(b"Connection", b"close")
        self.write(head.serialise() + content)
        if self._proxy.access_log is not None:
            self._proxy.access_log.refused(request_id, self.name, problem)
        self._linger()

    # The client's pace (IPushProducer)

    def pauseProducing(self) -> None:
        """Say nothing more for now."""
        self.full = True
        self.await_reading(True)
        if self._forwarding is not None:
            self._forwarding.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on, if the client does."""
        if not has_room(self.transport):
            return
        self.full = False
        self.await_reading(False)
        if self._forwarding is not None:
            self._forwarding.resumeProducing()
        else:
            self._resume()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost comes next."""

    # Content that is moved past us

    @property
    def outstanding(self) -> int:
        """Octets of the request's content that have still to come, if a length says."""
        return self._reader.outstanding

    def skip(self, octets: int) -> None:
        """Take note that so much of it was taken from the socket past us."""
        if octets:
            self._read(self._reader.skip, octets)

    def when_flushed(self, call: Callable[[], None]) -> None:
        """Call once everything written to the client has left us, if it ever does."""

        def flushed() -> None:
            self.full = False
            self.await_reading(False)
            transport.registerProducer(self, True)
            call()

        transport: Any = self.transport
        transport.unregisterProducer()
        self.await_reading(True)
        Flushed(transport, flushed)

    def hold_content(self) -> None:
        """Let no more of a request's content come for now."""
        self.await_content(False)
        self.transport.pauseProducing()  # type: ignore[union-attr]

    def want_content(self) -> None:
        """Let more of a request's content come, and watch that it does."""
        self.await_content(True)
        self.transport.resumeProducing()  # type: ignore[union-attr]

    def await_content(self, waiting: bool) -> None:
        """Watch that the client sends a request's content, or do so no longer."""
        if not waiting:
            self._watchdog.rest()
        elif self._receiving and not self._closing:
            self._watchdog.start("content", self._limits.content)

    def await_reading(self, waiting: bool) -> None:
        """Watch that the client reads what it is answered, or do so no longer."""
        if waiting:
            if self._writing is None:
                self._writing = Watchdog(self._proxy.clock, self._expired)
            self._writing.start("answer", self._limits.answer)
        elif self._writing is not None:
            self._writing.rest()

    # What a forwarding does with the connection

    def write(self, data: bytes) -> None:
        """Send something to the client."""
        write(self.transport, data)

    def answered(self, *, keep: bool) -> None:
        """
        Take note that a request was answered.

        :param keep: Whether another may follow; its request is complete then.
        """
        self._forwarding = None
        if keep:
            self._resume()
        elif self._receiving or not self._reader.idle:
            self._linger()
        else:
            self._close()

    def cut_short(self, *, unframed: bool) -> None:
        """
        End an answer that is not complete.

        :param unframed: Whether nothing but the way in which the connection ends
            tells the client so.
        """
        self._forwarding = None
        if unframed:
            self._closing = True
            self.transport.abortConnection()  # type: ignore[union-attr]
        else:
            self._close()

    def _resume(self) -> None:
        """Go on to the next request; those that are here already, without recursion."""
        if self._resuming or self._receiving:
            return
        self._resuming = True
        try:
            while not (
                self._receiving or self._forwarding or self._closing or self.full
            ):
                self._receiving = True
                if self._ahead > READ_AHEAD:
                    self.transport.resumeProducing()  # type: ignore[union-attr]
                self._ahead = 0
                self._read(self._reader.next_message)
        finally:
            self._resuming = False
        if self._forwarding is None and self._receiving and not self._closing:
            if self._reader.idle:
                self._watchdog.start("keep-alive", self._proxy.keep_alive)
            else:
                self._watchdog.start("head", self._limits.head)

    def become_tunnel(self, far: End) -> None:
        """Join the client's stream to *far*, a connected end."""
        forwarding, self._forwarding = self._forwarding, None
        assert forwarding is not None
        proxy, transport = self._proxy, self.transport
        near = NearEnd(proxy, forwarding.become_tunnel())
        self._rest()
        if self.pins:
            proxy.client.release(self.pin)
        near.makeConnection(transport)
        early = self._reader.pending
        if early:
            near.dataReceived(early)
        self._end = near
        transport.unregisterProducer()  # type: ignore[union-attr]
        buffer(transport, LARGE)
        if self._ahead > READ_AHEAD:
            transport.resumeProducing()  # type: ignore[union-attr]
        proxy.connections.add(near)
        proxy.connections.discard(self)
        join(near, far, proxy.clock, near.ended, proxy.pipes, proxy.limits)

    # Ending

    def _rest(self) -> None:
        """Watch nothing any more."""
        self._watchdog.close()
        if self._writing is not None:
            self._writing.close()

    def _close(self) -> None:
        """Close once everything is written."""
        self._closing = True
        self._watchdog.start("close", self._limits.answer)
        transport: Any = self.transport
        transport.unregisterProducer()  # it would be waited for
        transport.loseConnection()

    def _linger(self) -> None:
        """Close once the client has had time to read why."""
        self._closing = True
        self._watchdog.start("close", self._limits.answer)
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseWriteConnection()
        transport.resumeProducing()

    def _expired(self, error: PhaseTimeout) -> None:
        match error.phase:
            case "head" if not self._reader.idle:
                self._refuse(_SLOW_HEAD)
            case "content":
                assert self._forwarding is not None
                self._forwarding.answer(_SLOW_CONTENT)
            case "answer" | "close":
                self._look_again(error.phase)
            case "linger":
                # What was answered may still be on its way out of the kernel.
                self.transport.loseConnection()  # type: ignore[union-attr]
            case _:
                self._close()

    def _look_again(self, phase: str) -> None:
        """Drop a client that has taken nothing of its answer meanwhile."""
        if self._progress is None:
            self._progress = Progress(self.transport)
        if not self._progress.made():
            if self._forwarding is not None:
                self._forwarding.note("the client does not read its answer")
            self.drop()
        elif phase == "answer" and self._writing is not None:
            self._writing.start(phase, self._limits.answer)
        else:
            self._watchdog.start(phase, self._limits.answer)


class _Inflow:
    """
    The flow of a request's content, for whoever takes it.

    The client's pace is watched only while what it sends is wanted.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @property
    def transport(self) -> Any:
        """What it comes by."""
        return self._connection.transport

    def pauseProducing(self) -> None:
        """Let nothing more come for now."""
        self._connection.hold_content()

    def resumeProducing(self) -> None:
        """Let it come."""
        self._connection.want_content()


_SLOW_HEAD = Problem(408, "http_request_error", "the request's head took too long")

_SLOW_CONTENT = Problem(
    408,
    "http_request_error",
    "the rest of the request's content did not come in time (--content-timeout)",
)


class NearEnd(End):
    """
    The client's end of a tunnel: all that is left of the client's connection.

    :param entry: What to log when it ends, if there is a log.
    """

    __slots__ = ("_entry", "_proxy")

    def __init__(self, proxy: Proxy, entry: Entry | None) -> None:
        super().__init__()
        self._proxy = proxy
        self._entry = entry

    def connectionMade(self) -> None:
        """The connection is what it was."""

    def ended(self) -> None:
        """Take note that one of the tunnel's connections is gone."""
        log = self._proxy.access_log
        if log is not None and self._entry is not None:
            assert self.other is not None
            log.ended(self._entry, self.received + self.other.received)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the proxy, too."""
        super().connectionLost(reason)
        self._proxy.forget(self)

    def wind_down(self) -> None:
        """Go on: a tunnel waits for no request."""

    def drop(self) -> None:
        """End the tunnel now."""
        self.abort()
