"""``python -m benchmarks``: measure everything that is here, side by side."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import library, machine, report, service
from benchmarks.descriptors import raise_limit
from benchmarks.figures import Figures
from benchmarks.measures import FULL, MEASURES, NO_PROXY, QUICK, Bench, Origin, Scale
from benchmarks.measures import side_by_side as run_side_by_side
from benchmarks.peers import PEERS, Peer, Running, described, start_upstreams
from benchmarks.targets import TARGETS
from tests.integration.servers import ServerError

OTHERS = ("library", "workers", "start", "import", "idle")


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


def say(line: str) -> None:
    """Tell how far it has come."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


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


def start_peers(peers: Sequence[Peer], missing: list[str]) -> list[Running]:
    """Start what is there; say what is not."""
    upstreams = None
    if any(peer.upstream for peer in peers):
        upstreams = start_upstreams()
    running = []
    for peer in peers:
        program = peer.find()
        if program is None or (peer.upstream and upstreams is None):
            missing.append(f"{peer.name}: {peer.package}")
            continue
        say(f"starting {peer.name}")
        above = upstreams if peer.upstream else None
        try:
            running.append(Running(peer, peer.start(program, above)))
        except ServerError as error:
            if not peer.program:
                raise  # it is ours
            missing.append(f"{peer.name}: it does not start ({error})")
    return running


def measure(arguments: argparse.Namespace, scale: Scale) -> dict[str, Any]:
    """Run everything that was asked for."""
    figures = Figures()
    origin = Origin()
    origin.start()
    bench = Bench(origin, scale, figures)
    missing: list[str] = []
    notes: list[str] = []
    versions: dict[str, str] = {}
    rows: list[str] = []
    names = [name for name in arguments.measures if name in MEASURES]
    if names:
        running = start_peers(chosen(arguments.peers), missing)
        versions = {each.name: described(each.peer) for each in running}
        run_side_by_side(bench, running, names, say)
        for each in running:
            if not each.server.running:
                figures.fault(each.name, "ended by itself")
            each.server.stop()
        notes += [
            f"{each.name} keeps no connection: a new one for each request"
            for each in running
            if not each.peer.keeps
        ]
        rows = [NO_PROXY, *(each.name for each in running)]
    if "library" in arguments.measures:
        missing += [f"{name}: pip install {name}" for name in library.missing()]
        library.measure(bench, say)
    if "workers" in arguments.measures:
        if service.has_workers():
            service.workers(bench, say)
        else:
            notes.append("workers: this version of the service has no --workers")
    for name, run in (
        ("start", service.start),
        ("import", service.imports),
        ("idle", service.idle),
    ):
        if name in arguments.measures:
            run(bench, say)
    origin.stop()
    notes += [
        f"{row} was slow, and is counted as far as it had come: "
        + ", ".join(sorted(which))
        for row, which in figures.cut_off.items()
    ]
    verdicts = [target.judge(figures) for target in TARGETS]
    return {
        "machine": machine.describe(),
        "versions": versions,
        "scale": dataclasses.asdict(scale),
        "missing": missing,
        "notes": notes,
        "rows": rows,
        **figures.as_json(),
        "targets": [
            {
                "title": verdict.target.title,
                "figure": verdict.figure,
                "limit": verdict.target.limit,
                "met": verdict.met,
            }
            for verdict in verdicts
        ],
        "_tables": tables(figures, rows, verdicts),
        "_faults": report.faults(figures),
    }


def tables(figures: Figures, rows: Sequence[str], verdicts: Any) -> Any:
    """Make the tables that have something to show."""
    libraries = figures.rows("request_us")
    found = {}
    if rows:
        found["The service (in parentheses: the ratio to squid)"] = (
            report.service_table(figures, rows)
        )
    if libraries:
        found["The library, 16 at once (the ratio to Twisted's Agent)"] = report.table(
            figures, libraries, report.LIBRARY, "Twisted Agent"
        )
    busy = figures.rows("busy_rate")
    if busy:
        found["Workers (the ratio to one)"] = report.table(
            figures, busy, report.WORKERS, "coda, 1 worker"
        )
    found["Targets"] = report.targets_table(verdicts)
    return found


def show(result: dict[str, Any], *, rst: bool) -> None:
    """Print the tables and what has to be said beside them."""
    print(report.machine_line(result["machine"]))
    for title, rows in result["_tables"].items():
        if rst:
            print(f"\n{title}:\n\n{report.rst_table(rows)}")
        else:
            print(f"\n{title}\n\n{report.text(rows)}")
    sections = (
        ("What went wrong while measuring", result["_faults"]),
        ("Not installed, hence not measured", result["missing"]),
        ("Versions", [f"{k}: {v}" for k, v in result["versions"].items() if v]),
        ("Notes", result["notes"]),
    )
    for title, lines in sections:
        if lines:
            print(f"\n{title}:\n")
            for line in lines:
                print(f"- {line}")


def main() -> int:
    """Run; a target that is missed is no failure."""
    arguments = parse()
    scale = QUICK if arguments.quick else FULL
    if arguments.rounds:
        scale = dataclasses.replace(scale, rounds=arguments.rounds)
    raise_limit()
    begin = time.monotonic()
    try:
        result = measure(arguments, scale)
    except ServerError as error:
        print(f"It broke: {error}", file=sys.stderr)
        return 1
    result["seconds"] = round(time.monotonic() - begin)
    show(result, rst=arguments.rst)
    if arguments.json:
        public = {key: result[key] for key in result if not key.startswith("_")}
        arguments.json.write_text(json.dumps(public, indent=1) + "\n")
    say(f"done in {result['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
