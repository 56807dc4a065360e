"""
The service's clients, in memory, played by the test.

Their connections are Twisted's own, so that buffers, producers and half-closed
streams are what they are in the world; only the kernel's part is played here.
"""

from __future__ import annotations

import socket
from collections import deque
from errno import EWOULDBLOCK
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.posixbase import _DisconnectSelectableMixin
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from coda_twisted.client.exchange import Client
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.credentials import StaticCredentials
from coda_twisted.errors import ConnectionEnded
from coda_twisted.http1.heads import ResponseHead
from coda_twisted.http1.readers import Data, ResponseReader
from coda_twisted.routing.routes import Direct, StaticRouter
from coda_twisted.service.access import Access
from coda_twisted.service.limits import Limits
from coda_twisted.service.proxy import Proxy
from tests.test_client_exchange import InlineWorkers
from tests.wire import Peer, Wire

__all__ = [
    "Answer",
    "Caller",
    "FrontCase",
    "LoggedCase",
    "Loop",
    "Socket",
    "connected",
]


class Socket:
    """
    What the kernel does for one connection, and what the peer has seen of it.

    :ivar incoming: What the peer has sent, to be read.
    :ivar ended: Whether the peer has ended its half.
    :ivar gone: Whether the peer has reset the connection.
    :ivar sent: What the peer was sent.
    :ivar room: Octets that the peer will still take; ``None`` for all.
    :ivar shut: Whether our half was ended in good order.
    :ivar closed: Whether the connection is closed.
    :ivar reset: Whether it was closed by RST.
    :ivar options: What was set on it.
    """

    def __init__(self) -> None:
        self.incoming: deque[bytes] = deque()
        self.ended = self.gone = False
        self.sent = b""
        self.room: int | None = None
        self.shut = self.closed = self.reset = False
        self.options: set[tuple[int, int]] = set()

    @property
    def readable(self) -> bool:
        return bool(self.incoming) or self.ended or self.gone

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def fileno(self) -> int:
        return -1

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        self.options.add((level, name))
        if (level, name) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self.reset = True

    def recv(self, size: int) -> bytes:
        if self.gone:
            raise ConnectionResetError("reset by peer")
        if not self.incoming:
            assert self.ended, "read although there was nothing"
            return b""
        data = self.incoming.popleft()
        if len(data) > size:
            self.incoming.appendleft(data[size:])
        return data[:size]

    def send(self, data: memoryview) -> int:
        size = len(data) if self.room is None else min(self.room, len(data))
        if len(data) and not size:
            raise BlockingIOError(EWOULDBLOCK, "no room")
        if self.room is not None:
            self.room -= size
        self.sent += bytes(data[:size])
        return size

    def shutdown(self, how: int) -> None:
        self.shut = True

    def close(self) -> None:
        self.closed = True


class _Transport(Connection):
    """A connection of Twisted's over such a socket."""

    def __init__(self, near: Socket, protocol: Any, loop: Loop, host: str) -> None:
        super().__init__(near, protocol, loop)  # type: ignore[arg-type]
        self.connected = 1
        self._host = host

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8088)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self._host, 50000)


def connected(loop: Loop, protocol: Any, host: str = "127.0.0.1") -> Socket:
    """Connect *protocol* to a peer that the test plays, and be that peer."""
    near = Socket()
    transport = _Transport(near, protocol, loop, host)
    transport.startReading()
    protocol.makeConnection(transport)
    return near


@implementer(IHostnameResolver)
class _Resolver:
    """Finds one address for every name."""

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        resolutionReceiver.resolutionBegan(self)  # type: ignore[arg-type]
        address: Any = IPv4Address("TCP", "192.0.2.1", portNumber)
        resolutionReceiver.addressResolved(address)
        resolutionReceiver.resolutionComplete()
        return self


@implementer(IReactorPluggableNameResolver)
class Loop(MemoryReactorClock, _DisconnectSelectableMixin):
    """A reactor that moves what can be moved when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver: Any = _Resolver()

    def turn(self) -> None:
        """Let everything happen that needs no time."""
        moved = True
        while moved:
            moved = any(call.getTime() <= self.seconds() for call in self.calls)
            self.advance(0)
            for each in list(self.readers):
                if each in self.readers and each.socket.readable:
                    moved = True
                    self._after(each, each.doRead(), reading=True)
            for each in list(self.writers):
                if each in self.writers and each.socket.room != 0:
                    moved = True
                    self._after(each, each.doWrite(), reading=False)

    def _after(self, transport: Any, why: Any, *, reading: bool) -> None:
        if why is not None:
            self._disconnectSelectable(transport, why, reading)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and happen what then must."""
        self.advance(seconds)
        self.turn()


