"""
The load generator: a program of its own, so that its work delays nobody's.

It connects and warms up, writes ``ready``, waits for a line, works, and writes what
was done as a line of JSON.  An answer counts only when its status and its octets are
right; all else is counted by its name as a fault.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import enum
import json
import select
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.framing import Content, parse_head
from benchmarks.wire import BODY, connect_head, request_head

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


def run_loop(kind: type[Any], target: Target, arguments: argparse.Namespace) -> Result:
    """Have several exchanges at once."""
    result = Result()
    exchanges = [kind(target, result) for _ in range(arguments.connections)]
    loop = Loop(exchanges)
    loop.run(2.0, count=4 * arguments.connections)  # warms up
    result.done = result.connections = 0
    result.faults.clear()
    ready()
    result.seconds = loop.run(arguments.seconds)
    return result


def run_latency(target: Target, arguments: argparse.Namespace) -> Result:
    """Take the time of each exchange, one at a time."""
    result = Result()
    request = target.get("/1k")
    connection: socket.socket | None = None
    times: list[int] = []

    def exchange() -> None:
        nonlocal connection
        begin = time.perf_counter_ns()
        fresh = connection is None
        if connection is None:
            connection = target.open()
            result.connections += 1
        connection.sendall(request)
        response, complete = b"", False
        while not complete:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data and not response and not fresh:
                connection.close()
                connection = None
                return  # as any server may; the next one is on a new connection
            if not data:
                raise Fault("closed early")
            response += data
            complete, goes_on = check_small(response)
        times.append(time.perf_counter_ns() - begin)
        if not (goes_on and target.keep):
            connection.close()
            connection = None

    for _ in range(20):
        exchange()
    times.clear()
    ready()
    begin = time.perf_counter()
    while time.perf_counter() < begin + arguments.seconds:
        try:
            exchange()
        except (OSError, Fault) as fault:
            result.faults[str(fault)] += 1
            connection = None
            if sum(result.faults.values()) > 10:
                break
    result.seconds = time.perf_counter() - begin
    result.done = len(times)
    if len(times) >= 2:
        result.more["p50_us"] = statistics.median(times) / 1000
        result.more["p99_us"] = statistics.quantiles(times, n=100)[98] / 1000
    return result


def run_bulk(target: Target, arguments: argparse.Namespace) -> Result:
    """Receive one large content."""
    result = Result()
    size: int = arguments.size
    ready()
    begin = time.perf_counter()
    try:
        connection = target.open()
        connection.settimeout(PATIENCE)
        content = Content(size)
        if arguments.mode == "tunnel":
            early = b""
            if target.proxy:
                connection.sendall(target.connect_head())
                head, early = read_head(connection)
                if head[0] != 200:
                    raise Fault(f"status {head[0]}")
            connection.sendall(b"%d\n" % size)
        else:
            connection.sendall(target.get(f"/{arguments.mode}/{size}"))
            head, early = read_head(connection)
            if head[0] != 200:
                raise Fault(f"status {head[0]}")
            content.frame(head[1])
        receive(connection, early, content, begin + arguments.seconds, result)
        connection.close()
    except (OSError, Fault) as fault:
        result.faults[str(fault) or type(fault).__name__] += 1
    result.seconds = time.perf_counter() - begin
    return result


def read_head(connection: socket.socket) -> tuple[tuple[int, dict[bytes, bytes]], bytes]:
    """Read a head, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise Fault("closed early")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return parse_head(head), rest


def receive(
    connection: socket.socket,
    early: bytes,
    content: Content,
    deadline: float,
    result: Result,
) -> None:
    """Count what comes, until it is complete, ended or too late."""
    buffer = bytearray(262144)
    view = memoryview(buffer)
    content.take(early)
    while not content.complete:
        count = connection.recv_into(buffer)
        if not count:
            content.end()
            break
        content.take(view[:count])
        if time.perf_counter() > deadline:
            break
    result.octets = content.octets
    if content.complete:
        result.done = 1
        if content.octets != content.expected:
            result.faults[f"{content.octets} octets of {content.expected}"] += 1
    elif time.perf_counter() > deadline:
        result.more["cut_off"] = 1
    else:
        result.faults[f"cut short: {content.octets} octets"] += 1


def run_idle(target: Target, arguments: argparse.Namespace) -> Result:
    """Open tunnels, and hold them until another line comes."""
    result = Result()
    held = []
    ready()
    begin = time.perf_counter()
    for _ in range(arguments.connections):
        connection = target.open()
        connection.sendall(target.connect_head())
        (status, _), _ = read_head(connection)
        if status != 200:
            raise Fault(f"status {status}")
        held.append(connection)
    result.seconds = time.perf_counter() - begin
    result.done = len(held)
    ready()
    for connection in held:
        connection.sendall(PING)
        if connection.recv(16) != PING:
            result.faults["other content"] += 1
    return result


def ready() -> None:
    """Say so, and wait for a line."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit(1)


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode")
    parser.add_argument("port", type=int, help="of the origin")
    parser.add_argument("--proxy", type=int, default=0, help="its port")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--extra", type=int, default=0)
    parser.add_argument("--close", action="store_true", help="keep no connection")
    arguments = parser.parse_args()
    target = Target(arguments)
    mode = arguments.mode
    if mode == "get":
        result = run_loop(Getting, target, arguments)
    elif mode == "connect":
        result = run_loop(Tunnelling, target, arguments)
    elif mode == "latency":
        result = run_latency(target, arguments)
    elif mode == "idle":
        result = run_idle(target, arguments)
    else:
        result = run_bulk(target, arguments)
    print(result.as_json(), flush=True)


if __name__ == "__main__":
    main()
