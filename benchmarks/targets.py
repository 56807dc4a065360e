"""What is to be reached, each against a peer or a bare connection of the same run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.figures import Figures

__all__ = ["TARGETS", "Target", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """
    How one target was met.

    :ivar figure: What was measured, in the target's unit; ``None`` if it, or what it
        is compared with, was not.
    """

    target: Target
    figure: float | None

    @property
    def met(self) -> bool | None:
        """Whether it was; ``None`` when that cannot be told."""
        if self.figure is None:
            return None
        if self.target.least:
            return self.figure >= self.target.limit
        return self.figure <= self.target.limit

    @property
    def word(self) -> str:
        """The same for people."""
        return {True: "met", False: "not met", None: "not measured"}[self.met]


@dataclass(frozen=True)
class Target:
    """
    One target: a figure, or its ratio to another, and the limit of it.

    :ivar base: The row to divide by, or ``""`` for the figure itself.
    :ivar base_column: The column there, if it is another.
    :ivar least: Whether the limit is one from below.
    """

    title: str
    row: str
    column: str
    limit: float
    base: str = ""
    base_column: str = ""
    least: bool = False
    unit: str = "x"

    def judge(self, figures: Figures) -> Verdict:
        """Look whether it was met."""
        if self.base:
            figure = figures.ratio(self.row, self.column, self.base, self.base_column)
        else:
            figure = figures.get(self.row, self.column)
        return Verdict(self, figure)


_NTLM = "coda > NTLM squid"

TARGETS = (
    Target("GET, 16 at once, CPU/request, to squid's", "coda", "get_us", 0.9, "squid"),
    Target("GET, 1 at a time, CPU, to squid's", "coda", "get1_us", 0.9, "squid"),
    Target("GET, p50, to squid's", "coda", "p50_us", 1.0, "squid"),
    Target("CONNECT, CPU/tunnel, to squid's", "coda", "connect_us", 0.8, "squid"),
    Target("tunnel, CPU/GiB, to squid's", "coda", "tunnel_cpu", 0.35, "squid"),
    Target(
        "body, CPU/GiB, to squid's tunnel",
        *("coda", "length_cpu", 0.35, "squid", "tunnel_cpu"),
    ),
    Target(
        "tunnel, throughput, to no proxy's",
        *("coda", "tunnel_rate", 0.85, "no proxy"),
        least=True,
    ),
    Target(
        "body, throughput, to no proxy's",
        *("coda", "length_rate", 0.85, "no proxy"),
        least=True,
    ),
    Target(
        "behind NTLM: CONNECT, CPU/tunnel, to cntlm's",
        *(_NTLM, "connect_us", 0.6, "cntlm > NTLM squid"),
    ),
    Target(
        "behind NTLM: CONNECT, CPU/tunnel, to px's",
        *(_NTLM, "connect_us", 0.25, "px > NTLM squid"),
    ),
    Target(
        "behind NTLM: GET, CPU/request, to ours with no proxy above",
        *(_NTLM, "get_us", 1.1, "coda"),
    ),
    Target(
        "behind NTLM: GET, CPU/request, to ours behind the same without NTLM",
        *(_NTLM, "get_us", 1.1, "coda > squid"),
    ),
    Target(
        "idle tunnel, PSS of the proxy", "coda, idle", "idle_kib", 4.0, unit=" KiB"
    ),
    Target(
        "library: CPU/request, to Twisted's Agent",
        *("coda Agent", "request_us", 0.6, "Twisted Agent"),
    ),
    Target(
        "library: CPU/request, to aiohttp's",
        *("coda Agent", "request_us", 1.2, "aiohttp"),
    ),
    Target(
        "library: treq on ours, to treq on Twisted's",
        *("treq on coda", "request_us", 1.0, "treq on Twisted"),
    ),
    Target(
        "two workers' CPU-bound load, to one's",
        *("coda, 2 workers", "busy_rate", 1.8, "coda, 1 worker"),
        least=True,
    ),
    Target(
        "the same, a processor for each worker",
        *("coda, 2 workers", "capacity", 1.8, "coda, 1 worker"),
        least=True,
    ),
    Target("start to first served request", "coda", "start_s", 0.6, unit=" s"),
    Target(
        "import, beyond Twisted's own", "import coda_twisted", "import_s", 0.25,
        unit=" s",
    ),
)  # fmt: skip
