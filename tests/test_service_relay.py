"""Tests for :mod:`coda_twisted.service.relay`."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta
from functools import cache
from tempfile import NamedTemporaryFile
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL import SSL
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.client.connection import FAREWELL
from coda_twisted.service.limits import HALF_CLOSED_LIMIT, Limits
from coda_twisted.service.relay import End, Ends, join
from tests.front import Loop, Socket, connected

SMALL = 60_000
"""Octets that fit into a transport's buffer."""
BIG = 200_000
"""Octets that do not."""


class RelayCase(SynchronousTestCase):
    """Two ends, joined, and the test in place of both peers."""

    def setUp(self) -> None:
        self.loop = Loop()
        self.near, self.far = End(), End()
        self.left = connected(self.loop, self.near)
        self.right = self.connect_far()
        self.ended = 0

    def connect_far(self) -> Socket:
        return connected(self.loop, self.far)

    def join(self, limits: Limits | None = None) -> None:
        join(self.near, self.far, self.loop, self.note_end, limits=limits)
        self.loop.turn()

    def note_end(self) -> None:
        self.ended += 1

    def send(self, peer: Socket, data: bytes) -> None:
        """Have a peer send octets."""
        for start in range(0, len(data), 50_000):
            peer.incoming.append(data[start : start + 50_000])
        self.loop.turn()

    def finish(self, peer: Socket) -> None:
        """Have a peer end its half."""
        peer.ended = True
        self.loop.turn()

    def reset(self, peer: Socket) -> None:
        """Have a peer reset its connection."""
        peer.gone = True
        self.loop.turn()

    def take(self, peer: Socket, room: int | None) -> None:
        """Let a peer read so much, or all."""
        peer.room = room
        self.loop.turn()

    def assert_over(self, *, reset: bool = False) -> None:
        """Both connections are closed, once, and nothing is left."""
        for peer in (self.left, self.right):
            self.assertTrue(peer.closed)
        self.assertEqual(self.ended, 1)
        self.assertEqual(self.loop.getDelayedCalls(), [])
        self.assertIsNone(self.near.other or self.far.other)
        self.assertIsNone(self.near.tunnel or self.far.tunnel)


class FlowTests(RelayCase):
    """What comes from one side goes to the other."""

    def test_interface(self) -> None:
        """Each end can tell the halves of its stream apart."""
        verifyObject(IHalfCloseableProtocol, End())

    def test_both_ways(self) -> None:
        """Octets pass, and are counted."""
        self.join()
        self.send(self.left, b"question")
        self.send(self.right, b"answer")
        self.assertEqual((self.right.sent, self.left.sent), (b"question", b"answer"))
        self.assertEqual((self.near.received, self.far.received), (8, 6))

    def test_early(self) -> None:
        """What came before they were joined passes first."""
        self.send(self.right, b"welcome ")
        self.near.dataReceived(b"hello ")
        self.join()
        self.send(self.right, b"again")
        self.send(self.left, b"you")
        self.assertEqual(self.left.sent, b"welcome again")
        self.assertEqual(self.right.sent, b"hello you")
        self.assertEqual((self.near.received, self.far.received), (9, 13))

    def test_socket(self) -> None:
        """Small pieces are not delayed, and dead peers are found out."""
        for peer in (self.left, self.right):
            self.assertIn((socket.IPPROTO_TCP, socket.TCP_NODELAY), peer.options)
            self.assertIn((socket.SOL_SOCKET, socket.SO_KEEPALIVE), peer.options)

    def test_pace(self) -> None:
        """The slower side sets the pace, each way by itself."""
        self.join()
        for sender, receiver in ((self.left, self.right), (self.right, self.left)):
            self.take(receiver, 0)
            self.send(sender, bytes(BIG))
            self.assertEqual(len(sender.incoming), 2)  # the rest stays where it is
            self.send(receiver, b"still heard")
            self.assertTrue(sender.sent.endswith(b"still heard"))
            self.take(receiver, None)
            self.assertEqual(receiver.sent.count(0), BIG)

    def test_no_timer(self) -> None:
        """A tunnel costs no timer, and is not limited."""
        self.join()
        self.assertEqual(self.loop.getDelayedCalls(), [])


