"""What every measure needs: how much work, the origin server, and where to write."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from benchmarks.figures import Figures
from tests.integration.servers import ServerProcess, free_port, python_environment

__all__ = ["FULL", "QUICK", "Bench", "Origin", "Scale"]


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


@dataclass(frozen=True)
class Bench:
    """
    One run.

    :ivar missing: What is not installed, with how to install it.
    :ivar notes: What a reader of the figures has to know.
    """

    origin: Origin
    scale: Scale
    figures: Figures = field(default_factory=Figures)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Tell how far it has come."""
        print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)
