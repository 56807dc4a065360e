"""What signals mean to the service: SIGHUP reloads, a second SIGTERM cuts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads

__all__ = ["Signals"]


class Signals:
    """
    Have signals call functions in the reactor's thread.

    Under a reactor that takes no calls from elsewhere, as those of tests, and outside
    the main thread signals stay what they were.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._before: dict[int, Any] = {}

    def on_hang_up(self, reload: Callable[[], None]) -> None:
        """
        Have SIGHUP reload.

        Where the terminal went away that we were started from, it still means the end.
        """
        had_terminal = has_terminal()

        def hang_up() -> None:
            if had_terminal and not has_terminal():
                self._reactor.stop()
            else:
                reload()

        self._on("SIGHUP", hang_up)

    def on_end(self, cut: Callable[[], None]) -> None:
        """Have SIGTERM and SIGINT call *cut*, while the service ends already."""
        self._on("SIGTERM", cut)
        self._on("SIGINT", cut)

    def _on(self, name: str, call: Callable[[], None]) -> None:
        number = getattr(signal, name, None)
        if number is None or not IReactorFromThreads.providedBy(self._reactor):
            return
        with suppress(ValueError):  # not in the main thread
            before = signal.signal(
                number, lambda *_: self._reactor.callFromThread(call)
            )
            self._before.setdefault(number, before)

    def restore(self) -> None:
        """Have all signals do what they did before."""
        while self._before:
            with suppress(ValueError):
                signal.signal(*self._before.popitem())


def has_terminal() -> bool:
    """Say whether this process has a terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True
