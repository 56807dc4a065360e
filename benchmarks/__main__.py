"""``python -m benchmarks``: measure everything that is here, side by side."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks import library, service
from benchmarks.bench import FULL, QUICK, Bench, Origin, Scale
from benchmarks.descriptors import raise_limit
from benchmarks.machine import describe
from benchmarks.measures import MEASURES, NO_PROXY, side_by_side
from benchmarks.peers import PEERS, Peer, Running, described, start_upstreams
from benchmarks.report import written
from benchmarks.results import Results
from benchmarks.targets import TARGETS
from tests.integration.servers import ServerError

OTHERS: dict[str, Callable[[Bench], None]] = {
    "library": library.measure,
    "workers": service.workers,
    "start": service.start,
    "import": service.imports,
    "idle": service.idle,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the service and the library beside the peers that are "
        "installed, and print tables. Nothing is installed.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="three minutes instead of fifteen"
    )
    parser.add_argument("--rounds", type=int, help="instead of 5, or 2 with --quick")
    parser.add_argument(
        "--measures",
        type=lambda value: value.split(","),
        default=[*MEASURES, *OTHERS],
        help=f"some of {','.join([*MEASURES, *OTHERS])}",
    )
    parser.add_argument(
        "--peers",
        type=lambda value: value.split(","),
        help=f"some of: {', '.join(peer.name for peer in PEERS)}; parts of names do",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything")
    parser.add_argument(
        "--rst", action="store_true", help="print the tables as reStructuredText"
    )
    found = parser.parse_args(arguments)
    unknown = set(found.measures) - {*MEASURES, *OTHERS}
    if unknown:
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    return found


def chosen(names: Sequence[str] | None) -> list[Peer]:
    """Find the peers that were asked for: a name, or all that contain it."""
    if names is None:
        return list(PEERS)
    exact = {peer.name for peer in PEERS}
    return [
        peer
        for peer in PEERS
        if any(
            name == peer.name if name in exact else name in peer.name for name in names
        )
    ]


def start_peers(bench: Bench, peers: Sequence[Peer]) -> list[Running]:
    """Start what is there; note what is not."""
    upstreams = None
    if any(peer.upstream for peer in peers):
        upstreams = start_upstreams()
    running = []
    for peer in peers:
        program = peer.find()
        if program is None or (peer.upstream and upstreams is None):
            bench.missing.append(f"{peer.name}: {peer.package}")
            continue
        bench.say(f"starting {peer.name}")
        above = upstreams if peer.upstream else None
        try:
            running.append(Running(peer, peer.start(program, above)))
        except ServerError as error:
            if not peer.program:
                raise  # it is ours
            bench.missing.append(f"{peer.name}: it does not start ({error})")
            continue
        if not peer.keeps:
            bench.notes.append(f"{peer.name} keeps no connection between requests")
    return running


def proxies(bench: Bench, peers: Sequence[Peer], names: Sequence[str]) -> list[Running]:
    """Measure the service and its peers."""
    running = start_peers(bench, peers)
    side_by_side(bench, running, names)
    for each in running:
        if not each.server.running:
            bench.figures.fault(each.name, "ended by itself")
        each.server.stop()
    return running


def measure(scale: Scale, peers: Sequence[Peer], measures: Collection[str]) -> Results:
    """Run everything that was asked for."""
    begin = time.monotonic()
    origin = Origin()
    origin.start()
    bench = Bench(origin, scale)
    names = [name for name in MEASURES if name in measures]
    running = proxies(bench, peers, names) if names else []
    for name, run in OTHERS.items():
        if name in measures:
            run(bench)
    origin.stop()
    return Results(
        bench,
        describe(),
        {each.name: described(each.peer) for each in running},
        [NO_PROXY, *(each.name for each in running)] if running else [],
        [target.judge(bench.figures) for target in TARGETS],
        time.monotonic() - begin,
    )


def main() -> int:
    """Run; a target that is missed is no failure."""
    arguments = parse()
    if not sys.platform.startswith("linux"):
        print("Only Linux tells so exactly what a process has used.", file=sys.stderr)
        return 1
    scale = QUICK if arguments.quick else FULL
    if arguments.rounds:
        scale = dataclasses.replace(scale, rounds=arguments.rounds)
    raise_limit()
    try:
        results = measure(scale, chosen(arguments.peers), arguments.measures)
    except ServerError as error:
        print(f"It broke: {error}", file=sys.stderr)
        return 1
    print(written(results, rst=arguments.rst))
    if arguments.json:
        text = json.dumps(results.as_json(), indent=1)
        arguments.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
