"""Tests for :mod:`coda_twisted.client.connection`."""

from __future__ import annotations

import socket
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH
from zope.interface import implementer

from coda_twisted.client.connection import FAREWELL, HTTPConnection, State
from coda_twisted.client.response import Response, collect
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.client.upload import BytesBody
from coda_twisted.errors import (
    ConnectionEnded,
    LocalProtocolError,
    PhaseTimeout,
    RemoteProtocolError,
)
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead, ResponseHead
from tests.front import Loop
from tests.wire import Peer, Sink


class ManualBody:
    """A body whose octets come when the test says so."""

    def __init__(self, length: Any = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.calls: list[str] = []
        self.consumer: Any = None
        self.done: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.calls.append("start")
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class ConnectionCase(SynchronousTestCase):
    """A connection, and the test at its other end."""

    tls = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.idle: list[HTTPConnection] = []
        self.closed: list[HTTPConnection] = []
        self.connection = HTTPConnection(
            self.clock, Timeouts(head=10, body=20, tls=5), tls=self.tls
        )
        self.connection.on_idle = self.idle.append
        self.connection.on_closed = self.closed.append
        self.peer = Peer("h", 80)
        self.peer.transport.protocol = self.connection
        self.connection.makeConnection(self.peer.transport)

    def ask(
        self,
        method: bytes = b"GET",
        *fields: tuple[bytes, bytes],
        body: Any = None,
        **options: Any,
    ) -> Deferred[Response]:
        target = b"h:443" if method == b"CONNECT" else b"/"
        head = RequestHead(method, target, (1, 1), Fields([(b"Host", b"h"), *fields]))
        return self.connection.send(head, body, **options)

    def deliver(self, response: Response) -> Sink:
        sink = Sink()
        response.deliver(sink)
        return sink

    def assert_quiet(self) -> None:
        """No timer is left, and the owner was told once."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.closed, [self.connection])


class ExchangeTests(ConnectionCase):
    """Requests and their answers."""

    def test_request_and_response(self) -> None:
        """A response is delivered whole, and the connection is idle after it."""
        answer = self.ask()
        self.assertEqual(
            self.peer.transport.value(), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        )
        self.assertNoResult(answer)
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        sink = self.deliver(self.successResultOf(answer))
        self.assertEqual(self.idle, [])
        self.peer.send(b"llo")
        self.assertEqual((sink.data, sink.trailers), (b"hello", Fields()))
        self.assertEqual(self.idle, [self.connection])
        self.assertEqual(self.connection.served, 1)

    def test_again(self) -> None:
        """An idle connection carries the next request."""
        for number in range(3):
            answer = self.ask()
            self.peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            self.deliver(self.successResultOf(answer))
            self.assertEqual(len(self.idle), number + 1)

    def test_one_at_a_time(self) -> None:
        """A second request while one is under way is our own mistake."""
        self.ask()
        self.assertRaises(LocalProtocolError, self.ask)

    def test_claimed(self) -> None:
        """A claimed connection is not offered before it is released."""
        self.connection.claimed = True
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.deliver(self.successResultOf(answer))
        self.assertEqual((self.idle, self.connection.state), ([], State.IDLE))
        self.connection.release()
        self.assertEqual(self.idle, [self.connection])

    def test_release_before_the_end(self) -> None:
        """A connection released in mid-answer is offered when the answer ends."""
        self.connection.claimed = True
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
        self.deliver(self.successResultOf(answer))
        self.connection.release()
        self.assertEqual(self.idle, [])
        self.peer.send(b"x")
        self.assertEqual(self.idle, [self.connection])

    def test_interim(self) -> None:
        """Interim responses are passed on, and the final one is the answer."""
        interim: list[ResponseHead] = []
        answer = self.ask(on_interim=interim.append)
        self.peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n")
        self.assertNoResult(answer)
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual([head.status for head in interim], [103])
        self.assertEqual(self.successResultOf(answer).head.status, 200)

    def test_nothing_is_read_before_it_is_wanted(self) -> None:
        """Content that came with the head waits, and the rest stays in the socket."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        response = self.successResultOf(answer)
        self.assertEqual(self.peer.transport.producerState, "paused")
        sink = self.deliver(response)
        self.assertEqual(sink.data, b"ab")
        self.assertEqual(self.peer.transport.producerState, "producing")
        self.peer.send(b"cd")
        self.assertEqual(sink.data, b"abcd")

    def test_rest_comes_though_nothing_is_wanted(self) -> None:
        """Where the rest comes all the same, as over TLS, the next answer is read."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        self.peer.send(b"cd")
        response = self.successResultOf(answer)
        self.assertEqual(self.idle, [self.connection])
        self.assertEqual(self.peer.transport.producerState, "producing")
        self.assertEqual(self.deliver(response).data, b"abcd")

    def test_late_delivery_of_a_complete_response(self) -> None:
        """A response that was complete before it was wanted is whole."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
        response = self.successResultOf(answer)
        self.assertEqual(self.idle, [self.connection])
        sink = self.deliver(response)
        self.assertEqual((sink.data, sink.trailers), (b"ab", Fields()))
        self.assertRaises(LocalProtocolError, response.deliver, sink)

    def test_trailers(self) -> None:
        """Trailers come with the end, apart from the fields."""
        answer = self.ask()
        self.peer.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        sink = self.deliver(self.successResultOf(answer))
        self.assertEqual(sink.data, b"ab")
        self.assertEqual(list(sink.trailers), [(b"X-Sum", b"1")])

    def test_until_close(self) -> None:
        """A body that ends with the connection is complete when it closes."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.0 200 OK\r\n\r\nab")
        sink = self.deliver(self.successResultOf(answer))
        self.peer.send(b"cd")
        self.peer.close()
        self.assertEqual((sink.data, sink.trailers), (b"abcd", Fields()))
        self.assertEqual(self.idle, [])
        self.assert_quiet()

    def test_until_reset(self) -> None:
        """A reset does not pass for the end of a body."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.0 200 OK\r\n\r\nab")
        sink = self.deliver(self.successResultOf(answer))
        self.peer.reset()
        assert sink.failure is not None
        sink.failure.trap(ConnectionEnded)
        self.assert_quiet()

    def test_cut_short(self) -> None:
        """A body shorter than announced fails; what came was delivered."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        sink = self.deliver(self.successResultOf(answer))
        self.peer.close()
        self.assertEqual(sink.data, b"ab")
        assert sink.failure is not None
        error = sink.failure.value
        assert isinstance(error, ConnectionEnded)
        self.assertTrue(error.answered)
        self.assert_quiet()

    def test_half_close_ends_a_message(self) -> None:
        """A FIN counts as the end though the transport reports it as half a close."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.0 200 OK\r\n\r\nab")
        sink = self.deliver(self.successResultOf(answer))
        self.connection.readConnectionLost()
        self.assertEqual(sink.trailers, Fields())
        self.assertTrue(self.peer.dropped)
        self.peer.close()
        self.assert_quiet()

    def test_no_answer(self) -> None:
        """A connection that ends before the answer says so."""
        answer = self.ask()
        self.peer.close()
        error = self.failureResultOf(answer, ConnectionEnded).value
        self.assertFalse(error.answered)
        self.assert_quiet()

    def test_not_persistent(self) -> None:
        """A peer that says close is closed after its answer, in good order."""
        answer = self.ask()
        self.peer.send(
            b"HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 0\r\n\r\n"
        )
        self.deliver(self.successResultOf(answer))
        self.assertEqual(self.idle, [])
        self.assertTrue(self.peer.transport.disconnecting)
        self.peer.close()
        self.assert_quiet()

    def test_our_close(self) -> None:
        """A request that says close is the connection's last."""
        answer = self.ask(b"GET", (b"Connection", b"close"))
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.deliver(self.successResultOf(answer))
        self.assertEqual(self.idle, [])
        self.assertTrue(self.peer.transport.disconnecting)

    def test_surplus(self) -> None:
        """Octets behind a response cost the connection, not the response."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1")
        sink = self.deliver(self.successResultOf(answer))
        self.assertEqual((sink.data, sink.trailers), (b"ab", Fields()))
        self.assertEqual(self.idle, [])
        self.assertTrue(self.peer.dropped)

    def test_unasked(self) -> None:
        """An idle connection that is sent anything is dropped."""
        self.peer.send(b"HTTP/1.1 408 Too late\r\nContent-Length: 0\r\n\r\n")
        self.assertTrue(self.peer.dropped)
        self.assert_quiet()

    def test_malformed(self) -> None:
        """A malformed head fails the request; nothing is guessed."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n")
        self.failureResultOf(answer, RemoteProtocolError)
        self.assertTrue(self.peer.dropped)
        self.assert_quiet()

    def test_malformed_chunk(self) -> None:
        """A malformed chunk fails the body after what was sound."""
        answer = self.ask()
        self.peer.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
        )
        sink = self.deliver(self.successResultOf(answer))
        self.peer.send(b"zz\r\n")
        assert sink.failure is not None
        sink.failure.trap(RemoteProtocolError)
        self.assertEqual(sink.data, b"ab")
        self.assert_quiet()

    def test_cancel(self) -> None:
        """Cancelling a request drops its connection."""
        answer = self.ask()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertTrue(self.peer.dropped)
        self.assert_quiet()

    def test_close_while_idle_and_in_use(self) -> None:
        """Closing is orderly when idle; in use it fails the request."""
        answer = self.ask()
        self.connection.close()
        self.failureResultOf(answer, ConnectionEnded)
        self.assertTrue(self.peer.transport.aborted)
        self.setUp()
        self.connection.close()
        self.assertFalse(self.peer.transport.aborted)
        self.assertTrue(self.peer.transport.disconnecting)
        self.peer.close()
        self.assert_quiet()

    def test_peer_that_does_not_close(self) -> None:
        """A peer that does not close in return is not waited for long."""
        lost: list[HTTPConnection] = []
        for close in (HTTPConnection.close, HTTPConnection.readConnectionLost):
            self.connection.on_lost = lost.append
            close(self.connection)
            self.clock.advance(FAREWELL / 2)
            self.assertEqual((lost, self.connection.lost), ([], False))
            self.assertFalse(self.peer.transport.aborted)
            self.clock.advance(FAREWELL / 2)
            self.assertTrue(self.peer.transport.aborted)
            self.assertEqual((lost, self.connection.lost), ([self.connection], True))
            self.assert_quiet()
            lost.clear()
            self.setUp()

    def test_peer_that_closes_both_ways(self) -> None:
        """A FIN that crosses ours changes nothing."""
        self.connection.close()
        self.connection.readConnectionLost()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.peer.close()
        self.assert_quiet()

    def test_abort_by_the_reader(self) -> None:
        """Whoever does not want the rest drops the connection, and is told so."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        response = self.successResultOf(answer)
        sink = self.deliver(response)
        response.stopProducing()
        self.assertIsNotNone(sink.failure)
        self.assertTrue(self.peer.transport.aborted)
        response.pauseProducing()
        response.resumeProducing()


class TimeoutTests(ConnectionCase):
    """Each phase has its limit."""

    def test_head(self) -> None:
        """A peer that does not answer is given up."""
        answer = self.ask()
        self.clock.advance(10)
        error = self.failureResultOf(answer, PhaseTimeout).value
        self.assertEqual(error.phase, "head")
        self.assert_quiet()

    def test_body(self) -> None:
        """A body that stalls is given up; one that flows is not."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        sink = self.deliver(self.successResultOf(answer))
        for _ in range(3):
            self.clock.advance(15)
            self.peer.send(b"x")
        self.assertIsNone(sink.failure)
        self.clock.advance(20)
        assert sink.failure is not None
        error = sink.failure.value
        assert isinstance(error, PhaseTimeout)
        self.assertEqual(error.phase, "body")

    def test_reader_may_pause(self) -> None:
        """A reader that pauses is not the peer's fault."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        response = self.successResultOf(answer)
        self.clock.advance(60)
        sink = self.deliver(response)
        response.pauseProducing()
        self.clock.advance(60)
        self.assertIsNone(sink.failure)
        response.resumeProducing()
        self.clock.advance(60)
        self.assertIsNotNone(sink.failure)

    def test_lent(self) -> None:
        """Where others take the content, the peer is watched when they wait for it."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        response = self.successResultOf(answer)
        sink = self.deliver(response)
        response.lend(waiting=False)
        self.clock.advance(60)
        for _ in range(3):
            response.lend(waiting=True)
            self.clock.advance(15)
        self.assertIsNone(sink.failure)
        self.clock.advance(5)
        assert sink.failure is not None
        self.assertIsInstance(sink.failure.value, PhaseTimeout)
        response.lend(waiting=True)
        response.skip(1)
        self.assertEqual((response.outstanding, response.transport), (0, None))
        self.assert_quiet()

    def test_idle_has_no_timer_of_its_own(self) -> None:
        """What is left of a timer after an exchange ends nothing."""
        answer = self.ask()
        self.peer.answer(200)
        self.deliver(self.successResultOf(answer))
        self.clock.advance(60)
        self.assertEqual(self.connection.state, State.IDLE)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LendingTests(ConnectionCase):
    """Content that others take from the socket."""

    def begin(self, length: int = 9) -> tuple[Response, Sink]:
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nab" % length)
        response = self.successResultOf(answer)
        return response, self.deliver(response)

    def test_all(self) -> None:
        """When all was taken the response is complete, and its connection free."""
        response, sink = self.begin()
        self.assertEqual(response.outstanding, 7)
        self.assertIs(response.transport, self.peer.transport)
        response.lend(waiting=True)
        self.assertEqual(self.peer.transport.producerState, "paused")
        response.skip(3)
        self.assertIsNone(sink.trailers)
        response.skip(4)
        self.assertEqual((sink.data, sink.trailers), (b"ab", Fields()))
        self.assertEqual(self.idle, [self.connection])
        self.assertEqual(self.peer.transport.producerState, "producing")
        self.assertEqual((response.outstanding, response.transport), (0, None))

    def test_some(self) -> None:
        """The rest may come as usual again."""
        response, sink = self.begin()
        response.lend(waiting=True)
        response.skip(3)
        response.resumeProducing()
        self.peer.send(b"cdef")
        self.assertEqual((sink.data, sink.trailers), (b"abcdef", Fields()))

    def test_cut_short(self) -> None:
        """An end in the middle is one, whoever took what came before."""
        response, sink = self.begin()
        response.lend(waiting=True)
        response.skip(3)
        self.peer.close()
        self.assertIsNotNone(sink.failure)

    def test_unframed(self) -> None:
        """Of content without a length nobody knows how much is outstanding."""
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 200 OK\r\n\r\nab")
        self.assertEqual(self.successResultOf(answer).outstanding, 0)


