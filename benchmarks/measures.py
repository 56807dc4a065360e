"""The measures: each row by each, round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.bench import Bench
from benchmarks.cpu import tree_ns
from benchmarks.loader import Loader
from benchmarks.peers import Running
from tests.integration.servers import ServerError

__all__ = ["MEASURES", "NO_PROXY", "side_by_side"]

GIB = 1 << 30
NO_PROXY = "no proxy"


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
) -> None:
    """Run the measures; in a round each proxy has its turn."""
    for name in names:
        for number in range(bench.scale.rounds):
            bench.say(f"{name}, round {number + 1} of {bench.scale.rounds}")
            for proxy in (None, *running):
                try:
                    MEASURES[name](bench, proxy)
                except ServerError as error:
                    bench.figures.fault(name_of(proxy), f"{name}: {error}")
