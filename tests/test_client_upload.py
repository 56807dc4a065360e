"""Tests for :mod:`coda_twisted.client.upload`."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import FileBodyProducer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from coda_twisted.client.upload import (
    REPLAY_LIMIT,
    BytesBody,
    ReplayableBody,
    Upload,
)
from coda_twisted.errors import BodyNotReplayable
from coda_twisted.interfaces import IRewindableBody


@implementer(IBodyProducer)
class Source:
    """A body whose octets come when the test says so, and only once."""

    length: Any = UNKNOWN_LENGTH

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.consumer: Any = None
        self.done: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        assert self.consumer is None, "a body may be started once"
        self.calls.append("start")
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


@implementer(IRewindableBody)
class Rewinding:
    """A body that can be sent again, and says when it is."""

    length = 2

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.pending: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.calls.append("start")
        consumer.write(b"ab")
        self.pending = Deferred()
        return self.pending

    def rewind(self) -> None:
        self.calls.append("rewind")

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class Consumer:
    """Takes what it is given."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class BytesBodyTests(SynchronousTestCase):
    """Content at hand."""

    def test_interface(self) -> None:
        """It is a body that can be sent again."""
        verifyObject(IRewindableBody, BytesBody(b"x"))

    def test_twice(self) -> None:
        """It produces the same octets each time."""
        body, consumer = BytesBody(b"ab"), Consumer()
        for _ in range(2):
            self.successResultOf(body.startProducing(consumer))  # type: ignore[arg-type]
            body.rewind()
        body.pauseProducing()
        body.resumeProducing()
        body.stopProducing()
        self.assertEqual(consumer.data, b"abab")

    def test_empty(self) -> None:
        """Empty content writes nothing."""
        consumer = Consumer()
        self.successResultOf(BytesBody(b"").startProducing(consumer))  # type: ignore[arg-type]
        self.assertEqual(consumer.data, b"")


