"""
What the endurance measurements share: the service with a probe, and their tables.

The service is ``twistd coda-proxy`` as users start it, in a process of its own.  As a
program, ``python -m benchmarks.harness SOCKET [options of coda-proxy]``, this module
is that process: it adds to twistd a Unix socket that only its owner can reach, which
answers how many objects, timers and descriptors there are inside.  The product has no
such door.

Processes are started and ended by :mod:`tests.integration.servers`, whose guardian
ends them even if the measurement is killed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import resource
import signal
import socket
import statistics
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cpu import tree_ns
from tests.integration.servers import (
    ServerProcess,
    free_port,
    python_environment,
    workspace,
)

__all__ = [
    "KIB",
    "MIB",
    "Bound",
    "Memory",
    "Service",
    "Serving",
    "descriptors_at_most",
    "finish",
    "octets",
    "reset",
    "run",
    "table",
]

KIB = 1 << 10
MIB = 1 << 20


# ---- Servers of our own


class Serving:
    """
    A server in this process, one task for each connection.

    A subclass has :meth:`converse`.

    :ivar port: Where it listens, once it does.
    """

    FAULTS: tuple[type[BaseException], ...] = (OSError, asyncio.IncompleteReadError)
    """What a client may do to a conversation."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, listening: socket.socket, **more: Any) -> None:
        """Accept on a socket, which becomes the server's."""
        self.port = listening.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=listening, **more)

    async def stop(self) -> None:
        """Close it, and drop its connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection, to its end."""
        raise NotImplementedError

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(asyncio.CancelledError, *self.FAULTS):
            await self.converse(reader, writer)
        self._tasks.discard(task)
        self.end(writer)

    def end(self, writer: asyncio.StreamWriter) -> None:
        """Close a connection once its conversation is over."""
        writer.close()


# ---- The service


@dataclass(frozen=True)
class Memory:
    """
    What a process holds, in octets.

    :ivar rss: Resident, shared pages included.
    :ivar pss: Resident, shared pages divided among those who share them.
    """

    rss: int
    pss: int


class Service(ServerProcess):
    """
    ``twistd -n coda-proxy`` with a probe, on a free port of 127.0.0.1.

    :param options: Of coda-proxy, without the port.
    """

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.probe = workspace() / f"probe-{self.port}"
        super().__init__(
            "coda",
            [
                *(sys.executable, "-m", "benchmarks.harness", str(self.probe)),
                *("--port", str(self.port), *options),
            ],
            [self.port],
            python_environment(),
        )

    def memory(self) -> Memory:
        """Read smaps_rollup of proc(5)."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        [rss, pss] = [
            int(re.findall(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)[0])
            for name in ("Rss", "Pss")
        ]
        return Memory(rss * KIB, pss * KIB)

    def cpu(self) -> float:
        """Seconds of processor time, its own and the kernel's for it."""
        return tree_ns(self.pid) / 1e9

    def descriptors(self) -> int:
        """Count its open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def inside(self) -> dict[str, Any]:
        """
        Ask the probe.

        :returns: ``objects``, a count for each type; ``timers``, ``readers``,
            ``writers``, as numbers.
        """
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.settimeout(60)
            probe.connect(str(self.probe))
            answer = b""
            while piece := probe.recv(1 << 16):
                answer += piece
        return json.loads(answer)  # type: ignore[no-any-return]

    def threads(self) -> int:
        """Count its threads."""
        return len(os.listdir(f"/proc/{self.pid}/task"))


def _count() -> dict[str, Any]:
    """Count what is alive in this process; garbage is collected before."""
    from twisted.internet import reactor

    counted: Any = reactor
    gc.collect()
    objects = Counter(
        f"{type(each).__module__}.{type(each).__qualname__}"
        for each in gc.get_objects()
    )
    return {
        "objects": objects,
        "timers": len(counted.getDelayedCalls()),
        "readers": len(counted.getReaders()),
        "writers": len(counted.getWriters()),
        "python_threads": threading.active_count(),
    }


def _serve(probe: str, options: Sequence[str]) -> None:
    """Run twistd as its command does, and the probe beside it."""
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory, Protocol
    from twisted.scripts import twistd

    class Probe(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.write(json.dumps(_count()).encode())
            self.transport.loseConnection()

    listening: Any = reactor
    factory = Factory.forProtocol(Probe)
    factory.noisy = False
    listening.callWhenRunning(listening.listenUNIX, probe, factory, mode=0o600)
    home = Path(probe).with_suffix(".run")
    home.mkdir(exist_ok=True)
    sys.argv = [
        *("twistd", "--nodaemon", "--pidfile=", "--rundir", str(home)),
        *("coda-proxy", *options),
    ]
    twistd.run()


# ---- The measuring side


def descriptors_at_most() -> int:
    """Raise the limit of descriptors as far as it goes; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection by RST."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def run(measurement: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """
    Run a measurement to its end, and exit with its status.

    SIGTERM ends it as Ctrl-C does: what was started is stopped.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = asyncio.run(measurement())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


# ---- What it says


@dataclass(frozen=True)
class Bound:
    """
    A figure that must not be passed.

    :ivar figure: What was measured; at most *limit* is good.
    """

    name: str
    figure: float
    limit: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        """Whether it was."""
        return self.figure <= self.limit


def octets(number: float) -> str:
    """Write octets for people."""
    for unit, size in (("GiB", 1 << 30), ("MiB", MIB), ("KiB", KIB)):
        if abs(number) >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f} B"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table; columns but the first are set to the right."""
    lines = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def finish(
    bounds: Sequence[Bound], facts: dict[str, Any], file: str | None = None
) -> int:
    """
    Print how the bounds were kept, and write the JSON if asked to.

    :returns: The exit status: 1 if one was not kept.
    """
    print()
    print(
        table(
            ["bound", "measured", "at most", ""],
            [
                (
                    bound.name,
                    f"{bound.figure:.4g} {bound.unit}".strip(),
                    f"{bound.limit:.4g} {bound.unit}".strip(),
                    "kept" if bound.kept else "NOT KEPT",
                )
                for bound in bounds
            ],
        )
    )
    if file is not None:
        document = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "processors": os.cpu_count(),
            **facts,
            "bounds": [{**asdict(each), "kept": each.kept} for each in bounds],
        }
        Path(file).write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(bound.kept for bound in bounds) else 1


def median(numbers: Iterable[float]) -> float:
    """The median; of nothing, 0."""
    found = list(numbers)
    return statistics.median(found) if found else 0.0


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
