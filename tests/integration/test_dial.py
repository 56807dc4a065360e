"""Tests for :mod:`coda_twisted.client.dial`, which is all about sockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionRefusedError,
)
from twisted.internet.error import (
    TimeoutError as TCPTimeoutError,
)
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from coda_twisted.client.connector import tcp_endpoint
from coda_twisted.client.dial import AddressEndpoint, can_dial
from coda_twisted.client.sending import send_now

reactor: Any = global_reactor


class Caller(Protocol):
    """Keeps what comes, and closes when that is as much as it wants."""

    def __init__(self) -> None:
        self.received = b""
        self.wanted = 300_000
        self.made = False
        self.lost: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.made = True

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= self.wanted:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(self.received)


class Echo(Protocol):
    """Says what it is told."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]


class DialTests(TestCase):
    """A connection is made, or its failure told, and no socket is left."""

    def dial(self, host: str, port: int, timeout: float = 10.0) -> Deferred[Any]:
        endpoint = AddressEndpoint(reactor, host, port, timeout)
        return endpoint.connect(Factory.forProtocol(Caller))

    async def talk(self, host: str, kind: type) -> None:
        port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface=host)
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        caller = await self.dial(host, number)
        transport = caller.transport
        self.assertTrue(caller.made)
        self.assertTrue(ITCPTransport.providedBy(transport))
        self.assertEqual(transport.getPeer(), kind("TCP", host, number))
        self.assertEqual(transport.getHost().host, host)
        content = bytes(range(250)) * 1200
        send_now(transport, content[:5])  # at once
        send_now(transport, content[5:])  # more than a socket takes at once
        self.assertEqual(await caller.lost, content)

    async def test_ipv4(self) -> None:
        """An IPv4 address is reached."""
        await self.talk("127.0.0.1", IPv4Address)

    async def test_ipv6(self) -> None:
        """So is one of IPv6."""
        await self.talk("::1", IPv6Address)

    async def test_refused(self) -> None:
        """A port where nobody listens is told as Twisted's endpoints tell it."""
        taken = socket.create_server(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        taken.close()
        with self.assertRaises(ConnectionRefusedError):
            await self.dial("127.0.0.1", number)

    def full(self) -> int:
        """Find a port that lets a caller wait: its queue is full."""
        server = socket.socket()
        self.addCleanup(server.close)
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        number: int = server.getsockname()[1]
        for _ in range(3):
            waiting = socket.socket()
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", number))
        return number

    async def test_timeout(self) -> None:
        """One that does not answer is given up after the time given."""
        with self.assertRaises(TCPTimeoutError):
            await self.dial("127.0.0.1", self.full(), 0.05)

    async def test_cancelled(self) -> None:
        """Whoever cancels closes the socket; the reactor is left clean."""
        dialling = self.dial("127.0.0.1", self.full())
        dialling.cancel()
        with self.assertRaises(CancelledError):
            await dialling

    async def test_no_descriptor(self) -> None:
        """That no socket can be made is told, too."""

        def none_left(*_: object) -> None:
            raise OSError(24, "Too many open files")

        self.patch(socket, "socket", none_left)
        with self.assertRaises(ConnectBindError) as caught:
            await self.dial("127.0.0.1", 1)
        self.assertEqual(caught.exception.osError, 24)

    async def test_no_protocol(self) -> None:
        """A factory may build nothing."""
        port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint = AddressEndpoint(reactor, "127.0.0.1", port.getHost().port, 10.0)
        factory = Factory()
        factory.buildProtocol = lambda addr: None  # type: ignore[method-assign]
        with self.assertRaises(ConnectError):
            await endpoint.connect(factory)

    async def test_broken_factory(self) -> None:
        """What it raises is passed on."""
        port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint = AddressEndpoint(reactor, "127.0.0.1", port.getHost().port, 10.0)

        def broken(addr: object) -> None:
            raise ZeroDivisionError

        factory = Factory()
        factory.buildProtocol = broken  # type: ignore[method-assign]
        with self.assertRaises(ZeroDivisionError):
            await endpoint.connect(factory)


class ChoiceTests(TestCase):
    """Addresses are dialled where that is possible; names are not."""

    def test_choice(self) -> None:
        """What Twisted has is used for all else."""
        for host, dialled in [
            ("127.0.0.1", True),
            ("::1", True),
            ("fe80::1%lo", False),
            ("localhost", False),
            ("my_host", False),
        ]:
            self.assertEqual(can_dial(reactor, host), dialled, host)
            self.assertFalse(can_dial(MemoryReactorClock(), host))
            self.assertFalse(can_dial(Clock(), host))
            endpoint = tcp_endpoint(reactor, host, 80, timeout=1)
            self.assertEqual(type(endpoint) is AddressEndpoint, dialled)
        endpoint = tcp_endpoint(reactor, "localhost", 80, timeout=1)
        self.assertIs(type(endpoint), HostnameEndpoint)
