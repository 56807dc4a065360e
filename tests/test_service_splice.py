"""Tests for :mod:`coda_twisted.service.splice`, ``pipes`` and ``sockets``."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from functools import partial
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.service import pipes as module
from coda_twisted.service.limits import HALF_CLOSED_LIMIT
from coda_twisted.service.pipes import LARGE, PIPES_KEPT, SMALL, Flow, Pipes
from coda_twisted.service.relay import End, join
from coda_twisted.service.sockets import Flushed, are_raw
from tests.descriptors import (
    NO_PIPES,
    Descriptors,
    FicklePipes,
    RawPeer,
    open_files,
    raw,
)
from tests.front import Loop, connected
from tests.test_client_garbage import garbage

BIG = 3_000_000
"""Octets that no socket's buffers hold."""


def content(size: int, seed: int = 0) -> bytes:
    """Octets no part of which looks like another."""
    return Random(seed).randbytes(size)


class PipesTests(SynchronousTestCase):
    """Pipes that are lent."""

    def setUp(self) -> None:
        self.before = open_files()

    def test_kept(self) -> None:
        """A few empty ones are kept for the next; a full one is not."""
        pipes = Pipes()
        lent = [pipes.take(large=True) for _ in range(PIPES_KEPT + 2)]
        for pipe in lent:
            assert pipe is not None
            pipes.give_back(pipe, empty=True)
        self.assertEqual(open_files(), self.before + 2 * PIPES_KEPT)
        pipe = pipes.take(large=True)
        assert pipe is not None
        self.assertIn(pipe, lent)
        pipes.give_back(pipe, empty=False)
        self.assertEqual(open_files(), self.before + 2 * PIPES_KEPT - 2)
        pipes.close()
        self.assertEqual(open_files(), self.before)

    def test_large_ones_first(self) -> None:
        """When the large ones are lent there are small ones, and then none."""
        pipes = Pipes((LARGE[0], 1), (SMALL[0], 2))
        lent: list[Any] = [pipes.take(large=large) for large in (False, True, True)]
        self.assertEqual([pipe.size for pipe in lent], [SMALL[0], LARGE[0], SMALL[0]])
        self.assertIsNone(pipes.take(large=True))
        for pipe in lent:
            pipes.give_back(pipe, empty=False)
        self.assertEqual(open_files(), self.before)

    def test_none_to_be_had(self) -> None:
        """Where there are no descriptors left there are no pipes."""

        def pipe() -> Any:
            raise OSError(errno.EMFILE, "too many open files")

        self.patch(os, "pipe", pipe)
        self.assertIsNone(Pipes().take(large=True))

    def test_too_small(self) -> None:
        """One that the kernel does not let grow is closed again."""

        def refuse(fd: int, command: int, size: int = 0) -> int:
            if command == fcntl.F_SETPIPE_SZ:
                raise PermissionError(errno.EPERM, "beyond pipe-user-pages-soft")
            return 8192

        self.patch(fcntl, "fcntl", refuse)
        self.assertIsNone(Pipes().take(large=True))
        self.assertEqual(open_files(), self.before)

    def test_no_splice(self) -> None:
        """Where nothing can be spliced there is no use for pipes."""
        self.patch(module, "_SPLICE", None)
        self.assertIsNone(Pipes().take(large=True))
        self.assertEqual(open_files(), self.before)


