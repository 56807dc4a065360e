"""Show how far a download is: a bar by tqdm, or lines."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from coda_twisted.commands.console import Console

__all__ = ["Shows", "in_units", "progress_for"]

INTERVAL = 1.0
"""Seconds between two lines."""


class Shows(Protocol):
    """Shows progress."""

    def show(self, size: int, total: int | None) -> None:
        """Show that *size* octets of *total* are there."""

    def close(self) -> None:
        """Leave a clean line."""


class Nothing:
    """Shows nothing: to a log file a bar is noise."""

    def show(self, size: int, total: int | None) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Leave nothing."""


class Lines:
    """Shows a line every second, for a terminal without tqdm."""

    def __init__(self, console: Console, clock: IReactorTime) -> None:
        self._console = console
        self._clock = clock
        self._next = clock.seconds() + INTERVAL

    def show(self, size: int, total: int | None) -> None:
        """Show a line, if it is time."""
        now = self._clock.seconds()
        if now >= self._next:
            self._next = now + INTERVAL
            whole = "" if total is None else f" of {in_units(total)}"
            self._console.say(f"{in_units(size)}{whole}")

    def close(self) -> None:
        """Leave the lines."""


class Bar:
    """Shows a bar."""

    def __init__(self, console: Console, tqdm: Any) -> None:
        self._console = console
        self._tqdm = tqdm
        self._bar: Any = None

    def show(self, size: int, total: int | None) -> None:
        """Draw it; tqdm knows when that is worth it."""
        if self._bar is None:
            self._bar = self._tqdm(
                total=total,
                initial=size,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                file=self._console.err,
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.update(size - self._bar.n)

    def close(self) -> None:
        """Wipe it away."""
        if self._bar is not None:
            self._bar.close()


def progress_for(console: Console, clock: IReactorTime, *, quiet: bool) -> Shows:
    """Choose what *console* can show."""
    if quiet or not console.live:
        return Nothing()
    try:
        tqdm = import_module("tqdm").tqdm
    except ImportError:
        return Lines(console, clock)
    tqdm.monitor_interval = 0  # no thread that watches whether we are stuck
    return Bar(console, tqdm)


def in_units(size: int) -> str:
    """Write a number of octets for people."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}" if unit != "B" else f"{size} B"
        value /= 1024
    return f"{value:.1f} TiB"
