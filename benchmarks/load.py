"""
The load generator: a program of its own, so that its work delays nobody's.

It connects and warms up, writes ``ready``, waits for a line, works, and writes what
was done as a line of JSON.  An answer counts only when its status and its octets are
right; all else is counted by its name as a fault.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import time

from benchmarks.exchanges import (
    PATIENCE,
    PING,
    Fault,
    Getting,
    Loop,
    Result,
    Target,
    Tunnelling,
    check_small,
)
from benchmarks.framing import Content, parse_head


def run_loop(
    kind: type[Getting | Tunnelling],
    target: Target,
    arguments: argparse.Namespace,
) -> Result:
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


class Single:
    """One request after the other, on one connection while it lasts."""

    def __init__(self, target: Target, result: Result) -> None:
        self._target = target
        self._result = result
        self._request = target.get("/1k")
        self._connection: socket.socket | None = None

    def exchange(self) -> int | None:
        """
        Make a request.

        :returns: The ns it took; ``None`` if the connection was closed while it
            waited, as any server may do (RFC 9112 section 9.5).
        :raises Fault: The answer is wrong.
        """
        begin = time.perf_counter_ns()
        fresh = self._connection is None
        connection = self._connection or self._target.open()
        self._connection = None
        self._result.connections += fresh
        try:
            connection.sendall(self._request)
            response = connection.recv(65536)
        except ConnectionError:
            response = b""
        if not response and not fresh:
            connection.close()
            return None
        complete, goes_on = check_small(response)
        while not complete:
            data = connection.recv(65536)
            if not data:
                raise Fault("closed early")
            response += data
            complete, goes_on = check_small(response)
        taken = time.perf_counter_ns() - begin
        if goes_on and self._target.keep:
            self._connection = connection
        else:
            connection.close()
        return taken


def run_latency(target: Target, arguments: argparse.Namespace) -> Result:
    """Take the time of each exchange, one at a time."""
    result = Result()
    single = Single(target, result)
    times: list[int] = []
    for _ in range(20):
        single.exchange()
    ready()
    begin = time.perf_counter()
    while time.perf_counter() < begin + arguments.seconds:
        try:
            taken = single.exchange()
        except (OSError, Fault) as fault:
            result.faults[str(fault)] += 1
            if sum(result.faults.values()) > 10:
                break
        else:
            if taken is not None:
                times.append(taken)
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


def read_head(
    connection: socket.socket,
) -> tuple[tuple[int, dict[bytes, bytes]], bytes]:
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