class FlushedTests(SynchronousTestCase):
    """Waiting for a transport to write what it has."""

    def setUp(self) -> None:
        self.loop = Descriptors()
        self.protocol = Protocol()
        self.peer = raw(self.loop, self.protocol)
        self.transport: Any = self.protocol.transport
        self.called = 0
        self.addCleanup(self.close)

    def close(self) -> None:
        self.transport.abortConnection()
        self.loop.turn()
        self.peer.socket.close()

    def wait(self) -> None:
        def call() -> None:
            self.called += 1
            self.assertIsNone(self.transport.producer)

        Flushed(self.transport, call)

    def test_nothing_to_write(self) -> None:
        """It is not called at once even so."""
        self.wait()
        self.assertEqual(self.called, 0)
        self.loop.turn()
        self.assertEqual(self.called, 1)

    def test_much_to_write(self) -> None:
        """It is called when the last octet has left."""
        self.peer.reads = False
        self.transport.write(bytes(BIG))
        self.wait()
        self.loop.turn()
        self.assertEqual(self.called, 0)
        self.peer.reads = True
        self.loop.turn()
        self.assertEqual((self.called, len(self.peer.got)), (1, BIG))

    def test_called_off(self) -> None:
        """It is not called once it is no producer any more."""
        self.wait()
        self.transport.unregisterProducer()
        self.loop.turn()
        self.assertEqual(self.called, 0)

    def test_lost(self) -> None:
        """It is not called when the connection is lost."""
        self.wait()
        self.transport.abortConnection()
        self.loop.turn()
        self.assertEqual(self.called, 0)


class SpliceCase(SynchronousTestCase):
    """Two ends over real descriptors, joined, and the test in place of both peers."""

    pipes_are: Any = (LARGE, SMALL)

    def setUp(self) -> None:
        self.before = open_files()
        self.start(Pipes(*self.pipes_are))
        self.addCleanup(self.assert_nothing_is_left)

    def start(self, pipes: Pipes) -> None:
        self.pipes = pipes
        self.loop = Descriptors()
        self.near, self.far = End(), End()
        self.left = raw(self.loop, self.near)
        self.right = raw(self.loop, self.far)
        self.ended = 0

    def note_end(self) -> None:
        self.ended += 1

    def join(self) -> None:
        join(self.near, self.far, self.loop, self.note_end, self.pipes)
        self.loop.turn()

    @property
    def transports(self) -> list[Any]:
        return [self.near.transport, self.far.transport]

    def assert_over(self) -> None:
        """Both connections are closed, once, and nothing is watched."""
        self.assertEqual(self.ended, 1)
        for transport in self.transports:
            self.assertTrue(transport.disconnected)
        self.assertIsNone(self.near.other or self.far.other)
        self.assertIsNone(self.near.side or self.far.side)
        self.assertEqual(self.loop.getDelayedCalls(), [])
        self.assertEqual(self.loop.readers | self.loop.writers, set())

    def assert_nothing_is_left(self) -> None:
        """No descriptor outlives a tunnel."""
        for transport in self.transports:
            transport.abortConnection()
        for peer in (self.left, self.right):
            peer.socket.close()
        self.loop.turn()
        self.pipes.close()
        self.assertEqual(open_files(), self.before)


