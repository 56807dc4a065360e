"""
How much memory the service holds for peers that do not keep up, or never end.

First 200 clients that stop reading an endless response, and 200 that upload to a
server that stops reading, all at once: half of the messages with Content-Length, half
in chunks.  Then everything that could go on for ever - a head, the extension of a
chunk, trailers, interim responses, requests in advance - from a client and from a
server.  Memory is the service's own (smaps_rollup of proc(5)); what the kernel holds
in sockets is not in it.

    python -m benchmarks.bounded
    python -m benchmarks.bounded --transfers 20    # the short form
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.harness import (
    KIB,
    MIB,
    Bound,
    Memory,
    Service,
    Serving,
    descriptors_at_most,
    finish,
    octets,
    reset,
    run,
    table,
)

__all__ = ["measure"]

GIB = 1 << 30
BLOCK = bytes(range(251)) * 261  # 65,511 octets; 251 divides no buffer's size

SMALL = 64 * KIB
"""Of the measuring side's socket buffers, so that transfers stall soon."""

ENDLESS_GROWTH = 1 * MIB
"""How much the memory may grow for one peer that never ends."""

PATIENCE = 20.0
"""Seconds in which a peer that never ends must be refused, or held still."""


# ---- The peers


class Origin(Serving):
    """
    An origin server that sends as much as the path says, and reads nothing.

    ``/length`` and ``/chunked`` answer with a GiB; ``/upload`` does not read what it
    is sent; ``/small`` answers at once.  The others never end: ``/head``, ``/line``,
    ``/extension``, ``/trailers``, ``/interim``.

    :ivar gate: Lets ``/upload`` read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.digested = 0

    async def start(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        await self.listen(listening, limit=SMALL)

    async def converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            await self._answer(path.decode(), reader, writer)

    def end(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def _answer(
        self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        ok = b"HTTP/1.1 200 OK\r\n"
        chunked = ok + b"Transfer-Encoding: chunked\r\n\r\n"
        match path:
            case "/small":
                writer.write(ok + b"Content-Length: 2\r\n\r\nok")
                await writer.drain()
            case "/length":
                writer.write(ok + b"Content-Length: %d\r\n\r\n" % GIB)
                await repeat(writer, BLOCK)
            case "/chunked":
                writer.write(chunked)
                await repeat(writer, b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
            case "/upload":
                await self.gate.wait()
                while True:
                    if not (piece := await reader.read(SMALL)):
                        break
                    self.digested += len(piece)
            case "/head":
                writer.write(ok)
                await repeat(writer, b"X: " + b"a" * 1000 + b"\r\n")
            case "/line":
                writer.write(ok + b"X: ")
                await repeat(writer, b"a" * 1000)
            case "/extension":
                writer.write(chunked + b"5;a=")
                await repeat(writer, b"a" * 1000)
            case "/trailers":
                writer.write(chunked + b"0\r\n")
                await repeat(writer, b"X: " + b"a" * 1000 + b"\r\n")
            case "/interim":
                early = b"Link: </" + b"a" * 1000 + b">; rel=preload\r\n\r\n"
                await repeat(writer, b"HTTP/1.1 103 Early Hints\r\n" + early)


async def repeat(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Send *piece* until the connection is lost."""
    block = piece * max(1, 16 * KIB // len(piece))
    while True:
        writer.write(block)
        await writer.drain()


async def connect(
    port: int, receive: int = SMALL
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect with small buffers, set before TCP knows of larger ones."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=sock, limit=4 * KIB)


async def ask(service: Service, origin: Origin) -> float:
    """Send an ordinary request; how long its answer took, in seconds."""
    began = time.monotonic()
    reader, writer = await connect(service.port)
    writer.write(
        b"GET http://127.0.0.1:%d/small HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"Connection: close\r\n\r\n" % (origin.port, origin.port)
    )
    answer = await reader.read()
    writer.close()
    if not (answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"ok")):
        raise AssertionError(f"an ordinary request was answered {answer[:60]!r}")
    return time.monotonic() - began


# ---- Those who do not keep up


class Stalled:
    """A transfer whose other side has stopped."""

    def __init__(self, service: Service, origin: Origin, kind: str) -> None:
        self.service = service
        self.kind = kind
        self._url = b"http://127.0.0.1:%d/" % origin.port
        self._host = b"Host: 127.0.0.1:%d\r\n" % origin.port
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self._sending: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Go as far as it goes: asyncio holds little, then the kernel's buffers."""
        self.reader, self.writer = await connect(self.service.port)
        way, _, framing = self.kind.partition(" ")
        if way == "download":
            line = b"GET %b%b HTTP/1.1\r\n" % (self._url, framing.encode())
            self.writer.write(line + self._host + b"\r\n")
            return
        fields = {
            "length": b"Content-Length: %d\r\n" % GIB,
            "chunked": b"Transfer-Encoding: chunked\r\n",
        }[framing]
        self.writer.write(
            b"PUT %bupload HTTP/1.1\r\n" % self._url + self._host + fields + b"\r\n"
        )
        piece = BLOCK if framing == "length" else b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
        self._sending = asyncio.ensure_future(self._send(piece))

    async def _send(self, piece: bytes) -> None:
        with suppress(OSError):
            await repeat(self.writer, piece)

    async def read_on(self, wanted: int) -> None:
        """Take *wanted* octets of a download in chunks, and compare them."""
        await self.reader.readuntil(b"\r\n\r\n")
        compared = 0
        while compared < wanted:
            size = int(await self.reader.readline(), 16)
            data = (await self.reader.readexactly(size + 2))[:-2]
            start = compared % len(BLOCK)
            expected = BLOCK * (2 + size // len(BLOCK))
            if data != expected[start : start + size]:
                raise AssertionError(f"wrong octets behind octet {compared}")
            compared += size

    async def end(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        reset(self.writer)


async def at_rest(service: Service, seconds: float = 2.0, limit: float = 60.0) -> None:
    """Wait until it has used next to no processor time for so long."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        before = service.cpu()
        await asyncio.sleep(seconds)
        if service.cpu() - before < 0.05 * seconds:
            return


async def stalled_transfers(
    service: Service, origin: Origin, kinds: list[str]
) -> tuple[Memory, Memory, float]:
    """
    Let transfers of all *kinds* stall, look, and let one of them go on.

    :returns: The memory before and the most of it, and the longest time that an
        ordinary request took meanwhile.
    """
    before = service.memory()
    peak = before
    transfers = [Stalled(service, origin, kind) for kind in kinds]
    watching = True
    slowest = 0.0

    async def watch() -> None:
        nonlocal peak, slowest
        while watching:
            now = service.memory()
            peak = Memory(max(peak.rss, now.rss), max(peak.pss, now.pss))
            slowest = max(slowest, await ask(service, origin))
            await asyncio.sleep(0.1)

    watcher = asyncio.ensure_future(watch())
    try:
        for transfer in transfers:
            await transfer.begin()
        await at_rest(service)
    finally:
        watching = False
        await watcher
    chunked = [each for each in transfers if each.kind == "download chunked"]
    if chunked:
        await asyncio.wait_for(chunked[-1].read_on(32 * MIB), 60)
    if any(kind.startswith("upload") for kind in kinds):
        had = origin.digested
        origin.gate.set()
        deadline = time.monotonic() + 60
        while origin.digested < had + 32 * MIB:
            if time.monotonic() > deadline:
                raise AssertionError("uploads did not go on")
            await asyncio.sleep(0.05)
    for transfer in transfers:
        await transfer.end()
    origin.gate.clear()
    return before, peak, slowest


# ---- Those that never end


@dataclass
class Endless:
    """
    Something that never ends.

    :ivar expected: What :func:`outcome` may say of it.  What a server begins may be cut
        where the client has the head already.
    """

    name: str
    act: Callable[[Service, Origin], Awaitable[str]]
    expected: tuple[str, ...]


def from_client(
    head: bytes, piece: bytes
) -> Callable[[Service, Origin], Awaitable[str]]:
    """A request that begins with *head* and goes on with *piece* for ever."""

    async def act(service: Service, origin: Origin) -> str:
        reader, writer = await connect(service.port)
        place = b"127.0.0.1:%d" % origin.port
        writer.write(head.replace(b"ORIGIN", place))
        sending = asyncio.ensure_future(repeat(writer, piece))
        try:
            return await outcome(reader)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            reset(writer)

    return act


def from_server(
    path: bytes, *, reads: bool = True
) -> Callable[[Service, Origin], Awaitable[str]]:
    """
    A response that never ends.

    :param reads: Whether the client takes what it is sent meanwhile.
    """

    async def act(service: Service, origin: Origin) -> str:
        reader, writer = await connect(service.port, receive=4 * KIB)
        writer.write(
            b"GET http://127.0.0.1:%d/%b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"Connection: close\r\n\r\n" % (origin.port, path, origin.port)
        )
        if not reads:
            await at_rest(service, 1.0, PATIENCE)
        try:
            return await outcome(reader)
        finally:
            reset(writer)

    return act


async def outcome(reader: asyncio.StreamReader) -> str:
    """
    Say how a connection ended.

    :returns: The last status that is no 1xx; ``cut`` for an end without one,
        or in the midst of a response; ``held`` if there was none in time.
    """
    seen = b""

    async def read() -> None:
        nonlocal seen
        with suppress(OSError):
            while piece := await reader.read(64 * KIB):
                seen = (seen + piece)[-256 * KIB :]

    try:
        await asyncio.wait_for(read(), PATIENCE)
    except asyncio.TimeoutError:
        return "held"
    finals = [
        part[:3] for part in seen.split(b"HTTP/1.1 ")[1:] if not part.startswith(b"1")
    ]
    if not finals or (b"chunked\r\n" in seen and not seen.endswith(b"0\r\n\r\n")):
        return "cut"
    return finals[-1].decode()


_POST = b"POST http://ORIGIN/upload HTTP/1.1\r\nHost: ORIGIN\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_GET = b"GET http://ORIGIN/small HTTP/1.1\r\nHost: ORIGIN\r\n"
_STALLED = b"GET http://ORIGIN/upload HTTP/1.1\r\nHost: ORIGIN\r\n\r\n"

_A = b"a" * 1000
_X = b"X: a\r\n"

ENDLESS = [
    Endless("request: line", from_client(b"GET http://ORIGIN/", _A), ("414",)),
    Endless("request: field", from_client(_GET + b"X: ", _A), ("431",)),
    Endless("request: fields", from_client(_GET, _X), ("431",)),
    Endless("request: empty lines", from_client(b"", b"\r\n"), ("400",)),
    Endless("request: extension", from_client(_CHUNKED + b"5;a=", _A), ("400",)),
    Endless("request: trailers", from_client(_CHUNKED + b"0\r\n", _X), ("431",)),
    Endless("requests in advance", from_client(_STALLED, _GET + b"\r\n"), ("held",)),
    Endless("response: field", from_server(b"line"), ("502",)),
    Endless("response: fields", from_server(b"head"), ("502",)),
    Endless("response: extension", from_server(b"extension"), ("502", "cut")),
    Endless("response: trailers", from_server(b"trailers"), ("502", "cut")),
    Endless("interim responses", from_server(b"interim"), ("502",)),
    Endless("the same, unread", from_server(b"interim", reads=False), ("502", "cut")),
]  # fmt: skip


@dataclass
class Ended:
    """What came of one of them."""

    name: str
    outcome: str
    right: bool
    growth: int


async def endless(service: Service, origin: Origin, case: Endless) -> Ended:
    """Try one, five at once, and see how the memory grows."""
    before = service.memory().rss
    peak = before
    acting = [asyncio.ensure_future(case.act(service, origin)) for _ in range(5)]
    while not all(each.done() for each in acting):
        await asyncio.sleep(0.05)
        peak = max(peak, service.memory().rss)
    outcomes = sorted({each.result() for each in acting})
    await ask(service, origin)
    return Ended(
        case.name,
        ", ".join(outcomes),
        all(each in case.expected for each in outcomes),
        (peak - before) // 5,
    )


# ---- The whole


async def measure(transfers: int, growth: int, file: str | None = None) -> int:
    """
    Measure, and print.

    :param transfers: Stalled downloads, and as many uploads.
    :param growth: Octets by which all of them may make the memory grow.
    :returns: The exit status.
    """
    descriptors_at_most()
    service = Service("--quiet")
    service.start()
    origin = Origin()
    await origin.start()
    try:
        kinds = [
            kind
            for number in range(transfers)
            for kind in (
                ("download length", "upload length"),
                ("download chunked", "upload chunked"),
            )[number % 2]
        ]
        # Code is loaded and each path was gone once before anything is counted.
        await asyncio.gather(*(ask(service, origin) for _ in range(20)))
        await stalled_transfers(service, origin, kinds[:4])
        await at_rest(service)
        before, peak, slowest = await stalled_transfers(service, origin, kinds)
        await at_rest(service)
        after = service.memory()
        print(
            table(
                ["", "RSS", "PSS"],
                [
                    ("before", octets(before.rss), octets(before.pss)),
                    (
                        f"{transfers} downloads and {transfers} uploads stalled",
                        octets(peak.rss),
                        octets(peak.pss),
                    ),
                    ("after them", octets(after.rss), octets(after.pss)),
                    (
                        "growth for each",
                        octets((peak.rss - before.rss) / len(kinds)),
                        octets((peak.pss - before.pss) / len(kinds)),
                    ),
                ],
            )
        )
        print()
        # In a fresh one: what was held and let go would hide what is held now.
        service.stop()
        service.start()
        await asyncio.gather(*(ask(service, origin) for _ in range(20)))
        ended = [await endless(service, origin, case) for case in ENDLESS]
        print(
            table(
                ["never-ending", "outcome", "", "RSS growth for each"],
                [
                    (
                        each.name,
                        each.outcome,
                        "right" if each.right else "WRONG",
                        octets(each.growth),
                    )
                    for each in ended
                ],
            )
        )
        worst = max(each.growth for each in ended)
        wrong = sum(not each.right for each in ended)
        grown = (peak.rss - before.rss) / MIB
        bounds = [
            Bound("growth for stalled transfers", grown, growth / MIB, "MiB"),
            Bound("longest ordinary request meanwhile", slowest, 5.0, "s"),
            Bound("never-ending ones with a wrong outcome", wrong, 0),
            Bound("growth for one", worst / MIB, ENDLESS_GROWTH / MIB, "MiB"),
        ]
        facts = {
            "transfers": transfers,
            "before": vars(before),
            "peak": vars(peak),
            "after": vars(after),
            "endless": [vars(each) for each in ended],
        }
        return finish(bounds, facts, file)
    finally:
        await origin.stop()
        service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bounded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--transfers", type=int, default=200, help="downloads, and as many uploads"
    )
    parser.add_argument(
        "--growth", type=float, default=8.0, help="bound of their memory, in MiB"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    run(lambda: measure(options.transfers, int(options.growth * MIB), options.json))


if __name__ == "__main__":
    main()
