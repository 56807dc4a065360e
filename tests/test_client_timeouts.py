"""Tests for :mod:`coda_twisted.client.timeouts`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.client.timeouts import Watchdog
from coda_twisted.errors import PhaseTimeout


class WatchdogTests(SynchronousTestCase):
    """One timer watches whatever phase a connection is in."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[PhaseTimeout] = []
        self.watchdog = Watchdog(self.clock, self.expired.append)

    def test_expires(self) -> None:
        """A phase without progress ends with an error that names it."""
        self.watchdog.start("head", 10)
        self.clock.advance(10)
        [error] = self.expired
        self.assertEqual((error.phase, error.seconds), ("head", 10))
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_progress_costs_no_timer(self) -> None:
        """Progress puts the end off without touching the timer."""
        self.watchdog.start("body", 10)
        [call] = self.clock.getDelayedCalls()
        self.clock.advance(6)
        self.watchdog.touch()
        self.assertEqual(self.clock.getDelayedCalls(), [call])
        self.clock.advance(6)
        self.assertEqual(self.expired, [])
        self.clock.advance(4)
        self.assertEqual(len(self.expired), 1)

    def test_rest(self) -> None:
        """Nothing expires while nothing is watched."""
        self.watchdog.start("head", 10)
        self.watchdog.rest()
        self.watchdog.touch()
        self.clock.advance(20)
        self.assertEqual(self.expired, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_limit(self) -> None:
        """A phase without a limit sets no timer."""
        self.watchdog.start("body", None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shorter_phase_after_a_longer(self) -> None:
        """A shorter phase ends in time though a longer timer was pending."""
        self.watchdog.start("head", 100)
        self.watchdog.start("expect", 1)
        self.clock.advance(1)
        self.assertEqual([error.phase for error in self.expired], ["expect"])

    def test_longer_phase_after_a_shorter(self) -> None:
        """A longer phase is not ended by the shorter one's timer."""
        self.watchdog.start("expect", 1)
        self.watchdog.start("head", 100)
        self.clock.advance(99)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual([error.phase for error in self.expired], ["head"])

    def test_close(self) -> None:
        """After the end no timer is left."""
        self.watchdog.start("head", 10)
        self.watchdog.close()
        self.watchdog.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
