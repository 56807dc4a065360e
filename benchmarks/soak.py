"""
Mixed traffic for as long as asked, and what it leaves behind.

Two services run: one reaches servers directly, one through a proxy that demands NTLM
and is killed and started again every minute.  Both get the same mixture: GET over kept
connections and others, HEAD, POST with Content-Length and in chunks, tunnels, changes
of protocol, slow readers; transfers that client or server aborts in the middle;
malformed requests and servers that cannot be reached.  Every answer is compared, octet
for octet, with what it has to be.  While the proxy is away, and a moment after,
requests by way of it may fail; they are counted apart.

Samples are taken all the time: memory, descriptors, threads, objects by type (after
a collection of garbage), timers.  A measure is flat if, after the warm-up, neither the
slope (Theil and Sen's, times the time) nor the difference between the medians of the
last third and the first passes what is allowed; only growth counts.  At the end the
traffic stops, what is idle is waited for, and what is left is compared with the
beginning.

The proxy is squid, whose logons an authority verifies; without squid it is the
package's own ``coda-fake-proxy``.

    python -m benchmarks.soak --minutes 60 --json soak.json
    python -m benchmarks.soak --minutes 0.6    # the short form
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import random
import re
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness import (
    KIB,
    MIB,
    Bound,
    Service,
    Serving,
    descriptors_at_most,
    finish,
    median,
    octets,
    reset,
    run,
    table,
)
from coda_twisted.service.pipes import PIPES_KEPT
from tests.integration import coda, squid, tools
from tests.integration.people import ALICE
from tests.integration.servers import (
    ServerError,
    ServerProcess,
    free_port,
    python_environment,
)

__all__ = ["flatness", "measure"]

CLIENTS = 12
"""Clients of each service, each with one thing to do at a time."""

RESTART = 60.0
"""Seconds between two restarts of the proxy."""

GRACE = 5.0
"""Seconds after a restart in which requests through the proxy may fail."""

PATIENCE = 60.0
"""Seconds after which an exchange hangs, which is a failure."""

LOG_LIMIT = 64 * MIB
"""Octets of a log, before it is searched and emptied."""


# ---- Content that tells where it was taken from

_PATTERN = hashlib.shake_128(b"coda").digest(65521)  # prime: no buffer's multiple


def content(start: int, size: int) -> bytes:
    """Octets from *start* on of the content that everybody knows."""
    offset = start % len(_PATTERN)
    return (_PATTERN * (2 + size // len(_PATTERN)))[offset : offset + size]


class WrongError(Exception):
    """An exchange went otherwise than it had to."""


def check(good: object, what: str) -> None:
    if not good:
        raise WrongError(what)


# ---- Reading HTTP, independently of what is tested


@dataclass
class Head:
    """The head of a message."""

    line: bytes
    fields: dict[bytes, bytes]

    @property
    def status(self) -> int:
        return int(self.line.split(b" ", 2)[1])


async def read_head(reader: asyncio.StreamReader) -> Head:
    line, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    pairs = (each.partition(b":")[::2] for each in lines)
    return Head(line, {name.lower(): value.strip() for name, value in pairs})


async def read_content(
    reader: asyncio.StreamReader, head: Head, pause: float = 0.0
) -> bytes:
    """Read content as its head frames it; *pause* seconds between pieces."""
    pieces = []
    if b"chunked" in head.fields.get(b"transfer-encoding", b""):
        while size := int((await reader.readline()).partition(b";")[0], 16):
            pieces.append(await reader.readexactly(size))
            check(await reader.readexactly(2) == b"\r\n", "a chunk has no end")
            await asyncio.sleep(pause)
        check(await reader.readline() == b"\r\n", "there is no end of trailers")
    elif b"content-length" in head.fields:
        left = int(head.fields[b"content-length"])
        while left:
            piece = await reader.read(min(left, 64 * KIB))
            if not piece:
                raise asyncio.IncompleteReadError(b"".join(pieces), left)
            pieces.append(piece)
            left -= len(piece)
            await asyncio.sleep(pause)
    elif not head.line.startswith(b"HTTP/"):
        pass
    else:
        while piece := await reader.read(64 * KIB):
            pieces.append(piece)
            await asyncio.sleep(pause)
    return b"".join(pieces)


async def write_chunks(writer: asyncio.StreamWriter, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()


# ---- The origin server


class Origin(Serving):
    """
    Answers as the path says.

    ``/length/N``, ``/chunked/N``, ``/close/N``: N octets of :func:`content`;
    ``/cut/N``: half of them; ``/reset``: nothing; ``/digest``: the digest of what was
    sent; ``/deaf``: closes in the middle of what is sent; ``/refuse``: 413 before it;
    ``/switch``: changes to a protocol that sends everything back.
    """

    # ValueError is of a chunk's size, where the stream has ended.
    FAULTS = (*Serving.FAULTS, ValueError)

    async def start(self) -> None:
        await self.listen(socket.create_server(("127.0.0.1", 0), backlog=512))

    async def converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while await self._answer(reader, writer):
            pass

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; whether another may follow."""
        head = await read_head(reader)
        method, path, _ = head.line.split(b" ")
        _, kind, *rest = path.split(b"/")
        size = int(rest[0]) if rest else 0
        ok = b"HTTP/1.1 200 OK\r\n"
        match kind:
            case b"length":
                writer.write(ok + b"Content-Length: %d\r\n\r\n" % size)
                if method != b"HEAD":
                    writer.write(content(0, size))
            case b"chunked":
                writer.write(ok + b"Transfer-Encoding: chunked\r\n\r\n")
                await write_chunks(writer, content(0, size), 10_007)
                writer.write(b"0\r\n\r\n")
            case b"close":
                writer.write(ok + b"Connection: close\r\n\r\n" + content(0, size))
                await writer.drain()
                return False
            case b"cut":
                writer.write(ok + b"Content-Length: %d\r\n\r\n" % size)
                writer.write(content(0, size // 2))
                await writer.drain()
                return False
            case b"reset":
                reset(writer)
                return False
            case b"deaf":
                await reader.read(1)
                reset(writer)
                return False
            case b"refuse":
                writer.write(
                    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n"
                    b"Content-Length: 3\r\n\r\nno\n"
                )
                await writer.drain()
                await asyncio.sleep(0.2)
                return False
            case b"switch":
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                    b"Upgrade: echo\r\n\r\n"
                )
                await echo(reader, writer)
                return False
            case _:
                data = await read_content(reader, head)
                digest = hashlib.sha256(data).hexdigest().encode()
                writer.write(ok + b"Content-Length: 64\r\n\r\n" + digest)
        await writer.drain()
        return True


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(64 * KIB):
        writer.write(data)
        await writer.drain()


# ---- What clients do


@dataclass
class Lane:
    """
    One service, and what is known of the way behind it.

    :ivar proxied: Whether an upstream proxy stands there.
    :ivar done: Exchanges that went as they had to, by kind.
    :ivar excused: Those that failed while the proxy was away, or just after.
    :ivar lost: Uploads that were answered 502 because the proxy had closed the
        connection on which they went out: POST is not sent twice (RFC 9110 9.2.2).
    :ivar wrong: The others, with what was wrong with them.
    """

    name: str
    service: Service
    origin: int
    far: int
    nowhere: int
    proxied: bool
    away_until: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    def url(self, path: str) -> bytes:
        return b"http://127.0.0.1:%d/%b" % (self.origin, path.encode())


class Talk:
    """A connection to a service."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Talk:  # noqa: PYI034 - Self is Python 3.11's
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.lane.service.port
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def ask(self, method: str, path: str, *lines: bytes) -> None:
        """Send the head of a request."""
        fields = b"".join(line + b"\r\n" for line in lines)
        host = b"Host: 127.0.0.1:%d\r\n" % self.lane.origin
        line = method.encode() + b" " + self.lane.url(path) + b" HTTP/1.1\r\n"
        self.writer.write(line + host + fields + b"\r\n")

    async def head(self, expected: int = 200) -> Head:
        found = await read_head(self.reader)
        why = found.fields.get(b"proxy-status", b"").decode()
        check(found.status == expected, f"{found.status} instead of {expected}: {why}")
        return found

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Act = Callable[[Lane, random.Random], Awaitable[None]]


async def kept(lane: Lane, chance: random.Random) -> None:
    """Several requests over one connection."""
    async with Talk(lane) as talk:
        for _ in range(chance.randint(2, 8)):
            size = chance.choice([0, 1, 1000, 20_000])
            talk.ask("GET", f"{chance.choice(['length', 'chunked'])}/{size}")
            data = await read_content(talk.reader, await talk.head())
            check(data == content(0, size), "wrong content")


async def once(lane: Lane, chance: random.Random) -> None:
    """A request over a connection of its own, the answer large or without length."""
    size = chance.choice([1000, 100_000, 2_000_000])
    async with Talk(lane) as talk:
        path = chance.choice(["length", "chunked", "close"])
        talk.ask("GET", f"{path}/{size}", b"Connection: close")
        data = await read_content(talk.reader, await talk.head())
        check(data == content(0, size), "wrong content")
        check(await talk.reader.read() == b"", "there is more than the answer")


async def head_only(lane: Lane, chance: random.Random) -> None:
    async with Talk(lane) as talk:
        for _ in range(2):
            talk.ask("HEAD", "length/1000")
            head = await talk.head()
            check(head.fields.get(b"content-length") == b"1000", "a HEAD's length")


async def upload(lane: Lane, chance: random.Random) -> None:
    """POST with Content-Length, or in chunks."""
    data = content(chance.randrange(1000), chance.choice([1, 5000, 200_000, 2_000_000]))
    async with Talk(lane) as talk:
        if chance.random() < 0.5:
            talk.ask("POST", "digest", b"Content-Length: %d" % len(data))
            await talk.send(data)
        else:
            talk.ask("POST", "digest", b"Transfer-Encoding: chunked")
            await write_chunks(talk.writer, data, chance.choice([997, 65536]))
            await talk.send(b"0\r\n\r\n")
        answer = await read_content(talk.reader, await talk.head())
        check(answer == hashlib.sha256(data).hexdigest().encode(), "a wrong digest")


async def tunnel(lane: Lane, chance: random.Random) -> None:
    """CONNECT, and back what was sent; ended by either side."""
    async with Talk(lane) as talk:
        await open_tunnel(talk)
        for _ in range(chance.randint(1, 3)):
            await back(talk, content(0, chance.choice([10, 5000, 300_000])))


async def open_tunnel(talk: Talk) -> None:
    place = b"127.0.0.1:%d" % talk.lane.far
    talk.writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place))
    await talk.head()


async def back(talk: Talk, data: bytes) -> None:
    sending = asyncio.ensure_future(talk.send(data))
    try:
        check(await talk.reader.readexactly(len(data)) == data, "a wrong echo")
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def cut_tunnel(lane: Lane, chance: random.Random) -> None:
    """A tunnel that the client resets while it is in use."""
    async with Talk(lane) as talk:
        await open_tunnel(talk)
        await talk.send(content(0, 300_000))
        await talk.reader.read(1000)
        reset(talk.writer)


async def switch(lane: Lane, chance: random.Random) -> None:
    """Change to another protocol, as WebSocket does."""
    async with Talk(lane) as talk:
        talk.ask("GET", "switch", b"Connection: Upgrade", b"Upgrade: echo")
        await talk.head(101)
        for _ in range(3):
            await back(talk, content(0, chance.choice([1, 5000])))


async def slow_reader(lane: Lane, chance: random.Random) -> None:
    """A client that takes its time, with a small buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * KIB)
    sock.setblocking(False)
    where = ("127.0.0.1", lane.service.port)
    await asyncio.get_running_loop().sock_connect(sock, where)
    talk = Talk(lane)
    talk.reader, talk.writer = await asyncio.open_connection(sock=sock, limit=8 * KIB)
    try:
        talk.ask("GET", f"{chance.choice(['length', 'chunked'])}/1000000")
        data = await read_content(talk.reader, await talk.head(), 0.02)
        check(data == content(0, 1_000_000), "wrong content")
    finally:
        talk.writer.close()


