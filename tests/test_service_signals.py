"""Tests for :mod:`coda_twisted.service.signals`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from coda_twisted.service import signals
from coda_twisted.service.signals import Signals


@implementer(IReactorFromThreads)
class Reactor(MemoryReactorClock):
    """A reactor that is told things from signal handlers."""

    def callFromThread(self, call: Callable[[], None]) -> None:  # type: ignore[override]
        call()


class SignalsTests(SynchronousTestCase):
    """Signals are heard while the service lives, and no longer."""

    def setUp(self) -> None:
        self.numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
        self.before = [signal.getsignal(number) for number in self.numbers]
        self.heard: list[str] = []
        self.reactor = Reactor()
        self.signals = Signals(self.reactor)
        self.addCleanup(self.signals.restore)

    def hang_up(self) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    def test_reload(self) -> None:
        """SIGHUP reloads."""
        self.patch(signals, "has_terminal", lambda: False)
        self.signals.on_hang_up(lambda: self.heard.append("reload"))
        self.hang_up()
        self.hang_up()
        self.assertEqual(self.heard, ["reload", "reload"])

    def test_terminal(self) -> None:
        """With a terminal it reloads, too; without the one there was it is the end."""
        there = True
        self.patch(signals, "has_terminal", lambda: there)
        self.signals.on_hang_up(lambda: self.heard.append("reload"))
        self.hang_up()
        self.assertEqual(self.heard, ["reload"])
        there = False
        self.hang_up()
        self.assertEqual(self.heard, ["reload"])
        self.assertTrue(self.reactor.hasStopped)

    def test_end(self) -> None:
        """While the service ends, both signals that end programs cut."""
        self.signals.on_end(lambda: self.heard.append("cut"))
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        self.assertEqual(self.heard, ["cut", "cut"])

    def test_restored(self) -> None:
        """In the end all is as it was."""
        self.signals.on_hang_up(lambda: None)
        self.signals.on_end(lambda: None)
        self.signals.on_end(lambda: None)
        self.signals.restore()
        after = [signal.getsignal(number) for number in self.numbers]
        self.assertEqual(after, self.before)

    def test_elsewhere(self) -> None:
        """A reactor that cannot be told anything is left alone."""
        Signals(MemoryReactorClock()).on_end(lambda: None)
        after = [signal.getsignal(number) for number in self.numbers]
        self.assertEqual(after, self.before)