class Answer:
    """
    One answer, as a client reads it.

    :ivar interim: The heads of the 1xx before it.
    :ivar complete: Whether its end has come.
    """

    def __init__(self, method: bytes) -> None:
        self.method = method
        self.interim: list[ResponseHead] = []
        self.head: Any = None
        self.body = b""
        self.trailers: Any = None
        self.complete = False

    @property
    def status(self) -> int:
        status: int = self.head.status
        return status

    @property
    def takes_over(self) -> bool:
        return self.complete and (
            self.status == 101 or (self.method == b"CONNECT" and self.status < 300)
        )

    def get(self, name: bytes) -> bytes | None:
        value: bytes | None = self.head.fields.get(name)
        return value

    def take(self, event: Any) -> None:
        if isinstance(event, ResponseHead):
            if event.status < 200 and event.status != 101:
                self.interim.append(event)
            else:
                self.head = event
        elif isinstance(event, Data):
            self.body += event.data
        else:
            self.trailers = event.trailers
            self.complete = True


class Caller:
    """
    A client of the service.

    :ivar tunnel: What has come behind an answer that changed protocols, once
        :meth:`read` has read it.
    """

    def __init__(self, loop: Loop, proxy: Proxy, host: str = "127.0.0.1") -> None:
        self.loop = loop
        self.protocol = proxy.buildProtocol(None)
        self.socket = connected(loop, self.protocol, host)
        self.tunnel = b""
        self._methods: list[bytes] = []

    def send(self, data: bytes, *methods: bytes) -> Caller:
        """
        Send requests.

        :param methods: Those of the requests in *data*; by default it is one.
        """
        self._methods.extend(methods or (data.partition(b" ")[0],))
        return self.more(data)

    def more(self, data: bytes) -> Caller:
        """Send what begins no request."""
        if data:
            self.socket.incoming.append(data)
            self.loop.turn()
        return self

    def finish(self) -> None:
        """Send nothing more."""
        self.socket.ended = True
        self.loop.turn()

    def vanish(self) -> None:
        """Reset the connection."""
        self.socket.gone = True
        transport: Any = self.protocol.transport
        transport.startReading()  # a reset is noticed by whoever writes, too
        self.loop.turn()

    def take(self, size: int | None) -> None:
        """Make room for *size* octets, or for all."""
        self.socket.room = size
        self.loop.turn()

    @property
    def closed(self) -> bool:
        """Whether the service has ended its half of the connection, or all of it."""
        return self.socket.shut or self.socket.closed

    @property
    def paused(self) -> bool:
        """Whether the service reads no more for now."""
        return self.protocol.transport not in self.loop.readers

    def read(self) -> list[Answer]:
        """Read all that was answered, strictly; the last may be incomplete."""
        data, position = self.socket.sent, 0
        answers: list[Answer] = []
        for method in self._methods:
            if position == len(data):
                break
            answer = Answer(method)
            answers.append(answer)
            reader = ResponseReader()
            reader.expect(method)
            while position < len(data) and not answer.complete:
                for event in reader.receive(data[position : position + 1]):
                    answer.take(event)
                position += 1
            if answer.takes_over:
                self.tunnel = data[position:]
                return answers
            if not answer.complete and self.closed and not self.socket.reset:
                try:
                    [end] = reader.eof()
                except ConnectionEnded:
                    return answers
                answer.take(end)
        assert position == len(data), "there are more answers than requests"
        return answers

    @property
    def answer(self) -> Answer:
        """The latest answer."""
        return self.read()[-1]

    @property
    def statuses(self) -> list[int]:
        """The status codes of all complete answers."""
        return [each.status for each in self.read() if each.complete]


class LoggedCase(SynchronousTestCase):
    """A test that reads the log."""

    def setUp(self) -> None:
        self._events: list[LogEvent] = []
        note: Any = self._events.append
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)

    @property
    def lines(self) -> list[str]:
        """What the service has logged."""
        return [
            formatEvent(event)
            for event in self._events
            if event["log_namespace"].startswith("coda_twisted.service.")
        ]


class FrontCase(LoggedCase):
    """
    The service, and the test in place of its clients and of every server.

    :cvar route: How it reaches servers.
    :cvar credentials: Who it is to the proxy above.
    :cvar limits: How long a client may take.
    """

    route: Any = Direct()
    credentials: Any = None
    limits = Limits()

    def setUp(self) -> None:
        super().setUp()
        self.start()

    def start(self) -> None:
        """Make a service."""
        self.loop = Loop()
        self.wire = Wire()
        self.access = self.make_access()
        self.client = Client(
            self.loop,
            router=StaticRouter(self.route),
            credentials=self.credentials and StaticCredentials(self.credentials),
            timeouts=Timeouts(),
            workers=InlineWorkers(),
            endpoint_for=self.access.guard(self.wire.endpoint_for),
        )
        self.proxy = Proxy(
            self.client, self.loop, self.access, b"coda-test", limits=self.limits
        )

    def make_access(self) -> Access:
        return Access()

    def caller(self, host: str = "127.0.0.1") -> Caller:
        """Connect a client."""
        return Caller(self.loop, self.proxy, host)

    def peer(self, number: int = -1) -> Peer:
        """A server that was connected to, with all that was sent to it."""
        return self.wire.peers[number].read()

    def reply(
        self, status: int = 200, *fields: tuple[bytes, bytes], **more: Any
    ) -> None:
        """Have the latest server answer."""
        self.peer().answer(status, *fields, **more)
        self.loop.turn()

    def say(self, data: bytes) -> None:
        """Have the latest server send octets."""
        self.peer().send(data)
        self.loop.turn()
