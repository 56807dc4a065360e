"""The measures: each row by each, round by round."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cpu import tree_ns
from benchmarks.figures import Figures
from benchmarks.peers import Running
from tests.integration.servers import (
    CHECKOUT,
    ServerError,
    ServerProcess,
    free_port,
    python_environment,
)

__all__ = ["MEASURES", "Loader", "Origin", "Scale", "side_by_side"]

GIB = 1 << 30
NO_PROXY = "no proxy"


@dataclass(frozen=True)
class Scale:
    """
    How much work a run does.

    :ivar seconds: For each timed measure, in each round.
    :ivar octets: Of a large content.
    :ivar patience: Seconds after which a large content is cut off, and counted as far
        as it has come.
    :ivar requests: Of each library in each round.
    :ivar tunnels: That are held idle.
    """

    rounds: int
    seconds: float
    octets: int
    patience: float
    requests: int
    tunnels: int


QUICK = Scale(2, 0.4, 512 << 20, 1.0, 2000, 2000)
FULL = Scale(5, 1.2, 1 << 30, 4.0, 2000, 10000)


class Origin(ServerProcess):
    """The origin server."""

    def __init__(self) -> None:
        self.http, self.echo, self.bulk = (free_port() for _ in range(3))
        ports = [self.http, self.echo, self.bulk]
        command = [sys.executable, "-m", "benchmarks.origin", *map(str, ports)]
        super().__init__("origin", command, ports, python_environment())


class Loader:
    """
    One run of the load generator.

    :param arguments: As :mod:`benchmarks.load` takes them.
    :param patience: Seconds for all of it.
    """

    def __init__(self, *arguments: object, patience: float = 60.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", *map(str, arguments)],
            cwd=CHECKOUT,
            env=python_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._timer = threading.Timer(patience, self._process.kill)
        self._timer.daemon = True
        self._timer.start()

    def await_ready(self) -> None:
        """
        Wait until it is connected and warm, or has what it is to hold.

        :raises ServerError: It has failed; the text is its last line.
        """
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._fail()

    def go(self) -> None:
        """Let it work."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """
        Wait for what it has done.

        :raises ServerError: As :meth:`await_ready`.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("{"):
            self._fail()
        self.close()
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        self._timer.cancel()
        self._process.kill()
        self._process.communicate()

    def _fail(self) -> None:
        _, errors = self._process.communicate()
        self.close_timer()
        lines = errors.strip().splitlines()
        raise ServerError(lines[-1] if lines else "the load generator was too slow")

    def close_timer(self) -> None:
        """Stop watching it."""
        self._timer.cancel()


@dataclass(frozen=True)
class Bench:
    """What measures need."""

    origin: Origin
    scale: Scale
    figures: Figures


def run_load(
    proxy: Running | None, *arguments: object, patience: float
) -> tuple[dict[str, Any], int]:
    """
    Load a proxy.

    :returns: What was done, and the ns of processor time that it took the proxy.
    """
    more: list[object] = []
    if proxy is not None:
        more = ["--proxy", proxy.port, *([] if proxy.peer.keeps else ["--close"])]
    loader = Loader(*arguments, *more, patience=patience)
    loader.await_ready()
    before = tree_ns(proxy.server.pid) if proxy is not None else 0
    loader.go()
    result = loader.result()
    time.sleep(0.05)  # the last connections' ends are work, too
    used = tree_ns(proxy.server.pid) - before if proxy is not None else 0
    return result, used


def note_faults(bench: Bench, row: str, measure: str, result: dict[str, Any]) -> None:
    """Keep what went wrong."""
    for what, count in result["faults"].items():
        bench.figures.fault(row, f"{measure}: {what}", count)


def name_of(proxy: Running | None) -> str:
    """Tell the row."""
    return NO_PROXY if proxy is None else proxy.name


def get(bench: Bench, proxy: Running | None) -> None:
    """Many small requests on 16 connections."""
    seconds = bench.scale.seconds
    result, used = run_load(
        *(proxy, "get", bench.origin.http, "--seconds", seconds), patience=seconds + 40
    )
    _per_unit(bench, proxy, "get", result, used)


def connect(bench: Bench, proxy: Running | None) -> None:
    """Many tunnels, 16 at once."""
    if proxy is None or not proxy.peer.tunnels:
        return
    seconds = bench.scale.seconds
    result, used = run_load(
        *(proxy, "connect", bench.origin.echo, "--seconds", seconds),
        patience=seconds + 40,
    )
    _per_unit(bench, proxy, "connect", result, used)


def _per_unit(
    bench: Bench, proxy: Running | None, measure: str, result: dict[str, Any], used: int
) -> None:
    row = name_of(proxy)
    note_faults(bench, row, measure, result)
    if not result["done"]:
        return
    if proxy is not None:
        bench.figures.add(row, f"{measure}_us", used / result["done"] / 1000)
    bench.figures.add(row, f"{measure}_rate", result["done"] / result["seconds"])


def latency(bench: Bench, proxy: Running | None) -> None:
    """One small request after the other."""
    seconds = bench.scale.seconds
    result, used = run_load(
        *(proxy, "latency", bench.origin.http, "--seconds", seconds),
        patience=seconds + 40,
    )
    row = name_of(proxy)
    note_faults(bench, row, "latency", result)
    if proxy is not None and result["done"]:
        bench.figures.add(row, "get1_us", used / result["done"] / 1000)
    for column in ("p50_us", "p99_us"):
        if column in result:
            bench.figures.add(row, column, result[column])


def bulk(mode: str) -> Callable[[Bench, Running | None], None]:
    """Make the measure of one large content."""

    def measure(bench: Bench, proxy: Running | None) -> None:
        if mode == "tunnel" and proxy is not None and not proxy.peer.tunnels:
            return
        port = bench.origin.bulk if mode == "tunnel" else bench.origin.http
        result, used = run_load(
            *(proxy, mode, port, "--size", bench.scale.octets),
            *("--seconds", bench.scale.patience),
            patience=bench.scale.patience + 40,
        )
        row = name_of(proxy)
        note_faults(bench, row, mode, result)
        if result["faults"] or not result["octets"]:
            return
        gib = result["octets"] / GIB
        if result.get("cut_off"):
            bench.figures.slow(row, mode)
        bench.figures.add(row, f"{mode}_rate", gib / result["seconds"])
        if proxy is not None:
            bench.figures.add(row, f"{mode}_cpu", used / 1e9 / gib)

    return measure


MEASURES: dict[str, Callable[[Bench, Running | None], None]] = {
    "get": get,
    "connect": connect,
    "tunnel": bulk("tunnel"),
    "length": bulk("length"),
    "chunked": bulk("chunked"),
    "latency": latency,
}


def side_by_side(
    bench: Bench,
    running: Sequence[Running],
    names: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Run the measures; in a round each proxy has its turn."""
    for name in names:
        for number in range(bench.scale.rounds):
            say(f"{name}, round {number + 1} of {bench.scale.rounds}")
            for proxy in (None, *running):
                try:
                    MEASURES[name](bench, proxy)
                except ServerError as error:
                    bench.figures.fault(name_of(proxy), f"{name}: {error}")
