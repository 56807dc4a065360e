"""Tests for :mod:`coda_twisted.service.content`."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface.verify import verifyObject

from coda_twisted.client.upload import Upload
from coda_twisted.http1.fields import Fields
from coda_twisted.service.content import READ_AHEAD, RequestContent

TRAILERS = Fields([(b"A", b"b")])


class Flow:
    """A client's connection, as far as its flow goes."""

    transport = None

    def __init__(self) -> None:
        self.paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


class ContentCase(SynchronousTestCase):
    """Content, its client and its consumer, played by the test."""

    def setUp(self) -> None:
        self.flow = Flow()
        self.asked = 0
        self.content = self.make(None)
        self.consumer = StringTransport()

    def make(self, length: int | None) -> RequestContent:
        return RequestContent(length, self.flow, self.note)

    def note(self) -> None:
        self.asked += 1

    def assert_got(self, data: bytes) -> None:
        self.assertEqual(self.consumer.value(), data)


class FlowTests(ContentCase):
    """From a client to whoever wants it."""

    def test_interface(self) -> None:
        """It is a body of a request, of known length or not."""
        verifyObject(IBodyProducer, self.content)
        self.assertEqual(self.content.length, UNKNOWN_LENGTH)
        self.assertEqual(self.make(5).length, 5)

    def test_passed_on(self) -> None:
        """It is passed on as it comes, once it is asked for."""
        self.content.received(b"a")
        self.assertEqual(self.asked, 0)
        sent = self.content.startProducing(self.consumer)
        self.assertEqual(self.asked, 1)
        self.assert_got(b"a")
        self.content.received(b"b")
        self.assert_got(b"ab")
        self.assertNoResult(sent)
        self.content.ended(TRAILERS)
        self.successResultOf(sent)
        self.assertIs(self.content.trailers, TRAILERS)

    def test_complete_before(self) -> None:
        """What is complete needs not be asked of the client."""
        self.content.received(b"a")
        self.content.ended(TRAILERS)
        self.successResultOf(self.content.startProducing(self.consumer))
        self.assertEqual(self.asked, 0)
        self.assert_got(b"a")

    def test_held(self) -> None:
        """While nobody wants it, a limited part of it is taken."""
        self.content.received(bytes(READ_AHEAD - 1))
        self.assertFalse(self.flow.paused)
        self.content.received(b"x")
        self.assertTrue(self.flow.paused)
        self.content.startProducing(self.consumer)
        self.assertFalse(self.flow.paused)
        self.content.received(bytes(READ_AHEAD))
        self.assertFalse(self.flow.paused)

    def test_paused(self) -> None:
        """A consumer that has enough stops the client."""
        sent = self.content.startProducing(self.consumer)
        self.content.pauseProducing()
        self.assertTrue(self.flow.paused)
        self.content.received(b"a")  # was under way
        self.assert_got(b"")
        self.content.ended(TRAILERS)
        self.assertNoResult(sent)
        self.content.resumeProducing()
        self.assert_got(b"a")
        self.successResultOf(sent)

    def test_paused_by_what_was_held(self) -> None:
        """A consumer may have enough of what was held already."""
        self.content.received(b"a")
        write = self.consumer.write

        def write_and_pause(data: bytes) -> None:
            write(data)
            self.content.pauseProducing()

        self.patch(self.consumer, "write", write_and_pause)
        sent = self.content.startProducing(self.consumer)
        self.assertTrue(self.flow.paused)
        self.content.ended(TRAILERS)
        self.successResultOf(sent)

    def test_flow_given_back(self) -> None:
        """Once it is complete its pauses are over, whoever asked for them."""
        self.content.received(bytes(READ_AHEAD))
        self.content.ended(TRAILERS)
        self.assertFalse(self.flow.paused)
        self.content.startProducing(self.consumer)
        self.content.pauseProducing()
        self.assertFalse(self.flow.paused)

    def test_resumed_before(self) -> None:
        """A consumer may resume what it has not begun to take."""
        self.content.received(b"a")
        self.content.resumeProducing()
        self.content.startProducing(self.consumer)
        self.assert_got(b"a")

    def test_unwanted(self) -> None:
        """What nobody wants any more is thrown away, but must still come."""
        self.content.received(bytes(READ_AHEAD))
        sent = self.content.startProducing(self.consumer)
        self.content.pauseProducing()
        self.content.stopProducing()
        self.assertFalse(self.flow.paused)
        self.consumer.clear()
        self.content.received(bytes(READ_AHEAD))
        self.content.ended(TRAILERS)
        self.assertFalse(self.flow.paused)
        self.assert_got(b"")
        self.assertNoResult(sent)

    def test_unwanted_when_complete(self) -> None:
        """Of what is complete nothing must come."""
        self.content.ended(TRAILERS)
        self.flow.pauseProducing()  # by somebody else
        self.content.stopProducing()
        self.assertTrue(self.flow.paused)

    def test_never_asked(self) -> None:
        """What is not wanted is not asked for."""
        self.content.stopProducing()
        self.content.startProducing(self.consumer)
        self.assertEqual(self.asked, 0)


