"""
One HTTP/1.1 connection as a client has it, over any transport.

One request at a time; the answer may come before the request is complete.  The
connection knows nothing of authentication, routes or pools: it drives the
readers of ``http1`` and tells its owner when it may be used again.

Rules of this file: whoever is told of a failure is told once; a connection that
is not certain to be between two messages is never idle.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from coda_twisted.client.endings import lost_handshake, lost_request
from coda_twisted.client.progress import Progress
from coda_twisted.client.response import Response
from coda_twisted.client.sending import send_now
from coda_twisted.client.sockets import lowest, set_options, waiting_in
from coda_twisted.client.timeouts import KeepAlive, Timeouts, Watchdog
from coda_twisted.client.upload import Upload
from coda_twisted.errors import (
    CodaError,
    ConnectionEnded,
    LocalProtocolError,
    PhaseTimeout,
)
from coda_twisted.http1.heads import RequestHead, ResponseHead
from coda_twisted.http1.readers import Data, ResponseReader

__all__ = ["FAREWELL", "HTTPConnection", "State"]

FAREWELL = 5.0
"""
Seconds for which a peer may delay an orderly close.

TLS waits for the peer's close_notify, which some never send; the socket would
stay open for ever.  nginx lingers for as long.
"""


UNREAD = 16 * 1024
"""Octets of content that any server is sure to have read when it answers."""


class State(Enum):
    """Where a connection stands between two requests."""

    HANDSHAKE = auto()
    """TLS is being set up; nothing may be sent."""
    IDLE = auto()
    """Nothing is under way; a request may be sent."""
    WAITING = auto()
    """A request is under way, its answer's head has not come."""
    ANSWERING = auto()
    """The final head has come; its content is being read."""
    DETACHED = auto()
    """After 101, or 2xx to CONNECT: the stream belongs to another protocol."""
    CLOSED = auto()
    """The transport is gone, or told to go."""


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class HTTPConnection(Protocol):
    """
    The client's end of one connection.

    :ivar state: Where it stands.
    :ivar served: How many requests were answered on it.
    :ivar on_idle: Called with the connection when it becomes idle.
    :ivar on_closed: Called with the connection when it is gone for HTTP: closed
        or detached.
    :ivar on_lost: Called with the connection when its transport is gone; not after
        it was detached.
    :ivar lost: Whether its transport is gone.
    :ivar old: Whether its latest answer was of HTTP/1.0, whose servers keep only the
        connections that they are asked to keep.
    :ivar claimed: Whether its borrower wants it back after this response, for the
        next leg of an authentication; then ``on_idle`` is not called.
    :ivar layers: A place for the owner to keep what authenticates it.
    :ivar shelf: A place for the pool to keep where it belongs.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeouts: Timeouts,
        *,
        tls: bool = False,
        keep_alive: KeepAlive | None = None,
    ) -> None:
        self.timeouts = timeouts
        self.state = State.HANDSHAKE if tls else State.IDLE
        self.served = 0
        self.old = False
        self.claimed = False
        self.on_idle: Callable[[HTTPConnection], None] | None = None
        self.on_closed: Callable[[HTTPConnection], None] | None = None
        self.on_lost: Callable[[HTTPConnection], None] | None = None
        self.lost = False
        self.layers: dict[Any, Any] = {}
        self.shelf: Any = None
        self._keep_alive = keep_alive
        self._clock = clock
        self._farewell: IDelayedCall | None = None
        self._watchdog = Watchdog(clock, self._expired)
        self._reader = ResponseReader()
        self._secured: Deferred[None] | None = None
        self._answer: Deferred[Response] | None = None
        self._on_interim: Callable[[ResponseHead], None] | None = None
        self._response: Response | None = None
        self._upload: Upload | None = None
        self._progress: Progress | None = None
        self._successor: IProtocol | None = None
        self._method = b""
        self._closing = False
        self._paused = False

    # Setting up

    def connectionMade(self) -> None:
        """Set the socket's options, and watch the TLS handshake."""
        set_options(self.transport, self._keep_alive)
        if self.state is State.HANDSHAKE:
            self._watchdog.start("tls", self.timeouts.tls)

    def secured(self) -> Deferred[None]:
        """
        Wait until requests may be sent.

        :returns: Fires after the TLS handshake; at once where there is none.
        """
        waiting: Deferred[None] = Deferred(self._cancelled)
        if self.state is State.HANDSHAKE:
            self._secured = waiting
        elif self.state is State.CLOSED:
            waiting.errback(ConnectionEnded("the connection is closed", answered=False))
        else:
            waiting.callback(None)
        return waiting

    def handshakeCompleted(self) -> None:
        """TLS is up (IHandshakeListener)."""
        if self._successor is not None:
            if IHandshakeListener.providedBy(self._successor):
                self._successor.handshakeCompleted()
            return
        if self.state is not State.HANDSHAKE:
            return
        self.state = State.IDLE
        self._watchdog.rest()
        waiting, self._secured = self._secured, None
        if waiting is not None:
            waiting.callback(None)

    # Sending

    def send(
        self,
        head: RequestHead,
        body: IBodyProducer | None = None,
        *,
        hold: float | None = None,
        on_interim: Callable[[ResponseHead], None] | None = None,
    ) -> Deferred[Response]:
        """
        Send a request.

        :param head: Complete, with the framing fields that fit *body*.
        :param body: Its content.
        :param hold: Seconds for which to wait for a 100 (Continue) before the
            content is asked for; ``None`` asks at once.
        :param on_interim: Called with each 1xx head but 101.
        :returns: Fires with the response when its final head is here, whether or
            not the request is complete.  Cancelling it aborts the connection.
        """
        if self.state is not State.IDLE:
            raise LocalProtocolError(f"the connection is {self.state.name}")
        self.state = State.WAITING
        self._closing = b"close" in head.fields.tokens(b"Connection")
        self._on_interim = on_interim
        self._method = head.method
        self._reader.expect(head.method)
        answer: Deferred[Response] = Deferred(self._cancelled)
        self._answer = answer
        assert self.transport is not None
        send_now(self.transport, head.serialise())
        if body is None:
            self._watchdog.start("head", self.timeouts.head)
        else:
            self._upload = Upload(body, self.transport, self._flows, self._rescue)
            if hold is None:
                self._start_upload()
            else:
                self._watchdog.start("expect", hold)
        return answer

    def _start_upload(self) -> None:
        upload = self._upload
        if upload is None or upload.started:
            return
        # The peer's patience is not watched while content goes out at our
        # caller's pace: TCP keep-alive finds a peer that died meanwhile.
        self._watchdog.rest()
        try:
            uploading = upload.start()
        except Exception as error:
            self._upload_failed(Failure(error.with_traceback(None)))
        else:
            uploading.addCallbacks(self._uploaded, self._upload_failed)

    def _uploaded(self, _: object) -> None:
        if self.state is State.WAITING:
            self._watchdog.start("head", self.timeouts.head)

    def _flows(self, flowing: bool) -> None:
        """Watch the peer while it takes nothing of the content that waits for it."""
        if not flowing:
            self._watchdog.start("send", self.timeouts.send)
        elif self.state is State.ANSWERING:
            self._watchdog.start("body", self.timeouts.body)
        else:
            self._watchdog.rest()

    def _rescue(self) -> None:
        """
        Read what came before the transport failed under a request's content.

        A server that answers and closes while content is still on its way has TCP
        reset the connection (RFC 9112 9.6).  That we find out by writing, and then
        Twisted closes the socket without another look at it; but the answer may be
        there, and says why.
        """
        transport = lowest(self.transport)
        for data in waiting_in(transport):
            transport.protocol.dataReceived(data)
            if self.state not in (State.WAITING, State.ANSWERING):
                return

    def _upload_failed(self, reason: Failure) -> None:
        self.abort(reason)

    # Receiving

    def dataReceived(self, data: bytes) -> None:
        """Read what came."""
        if self._successor is not None:
            self._successor.dataReceived(data)
            return
        if self.state in (State.IDLE, State.HANDSHAKE):
            # Nobody asked: a 408 before closing, or an attempt to answer the
            # next request before it is sent.
            self.abort()
            return
        self._watchdog.touch()
        try:
            events = self._reader.receive(data)
        except CodaError as error:
            self.abort(Failure(error.with_traceback(None)))
            return
        self._play(events)
        if self._response is not None and not self._response.wanted:
            self._response.pauseProducing()

    def _play(self, events: list[Any]) -> None:
        answer: Deferred[Response] | None = None
        for event in events:
            if self.state is State.CLOSED:
                break
            kind = type(event)
            if kind is Data:
                assert self._response is not None
                self._response.receive(event.data)
            elif kind is not ResponseHead:
                self._end(event.trailers)
            elif event.status < 200 and event.status != 101:
                self._interim(event)
            else:
                response = self._begin(event)
                answer, self._answer = self._answer, None
        if answer is not None:
            # What came with the head is with the response by now, so that whoever
            # passes it on can do so in one piece.
            answer.callback(response)

    def _interim(self, head: ResponseHead) -> None:
        if self._on_interim is not None:
            self._on_interim(head)
        if head.status == 100:
            self._start_upload()

    def _begin(self, head: ResponseHead) -> Response:
        self.state = State.ANSWERING
        self.old = head.version < (1, 1)
        self._on_interim = None
        if self._upload is not None and not self._upload.started:
            # A final answer while the content was held back: it will not be
            # sent, so the next octets on this connection could not be a request.
            self._upload.stop()
        self._watchdog.start("body", self.timeouts.body)
        takes_over = head.status == 101 or (
            self._method == b"CONNECT" and head.status < 300
        )
        response = self._response = Response(
            head, self._reader.framing, self, takes_over=takes_over
        )
        return response

    def _end(self, trailers: Any) -> None:
        response = self._response
        if response is None or response.takes_over:
            return
        self._response = None
        self._watchdog.rest()
        if self._paused:
            # What was read already comes all the same, over TLS: nobody resumes a
            # response that is complete, and the next one would not be read.
            self._paused = False
            self.transport.resumeProducing()  # type: ignore[union-attr]
        self.served += 1
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stop()
        if upload is not None and not upload.complete:
            # The rest of the request would be sent for nothing, and without it
            # the next octets on this connection are not a request.
            self.state = State.IDLE
            self._drop()
        elif (
            self._closing
            or not self._reader.persists
            or (upload is not None and _is_doubtful(response.head.status, upload))
        ):
            self._retire()
        else:
            self.state = State.IDLE
            if not self.claimed:
                self._offer()
        response.finish(trailers)

    def release(self) -> None:
        """Want it back no longer: offer it to its owner as soon as it is idle."""
        self.claimed = False
        if self.state is State.IDLE:
            self._offer()

    def _offer(self) -> None:
        if self.on_idle is None:
            self._retire()
        else:
            self.on_idle(self)

    @property
    def uploading(self) -> bool:
        """Whether the request is not complete on the wire."""
        return self._upload is not None and not self._upload.complete

    def _retire(self) -> None:
        """Close in good order: all that we were to read has been read."""
        self.state = State.CLOSED
        self._watchdog.close()
        self._hang_up()
        self._gone()

    def _hang_up(self) -> None:
        """Close as the transport does, but see that it comes to an end."""
        transport: Any = self.transport
        if self._farewell is None:
            self._farewell = self._clock.callLater(FAREWELL, transport.abortConnection)
        transport.loseConnection()

    def _drop(self) -> None:
        """Close at once."""
        self.state = State.CLOSED
        self._watchdog.close()
        self.transport.abortConnection()  # type: ignore[union-attr]
        self._gone()

    def close(self) -> None:
        """Close an idle connection; abort one that is in use."""
        if self.state is State.IDLE:
            self._retire()
        else:
            self.abort()

    # Flow of the response's content

    def pause(self) -> None:
        """Read no more for now; the peer's patience is not ours to watch then."""
        self._watchdog.rest()
        if self.state is not State.CLOSED:
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def resume(self) -> None:
        """Read on."""
        if self.state is State.CLOSED:
            return
        if self.state is State.ANSWERING:
            self._watchdog.start("body", self.timeouts.body)
        self._paused = False
        self.transport.resumeProducing()  # type: ignore[union-attr]

    # Content that is moved past us

    @property
    def outstanding(self) -> int:
        """Octets of the content that have still to come, if a length says how many."""
        return self._reader.outstanding if self.state is State.ANSWERING else 0

    def lend(self, *, waiting: bool) -> None:
        """
        Leave what comes to others; at the latest before the next request is sent,
        :meth:`skip` and :meth:`resume` take it back.

        :param waiting: Whether the peer is waited for, and its patience watched.
        """
        self.pause()
        if waiting and self.state is State.ANSWERING:
            self._watchdog.start("body", self.timeouts.body)

    def skip(self, octets: int) -> None:
        """Take note that so much content was taken from the socket past us."""
        if self.state is State.ANSWERING:
            self._play(self._reader.skip(octets))

    # Ending

    def detach(self, successor: IProtocol) -> None:
        """
        Give the stream to another protocol, left-over octets first.

        *successor* is connected to the transport; all that comes from now on is
        passed to it.
        """
        left = self._reader.pending
        if self._upload is not None:
            self._upload.stop()
        self.state = State.DETACHED
        self._watchdog.close()
        self._response = None
        self.on_lost = None
        self._successor = successor
        self._gone()
        self.transport.resumeProducing()  # type: ignore[union-attr]
        successor.makeConnection(self.transport)  # type: ignore[arg-type]
        if left:
            successor.dataReceived(left)

    def abort(self, reason: Failure | None = None) -> None:
        """
        Drop the connection now.

        :param reason: What to tell those who wait for an answer; by default,
            that the connection ended.
        """
        if self.state in (State.CLOSED, State.DETACHED):
            return
        self.state = State.CLOSED
        self.transport.abortConnection()  # type: ignore[union-attr]
        self._fail(reason)

    def _cancelled(self, _: Deferred[Any]) -> None:
        """Drop the connection; whoever cancelled knows why."""
        self._answer = self._secured = None
        self.abort()

    def readConnectionLost(self) -> None:
        """The peer will send no more (IHalfCloseableProtocol)."""
        if self._successor is not None:
            if IHalfCloseableProtocol.providedBy(self._successor):
                self._successor.readConnectionLost()
            else:
                self.transport.loseConnection()  # type: ignore[union-attr]
            return
        self._eof(Failure(ConnectionDone()))
        self._hang_up()

    def writeConnectionLost(self) -> None:
        """Our side was shut down (IHalfCloseableProtocol)."""
        if self._successor is not None and IHalfCloseableProtocol.providedBy(
            self._successor
        ):
            self._successor.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone."""
        if self._successor is not None:
            successor, self._successor = self._successor, None
            successor.connectionLost(reason)
            return
        self._eof(reason)
        self.lost = True
        if self._farewell is not None and self._farewell.active():
            self._farewell.cancel()
        self._farewell = None
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost(self)

    def _eof(self, reason: Failure) -> None:
        """End the message that an orderly close ends; fail the one it cuts short."""
        if self.state is State.ANSWERING and reason.check(ConnectionDone):
            try:
                events = self._reader.eof()
            except CodaError:
                events = []
            self._closing = True
            self._play(events)
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._fail(None if reason.check(ConnectionDone) else reason)

    def _fail(self, reason: Failure | None) -> None:
        """Tell all who wait, once."""
        self._watchdog.close()
        response, self._response = self._response, None
        answer, self._answer = self._answer, None
        waiting, self._secured = self._secured, None
        self._on_interim = None
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stop()
        self._gone()
        if waiting is not None:
            waiting.errback(lost_handshake(reason))
        if answer is not None:
            answer.errback(lost_request(reason, answered=False))
        if response is not None:
            response.fail(lost_request(reason, answered=True))

    def _gone(self) -> None:
        """Tell the owner that this is no HTTP connection any more."""
        on_closed, self.on_closed, self.on_idle = self.on_closed, None, None
        if on_closed is not None:
            on_closed(self)

    def _expired(self, error: PhaseTimeout) -> None:
        if error.phase == "expect" and self.state is State.WAITING:
            self._start_upload()
        elif error.phase == "send" and self._takes_some():
            self._flows(False)
        else:
            self.abort(Failure(error))

    def _takes_some(self) -> bool:
        """Whether the peer has taken any of a request's content meanwhile."""
        if self._progress is None:
            self._progress = Progress(self.transport)
        return self._progress.made()


def _is_doubtful(status: int, upload: Upload) -> bool:
    """
    Say whether the peer may be about to close, although it has not said so.

    What refuses a request before it has read its content closes the connection, once
    it finds that it would have to read the rest; Squid 5.7 says keep-alive even so.
    That all was written tells nothing: it may wait in the kernel's buffers.  After a
    challenge the connection may be needed.
    """
    return upload.sent > UNREAD and status >= 400 and status not in (401, 407)