async def aborted_download(lane: Lane, chance: random.Random) -> None:
    """A client that has seen enough."""
    async with Talk(lane) as talk:
        talk.ask("GET", f"{chance.choice(['length', 'chunked', 'close'])}/3000000")
        await talk.head()
        await talk.reader.readexactly(1000)
        if chance.random() < 0.5:
            reset(talk.writer)


async def aborted_upload(lane: Lane, chance: random.Random) -> None:
    """A client that is gone in the middle of what it sends."""
    async with Talk(lane) as talk:
        if chance.random() < 0.5:
            talk.ask("POST", "digest", b"Content-Length: 3000000")
            await talk.send(content(0, 200_000))
        else:
            talk.ask("POST", "digest", b"Transfer-Encoding: chunked")
            await write_chunks(talk.writer, content(0, 200_000), 10_007)
        if chance.random() < 0.5:
            reset(talk.writer)


async def cut_download(lane: Lane, chance: random.Random) -> None:
    """A server that is gone in the middle of an answer: nobody may take it for all."""
    async with Talk(lane) as talk:
        talk.ask("GET", "cut/100000")
        try:
            head = await read_head(talk.reader)
            data = await read_content(talk.reader, head)
        except (OSError, asyncio.IncompleteReadError):
            return
        check(head.status == 502, f"{len(data)} octets of a cut answer as if complete")


