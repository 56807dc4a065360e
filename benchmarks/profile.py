"""
``python -m benchmarks.profile``: where the service's processor time goes.

A signal comes with each millisecond of processor time, and the function that it finds
at work is noted.  What the kernel does for it is counted apart: it is work, too, that
a function of Twisted's asks for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.bench import FULL, Bench, Origin
from benchmarks.harness import table
from benchmarks.measures import run_load
from benchmarks.peers import (
    NTLM_DOMAIN,
    NTLM_PASSWORD,
    NTLM_USER,
    Peer,
    Running,
    Upstreams,
    start_upstreams,
)
from tests.integration.servers import (
    ServerProcess,
    free_port,
    python_environment,
    workspace,
)

INTERVAL = 0.001

# Looked for in this order in the path of a function's file.
LAYERS = (
    ("http1: messages", "coda_twisted/http1/"),
    ("auth: what to say to a challenge", "coda_twisted/auth/"),
    ("client: connections, pool, requests", "coda_twisted/client/"),
    ("service: the client's side, forwarding", "coda_twisted/service/"),
    ("the rest of the package", "coda_twisted/"),
    ("pyspnego", "/spnego/"),
    ("Twisted: Deferreds", "twisted/internet/defer.py"),
    ("Twisted: sockets and reactor", "twisted/"),
)
OTHERS = "Python's library (of pyspnego, mostly)"
KERNEL = "the kernel, for all of them"


@dataclass(frozen=True)
class Case:
    """
    What to look at.

    :ivar load: As ``benchmarks.loader`` knows it.
    :ivar above: Whether an NTLM proxy is above.
    """

    title: str
    load: str
    above: bool = False


CASES = {
    "get": Case("GET, 1 KiB, 16 at once", "get"),
    "latency": Case("GET, 1 KiB, one at a time", "latency"),
    "connect": Case("CONNECT, 16 at once", "connect"),
    "ntlm": Case("CONNECT through an NTLM proxy, 16 at once", "connect", above=True),
}


def serve(file: Path, options: Sequence[str]) -> None:
    """Be the service, and note what it is doing."""
    from twisted.internet import reactor

    from coda_twisted.service.lifecycle import make_service
    from coda_twisted.service.options import Options

    loop: Any = reactor
    found: Counter[str] = Counter()

    def look(_: int, frame: FrameType | None) -> None:
        if frame is not None:
            found[frame.f_code.co_filename] += 1

    def start() -> None:
        signal.signal(signal.SIGPROF, look)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    parsed = Options()
    parsed.parseOptions(list(options))
    service = make_service(parsed, loop)
    loop.callWhenRunning(service.startService)
    loop.callWhenRunning(start)
    loop.run()
    signal.setitimer(signal.ITIMER_PROF, 0)
    times = os.times()
    kernel = times.system / (times.user + times.system)
    file.write_text(json.dumps({"found": found, "kernel": kernel}))


def layer_of(path: str) -> str:
    """Name the layer of a function, by its file."""
    for name, part in LAYERS:
        if part in path:
            return name
    return OTHERS


def shares(found: dict[str, int], kernel: float) -> dict[str, float]:
    """
    Say which part of the whole each layer has.

    The kernel's part is taken from the sockets, by way of which it is asked.
    """
    total = sum(found.values())
    layers: Counter[str] = Counter()
    for path, count in found.items():
        layers[layer_of(path)] += count
    parts = {name: layers[name] / total for name in layers}
    sockets = "Twisted: sockets and reactor"
    parts[sockets] = max(parts.get(sockets, 0.0) - kernel, 0.0)
    parts[KERNEL] = kernel
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def start(case: Case, upstreams: Upstreams | None) -> tuple[Running, Path]:
    """Start the service that is looked at."""
    port = free_port()
    file = workspace() / f"profile-{port}.json"
    options = ["--quiet", "--port", str(port)]
    if case.above:
        assert upstreams is not None
        password = workspace() / f"password-{port}"
        password.write_text(NTLM_PASSWORD + "\n")
        options += [
            *("--proxy", f"http://127.0.0.1:{upstreams.ntlm}"),
            *("--proxy-type", "ntlm", "--user", f"{NTLM_DOMAIN}\\{NTLM_USER}"),
            *("--password-file", str(password)),
        ]
    command = [sys.executable, "-m", "benchmarks.profile", "--serve", str(file), "--"]
    server = ServerProcess(
        "profile", [*command, *options], [port], python_environment()
    )
    server.start()
    unknown: Callable[..., ServerProcess] = lambda *_: server  # noqa: E731
    return Running(Peer("coda", "", "", (), unknown), server), file


def look_at(case: Case, bench: Bench, upstreams: Upstreams | None) -> str:
    """Load the service, and tell what it did."""
    bench.say(case.title)
    proxy, file = start(case, upstreams)
    origin = bench.origin.echo if case.load == "connect" else bench.origin.http
    arguments: list[object] = [case.load, origin, "--seconds", 3]
    try:
        run_load(proxy, *arguments, patience=60)  # warm
        result, used = run_load(proxy, *arguments, patience=60)
    finally:
        proxy.server.stop()
    read = json.loads(file.read_text())
    each = used / result["done"] / 1000
    rows = [
        [name, f"{part * each:.0f}", f"{100 * part:.0f} %"]
        for name, part in shares(read["found"], read["kernel"]).items()
    ]
    rows.append(["together", f"{each:.0f}", ""])
    return f"{case.title}\n\n{table(['layer', 'us CPU', 'part'], rows)}\n"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description="Say in which layers the service's processor time goes.",
    )
    parser.add_argument("cases", nargs="*", default=[*CASES], help=", ".join(CASES))
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    found = parser.parse_args(arguments)
    if not found.serve and set(found.cases) - {*CASES}:
        parser.error(f"the cases are {', '.join(CASES)}")
    return found


def main() -> int:
    """Look at each case."""
    arguments = parse()
    if arguments.serve:
        serve(arguments.serve, arguments.cases)
        return 0
    origin = Origin()
    origin.start()
    bench = Bench(origin, FULL)
    cases = [CASES[name] for name in arguments.cases]
    upstreams = start_upstreams() if any(case.above for case in cases) else None
    for case in cases:
        if case.above and upstreams is None:
            print(f"{case.title}: squid is not installed")
            continue
        print(look_at(case, bench, upstreams))
    origin.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
