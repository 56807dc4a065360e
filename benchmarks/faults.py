"""
The table of faults, again and again, and what is left behind after that.

``python -m benchmarks.faults --rounds 10000``, in a checkout, on Linux.  A round is one
case of :mod:`tests.integration.faults`; they are played in turn, several at once, each
on a stage of its own.  After each, its connections and pools must be as before; after
all of them the process's descriptors, timers and objects.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.faults import FAULTS, Fault
from tests.integration.stage import LIMIT, Names, Stage

reactor: Any = installed_reactor

PATIENCE = 30.0
"""Seconds after which a case hangs."""


class Run:
    """
    One run.

    :ivar dishonest: What clients saw that they should not have, or that hung.
    :ivar left: What cases left behind.
    """

    def __init__(self, rounds: int, cases: list[Fault]) -> None:
        self.rounds = rounds
        self.cases = cases
        self.played: Counter[str] = Counter()
        self.dishonest: list[str] = []
        self.left: list[str] = []
        self._numbers = count()

    async def lane(self, stage: Stage) -> None:
        """Play cases on one stage until enough were played on all."""
        while (number := next(self._numbers)) < self.rounds:
            fault = self.cases[number % len(self.cases)]
            before = stage.connections()
            try:
                await stage.run(fault.run, PATIENCE)
            except Exception as error:
                self.dishonest.append(f"{fault.name}: {type(error).__name__} {error}")
            self.played[fault.name] += 1
            # Lanes share the process: what is not theirs is counted at the end.
            excess = await stage.settle(before)
            if excess:
                self.left.append(f"{fault.name}: {excess}")


def memory() -> int:
    """Kibibytes of this process in memory (VmRSS of proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


async def main(options: argparse.Namespace) -> int:
    cases = [fault for fault in FAULTS if not fault.slow]
    names = Names()
    resolver = reactor.installNameResolver(names)
    stages = [Stage(reactor, options.limit, names) for _ in range(options.lanes)]
    await stages[0].sleep(0)

    async def play(rounds: int) -> Run:
        run = Run(rounds, cases)
        lanes = [Deferred.fromCoroutine(run.lane(stage)) for stage in stages]
        await gatherResults(lanes)
        return run

    # Twice the table leaves what is loaded, learnt and kept once, on each stage.
    await play(2 * len(cases) * options.lanes)
    before, rss = stages[0].traces(objects=True), memory()
    began = time.monotonic()
    run = await play(options.rounds)
    seconds = time.monotonic() - began
    await stages[0].sleep(2 * options.limit)
    after = stages[0].traces(objects=True)
    excess = after.excess(before)
    for stage in stages:
        await stage.close()
    reactor.installNameResolver(resolver)
    found = {
        "rounds": sum(run.played.values()),
        "faults": len(run.played),
        "seconds": round(seconds, 1),
        "dishonest or hanging": len(run.dishonest),
        "left behind by a round": len(run.left),
        "left behind by all": excess or "nothing",
        "descriptors": [dict(each.descriptors or ()) for each in (before, after)],
        "timers": [dict(each.timers or ()) for each in (before, after)],
        "objects": [sum((each.objects or {}).values()) for each in (before, after)],
        "RSS, KiB": [rss, memory()],
    }
    print(json.dumps(found, indent=2))
    for line in [*run.dishonest[:20], *run.left[:20]]:
        print(line)
    return int(bool(run.dishonest or run.left or excess))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--lanes", type=int, default=4, help="cases at once")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="seconds for each phase"
    )
    return parser.parse_args()


def run() -> int:
    outcome = [2]

    def done(result: Any) -> None:
        if isinstance(result, int):
            outcome[0] = result
        else:
            result.printTraceback()
        reactor.stop()

    def begin() -> None:
        Deferred.fromCoroutine(main(parse())).addBoth(done)

    reactor.callWhenRunning(begin)
    reactor.run()
    return outcome[0]


if __name__ == "__main__":
    sys.exit(run())