async def lost(lane: Lane, chance: random.Random) -> None:
    """A server that does not answer, or not to the end of the question."""
    async with Talk(lane) as talk:
        if chance.random() < 0.5:
            talk.ask("GET", "reset", b"Connection: close")
            await read_content(talk.reader, await talk.head(502))
            return
        talk.ask("POST", "deaf", b"Content-Length: 3000000", b"Connection: close")
        with suppress(OSError):
            await talk.send(content(0, 3_000_000))
        with suppress(OSError, asyncio.IncompleteReadError):
            await talk.head(502)


async def refused_upload(lane: Lane, chance: random.Random) -> None:
    """A server that says no before it has been sent everything."""
    async with Talk(lane) as talk:
        talk.ask("POST", "refuse", b"Content-Length: 3000000")
        with suppress(OSError):
            await talk.send(content(0, 100_000))
        try:
            head = await read_head(talk.reader)
        except (OSError, asyncio.IncompleteReadError):
            check(lane.proxied, "there was no answer")
            return
        # squid may find that its server is gone before it has read what it said.
        check(head.status == 413 or lane.proxied, f"{head.line!r} instead of 413")


async def malformed(lane: Lane, chance: random.Random) -> None:
    """No HTTP at all, or HTTP that two could read in two ways."""
    host = b"Host: 127.0.0.1:%d\r\n" % lane.origin
    line = b"POST " + lane.url("digest") + b" HTTP/1.1\r\n"
    both = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    chunk = b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"
    wrong = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        line + host + both,
        line + host + b"Bad Name: x\r\n\r\n",
        line + host + host + b"Connection: close\r\n\r\n",
        line + host + chunk,
    ]
    async with Talk(lane) as talk:
        await talk.send(chance.choice(wrong))
        head = await read_head(talk.reader)
        check(head.status in (400, 502), f"{head.line!r} instead of 400")
        await read_content(talk.reader, head)
        check(await talk.reader.read() == b"", "the connection stays open")


