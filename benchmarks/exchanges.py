"""Exchanges of small messages, many at once, in one bare epoll loop."""

from __future__ import annotations

import argparse
import collections
import contextlib
import enum
import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.framing import parse_head
from benchmarks.wire import BODY, connect_head, request_head

__all__ = [
    "PATIENCE",
    "PING",
    "Fault",
    "Getting",
    "Loop",
    "Result",
    "Target",
    "Tunnelling",
    "check_small",
]

HOST = "127.0.0.1"
PATIENCE = 30.0
PING = b"ping"


class Fault(Exception):
    """What came is not what should have come."""


class Target:
    """
    Where requests go.

    :param arguments: ``port`` of the origin and ``proxy``, the proxy's port or 0.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.origin: int = arguments.port
        self.proxy: int = arguments.proxy
        self.address = HOST, self.proxy or self.origin
        self.extra: int = arguments.extra
        self.keep: bool = not arguments.close

    def get(self, path: str) -> bytes:
        """Make a request for *path*."""
        fields = [f"X-Field-{n}: value of field {n}" for n in range(self.extra)]
        if not self.keep:
            fields.append("Connection: close")
        return request_head(HOST, self.origin, path, fields, proxy=bool(self.proxy))

    def connect_head(self) -> bytes:
        """Make a request for a tunnel."""
        return connect_head(HOST, self.origin)

    def open(self) -> socket.socket:
        """Connect."""
        connection = socket.create_connection(self.address, PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def check_small(response: bytes) -> tuple[bool, bool]:
    """
    Look at the beginning of a response to ``/1k``.

    :returns: Whether it is complete; whether the connection goes on after it.
    :raises Fault: It is not what the origin sends.
    """
    head_end = response.find(b"\r\n\r\n")
    if head_end < 0:
        return False, True
    status, fields = parse_head(response[:head_end])
    if status != 200:
        raise Fault(f"status {status}")
    content = response[head_end + 4 :]
    if len(content) < len(BODY):
        return False, True
    if content != BODY:
        raise Fault("other content")
    connection = fields.get(b"connection", b"") + fields.get(b"proxy-connection", b"")
    goes_on = b"close" not in connection.lower()
    return True, goes_on and not response.startswith(b"HTTP/1.0")


class Result:
    """What was done."""

    def __init__(self) -> None:
        self.done = 0
        self.octets = 0
        self.connections = 0
        self.faults: collections.Counter[str] = collections.Counter()
        self.more: dict[str, float] = {}
        self.seconds = 0.0

    def as_json(self) -> str:
        """Write it down."""
        return json.dumps({**vars(self), **self.more})


class Step(enum.Enum):
    """
    What an exchange wants next.

    :cvar READ: To be told when something comes.
    :cvar WAIT: The same, after it was told that it is connected.
    :cvar AGAIN: It has ended; its connection may serve the next.
    :cvar OPEN: To begin on a new connection; the one before is closed.
    :cvar ENDED: It has ended, and so has its connection.
    """

    READ = enum.auto()
    WAIT = enum.auto()
    AGAIN = enum.auto()
    OPEN = enum.auto()
    ENDED = enum.auto()


class Loop:
    """Keeps several exchanges under way at once until the time is over."""

    def __init__(self, exchanges: Sequence[Getting | Tunnelling]) -> None:
        self._exchanges = exchanges
        self._poll = select.epoll()
        self._active: dict[int, Getting | Tunnelling] = {}

    def run(self, seconds: float, count: int = sys.maxsize) -> float:
        """
        Let exchanges follow each other.

        :param count: How many at most.
        :returns: How many seconds it took.
        :raises Fault: Some do not end.
        """
        begin = time.perf_counter()
        end, last = begin + seconds, begin + seconds + PATIENCE
        left = count
        for exchange in self._exchanges:
            self._begin(exchange)
            left -= 1
        running = len(self._exchanges)
        while running:
            events = self._poll.poll(1.0)
            now = time.perf_counter()
            if now > last:
                raise Fault(f"{running} exchanges hang")
            for number, _ in events:
                exchange = self._active[number]
                step = exchange.step()
                if step is Step.READ:
                    continue
                if step is Step.WAIT:
                    self._poll.modify(number, select.EPOLLIN)
                elif step is Step.OPEN:
                    del self._active[number]
                    self._begin(exchange)
                elif now >= end or left <= 0:
                    running -= 1
                    self._active.pop(number)
                    if step is Step.AGAIN:
                        self._poll.unregister(number)
                elif step is Step.AGAIN:
                    left -= 1
                    exchange.again()
                else:
                    left -= 1
                    del self._active[number]
                    self._begin(exchange)
        return time.perf_counter() - begin

    def _begin(self, exchange: Getting | Tunnelling) -> None:
        number, events = exchange.begin()
        self._active[number] = exchange
        self._poll.register(number, events)


class Getting:
    """GET ``/1k`` again and again on one connection."""

    def __init__(self, target: Target, result: Result) -> None:
        self._target = target
        self._result = result
        self._request = target.get("/1k")
        self._connection: socket.socket | None = None
        self._begun = b""
        self._right = b""
        self._used = False

    def begin(self) -> tuple[int, int]:
        """Send a request, on a new connection if there is none."""
        if self._connection is None:
            self._connection = self._target.open()
            self._connection.setblocking(False)
            self._result.connections += 1
            self._used = False
        self.again()
        return self._connection.fileno(), select.EPOLLIN

    def again(self) -> None:
        """Send the next request on the same connection."""
        assert self._connection is not None
        self._begun = b""
        with contextlib.suppress(OSError):  # reading tells
            self._connection.send(self._request)

    def step(self) -> Step:
        """Read."""
        assert self._connection is not None
        try:
            data = self._connection.recv(65536)
        except BlockingIOError:
            return Step.READ
        except OSError as error:
            return self._lost(type(error).__name__)
        # An answer that is octet by octet the one before needs no second look.
        if not self._begun and data and data == self._right:
            self._result.done += 1
            return Step.AGAIN
        if not data:
            return self._lost("closed early")
        self._begun += data
        try:
            complete, goes_on = check_small(self._begun)
        except Fault as fault:
            return self._fault(str(fault))
        if not complete:
            return Step.READ
        self._result.done += 1
        self._used = True
        if goes_on and self._target.keep:
            self._right = self._begun
            return Step.AGAIN
        self._drop()
        return Step.ENDED

    def _lost(self, name: str) -> Step:
        if self._used and not self._begun:
            # Any server may close a connection that waits (RFC 9112 section 9.5).
            self._drop()
            return Step.OPEN
        return self._fault(name)

    def _fault(self, name: str) -> Step:
        self._result.faults[name] += 1
        self._drop()
        return Step.ENDED

    def _drop(self) -> None:
        assert self._connection is not None
        self._connection.close()
        self._connection = None


class Tunnelling:
    """Open a tunnel, send four octets there and back, and close it."""

    def __init__(self, target: Target, result: Result) -> None:
        self._target = target
        self._result = result
        self._connection: Any = None
        self._begun = b""
        self._open = self._connected = False

    def begin(self) -> tuple[int, int]:
        """Connect."""
        self._connection = socket.socket()
        self._connection.setblocking(False)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.connect_ex(self._target.address)
        self._begun = b""
        self._open = self._connected = False
        return self._connection.fileno(), select.EPOLLOUT

    def again(self) -> None:
        """Never called: each tunnel has a connection of its own."""
        raise NotImplementedError

    def step(self) -> Step:
        """Go on."""
        try:
            if not self._connected:
                self._connected = True
                self._connection.send(self._target.connect_head())
                return Step.WAIT
            data = self._connection.recv(65536)
        except OSError as error:
            return self._end(type(error).__name__)
        if not data:
            return self._end("closed early")
        self._begun += data
        if not self._open and b"\r\n\r\n" in self._begun:
            head, _, self._begun = self._begun.partition(b"\r\n\r\n")
            status, _ = parse_head(head)
            if status != 200:
                return self._end(f"status {status}")
            self._open = True
            self._connection.send(PING)
        if self._open and len(self._begun) >= len(PING):
            return self._end("" if self._begun == PING else "other content")
        return Step.READ

    def _end(self, fault: str) -> Step:
        if fault:
            self._result.faults[fault] += 1
        else:
            self._result.done += 1
        self._connection.close()
        return Step.ENDED
