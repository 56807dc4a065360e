"""Tests for :mod:`coda_twisted.service.passage`."""

from __future__ import annotations

import errno
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.service.passage import Passage
from coda_twisted.service.pipes import LARGE, SMALL, Pipes
from tests.descriptors import (
    NO_PIPES,
    Descriptors,
    FicklePipes,
    open_files,
    raw,
)
from tests.test_client_garbage import garbage
from tests.test_service_splice import BIG, content


class Recorder:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.octets = 0
        self.stalls = 0
        self.end = ""

    def took(self, octets: int) -> None:
        assert not self.end
        self.octets += octets

    def stalled(self) -> None:
        assert not self.end
        self.stalls += 1

    def arrived(self) -> None:
        self._ended("arrived")

    def source_ended(self) -> None:
        self._ended("source ended")

    def source_broke(self) -> None:
        self._ended("source broke")

    def target_broke(self) -> None:
        self._ended("target broke")

    def _ended(self, how: str) -> None:
        assert not self.end
        self.end = how


class Keeper(Protocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


class PassageCase(SynchronousTestCase):
    """Two transports, the test in place of their peers, and a passage."""

    pipes_are: Any = (LARGE, SMALL)

    def setUp(self) -> None:
        self.before = open_files()
        self.start(Pipes(*self.pipes_are))
        self.addCleanup(self.finish)

    def start(self, pipes: Pipes) -> None:
        self.pipes = pipes
        self.loop = Descriptors()
        self.protocols = Keeper(), Keeper()
        self.sender, self.receiver = (raw(self.loop, each) for each in self.protocols)
        self.source: Any
        self.target: Any
        self.source, self.target = (each.transport for each in self.protocols)
        self.recorder = Recorder()

    def open(self, octets: int) -> Passage:
        self.source.pauseProducing()
        self.passage = Passage(
            self.loop, self.pipes, self.source, self.target, octets, self.recorder
        )
        self.loop.turn()
        return self.passage

    def finish(self) -> None:
        """Nothing outlives it."""
        for transport in (self.source, self.target):
            transport.abortConnection()
        for peer in (self.sender, self.receiver):
            peer.socket.close()
        self.loop.turn()
        self.pipes.close()
        self.assertEqual(self.loop.readers | self.loop.writers, set())
        self.assertEqual(open_files(), self.before)


class PassageTests(PassageCase):
    """What is moved, and how it ends."""

    def test_exactly(self) -> None:
        """What follows stays where it is, for the transport to read."""
        self.open(BIG)
        self.sender.send(content(BIG) + b"next")
        self.loop.turn()
        self.assertEqual(self.recorder.end, "arrived")
        self.assertEqual((self.recorder.octets, self.passage.moved), (BIG, BIG))
        self.assertEqual(self.receiver.got, content(BIG))
        self.source.resumeProducing()
        self.loop.turn()
        self.assertEqual(self.protocols[0].data, b"next")

    def test_transports_go_on(self) -> None:
        """Each may do what it does the other way."""
        self.receiver.send(b"from the receiver")
        self.open(BIG)
        self.source.write(b"to the sender")
        self.sender.send(content(BIG))
        self.loop.turn()
        self.assertEqual(self.protocols[1].data, b"from the receiver")
        self.assertEqual(self.sender.got, b"to the sender")
        self.assertEqual(self.receiver.got, content(BIG))

    def test_slow(self) -> None:
        """The source waits for the target."""
        self.receiver.reads = False
        self.open(BIG)
        self.sender.send(content(BIG))
        self.loop.turn()
        self.assertEqual((self.recorder.stalls, self.recorder.end), (1, ""))
        self.assertGreater(self.sender.unsent, 0)
        self.receiver.reads = True
        self.loop.turn()
        self.assertEqual(self.recorder.end, "arrived")
        self.assertEqual(self.receiver.got, content(BIG))

    def test_source_ends(self) -> None:
        """An end that comes too early is for the transport to find again."""
        self.open(BIG)
        self.sender.send(content(1000))
        self.sender.finish()
        self.loop.turn()
        self.assertEqual(self.recorder.end, "source ended")
        self.assertEqual((self.passage.moved, len(self.receiver.got)), (1000, 1000))
        self.assertFalse(self.source.disconnected)
        self.source.resumeProducing()
        self.loop.turn()
        self.assertTrue(self.source.disconnected)

    def test_source_breaks(self) -> None:
        """A reset is told from an end."""
        self.source.write(b"unread")
        self.sender.reads = False
        self.loop.turn()
        self.open(BIG)
        self.sender.send(content(1000))
        self.loop.turn()
        self.sender.reset()
        self.loop.turn()
        self.assertEqual(self.recorder.end, "source broke")

    def test_target_breaks(self) -> None:
        """A target that is gone is found out, full or not."""
        for full in (False, True):
            with self.subTest(full=full):
                self.receiver.reads = False
                self.target.stopReading()  # else its transport may be first
                self.open(BIG)
                self.sender.send(content(BIG if full else 1000))
                self.loop.turn()
                self.receiver.reset()
                self.loop.turn()
                self.sender.send(content(1000))
                self.loop.turn()
                self.assertEqual(self.recorder.end, "target broke")
                self.finish()
                self.start(Pipes(*self.pipes_are))

    def test_stop(self) -> None:
        """It ends at once, twice if need be, and nobody is told."""
        self.receiver.reads = False
        self.open(BIG)
        self.sender.send(content(BIG))
        self.loop.turn()
        self.passage.stop()
        self.passage.stop()
        self.assertEqual(self.recorder.end, "")

    def test_no_descriptors(self) -> None:
        """Without descriptors there is no passage, and nothing is left of it."""
        real = os.dup
        for allowed in (0, 1):
            calls: list[int] = []

            def dup(fd: int, allowed: int = allowed, calls: Any = calls) -> int:
                calls.append(fd)
                if len(calls) > allowed:
                    raise OSError(errno.EMFILE, "too many open files")
                return real(fd)

            before = open_files()
            self.patch(os, "dup", dup)
            self.assertRaises(OSError, self.open, BIG)
            self.assertEqual(open_files(), before)


class GarbageTests(PassageCase):
    """Memory is given back when it is no longer used."""

    def test_passages(self) -> None:
        """A passage that is over leaves nothing to the cycle collector."""

        def act() -> None:
            self.recorder = Recorder()
            self.open(BIG)
            self.sender.send(content(BIG))
            self.loop.turn()
            self.assertEqual(self.recorder.end, "arrived")
            self.receiver.got.clear()
            del self.passage

        self.assertEqual(garbage(act, 10), [])


class NoPipesTests(PassageTests):
    """The same without pipes."""

    pipes_are = NO_PIPES


class AnyPassageTests(PassageCase):
    """Whatever the pieces and the pauses, it is what was sent and no octet more."""

    @settings(deadline=None, max_examples=60)
    @given(
        st.integers(1, 1_500_000),
        st.lists(st.integers(1, 900_000), min_size=1, max_size=6),
        st.lists(st.booleans(), max_size=4),
        st.lists(st.booleans(), max_size=8),
    )
    def test_any(
        self, octets: int, sizes: list[int], pipes: list[bool], reads: list[bool]
    ) -> None:
        """A prefix of what is sent arrives, of the length that was asked for."""
        self.finish()
        self.start(FicklePipes(pipes))
        self.open(octets)
        sent = b""
        for number, size in enumerate(sizes):
            if number < len(reads):
                self.receiver.reads = reads[number]
            data = content(size, number)
            sent += data
            self.sender.send(data)
            self.loop.turn()
        self.receiver.reads = True
        self.sender.finish()
        self.loop.turn()
        self.assertEqual(self.receiver.got, sent[:octets])
        whole = len(sent) >= octets
        self.assertEqual(self.recorder.end, "arrived" if whole else "source ended")
        self.assertEqual(self.recorder.octets, min(octets, len(sent)))
        self.source.resumeProducing()
        self.loop.turn()
        self.assertEqual(self.protocols[0].data, sent[octets:])