class SpliceTests(SpliceCase):
    """What comes from one side goes to the other, and then ends."""

    def setUp(self) -> None:
        super().setUp()
        self.join()
        self.sides = ((self.left, self.right), (self.right, self.left))

    def test_taken_over(self) -> None:
        """The transports have no part in it."""
        for transport in self.transports:
            self.assertNotIn(transport, self.loop.readers | self.loop.writers)
        for end in (self.near, self.far):
            verifyObject(IReadWriteDescriptor, end.side)
            self.assertIs(end.transport.protocol, end)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_both_ways(self) -> None:
        """Octets pass, and are counted."""
        self.left.send(b"question")
        self.right.send(b"answer")
        self.loop.turn()
        self.assertEqual((self.right.got, self.left.got), (b"question", b"answer"))
        self.assertEqual((self.near.received, self.far.received), (8, 6))

    def test_much(self) -> None:
        """They are the same octets, in their order."""
        for number, (sender, receiver) in enumerate(self.sides):
            sender.send(content(BIG, number))
            self.loop.turn()
            self.assertEqual(receiver.got, content(BIG, number))
        self.assertEqual((self.near.received, self.far.received), (BIG, BIG))

    def test_pace(self) -> None:
        """The slower side sets the pace, each way by itself."""
        for sender, receiver in self.sides:
            receiver.reads = False
            already = bytes(receiver.got)
            sender.send(content(3 * BIG))
            self.loop.turn()
            self.assertGreater(sender.unsent, BIG)
            receiver.send(b"still heard")
            self.loop.turn()
            self.assertTrue(sender.got.endswith(b"still heard"))
            receiver.reads = True
            self.loop.turn()
            self.assertEqual(receiver.got, already + content(3 * BIG))

    def test_half(self) -> None:
        """One side may end its half while the other goes on, and ends too."""
        for sender, receiver in self.sides[:1]:
            sender.send(b"question")
            sender.finish()
            self.loop.turn()
            self.assertEqual((receiver.got, receiver.ended), (b"question", True))
            self.assertFalse(sender.ended)
            receiver.send(content(BIG))
            receiver.finish()
            self.loop.turn()
            self.assertEqual(sender.got, content(BIG))
            self.assertTrue(sender.ended)
        self.assert_over()

    def test_half_of_a_slow_one(self) -> None:
        """An end is told behind all that came before it."""
        self.left.reads = False
        self.right.send(content(BIG))
        self.right.finish()
        self.loop.turn()
        self.assertFalse(self.far.read_ended)
        self.left.reads = True
        self.loop.turn()
        self.assertEqual((self.left.got, self.left.ended), (content(BIG), True))
        self.left.send(b"thanks")
        self.loop.turn()
        self.assertEqual(self.right.got, b"thanks")

    def test_silence(self) -> None:
        """A tunnel with one half ended is closed when the other is silent."""
        self.right.finish()
        self.loop.turn()
        self.loop.pass_time(HALF_CLOSED_LIMIT - 1)
        self.left.send(b"not yet")
        self.loop.turn()
        self.loop.pass_time(HALF_CLOSED_LIMIT - 1)
        self.assertEqual(self.ended, 0)
        self.loop.pass_time(1)
        self.assert_over()
        self.assertEqual(self.right.got, b"not yet")

    def test_what_a_slow_one_was_sent(self) -> None:
        """Silence does not take from it what is on its way."""
        self.right.finish()
        self.loop.turn()
        self.right.reads = False
        self.left.send(content(BIG))
        self.loop.turn()
        unsent = self.left.unsent
        self.assertGreater(unsent, 0)
        self.loop.pass_time(HALF_CLOSED_LIMIT)
        self.assertEqual(self.ended, 1)
        self.right.reads = True
        self.loop.turn()
        self.assert_over()
        self.assertEqual(self.right.got, content(BIG)[: self.near.received])
        self.assertTrue(self.right.ended)

    def test_reset(self) -> None:
        """An abrupt end is one for the other side too."""
        self.right.reads = False
        self.left.send(content(BIG))
        self.loop.turn()
        self.right.reset()
        self.loop.turn()
        self.assert_over()
        self.assertTrue(self.left.broken or self.left.ended)

    def test_reset_while_nothing_happens(self) -> None:
        """It is noticed when nothing is on its way, too."""
        self.left.send(b"a")
        self.right.reads = False
        self.loop.turn()
        self.right.reset()
        self.loop.turn()
        self.assert_over()

    def test_reset_behind_the_end(self) -> None:
        """What had come to its end in good order is not harmed by a reset."""
        self.left.reads = False
        self.right.send(content(1000))
        self.right.finish()
        self.loop.turn()
        self.right.reset()
        self.left.send(b"anybody there?")
        self.loop.turn()
        self.left.reads = True
        self.loop.turn()
        self.assert_over()
        self.assertEqual((self.left.got, self.left.ended), (content(1000), True))

    def test_dropped(self) -> None:
        """Whoever has dropped one side has dropped both."""
        for how in (self.near.abort, self.near.transport.abortConnection):
            with self.subTest(how=how):
                how()
                self.loop.turn()
                self.assert_over()

    def test_dropped_full(self) -> None:
        """What nobody will read any more goes with it."""
        self.right.reads = False
        self.left.send(content(BIG))
        self.loop.turn()
        self.near.abort()
        self.loop.turn()
        self.assert_over()


