"""
How much processor time a server has used.

Linux charges a process's clock in nanoseconds, for all threads that it has and has
had.  ``/proc/PID/stat`` rounds the same figure to ticks of 10 ms, and the
``schedstat`` files of the tasks lose what ended threads have used; cntlm makes a
thread for each connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Stat", "descendants", "parse_stat", "tree_ns", "tree_pids"]

_CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3), in linux/posix-timers.h
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stat:
    """
    What is needed of proc(5)'s ``/proc/PID/stat``.

    :ivar reaped: Ticks that ended and awaited children have used.
    """

    pid: int
    parent: int
    session: int
    reaped: int


def parse_stat(text: str) -> Stat:
    """Read one line; the name in parentheses may hold anything."""
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(")")[2].split()
    # fields[0] is the third of proc(5)'s numbering: state.
    return Stat(int(pid), int(fields[1]), int(fields[3]), sum(map(int, fields[13:15])))


def descendants(root: int, stats: Iterable[Stat]) -> list[Stat]:
    """Find *root*, all below it, and all of its session, whose parents may be gone."""
    every = list(stats)
    children: dict[int, list[Stat]] = {}
    for stat in every:
        children.setdefault(stat.parent, []).append(stat)
    found: dict[int, Stat] = {}
    waiting = [stat for stat in every if root in (stat.pid, stat.session)]
    while waiting:
        stat = waiting.pop()
        if stat.pid not in found:
            found[stat.pid] = stat
            waiting.extend(children.get(stat.pid, ()))
    return list(found.values())


def tree_ns(root: int) -> int:
    """
    Add up what *root*, the leader of a session, and its children have used, in ns.

    Children that were awaited count in ticks of 10 ms.
    """
    total = 0
    for stat in descendants(root, _all_stats()):
        try:
            total += time.clock_gettime_ns((~stat.pid << 3) | _CPUCLOCK_SCHED)
        except OSError:
            continue  # it has just ended
        total += stat.reaped * _TICK_NS
    return total


def tree_pids(root: int) -> list[int]:
    """Name *root* and its children."""
    return [stat.pid for stat in descendants(root, _all_stats())]


def _all_stats() -> list[Stat]:
    stats = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stats.append(parse_stat((entry / "stat").read_text()))
            except (OSError, ValueError):
                continue
    return stats