class EndTests(RelayCase):
    """Streams that end."""

    def setUp(self) -> None:
        super().setUp()
        self.join()
        self.sides = ((self.left, self.right), (self.right, self.left))

    def test_half(self) -> None:
        """One side may end its half while the other goes on, and ends too."""
        self.send(self.left, b"question")
        self.finish(self.left)
        self.assertTrue(self.right.shut)
        self.assertFalse(self.left.shut)
        self.send(self.right, b"answer")
        self.assertEqual(self.left.sent, b"answer")
        self.finish(self.right)
        self.assert_over()
        self.assertFalse(self.left.reset or self.right.reset)

    def test_half_of_a_slow_one(self) -> None:
        """An end is told behind all that came before it."""
        self.take(self.left, 0)
        self.send(self.right, bytes(BIG))
        self.finish(self.right)
        self.assertFalse(self.left.shut)
        self.take(self.left, None)
        self.assertEqual((len(self.left.sent), self.left.shut), (BIG, True))
        self.send(self.left, b"thanks")
        self.assertEqual(self.right.sent, b"thanks")

    def test_both_slow(self) -> None:
        """Both may end while neither has read all of it; it is not lost."""
        for peer in (self.left, self.right):
            self.take(peer, 0)
        for peer in (self.left, self.right):
            self.send(peer, bytes(SMALL))
            self.finish(peer)
        self.loop.pass_time(10 * HALF_CLOSED_LIMIT)
        for peer in (self.left, self.right):
            self.take(peer, None)
            self.assertEqual(len(peer.sent), SMALL)
            self.assertFalse(peer.reset)
        self.assert_over()

    def test_silence(self) -> None:
        """A tunnel with one half ended is closed when the other is silent."""
        self.finish(self.right)
        self.loop.pass_time(HALF_CLOSED_LIMIT - 1)
        self.send(self.left, b"not yet")
        self.loop.pass_time(HALF_CLOSED_LIMIT - 1)
        self.assertEqual(self.ended, 0)
        self.loop.pass_time(1)
        self.assert_over()
        self.assertEqual(self.right.sent, b"not yet")

    def test_slow_is_not_silent(self) -> None:
        """A side that is slow to read what came before the end is waited for."""
        self.take(self.left, 0)
        self.send(self.right, bytes(SMALL))
        self.finish(self.right)
        self.loop.pass_time(10 * HALF_CLOSED_LIMIT)
        self.take(self.left, None)
        self.assertEqual(len(self.left.sent), SMALL)
        self.loop.pass_time(HALF_CLOSED_LIMIT - 1)
        self.assertEqual(self.ended, 0)
        self.loop.pass_time(1)
        self.assert_over()

    def test_reset(self) -> None:
        """An abrupt end is one for the other side too."""
        self.reset(self.right)
        self.assertTrue(self.left.reset)
        self.assert_over()

    def test_reset_of_the_other(self) -> None:
        """Whichever side it is."""
        self.reset(self.left)
        self.assertTrue(self.right.reset)
        self.assert_over()

    def test_reset_behind_the_end(self) -> None:
        """What had come to its end in good order is not harmed by a reset."""
        self.take(self.left, 0)
        self.send(self.right, b"last words")
        self.finish(self.right)
        self.far.transport.startReading()
        self.reset(self.right)
        self.assertEqual(self.ended, 1)
        self.take(self.left, None)
        self.assertEqual((self.left.sent, self.left.reset), (b"last words", False))
        self.assert_over()

    def test_late(self) -> None:
        """What comes for a side that is gone is dropped."""
        self.take(self.left, 0)
        self.send(self.right, b"last words")
        self.finish(self.right)
        self.far.transport.abortConnection()
        self.loop.turn()
        self.near.dataReceived(b"too late")
        self.take(self.left, None)
        self.assertEqual(self.left.sent, b"last words")
        self.assert_over()

    def test_dropped(self) -> None:
        """Whoever has dropped one side has dropped both."""
        self.near.transport.abortConnection()
        self.loop.turn()
        self.assertTrue(self.right.reset)
        self.assert_over()

    def test_closed(self) -> None:
        """Whoever has closed one side in good order has closed both so."""
        self.send(self.right, b"bye")
        self.near.transport.loseConnection()
        self.loop.turn()
        self.assertEqual((self.left.sent, self.right.reset), (b"bye", False))
        self.assert_over()


class LimitTests(RelayCase):
    """Limits of somebody's choice."""

    def test_half_closed(self) -> None:
        """How long half a tunnel may be silent can be chosen."""
        self.join(Limits(half_closed=5))
        self.finish(self.right)
        self.loop.pass_time(4)
        self.assertEqual(self.ended, 0)
        self.loop.pass_time(1)
        self.assert_over()

    def test_half_closed_for_ever(self) -> None:
        """It may be for ever."""
        self.join(Limits(half_closed=None))
        self.finish(self.right)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """A tunnel that is silent for so long is closed in good order."""
        self.join(Limits(tunnel=100))
        self.loop.pass_time(99)
        self.send(self.left, b"ping")
        self.loop.pass_time(99)
        self.send(self.right, b"pong")
        self.loop.pass_time(99)
        self.assertEqual(self.ended, 0)
        self.loop.pass_time(1)
        self.assert_over()
        self.assertEqual((self.right.sent, self.left.sent), (b"ping", b"pong"))
        self.assertFalse(self.left.reset or self.right.reset)

    def test_idle_costs_one_timer(self) -> None:
        """However much goes through it, there is one timer for both directions."""
        self.join(Limits(tunnel=100))
        [call] = self.loop.getDelayedCalls()
        for _ in range(10):
            self.send(self.left, b"ping")
            self.send(self.right, b"pong")
        self.assertEqual(self.loop.getDelayedCalls(), [call])

    def test_idle_with_something_unread(self) -> None:
        """What a silent side has not read does not keep a tunnel open."""
        self.join(Limits(tunnel=100))
        self.take(self.left, 0)
        self.send(self.right, bytes(SMALL))
        self.loop.pass_time(100)
        self.assertFalse(self.left.closed)
        self.loop.pass_time(FAREWELL)
        self.assertTrue(self.left.reset)
        self.assert_over()

    def test_idle_after_half(self) -> None:
        """Once one half has ended, the other limit holds."""
        self.join(Limits(tunnel=10, half_closed=None))
        self.finish(self.right)
        self.loop.pass_time(1000)
        self.assertEqual(self.ended, 0)
        self.finish(self.left)
        self.assert_over()