class SmallPipesTests(SpliceTests):
    """The same by small pipes."""

    pipes_are = ((LARGE[0], 0), SMALL)


class NoPipesTests(SpliceTests):
    """The same without pipes."""

    pipes_are = NO_PIPES


class HandoverTests(SpliceCase):
    """From the transports to us."""

    def test_early(self) -> None:
        """What came before they were joined passes first."""
        self.right.send(b"welcome ")
        self.loop.turn()
        self.near.dataReceived(b"hello ")
        self.join()
        self.right.send(b"again")
        self.left.send(b"you")
        self.loop.turn()
        self.assertEqual(self.left.got, b"welcome again")
        self.assertEqual(self.right.got, b"hello you")
        self.assertEqual((self.near.received, self.far.received), (9, 13))

    def test_early_and_slow(self) -> None:
        """However much it is, and however slow the other."""
        self.right.reads = False
        self.near.dataReceived(content(BIG))
        self.left.send(b"behind it")
        self.join()
        self.loop.turn()
        self.right.send(b"in the meantime")
        self.loop.turn()
        self.assertEqual(self.left.got, b"in the meantime")
        self.right.reads = True
        self.loop.turn()
        self.assertEqual(self.right.got, content(BIG) + b"behind it")

    def test_unwritten(self) -> None:
        """What a transport has still to write comes before what is relayed."""
        self.left.reads = False
        self.near.transport.write(content(BIG))
        self.right.send(b"behind it")
        self.join()
        self.assertIsNone(self.near.side)
        self.left.reads = True
        self.loop.turn()
        self.assertIsNotNone(self.near.side)
        self.assertEqual(self.left.got, content(BIG) + b"behind it")

    def test_lost(self) -> None:
        """A side may be lost before the other is ready."""
        self.left.reads = False
        self.near.transport.write(content(BIG))
        self.join()
        self.far.abort()
        self.loop.turn()
        self.assert_over()

    def test_broken_by_what_came_early(self) -> None:
        """A side may be lost by the first octets."""
        self.near.dataReceived(b"hello")
        self.right.reset()
        self.join()
        self.loop.turn()
        self.assert_over()

    def test_not_raw(self) -> None:
        """What is no socket of the system stays with its transport."""
        loop = Loop()
        near, far = End(), End()
        left, right = connected(loop, near), connected(loop, far)
        self.assertFalse(are_raw(loop, near.transport, far.transport))
        join(near, far, loop, self.note_end, self.pipes)
        left.incoming.append(b"question")
        loop.turn()
        self.assertIsNone(near.side)
        self.assertEqual(right.sent, b"question")

    def test_reactor(self) -> None:
        """A reactor that watches no descriptors is of no use."""
        self.assertTrue(are_raw(self.loop, *self.transports))
        self.assertFalse(are_raw(object(), *self.transports))