async def unreachable(lane: Lane, chance: random.Random) -> None:
    """A server that is not there, by a request or a tunnel."""
    place = b"127.0.0.1:%d" % lane.nowhere
    async with Talk(lane) as talk:
        if chance.random() < 0.5:
            line = b"GET http://%b/ HTTP/1.1\r\n" % place
        else:
            line = b"CONNECT %b HTTP/1.1\r\n" % place
        await talk.send(line + b"Host: %b\r\nConnection: close\r\n\r\n" % place)
        head = await read_head(talk.reader)
        check(head.status in (502, 503, 504), f"{head.line!r} instead of 502")
        await read_content(talk.reader, head)


ACTS: list[tuple[int, Act]] = [
    (30, kept),
    (15, once),
    (4, head_only),
    (12, upload),
    (12, tunnel),
    (4, cut_tunnel),
    (5, switch),
    (2, slow_reader),
    (4, aborted_download),
    (4, aborted_upload),
    (4, cut_download),
    (4, lost),
    (3, refused_upload),
    (5, malformed),
    (4, unreachable),
]


async def client(lane: Lane, seed: int, until: float) -> None:
    """Do one thing after another, as chance has it."""
    chance = random.Random(seed)
    weights = [weight for weight, _ in ACTS]
    acts = [act for _, act in ACTS]
    while (began := time.monotonic()) < until:
        [act] = chance.choices(acts, weights)
        try:
            await asyncio.wait_for(act(lane, chance), PATIENCE)
        except asyncio.TimeoutError:  # an OSError since Python 3.11
            what = f"{act.__name__}: hangs"
        except (WrongError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            what = f"{act.__name__}: {type(error).__name__}: {error}"
        else:
            lane.done[act.__name__] += 1
            continue
        # Its last request may have begun in time, and ended so only much later.
        if lane.proxied and began < lane.away_until and not what.endswith("hangs"):
            lane.excused[act.__name__] += 1
        elif lane.proxied and act is upload and "connection_terminated" in what:
            lane.lost += 1
        else:
            lane.wrong.append(f"{time.strftime('%H:%M:%S')} {what[:200]}")


# ---- The proxy above


class FakeUpstream(ServerProcess):
    """``twistd coda-fake-proxy``, which demands NTLM and verifies it."""

    def __init__(self) -> None:
        self.port = free_port()
        super().__init__(
            "fake-upstream",
            [
                *(sys.executable, "-c", coda.TWISTD, "--nodaemon", "--pidfile="),
                *("coda-fake-proxy", "--auth", "ntlm"),
                *("--user", f"{ALICE.down_level}:{ALICE.password}"),
                *("--listen", f"tcp:{self.port}:interface=127.0.0.1"),
            ],
            [self.port],
            python_environment(),
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def make_upstream() -> squid.SquidProxy | FakeUpstream:
    """Make the best proxy there is."""
    if tools.find("squid") is None:
        return FakeUpstream()
    return squid.SquidProxy("ntlm", helpers=10)


async def restart_now_and_then(
    upstream: squid.SquidProxy | FakeUpstream, lane: Lane, every: float
) -> None:
    """Kill the proxy and start it again, over and over."""
    while True:
        await asyncio.sleep(every)
        lane.away_until = float("inf")
        for _ in range(5):
            with suppress(ServerError):
                await asyncio.to_thread(upstream.restart, True)
                break
        lane.away_until = time.monotonic() + GRACE


# ---- Samples


def sample(service: Service, began: float) -> dict[str, Any]:
    memory = service.memory()
    inside = service.inside()
    return {
        "at": round(time.monotonic() - began, 1),
        "rss": memory.rss,
        "pss": memory.pss,
        "descriptors": service.descriptors(),
        "threads": service.threads(),
        "timers": inside["timers"],
        "objects": sum(inside["objects"].values()),
        "types": inside["objects"],
    }


MEASURES = ("rss", "pss", "descriptors", "threads", "timers", "objects")


@dataclass
class Flatness:
    """
    Whether a measure has grown.

    :ivar drift: Theil and Sen's slope, times the time that it was taken over.
    :ivar step: The median of the last third, less that of the first.
    :ivar allowed: How much of both may be.
    """

    level: float
    drift: float
    step: float
    allowed: float

    @property
    def growth(self) -> float:
        """What counts: the smaller of the two, for noise seldom has both."""
        return min(self.drift, self.step)

    @property
    def flat(self) -> bool:
        return self.growth <= self.allowed


def flatness(times: Sequence[float], values: Sequence[float], spare: float) -> Flatness:
    """
    Look whether *values* grow.

    :param spare: What may be on top of two parts in a hundred.
    """
    slopes = [
        (b - a) / (t - s)
        for (s, a), (t, b) in itertools.combinations(zip(times, values, strict=True), 2)
        if t > s
    ]
    third = max(1, len(values) // 3)
    level = median(values)
    return Flatness(
        level,
        (statistics.median(slopes) if slopes else 0.0) * (times[-1] - times[0]),
        median(values[-third:]) - median(values[:third]),
        0.02 * level + spare,
    )


# Threads are those of two pools, of ten and of eight, which fill up by and by.
SPARE = {
    "rss": 1.0 * MIB,
    "pss": 1.0 * MIB,
    "descriptors": 6,
    "threads": 18,
    "timers": 10,
    "objects": 600,
}
"""Two parts in a hundred and so much may come and go with the traffic."""


def thinned(samples: list[dict[str, Any]], most: int = 400) -> list[dict[str, Any]]:
    """Take so many of them, evenly: all pairs are compared."""
    return samples[:: max(1, -(-len(samples) // most))]


def search_log(service: Service) -> list[str]:
    """Find what nobody has foreseen in a service's log; empty a long one."""
    path = service.output
    found = re.findall(
        r"^.*(?:Traceback|Unhandled|unforeseen).*$",
        path.read_text(errors="replace"),
        re.MULTILINE,
    )
    with path.open("r+b") as file:
        file.truncate(0)
    return found


# ---- The whole


async def measure(
    minutes: float, interval: float, restart: float, seed: int, file: str | None = None
) -> int:
    """
    Let traffic run, and print what was found.

    :param interval: Seconds between samples.
    :param restart: Seconds between restarts of the proxy.
    :returns: The exit status.
    """
    descriptors_at_most()
    origin, services, upstream = Origin(), [], make_upstream()
    far = await asyncio.start_server(_far, "127.0.0.1", 0, backlog=512)
    tasks: list[asyncio.Future[Any]] = []
    unforeseen: list[str] = []
    try:
        await origin.start()
        await asyncio.to_thread(upstream.start)
        through = [
            *("--proxy", upstream.url),
            *coda.authenticating("ntlm", proxy_type="ntlm"),
        ]
        lanes = []
        for name, options in (("direct", []), ("behind NTLM", through)):
            service = Service(*options)
            services.append(service)
            service.start()
            port = far.sockets[0].getsockname()[1]
            lanes.append(
                Lane(name, service, origin.port, port, free_port(), bool(options))
            )
        began = time.monotonic()
        until = began + minutes * 60
        samples: dict[str, list[dict[str, Any]]] = {lane.name: [] for lane in lanes}
        empty = {lane.name: sample(lane.service, began) for lane in lanes}
        tasks.append(
            asyncio.ensure_future(restart_now_and_then(upstream, lanes[1], restart))
        )
        clients = [
            asyncio.ensure_future(client(lane, seed + number, until))
            for lane in lanes
            for number in range(CLIENTS)
        ]
        tasks += clients
        while time.monotonic() < until:
            await asyncio.sleep(interval)
            for lane in lanes:
                samples[lane.name].append(
                    await asyncio.to_thread(sample, lane.service, began)
                )
                if lane.service.output.stat().st_size > LOG_LIMIT:
                    unforeseen += search_log(lane.service)
        await asyncio.gather(*clients)
        tasks[0].cancel()
        # Idle connections, and timers that were cancelled, have 60 s.
        settle = 66.0 if minutes >= 2 else 3.0
        await asyncio.sleep(settle)
        left = {lane.name: sample(lane.service, began) for lane in lanes}
        for lane in lanes:
            unforeseen += search_log(lane.service)
        return conclude(
            lanes, samples, empty, left, unforeseen, minutes, settle > 60, file
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        far.close()
        await origin.stop()
        for service in services:
            service.stop()
        upstream.stop()


async def _far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The far end of tunnels."""
    with suppress(OSError):
        await echo(reader, writer)
    writer.close()


def conclude(
    lanes: list[Lane],
    samples: dict[str, list[dict[str, Any]]],
    empty: dict[str, dict[str, Any]],
    left: dict[str, dict[str, Any]],
    unforeseen: list[str],
    minutes: float,
    settled: bool,
    file: str | None,
) -> int:
    """Print what was found, and judge it."""
    kinds = [act.__name__ for _, act in ACTS]
    print(
        table(
            ["exchanges", *(f"{lane.name}, done" for lane in lanes), "excused"],
            [
                (kind, *(lane.done[kind] for lane in lanes), lanes[1].excused[kind])
                for kind in kinds
            ],
        )
    )
    bounds = []
    facts: dict[str, Any] = {"minutes": minutes, "lanes": {}}
    for lane in lanes:
        # A fifth is warm-up, and no more than five minutes.
        warm = min(300.0, minutes * 60 / 5)
        taken = thinned([each for each in samples[lane.name] if each["at"] >= warm])
        times = [each["at"] for each in taken]
        found = {
            name: flatness(times, [each[name] for each in taken], SPARE[name])
            for name in MEASURES
        }
        rows = [
            (
                name,
                *(
                    octets(number) if name in ("rss", "pss") else f"{number:.0f}"
                    for number in (
                        empty[lane.name][name],
                        each.level,
                        left[lane.name][name],
                        each.drift,
                        each.step,
                        each.allowed,
                    )
                ),
                "flat" if each.flat else "GROWS",
            )
            for name, each in found.items()
        ]
        print()
        heads = ["before", "median", "after", "drift", "step", "allowed", ""]
        print(table([f"{lane.name}, {len(taken)} samples", *heads], rows))
        grown = growing_types(taken)
        print("types that grew most: " + (", ".join(grown) or "none"))
        bounds.append(Bound(f"{lane.name}: wrong exchanges", len(lane.wrong), 0))
        if lane.proxied:
            some = 1 + lane.done["upload"] // 500
            bounds.append(Bound(f"{lane.name}: lost uploads", lane.lost, some))
        bounds.append(
            Bound(
                f"{lane.name}: measures that grow",
                sum(not each.flat for each in found.values()),
                0,
            )
        )
        if settled:
            # Pipes of two sizes are kept, two descriptors each.
            kept = 2 + 4 * PIPES_KEPT
            for name, spare in (("descriptors", kept), ("timers", 3)):
                more = left[lane.name][name] - empty[lane.name][name]
                bounds.append(Bound(f"{lane.name}: {name} left over", more, spare))
        facts["lanes"][lane.name] = {
            "done": lane.done,
            "excused": lane.excused,
            "lost": lane.lost,
            "wrong": lane.wrong,
            "flatness": {
                name: {**vars(each), "flat": each.flat} for name, each in found.items()
            },
            "before": {name: empty[lane.name][name] for name in MEASURES},
            "after": {name: left[lane.name][name] for name in MEASURES},
            "samples": [
                {name: each[name] for name in ("at", *MEASURES)} for each in taken
            ],
        }
        for line in lane.wrong[:20]:
            print(f"WRONG {line}")
    bounds.append(Bound("things unforeseen in the logs", len(unforeseen), 0))
    for line in unforeseen[:20]:
        print(f"LOG {line}")
    total = sum(sum(lane.done.values()) for lane in lanes)
    print(f"\n{total} exchanges in {minutes:g} minutes.")
    return finish(bounds, facts, file)


def growing_types(samples: list[dict[str, Any]]) -> list[str]:
    """Name the types of which there are more at the end, the most first."""
    third = max(1, len(samples) // 3)
    names = set().union(*(each["types"] for each in samples))
    grown = []
    for name in names:
        counts = [each["types"].get(name, 0) for each in samples]
        more = median(counts[-third:]) - median(counts[:third])
        if more > 5 + 0.1 * median(counts[:third]):
            grown.append((more, name))
    return [f"{name} +{more:.0f}" for more, name in sorted(grown, reverse=True)[:8]]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of traffic")
    parser.add_argument(
        "--interval", type=float, help="seconds between samples; default: by the time"
    )
    parser.add_argument(
        "--restart", type=float, help="seconds between restarts of the proxy"
    )
    parser.add_argument("--seed", type=int, default=1, help="of chance")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    given = parser.parse_args()
    seconds = given.minutes * 60
    interval = given.interval or min(10.0, max(1.0, seconds / 60))
    restart = given.restart or min(RESTART, seconds / 3)
    run(lambda: measure(given.minutes, interval, restart, given.seed, given.json))


if __name__ == "__main__":
    main()
