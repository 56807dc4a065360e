"""Tests for :mod:`coda_twisted.service.supervisor`."""

from __future__ import annotations

from twisted.internet.task import Clock

from coda_twisted.service.lifecycle import STOP_IDLE
from coda_twisted.service.supervisor import (
    LONGEST_DELAY,
    MOST_LEAVING,
    PATIENCE,
    RELOAD_IDLE,
    STEADY,
    Supervisor,
)
from tests.front import LoggedCase


class Worker:
    """A worker that does nothing but note what it is told."""

    def __init__(self, place: int, number: int) -> None:
        self.place = place
        self.number = number
        self.told: list[tuple[float | None, float]] = []
        self.killed = False

    def drain(self, seconds: float | None, idle: float) -> None:
        self.told.append((seconds, idle))

    def kill(self) -> None:
        self.killed = True


class SupervisorCase(LoggedCase):
    """Two places."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.workers: list[Worker] = []
        self.supervisor = Supervisor(self.clock, 2, self.spawn)
        self.supervisor.start()

    def spawn(self, place: int, number: int) -> Worker:
        self.workers.append(Worker(place, number))
        return self.workers[-1]

    def ready(self) -> None:
        """All that were started are ready."""
        for worker in self.supervisor.children:
            self.supervisor.ready(worker)

    def end(self, worker: Worker, how: str = "was killed by signal 9") -> None:
        self.supervisor.ended(worker, how)
        self.clock.advance(0)

    def new(self, count: int = 1) -> list[Worker]:
        """The workers that were started last."""
        return self.workers[-count:]


class ReplaceTests(SupervisorCase):
    """A place does not stay empty."""

    def test_start(self) -> None:
        """Each place gets a worker; no two have a number in common."""
        self.assertEqual([(w.place, w.number) for w in self.workers], [(0, 1), (1, 2)])

    def test_at_once(self) -> None:
        """One that dies is replaced at once, where it was, and nothing else changes."""
        self.ready()
        self.clock.advance(STEADY)
        self.end(self.workers[1])
        [successor] = self.new()
        self.assertEqual((successor.place, successor.number), (1, 3))
        self.assertEqual(self.supervisor.children, [self.workers[0], successor])
        self.assertEqual(
            self.lines[-1],
            "worker 2 was killed by signal 9; another takes its place now",
        )

    def test_again_and_again(self) -> None:
        """One that cannot begin is tried more and more seldom, but for ever."""
        waited = []
        for _ in range(12):
            self.supervisor.ended(self.workers[-1], "failed with status 1")
            count, since = len(self.workers), self.clock.seconds()
            while len(self.workers) == count:
                self.clock.advance(0.25)
            waited.append(self.clock.seconds() - since - 0.25)
        self.assertEqual(waited[:5], [0.0, 0.25, 0.75, 1.75, 3.75])
        self.assertEqual(waited[-1], LONGEST_DELAY - 0.25)
        self.assertIn(
            "failed with status 1; another takes its place in 30 s", self.lines[-1]
        )

    def test_steady(self) -> None:
        """One that served for a while is not taken for one that cannot begin."""
        for _ in range(5):
            self.ready()
            self.clock.advance(STEADY)
            self.end(self.workers[-1])
            self.assertTrue(self.lines[-1].endswith("now"))

    def test_asked_to_end(self) -> None:
        """A worker that somebody asked to end gets a successor, and only one."""
        self.ready()
        first = self.workers[0]
        self.supervisor.leaves(first)
        self.supervisor.leaves(first)
        self.assertEqual([w.place for w in self.workers], [0, 1, 0])
        self.assertEqual(first.told, [])
        self.supervisor.ready(self.workers[2])
        self.assertEqual(first.told, [(None, RELOAD_IDLE)])
        self.supervisor.leaves(first)
        self.assertEqual(len(self.workers), 3)


class ReloadTests(SupervisorCase):
    """Workers are replaced without a moment in which nobody serves."""

    def test_order(self) -> None:
        """The old one goes when the new one is there, and may take its time."""
        self.ready()
        self.supervisor.reload()
        old, new = self.workers[:2], self.new(2)
        self.assertEqual([w.told for w in old], [[], []])
        self.supervisor.ready(new[0])
        self.assertEqual([w.told for w in old], [[(None, RELOAD_IDLE)], []])
        self.clock.advance(3600)
        self.end(old[0], "ended")
        self.assertEqual(self.supervisor.children, [new[0], old[1], new[1]])
        self.assertEqual(self.lines, [])

    def test_cannot_begin(self) -> None:
        """If the new one cannot begin the old one goes on."""
        self.ready()
        self.supervisor.reload()
        self.end(self.workers[2], "failed with status 1")
        self.clock.advance(60)
        self.assertEqual(self.workers[0].told, [])
        self.assertEqual(len(self.workers), 4)
        self.assertEqual(
            self.lines,
            ["worker 3 failed with status 1 before it was ready; worker 1 goes on"],
        )

    def test_dies_meanwhile(self) -> None:
        """If the old one dies before the new one is ready, no third is started."""
        self.ready()
        self.supervisor.reload()
        self.end(self.workers[0])
        self.clock.advance(60)
        self.assertEqual(len(self.workers), 4)
        self.ready()
        self.assertEqual(self.supervisor.children[0], self.workers[2])

    def test_during_reload(self) -> None:
        """A reload while new ones begin is not forgotten; several are one."""
        self.ready()
        for _ in range(5):
            self.supervisor.reload()
        self.assertEqual(len(self.workers), 4)
        self.ready()
        self.assertEqual(len(self.workers), 6)
        self.ready()
        self.assertEqual(len(self.workers), 6)
        for worker in self.workers[:4]:
            self.assertEqual(worker.told, [(None, RELOAD_IDLE)])

    def test_during_delay(self) -> None:
        """A place that waits for its next try is filled at once."""
        for _ in range(2):
            self.end(self.workers[-1])
            self.clock.advance(0.5)
        self.end(self.workers[-1])
        count = len(self.workers)
        self.supervisor.reload()
        self.assertEqual([w.place for w in self.workers[count:]], [1])
        self.clock.advance(60)
        self.assertEqual(len(self.workers), count + 1)

    def test_too_many(self) -> None:
        """Of those that still have connections, the oldest is cut in the end."""
        self.ready()
        for _ in range(MOST_LEAVING):
            self.supervisor.reload()
            self.ready()
        first = [w for w in self.workers if w.place == 0]
        self.assertEqual([len(w.told) for w in first], [1] * MOST_LEAVING + [0])
        self.supervisor.reload()
        self.ready()
        self.assertEqual(first[0].told, [(None, RELOAD_IDLE), (0, 0)])
        self.assertEqual(len(first[1].told), 1)
        self.assertIn("they are cut", self.lines[-1])


class StopTests(SupervisorCase):
    """The end."""

    def test_all(self) -> None:
        """All are told, whatever they do, and waited for; none is replaced."""
        self.ready()
        self.supervisor.reload()
        self.supervisor.ready(self.workers[2])  # 1 leaves, 4 is coming
        stopped = self.supervisor.stop(30)
        for worker in self.workers:
            self.assertEqual(worker.told[-1], (30, STOP_IDLE))
        for worker in self.workers:
            self.assertNoResult(stopped)
            self.end(worker)
        self.successResultOf(stopped)
        self.assertEqual(len(self.workers), 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_none(self) -> None:
        """Where there are none there is nothing to wait for."""
        supervisor = Supervisor(self.clock, 2, self.spawn)
        self.successResultOf(supervisor.stop(30))
        supervisor.start()
        supervisor.reload()
        self.assertEqual(supervisor.children, [])

    def test_waiting(self) -> None:
        """A place that waits for its next try is not filled any more."""
        self.end(self.workers[1])
        self.supervisor.ended(self.workers[2], "failed")
        stopped = self.supervisor.stop(1)
        self.end(self.workers[0])
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stubborn(self) -> None:
        """One that does not end in time is killed."""
        self.ready()
        stopped = self.supervisor.stop(30)
        self.end(self.workers[0], "ended")
        self.clock.advance(30 + PATIENCE)
        self.assertEqual([w.killed for w in self.workers], [False, True])
        self.end(self.workers[1])
        self.successResultOf(stopped)

    def test_cut(self) -> None:
        """Who asks twice does not wait."""
        self.ready()
        stopped = self.supervisor.stop(30)
        self.supervisor.cut()
        for worker in self.workers:
            self.assertEqual(worker.told[-1], (0, 0))
        self.clock.advance(PATIENCE)
        for worker in self.workers:
            self.assertTrue(worker.killed)
            self.end(worker)
        self.successResultOf(stopped)
        self.supervisor.cut()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ready_too_late(self) -> None:
        """One that was coming when the end came begins no other life."""
        self.supervisor.reload()
        self.supervisor.stop(30)
        self.ready()
        self.supervisor.leaves(self.workers[0])
        self.assertEqual(len(self.workers), 2)