class UploadTests(ConnectionCase):
    """Requests with content."""

    def test_length(self) -> None:
        """Content of known length goes out as it is."""
        answer = self.ask(b"POST", (b"Content-Length", b"5"), body=BytesBody(b"hello"))
        self.peer.read()
        self.assertEqual((self.peer.bodies, self.peer.complete), ([b"hello"], 1))
        self.peer.answer(200)
        self.deliver(self.successResultOf(answer))
        self.assertEqual(self.idle, [self.connection])

    def test_chunked(self) -> None:
        """Content of unknown length goes out in chunks, with its trailers."""
        body: Any = ManualBody()
        body.trailers = Fields([(b"X-Sum", b"1")])
        answer = self.ask(b"POST", (b"Transfer-Encoding", b"chunked"), body=body)
        producer: Any = self.peer.transport.producer
        producer.pauseProducing()
        producer.resumeProducing()
        self.assertEqual(body.calls, ["start", "pause", "resume"])
        self.peer.transport.clear()
        body.consumer.write(b"abc")
        body.consumer.write(b"")
        body.done.callback(None)
        self.assertEqual(
            self.peer.transport.value(), b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        self.peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.deliver(self.successResultOf(answer))
        self.assertIsNone(self.peer.transport.producer)

    def test_flow(self) -> None:
        """The peer's pace is that of the body, until the body has ended."""
        body = ManualBody()
        self.ask(b"POST", (b"Transfer-Encoding", b"chunked"), body=body)
        transport: Any = self.peer.transport
        transport.producer.pauseProducing()
        transport.producer.resumeProducing()
        self.assertEqual(body.calls, ["start", "pause", "resume"])
        body.done.callback(None)
        transport.producer.pauseProducing()
        transport.producer.resumeProducing()
        self.assertEqual(body.calls, ["start", "pause", "resume"])

    def test_stalls(self) -> None:
        """A peer that takes nothing of what waits for it is given up."""
        answer = self.ask(b"POST", (b"Content-Length", b"9"), body=ManualBody(9))
        transport: Any = self.peer.transport
        self.clock.advance(1000)
        transport.producer.pauseProducing()
        self.clock.advance(299)
        transport.producer.resumeProducing()
        self.clock.advance(1000)
        transport.producer.pauseProducing()
        self.assertNoResult(answer)
        self.clock.advance(300)
        error = self.failureResultOf(answer, PhaseTimeout).value
        self.assertEqual(error.phase, "send")
        self.assertTrue(transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stalls_after_the_answer_began(self) -> None:
        """So is one that answers at the same time, or has begun to."""
        answer = self.ask(b"POST", (b"Content-Length", b"9"), body=ManualBody(9))
        transport: Any = self.peer.transport
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        sink = self.deliver(self.successResultOf(answer))
        transport.producer.pauseProducing()
        self.clock.advance(299)
        transport.producer.resumeProducing()
        self.clock.advance(19)  # of 20 for a piece of the answer
        self.assertIsNone(sink.failure)
        transport.producer.pauseProducing()
        self.clock.advance(300)
        assert sink.failure is not None
        sink.failure.trap(PhaseTimeout)

    def test_refused(self) -> None:
        """What refuses large content may close: nothing else is asked of it."""
        for status, size, kept in (
            (502, 16 * 1024 + 1, False),
            (413, 16 * 1024 + 1, False),
            (502, 16 * 1024, True),
            (201, 16 * 1024 + 1, True),
            (407, 16 * 1024 + 1, True),
        ):
            self.setUp()
            length = (b"Content-Length", b"%d" % size)
            answer = self.ask(b"POST", length, body=BytesBody(bytes(size)))
            self.peer.answer(status)
            self.deliver(self.successResultOf(answer))
            self.assertEqual(self.connection in self.idle, kept, status)
            self.assertEqual(self.connection.state is State.IDLE, kept)

    def test_too_long(self) -> None:
        """Content beyond its length never reaches the wire as another request."""
        body = ManualBody(3)
        answer = self.ask(b"POST", (b"Content-Length", b"3"), body=body)
        body.consumer.write(b"abcd")
        self.failureResultOf(answer, ConnectionEnded, LocalProtocolError)
        self.assertNotIn(b"abcd", self.peer.transport.value())
        self.assertTrue(self.peer.dropped)
        self.assertEqual(body.calls, ["start", "stop"])
        self.assert_quiet()

    def test_too_short(self) -> None:
        """Content that falls short of its length fails the request."""
        body = ManualBody(3)
        answer = self.ask(b"POST", (b"Content-Length", b"3"), body=body)
        body.consumer.write(b"ab")
        body.done.callback(None)
        self.failureResultOf(answer, LocalProtocolError)
        self.assertTrue(self.peer.dropped)

    def test_body_fails(self) -> None:
        """A body that fails drops the connection: it must not look whole."""
        body = ManualBody()
        answer = self.ask(b"POST", (b"Transfer-Encoding", b"chunked"), body=body)
        body.consumer.write(b"ab")
        body.done.errback(ZeroDivisionError())
        self.failureResultOf(answer, ConnectionEnded)
        self.assertNotIn(b"0\r\n\r\n", self.peer.transport.value())
        self.assertTrue(self.peer.transport.aborted)

    def test_early_answer(self) -> None:
        """An answer before the end of the upload is delivered, upload stopped."""
        body = ManualBody()
        answer = self.ask(b"POST", (b"Transfer-Encoding", b"chunked"), body=body)
        body.consumer.write(b"ab")
        self.peer.send(b"HTTP/1.1 413 Too big\r\nContent-Length: 2\r\n\r\n")
        response = self.successResultOf(answer)
        self.assertTrue(self.connection.uploading)
        body.consumer.write(b"cd")
        sink = self.deliver(response)
        self.peer.send(b"no")
        self.assertEqual((sink.data, sink.trailers), (b"no", Fields()))
        self.assertEqual(body.calls[-1], "stop")
        self.assertEqual(self.idle, [])
        self.assertTrue(self.peer.dropped)
        self.assert_quiet()

    def test_answer_while_uploading(self) -> None:
        """An echo may answer in step with the upload, and be reused after both."""
        body = ManualBody(4)
        answer = self.ask(b"POST", (b"Content-Length", b"4"), body=body)
        body.consumer.write(b"ab")
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        sink = self.deliver(self.successResultOf(answer))
        body.consumer.write(b"cd")
        body.done.callback(None)
        self.peer.send(b"cd")
        self.assertEqual(sink.data, b"abcd")
        self.assertEqual(self.idle, [self.connection])

    def test_lost_while_uploading(self) -> None:
        """A connection lost in mid-upload stops the body."""
        body = ManualBody()
        answer = self.ask(b"POST", (b"Transfer-Encoding", b"chunked"), body=body)
        self.peer.reset()
        self.failureResultOf(answer, ConnectionEnded)
        self.assertEqual(body.calls, ["start", "stop"])
        body.done.callback(None)
        self.assert_quiet()

    def test_held_until_100(self) -> None:
        """Held content goes out when the peer says 100 (Continue)."""
        body = ManualBody(2)
        answer = self.ask(b"POST", (b"Content-Length", b"2"), body=body, hold=1.0)
        self.assertEqual(body.calls, [])
        self.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(body.calls, ["start"])
        body.consumer.write(b"ab")
        body.done.callback(None)
        self.peer.answer(200)
        self.deliver(self.successResultOf(answer))
        self.assertEqual(self.idle, [self.connection])

    def test_held_for_a_second(self) -> None:
        """Held content goes out when the peer says nothing (RFC 9110 10.1.1)."""
        body = ManualBody(2)
        self.ask(b"POST", (b"Content-Length", b"2"), body=body, hold=1.0)
        self.clock.advance(1.0)
        self.assertEqual(body.calls, ["start"])

    def test_held_and_refused(self) -> None:
        """A final answer while content is held leaves a connection unfit for more."""
        body = ManualBody(2)
        answer = self.ask(b"POST", (b"Content-Length", b"2"), body=body, hold=1.0)
        self.peer.send(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.successResultOf(answer).head.status, 417)
        self.assertEqual(body.calls, [])
        self.assertEqual(self.idle, [])
        self.assertTrue(self.peer.dropped)

    def test_slow_upload_is_no_timeout(self) -> None:
        """The limit for the head counts from the last octet of the request."""
        body = ManualBody(2)
        answer = self.ask(b"POST", (b"Content-Length", b"2"), body=body)
        self.clock.advance(60)
        body.consumer.write(b"ab")
        body.done.callback(None)
        self.clock.advance(9)
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.failureResultOf(answer, PhaseTimeout)


class RescueTests(SynchronousTestCase):
    """An answer that is there already when a write fails (RFC 9112 9.6)."""

    def setUp(self) -> None:
        self.loop = Loop()
        self.near, self.far = socket.socketpair()
        self.addCleanup(self.far.close)
        self.addCleanup(self.near.close)
        self.near.setblocking(False)
        self.connection = HTTPConnection(self.loop, Timeouts())
        self.transport = Transport(self.near, self.connection, self.loop)
        self.connection.makeConnection(self.transport)
        self.sink = Sink()

    def post(self, body: Any) -> Deferred[Response]:
        framing = (b"Content-Length", b"%d" % body.length)
        fields = Fields([(b"Host", b"a"), framing])
        return self.connection.send(RequestHead(b"POST", b"/", (1, 1), fields), body)

    def answer(self, data: bytes) -> None:
        """Have the server answer and be gone, and only then write."""
        self.transport.doWrite()
        self.far.sendall(data)
        self.far.close()
        self.transport.write(b"x")
        why = self.transport.doWrite()
        self.assertIsInstance(why, ConnectionLost)
        self.loop._disconnectSelectable(self.transport, why, False)

    def test_answer(self) -> None:
        """It is read before the connection is given up."""
        answer = self.post(ManualBody(1000000))
        answer.addCallback(lambda response: response.deliver(self.sink))
        self.answer(b"HTTP/1.1 413 No\r\nContent-Length: 5\r\n\r\nlarge")
        self.successResultOf(answer)
        self.assertEqual(self.sink.data, b"large")
        self.assertIsNotNone(self.sink.trailers)
        self.assertTrue(self.connection.lost)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_everything_was_written(self) -> None:
        """Also when the body has ended, and only the transport has not."""
        answer = self.post(BytesBody(b"content"))
        answer.addCallback(lambda response: response.deliver(self.sink))
        self.answer(b"HTTP/1.1 413 No\r\nContent-Length: 5\r\n\r\nlarge")
        self.successResultOf(answer)
        self.assertEqual(self.sink.data, b"large")

    def test_cut_short(self) -> None:
        """An answer that is not all there is not complete."""
        answer = self.post(ManualBody(1000000))
        answer.addCallback(lambda response: response.deliver(self.sink))
        self.answer(b"HTTP/1.1 413 No\r\n\r\nlarge")  # ends with the connection
        self.successResultOf(answer)
        self.assertEqual(self.sink.data, b"large")
        self.assertIsNone(self.sink.trailers)
        self.assertIsNotNone(self.sink.failure)

    def test_nothing(self) -> None:
        """Without an answer there is none."""
        answer = self.post(ManualBody(1000000))
        self.answer(b"")
        self.failureResultOf(answer, ConnectionEnded)

    def test_garbage(self) -> None:
        """What is no answer is told as it is."""
        answer = self.post(ManualBody(1000000))
        self.answer(b"220 mail.example ESMTP\r\n\r\n")
        self.failureResultOf(answer, RemoteProtocolError)


class Transport(TCPConnection):
    """A connection over a socket that has no options of TCP's."""

    connected = 1

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


@implementer(IHalfCloseableProtocol)
class HalfCloser(Protocol):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.told.append(data)

    def readConnectionLost(self) -> None:
        self.told.append("read")

    def writeConnectionLost(self) -> None:
        self.told.append("write")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append(reason.type)


class DetachTests(ConnectionCase):
    """Streams that change hands."""

    def tunnel(self, extra: bytes = b"") -> Response:
        answer = self.ask(b"CONNECT")
        self.peer.send(b"HTTP/1.1 299 Fine\r\nContent-Length: 3\r\n\r\n" + extra)
        response = self.successResultOf(answer)
        self.assertTrue(response.takes_over)
        return response

    def test_connect(self) -> None:
        """Any 2xx opens the tunnel, and left-over octets are its first."""
        response = self.tunnel(b"SSH-2.0")
        successor = HalfCloser()
        response.detach(successor)
        self.assertIs(successor.transport, self.peer.transport)
        self.peer.send(b"-x")
        self.connection.readConnectionLost()
        self.connection.writeConnectionLost()
        self.peer.close()
        self.assertEqual(
            successor.told, [b"SSH-2.0", b"-x", "read", "write", ConnectionDone]
        )
        self.assert_quiet()

    def test_connect_refused(self) -> None:
        """Any other answer to CONNECT is an ordinary response."""
        answer = self.ask(b"CONNECT")
        self.peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        response = self.successResultOf(answer)
        self.assertFalse(response.takes_over)
        self.assertRaises(LocalProtocolError, response.detach, Protocol())
        self.assertEqual(self.deliver(response).data, b"no")
        self.assertEqual(self.idle, [self.connection])

    def test_upgrade(self) -> None:
        """101 hands the stream over as well."""
        answer = self.ask(b"GET", (b"Connection", b"Upgrade"), (b"Upgrade", b"ws"))
        self.peer.send(b"HTTP/1.1 101 Switching\r\nUpgrade: ws\r\n\r\n\x81")
        successor = HalfCloser()
        self.successResultOf(answer).detach(successor)
        self.assertEqual(successor.told, [b"\x81"])

    def test_late_detach(self) -> None:
        """What comes before somebody takes the stream stays in the socket."""
        response = self.tunnel(b"one")
        self.assertEqual(self.peer.transport.producerState, "paused")
        successor = HalfCloser()
        response.detach(successor)
        self.assertEqual(self.peer.transport.producerState, "producing")
        self.assertEqual(successor.told, [b"one"])

    def test_lost_before_detach(self) -> None:
        """A tunnel that is gone before it was taken cannot be taken."""
        response = self.tunnel()
        self.peer.close()
        self.assertRaises(ConnectionEnded, response.detach, HalfCloser())
        self.assert_quiet()

    def test_successor_without_half_close(self) -> None:
        """A protocol that knows no half-close loses the connection, as on TCP."""
        response = self.tunnel()
        response.detach(Protocol())
        self.connection.writeConnectionLost()
        self.assertFalse(self.peer.dropped)
        self.connection.readConnectionLost()
        self.assertTrue(self.peer.transport.disconnecting)

    def test_no_limits_afterwards(self) -> None:
        """A tunnel may be silent for as long as it likes."""
        response = self.tunnel()
        response.detach(HalfCloser())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.connection.abort()
        self.assertFalse(self.peer.dropped)


class HandshakeTests(ConnectionCase):
    """Connections that begin with TLS."""

    tls = True

    def test_secured(self) -> None:
        """Requests wait for the handshake."""
        self.assertRaises(LocalProtocolError, self.ask)
        waiting = self.connection.secured()
        self.assertNoResult(waiting)
        self.connection.handshakeCompleted()
        self.successResultOf(waiting)
        self.connection.handshakeCompleted()
        self.successResultOf(self.connection.secured())
        self.ask()

    def test_too_slow(self) -> None:
        """A handshake that takes too long is given up."""
        waiting = self.connection.secured()
        self.clock.advance(5)
        self.assertEqual(self.failureResultOf(waiting, PhaseTimeout).value.phase, "tls")
        self.failureResultOf(self.connection.secured(), ConnectionEnded)
        self.assert_quiet()

    def test_refused(self) -> None:
        """What TLS failed with is told as it is."""
        waiting = self.connection.secured()
        self.peer.transport.lose(SSL.Error("certificate verify failed"))
        self.failureResultOf(waiting, SSL.Error)
        self.assert_quiet()

    def test_cut(self) -> None:
        """
        A connection that is lost meanwhile is told by an error of its own.

        Twisted's is one object for all connections; raised, it would keep ours.
        """
        waiting = self.connection.secured()
        lost = ConnectionLost()
        self.peer.transport.lose(lost)
        error = self.failureResultOf(waiting, ConnectionEnded).value
        self.assertIs(error.__cause__, lost)
        self.assertIsNone(lost.__traceback__)
        self.assert_quiet()

    def test_data_before_tls(self) -> None:
        """Octets before the handshake are nobody's answer."""
        waiting = self.connection.secured()
        self.peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        self.failureResultOf(waiting, ConnectionEnded)

    def test_cancelled(self) -> None:
        """Cancelling the wait drops the connection."""
        waiting = self.connection.secured()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertTrue(self.peer.dropped)
        self.assert_quiet()


class CollectTests(ConnectionCase):
    """Reading the content of responses that are not passed on."""

    def collected(self, limit: int = 4) -> Deferred[tuple[bytes, bool]]:
        answer = self.ask()
        self.peer.send(b"HTTP/1.1 407 Who\r\nContent-Length: 6\r\n\r\nab")
        response = self.successResultOf(answer)
        return Deferred.fromCoroutine(collect(response, limit, 5.0, self.clock))

    def test_whole(self) -> None:
        """A body within the limits leaves the connection fit for the next leg."""
        got = self.collected(limit=6)
        self.peer.send(b"cdef")
        self.assertEqual(self.successResultOf(got), (b"abcdef", True))
        self.assertEqual(self.idle, [self.connection])

    def test_too_long(self) -> None:
        """A body beyond the limit is cut, and the connection dropped."""
        got = self.collected()
        self.peer.send(b"cdef")
        self.assertEqual(self.successResultOf(got), (b"abcd", False))
        self.assertTrue(self.peer.dropped)

    def test_too_slow(self) -> None:
        """A body that does not end in time is given up."""
        got = self.collected()
        self.clock.advance(5.0)
        self.assertEqual(self.successResultOf(got), (b"ab", False))
        self.assert_quiet()

    def test_cut_short(self) -> None:
        """A body that is cut short is not whole."""
        got = self.collected()
        self.peer.close()
        self.assertEqual(self.successResultOf(got), (b"ab", False))