class ReplayableBodyTests(SynchronousTestCase):
    """Content that more than one leg may need."""

    def setUp(self) -> None:
        self.source = Source()
        self.body = ReplayableBody(self.source)

    def leg(
        self, body: ReplayableBody | None = None
    ) -> tuple[Consumer, Deferred[None]]:
        consumer = Consumer()
        return consumer, (body or self.body).startProducing(consumer)  # type: ignore[arg-type]

    def test_one_leg(self) -> None:
        """A single leg gets it all, as it comes."""
        consumer, done = self.leg()
        self.source.consumer.write(b"ab")
        self.assertEqual(consumer.data, b"ab")
        self.assertNoResult(done)
        self.source.done.callback(None)
        self.successResultOf(done)

    def test_second_leg_goes_on(self) -> None:
        """A leg cut short is repeated from its start, then goes on."""
        self.leg()
        self.source.consumer.write(b"ab")
        self.body.stopProducing()
        self.assertEqual(self.source.calls, ["start", "pause"])
        self.source.consumer.write(b"cd")  # was under way
        consumer, done = self.leg()
        self.assertEqual(self.source.calls, ["start", "pause", "resume"])
        self.source.consumer.write(b"ef")
        self.source.done.callback(None)
        self.successResultOf(done)
        self.assertEqual((consumer.data, self.body.sent), (b"abcdef", 6))

    def test_second_leg_after_a_whole_one(self) -> None:
        """A leg that was complete is repeated without its source."""
        _, done = self.leg()
        self.source.consumer.write(b"ab")
        self.source.done.callback(None)
        self.successResultOf(done)
        consumer, done = self.leg()
        self.successResultOf(done)
        self.assertEqual(consumer.data, b"ab")
        self.assertEqual(self.source.calls, ["start"])

    def test_finished_between_legs(self) -> None:
        """A source that ends between two legs ends the second."""
        self.leg()
        self.source.consumer.write(b"ab")
        self.body.stopProducing()
        self.source.done.callback(None)
        consumer, done = self.leg()
        self.successResultOf(done)
        self.assertEqual(consumer.data, b"ab")

    def test_failure_is_told_again(self) -> None:
        """A source that failed fails each leg."""
        _, done = self.leg()
        self.source.done.errback(ZeroDivisionError())
        self.failureResultOf(done, ZeroDivisionError)
        _, done = self.leg()
        self.failureResultOf(done, ZeroDivisionError)

    def test_too_much_to_keep(self) -> None:
        """Beyond the limit a second leg says what to do instead."""
        self.leg()
        self.source.consumer.write(b"x" * REPLAY_LIMIT)
        self.assertTrue(self.body.replayable)
        self.source.consumer.write(b"x")
        self.assertFalse(self.body.replayable)
        self.body.stopProducing()
        error = self.assertRaises(BodyNotReplayable, self.leg)
        self.assertIn("256 KiB", str(error))

    def test_rewinds(self) -> None:
        """A body that can rewind is rewound, however much was sent."""
        source = Rewinding()
        body = ReplayableBody(source)
        self.leg(body)
        body.stopProducing()
        consumer, done = self.leg(body)
        self.assertEqual(source.calls, ["start", "pause", "stop", "rewind", "start"])
        source.pending.callback(None)
        self.successResultOf(done)
        self.assertEqual(consumer.data, b"ab")
        self.leg(body)
        self.assertEqual(source.calls[-2:], ["rewind", "start"])

    def test_small(self) -> None:
        """What is sure to be replayable needs no caution."""
        self.assertFalse(self.body.small)
        self.assertTrue(ReplayableBody(Rewinding()).small)
        self.source.length = REPLAY_LIMIT
        self.assertTrue(ReplayableBody(self.source).small)
        self.source.length = REPLAY_LIMIT + 1
        self.assertFalse(ReplayableBody(self.source).small)

    def test_flow(self) -> None:
        """The transport's pressure reaches the source, until it has ended."""
        self.leg()
        self.body.pauseProducing()
        self.body.resumeProducing()
        self.source.done.callback(None)
        self.body.pauseProducing()
        self.body.resumeProducing()
        self.assertEqual(self.source.calls, ["start", "pause", "resume"])

    def test_last_leg_stops_the_source(self) -> None:
        """When no leg will follow, stopping stops the source for good."""
        self.leg()
        self.body.last_leg()
        self.assertEqual(self.source.calls, ["start"])
        self.body.stopProducing()
        self.body.discard()
        self.assertEqual(self.source.calls, ["start", "stop"])

    def test_last_leg_after_it_was_stopped(self) -> None:
        """A leg that stopped before it was known to be the last lets go as well."""
        self.leg()
        self.body.stopProducing()
        self.body.last_leg()
        self.assertEqual(self.source.calls, ["start", "pause", "stop"])

    def test_never_started(self) -> None:
        """A body that was never asked for anything is left alone."""
        self.body.stopProducing()
        self.body.discard()
        self.assertEqual(self.source.calls, [])

    def test_trailers(self) -> None:
        """Trailers are the source's."""
        self.assertIsNone(self.body.trailers)
        self.source.trailers = "t"  # type: ignore[attr-defined]
        self.assertEqual(self.body.trailers, "t")

    def test_file_body_producer(self) -> None:
        """Twisted's file producer closes its file when done; replaying is ours."""
        body = ReplayableBody(FileBodyProducer(BytesIO(b"abc"), _Now()))
        for _ in range(2):
            consumer, done = self.leg(body)
            self.successResultOf(done)
            self.assertEqual(consumer.data, b"abc")


class _Now:
    """A cooperator that does all at once."""

    def cooperate(self, steps: Any) -> Any:
        for _ in steps:
            pass
        return self

    def whenDone(self) -> Deferred[None]:
        return succeed(None)


class UploadTests(SynchronousTestCase):
    """The corners of :class:`Upload` that a connection does not reach."""

    def test_stop_before_start(self) -> None:
        """A body that was not started is not told to stop."""
        source = Source()
        upload = Upload(source, StringTransport())
        upload.stop()
        upload.stop()
        self.assertEqual((source.calls, upload.done), ([], True))

    def test_skip(self) -> None:
        """What is written past it counts."""
        source, transport = Source(), StringTransport()
        source.length = 5
        upload = Upload(source, transport)
        self.assertIs(upload.transport, transport)
        finished = upload.start()
        upload.write(b"ab")
        upload.skip(2)
        upload.write(b"e")
        source.done.callback(None)
        self.successResultOf(finished)
        self.assertEqual((transport.value(), upload.sent), (b"abe", 5))

    def test_after_the_end(self) -> None:
        """Octets after the end go nowhere."""
        source, transport = Source(), StringTransport()
        upload = Upload(source, transport)
        self.assertNoResult(upload.start())
        upload.registerProducer(None, True)
        upload.unregisterProducer()
        upload.stop()
        upload.write(b"late")
        source.done.callback(None)
        self.assertEqual(transport.value(), b"")
        self.assertFalse(upload.complete)