class AnyOrderTests(ContentCase):
    """What holds in whatever order things happen."""

    @settings(max_examples=100, deadline=None)
    @given(
        pieces=st.lists(st.integers(1, READ_AHEAD), max_size=8),
        steps=st.lists(st.sampled_from(["start", "pause", "resume", "piece"])),
    )
    def test_all_arrives(self, pieces: list[int], steps: list[Any]) -> None:
        """All of it arrives in its order, if it is wanted in the end."""
        self.setUp()
        expected = b"".join(bytes([i]) * size for i, size in enumerate(pieces))
        left = [bytes([i]) * size for i, size in enumerate(pieces)]
        sent = None
        for step in steps:
            if step == "start":
                sent = sent or self.content.startProducing(self.consumer)
            elif step == "pause" and sent:
                self.content.pauseProducing()
            elif step == "resume" and sent:
                self.content.resumeProducing()
            elif step == "piece" and left and not self.flow.paused:
                self.content.received(left.pop(0))
        sent = sent or self.content.startProducing(self.consumer)
        self.content.resumeProducing()
        while left:
            self.assertFalse(self.flow.paused)
            self.content.received(left.pop(0))
        self.assertNoResult(sent)
        self.content.ended(TRAILERS)
        self.successResultOf(sent)
        self.assertFalse(self.flow.paused)
        self.assert_got(expected)


class Way:
    """Another way for content, of which the test moves so much as it likes."""

    def __init__(self) -> None:
        self.stopped = 0

    def stop(self) -> None:
        self.stopped += 1


class BypassTests(ContentCase):
    """Content that passes us by."""

    def setUp(self) -> None:
        super().setUp()
        self.way: Way | None = Way()
        self.found: list[tuple[RequestContent, Upload]] = []
        self.content = RequestContent(9, self.flow, self.note, self.find)
        self.upload = Upload(self.content, self.consumer)
        self.content.received(b"ab")
        self.flow.paused = True

    def find(self, content: RequestContent, upload: Upload) -> Way | None:
        self.found.append((content, upload))
        return self.way

    def test_found(self) -> None:
        """What is here is written first; then neither side is ours."""
        sent = self.upload.start()
        self.assertEqual(self.found, [(self.content, self.upload)])
        self.assert_got(b"ab")
        self.content.resumeProducing()
        self.assertTrue(self.flow.paused)
        self.upload.skip(3)
        self.content.passed()
        self.assertFalse(self.flow.paused)
        self.content.received(b"fghi")
        self.content.ended(Fields())
        self.successResultOf(sent)
        self.assert_got(b"abfghi")
        assert self.way is not None
        self.assertEqual((self.way.stopped, len(self.found)), (1, 1))

    def test_none(self) -> None:
        """Where there is none it comes as always, and nobody is asked again."""
        self.way = None
        self.upload.start()
        self.assertFalse(self.flow.paused)
        self.content.pauseProducing()
        self.content.resumeProducing()
        self.assertEqual(len(self.found), 1)

    def test_unwanted(self) -> None:
        """Content that nobody wants any more passes nowhere."""
        self.upload.start()
        self.upload.stop()
        assert self.way is not None
        self.assertEqual(self.way.stopped, 1)
        self.assertFalse(self.flow.paused)

    def test_kept(self) -> None:
        """What may be needed again is not to pass us by."""
        self.content.startProducing(self.consumer)
        self.assertEqual(self.found, [])
