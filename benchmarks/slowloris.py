"""
What a thousand connections that send an octet every few seconds cost all others.

Two services run at once, alike but for the crowd of slow connections that one of them
has.  Ordinary clients ask for 1 KiB over kept connections, one request after another,
of one service and of the other in turns, some tenths of a second each.  So what else
happens on the machine happens to both.  Compared are the medians of their latency,
pair of turns for pair.  What the service with the crowd uses beyond the other's
processor time per request is what the crowd takes, as a part of one processor: by so
much a service is slowed that has no processor time to spare.

    python -m benchmarks.slowloris
    python -m benchmarks.slowloris --slow 200 --turns 10    # the short form
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.harness import (
    KIB,
    Bound,
    Service,
    descriptors_at_most,
    finish,
    median,
    octets,
    reset,
    run,
    table,
)

__all__ = ["measure"]

CLIENTS = 8
"""Ordinary clients."""

CONTENT = b"x" * KIB

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT


class Origin(asyncio.Protocol):
    """Answers whatever looks like the end of a head."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


@dataclass(frozen=True)
class Turn:
    """
    What ordinary clients have seen.

    :ivar latency: The median, in seconds.
    :ivar cpu: The service's seconds meanwhile, whatever for.
    """

    requests: int
    latency: float
    cpu: float


class Slow:
    """
    Connections that send the head of a request, an octet now and then.

    Those that the service gives up on come back at once.

    :ivar ended: How many it gave up on.
    """

    def __init__(self, port: int, number: int, pace: float) -> None:
        self.ended = 0
        self._port = port
        self._number = number
        self._pace = pace
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Connect all, spread over one pause between octets."""
        for _ in range(self._number):
            self._tasks.append(asyncio.ensure_future(self._crawl()))
            await asyncio.sleep(self._pace / self._number)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _crawl(self) -> None:
        head = b"GET http://127.0.0.1/ HTTP/1.1\r\nX-Slow: "
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                position = 0
                while True:
                    writer.write(head[position : position + 1] or b"a")
                    position += 1
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(reader.read(1), self._pace)
                        break  # it was answered, or left
            except OSError:
                pass
            finally:
                reset(writer)
            self.ended += 1


async def ordinary(port: int, origin: int, until: float, found: list[float]) -> None:
    """Ask again and again, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"
    while (began := time.monotonic()) < until:
        writer.write(request % (origin, origin))
        head = await reader.readuntil(b"\r\n\r\n")
        content = await reader.readexactly(len(CONTENT))
        if not head.startswith(b"HTTP/1.1 200 ") or content != CONTENT:
            raise AssertionError(f"an ordinary request was answered {head!r}")
        found.append(time.monotonic() - began)
    writer.close()


async def take_turn(service: Service, origin: int, seconds: float) -> Turn:
    """Let ordinary clients ask for so long."""
    found: list[float] = []
    until = time.monotonic() + seconds
    before = service.cpu()
    await asyncio.gather(
        *(ordinary(service.port, origin, until, found) for _ in range(CLIENTS))
    )
    return Turn(len(found), median(found), service.cpu() - before)


async def measure(
    slow: int,
    pace: float,
    turns: int,
    seconds: float,
    ratio: float = 1.1,
    file: str | None = None,
) -> int:
    """
    Measure, and print.

    :param slow: Slow connections.
    :param pace: Seconds between two octets of one of them.
    :param seconds: For each of the turns.
    :param ratio: The bound: 1.1 for a tenth.
    :returns: The exit status.
    """
    descriptors_at_most()
    services = Service("--quiet"), Service("--quiet")
    loop = asyncio.get_running_loop()
    origin = await loop.create_server(Origin, "127.0.0.1", 0)
    port = origin.sockets[0].getsockname()[1]
    seen: tuple[list[Turn], list[Turn]] = [], []
    crowd: Slow | None = None
    try:
        for service in services:
            service.start()
            await take_turn(service, port, 1.0)
        before = services[1].memory().rss
        crowd = Slow(services[1].port, slow, pace)
        await crowd.begin()
        for number in range(turns):
            # Each kind begins as often as the other.
            for which in (0, 1) if number % 2 else (1, 0):
                seen[which].append(await take_turn(services[which], port, seconds))
        held = services[1].memory().rss - before
    finally:
        if crowd is not None:
            await crowd.end()
        origin.close()
        for service in services:
            service.stop()
    requests = [sum(each.requests for each in kind) for kind in seen]
    cpu = [
        sum(each.cpu for each in kind) / max(1, number)
        for kind, number in zip(seen, requests, strict=True)
    ]
    print(
        table(
            ["", "requests", "median us", "CPU us/request"],
            [
                (
                    name,
                    number,
                    f"{median(each.latency for each in kind) * 1e6:.0f}",
                    f"{each_cpu * 1e6:.0f}",
                )
                for name, number, kind, each_cpu in zip(
                    ("alone", f"with {slow} slow"), requests, seen, cpu, strict=True
                )
            ],
        )
    )
    print(f"\nIt gave up on {crowd.ended} slow ones; they held {octets(held)}.")
    taken = (cpu[1] - cpu[0]) * requests[1] / (turns * seconds)
    latency = median(
        among.latency / alone.latency for alone, among in zip(*seen, strict=True)
    )
    return finish(
        [
            Bound("latency with slow ones, by that without", latency, ratio),
            Bound("part of a processor that they take", taken, ratio - 1),
        ],
        {
            "slow": slow,
            "pace": pace,
            "alone": [vars(each) for each in seen[0]],
            "with_slow": [vars(each) for each in seen[1]],
            "cpu_ratio": cpu[1] / cpu[0],
            "given_up": crowd.ended,
            "held": held,
        },
        file,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slowloris",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--slow", type=int, default=1000, help="slow connections")
    parser.add_argument(
        "--pace", type=float, default=3.0, help="seconds between their octets"
    )
    parser.add_argument("--turns", type=int, default=40, help="of each service")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each turn")
    parser.add_argument(
        "--ratio", type=float, default=1.1, help="bound: 1.1 is a tenth"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    given = parser.parse_args()
    run(
        lambda: measure(
            given.slow,
            given.pace,
            given.turns,
            given.seconds,
            given.ratio,
            given.json,
        )
    )


if __name__ == "__main__":
    main()
