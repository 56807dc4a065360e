"""
What tunnels cost in which nothing happens: memory for each, and processor time.

As many as the limit of descriptors allows, 10,000 at most: the service needs two for
each, and so does this program, which plays both ends.  Memory is the service's own
(PSS of smaps_rollup, proc(5)); what the kernel holds for its sockets is not in it.

    python -m benchmarks.idle
    python -m benchmarks.idle --tunnels 500 --seconds 3    # the short form
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from benchmarks.harness import (
    KIB,
    Bound,
    Service,
    descriptors_at_most,
    finish,
    octets,
    reset,
    run,
    table,
)

__all__ = ["measure"]

SPARE = 500
"""Descriptors for everything but tunnels."""

AT_ONCE = 50
"""Tunnels that are being opened at once."""


class Far(asyncio.Protocol):
    """The far end: sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Tunnels:
    """Tunnels through one service to one far end."""

    def __init__(self, service: Service, far: int) -> None:
        self._service = service
        self._far = far
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self, number: int) -> None:
        """Open so many more, and try each once."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with turn:
                await self._one()

        await asyncio.gather(*(one() for _ in range(number)))

    async def _one(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._service.port)
        place = b"127.0.0.1:%d" % self._far
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise AssertionError(f"CONNECT was answered {head!r}")
        self._open.append((reader, writer))
        await self._try(reader, writer)

    async def _try(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"ping")
        if await asyncio.wait_for(reader.readexactly(4), 30) != b"ping":
            raise AssertionError("a tunnel did not bring back what it was given")

    async def try_some(self) -> None:
        """Find every hundredth alive."""
        for reader, writer in self._open[::100]:
            await self._try(reader, writer)

    def close(self) -> None:
        for _, writer in self._open:
            reset(writer)
        self._open.clear()


async def measure(
    tunnels: int | None, seconds: float, each: float, file: str | None = None
) -> int:
    """
    Measure, and print.

    :param tunnels: How many; as many as may be by default.
    :param seconds: For which nothing happens.
    :param each: The bound for one, in octets.
    :returns: The exit status.
    """
    limit = descriptors_at_most()
    number = min(10_000, (limit - SPARE) // 2) if tunnels is None else tunnels
    service = Service("--quiet")
    service.start()
    loop = asyncio.get_running_loop()
    far = await loop.create_server(Far, "127.0.0.1", 0, backlog=1024)
    held = Tunnels(service, far.sockets[0].getsockname()[1])
    facts: dict[str, Any] = {"tunnels": number}
    try:
        # Code is loaded, and what is made once is made, before anything is counted.
        await held.open(20)
        held.close()
        await asyncio.sleep(1.0)
        empty = service.memory()
        began = service.cpu()
        await held.open(number)
        opening = service.cpu() - began
        await asyncio.sleep(2.0)
        full = service.memory()
        resting = service.cpu()
        await asyncio.sleep(seconds)
        spent = service.cpu() - resting
        inside = await asyncio.to_thread(service.inside)
        descriptors = service.descriptors()
        await held.try_some()
        held.close()
        await asyncio.sleep(2.0)
        after = service.memory()
    finally:
        held.close()
        far.close()
        service.stop()
    per_tunnel = (full.pss - empty.pss) / number
    print(
        table(
            [f"{number} tunnels", ""],
            [
                ("PSS before", octets(empty.pss)),
                ("PSS with them", octets(full.pss)),
                ("PSS for each", octets(per_tunnel)),
                ("RSS for each", octets((full.rss - empty.rss) / number)),
                ("PSS after them", octets(after.pss)),
                ("CPU to open one", f"{opening / number * 1e6:.0f} us"),
                (f"CPU in {seconds:g} s of silence", f"{spent:.2f} s"),
                ("timers with them", inside["timers"]),
                ("descriptors", descriptors),
            ],
        )
    )
    facts.update(
        empty=vars(empty),
        full=vars(full),
        after=vars(after),
        per_tunnel=per_tunnel,
        opening=opening,
        idle_cpu=spent,
        timers=inside["timers"],
        descriptors=descriptors,
    )
    return finish(
        [
            Bound("PSS for each tunnel", per_tunnel / KIB, each / KIB, "KiB"),
            Bound("CPU in silence, of one processor", spent / seconds, 0.01),
        ],
        facts,
        file,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.idle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tunnels", type=int, help="as many as may be by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="of silence")
    parser.add_argument(
        "--each", type=float, default=4.0, help="bound for one tunnel, in KiB of PSS"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    given = parser.parse_args()
    run(lambda: measure(given.tunnels, given.seconds, given.each * KIB, given.json))


if __name__ == "__main__":
    main()