@cache
def server_context() -> SSL.Context:
    """What a TLS server needs; nobody verifies it here."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime(2020, 1, 1))
        .not_valid_after(datetime(2020, 1, 1) + timedelta(days=30_000))
        .sign(key, SHA256())
    )
    context = SSL.Context(SSL.TLS_METHOD)
    with NamedTemporaryFile() as file:
        file.write(
            certificate.public_bytes(Encoding.PEM)
            + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        file.flush()
        context.use_privatekey_file(file.name)
        context.use_certificate_file(file.name)
    return context


class TLSTests(RelayCase):
    """A far side that is reached by TLS, which knows no halves."""

    def connect_far(self) -> Socket:
        tls: Any = TLSMemoryBIOFactory(CertificateOptions(), True, Ends(), self.loop)
        tls.noisy = False
        protocol = tls.buildProtocol(None)
        self.far = protocol.wrappedProtocol
        self.server = SSL.Connection(server_context(), None)
        self.server.set_accept_state()
        self.read = 0
        return connected(self.loop, protocol)

    def setUp(self) -> None:
        super().setUp()
        self.loop.turn()
        self.exchange()
        self.join()

    def exchange(self) -> bytes:
        """Move what goes to and fro; say what the server has got."""
        got = b""
        while True:
            self.loop.turn()
            new = self.right.sent[self.read :]
            self.read += len(new)
            if new:
                self.server.bio_write(new)
            try:
                while True:
                    got += self.server.recv(65536)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                pass
            try:
                self.right.incoming.append(self.server.bio_read(65536))
            except SSL.WantReadError:
                if not new:
                    return got

    @property
    def told_of_the_end(self) -> bool:
        """Whether the server has got a close_notify."""
        return bool(self.server.get_shutdown() & SSL.RECEIVED_SHUTDOWN)

    def test_both_ways(self) -> None:
        """Octets pass."""
        self.send(self.left, b"question")
        self.assertEqual(self.exchange(), b"question")
        self.server.send(b"answer")
        self.exchange()
        self.assertEqual(self.left.sent, b"answer")

    def test_near_ends(self) -> None:
        """The server is told of the end, and may still answer."""
        self.send(self.left, b"question")
        self.finish(self.left)
        self.assertEqual(self.exchange(), b"question")
        self.assertTrue(self.told_of_the_end)
        self.server.send(b"answer")
        self.exchange()
        self.assertEqual((self.left.sent, self.left.closed), (b"answer", False))
        self.server.shutdown()
        self.exchange()
        self.assert_over()
        self.assertFalse(self.left.reset)

    def test_near_ends_and_silence(self) -> None:
        """The server is not waited for when it is silent."""
        self.finish(self.left)
        self.exchange()
        self.loop.pass_time(HALF_CLOSED_LIMIT - 1)
        self.server.send(b"not yet")
        self.exchange()
        self.loop.pass_time(HALF_CLOSED_LIMIT - 1)
        self.assertEqual(self.ended, 0)
        self.loop.pass_time(1)
        self.assert_over()
        self.assertEqual(self.left.sent, b"not yet")

    def test_server_ends(self) -> None:
        """A server that ends has ended both halves."""
        self.take(self.left, 0)
        self.server.send(b"bye")
        self.server.shutdown()
        self.exchange()
        self.take(self.left, None)
        self.assertEqual((self.left.sent, self.left.reset), (b"bye", False))
        self.assert_over()

    def test_server_is_cut_off(self) -> None:
        """An end without close_notify is abrupt: somebody may have cut it off."""
        self.finish(self.right)
        self.assertTrue(self.left.reset)
        self.assert_over()

    def test_near_resets(self) -> None:
        """An abrupt end is one for the server too."""
        self.reset(self.left)
        self.assertTrue(self.right.closed)
        self.assert_over()