class FlowTests(SynchronousTestCase):
    """A way from one descriptor to another."""

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.integers(0, 300_000), max_size=6),
        st.lists(st.booleans(), max_size=5),
        st.lists(st.integers(1, 200_000), min_size=1, max_size=5),
        st.binary(max_size=20),
    )
    def test_nothing_is_lost(
        self, sizes: list[int], pipes: list[bool], reads: list[int], held: bytes
    ) -> None:
        """Whether by pipe or not, which may change at any time."""
        before = open_files()
        writer, source = socket.socketpair()
        target, reader = socket.socketpair()
        for each in (writer, source, target, reader):
            each.setblocking(False)
        lending = FicklePipes(pipes)
        flow = Flow(source.fileno(), target.fileno(), lending, held)
        sent, got, turn = held, b"", 0
        taken = len(held)
        pending = [content(size, n) for n, size in enumerate(sizes)]
        left = b"".join(pending)
        while left or not flow.empty or len(got) < len(sent):
            if left:
                try:
                    size = writer.send(left)
                    sent += left[:size]
                    left = left[size:]
                except BlockingIOError:
                    pass
            if flow.empty:
                try:
                    taken += flow.fill(reads[turn % len(reads)])
                    flow.drain()
                except BlockingIOError:
                    pass
            else:
                flow.drain()
            with contextlib.suppress(BlockingIOError):
                got += reader.recv(reads[turn % len(reads)])
            turn += 1
        self.assertEqual(got, held + b"".join(pending))
        self.assertEqual(taken, len(got))
        writer.close()
        self.assertEqual(flow.fill(), 0)
        flow.close()
        lending.close()
        for each in (source, target, reader):
            each.close()
        self.assertEqual(open_files(), before)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.booleans(), st.integers(1, 1_500_000)),
        st.tuples(st.just("reads"), st.booleans(), st.booleans()),
        st.tuples(st.just("finish"), st.booleans(), st.none()),
        st.tuples(st.just("turn"), st.booleans(), st.none()),
    ),
    max_size=12,
)


class AnyTunnelTests(SpliceCase):
    """Whatever two peers do, short of a reset, each gets what the other sent."""

    @settings(deadline=None, max_examples=60)
    @given(STEPS, st.lists(st.booleans(), max_size=4), st.binary(max_size=9))
    def test_any(self, steps: Any, pipes: list[bool], early: bytes) -> None:
        """Sending, stalling and ending, in any order."""
        for transport in self.transports:
            transport.abortConnection()
        self.loop.turn()
        for peer in (self.left, self.right):
            peer.socket.close()
        self.start(FicklePipes(pipes))
        sides: list[RawPeer] = [self.left, self.right]
        sent, finished = [early, b""], [False, False]
        if early:
            self.near.dataReceived(early)
        join(self.near, self.far, self.loop, self.note_end, self.pipes)
        for number, (what, left, how) in enumerate(steps):
            side = 0 if left else 1
            if what == "send" and not finished[side]:
                data = content(how, number)
                sent[side] += data
                sides[side].send(data)
            elif what == "reads":
                sides[side].reads = how
            elif what == "finish":
                finished[side] = True
                sides[side].finish()
            self.loop.turn()
        for peer in sides:
            peer.reads = True
        self.loop.turn()
        self.assertEqual(bytes(self.right.got), sent[0])
        self.assertEqual(bytes(self.left.got), sent[1])
        self.assertEqual([self.right.ended, self.left.ended], finished)
        self.assertEqual(
            [len(each) for each in sent], [self.near.received, self.far.received]
        )
        if all(finished):
            self.assert_over()
        self.pipes.close()


class ReasonTests(SpliceCase):
    """Who is told what."""

    def test_closed_in_good_order(self) -> None:
        """A transport that ends in good order by itself ends both so."""
        self.join()
        self.left.send(b"bye")
        self.loop.turn()
        self.near.transport.connectionLost(Failure(ConnectionDone()))
        self.loop.turn()
        self.assert_over()
        self.assertEqual((self.right.got, self.right.ended), (b"bye", True))


class GarbageTests(SpliceCase):
    """Memory is given back when it is no longer used."""

    def tunnel(self, *, ends: bool) -> None:
        near, far = End(), End()
        left, right = raw(self.loop, near), raw(self.loop, far)
        join(near, far, self.loop, self.note_end, self.pipes)
        self.loop.turn()
        left.send(content(BIG))
        self.loop.turn()
        if ends:
            left.finish()
            right.finish()
        else:
            near.abort()
        self.loop.turn()
        assert near.side is None and far.side is None
        for peer in (left, right):
            self.loop.peers.remove(peer)
            peer.socket.close()

    def test_tunnels(self) -> None:
        """However a tunnel ends, nothing of it waits for the cycle collector."""
        for ends in (True, False):
            with self.subTest(ends=ends):
                left = garbage(partial(self.tunnel, ends=ends), 20)
                self.assertEqual(left, [])
